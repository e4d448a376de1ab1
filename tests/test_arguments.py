import ntpath
import os
import shlex
from pathlib import Path
from typing import Any

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from thaw.arguments import expand_resume, expand_sweep, readable, refuse_flags, seen_from
from thaw.errors import ThawError


def interrupted_run(folder: Path, *overrides: str) -> Path:
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "checkpoints" / "last.ckpt").touch()
    OmegaConf.save(list(overrides), folder / "overrides.yaml")
    return folder


def meaning(arguments: list[str]) -> dict[str, Any]:
    """The value of each option, as Hydra reads it."""
    return {each.key_or_group: each.value() for each in OverridesParser.create().parse_overrides(arguments)}


# ---- flags


@pytest.mark.parametrize(
    ("arguments", "example"),
    [
        (["--epochs", "3"], "trainer.max_epochs=3, got --epochs."),
        (["seed=1", "--batch-size=16"], "dataset.batch_size=16, got --batch-size."),
        (["--strategy=frozen"], "strategy=frozen, got --strategy."),
        (["--strategy", "seed=1"], "strategy=VALUE, got --strategy."),
        (["--foo", "3"], "trainer.max_epochs=3, got --foo."),
        (["-m", "-lr", "0.1"], "optimizer.lr=0.1, got -lr."),
    ],
)
def test_a_flag_that_is_none_of_hydras_is_refused(arguments: list[str], example: str) -> None:
    with pytest.raises(ThawError) as caught:
        refuse_flags(arguments)
    assert str(caught.value) == f"Options are written KEY=VALUE, e.g. {example}"


@pytest.mark.parametrize(
    "line",
    ["", "-h", "-m seed=1,2", "--multirun a=--b", "--cfg job", "-cjob", "--config-name=x", "-cn x", "-sc install=bash",
     "--info defaults", "--resolve --package x", "--multi seed=1,2", "--hydra-help", "--version", "~seed"],
)  # fmt: skip
def test_hydras_own_flags_pass(line: str) -> None:
    refuse_flags(line.split())


# ---- what Hydra's grammar refuses


@pytest.mark.parametrize(
    "text",
    [
        "photos (1)",
        "größe",
        "x=y",
        "it's",
        "a,b",
        "^(.+)_[0-9]+[.]",
        "[a-z]+(.)",
        r"\d(x)\\",
        "a 'b' (c)",
        "photos",
        "7",
    ],
)
@pytest.mark.parametrize("key", ["dataset.root", "backbone.weights"])
def test_a_text_is_what_is_typed(key: str, text: str) -> None:
    assert {name: str(value) for name, value in meaning(readable([f"{key}={text}"])).items()} == {key: text}


@pytest.mark.parametrize(
    "option",
    ["dataset.classes=[a,b]", "dataset.classes=[a", "resume=null", "~seed", "+trainer.extra.x={a:1}", "a='b c'"],
)
def test_what_is_no_plain_text_is_left_to_hydra(option: str) -> None:
    assert readable([option]) == [option]


def test_a_sweep_keeps_its_choices() -> None:
    options = ["dataset.root=a,b", "optimizer.lr=tag(log,interval(1,2))"]
    assert readable([*options, "-m"]) == ["-m", *options]


def test_flags_may_stand_anywhere_on_the_line() -> None:  # argparse would refuse it
    assert readable(["seed=1", "--cfg", "job", "~a"]) == ["--cfg", "job", "seed=1", "~a"]


# ---- resume


@pytest.mark.parametrize("arguments", [[], ["seed=1", "--cfg", "job"], ["resume=null"], ["resume="]])
def test_without_resume_the_line_stays_as_it_is(arguments: list[str]) -> None:
    assert expand_resume(arguments) == arguments


def test_resume_brings_the_runs_own_options_and_its_folder(tmp_path: Path) -> None:
    folder = interrupted_run(tmp_path / "run", "strategy=gradual", "+trainer.extra.max_steps=3")
    options = expand_resume([f"resume={folder}"])
    assert meaning(options) == {
        "strategy": "gradual",
        "trainer.extra.max_steps": 3,
        "hydra.run.dir": str(folder),
        "resume": str(folder),
    }
    assert "+trainer.extra.max_steps=3" in options


@pytest.mark.parametrize("new", ["optimizer.lr=0.5", "+optimizer.lr=0.5"])
def test_what_stands_beside_resume_replaces_the_runs_own(tmp_path: Path, new: str) -> None:
    folder = interrupted_run(tmp_path / "run", "strategy=gradual", "optimizer.lr=0.1", "resume=elsewhere")
    options = expand_resume([f"resume={folder}", new])
    expected = {"strategy": "gradual", "optimizer.lr": 0.5, "hydra.run.dir": str(folder), "resume": str(folder)}
    assert meaning(options) == expected
    assert len(options) == len(expected)


def test_a_finished_run_goes_on_only_for_longer(tmp_path: Path) -> None:
    folder = interrupted_run(tmp_path / "run", "trainer.max_epochs=2")
    (folder / "summary.json").touch()
    with pytest.raises(ThawError, match=r"is finished\. To train it for longer, add trainer\.max_epochs=N\.$"):
        expand_resume([f"resume={folder}"])
    assert expand_resume([f"resume={folder}", "trainer.max_epochs=4"])[-1] == "trainer.max_epochs=4"


def test_nothing_to_go_on_from_is_refused(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    with pytest.raises(
        ThawError, match=r"run has no checkpoints/last\.ckpt to go on from\. Name the folder of a run\.$"
    ):
        expand_resume([f"resume={tmp_path / 'run'}"])


def test_a_run_that_was_not_started_from_the_command_line_is_refused(tmp_path: Path) -> None:
    folder = interrupted_run(tmp_path / "run")
    (folder / "overrides.yaml").unlink()
    with pytest.raises(ThawError, match=r"run was not started by train\.py: it has no overrides\.yaml\.$"):
        expand_resume([f"resume={folder}"])


@pytest.mark.parametrize(
    "content", ["", "- strategy=fine\n- 'see", "seed: 1", "\0"], ids=["empty", "cut", "map", "nul"]
)
def test_a_run_whose_options_are_damaged_is_not_resumed_with_others(tmp_path: Path, content: str) -> None:
    folder = interrupted_run(tmp_path / "run", "strategy=finetune", "seed=3")
    (folder / "overrides.yaml").write_text(content)
    with pytest.raises(ThawError, match=r"^\S+/run/overrides\.yaml is damaged, or of another version of Thaw: [^\n]+$"):
        expand_resume([f"resume={folder}"])


@pytest.mark.parametrize("argument", ["hydra.run.dir={}", "hydra.run.dir='{}'", 'hydra.run.dir="{}"'])
def test_a_folder_that_holds_a_run_is_not_begun_anew(tmp_path: Path, argument: str) -> None:
    folder = interrupted_run(tmp_path / "a run")
    argument = argument.format(folder)
    typed = shlex.quote(f"resume={folder}")
    with pytest.raises(ThawError, match=rf"^{folder} holds a run already, .*: {typed} .* remove this one\.$"):
        expand_resume([argument])
    assert expand_resume([argument, "--cfg", "job"]) == [argument, "--cfg", "job"]


@pytest.mark.parametrize("name", ["seed=1,strategy=frozen", "it's", "a (copy)", "{x}"])
def test_a_folder_of_any_name_can_be_resumed(tmp_path: Path, name: str) -> None:
    folder = interrupted_run(tmp_path / name)
    options = expand_resume([f"resume={folder}"])
    assert meaning(options) == {"hydra.run.dir": str(folder), "resume": str(folder)}
    (as_recorded,) = (option for option in options if option.startswith("resume="))
    assert expand_resume([as_recorded]) == options


# ---- sweeps


def test_a_single_run_stays_as_it_is() -> None:
    assert expand_sweep(["seed=1", "dataset.root=a/b"]) == (["seed=1", "dataset.root=a/b"], False)


@pytest.mark.parametrize(
    ("arguments", "unnamed"),
    [
        (["-m", "seed=1,2", "strategy=frozen"], "strategy"),
        (["-m", "seed=1", "strategy=frozen"], ""),
        (["-m", "sweep=frozen_head", "seed=1"], "seed,sweep"),
        (["-m", "dataset.csv=a/b.csv,c.csv", "seed=1,2"], "dataset.csv"),
        (["--multirun", "optimizer.lr=range(1,5)", "hydra.sweep.dir=x"], ""),
    ],
)
def test_what_all_jobs_share_is_left_out_of_their_names(arguments: list[str], unnamed: str) -> None:
    added = [f"hydra.job.config.override_dirname.exclude_keys=[{unnamed}]"]
    assert expand_sweep(arguments) == (arguments + added, False)


def test_a_folder_that_holds_a_sweep_is_not_begun_anew(tmp_path: Path) -> None:
    option = f"hydra.sweep.dir={tmp_path}"
    assert expand_sweep(["-m", "seed=1,2", option])[1] is False
    (tmp_path / "0_seed=1" / ".hydra").mkdir(parents=True)
    with pytest.raises(ThawError, match=rf"holds a sweep already.* sweep\.resume={tmp_path}"):
        expand_sweep(["-m", "seed=1,2", option])
    assert expand_sweep(["-m", "seed=1,2", f"sweep.resume={tmp_path}"])[1] is True


def test_resuming_is_the_same_sweep_in_the_same_folder(tmp_path: Path) -> None:
    arguments, skips_finished = expand_sweep(["-m", f"sweep.resume={tmp_path}", "seed=1,2"])
    assert skips_finished
    assert arguments[:3] == ["-m", "seed=1,2", f"hydra.sweep.dir='{tmp_path}'"]


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


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["sweep.resume=."], "sweep.resume=. goes on with a sweep: add -m and the options that it was started with."),
        (["-m", "sweep.resume=nowhere"], "sweep.resume=nowhere is not there. Name the folder of a sweep."),
    ],
)
def test_nothing_to_go_on_with_is_refused(arguments: list[str], message: str) -> None:
    with pytest.raises(ThawError) as caught:
        expand_sweep(arguments)
    assert str(caught.value) == message


# ---- folders


def test_a_folder_on_another_drive_has_no_relative_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert seen_from(Path(), tmp_path / "outputs" / "run") == Path("outputs/run")
    assert seen_from(tmp_path / "photos", tmp_path / "labels.csv") == Path("../labels.csv")
    monkeypatch.setattr(os.path, "relpath", ntpath.relpath)
    assert seen_from(Path(), Path("D:\\runs\\one")) == Path("D:\\runs\\one")
