"""What an evaluation leaves in a folder: predictions, metrics and figures."""

import json
from pathlib import Path

from matplotlib.figure import Figure
from PIL import Image

from thaw.errors import ThawError
from thaw.evaluation import Evaluation
from thaw.inspection.charts import calibration_chart, confusion_chart
from thaw.inspection.figures import write_figure
from thaw.inspection.grids import MOST, least_certain_grid, top_losses_grid
from thaw.inspection.prediction_files import write_predictions
from thaw.inspection.scores import score_data
from thaw.run import Run
from thaw.writing import drafting


def write_evaluation(evaluation: Evaluation, folder: Path, least: int = 1) -> None:
    """Keep `predictions.csv`, `metrics.json` and the figures in a folder.

    Args:
        evaluation: The result to write.
        folder: Destination; it is made.
        least: Confusions that make a pair of classes worth mentioning.

    Raises:
        ThawError: The folder is a run's own, or cannot be written to.
    """
    refuse_run(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _write(evaluation, folder, least)
    except OSError as error:
        raise ThawError(f"{folder} cannot be written to ({error.strerror}). Name another folder by --out.") from error


def refuse_run(folder: Path) -> None:
    """Refuse to write an evaluation among the files of a run.

    Raises:
        ThawError: The folder is a run's.
    """
    if Run(folder).is_started:
        raise ThawError(f"{folder} is the folder of a run, whose predictions would be lost. Name another one by --out.")


def _write(evaluation: Evaluation, folder: Path, least: int) -> None:
    predictions, split = evaluation.predictions, evaluation.split
    write_predictions(folder / "predictions.csv", {split: predictions})
    about = {name: getattr(evaluation, name) for name in ("split", "caution", "num_views", "precision", "device")}
    content = json.dumps(about | score_data(predictions, least), indent=2)
    with drafting(folder / "metrics.json") as draft:
        draft.write_text(content + "\n", encoding="utf-8")
    highest, unsure = predictions.top_losses(MOST), predictions.least_certain(MOST)
    figures: dict[str, Figure | Image.Image] = {
        "confusion.png": confusion_chart(predictions, split),
        "calibration.png": calibration_chart(predictions, split),
        "top_losses.jpg": top_losses_grid(evaluation.show(highest), predictions, highest, split).draw(),
        "least_certain.jpg": least_certain_grid(evaluation.show(unsure), predictions, unsure, split).draw(),
    }
    for name, figure in figures.items():
        write_figure(figure, folder / name)
