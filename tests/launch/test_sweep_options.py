from pathlib import Path

import pytest

from thaw.errors import ThawError
from thaw.launch.sweep_options import expand_sweep, refuse_lone_search


def test_a_single_run_stays_as_it_is() -> None:
    assert expand_sweep(["seed=1", "dataset.root=a/b"]) == (["seed=1", "dataset.root=a/b"], False)


@pytest.mark.parametrize(
    ("arguments", "unnamed"),
    [
        (["-m", "seed=1,2", "strategy=frozen"], "strategy"),
        (["-m", "seed=1", "strategy=frozen"], ""),
        (["-m", "seed=1", "figures=true", "report=true"], "figures,report"),
        (["-m", "sweep=frozen_head", "seed=1"], "seed,sweep"),
        (["-m", "dataset.csv=a/b.csv,c.csv", "dataset.root=a/b"], "dataset.root"),
        (["--multirun", "optimizer.lr=range(1,5)", "hydra.sweep.dir=x"], ""),
        (["-m", "seed=0", "strategy=frozen", "seed=1,2"], "strategy"),
        (["-m", "seed=1,2", "strategy=frozen", "seed=5"], ""),
    ],
)
def test_what_all_jobs_share_is_left_out_of_their_names(arguments: list[str], unnamed: str) -> None:
    added = [f"hydra.job.config.override_dirname.exclude_keys=[{unnamed}]"]
    assert expand_sweep(arguments) == (arguments + added, False)


def test_where_hydra_records_a_job_is_left_alone() -> None:
    with pytest.raises(ThawError, match=r"^hydra\.output_subdir cannot be changed in a sweep.*leave it out\.$"):
        expand_sweep(["-m", "seed=1,2", "hydra.output_subdir=null"])
    assert expand_sweep(["hydra.output_subdir=null"]) == (["hydra.output_subdir=null"], False)


def test_a_folder_that_holds_a_sweep_is_not_begun_anew(tmp_path: Path) -> None:
    option = f"hydra.sweep.dir={tmp_path}"
    assert expand_sweep(["-m", "seed=1,2", option])[1] is False
    (tmp_path / "0_seed=1" / ".hydra").mkdir(parents=True)
    with pytest.raises(ThawError, match=rf"holds a sweep already.* sweep\.resume={tmp_path}"):
        expand_sweep(["-m", "seed=1,2", option])
    assert expand_sweep(["-m", "seed=1,2", f"sweep.resume={tmp_path}"])[1] is True
    assert expand_sweep(["-m", "seed=1,2", "sweep.resume=null"])[1] is False
    assert expand_sweep(["seed=1", "sweep.resume=null"])[1] is False


def test_a_sweep_that_slurm_starts_anew_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    line = ["-m", "seed=1,2", f"hydra.sweep.dir={tmp_path}"]
    assert expand_sweep(line)[1] is False
    (tmp_path / "0_seed=1" / ".hydra").mkdir(parents=True)
    assert expand_sweep(line)[1] is True


def test_resuming_is_the_same_sweep_in_the_same_folder(tmp_path: Path) -> None:
    arguments, skips_finished = expand_sweep(["-m", f"sweep.resume={tmp_path}", "seed=1,2"])
    assert skips_finished
    assert arguments[:3] == ["-m", "seed=1,2", f"hydra.sweep.dir='{tmp_path}'"]


def test_the_jobs_of_a_sweep_that_is_gone_on_with_have_the_names_that_they_were_given(tmp_path: Path) -> None:
    (tmp_path / "multirun.yaml").write_text(
        "hydra: {sweep: {subdir: '${hydra.job.num}_${hydra.job.override_dirname}'},"
        " overrides: {task: ['dataset.root=a/x,b/y', seed=1]}}"
    )
    neutral = "figures=false"
    arguments, _ = expand_sweep(["-m", f"sweep.resume={tmp_path}", "dataset.root=a/x,b/y", "seed=1", neutral])
    assert arguments[-2:] == [
        "hydra.sweep.subdir='${hydra.job.num}_${hydra.job.override_dirname}'",
        "hydra.job.config.override_dirname.exclude_keys=[figures,seed]",
    ]


def test_another_grid_is_refused_before_its_jobs_mix_with_the_earlier_ones(tmp_path: Path) -> None:
    (tmp_path / "multirun.yaml").write_text("hydra: {overrides: {task: ['seed=1,2', strategy=frozen]}}\n")
    neutral = ["hydra/launcher=joblib", "figures=false", "dataset.num_workers=0"]
    same, _ = expand_sweep(["-m", f"sweep.resume={tmp_path}", *neutral, "seed=1,2", "strategy=frozen"])
    assert {"seed=1,2", *neutral} < set(same)
    for others in (
        [],
        ["hydra/launcher=joblib"],
        ["figures=false"],
        ["figures=true,false", "seed=1,2", "strategy=frozen"],
    ):
        with pytest.raises(ThawError, match="goes on with the options that it was started with"):
            expand_sweep(["-m", f"sweep.resume={tmp_path}", *others])
    with pytest.raises(ThawError) as caught:
        expand_sweep(["-m", f"sweep.resume={tmp_path}", "seed=1,2,3", "strategy=frozen"])
    assert str(caught.value) == (
        f"sweep.resume={tmp_path} goes on with the options that it was started with, seed=1,2 strategy=frozen. "
        "Start a new sweep for others: thaw compare takes the folders of both."
    )


def test_a_refused_grid_is_told_as_a_shell_takes_it(tmp_path: Path) -> None:
    sweep = tmp_path / "s w"
    sweep.mkdir()
    (sweep / "multirun.yaml").write_text("hydra: {overrides: {task: ['seed=1,2', 'dataset.root=my photos']}}\n")
    with pytest.raises(ThawError) as caught:
        expand_sweep(["-m", f"sweep.resume='{sweep}'", "seed=1,2,3"])
    assert str(caught.value).startswith(
        f"'sweep.resume={sweep}' goes on with the options that it was started with, seed=1,2 'dataset.root=my photos'. "
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["sweep.resume=."], "sweep.resume=. goes on with a sweep: add -m and the options that it was started with."),
        (["-m", "sweep.resume=nowhere"], "sweep.resume=nowhere is not there. Name the folder of a sweep."),
        (["-m", "sweep.resume=file"], "sweep.resume=file is no folder. Name the folder of a sweep."),
    ],
)
def test_nothing_to_go_on_with_is_refused(
    arguments: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(ThawError) as caught:
        expand_sweep(arguments)
    assert str(caught.value) == message


@pytest.mark.parametrize("record", ["hydra: {sweep: {subdir: 'x", "\x00", "a: [1"])
def test_a_record_that_a_full_disk_has_cut_is_named(tmp_path: Path, record: str) -> None:
    (tmp_path / "multirun.yaml").write_text(record)
    with pytest.raises(ThawError, match=r"multirun\.yaml is damaged"):
        expand_sweep(["-m", f"sweep.resume={tmp_path}", "seed=1,2"])


@pytest.mark.parametrize("look", ["-m", "--cfg", "hydra.mode=MULTIRUN"])
def test_a_search_is_no_single_run(look: str) -> None:
    refuse_lone_search(["sweep=frozen_head", look])
    refuse_lone_search(["sweep=null", "sweep.prune=false"])
    with pytest.raises(ThawError, match=r"^sweep=frozen_head searches by many trainings: add -m\.$"):
        refuse_lone_search(["sweep=frozen_head"])


def test_a_search_takes_the_better_end_by_itself() -> None:
    with pytest.raises(ThawError, match=r"^hydra\.sweeper\.direction=minimize is not to be said: "):
        expand_sweep(["-m", "sweep=search", "trainer.monitor=val/loss", "hydra.sweeper.direction=minimize"])
