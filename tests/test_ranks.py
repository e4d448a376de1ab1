import pytest

from thaw.errors import ThawError
from thaw.ranks import ProcessRank, find_rank, writes


@pytest.mark.parametrize(
    ("environment", "rank"),
    [
        ({}, ProcessRank()),
        ({"RANK": "0", "WORLD_SIZE": "1", "LOCAL_WORLD_SIZE": "1"}, ProcessRank()),
        ({"RANK": "3", "WORLD_SIZE": "4", "LOCAL_WORLD_SIZE": "2"}, ProcessRank(3, 4, 2)),
        ({"SLURM_STEP_NUM_TASKS": "1", "SLURM_PROCID": "0"}, ProcessRank()),
        (
            {"SLURM_STEP_NUM_TASKS": "8", "SLURM_PROCID": "5", "SLURM_STEP_TASKS_PER_NODE": "4(x2)"},
            ProcessRank(5, 8, 4),
        ),
        ({"SLURM_STEP_NUM_TASKS": "4", "SLURM_PROCID": "3", "SLURM_STEP_TASKS_PER_NODE": "4"}, ProcessRank(3, 4, 4)),
        # A step of fewer processes than the job is asked for.
        (
            {
                "SLURM_STEP_NUM_TASKS": "2",
                "SLURM_PROCID": "1",
                "SLURM_STEP_TASKS_PER_NODE": "1(x2)",
                "SLURM_NTASKS_PER_NODE": "2",
            },
            ProcessRank(1, 2, 1),
        ),
        # A script without srun.
        ({"SLURM_NTASKS": "8", "SLURM_PROCID": "0", "SLURM_NTASKS_PER_NODE": "4"}, ProcessRank()),
    ],
)
def test_a_process_knows_its_rank(environment: dict[str, str], rank: ProcessRank) -> None:
    assert find_rank(environment) == rank
    assert find_rank(environment).is_alone == (rank.world_size == 1)


@pytest.mark.parametrize(
    ("environment", "facts"),
    [
        ({"RANK": "2", "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}, "RANK=2 WORLD_SIZE=2 LOCAL_WORLD_SIZE=2"),
        ({"RANK": "0", "WORLD_SIZE": "3", "LOCAL_WORLD_SIZE": "2"}, "RANK=0 WORLD_SIZE=3 LOCAL_WORLD_SIZE=2"),
        ({"RANK": "0", "WORLD_SIZE": "2"}, "RANK=0 WORLD_SIZE=2 LOCAL_WORLD_SIZE= "),
        ({"RANK": "-1", "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}, "RANK=-1 "),
        (
            {"SLURM_STEP_NUM_TASKS": "8", "SLURM_PROCID": "5"},
            "SLURM_PROCID=5 SLURM_STEP_NUM_TASKS=8 SLURM_STEP_TASKS_PER_NODE= ",
        ),
        (
            {"SLURM_STEP_NUM_TASKS": "3", "SLURM_PROCID": "0", "SLURM_STEP_TASKS_PER_NODE": "2,1"},
            "SLURM_STEP_TASKS_PER_NODE=2,1 ",
        ),
    ],
)
def test_an_impossible_rank_is_named(environment: dict[str, str], facts: str) -> None:
    with pytest.raises(ThawError, match=facts):
        find_rank(environment)


def test_only_the_first_process_speaks_and_not_if_another_waits_for_it() -> None:
    processes = [ProcessRank(), ProcessRank(0, 2, 2), ProcessRank(1, 2, 2), ProcessRank(0, 2, 2, started_by_thaw=True)]
    assert [each.speaks_for_all for each in processes] == [True, True, False, False]


@pytest.mark.parametrize(
    ("environment", "is_the_one"),
    [
        ({}, True),
        ({"LOCAL_RANK": "0", "WORLD_SIZE": "2"}, True),
        ({"LOCAL_RANK": "1", "WORLD_SIZE": "2"}, False),  # started by Lightning
        ({"RANK": "0", "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "LOCAL_RANK": "0"}, True),
        ({"RANK": "1", "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "LOCAL_RANK": "1"}, False),
    ],
)
def test_one_process_of_a_training_writes(environment: dict[str, str], is_the_one: bool) -> None:
    assert writes(environment) == is_the_one
