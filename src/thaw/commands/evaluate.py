"""`thaw evaluate`: how good a run is and where it goes wrong, on its own or on other images."""

import argparse
import os
import re
from hashlib import sha256
from pathlib import Path

from thaw.commands import check
from thaw.commands.targets import refuse_unwritable
from thaw.errors import ThawError
from thaw.importing import heavy_imports
from thaw.rules import require

DESCRIPTION = (
    "Accuracy with its 95 % interval, top-5 accuracy where there are more than five classes, macro-F1, log loss and "
    "calibration error, by class, and the classes that are taken for one another; with the transform, class names and "
    "precision of the training. Predictions, metrics and figures go to RUN/evaluation, or to a folder "
    "beside it whose name tells what it is of: RUN/evaluation_train, RUN/evaluation_tta_of_new_photos."
)
EXAMPLE = "thaw evaluate outputs/RUN --data new_photos --tta"
FLAGS = {key: check.FLAGS[key] for key in (f"dataset.{name}" for name in ("label_pattern", *check.COLUMNS))}
FLAGS["dataset.csv"] = "--data"
"""What the options are called here, for the messages of mistakes."""
PARAMETERS = {name: f"--{name.replace('_', '-')}" for name in ("data", "label_pattern", "tta", *check.COLUMNS)}
PARAMETERS["random_views"] = "--tta-views"
"""What the parameters of `thaw.evaluation.evaluate` are called here, likewise."""
LONGEST_PLACE = 120
"""Bytes of the data's place in a folder's name; its end tells most."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    parser.add_argument(
        "folder", type=Path, metavar="RUN", help="folder of a finished run, its checkpoints/last.ckpt, or any best.ckpt"
    )
    parser.add_argument(
        "--split", choices=("train", "val", "test"), help="which images; default: test if there is one, else val"
    )
    parser.add_argument(
        "--data",
        type=Path,
        metavar="PATH",
        help="other labelled images: a folder of CLASS/*, or of such folders below train, val and test, or a CSV file "
        "of path,label[,split]; classes are matched by name, and may be some of the run's only",
    )
    parser.add_argument(
        "--label-pattern",
        metavar="REGEX",
        help="finds the class of --data in a file's name by its one group; default for a flat folder: the run's own",
    )
    for name, kind in check.COLUMNS.items():
        parser.add_argument(FLAGS[f"dataset.{name}"], metavar=kind, help=f"of --data FILE.csv, as dataset.{name}")
    parser.add_argument(
        "--tta", action="store_true", help="average over the centre crop and the mirror images of the training"
    )
    parser.add_argument(
        "--tta-views", type=int, default=0, metavar="N", help="average over the centre crop and N random views too"
    )
    parser.add_argument(
        "--least", type=int, default=1, metavar="N", help="name classes that were confused at least N times"
    )
    parser.add_argument(
        "--device",
        help="auto, cpu, gpu, … (which GPU: CUDA_VISIBLE_DEVICES=1 in front); default: what the run was given",
    )
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="where files go; default: RUN/evaluation…")
    parser.add_argument("--csv", type=Path, metavar="FILE", help="write the table of classes in full to this file")


def run(options: argparse.Namespace) -> int:
    """Print the scores and write them down; returns the exit code."""
    with heavy_imports():
        from thaw.evaluation import evaluate, evaluate_alone
        from thaw.evaluation_files import refuse_run, write_evaluation
        from thaw.inspection.predictions import ClassScore
        from thaw.inspection.scores import score_text, write_class_scores
        from thaw.reading import is_alone
        from thaw.run import Run

    for flag, number in (("--tta-views", options.tta_views), ("--least", options.least)):
        require(number >= 0, flag, "at least 0", number)
    if options.csv:
        refuse_unwritable("--csv", options.csv, ".csv")
        header = ""
        if options.csv.exists():
            with options.csv.open(encoding="utf-8-sig", errors="replace") as file:
                header = file.readline().strip()
        if header and header != ",".join(ClassScore._fields):
            raise ThawError(
                f"--csv={options.csv} is there already, and no table of classes, which would be written to it: name "
                "another file. Labels are read by --data=FILE.csv."
            )
    if options.out:
        refuse_run(options.out)
    checkpoint: Path = options.folder
    run = None if is_alone(checkpoint) else Run(checkpoint)
    if run is None and (options.data is None or options.tta or options.tta_views):
        lacks = "its data: name labelled images by --data" if options.data is None else "its augmentation: no --tta"
        raise ThawError(f"{checkpoint} is a file alone, without the run that tells {lacks}.")
    columns = {name: value for name in check.COLUMNS if (value := getattr(options, name)) is not None}
    try:
        if run is None:
            evaluation = evaluate_alone(
                checkpoint, options.data, options.split, options.label_pattern, options.device or "auto", columns
            )
        else:
            evaluation = evaluate(
                run,
                split=options.split,
                data=options.data,
                label_pattern=options.label_pattern,
                tta=options.tta,
                random_views=options.tta_views,
                device=options.device,
                columns=columns,
            )
    except ThawError as error:
        message = re.sub(r"`(\w+)`", lambda found: PARAMETERS.get(found[1], found[0]), str(error))
        raise ThawError(check.in_flags(message, FLAGS) if options.data else message) from error
    beside = run.evaluation if run else checkpoint.with_name(f"{checkpoint.stem}_evaluation")
    is_last = run is not None and not run.is_best
    folder = options.out or _default_folder(beside, is_last, run.started_in if run else Path.cwd(), options)
    views = "centre crop" if evaluation.num_views == 1 else f"mean of {evaluation.num_views} views"
    images = f"{evaluation.split} of {options.data}" if options.data else evaluation.split
    computed = f"{evaluation.precision} on {evaluation.device}"
    judged = checkpoint.name if run is None else "Last epoch" if is_last else "Best epoch"
    print(f"{judged} on {images}, {views}, {computed}. {evaluation.caution}".rstrip() + "\n")
    print(score_text(evaluation.predictions, options.least))
    write_evaluation(evaluation, folder, options.least)
    if options.csv:
        write_class_scores(options.csv, evaluation.predictions)
    print(f"\nPredictions, metrics and figures are in {folder}")
    return 0


def _default_folder(beside: Path, is_last: bool, base: Path, options: argparse.Namespace) -> Path:
    """A folder for each kind of evaluation, so that none overwrites that of other images or views.

    Data is called by its path from where the training was started. What lies elsewhere, has its classes told in another
    way, or has a name that is long or like a path's, has a hash behind its name.

    Args:
        beside: The folder of the plainest evaluation.
        is_last: Whether the last epoch is judged in place of the best.
        base: Where the training was started.
        options: Of the command line.
    """
    parts = [beside.name] + ["last"] * is_last
    if options.split:
        parts.append(options.split)
    if options.tta:
        parts.append("tta")
    if options.tta_views:
        parts.append(f"{options.tta_views}_views")
    if options.data:  # last, for it may be called like anything before it
        data = options.data.resolve()
        is_near = base in data.parents
        told = [options.label_pattern, options.csv_path, options.csv_split, options.csv_group]
        steps = data.relative_to(base).parts if is_near else [data.name]
        place = os.fsencode("__".join(steps))
        parts += ["of", place[-LONGEST_PLACE:].decode(errors="ignore")]
        parts += [f"by_{options.csv_label}"] * (options.csv_label is not None)
        is_plain = is_near and not any("__" in step for step in steps) and len(place) <= LONGEST_PLACE
        if not is_plain or any(told):
            parts.append(sha256(repr([str(data), *told]).encode()).hexdigest()[:6])
    return beside.with_name(re.sub(r'[<>:"/\\|?*]', "-", "_".join(parts)))
