"""Train an image classifier: `python train.py strategy=frozen backbone=resnet18`; `--help` shows the choices."""

import sys
from pathlib import Path

if __name__ == "__main__":
    try:
        from thaw.commands.train import main
    except KeyboardInterrupt:
        sys.exit(130)
    except ModuleNotFoundError as error:
        sys.exit(f"{error}: activate Thaw's environment (. .venv/bin/activate), or install it (pip install -e .).")
    main(Path(__file__).absolute().parent / "conf")
