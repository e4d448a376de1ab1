"""What a training says when it is over: what has come out, where it lies, and what to type next."""

import shlex
from collections.abc import Sequence
from pathlib import Path

from thaw.config import Config
from thaw.inspection.predictions import Predictions, accuracy_text
from thaw.overrides import in_sweep
from thaw.run import Run
from thaw.summary import Metrics, Summary, pace_text

EVEN = 1.2
"""Size of the largest class, over the mean size, up to which classes are about equally large."""
LEAST_TOLD = 0.01
"""Difference between accuracy and macro-F1 from which on the last lines name both."""


def closing_lines(run: Run, config: Config, summary: Summary, judged: Predictions | None = None) -> str:
    """What came out, where it lies, and what to type next.

    Args:
        run: The run.
        config: Its options.
        summary: Its figures.
        judged: Answers of the best epoch on test, or else on val; None leaves out how they compare with a single one.
    """
    best, last, seconds = summary["val"], summary["last"], summary["seconds"]
    chosen_on, is_chosen = summary["epoch_chosen_on"], run.chose_epoch
    if not summary["epochs"]:
        lines = [f"The probe's {chosen_on} accuracy is {accuracy_text(best)}; nothing was trained"]
    else:
        probe = f"; the probe alone {summary['probe']['acc']:.4f}" if summary["probe"] else ""
        monitor = config.trainer.monitor
        is_best = monitor == "val/acc" and is_chosen
        figure = f"Best {chosen_on} accuracy" if is_best else f"{chosen_on.capitalize()} accuracy"
        chosen_for = "macro-F1" if monitor == "val/macro_f1" else monitor.removeprefix("val/")
        value = best.get(chosen_for)
        reason = "" if is_best else f" for its {chosen_for}" + (f" ({value:.4f})" if isinstance(value, float) else "")
        chosen = f", which was chosen on these images{reason}" if is_chosen else ""
        lines = [
            f"{figure} {_scores(best, monitor)}, at epoch {summary['best_epoch']} of {summary['epochs']}{chosen}; "
            f"last epoch {last['acc']:.4f}{probe}",
        ]
        if summary["probe"] and is_best and best["acc"] <= summary["probe"]["acc"]:
            lines.append("No epoch was better than the probe alone, which strategy=probe gives without training")
        if summary["probe"] and last["acc"] < (low := summary["probe"]["acc_ci95"][0]):
            remedies = {
                "head.init=probe": config.starts_from_probe,
                "trainer.gradient_clip=1": config.trainer.gradient_clip,
            }
            advice = " or ".join([*(name for name, is_set in remedies.items() if not is_set), "another optimizer.lr"])
            lines.append(f"The last epoch is below the probe's 95 % interval, from {low:.3f}: try {advice}")
    if summary["test"]:
        which = f"the epoch chosen on {chosen_on}" if is_chosen else "that epoch"
        lines.append(f"Test accuracy {_scores(summary['test'], config.trainer.monitor)}, of {which}")
    if judged and judged.metrics()["acc"] <= (always := judged.most_common)[1]:
        is_even = always[1] * len(judged.classes) < EVEN
        advice = "this is no better than guessing" if is_even else "see macro-F1, and dataset.balance"
        lines.append(f"Always answering {always[0]!r} would reach {always[1]:.4f}: {advice}")
    memory = f", {summary['gpu_memory_gb']} GB of the GPU's memory at most" if summary["gpu_memory_gb"] else ""
    pace = f", {pace_text(seconds)} an epoch" if summary["epochs"] else ""
    if 0 < summary["epochs"] < config.trainer.max_epochs:  # by early stopping, max_time, a callback of one's own
        pace += f", {summary['epochs']} of {config.trainer.max_epochs} epochs"
    lines.append(f"{seconds['total']:.1f} s in all{pace}{memory}; everything is in {run.folder}")
    if not in_sweep():  # which says so once, at its end
        report = None if config.report else run.folder
        lines += next_lines(report, run.folder.parent if config.logger.has_tensorboard else None)
    return "\n".join(lines)


def _scores(metrics: Metrics, monitor: str) -> str:
    """Accuracy with its interval, and macro-F1 where it goes by that or accuracy hides it."""
    is_told = monitor == "val/macro_f1" or abs(metrics["macro_f1"] - metrics["acc"]) >= LEAST_TOLD
    return accuracy_text(metrics) + (f", macro-F1 {metrics['macro_f1']:.4f}" if is_told else "")


def next_lines(report: Path | None, logdir: Path | None, training: Sequence[str] = ()) -> list[str]:
    """What to type next, a line each.

    Args:
        report: Folder of the run that a report is of; None for no report.
        logdir: Where TensorBoard finds events; None where there are none.
        training: The words of a further training, to come first; none for no training.
    """
    commands = [[*training]] if training else []
    commands += [["thaw", "report", str(report)]] if report else []
    commands += [["tensorboard", "--logdir", str(logdir)]] if logdir else []
    return [f"{'     ' if number else 'Next:'} {shlex.join(each)}" for number, each in enumerate(commands)]
