from pathlib import Path

import pytest
import torch

from thaw.config import Config, HeadConfig, LoggerConfig, TrainerConfig
from thaw.inspection.predictions import Predictions
from thaw.run import Run
from thaw.training.closing import closing_lines

SUMMARY = {
    "val": {"acc": 0.9, "acc_ci95": [0.8, 0.95], "n": 50, "macro_f1": 0.71, "loss": 0.35},
    "last": {"acc": 0.88}, "test": None, "probe": None,
    "epochs": 8, "best_epoch": 3, "epoch_chosen_on": "val", "gpu_memory_gb": None,
    "seconds": {"total": 9.0, "epoch_median": 1.0, "epoch_longest": 2.0},
}  # fmt: skip
CHOSEN = "at epoch 3 of 8, which was chosen on these images"
ACCURACY = "0.9000 (95 % interval 0.800 to 0.950, n=50), macro-F1 0.7100"


@pytest.mark.parametrize(
    ("monitor", "begin"),
    [
        ("val/acc", f"Best val accuracy {ACCURACY}, {CHOSEN}"),
        ("val/loss", f"Val accuracy {ACCURACY}, {CHOSEN} for its loss (0.3500)"),
        ("val/kappa", f"Val accuracy {ACCURACY}, {CHOSEN} for its kappa"),
        ("val/macro_f1", f"Val accuracy {ACCURACY}, {CHOSEN} for its macro-F1"),
    ],
)
def test_an_epoch_chosen_for_another_figure_is_not_said_to_have_the_best_accuracy(monitor: str, begin: str) -> None:
    config = Config(trainer=TrainerConfig(monitor=monitor), metrics={"kappa": {"_target_": "mine.Kappa"}})
    assert closing_lines(Run("outputs/run"), config, SUMMARY).startswith(f"{begin}; last epoch 0.8800\n")


@pytest.mark.parametrize(("val", "is_chosen"), [(["", ""], False), (["", "0.9"], False), (["0.9", "0.8"], True)])
def test_an_epoch_that_alone_was_validated_is_not_said_to_be_chosen(
    val: list[str], is_chosen: bool, tmp_path: Path
) -> None:
    run = Run(tmp_path)
    run.metrics_csv.write_text("epoch,val/acc\n" + "".join(f"{n},{acc}\n" for n, acc in enumerate(val, start=1)))
    summary = SUMMARY | {"best_epoch": 2, "epochs": 2, "test": SUMMARY["val"]}
    first, second, *_ = closing_lines(run, Config(trainer=TrainerConfig(monitor="val/loss")), summary).splitlines()
    chosen = ", which was chosen on these images for its loss (0.3500)" if is_chosen else ""
    assert first == f"Val accuracy {ACCURACY}, at epoch 2 of 2{chosen}; last epoch 0.8800"
    assert second == f"Test accuracy {ACCURACY}, of {'the epoch chosen on val' if is_chosen else 'that epoch'}"


@pytest.mark.parametrize(("macro_f1", "is_told"), [(0.895, False), (0.889, True), (0.911, True)])
def test_macro_f1_is_told_where_accuracy_hides_it(macro_f1: float, is_told: bool) -> None:
    summary = SUMMARY | {"val": SUMMARY["val"] | {"macro_f1": macro_f1}}
    assert (f"n=50), macro-F1 {macro_f1:.4f}, at epoch 3" in closing_lines(Run("run"), Config(), summary)) == is_told


@pytest.mark.parametrize(("probe", "is_told"), [(0.89, False), (0.9, True), (0.91, True)])
def test_a_training_without_an_epoch_better_than_the_probe_is_told(probe: float, is_told: bool) -> None:
    lines = closing_lines(Run("run"), Config(), SUMMARY | {"probe": {"acc": probe, "acc_ci95": [0.8, 0.95]}})
    assert ("\nNo epoch was better than the probe alone, which strategy=probe gives" in lines) == is_told


@pytest.mark.parametrize(
    ("median", "longest", "told"), [(0.05, 0.9, "0.05 s"), (40.0, 100.0, "40.00 s"), (0.23, 99.0, "0.23 to 99.00 s")]
)
def test_epochs_of_very_different_length_are_told_by_their_range(median: float, longest: float, told: str) -> None:
    summary = SUMMARY | {"seconds": {"total": 460.5, "epoch_median": median, "epoch_longest": longest}}
    assert f"460.5 s in all, {told} an epoch" in closing_lines(Run("run"), Config(), summary)


def test_a_training_that_ends_clearly_below_the_probe_is_told() -> None:
    for low, told in ((0.881, True), (0.879, False)):
        lines = closing_lines(
            Run("outputs/run"), Config(), SUMMARY | {"probe": {"acc": 0.9, "acc_ci95": [low, 0.95], "n": 50}}
        )
        assert "; the probe alone 0.9000\n" in lines
        assert (f"\nThe last epoch is below the probe's 95 % interval, from {low:.3f}: " in lines) == told


@pytest.mark.parametrize(("num_right", "told"), [(6, True), (7, True), (8, False)])
def test_a_classifier_no_better_than_a_single_answer_is_told(num_right: int, told: bool) -> None:
    labels = torch.tensor([0] * 7 + [1] * 3)
    answers = torch.where(torch.arange(10) < num_right, labels, 1 - labels)
    judged = Predictions([""] * 10, labels, torch.eye(2)[answers], ("ants", "bees"))
    lines = closing_lines(Run("outputs/run"), Config(), SUMMARY, judged).splitlines()
    assert ("Always answering 'ants' would reach 0.7000: see macro-F1, and dataset.balance" in lines) == told


def test_what_is_set_already_is_not_advised() -> None:
    summary = SUMMARY | {"probe": {"acc": 0.95, "acc_ci95": [0.93, 0.97], "n": 50}}
    for clip, head, advice in (
        (None, "probe", "trainer.gradient_clip=1 or another optimizer.lr"),
        (1.0, "probe", "another optimizer.lr"),
        (1.0, "default", "head.init=probe or another optimizer.lr"),
    ):
        config = Config(head=HeadConfig(init=head), trainer=TrainerConfig(gradient_clip=clip))
        assert f"from 0.930: try {advice}\n" in closing_lines(Run("outputs/run"), config, summary)


def test_where_classes_are_of_one_size_no_balance_is_advised() -> None:
    judged = Predictions([""] * 10, torch.arange(10) % 2, torch.eye(2)[[0] * 10], ("ants", "bees"))
    lines = closing_lines(Run("outputs/run"), Config(), SUMMARY, judged).splitlines()
    assert "Always answering 'ants' would reach 0.5000: this is no better than guessing" in lines


def test_tensorboard_is_pointed_to_where_the_run_lies(tmp_path: Path) -> None:
    run = Run(tmp_path / "runs" / "run")
    assert closing_lines(run, Config(), SUMMARY).endswith(f"\n      tensorboard --logdir {tmp_path / 'runs'}")
    assert "--logdir" not in closing_lines(run, Config(logger=LoggerConfig("csv")), SUMMARY)


@pytest.mark.parametrize("resume", [None, "outputs/run"])
def test_the_seconds_are_told_in_all(resume: str | None) -> None:
    config = Config(resume=resume, trainer=TrainerConfig(max_epochs=8))
    assert "\n9.0 s in all, 1.00 s an epoch; " in closing_lines(Run("outputs/run"), config, SUMMARY)


def test_it_is_told_that_a_training_ended_before_its_epochs() -> None:
    config = Config(trainer=TrainerConfig(max_epochs=500))
    assert "\n9.0 s in all, 1.00 s an epoch, 8 of 500 epochs; " in closing_lines(Run("outputs/run"), config, SUMMARY)
