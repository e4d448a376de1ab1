"""What ends a training before its time: no improvement, steps, Ctrl-C and other signals; see `step_losses` too."""

import logging
import math
import signal
import time
from multiprocessing import parent_process
from threading import Thread
from types import FrameType
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback, EarlyStopping

from thaw.signals import CAUGHT, LAUNCHERS, Interrupted, hear_once, interrupt
from thaw.training.checkpoints import LastCheckpoint

log = logging.getLogger(__name__)

SECONDS_TO_REPEAT = 3.0
"""Within which several processes get a signal twice: from SLURM, which sends it to all, and from what started them."""


class PhaseEarlyStopping(EarlyStopping):
    """Stops after some validations without improvement, counted from zero in each phase of the strategy.

    An epoch that is validated several times (`val_check_interval`) is trained to its end: it counts as a whole one.

    Args:
        monitor: Metric that decides.
        patience: Validations.
        phase_starts: Epochs, from 0, with which a phase begins.
        mode: `max` or `min`, whichever is better of that metric.

    Attributes:
        ended: The `max_epochs` of the training that this has ended; None as long as it goes on.
        asked: Whether this, and nothing else, has asked for the end after the last epoch.
    """

    def __init__(self, monitor: str, patience: int, phase_starts: list[int], mode: str = "max") -> None:
        # A value that is no number, as of a class that is not predicted yet, is no improvement, and no end.
        super().__init__(monitor, patience=patience, mode=mode, check_finite=False, check_on_train_epoch_end=False)
        self.phase_starts = phase_starts
        self.ended: int | None = None
        self.asked = False

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """End a resumed training that had ended already, unless more patience or more epochs are asked for.

        With more epochs, patience starts again from zero.
        """
        if self.ended not in (None, trainer.max_epochs):
            self.wait_count = 0
        if self.ended is not None and self.wait_count >= self.patience:
            trainer.should_stop = True
        else:
            self.ended = None

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Forget the count where a phase begins, and a wish that Lightning's `min_epochs` has not fulfilled."""
        if self.asked:
            trainer.should_stop = self.asked = False
        if trainer.current_epoch in self.phase_starts:
            self.wait_count = 0

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Decide to stop, only within the last phase: an earlier one hands over to the next."""
        others_wish = trainer.should_stop
        super().on_validation_end(trainer, pl_module)
        wishes = trainer.should_stop and not others_wish and trainer.current_epoch >= self.phase_starts[-1]
        self.ended = trainer.max_epochs if wishes else None
        trainer.should_stop = others_wish

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop, before `LastCheckpoint` asks for it."""
        self.asked = self.ended is not None and not trainer.should_stop
        trainer.should_stop = trainer.should_stop or self.asked

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Say why the training is over."""
        if self.ended is not None and trainer.current_epoch < self.ended and trainer.is_global_zero:
            validations = "validation" if self.wait_count == 1 else f"{self.wait_count} validations"
            log.info(f"Stopped early: {self.monitor} has not improved in the last {validations}")

    def state_dict(self) -> dict[str, Any]:
        """What a resumed training goes on with."""
        return {**super().state_dict(), "ended": self.ended}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over the count, and keep the patience that is asked for now."""
        super().load_state_dict({**state_dict, "patience": self.patience})
        self.ended = state_dict["ended"]


class LastStep(Callback):
    """Ends a training after some steps, and has its last epoch validated.

    Lightning's own `max_steps` does neither that nor, in a run that is resumed, begin and count the epochs.

    Args:
        number: Of steps, those before a run was resumed included.
    """

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """End a resumed training that had ended already."""
        self._stop_if_reached(trainer)

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        """End it within an epoch."""
        self._stop_if_reached(trainer)

    def _stop_if_reached(self, trainer: Trainer) -> None:
        trainer.should_stop = trainer.should_stop or trainer.global_step >= self.number


class Interruption(Callback):
    """Ends a training on a signal with the last finished epoch saved, from where it goes on exactly.

    An epoch that is broken off could not be resumed to the same weights. So if the epoch before it is on disk,
    the training ends at once; if not, `LastCheckpoint` has held it back because epochs are short, and the current one
    is finished and saved first. A second signal ends it at once in any case. A signal that a launcher waits for is
    passed on to it then.

    Does nothing where `thaw.signals.catching` does not catch the signals, as where the program has handlers of its own.

    Args:
        last: What writes `last.ckpt`.
    """

    def __init__(self, last: LastCheckpoint) -> None:
        super().__init__()
        self.last = last
        self.received: int | None = None
        self.received_at = -math.inf
        self.previous: dict[signal.Signals, Any] = {}

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take the signals over, from Lightning too, which would break the epoch off."""
        if signal.getsignal(signal.SIGINT) not in (interrupt, signal.SIG_IGN):
            return

        def handle(number: int, frame: FrameType | None) -> Any:
            is_alone = trainer.world_size == 1
            is_saved = self.last.epochs_saved >= trainer.current_epoch and is_alone
            if not is_alone and time.monotonic() - self.received_at < SECONDS_TO_REPEAT:
                return None
            if self.received is not None or is_saved or parent_process() is not None:
                own = interrupt if number in CAUGHT else self.previous[signal.Signals(number)]
                return own(number, frame)
            hear_once(number)
            self.received, self.received_at = number, time.monotonic()
            said = f"{Interrupted(number).signal}: ends after this epoch; once more ends it at once."
            Thread(target=log.warning, args=(said,)).start()  # this one may be amid printing, and hold the locks for it
            return None

        heard = [number for number in CAUGHT if signal.getsignal(number) is not signal.SIG_IGN]
        heard += [number for number in LAUNCHERS if callable(signal.getsignal(number))]
        self.previous = {number: signal.signal(number, handle) for number in heard}

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Let this epoch be the last if a signal has come, on whichever process; then it is saved."""
        if trainer.strategy.reduce_boolean_decision(self.received is not None, all=False):
            self.received = self.received or signal.SIGTERM
            trainer.should_stop = True

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """End the program, now that all is saved."""
        self._give_back()
        number, self.received = self.received, None
        if number is not None:
            if number not in CAUGHT:
                signal.raise_signal(number)  # ends the job, or does so by another process
            raise Interrupted(number)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """See a failure that the signal has caused, as of workers that it has reached too, as what it is."""
        self._give_back()
        if self.received is not None and not isinstance(exception, Interrupted):
            raise Interrupted(self.received) from exception

    def _give_back(self) -> None:
        for number, handler in self.previous.items():
            signal.signal(number, handler)
        self.previous = {}
