"""Pruning: a trial of an Optuna search ends early where it is hopeless. The search itself is Hydra's Optuna sweeper."""

import logging
from typing import TYPE_CHECKING

from hydra.core.hydra_config import HydraConfig
from lightning.pytorch import Callback, LightningModule, Trainer

from thaw.config import SweepConfig
from thaw.overrides import in_sweep
from thaw.summary import as_maximised

if TYPE_CHECKING:
    from optuna.trial import Trial

log = logging.getLogger(__name__)


class TrialPruning(Callback):
    """Ends a training after a validation that Optuna's pruner finds hopeless; what it has reached is its result.

    The sweeper knows finished and failed trials only, so a pruned one counts as finished, with what it has reached.

    Args:
        trial: The trial.
        monitor: Metric that decides: the one that the search goes by.
        mode: `max` or `min`, whichever is better of that metric.

    Attributes:
        has_pruned: Whether it has ended the training.
    """

    def __init__(self, trial: "Trial", monitor: str, mode: str) -> None:
        super().__init__()
        self.trial, self.monitor, self.mode = trial, monitor, mode
        self.has_pruned = False

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Report the epoch, and ask."""
        epoch = trainer.current_epoch + 1
        value = as_maximised(float(trainer.callback_metrics[self.monitor]), self.mode)
        is_hopeless = False
        if trainer.is_global_zero:
            self.trial.report(value, epoch)
            is_hopeless = self.trial.should_prune()
        if trainer.strategy.broadcast(is_hopeless) and epoch < (trainer.max_epochs or 0):
            self.has_pruned = trainer.should_stop = True
            log.info(f"Stopped after epoch {epoch}: until here worse than half of the earlier trials (sweep.prune)")


def is_pruned(trainer: Trainer) -> bool:
    """True if pruning has ended the training."""
    callbacks: list[Callback] = getattr(trainer, "callbacks")  # noqa: B009 - Lightning does not type it
    return any(isinstance(callback, TrialPruning) and callback.has_pruned for callback in callbacks)


def current_trial(options: SweepConfig) -> "Trial | None":
    """The trial of the search that the running job is; None outside a search.

    The sweeper does not tell its jobs. The study does: it is the trial under way with the job's values.
    """
    if not in_sweep() or not (context := HydraConfig.get()).sweeper.get("storage"):
        return None
    import optuna

    optuna.logging.set_verbosity(logging.WARNING)
    pruner = optuna.pruners.MedianPruner(options.prune_after_trials, options.prune_after_epochs)
    study = optuna.load_study(context.sweeper.study_name, context.sweeper.storage, pruner=pruner)
    asked = set(context.overrides.task)
    for trial in reversed(study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.RUNNING,))):
        if all(f"{name}={value}" in asked for name, value in trial.params.items()):
            return optuna.trial.Trial(study, trial._trial_id)  # as Optuna's own integrations do
    return None
