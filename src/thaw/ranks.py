"""Rank of this process among those of one distributed training."""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass

from thaw.errors import ThawError

STARTED_BY_THAW = "THAW_STARTED_PROCESSES"
HOW_TO_START = "Start them by torchrun --nproc-per-node=N, or by srun with --ntasks-per-node=N."


@dataclass(frozen=True)
class ProcessRank:
    """Rank of this process, and the size of its group.

    Attributes:
        rank: Rank among all processes; 0 writes and prints.
        world_size: Number of processes on all machines.
        local_world_size: Number of processes on this machine.
        started_by_thaw: True if another process of ours waits for it, and prints what concerns all.
    """

    rank: int = 0
    world_size: int = 1
    local_world_size: int = 1
    started_by_thaw: bool = False

    @property
    def is_alone(self) -> bool:
        """True if there are no others."""
        return self.world_size == 1

    @property
    def speaks_for_all(self) -> bool:
        """True if it tells the user what concerns all of them."""
        return self.rank == 0 and not self.started_by_thaw


def writes(environment: Mapping[str, str] = os.environ) -> bool:
    """True in the one process of a training that writes; one that Lightning has started knows its LOCAL_RANK alone."""
    return find_rank(environment).rank == 0 and ("RANK" in environment or environment.get("LOCAL_RANK", "0") == "0")


def find_rank(environment: Mapping[str, str] = os.environ) -> ProcessRank:
    """The rank that torchrun, or srun of SLURM, has given to this process.

    Raises:
        ThawError: They contradict themselves.
    """
    if "RANK" in environment:
        names = ("RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE")
    elif environment.get("SLURM_STEP_NUM_TASKS", "1") != "1":  # SLURM_NTASKS is also that of a script without srun
        names = ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_STEP_TASKS_PER_NODE")
    else:
        return ProcessRank()
    values = [environment.get(name, "") for name in names]
    numbers = [re.sub(r"\(x\d+\)$", "", value) for value in values]  # SLURM has 4(x2) on two machines
    if all(number.isdecimal() for number in numbers):
        rank, world_size, local_world_size = map(int, numbers)
        if rank < world_size and 1 <= local_world_size <= world_size and world_size % local_world_size == 0:
            return ProcessRank(rank, world_size, local_world_size, STARTED_BY_THAW in environment)
    facts = " ".join(f"{name}={value}" for name, value in zip(names, values, strict=True))
    raise ThawError(
        f"{facts} do not fit: the rank must be below the number of processes, and each machine must have equally many. "
        f"{HOW_TO_START}"
    )
