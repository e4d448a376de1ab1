"""The precision of a training, and the one that a finished run is used at."""

from typing import Any

import torch

from thaw.config import TrainerConfig
from thaw.run import Run


def choose_precision(options: TrainerConfig) -> str:
    """`trainer.precision`, where auto is bf16-mixed on a device that is fast at it, 16-mixed on older GPUs, else 32."""
    if options.precision != "auto":
        return options.precision
    if options.accelerator in ("auto", "gpu", "cuda") and torch.cuda.is_available():
        return "bf16-mixed" if torch.cuda.is_bf16_supported(including_emulation=False) else "16-mixed"
    if options.accelerator not in ("auto", "cpu") or torch.backends.mps.is_available():
        return "32"
    capabilities: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()  # not in older releases
    return "bf16-mixed" if capabilities.get("amx_bf16") or capabilities.get("avx512_bf16") else "32"


def keep_precision(run: Run, accelerator: str) -> str:
    """The precision that a finished run is used at: its training's, or a mixed one of `auto`'s chosen for the device.

    On the device of the training these are the same. A CPU without bf16 is ten times slower at it than at float32.

    Args:
        run: The run.
        accelerator: What it is to be used on.
    """
    trained = run.full_summary["precision"]
    if run.trainer.precision != "auto" or "mixed" not in trained:
        return trained
    return choose_precision(TrainerConfig(accelerator=accelerator))
