import shutil
from collections.abc import Callable
from pathlib import Path

import hydra
import pytest
from omegaconf import OmegaConf

from thaw import Run, compose, train
from thaw.errors import ThawError


def test_options_mean_what_they_do_on_the_command_line() -> None:
    config = compose("strategy=gradual", "dataset=folder", "dataset.root=photos (1)", "optimizer.lr=0.5")
    assert (config.strategy.name, config.strategy.head_epochs, config.trainer.max_epochs) == ("gradual", 10, 15)
    assert (config.dataset.root, config.optimizer.lr) == ("photos (1)", 0.5)


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("strategy=frosen", r"strategy must be one of .* Did you mean 'frozen'\?"),
        ("optimizer.lrr=1", "optimizer.lrr is not an option. .*"),
        ("head.dropout=2", r"head.dropout must be in \[0, 1\), got 2.0."),
    ],
)
def test_a_mistake_is_told_in_one_sentence(option: str, message: str) -> None:
    with pytest.raises(ThawError, match=f"^{message}"):
        compose(option)


def test_a_list_of_options_is_told_how_to_be_given() -> None:
    with pytest.raises(ThawError, match=r"^compose takes options one by one, as compose\("):
        compose(["seed=1"])  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["folder", "stream"])
def test_where_images_of_ones_own_lie_has_to_be_said(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    with pytest.raises(ThawError) as caught:
        compose(f"dataset={name}")
    assert str(caught.value) == f"dataset={name} does not tell where the images lie: add dataset.root=FOLDER."
    monkeypatch.setenv("THAW_DATA", "elsewhere")  # where the data sets lie that have names
    with pytest.raises(ThawError, match="does not tell where the images lie"):
        compose(f"dataset={name}")
    assert compose("dataset=hymenoptera").dataset.root == "elsewhere"


@pytest.mark.parametrize("options", [("dataset.root=data",), ("dataset.root=${oc.env:HOME}",), ("dataset.csv=a.csv",)])
def test_said_is_any_root_or_a_csv_file(options: tuple[str, ...]) -> None:
    assert compose("dataset=folder", *options).dataset.name == "folder"


@pytest.mark.parametrize("typed", [["strategy=scratch", "optimizer.lr=0.5"], None], ids=["a shell", "Python"])
def test_a_run_is_gone_on_with_by_the_options_that_it_has_recorded(
    changed_run: Callable[[str, object], Run], image_folder: Path, typed: list[str] | None
) -> None:
    run = changed_run("optimizer.lr", 0.125)
    if typed:
        OmegaConf.save(typed, run.folder / "overrides.yaml")
    with pytest.raises(ThawError, match=r"is finished\. To train it for longer, add trainer\.max_epochs=N\.$"):
        compose(f"resume={run.folder}")
    config = compose(f"resume={run.folder}", "trainer.max_epochs=3", "head.dropout=0.5")
    assert (config.trainer.max_epochs, config.head.dropout, config.resume) == (3, 0.5, str(run.folder))
    assert (config.optimizer.lr, config.backbone.weights, config.strategy.from_scratch) == (0.125, None, True)
    assert config.dataset.root == str(image_folder)


@pytest.mark.slow
def test_so_it_is_trained_for_longer(finished_run: Run, tmp_path: Path) -> None:
    folder = shutil.copytree(finished_run.folder, tmp_path / "run")
    summary = train(compose(f"resume={folder}", "trainer.max_epochs=3"), folder)
    assert (summary["epochs"], summary["command"]) == (3, None)


def test_presets_have_to_be_there(tmp_path: Path) -> None:
    with pytest.raises(ThawError, match="There are no presets in "):
        compose(conf=tmp_path)


@pytest.mark.parametrize(
    ("strategy", "max_epochs", "expected"),
    [
        ("gradual", 2, (1, 1)),
        ("gradual", 3, (2, 1)),
        ("gradual", 5, (3, 1)),
        ("gradual", 10, (7, 2)),
        ("gradual", 15, (10, 3)),
        ("gradual", 100, (10, 3)),
        ("discriminative", 5, (3, 0)),
        ("discriminative", 15, (10, 0)),
        ("finetune", 5, (0, 0)),
    ],
)
def test_a_short_training_leaves_the_backbone_some_epochs(
    strategy: str, max_epochs: int, expected: tuple[int, int]
) -> None:
    options = compose(f"strategy={strategy}", f"trainer.max_epochs={max_epochs}").strategy
    assert (options.head_epochs, options.unfreeze_epochs) == expected


def test_epochs_that_are_set_are_kept() -> None:
    options = compose("strategy=gradual", "strategy.head_epochs=4", "strategy.unfreeze_epochs=5").strategy
    assert (options.head_epochs, options.unfreeze_epochs) == (4, 5)


def test_a_program_of_hydras_may_compose_too(tmp_path: Path) -> None:
    (tmp_path / "app.yaml").write_text("mine: 1\n")
    with hydra.initialize_config_dir(str(tmp_path), version_base="1.3"):
        assert compose("strategy=gradual").strategy.name == "gradual"
        assert hydra.compose("app").mine == 1
