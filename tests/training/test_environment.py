"""What SLURM sets in a job, seen by two steps of one job, by an interactive one, and without srun."""

import os
from collections.abc import Iterator
from unittest.mock import patch

import pytest

from thaw.ranks import find_rank
from thaw.training.environment import find_environment
from thaw.training.trainer import make_predictor

JOB = {
    "SLURM_JOB_ID": "12",
    "SLURM_JOB_NAME": "interactive",
    "SLURM_NODELIST": "node[0-1]",
    "SLURM_NTASKS": "4",
}
STEP = {
    "SLURM_STEP_ID": "0",
    "SLURM_STEP_NODELIST": "node1",
    "SLURM_STEP_NUM_TASKS": "2",
    "SLURM_STEP_TASKS_PER_NODE": "2",
    "SLURM_PROCID": "1",
    "SLURM_LOCALID": "1",
    "SLURM_NODEID": "0",
}


@pytest.fixture(autouse=True)
def in_a_job() -> Iterator[None]:
    """What a test, or `find_environment`, sets is gone afterwards."""
    with patch.dict(os.environ, JOB):
        for name in ("RANK", "MASTER_ADDR", "MASTER_PORT"):
            os.environ.pop(name, None)
        yield


def test_the_processes_of_srun_are_those_of_its_step() -> None:
    os.environ.update(STEP)
    before = find_rank()
    for environment in (find_environment(), find_environment()):
        assert environment.creates_processes_externally
        assert (environment.world_size(), environment.global_rank()) == (2, 1)
        assert (environment.local_rank(), environment.node_rank()) == (1, 0)
        assert environment.main_address == "node1"
    assert find_rank() == before


def test_two_steps_of_a_job_have_a_port_each() -> None:
    ports = set()
    for step in ("0", "1"):
        with patch.dict(os.environ, STEP | {"SLURM_STEP_ID": step}):
            ports.add(find_environment().main_port)
    assert len(ports) == 2


def test_an_address_that_is_set_stays() -> None:
    os.environ.update(STEP | {"MASTER_ADDR": "elsewhere", "MASTER_PORT": "29500"})
    environment = find_environment()
    assert (environment.main_address, environment.main_port) == ("elsewhere", 29500)


def test_torchrun_and_a_script_without_srun_are_not_taken_for_it() -> None:
    assert not find_environment().creates_processes_externally
    make_predictor("32-true", "cpu")  # Lightning's own would refuse --ntasks=4
    os.environ.update({"RANK": "1", "WORLD_SIZE": "4"})
    environment = find_environment()
    assert environment.creates_processes_externally
    assert (environment.world_size(), environment.global_rank()) == (4, 1)
