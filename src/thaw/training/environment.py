"""How the processes of a training have been started, for Lightning, which would guess it from SLURM's variables."""

import os

from lightning.fabric.plugins.environments.cluster_environment import ClusterEnvironment
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.fabric.plugins.environments.torchelastic import TorchElasticEnvironment

from thaw.ranks import ProcessRank, find_rank

FIRST_PORT, PORTS = 10_000, 20_000
"""Below those that Linux gives away."""
STEPS = 16
"""Ports that a job of SLURM has for its steps."""


def find_environment() -> ClusterEnvironment:
    """By the same variables as `find_rank`; a process of srun is given those of torchrun, too.

    Lightning's own plugin for SLURM goes by the job instead of the step. It overlooks srun in a job called interactive,
    as salloc's is, and on SIGUSR1 it saves amid a step and requeues the job.
    """
    if "RANK" not in os.environ and not (process := find_rank()).is_alone:
        os.environ.update(_as_torchrun(process, os.environ["SLURM_STEP_NODELIST"]))
    return TorchElasticEnvironment() if "RANK" in os.environ else LightningEnvironment()


def _as_torchrun(process: ProcessRank, nodes: str) -> dict[str, str]:
    """What torchrun would set; the address stays if it is set, else all derive one alike, with a port for each step."""
    port = FIRST_PORT + (int(os.environ["SLURM_JOB_ID"]) * STEPS + int(os.environ["SLURM_STEP_ID"])) % PORTS
    return {
        "RANK": str(process.rank),
        "WORLD_SIZE": str(process.world_size),
        "LOCAL_RANK": os.environ["SLURM_LOCALID"],
        "LOCAL_WORLD_SIZE": str(process.local_world_size),
        "GROUP_RANK": os.environ["SLURM_NODEID"],
        "MASTER_ADDR": os.environ.get("MASTER_ADDR") or SLURMEnvironment.resolve_root_node_address(nodes),
        "MASTER_PORT": os.environ.get("MASTER_PORT") or str(port),
    }
