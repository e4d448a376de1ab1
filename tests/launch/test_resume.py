import shlex
from pathlib import Path
from typing import Any

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from thaw.errors import ThawError
from thaw.launch.resume import expand_resume, refuse_taken


def interrupted_run(folder: Path, *overrides: str) -> Path:
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "checkpoints" / "last.ckpt").touch()
    OmegaConf.save(list(overrides), folder / "overrides.yaml")
    return folder


def meaning(arguments: list[str]) -> dict[str, Any]:
    """The value of each option, as Hydra reads it."""
    return {each.key_or_group: each.value() for each in OverridesParser.create().parse_overrides(arguments)}


@pytest.mark.parametrize("arguments", [[], ["seed=1", "--cfg", "job"], ["resume=null"]])
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


def test_flags_stay_in_front(tmp_path: Path) -> None:
    folder = interrupted_run(tmp_path / "run", "strategy=gradual")
    options = expand_resume(["--cfg", "job", f"resume={folder}", "trainer.max_epochs=9"])
    assert options[:2] == ["--cfg", "job"]
    assert {"strategy=gradual", "trainer.max_epochs=9"} < {*options[2:]}


def test_a_run_is_not_gone_on_with_by_a_sweep(tmp_path: Path) -> None:
    folder = interrupted_run(tmp_path / "run")
    with pytest.raises(
        ThawError, match=r"goes on with one run: leave -m out\. A sweep goes on by sweep\.resume=SWEEP\.$"
    ):
        expand_resume(["-m", f"resume={folder}", "seed=1,2"])


def test_presets_that_a_run_began_with_have_to_be_there(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    folder = interrupted_run(tmp_path / "run", f"hydra.searchpath=['file://{tmp_path / 'mine'}',pkg://some]")
    expand_resume([f"resume={folder}"])
    with_others = expand_resume(["hydra.searchpath=[pkg://other]", f"resume={folder}"])
    places = ["pkg://some", "pkg://other"]
    assert meaning(with_others)["hydra.searchpath"] == [f"file://{tmp_path / 'mine'}", *places]
    (tmp_path / "mine").rmdir()
    with pytest.raises(ThawError, match=rf"run began with presets in {tmp_path / 'mine'}: put them back\.$"):
        expand_resume([f"resume={folder}"])
    (folder / "started_in.txt").write_text(str(tmp_path))
    OmegaConf.save(["hydra.searchpath=[mine]"], folder / "overrides.yaml")  # as earlier versions recorded it
    with pytest.raises(ThawError, match=rf"run began with presets in {tmp_path / 'mine'}: put them back\.$"):
        expand_resume([f"resume={folder}"])


def test_a_finished_run_goes_on_only_for_longer(tmp_path: Path) -> None:
    folder = interrupted_run(tmp_path / "run", "trainer.max_epochs=2")
    (folder / "summary.json").touch()
    with pytest.raises(ThawError, match=r"is finished\. To train it for longer, add trainer\.max_epochs=N\.$"):
        expand_resume([f"resume={folder}"])
    with pytest.raises(ThawError, match="is finished"):
        expand_resume([f"resume={folder}", "trainer.eval_every=2"])
    for option in ("trainer.max_epochs=4", "trainer.early_stopping=5", "+trainer.extra.max_steps=9"):
        assert expand_resume([f"resume={folder}", option])[-1] == option


def test_of_a_finished_probe_and_of_a_run_without_a_checkpoint_it_is_told_what_they_are(tmp_path: Path) -> None:
    folder = interrupted_run(tmp_path / "run", "strategy=probe")
    (folder / "summary.json").touch()
    with pytest.raises(ThawError, match=r"is finished\. A probe is not trained\.$"):
        expand_resume([f"resume={folder}"])
    (folder / "config.yaml").touch()
    (folder / "checkpoints" / "last.ckpt").unlink()
    with pytest.raises(ThawError, match=r"last\.ckpt to go on from\. It was ended before one was saved: begin anew\.$"):
        expand_resume([f"resume={folder}"])


def test_nothing_to_go_on_from_is_refused(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    with pytest.raises(
        ThawError, match=r"run has no checkpoints/last\.ckpt to go on from\. Name the folder of a run\.$"
    ):
        expand_resume([f"resume={tmp_path / 'run'}"])


def test_a_run_that_was_not_started_from_the_command_line_is_refused(tmp_path: Path) -> None:
    folder = interrupted_run(tmp_path / "run")
    (folder / "overrides.yaml").unlink()
    with pytest.raises(
        ThawError, match=r"run was not started by train\.py: it has no overrides\.yaml\. What .*: train\(compose\("
    ):
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


def test_a_job_that_slurm_starts_anew_may_go_on_in_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = interrupted_run(tmp_path / "run")
    with pytest.raises(ThawError, match="holds a run already"):
        refuse_taken([f"hydra.run.dir={folder}"])
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    refuse_taken([f"hydra.run.dir={folder}"])
