"""A run on disk: where things lie, what is kept of it, and reading that back."""

import json
import shlex
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import OmegaConf

from thaw.config import AugmentConfig, Config, DatasetConfig, TrainerConfig
from thaw.errors import ThawError, did_you_mean
from thaw.overrides import typed_overrides
from thaw.paths import at_home
from thaw.reading import (
    find_folder,
    read_config,
    read_figures,
    read_first_image,
    read_group,
    read_metrics,
    read_overrides,
    read_summary,
)
from thaw.summary import Summary
from thaw.writing import naming, replacing

if TYPE_CHECKING:
    from thaw.data.datamodule import ImageDataModule
    from thaw.data.inputs import Inputs
    from thaw.inspection.predictions import Predictions
    from thaw.model.classifier import Classifier
    from thaw.prediction import Prediction


class Run:
    """The folder of one training.

    Args:
        folder: Where it lies; or its `checkpoints/best.ckpt`, which means the same, or `last.ckpt`, for its classifier
            to be that of the last epoch.

    Attributes:
        folder: Where it lies.
        checkpoints: Folder of `best.ckpt` and `last.ckpt`.
        best: `best.ckpt`.
        last: `last.ckpt`.
        checkpoint: That of the two which its classifier is read from.
        figures: Charts as PNG, grids of photographs as JPEG.
        events: Folder of TensorBoard's events.
        rate_curve: The range test of the learning rate, where there was one.
        metrics_csv: One row an epoch.
        predictions_csv: One row an image of val and test, by the best checkpoint.
        predictions_last_csv: One row an image of val, by the last epoch, which was not chosen on these images.
        evaluation: Folder of what `thaw evaluate` writes by default.
        summary_json: The figures, written last.

    Raises:
        ThawError: The path is a checkpoint of no run.
    """

    def __init__(self, folder: Path | str) -> None:
        folder = Path(at_home(folder))
        self.folder = find_folder(folder)
        self.checkpoints = self.folder / "checkpoints"
        self.best, self.last = self.checkpoints / "best.ckpt", self.checkpoints / "last.ckpt"
        self.checkpoint = self.last if self.folder != folder and folder.name == "last.ckpt" else self.best
        self.figures = self.folder / "figures"
        self.events = self.folder / "tensorboard"
        self.rate_curve = self.figures / "learning_rate.png"
        self.metrics_csv = self.folder / "metrics.csv"
        self.predictions_csv = self.folder / "predictions.csv"
        self.predictions_last_csv = self.folder / "predictions_last.csv"
        self.evaluation = self.folder / "evaluation"
        self.summary_json = self.folder / "summary.json"
        self._summary_before = self.folder / "summary_before.json"
        self._config = self.folder / "config.yaml"
        self._overrides = self.folder / "overrides.yaml"
        self._tracking_id = self.folder / "tracking_id.txt"
        self._started_in = self.folder / "started_in.txt"

    def __repr__(self) -> str:
        return f"Run({str(self.folder if self.is_best else self.checkpoint)!r})"

    @property
    def config(self) -> dict[str, Any]:
        """Every option of the run, resolved, as plain Python; one that came after its version has its default."""
        return read_config(self._require(self._config))

    @property
    def was_typed(self) -> bool:
        """True if it was started from a command line."""
        return self._overrides.exists()

    @property
    def overrides(self) -> list[str]:
        """What it was started with, if that was typed; Hydra's own record of it is for a moment empty at each start.

        Raises:
            ThawError: The file is damaged.
        """
        return read_overrides(self._overrides) if self.was_typed else []

    @property
    def tracking_id(self) -> str | None:
        """The run's ID at W&B or MLflow, where a resumed run goes on; None if they do not know it."""
        return self._tracking_id.read_text(encoding="utf-8") if self._tracking_id.exists() else None

    def write_tracking_id(self, tracking_id: str) -> None:
        """Keep the run's ID at W&B or MLflow."""
        with replacing(self._tracking_id) as draft:
            draft.write_text(tracking_id, encoding="utf-8")

    @property
    def started_in(self) -> Path:
        """The folder from which the paths in its options are seen; here, where its file is missing."""
        if not self._started_in.exists():
            return Path()
        return Path(self._started_in.read_text(encoding="utf-8", errors="surrogateescape"))

    @property
    def dataset(self) -> DatasetConfig:
        """The options of its data, whose paths lead there from here or else from where it was started."""
        from thaw.data.places import locate
        from thaw.data.relocated import find_again

        options = read_group(self._require(self._config), DatasetConfig, "dataset")
        return locate(find_again(options, self.started_in, self._known_image(options)))

    def find_again(self, config: Config) -> Config:
        """Options to resume with: paths as seen from where it was started, except for newly named data."""
        from thaw.data.relocated import find_again

        base, weights, dataset = self.started_in, config.backbone.weights, config.dataset
        if weights is not None and not Path(weights).exists() and _holds_weights(base / weights):
            weights = str(base / weights)
        recorded = read_group(self._require(self._config), DatasetConfig, "dataset")
        if (dataset.name, dataset.root, dataset.csv) == (recorded.name, recorded.root, recorded.csv):
            dataset = find_again(dataset, base, self._known_image(dataset))
        return replace(config, dataset=dataset, backbone=replace(config.backbone, weights=weights))

    @property
    def augment(self) -> AugmentConfig:
        """How its images were augmented."""
        return read_group(self._require(self._config), AugmentConfig, "augment")

    @property
    def trainer(self) -> TrainerConfig:
        """How long and on what it was trained."""
        return read_group(self._require(self._config), TrainerConfig, "trainer")

    @property
    def summary(self) -> dict[str, Any]:
        """The figures of `summary.json`, whichever there are."""
        return read_figures(self._require(self.summary_json))

    @property
    def full_summary(self) -> Summary:
        """The figures of `summary.json`, all of them."""
        return read_summary(self._require(self.summary_json))

    @property
    def last_summary(self) -> Summary | None:
        """The figures of when it was last finished, also while it is trained for longer; None before that."""
        kept = [path for path in (self.summary_json, self._summary_before) if path.exists()]
        return read_summary(kept[0]) if kept else None

    @property
    def metrics(self) -> list[dict[str, Any]]:
        """The rows of `metrics.csv`, one an epoch: numbers, and None where there is no value."""
        return read_metrics(self._require(self.metrics_csv))

    @property
    def num_epochs(self) -> int:
        """Epochs that `metrics.csv` has; 0 without it."""
        return len(self.metrics) if self.metrics_csv.exists() else 0

    @property
    def chose_epoch(self) -> bool:
        """True if the classifier's epoch was chosen among several that were validated; also where nothing tells."""
        if not self.is_best:
            return False
        if self.metrics_csv.exists():
            summary = self.summary if self.is_finished else {}
            is_amid_epoch = summary.get("val") != summary.get("last")  # by val_check_interval: rows are epochs
            return is_amid_epoch or sum(row.get("val/acc") is not None for row in self.metrics) > 1
        return not self.is_finished or self.summary.get("epochs") != 0

    @property
    def is_best(self) -> bool:
        """True if its classifier is that of the best epoch, not the last one's."""
        return self.checkpoint == self.best

    @property
    def is_started(self) -> bool:
        """True once the options are written."""
        return self._config.exists()

    @property
    def is_finished(self) -> bool:
        """True once the summary is written, until it is trained for longer."""
        return self.summary_json.exists()

    @property
    def outdated(self) -> list[str]:
        """What `thaw report`, `evaluate` and `export` have made of it by default before it was trained for longer."""
        patterns = ("report.html", "evaluation*/", "model*.onnx*", "model*.pt2")
        made = [path for pattern in patterns for path in sorted(self.folder.glob(pattern))]
        return [path.name for path in made if path.stat().st_mtime < self.summary_json.stat().st_mtime]

    def load_classifier(self) -> "Classifier":
        """The classifier of the best epoch, or of the last one, in evaluation mode, on the CPU."""
        from thaw.model.classifier import Classifier

        return Classifier.load_from_checkpoint(self._require(self.checkpoint))

    def load_data(self, classifier: "Classifier | None" = None) -> "ImageDataModule":
        """The data set that the run was trained on, with the same splits, as it is now; `setup` is left to do.

        Args:
            classifier: The run's own, where it is loaded already.
        """
        from thaw.data.datamodule import ImageDataModule

        classifier = classifier or self.load_classifier()
        return ImageDataModule(self.dataset, classifier.transform, self.augment, self.config["seed"])

    def evaluate(
        self,
        split: str | None = None,
        data: Path | str | None = None,
        label_pattern: str | None = None,
        tta: bool = False,
        random_views: int = 0,
        device: str | None = None,
        columns: Mapping[str, str] | None = None,
    ) -> "Predictions":
        """Predictions of the classifier on test if there is one, else on val; see `thaw.evaluation.evaluate`."""
        from thaw.evaluation import evaluate

        source = None if data is None else Path(at_home(data))
        return evaluate(self, split, source, label_pattern, tta, random_views, device, columns).predictions

    def predict(
        self,
        images: "Inputs",
        top: int = 3,
        device: str = "auto",
        batch_size: int | None = None,
        tta: bool = False,
    ) -> list["Prediction"]:
        """Predictions of the classifier for images, in their order: files, folders, patterns, images in memory.

        Each call loads the network; `thaw.Predictor` keeps it.

        Args:
            images: One or several, as in `thaw.data.inputs.list_inputs`.
            top: How many classes each prediction names.
            device: auto, cpu, gpu, or another accelerator of Lightning's.
            batch_size: Images at a time; default by the device.
            tta: Whether mirror images are averaged over, too.
        """
        from thaw.data.inputs import list_inputs
        from thaw.predict import Predictor

        listed = list_inputs(images)
        return list(Predictor(self, device, batch_size, tta).stream(listed, top))

    def report(self, out: Path | str | None = None, top: int = 12) -> Path:
        """Write the report, a page that tells all of the run; returns its path, `report.html` in the run's folder.

        Args:
            out: Another file to write.
            top: Images shown of highest loss, and of lowest confidence; 0 leaves both out.

        Raises:
            ThawError: The run is not finished, the last epoch is asked for, or the file cannot be written.
        """
        if not self.is_best:
            raise ThawError(f"A report is of the best epoch: name the run's folder, {self.folder}.")
        from thaw.inspection.report import write_report

        return write_report(self, Path(at_home(out)) if out else self.folder / "report.html", top)

    def require_new(self) -> None:
        """Refuse to start a new run where one lies.

        Raises:
            ThawError: There is something of it to lose.
        """
        if self.last.exists() or self.is_finished:
            option = shlex.quote(f"resume={self.folder}")
            raise ThawError(
                f"{self.folder} holds a run already, which would be lost. To go on with it: {option} (of a "
                "sweep: sweep.resume=SWEEP_FOLDER). To begin anew: name another folder, or remove this one."
            )

    def clear(self) -> None:
        """Remove the curves of a training that was killed before there was anything of it to go on from.

        Raises:
            ThawError: The folder holds a run, or cannot be written to.
        """
        self.require_new()
        with naming(self.events):
            for file in (*self.events.glob("events.out.tfevents.*"), self._tracking_id):
                file.unlink(missing_ok=True)

    def write_config(self, config: Config) -> None:
        """Keep every option, so that the run can be understood without `conf/`, and the overrides, to resume it.

        What would be taken for theirs is set aside: the figures of a finished run, which goes on by them, and the curve
        of an earlier range test.

        Raises:
            ThawError: The folder holds a run that is not resumed, or cannot be written to.
        """
        if config.resume is None or Path(config.resume).resolve() != self.folder.resolve():
            self.require_new()
            if self.rate_curve.exists():  # of find_lr.py: a training that lays none there was given its rate
                self.rate_curve.replace(self.figures / "learning_rate_before.png")
        with naming(self.figures):
            self.figures.mkdir(parents=True, exist_ok=True)
            if self.is_finished:
                self.summary_json.replace(self._summary_before)
        is_new = not self._config.exists()
        if is_new or self.find_again(config) == config:  # else its data is only seen from where it was started before
            with replacing(self._started_in) as draft:
                draft.write_text(str(Path.cwd()), encoding="utf-8", errors="surrogateescape")
        with replacing(self._config) as draft:
            OmegaConf.save(OmegaConf.create(asdict(config)), draft)
        if (typed := typed_overrides()) is not None:
            with replacing(self._overrides) as draft:
                OmegaConf.save(typed, draft)

    def write_summary(self, summary: Summary) -> None:
        """Keep the figures; the last step of a training."""
        with replacing(self.summary_json) as draft:
            draft.write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")
        self._summary_before.unlink(missing_ok=True)

    def _known_image(self, options: DatasetConfig) -> str:
        """A file of the run's data, as seen from its folder: the first image that it was judged on, if it is known."""
        is_known = self.predictions_csv.exists() and options.name != "stream"
        return read_first_image(self.predictions_csv) if is_known else "."

    def _require(self, path: Path) -> Path:
        if path.exists():
            return path
        if not self.folder.exists():
            around = self.folder.absolute().parent
            names = [each.name for each in around.iterdir()] if around.is_dir() else []
            raise ThawError(f"There is no folder {self.folder}.{did_you_mean(self.folder.name, names)}")
        inner = next(self.folder.glob(f"*/{self.summary_json.name}"), None)
        advice = f" It holds runs: name one, such as {inner.parent}." if inner else ""
        if self.last.exists():
            there = (
                f"; to end it where it is: trainer.max_epochs={epochs} behind that"
                if (epochs := self.num_epochs)
                else ""
            )
            advice = f" To finish it: thaw train {shlex.quote(f'resume={self.folder}')}{there}"
        raise ThawError(f"{self.folder} is not the folder of a finished run: it has no {path.name}.{advice}")


def _holds_weights(path: Path) -> bool:
    """True of a file, and of a run's folder: `default` may be any other one's name."""
    return path.is_file() or (path / "checkpoints" / "best.ckpt").is_file()
