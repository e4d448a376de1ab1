"""`thaw export`: write a run's classifier for deployment, with a proof that it computes the same."""

import argparse
from pathlib import Path

from thaw.commands.targets import refuse_unwritable
from thaw.importing import heavy_imports

DESCRIPTION = (
    "Write a run's best checkpoint, or its last, as one file for deployment: uint8 RGB crops (batch, 3, height, width) "
    "in, logits out, normalisation inside, any batch size; class names, resize and crop are in its metadata. It is "
    "kept only if it computes the same as the run on images of its data."
)
EXAMPLE = "thaw export outputs/RUN --format onnx --out model.onnx"
SUFFIXES = {"onnx": ".onnx", "torch-export": ".pt2"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    parser.add_argument(
        "folder", type=Path, metavar="RUN", help="folder of a finished run, its checkpoints/last.ckpt, or any best.ckpt"
    )
    parser.add_argument("--format", required=True, choices=list(SUFFIXES), help="torch-export writes a .pt2 file")
    parser.add_argument(
        "--out", type=Path, metavar="FILE", help="default RUN/model.onnx or RUN/model.pt2; beside a checkpoint alone"
    )
    parser.add_argument(
        "--images",
        nargs="+",
        metavar="IMAGES",
        help="compare on these files, folders or patterns; default: of its data",
    )


def run(options: argparse.Namespace) -> int:
    """Export, prove and print; returns the exit code."""
    from thaw.reading import is_alone
    from thaw.run import Run

    run, suffix = None if is_alone(options.folder) else Run(options.folder), SUFFIXES[options.format]
    default = (
        options.folder.with_suffix(suffix)
        if run is None
        else run.folder / f"model{'' if run.is_best else '_last'}{suffix}"
    )
    out = options.out or default
    refuse_unwritable("--out", out, suffix)
    with heavy_imports():
        from thaw.export import export, images_for_proof, weights_file
        from thaw.model.classifier import Classifier

    classifier = (Classifier.load_from_checkpoint(options.folder) if run is None else run.load_classifier()).float()
    images, whose = images_for_proof(run, classifier, options.images)
    parity = export(classifier, options.format, out, images)
    print(f"Parity with the run on {whose}: {parity}")
    size = sum(file.stat().st_size for file in (out, weights_file(out)) if file.exists())
    print(f"Written: {out} ({size / 1e6:.1f} MB, float32, {len(classifier.classes)} classes)")
    return 0
