"""Resuming a run: what is refused then, and how long the run has taken before."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

from omegaconf import OmegaConf

from thaw.config import Config, TrainerConfig
from thaw.errors import ThawError, name_some
from thaw.model.classifier import Classifier
from thaw.model.tensor_files import differing_tensors, expecting_own, read_about, read_tensors, require_finite
from thaw.options import typed
from thaw.run import Run
from thaw.training.checkpoints import BestCheckpoint

OWN = ("loss", "metrics")
"""Options whose other value would not be that of the epochs before, in one training and one `metrics.csv`."""
BEGINNING = ("seed", "backbone.weights", "head.init", "strategy.from_scratch")
"""Options that only matter at the start of a training; their outcome is in the checkpoint."""


@dataclass(frozen=True)
class EarlierSeconds:
    """Seconds of a run before it is resumed; see `thaw.summary.Seconds`."""

    fit: float = 0.0
    total: float = 0.0
    epochs: Sequence[float] = ()
    """Of each epoch."""


def earlier_seconds(run: Run) -> EarlierSeconds:
    """Those of a run's summary, if it was finished, and of the epochs after that, which were cut off."""
    epochs = [row["seconds"] or 0.0 for row in run.metrics] if run.metrics_csv.exists() else []
    if (summary := run.last_summary) is None:
        return EarlierSeconds(sum(epochs), sum(epochs), epochs)
    seconds, cut_off = summary["seconds"], sum(epochs[summary["epochs"] :])
    return EarlierSeconds(seconds["fit"] + cut_off, seconds["total"] + cut_off, epochs)


def require_own_folder(run: Run, resume: str) -> None:
    """Refuse to resume a run in another folder than its own.

    Raises:
        ThawError: This is another one than `resume` names.
    """
    if Path(resume).resolve() != run.folder.resolve():
        raise ThawError(
            f"resume={resume} goes on in that folder, and this run is to lie in {run.folder}. Leave the other "
            "folder out; a sweep goes on by sweep.resume=SWEEP_FOLDER."
        )


def require_later(run: Run, max_epochs: int) -> None:
    """Refuse to resume a finished run up to an epoch that it has reached already.

    Raises:
        ThawError: It has; its summary would be rewritten for nothing.
    """
    if run.is_finished and (epochs := run.full_summary["epochs"]) >= max_epochs:
        longer = f"To train it for longer, add trainer.max_epochs=N, above {epochs}"
        advice = longer if max_epochs else "trainer.max_epochs=0, as strategy=probe has it, trains nothing"
        raise ThawError(f"resume={run.folder} is finished. {advice}.")


def require_same_beginning(run: Run, config: Config) -> None:
    """Refuse options that only matter at the start of a training and now differ.

    Raises:
        ThawError: One of them does.
    """
    before = run.config
    now = cast(dict[str, Any], OmegaConf.to_container(OmegaConf.create(asdict(config))))  # as it would be recorded
    for key in (*OWN, *BEGINNING):
        group, _, name = key.rpartition(".")
        theirs, asked = (typed(options[group][name] if group else options[name]) for options in (before, now))
        is_moved = key == "backbone.weights" and Path(theirs).name == Path(asked).name
        if theirs != asked and not is_moved:
            raise ThawError(
                f"resume={run.folder} began with {key}={theirs}, and now it is {asked}. Leave it out, or begin anew "
                "in another folder."
            )


def require_own_checkpoint(path: Path, model: Classifier, options: TrainerConfig) -> None:
    """Refuse to resume from a checkpoint that this model's training cannot have written.

    Raises:
        ThawError: It is of other options that its state depends on, of a later epoch than is asked for, or broken.
    """
    checkpoint = read_tensors(path)
    with expecting_own(path):
        about, transform = checkpoint["thaw"], read_about(checkpoint["thaw"])[1]
        groups = checkpoint["optimizer_states"][0]["param_groups"]
        epochs: int = checkpoint["loops"]["fit_loop"]["epoch_progress"]["current"]["processed"]
        is_beyond = epochs > options.max_epochs
        pairs = {
            "backbone": (about["backbone"], model.backbone.name),
            "classes": (about["classes"], list(model.classes)),
            "head.standardize": (about["head"]["standardize"], model.head_options.standardize),
            "optimizer": (about["optimizer"], model.optimizer_options.name),
        }
        for name, key in {"image_size": "crop", "resize": "resize"}.items():  # best.ckpt is judged by the new ones
            pairs[f"dataset.{name}"] = (getattr(transform, key), getattr(model.transform, key))
        if best := checkpoint["callbacks"].get(BestCheckpoint.__name__):  # its score is of no other metric
            pairs["trainer.monitor"] = (best["monitor"], options.monitor)
        for name, value in model.optimizer_options.extra.items():
            if name != "betas" and name in groups[0]:  # what needs no other state may change
                pairs[f"optimizer.extra.{name}"] = (groups[0][name], value)
        differing = differing_tensors(checkpoint["state_dict"], model.state_dict())
    for name, (theirs, own) in pairs.items():
        if theirs != own:
            raise ThawError(f"resume: {path} was trained with {name} {theirs}, and now it is {own}.")
    if differing:
        raise ThawError(
            f"resume: {path} has other tensors than the options ask for, in {name_some(differing, most=3)}. Leave "
            "out what was not said when it was started."
        )
    if is_beyond:
        raise ThawError(
            f"resume: {path} has been trained for {epochs} epochs; trainer.max_epochs={options.max_epochs}."
        )
    if "current_model_state" in checkpoint and not options.ema_decay:
        raise ThawError(f"resume: {path} was trained with trainer.ema_decay, which is now null. Leave it as it was.")
    require_finite(path, checkpoint["state_dict"])
