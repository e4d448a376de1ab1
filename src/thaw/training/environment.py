"""How the processes of a training have been started, for Lightning, which would guess it from SLURM's variables."""

import os

from lightning.fabric.plugins.environments.cluster_environment import ClusterEnvironment
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.fabric.plugins.environments.torchelastic import TorchElasticEnvironment

from thaw.ranks import find_rank

FIRST_PORT, PORTS = 10_000, 20_000
"""Below those that Linux gives away."""
STEPS = 16
"""Ports that a job of SLURM has for its steps."""


class SrunEnvironment(ClusterEnvironment):
    """The processes that one srun has started.

    Lightning's own goes by the job instead of the step. It overlooks srun in a job called interactive, as salloc's is,
    and on SIGUSR1 it saves amid a step and requeues the job.
    """

    @property
    def creates_processes_externally(self) -> bool:
        """True: srun does."""
        return True

    @property
    def main_address(self) -> str:
        """The host of the first process."""
        nodes = os.environ["SLURM_STEP_NODELIST"]
        return os.environ.get("MASTER_ADDR") or SLURMEnvironment.resolve_root_node_address(nodes)

    @property
    def main_port(self) -> int:
        """A port that all derive alike, another one for each step."""
        job, step = int(os.environ["SLURM_JOB_ID"]), int(os.environ["SLURM_STEP_ID"])
        return int(os.environ.get("MASTER_PORT") or FIRST_PORT + (job * STEPS + step) % PORTS)

    @staticmethod
    def detect() -> bool:
        """True if srun has started this process beside others."""
        return "RANK" not in os.environ and not find_rank().is_alone

    def world_size(self) -> int:
        """Number of processes."""
        return find_rank().world_size

    def set_world_size(self, size: int) -> None:
        """Nothing: srun has set it."""

    def global_rank(self) -> int:
        """Rank among all."""
        return find_rank().rank

    def set_global_rank(self, rank: int) -> None:
        """Nothing: srun has set it."""

    def local_rank(self) -> int:
        """Rank on this machine."""
        return int(os.environ["SLURM_LOCALID"])

    def node_rank(self) -> int:
        """Number of this machine."""
        return int(os.environ["SLURM_NODEID"])


def find_environment() -> ClusterEnvironment:
    """By the same variables as `find_rank`."""
    if SrunEnvironment.detect():
        return SrunEnvironment()
    return TorchElasticEnvironment() if "RANK" in os.environ else LightningEnvironment()
