"""Suggest a learning rate: `thaw find_lr strategy=finetune`, or `python find_lr.py`; the options are a training's."""

from pathlib import Path

from thaw.config import Config
from thaw.launch.composing import CONF
from thaw.launch.entry import run_experiment


def main(conf: Path = CONF) -> None:
    """Run the range tests of the command line.

    Args:
        conf: Folder of the presets.
    """
    run_experiment(experiment, conf, help_file="help_find_lr.txt", can_resume=False)


def experiment(config: Config, folder: Path, command: str) -> float:
    """Test a range of rates, and return the suggested one; torch is imported only here, as in a training."""
    from thaw.importing import heavy_imports

    with heavy_imports():
        from thaw.training.learning_rate import find_lr

    return find_lr(config, folder).valley


if __name__ == "__main__":
    main()
