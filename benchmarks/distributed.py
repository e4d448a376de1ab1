"""One process against two with the same batch: final figures, weights and seconds of every strategy, as a table.

    python benchmarks/distributed.py -- dataset=hymenoptera backbone=squeezenet1_0 backbone.weights=FILE

Dropout is off, as each process draws masks for its own images; then what remains is the order of sums, which
`--precision 64` shows: the differences vanish with the digits. `--dropout` leaves it on.
"""

import argparse
import shutil
import subprocess
import sys
from pathlib import Path

import torch

from thaw.run import Run

ROOT = Path(__file__).parents[1]
STRATEGIES = sorted(path.stem for path in (ROOT / "conf" / "strategy").glob("*.yaml"))
PHASES = {
    "discriminative": ["strategy.head_epochs=1"],
    "gradual": ["strategy.head_epochs=1", "strategy.unfreeze_epochs=1"],
}
WITHOUT_DROPOUT = Path(__file__).with_name("without_dropout.py")


def main() -> None:
    """Train each strategy with one process and with two, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path("outputs/benchmarks/distributed"), help="of all runs")
    parser.add_argument("--epochs", type=int, default=3, help="of each run but the probe's")
    parser.add_argument("--dropout", action="store_true", help="leave dropout on")
    parser.add_argument("--precision", default="32", help="trainer.precision")
    parser.add_argument("options", nargs="*", help="of train.py, after --")
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    print(
        "| strategy | processes | val accuracy | val loss | n | largest difference of a weight | s |\n"
        + "|---" * 7
        + "|"
    )
    for strategy in STRATEGIES:
        epochs = [] if strategy == "probe" else [f"trainer.max_epochs={arguments.epochs}"]
        options = [f"strategy={strategy}", *PHASES.get(strategy, []), *epochs, "features=auto"]
        options.append(f"trainer.precision={arguments.precision}")
        runs = [Run(arguments.folder / f"{strategy}_{number}") for number in (1, 2)]
        for number, run in enumerate(runs, start=1):
            devices = [f"trainer.devices={number}", "trainer.accelerator=cpu", f"hydra.run.dir={run.folder}"]
            shutil.rmtree(run.folder, ignore_errors=True)
            script = ROOT / "train.py" if arguments.dropout else WITHOUT_DROPOUT
            command = [sys.executable, str(script), *arguments.options, *options, *devices]
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            figures = run.summary["last"]
            difference = f"{largest_difference(*runs):.1e}" if number == 2 else ""
            print(
                f"| {strategy} | {number} | {figures['acc']:.4f} | {figures['loss']:.6f} | {figures['n']} "
                f"| {difference} | {run.summary['seconds']['total']:.0f} |",
                flush=True,
            )


def largest_difference(first: Run, second: Run) -> float:
    """Of any weight or running statistic, against the largest of its tensor, or 1e-2 if all are less."""
    one, two = (torch.load(run.last, weights_only=True)["state_dict"] for run in (first, second))
    return max(float((one[name] - two[name]).abs().max() / one[name].abs().max().clamp(min=1e-2)) for name in one)


if __name__ == "__main__":
    main()
