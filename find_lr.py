"""Suggest a learning rate: `python find_lr.py strategy=finetune backbone=resnet18`; the options are train.py's."""

import sys
from pathlib import Path

if __name__ == "__main__":
    try:
        from thaw.commands.find_lr import main
    except KeyboardInterrupt:
        sys.exit(130)
    except ModuleNotFoundError as error:
        sys.exit(f"{error}: activate Thaw's environment (. .venv/bin/activate), or install it (pip install -e .).")
    main(Path(__file__).absolute().parent / "conf")
