"""The runs below a folder."""

from pathlib import Path

from thaw.run import Run


def find_runs(folder: Path) -> list[Run]:
    """The finished runs in a folder, itself included, in order of their paths."""
    return [Run(path.parent) for path in sorted(folder.rglob("summary.json"))]


def find_unfinished(folder: Path) -> list[Path]:
    """The folders, in order, of runs that were begun and have no summary: still training, or broken off."""
    begun = {path.parent for path in folder.rglob(".hydra")}
    begun |= {path.parent for path in folder.rglob("config.yaml") if (path.parent / "figures").is_dir()}
    return sorted(path for path in begun if not Run(path).is_finished and not _is_range_test(Run(path)))


def _is_range_test(run: Run) -> bool:
    """True if the folder is find_lr.py's, where nothing is trained."""
    return run.rate_curve.exists() and not run.checkpoints.exists()
