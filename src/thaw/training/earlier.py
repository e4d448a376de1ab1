"""How long a run has taken before it is resumed."""

from collections.abc import Sequence
from dataclasses import dataclass

from thaw.run import Run


@dataclass(frozen=True)
class EarlierSeconds:
    """Seconds of a run before it is resumed; see `thaw.summary.Seconds`."""

    fit: float = 0.0
    total: float = 0.0
    epochs: Sequence[float] = ()
    """Of each epoch."""


def earlier_seconds(run: Run) -> EarlierSeconds:
    """Those of a run's summary, if it was finished, and of the epochs after that, which were cut off."""
    epochs = [row["seconds"] or 0.0 for row in run.metrics] if run.metrics_csv.exists() else []
    if not run.is_finished:
        return EarlierSeconds(sum(epochs), sum(epochs), epochs)
    summary = run.full_summary
    seconds, cut_off = summary["seconds"], sum(epochs[summary["epochs"] :])
    return EarlierSeconds(seconds["fit"] + cut_off, seconds["total"] + cut_off, epochs)
