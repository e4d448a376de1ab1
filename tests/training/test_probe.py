from pathlib import Path
from typing import Any

import pytest
import torch
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from thaw.config import BackboneConfig, Config, DatasetConfig, HeadConfig, LoggerConfig, StrategyConfig, TrainerConfig
from thaw.errors import ThawError
from thaw.model.head import make_head
from thaw.model.tensor_files import read_tensors
from thaw.run import Run
from thaw.training.probe import INVERSE_PENALTY, choose_images, fit_probe, install_probe
from thaw.training.train import train


def blobs(num_classes: int, num_views: int = 1) -> tuple[Tensor, Tensor]:
    """Features (V, N, 5) around the centre of each class, far from zero and of unequal scale, and labels (N,)."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(60) % num_classes
    centres = torch.randn(num_classes, 5, generator=generator)
    noise = torch.randn(num_views, 60, 5, generator=generator)
    return (centres[labels] + noise) * torch.tensor([1.0, 10.0, 0.1, 5.0, 100.0]) + 30, labels


@pytest.mark.parametrize("num_classes", [2, 3])
@pytest.mark.parametrize("balanced", [False, True])
def test_a_probe_is_the_logistic_regression_on_standardised_features(num_classes: int, balanced: bool) -> None:
    views, labels = blobs(num_classes)
    labels[:28] = 1
    weights = len(labels) / (num_classes * labels.bincount()) if balanced else None
    probe = fit_probe(views, labels, num_classes, weights)
    plain = ((views[0] - views[0].mean(0)) / (views[0].var(0, correction=0) + 1e-5).sqrt()).numpy()
    # Of two classes, scikit-learn has one vector of weights, whose square is twice the sum of the squares of our two.
    strength = INVERSE_PENALTY * (2 if num_classes == 2 else 1)
    regression = LogisticRegression(C=strength, class_weight="balanced" if balanced else None, max_iter=1000)
    expected = regression.fit(plain, labels).predict_proba(plain)
    assert torch.allclose(probe(views[0]).softmax(1), torch.from_numpy(expected).float(), atol=1e-3)


def test_all_views_of_an_image_are_learned_from() -> None:
    views, labels = blobs(3, num_views=2)
    together = fit_probe(views.reshape(1, -1, 5), labels.repeat(2), 3)
    assert torch.allclose(fit_probe(views, labels, 3)(views[0]), together(views[0]), atol=1e-5)


def test_rare_classes_weigh_more_where_the_options_balance_them() -> None:
    views, labels = blobs(2)
    labels[:28] = 1  # 2 and a few are left of class 0
    plain, balanced = (
        fit_probe(views, labels, 2, weights)(views[0]).argmax(1) for weights in (None, torch.tensor([10.0, 0.5]))
    )
    assert (balanced == 0).sum() > (plain == 0).sum()


def test_what_a_sampler_will_draw_more_often_counts_more_in_the_standardisation() -> None:
    views, labels = blobs(2)
    labels[:40] = 1  # 10 are left of class 0, which a balancing sampler draws five times as often
    probe = fit_probe(views, labels, 2, torch.tensor([3.0, 0.6]), is_drawn=True)
    drawn = views[0].repeat_interleave(torch.tensor([5, 1])[labels], dim=0)
    assert torch.allclose(probe[0].running_mean, drawn.mean(dim=0), rtol=1e-4)
    assert torch.allclose(probe[0].running_var, drawn.var(dim=0, correction=0), rtol=1e-4)


def test_of_more_images_than_it_bears_a_probe_takes_some_of_each_class_in_proportion(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    labels = torch.tensor([0] * 60 + [1] * 30 + [2] * 10)
    assert choose_images(labels, 5, 3).tolist() == list(range(100))
    for name, value in {"MOST_VALUES": 50 * 5, "MOST_PRODUCTS": 50 * 5 * 3}.items():
        with monkeypatch.context() as patch:
            patch.setattr(f"thaw.training.probe.{name}", value)
            chosen = choose_images(labels, 5, 3)
            assert torch.equal(chosen, choose_images(labels, 5, 3))
        assert labels[chosen].bincount().tolist() == [30, 15, 5]
        assert len(chosen.unique()) == 50
        assert chosen.tolist() != list(range(0, 100, 2))


def test_a_probe_of_some_images_says_so(
    image_folder: Path, finished_run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    monkeypatch.setattr("thaw.training.probe.MOST_VALUES", 12 * 2 * 512)
    with caplog.at_level("INFO"):
        summary = train(config_of(image_folder, finished_run, max_epochs=0, init="probe"), tmp_path / "run")
    assert "on the frozen features of 12 of 18 training images has val accuracy" in caplog.text
    assert summary["probe"]["n"] == 9


@pytest.mark.parametrize("standardize", [True, False])
@pytest.mark.parametrize("num_classes", [2, 3])
def test_a_head_with_the_probe_installed_computes_what_it_does(num_classes: int, standardize: bool) -> None:
    views, labels = blobs(num_classes)
    probe = fit_probe(views, labels, num_classes)
    head = make_head(HeadConfig(standardize=standardize, dropout=0.5), 5, num_classes).eval()
    install_probe(head, probe)
    assert torch.allclose(head(views[0]), probe(views[0]), atol=1e-3)
    assert all(parameter.requires_grad for parameter in head.parameters())


# ---- a whole training


def config_of(image_folder: Path, source: Run, max_epochs: int, **head: Any) -> Config:
    return Config(
        dataset=DatasetConfig(root=str(image_folder), image_size=64, batch_size=8),
        backbone=BackboneConfig("squeezenet1_1", str(source.folder)),
        head=HeadConfig(**head),
        strategy=StrategyConfig("finetune", backbone_factor=0.1) if max_epochs else StrategyConfig("probe"),
        trainer=TrainerConfig(max_epochs=max_epochs, accelerator="cpu", precision="32"),
        logger=LoggerConfig("csv"),
    )


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("THAW_CACHE", str(tmp_path / "cache"))


def test_the_probe_alone_is_a_finished_run(image_folder: Path, finished_run: Run, tmp_path: Path) -> None:
    summary = train(config_of(image_folder, finished_run, max_epochs=0, init="probe"), tmp_path / "run")
    assert (summary["epochs"], summary["best_epoch"], summary["params"]["trainable"]) == (0, 0, 0)
    assert summary["val"] == summary["last"]
    assert summary["val"]["loss"] == pytest.approx(summary["probe"]["loss"], rel=1e-4)
    run = Run(tmp_path / "run")
    before, after = (read_tensors(path)["state_dict"] for path in (finished_run.best, run.best))
    backbone = [name for name in before if name.startswith("backbone.")]
    assert all(torch.equal(before[name], after[name]) for name in backbone)
    classifier, data = run.load_classifier(), run.load_data(run.load_classifier())
    data.setup()
    images, labels = next(iter(data.val_dataloader()))
    assert (classifier(images).argmax(1) == labels).float().mean() > 0.5


@pytest.mark.slow
def test_a_training_says_what_the_probe_reaches_and_may_begin_from_it(
    image_folder: Path, finished_run: Run, tmp_path: Path
) -> None:
    losses = {}
    for init in ("default", "auto"):
        summary = train(config_of(image_folder, finished_run, max_epochs=1, init=init), tmp_path / init)
        assert summary["probe"]["n"] == 9
        rows = Run(tmp_path / init).metrics_csv.read_text().splitlines()
        losses[init] = float(dict(zip(rows[0].split(","), rows[1].split(","), strict=True))["train/loss"])
    assert losses["auto"] < losses["default"]


def test_an_average_of_the_weights_leaves_the_probe_as_it_is(
    image_folder: Path, finished_run: Run, tmp_path: Path
) -> None:
    config = config_of(image_folder, finished_run, max_epochs=0, init="probe")
    config.trainer.ema_decay = 0.9
    summary = train(config, tmp_path / "run")
    assert summary["last"]["loss"] == pytest.approx(summary["probe"]["loss"], rel=1e-4)


def test_small_batches_keep_the_probes_statistics() -> None:
    views, labels = torch.randn(1, 99, 4) * torch.tensor([0.01, 1, 10, 100]), torch.arange(99) % 3
    head = fit_probe(views, labels, 3)
    expected = views[0].var(dim=0, correction=0)
    head.train()(views[0, :8])
    assert torch.allclose(head[0].running_var, expected, rtol=0.2)


@pytest.mark.slow
def test_a_resumed_run_keeps_its_probes_figures(image_folder: Path, finished_run: Run, tmp_path: Path) -> None:
    config = config_of(image_folder, finished_run, max_epochs=1)
    first = train(config, tmp_path / "run")
    config.trainer.max_epochs, config.resume = 2, str(tmp_path / "run")
    second = train(config, tmp_path / "run")
    assert second["epochs"] == 2
    assert second["probe"] == first["probe"] is not None


def test_no_probe_of_random_weights(finished_run: Run) -> None:
    assert finished_run.summary["probe"] is None


@pytest.mark.parametrize(
    "options",
    [
        {"backbone": BackboneConfig(weights=None)},
        {"strategy": StrategyConfig(from_scratch=True)},
        {"features": "off"},
    ],
)
def test_a_probe_needs_features_of_pretrained_weights(options: dict[str, Any]) -> None:
    with pytest.raises(ThawError, match=r"head\.init=probe is fitted to the features of pretrained weights"):
        Config(head=HeadConfig(init="probe"), **options)


@pytest.mark.parametrize(
    "options",
    [
        {"head": HeadConfig("default")},
        {"features": "off"},
        {"head": HeadConfig("probe"), "strategy": StrategyConfig(backbone_factor=0.1)},
    ],
)
def test_no_epoch_at_all_needs_a_probe(options: dict[str, Any]) -> None:
    with pytest.raises(ThawError, match=r"trainer\.max_epochs=0 trains nothing: use strategy=probe, or raise it\."):
        Config(trainer=TrainerConfig(max_epochs=0), **options)


@pytest.mark.parametrize(
    ("options", "starts_from_probe"),
    [
        ({}, True),
        ({"features": "off"}, False),
        ({"backbone": BackboneConfig(weights=None)}, False),
        ({"strategy": StrategyConfig(backbone_factor=0.1)}, True),
        ({"strategy": StrategyConfig(backbone_factor=1.0), "features": "off"}, False),
        ({"strategy": StrategyConfig(backbone_factor=0.1, head_epochs=1)}, True),
        ({"strategy": StrategyConfig(backbone_factor=0.1, head_epochs=1, from_scratch=True)}, False),
        ({"head": HeadConfig("default")}, False),
        ({"head": HeadConfig("probe"), "strategy": StrategyConfig(backbone_factor=0.1)}, True),
    ],
)
def test_a_head_begins_as_the_probe_wherever_there_is_one(options: dict[str, Any], starts_from_probe: bool) -> None:
    assert Config(**options).starts_from_probe == starts_from_probe
