"""`thaw pack`: make a few large files of a folder of images, to be streamed."""

import argparse
import sys
from pathlib import Path

from thaw.commands.check import add_folder, command_to_fix, in_flags, option_to_type, survey_folder
from thaw.errors import ThawError, printable
from thaw.importing import heavy_imports
from thaw.rules import require

DESCRIPTION = (
    "Writes the images of a folder, as they are encoded, into LitData shards: a few large files, which are read "
    "image by image from a disk, a network share or object storage. dataset=stream trains on them with the classes, "
    "splits and options of the folder. Images that cannot be read are named, and nothing is packed."
)
EXAMPLE = "thaw pack photos shards"
MOST_MB = 2000
"""Of a shard, within which LitData counts bytes in 32 bits."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    add_folder(parser)
    parser.add_argument("out", metavar="OUT", help="a new or empty folder, or s3://…, gs://…, r2://…")
    parser.add_argument("--shard-mb", type=int, default=64, metavar="MB", help="size of a shard; default 64")


def run(options: argparse.Namespace) -> int:
    """Look at every image, pack them all, and print what trains on them; returns the exit code."""
    _check(options.folder, options.out, options.shard_mb)
    with heavy_imports():
        from rich.progress import track

        from thaw.data.cache import cache_folder
        from thaw.data.check import facts, find_problems
        from thaw.data.examine import count_types, examine
        from thaw.data.rows import Row
        from thaw.data.shards import Shards, import_litdata, pack

        import_litdata()
    index = survey_folder(options)
    print(facts(index))
    files = examine(index)
    if bad := [f"\n  {printable(index.place(file.path))}: {file.fault}" for file in files if file.fault]:
        raise ThawError(
            f"{len(bad)} of {len(files)} files cannot be read as images:{''.join(bad)}\nRepair or remove them, or "
            f"leave them out: {command_to_fix(options)} lists them for --exclude."
        )
    print(count_types(files))
    for finding in find_problems(index):
        print(in_flags(finding.message))
    rows = [
        Row(path, index.classes[label], "" if split == "all" else split, index.place(path), index.groups.get(path, ""))
        for split, samples in index.splits.items()
        for path, label in samples
    ]
    by_folder = options.csv is None and options.label_pattern is None
    size = sum(index.size(row.path) for row in rows)
    print(f"\nPacking {len(rows)} images, {size / 1e6:.0f} MB, into {options.out}", flush=True)
    pack(
        track(rows, "Packing", transient=True, disable=not sys.stdout.isatty()),
        options.out,
        options.shard_mb,
        by_folder,
    )
    found = len(Shards(options.out, cache_folder() / "shards").rows)
    if found != len(rows):
        raise ThawError(f"{options.out} has {found} of {len(rows)} images: delete what is there, and pack again.")
    print(f"Train: thaw train dataset=stream {option_to_type('dataset.root', options.out)}")
    return 0


def _check(folder: Path, out: str, shard_mb: int) -> None:
    """Refuse impossible requests before any image is read."""
    require(1 <= shard_mb <= MOST_MB, "--shard-mb", f"from 1 to {MOST_MB}", shard_mb)
    if "://" in out:
        return
    place = Path(out).resolve()
    if place.is_relative_to(folder.resolve()):
        raise ThawError(f"OUT must be outside FOLDER, whose images it would join, got {out}.")
    if place.exists() and (not place.is_dir() or any(place.iterdir())):
        raise ThawError(f"OUT must be a new or empty folder, got {out}. Name another, or delete it.")
