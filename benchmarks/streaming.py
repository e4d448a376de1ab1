"""A folder of images against the same images packed: accuracy, seconds and memory.

    python benchmarks/streaming.py --data data/hymenoptera_data --weights squeezenet1_0.pth

First the frozen strategy with each seed on both, each run in a process of its own without stored features. Then one
pass over the training images of packed sets of growing size, decoded by two loader processes; the memory is theirs and
the main process's together (PSS). Prints two Markdown tables.
"""

import argparse
import sys
import tempfile
from pathlib import Path

from growth import ROOT, measure

from thaw.config import DatasetConfig
from thaw.data.index import survey
from thaw.data.rows import Row
from thaw.data.shards import pack
from thaw.run import Run

PASS = """
import sys
from thaw.config import DatasetConfig
from thaw.data.datamodule import ImageDataModule
from thaw.data.transforms import EvaluationTransform
options = DatasetConfig("stream", sys.argv[1], cache="none", num_workers=2)
data = ImageDataModule(options, EvaluationTransform(256, 224))
data.setup()
for _ in data.train_dataloader():
    pass
"""


def main() -> None:
    """Pack, train on both, and read sets of growing size."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of {train,val}/CLASS/*.jpg")
    parser.add_argument("--weights", type=Path, required=True, help="weights of squeezenet1_0")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--copies", type=int, nargs="+", default=[1, 10, 40], help="of the data in the packed sets")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        rows = rows_of(options.data)
        pack(rows, str(folder / "packed"), 64)
        sources = {"folder": options.data, "stream": folder / "packed"}
        print("| seed | images from | last val/acc | best | same predictions | seconds | memory, GB |")
        print("|---|---|---|---|---|---|---|")
        for seed in options.seeds:
            tables = []
            for source, root in sources.items():
                run, peak = train(source, root, options.weights, folder / f"{source}{seed}", seed)
                summary = run.summary
                tables.append(run.predictions_csv.read_bytes())
                accuracies = f"{summary['last']['acc']:.4f} | {summary['val']['acc']:.4f}"
                same = "yes" if tables[0] == tables[-1] else "no"
                cost = f"{summary['seconds']['total']:.1f} | {peak / 1e9:.2f}"
                print(f"| {seed} | {source} | {accuracies} | {same} | {cost} |", flush=True)
        print("\n| images | shards, MB | one pass, images/s | memory, GB |\n|---|---|---|---|")
        for copies in options.copies:
            root = folder / f"copies{copies}"
            pack([row._replace(source=f"{n}/{row.source}") for n in range(copies) for row in rows], str(root), 64)
            num_train = copies * sum(row.split == "train" for row in rows)
            seconds, peak = measure([sys.executable, "-c", PASS, str(root)], folder / "cache")
            size = sum(file.stat().st_size for file in root.iterdir())
            print(
                f"| {copies * len(rows):,} | {size / 1e6:,.0f} | {num_train / seconds:.0f} | {peak / 1e9:.2f} |",
                flush=True,
            )


def rows_of(root: Path) -> list[Row]:
    """The images as `thaw pack` would write them, without files that cannot be labelled."""
    index = survey(root, DatasetConfig(root=str(root), on_bad="skip"))
    return [
        Row(path, index.classes[label], split, index.place(path))
        for split, samples in index.splits.items()
        for path, label in samples
    ]


def train(source: str, root: Path, weights: Path, folder: Path, seed: int) -> tuple[Run, float]:
    """A finished run, and the peak bytes of its processes."""
    command = [
        *(sys.executable, str(ROOT / "train.py"), f"dataset={source}", f"dataset.root={root}", f"seed={seed}"),
        *("strategy=frozen", "backbone=squeezenet1_0", f"backbone.weights={weights.absolute()}"),
        f"hydra.run.dir={folder}",
    ]
    return Run(folder), measure(command, folder.with_name(f"{folder.name}_cache"))[1]


if __name__ == "__main__":
    main()
