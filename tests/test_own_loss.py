"""A training by a loss and metrics of the user's own, and its run, which is used without them."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf

from thaw.config import Config
from thaw.errors import ThawError
from thaw.launch.composing import compose
from thaw.run import Run
from thaw.training.building import build
from thaw.training.learning_rate import find_lr
from thaw.training.train import train

MODULE = """
import torch
from torchmetrics import Metric

class Half:
    def __init__(self, share=0.5):
        self.share = share

    def __call__(self, logits, targets):
        return self.share * torch.nn.functional.cross_entropy(logits, targets, reduction="none")

class Errors(Metric):
    higher_is_better = False

    def __init__(self):
        super().__init__()
        self.add_state("number", torch.tensor(0), dist_reduce_fx="sum")

    def update(self, probabilities, labels):
        self.number += (probabilities.argmax(dim=1) != labels).sum()

    def compute(self):
        return self.number
"""
WEIGHTED = """
class Weighted(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("weights", torch.tensor([1.0, 2.0, 3.0]))

    def forward(self, logits, targets):
        return torch.nn.functional.cross_entropy(logits, targets, self.weights)
"""
LOSS, ERRORS = "loss={_target_: losses_of_mine.Half}", "+metrics.errors={_target_: losses_of_mine.Errors}"
KAPPA = "+metrics.kappa={_target_: torchmetrics.classification.MulticlassCohenKappa}"

Options = Callable[..., Config]


@pytest.fixture
def options(image_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Options:
    """The options of a short training, where a module of the user's own lies in the current folder."""
    (tmp_path / "losses_of_mine.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.delitem(sys.modules, "losses_of_mine", raising=False)
    monkeypatch.setenv("THAW_CACHE", str(tmp_path / "cache"))
    common = [
        "dataset=folder", f"dataset.root={image_folder}", "dataset.image_size=64", "dataset.batch_size=8",
        "backbone=squeezenet1_1", "backbone.weights=null", "trainer=cpu", "trainer.precision=32", "logger=csv",
        "schedule=constant", "figures=false", "trainer.max_epochs=3",
    ]  # fmt: skip
    return lambda *further: compose(*common, *further)


def weights_of(folder: str) -> dict[str, torch.Tensor]:
    state: dict[str, torch.Tensor] = torch.load(Run(folder).last, weights_only=True)["state_dict"]
    return state


def test_the_best_epoch_is_that_of_ones_own_metric_and_the_run_is_used_without_it(
    options: Options, tmp_path: Path, image_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    early = ["trainer.early_stopping=1", "trainer.monitor=val/errors", "trainer.max_epochs=9"]
    summary: dict[str, Any] = dict(train(options(LOSS, ERRORS, KAPPA, *early), "run"))
    run, errors = Run("run"), [row["val/errors"] for row in Run("run").metrics]
    assert errors[:-1] == sorted(set(errors), reverse=True)  # the one after the best does not improve
    assert (summary["best_epoch"], summary["epochs"], summary["monitor_mode"]) == (len(errors) - 1, len(errors), "min")
    for split in ("val", "last"):
        assert summary[split]["errors"] == round(9 * (1 - summary[split]["acc"]))
        assert -1 <= summary[split]["kappa"] <= 1
    assert errors[-2:] == [summary["val"]["errors"], summary["last"]["errors"]]

    (tmp_path / "losses_of_mine.py").unlink()
    monkeypatch.delitem(sys.modules, "losses_of_mine")
    assert run.evaluate().metrics()["acc"] == summary["val"]["acc"]
    assert len(run.predict(image_folder / "val")) == 9
    page = run.report().read_text()
    assert all(f"<dt>{name}</dt>" in page for name in ("errors", "kappa"))
    assert "The training loss is losses_of_mine.Half, that of val cross-entropy." in page
    assert OmegaConf.load("run/config.yaml").loss == {"_target_": "losses_of_mine.Half"}


def test_a_resumed_training_has_the_loss_and_the_metrics_that_it_began_with(options: Options) -> None:
    own = [LOSS, ERRORS, "trainer.ema_decay=0.9", "strategy=finetune", "head.dropout=0.5"]
    train(options(*own), "unbroken")
    train(options(*own, "trainer.max_epochs=2"), "broken")
    for other, key in (
        (["loss=null"], "loss"),
        (["loss={_target_: losses_of_mine.Half, share: 0.1}"], "loss"),
        ([KAPPA], "metrics"),
    ):
        with pytest.raises(ThawError, match=rf"^resume=broken began with {key}={{.*}}, and now it is .*\. Leave it"):
            train(compose("resume=broken", "trainer.max_epochs=3", *other), "broken")
    train(compose("resume=broken", "trainer.max_epochs=3"), "broken")
    unbroken, broken = weights_of("unbroken"), weights_of("broken")
    assert [name for name in unbroken if not torch.equal(unbroken[name], broken[name])] == []
    assert [row["val/errors"] for row in Run("broken").metrics] == [
        row["val/errors"] for row in Run("unbroken").metrics
    ]


def test_a_file_of_a_loss_that_has_been_changed_since_changes_no_run(options: Options) -> None:
    own = [f"hydra.searchpath=[{Path('mine').absolute()}]", "+loss=half"]
    file = Path("mine/loss/half.yaml")
    file.parent.mkdir(parents=True)
    file.write_text("_target_: losses_of_mine.Half\nshare: 0.25\n")
    config = options(*own, "trainer.max_epochs=1")
    assert config.loss == {"_target_": "losses_of_mine.Half", "share": 0.25}
    train(config, "run")
    OmegaConf.save([*own, "trainer.max_epochs=1"], "run/overrides.yaml")
    file.write_text("_target_: losses_of_mine.Half\nshare: 0.75\n")
    assert compose("resume=run", "trainer.max_epochs=2").loss == config.loss


def test_what_a_loss_computes_with_is_moved_to_the_device(options: Options, tmp_path: Path) -> None:
    with (tmp_path / "losses_of_mine.py").open("a") as module:
        module.write(WEIGHTED)
    _, model, _ = build(options("loss={_target_: losses_of_mine.Weighted}"))
    assert model.own_loss is not None
    model.own_loss.to(torch.device("meta"))
    loss = model.own_loss.function
    assert isinstance(loss, torch.nn.Module)
    assert loss.weights.device.type == "meta"


def test_the_range_test_is_of_ones_own_loss(options: Options) -> None:
    steps = ["find_lr.num_steps=40", "strategy=finetune", "optimizer.lr=1e-3"]
    plain, half = find_lr(options(*steps), "plain"), find_lr(options(*steps, LOSS), "half")
    assert half.losses[0] == pytest.approx(plain.losses[0] / 2)


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("loss={_target_: losses_of_mine.Nothing}", "loss cannot be made: .*Nothing"),
        ("loss={_target_: losses_of_mine.Half, colour: 1}", "loss cannot be made: .*colour"),
        ("loss={_target_: torch.nn.Softmax}", "loss fails on logits"),
        ("+metrics.auc={_target_: torch.nn.Softmax}", "metrics.auc must be a Metric of torchmetrics"),
    ],
)
def test_what_is_none_is_told_before_anything_is_written(options: Options, option: str, message: str) -> None:
    with pytest.raises(ThawError, match=f"^{message}"):
        train(options(option), "run")
    assert not Path("run").exists()
