"""`train.py` without dropout, whose masks differ between processes: what is left must agree."""

from pathlib import Path

from thaw.commands import train
from thaw.config import Config
from thaw.launch.entry import run_experiment


def experiment(config: Config, folder: Path, command: str) -> float:
    """Train; torch is changed here, where a job of submitit's gets the function alone."""
    import torch

    torch.nn.Dropout.forward = torch.nn.Identity.forward  # type: ignore[assignment, method-assign]
    return train.experiment(config, folder, command)


if __name__ == "__main__":
    run_experiment(experiment, Path(__file__).parents[1] / "conf", train.close_sweep)
