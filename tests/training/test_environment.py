"""What SLURM sets in a job, seen by two steps of one job, by an interactive one, and without srun."""

import pytest

from thaw.training.environment import SrunEnvironment, find_environment
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
def in_a_job(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    for name, value in JOB.items():
        monkeypatch.setenv(name, value)


def test_the_processes_of_srun_are_those_of_its_step(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in STEP.items():
        monkeypatch.setenv(name, value)
    environment = find_environment()
    assert isinstance(environment, SrunEnvironment)
    assert environment.creates_processes_externally
    assert (environment.world_size(), environment.global_rank()) == (2, 1)
    assert (environment.local_rank(), environment.node_rank()) == (1, 0)
    assert environment.main_address == "node1"
    ports = {environment.main_port}
    monkeypatch.setenv("SLURM_STEP_ID", "1")
    assert len(ports | {environment.main_port}) == 2
    monkeypatch.setenv("MASTER_ADDR", "elsewhere")
    monkeypatch.setenv("MASTER_PORT", "29500")
    assert (environment.main_address, environment.main_port) == ("elsewhere", 29500)


def test_torchrun_and_a_script_without_srun_are_not_taken_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not find_environment().creates_processes_externally
    make_predictor("32-true", "cpu")  # Lightning's own would refuse --ntasks=4
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "4")
    environment = find_environment()
    assert environment.creates_processes_externally
    assert (environment.world_size(), environment.global_rank()) == (4, 1)
