"""Runs that no training has written: a folder with what `thaw compare` reads."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from thaw.config import Config
from thaw.run import Run


def write_run(
    folder: Path,
    overrides: str | None,
    acc: float = 0.9,
    test: float | None = None,
    seed: int = 0,
    n: int = 200,
    config: Config | None = None,
    wrong: Sequence[int] | None = None,
    images: str = "val/ants",
    fingerprint: str = "",
    macro_f1: float | None = None,
    loss: float = 1.0,
    pruned: bool = False,
    group_size: int = 0,
) -> Path:
    """A run's folder with its summary and, if asked for, its config and its predictions, wrong on some images.

    Without overrides, None, it is a run from Python. With a `group_size`, so many images after one another are a group.
    """
    if wrong is not None:
        acc = 1 - len(wrong) / n

    def metrics(value: float) -> dict[str, Any]:
        return {
            "acc": value,
            "n": n,
            "macro_f1": value if macro_f1 is None else macro_f1,
            "loss": loss,
            "acc_ci95": [0, 1],
        }

    summary = {
        "val": metrics(min(acc + 0.02, 1)),
        "last": metrics(acc),
        "test": None if test is None else metrics(test),
        "pruned": pruned,
        "seconds": {"total": 10.0},
        "params": {"total": 10, "trainable": 5},
        "classes": ["ants", "bees"],
        "seed": seed,
        "data_fingerprint": fingerprint,
        "command": None if overrides is None else f"python train.py {overrides}",
    }
    run = Run(folder)
    folder.mkdir(parents=True)
    if config:
        config.seed = seed
        run.write_config(config)
    if wrong is not None:
        for split, table in {"val": run.predictions_last_csv, "test": run.predictions_csv}.items():
            rows = [["split", "path", "label", "predicted", "loss"] + ["group"] * bool(group_size)]
            rows += [[split, f"{images}/{i}.jpg", "ants", "bees" if i in wrong else "ants", "1"] for i in range(n)]
            for i, row in enumerate(rows[1:] if group_size else []):
                row.append(f"{images}{i // group_size}")
            table.write_text("\n".join(map(",".join, rows)) + "\n")
    (folder / "summary.json").write_text(json.dumps(summary))
    return folder
