"""Starting several processes that train one model.

Imports torch only to count GPUs and to start them.
"""

import logging
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from tempfile import TemporaryDirectory

import psutil

from thaw.config import TrainerConfig
from thaw.errors import ThawError
from thaw.importing import heavy_imports
from thaw.ranks import HOW_TO_START, STARTED_BY_THAW
from thaw.signals import Interrupted

EXPLAINED = (1, 2)
"""Exit codes of a process whose error has been written down."""


def count_processes(options: TrainerConfig) -> int:
    """How many processes the options ask for on this machine: as many as devices.

    Raises:
        ThawError: They ask for several machines, on which only torchrun or SLURM can start processes.
    """
    if options.num_nodes > 1:
        raise ThawError(f"trainer.num_nodes={options.num_nodes}, and this process is alone. {HOW_TO_START}")
    if options.num_devices:
        return options.num_devices
    if options.distribution == "auto" or options.accelerator not in ("auto", "gpu", "cuda"):
        return 1
    import torch

    return max(1, torch.cuda.device_count())


class ProcessError(ThawError):
    """One of several processes has failed.

    Attributes:
        was_silent: True if it had no time to say why: what others have said tells only that they miss it.
    """

    def __init__(self, message: str, was_silent: bool) -> None:
        super().__init__(message)
        self.was_silent = was_silent


def start_processes(number: int, arguments: Sequence[str]) -> None:
    """Run Python with the arguments in so many processes; torchrun's agent ends the others where one fails.

    Raises:
        ProcessError: One has failed.
        Interrupted: A signal has ended this process, and they have been given time to save.
    """
    with heavy_imports():
        from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, SignalException
        from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
        from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    for name in logging.root.manager.loggerDict:
        if name.startswith("torch.distributed.elastic"):  # it tells of each signal
            logging.getLogger(name).setLevel(logging.CRITICAL)
    agents = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT") if hasattr(signal, name)]
    handled = {number: signal.getsignal(number) for number in agents}
    heard = [number.name for number in agents if handled[number] is not signal.SIG_IGN]
    os.environ["TORCHELASTIC_SIGNALS_TO_HANDLE"] = ",".join(heard) or "SIGTERM"  # which the agent passes on
    others = set(psutil.Process().children(recursive=True))
    os.environ[STARTED_BY_THAW] = "1"
    os.environ.setdefault("TORCH_ELASTIC_SHUTDOWN_TIMEOUT", "3600")  # seconds: the epoch is finished after a signal
    with TemporaryDirectory() as logs:
        launch = LaunchConfig(
            min_nodes=1,
            max_nodes=1,
            nproc_per_node=number,
            run_id=str(os.getpid()),
            rdzv_backend="c10d",
            rdzv_endpoint="localhost:0",
            local_addr="localhost",
            max_restarts=0,
            logs_specs=DefaultLogsSpecs(log_dir=logs),
        )
        try:
            elastic_launch(launch, sys.executable)(*arguments)
        except ChildFailedError as error:
            raise _explain({rank: failure.exitcode for rank, failure in error.failures.items()}, number) from None
        except SignalException as error:
            raise Interrupted(error.sigval) from None
        finally:
            del os.environ[STARTED_BY_THAW]
            for process in set(psutil.Process().children(recursive=True)) - others:
                process.kill()  # left behind by a third signal
            for each, handler in handled.items():
                signal.signal(each, handler)


def _explain(codes: Mapping[int, int], number: int) -> ProcessError:
    """The error of the process that failed first: a silent one, since others fail at once by missing it."""
    failed = [
        rank for rank, code in codes.items() if code not in (-signal.SIGTERM, 128 + signal.SIGTERM)
    ]  # the agent's
    silent = [rank for rank in failed if codes[rank] not in EXPLAINED]
    rank = min(silent or failed or codes)
    name, code = f"Process {rank} of {number}", codes[rank]
    if code in EXPLAINED:
        return ProcessError(f"{name} has failed with exit code {code}; what it said stands above.", False)
    if code > 0:
        return ProcessError(
            f"{name} has ended with exit code {code} and said nothing, so the others have been ended. resume=RUN goes "
            "on from the last checkpoint.",
            True,
        )
    return ProcessError(
        f"{name} was killed by {signal.Signals(-code).name}, and the others have been ended. If memory ran out, lower "
        "dataset.batch_size or set dataset.cache=none; resume=RUN goes on from the last checkpoint.",
        True,
    )
