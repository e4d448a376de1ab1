from dataclasses import asdict

from thaw.config import Config, OptimizerConfig, TrainerConfig
from thaw.options import changed, flatten, typed


def test_every_option_has_its_full_name() -> None:
    flat = flatten(asdict(Config(seed=3, trainer=TrainerConfig(extra={"profiler": "simple"}))))
    assert flat["trainer.extra.profiler"] == "simple"
    assert flat["seed"] == 3
    assert flat["optimizer.lr"] == OptimizerConfig().lr
    assert "optimizer" not in flat


def test_only_what_differs_from_the_defaults_is_changed() -> None:
    assert changed(asdict(Config())) == {}
    options = asdict(Config(optimizer=OptimizerConfig(lr=0.5), seed=3)) | {"of_an_earlier_version": 1}
    assert changed(options) == {
        "optimizer.lr": (0.5, OptimizerConfig().lr),
        "seed": (3, 0),
        "of_an_earlier_version": (1, None),
    }


def test_values_are_as_one_would_type_them() -> None:
    assert [typed(value) for value in (None, True, 0.5, "auto", [64, 64])] == [
        "null",
        "true",
        "0.5",
        "auto",
        "[64, 64]",
    ]
