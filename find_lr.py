"""Suggest a learning rate: `python find_lr.py strategy=finetune backbone=resnet18`; the options are train.py's."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from thaw.config import Config


def experiment(config: "Config", folder: Path, command: str) -> float:
    """Test a range of rates, and return the suggested one; torch is imported only here, as in train.py."""
    from thaw.importing import heavy_imports

    with heavy_imports():
        from thaw.training.learning_rate import find_lr

    return find_lr(config, folder).valley


if __name__ == "__main__":
    try:
        from thaw.launch.entry import run_experiment
    except KeyboardInterrupt:
        sys.exit(130)
    except ModuleNotFoundError as error:
        sys.exit(f"{error}: activate Thaw's environment (. .venv/bin/activate), or install it (pip install -e .).")
    run_experiment(
        experiment, Path(__file__).absolute().parent / "conf", help_file="help_find_lr.txt", can_resume=False
    )
