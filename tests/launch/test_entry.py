import os
import re
import shlex
import signal
import subprocess
import sys
from dataclasses import dataclass, fields, is_dataclass
from importlib.metadata import version
from pathlib import Path

import pytest

from thaw.config import Config
from thaw.launch.composing import compose
from thaw.launch.explain import option_names
from thaw.run import Run
from thaw.writing import claimed

ROOT = Path(__file__).parents[2]
TRAIN, FIND_LR = ROOT / "train.py", ROOT / "find_lr.py"

LIGHT_EXPERIMENT = f"""
from pathlib import Path
from thaw.launch.entry import run_experiment
from thaw.errors import ThawError

def experiment(config, folder, command):
    if config.seed == 1:
        raise ThawError("dataset.root has no images of seed 1.")
    if config.seed == 2:
        raise ZeroDivisionError("a bug of ours")
    (folder / "command.txt").write_text(command)
    if config.seed == 3:
        raise ThawError("The disk is full.")
    return config.seed

def close_sweep(sweep):
    print("closed:", sweep)
    (sweep / "table.csv").touch()

run_experiment(experiment, Path({str(ROOT / "conf")!r}), close_sweep)
"""
"""What stands around a training, without one."""


@dataclass(frozen=True)
class Outcome:
    """What a command came to."""

    code: int
    output: str
    messages: list[str]
    """Lines of the error stream."""
    imported: set[str]
    """Top-level packages that were imported."""


def run(*arguments: Path | str, cwd: Path, **environment: str) -> Outcome:
    command = [sys.executable, "-X", "importtime", *map(str, arguments)]
    inherited = {name: value for name, value in os.environ.items() if name != "HYDRA_FULL_ERROR"}
    done = subprocess.run(command, cwd=cwd, env=inherited | environment, capture_output=True, text=True)
    errors = re.sub(r"^import time:.*\n", "", done.stderr, flags=re.MULTILINE)
    imported = {name.partition(".")[0] for name in re.findall(r"^import time:.* (\S+)$", done.stderr, re.MULTILINE)}
    return Outcome(done.returncode, done.stdout, errors.splitlines(), imported)


def run_folders(cwd: Path) -> list[str]:
    return sorted(path.name for path in cwd.glob("outputs/*"))


@pytest.fixture
def light(tmp_path: Path) -> Path:
    script = tmp_path / "light.py"
    script.write_text(LIGHT_EXPERIMENT)
    return script


# ---- what a user mistypes


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["dataset=folder"], "dataset=folder does not tell where the images lie: add dataset.root=FOLDER[.]"),
        (["strategy=frozn"], "strategy must be one of boosted_head, .*, got 'frozn'[.] Did you mean 'frozen'[?]"),
        (["optimizer.lr=fast"], "optimizer.lr must be auto or a positive number, got 'fast'[.]"),
        (["trainer.foo=1"], "trainer.foo is not an option[.] .* written [+]trainer[.]extra[.]foo=VALUE[.]"),
        (["optimizer.lrr=1"], "optimizer.lrr is not an option[.] Did you mean 'optimizer.lr'[?] .*"),
        (["+optimizer.beta=1"], "optimizer.beta is not an option[.].*"),
        (["strategy.first_stage_factor=2"], r"strategy.first_stage_factor must be in \(0, 1\], got 2.0[.]"),
        (["dataset.batch_size=99999999999"], "dataset.batch_size must be a whole number below .*, got 99999999999[.]"),
        (["dataset.root=${oc.env:THAW_X}"], "dataset.root refers to what is not there: .* 'THAW_X' not found[.]"),
        (["dataset.root=${dataset.root}"], "dataset.root refers to what is not there: Recursive interpolation .*"),
        (
            ["dataset.classes=['${dollar}',b]"],
            r"dataset.classes.0. refers to what is not there: Interpolation key 'dollar' not found[.] A dollar sign "
            r"before a brace is written \\\$\{[.]",
        ),
        (["--config", "x"], "Options are written KEY=VALUE, e[.]g[.] trainer.max_epochs=3, got --config[.]"),
        (["seed=${nope:1}"], "seed refers to what is not there: Unsupported interpolation type nope[.]"),
        (["hydra.run.dir=null"], "hydra.run.dir must be something else, got 'null'[.]"),
        (["~dataset.root"], "dataset.root cannot be removed: give it a value, dataset.root=VALUE[.]"),
        (["trainer.max_epochs=many"], "trainer.max_epochs must be a whole number, got 'many'[.]"),
        (["dataset.classes=[ants"], "Cannot read the option 'dataset.classes=.ants': write KEY=VALUE, .*"),
        (["resume=outputs/none"], "resume=outputs/none has no checkpoints/last.ckpt to go on from[.].*"),
        (["--epochs", "3"], "Options are written KEY=VALUE, e.g. trainer.max_epochs=3, got --epochs[.]"),
        (["-m", "seed=1,2", "--cfg", "job"], "Only one of -r, -m, --cfg, --info and -sc can be given: .*"),
        (["--cfg", "job", "--info", "defaults"], "Only one of -r, -m, --cfg, --info and -sc can be given: .*"),
        (["-r", "-m", "seed=1"], "Only one of -r, -m, --cfg, --info and -sc can be given: .*"),
        (["sweep=frozen_head"], "sweep=frozen_head searches by many trainings: add -m[.]"),
        (["-m", "optimizer.lr=interval(1,2)"], "Intervals are tried by a search: add sweep=search, .*"),
        (["-m", "strategy=frozen,frozn"], "strategy must be one of .*, got 'frozn'[.] Did you mean 'frozen'[?]"),
    ],
)
def test_a_mistake_ends_with_one_line_and_code_2_before_torch_is_imported(
    tmp_path: Path, arguments: list[str], message: str
) -> None:
    outcome = run(TRAIN, *arguments, cwd=tmp_path)
    assert outcome.code == 2
    assert len(outcome.messages) == 1
    assert re.fullmatch(message, outcome.messages[0])
    assert "hydra" in outcome.imported
    assert not {"torch", "lightning", "numpy"} & outcome.imported


@pytest.mark.parametrize("arguments", [["strategy=frozn"], ["head.dropout=2"], ["+foo=1"], ["-m", "head.dropout=2"]])
def test_a_rejected_command_leaves_no_folder(tmp_path: Path, arguments: list[str]) -> None:
    assert run(TRAIN, *arguments, cwd=tmp_path).code == 2
    assert run_folders(tmp_path) == []


@pytest.mark.slow
@pytest.mark.parametrize("sweep", ["head.dropout=2,3", "strategy=frozen,frozn", "optimizer.lrr=1,2", "+foo=1,2"])
def test_a_rejected_sweep_leaves_no_folder(tmp_path: Path, sweep: str) -> None:
    assert run(TRAIN, "-m", sweep, cwd=tmp_path).code == 2
    assert run_folders(tmp_path) == []


def test_a_mistake_is_answered_before_logging_is_set_up(tmp_path: Path) -> None:
    assert "rich" not in run(TRAIN, "head.dropout=2", cwd=tmp_path).imported


def test_a_sweep_over_a_choice_that_is_none_leaves_no_folder(tmp_path: Path) -> None:
    assert run(TRAIN, "-m", "strategy=frozen,frozn", cwd=tmp_path).code == 2
    assert run_folders(tmp_path) == []


@pytest.mark.slow
def test_a_sweep_names_each_of_its_failures_and_each_reason_once(tmp_path: Path) -> None:
    outcome = run(TRAIN, "-m", "head.dropout=2,0.1", "trainer.max_epochs=-2,-1", cwd=tmp_path)
    assert (outcome.code, outcome.messages) == (
        2,
        [
            "Failed: head.dropout=2 trainer.max_epochs=-2",
            "Failed: head.dropout=2 trainer.max_epochs=-1",
            "  head.dropout must be in [0, 1), got 2.0.",
            "Failed: head.dropout=0.1 trainer.max_epochs=-2",
            "  trainer.max_epochs must be a whole number from 0 to 100000, got -2.",
            "Failed: head.dropout=0.1 trainer.max_epochs=-1",
            "  trainer.max_epochs must be a whole number from 0 to 100000, got -1.",
        ],
    )
    assert "torch" not in outcome.imported


def test_hydras_switch_shows_the_traceback(tmp_path: Path) -> None:
    outcome = run(TRAIN, "head.dropout=2", cwd=tmp_path, HYDRA_FULL_ERROR="1")
    assert outcome.code != 0
    assert "Traceback (most recent call last):" in outcome.messages
    assert outcome.messages[-1] == "thaw.errors.ThawError: head.dropout must be in [0, 1), got 2.0."


@pytest.mark.slow
@pytest.mark.parametrize("program", [[TRAIN], [FIND_LR], ["-m", "thaw", "train"]])
@pytest.mark.parametrize("arguments", [["--help"], ["--cfg", "job"], ["--info", "defaults"]])
def test_looking_before_running_imports_no_torch_and_leaves_nothing(
    tmp_path: Path, program: list[Path | str], arguments: list[str]
) -> None:
    outcome = run(*program, *arguments, cwd=tmp_path)
    assert (outcome.code, outcome.messages) == (0, [])
    assert "strategy" in outcome.output
    assert "torch" not in outcome.imported
    assert list(tmp_path.iterdir()) == []


def test_the_version_is_thaws(tmp_path: Path) -> None:
    outcome = run(TRAIN, "--version", cwd=tmp_path)
    assert (outcome.code, outcome.output, outcome.messages) == (0, f"thaw {version('thaw')}\n", [])
    assert "torch" not in outcome.imported


@pytest.mark.parametrize("program", [TRAIN, FIND_LR])
def test_without_its_environment_a_program_says_how_to_have_it(program: Path, tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-I", "-S", str(program)], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 1
    remedy = "activate Thaw's environment (. .venv/bin/activate), or install it (pip install -e .)."
    assert done.stderr == f"No module named 'thaw': {remedy}\n"


def test_help_is_each_commands_own_and_names_what_there_is(tmp_path: Path) -> None:
    ours, theirs = run(TRAIN, "--help", cwd=tmp_path), run(FIND_LR, "strategy=frozen", "-h", cwd=tmp_path)
    assert {"resnet18", "hymenoptera_finetune", "dataset.root"} <= set(ours.output.split())
    assert {"find_lr.num_steps=100", "valley", "python"} <= set(theirs.output.split())
    assert "$" not in ours.output + theirs.output


@pytest.mark.parametrize(("script", "command"), [(TRAIN, "train"), (FIND_LR, "find_lr")])
def test_as_a_command_a_programs_help_names_commands(tmp_path: Path, script: Path, command: str) -> None:
    help_page = run(script, "--help", cwd=tmp_path).output
    shorter = run("-m", "thaw", command, "--help", cwd=tmp_path).output
    for program in ("train", "find_lr"):
        assert help_page.count(f"python {program}.py") == shorter.count(f"thaw {program}") > 0
    for line, as_command in zip(help_page.splitlines(), shorter.splitlines(), strict=True):
        assert len(line.rstrip()) == len(as_command.rstrip()) or not line.startswith("python")


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        (
            "head_epochs",
            "strategy.head_epochs    default 0; at least 0\n"
            "    Epochs in which only the head learns, before the backbone joins.\n",
        ),
        (
            "Momentum",
            "optimizer.momentum    default 0.9; in [0, 1)\n    ",
        ),
        ("trainer.early", "trainer.early_stopping    default null; null or at least 1\n    Validations "),
        ("trainer.compile", "trainer.compile    default false; true or false\n    Compile "),
        ("trainer.extra", "trainer.extra    a mapping\n    Any other flag "),
        ("SLURM", "trainer.num_nodes    default 1; at least 1\n    Number of machines; "),
        ("patience", "trainer.early_stopping    default null; null or at least 1\n    Validations "),
        ("device", "trainer.accelerator    default auto; a text\n"),
        ("AMP", "trainer.precision    default auto; one of auto, "),
        ("freeze", "strategy.name    default frozen; "),
    ],
)
def test_help_finds_options_by_a_word(word: str, expected: str, tmp_path: Path) -> None:
    outcome = run(TRAIN, "--help", word, cwd=tmp_path)
    assert (outcome.code, outcome.output[: len(expected)]) == (0, expected)
    assert {"torch", "hydra._internal"}.isdisjoint(outcome.imported)


def test_help_knows_every_option(tmp_path: Path) -> None:
    outcome = run(TRAIN, "--help", "options", cwd=tmp_path)
    named = {line.split("    ")[0] for line in outcome.output.splitlines() if not line.startswith(" ")}
    groups = {group.name for group in fields(Config) if is_dataclass(group.type)}
    assert named == set(option_names()) - groups
    unknown = run(TRAIN, "--help", "learning_rates", cwd=tmp_path)
    assert unknown.code == 2
    assert unknown.messages[0].startswith("No option has 'learning_rates' in its name or its meaning.")


@pytest.mark.parametrize("arguments", [["--cfg", "job"], ["-c", "job", "--resolve"]])
def test_the_options_are_shown_as_they_will_be(arguments: list[str], tmp_path: Path) -> None:
    outcome = run(TRAIN, "strategy=gradual", "trainer.max_epochs=6", *arguments, cwd=tmp_path)
    assert outcome.code == 0
    assert {"  head_epochs: 4", "  max_epochs: 6"} <= set(outcome.output.splitlines())


# ---- what happens around an experiment


def test_an_option_may_refer_to_what_only_hydra_knows(tmp_path: Path, light: Path) -> None:
    outcome = run(light, "hydra.run.dir=here", "dataset.root=${hydra:runtime.cwd}/photos", cwd=tmp_path)
    assert (outcome.code, outcome.messages) == (0, [])
    assert (tmp_path / "here" / "command.txt").exists()


def test_an_experiment_gets_the_options_its_folder_and_the_command(tmp_path: Path, light: Path) -> None:
    outcome = run(light, "hydra.run.dir=here", "dataset.root=my photos", cwd=tmp_path)
    assert (outcome.code, outcome.messages) == (0, [])
    assert (tmp_path / "here" / "command.txt").read_text() == "python light.py 'dataset.root=my photos'"


RESUMABLE = f"""
from pathlib import Path
from thaw.launch.entry import run_experiment
from thaw.run import Run

def experiment(config, folder, command):
    Run(folder).write_config(config)
    (folder / "checkpoints").mkdir(exist_ok=True)
    (folder / "checkpoints" / "last.ckpt").touch()
    print(config.optimizer.lr, config.trainer.max_epochs, config.head.dropout, config.strategy.name, command)

run_experiment(experiment, Path({str(ROOT / "conf")!r}))
"""


def test_a_resumed_run_has_the_options_that_it_began_with(tmp_path: Path) -> None:
    script, preset = tmp_path / "begin.py", tmp_path / "own" / "strategy" / "mine.yaml"
    script.write_text(RESUMABLE)
    preset.parent.mkdir(parents=True)
    text = "# @package _global_\nstrategy: {name: mine, backbone_factor: 1}\noptimizer: {lr: 0.01}\n"
    preset.write_text(text)
    typed = ["--config-dir", "own", "strategy=mine", "head.dropout=0.2"]
    begun = run(script, *typed, "hydra.run.dir=here", cwd=tmp_path)
    assert begun.output.startswith("0.01 25 0.2 mine ")
    for replaced, told in (("0.5", ["here goes on with trainer.max_epochs=30 (was 25)"]), ("0.7", [])):
        preset.write_text(text.replace("0.01", replaced))
        resumed = run(script, "resume=here", "trainer.max_epochs=30", "head.dropout=0.2", cwd=tmp_path)
        assert (resumed.code, resumed.messages) == (0, [])
        *changes, printed = resumed.output.splitlines()
        assert printed.startswith("0.01 30 0.2 mine ")
        assert changes == told
    change, printed = run(script, "resume=here", "optimizer.lr=0.7", cwd=tmp_path).output.splitlines()
    assert change == "here goes on with optimizer.lr=0.7 (was 0.01)"
    assert printed.startswith("0.7 30 0.2 mine ")
    python, program, searchpath, *options = shlex.split(begun.output.split(" ", 4)[-1])
    assert [python, program, *options] == ["python", "begin.py", *typed[2:]]
    assert searchpath == f"hydra.searchpath=['file://{tmp_path / 'own'}']"


def test_a_resumed_run_keeps_what_its_preset_made_of_other_options(tmp_path: Path) -> None:
    script = tmp_path / "begin.py"
    script.write_text(RESUMABLE)
    for options in (["strategy=gradual", "trainer.max_epochs=6", "hydra.run.dir=here"], ["resume=here"]):
        assert run(script, *options, cwd=tmp_path).code == 0
    assert run(script, "resume=here", "trainer.max_epochs=30", cwd=tmp_path).code == 0
    strategy = Run(tmp_path / "here").config["strategy"]
    assert (strategy["head_epochs"], strategy["unfreeze_epochs"]) == (4, 1)
    assert run(script, "resume=here", "strategy.head_epochs=5", cwd=tmp_path).code == 0
    assert Run(tmp_path / "here").config["strategy"]["head_epochs"] == 5


def test_a_folder_of_presets_has_to_be_there(tmp_path: Path) -> None:
    outcome = run(TRAIN, "--config-dir=none", "seed=1", cwd=tmp_path)
    place = tmp_path / "none"
    assert outcome.messages == [f"--config-dir is not a folder: {place}. Name one that holds presets, as conf/ does."]


def test_a_mistake_found_by_the_experiment_is_one_line_and_leaves_no_folder(tmp_path: Path, light: Path) -> None:
    outcome = run(light, "seed=1", cwd=tmp_path)
    assert (outcome.code, outcome.messages) == (2, ["dataset.root has no images of seed 1."])
    assert run_folders(tmp_path) == []


def test_a_rejected_run_leaves_what_it_has_not_written(tmp_path: Path, light: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "server.log").touch()
    (tmp_path / "empty").mkdir()
    assert run(light, "seed=1", "hydra.run.dir=mine", cwd=tmp_path).code == 2
    assert (tmp_path / "mine" / "server.log").exists()
    outcome = run(light, "seed=1", "hydra.run.dir=.", cwd=tmp_path / "empty")
    assert (outcome.code, outcome.messages) == (2, ["dataset.root has no images of seed 1."])
    assert list((tmp_path / "empty").iterdir()) == []


def test_a_folder_with_results_in_it_is_kept(tmp_path: Path, light: Path) -> None:
    outcome = run(light, "seed=3", "hydra.run.dir=outputs/a", cwd=tmp_path)
    assert (outcome.code, outcome.messages) == (2, ["The disk is full."])
    assert (tmp_path / "outputs" / "a" / "command.txt").exists()


def test_a_bug_of_ours_shows_its_traceback_and_ends_with_code_1(tmp_path: Path, light: Path) -> None:
    outcome = run(light, "seed=2", cwd=tmp_path)
    assert outcome.code == 1
    assert outcome.messages[0] == "Traceback (most recent call last):"
    assert "ZeroDivisionError: a bug of ours" in outcome.messages


@pytest.mark.slow
def test_a_sweep_goes_on_after_a_bad_job_and_is_closed_once(tmp_path: Path, light: Path) -> None:
    outcome = run(light, "-m", "seed=0,1,2,4", "hydra.sweep.dir=outputs/sweep", cwd=tmp_path)
    assert outcome.code == 1  # seed 2's is ours
    text = "\n".join(outcome.messages)
    assert "Failed: seed=1\n  dataset.root has no images of seed 1.\n" in text
    assert "Failed: seed=2\n" in text
    assert "ZeroDivisionError: a bug of ours" in text
    sweep = tmp_path / "outputs" / "sweep"
    done = sorted(path.parent.name for path in sweep.glob("*/command.txt"))
    assert done == ["0_seed=0", "3_seed=4"]
    assert (sweep / "1_seed=1" / "error.log").read_text() == "dataset.root has no images of seed 1.\n"
    assert "ZeroDivisionError: a bug of ours" in (sweep / "2_seed=2" / "error.log").read_text()
    assert sorted(path.parent.name for path in sweep.glob("*/error.log")) == ["1_seed=1", "2_seed=2"]
    assert outcome.output.count("closed: outputs/sweep\n") == 1
    assert outcome.messages[-1] == "To retry what failed: the same command and sweep.resume=outputs/sweep"


@pytest.mark.slow
def test_a_sweep_whose_folder_cannot_be_made_is_one_line(tmp_path: Path, light: Path) -> None:
    (tmp_path / "taken").touch()
    outcome = run(light, "-m", "seed=4,5", "hydra.sweep.dir=taken", cwd=tmp_path)
    assert (outcome.code, outcome.messages) == (2, ["taken: File exists. Fix that and start again."])
    assert (tmp_path / "taken").exists()


def test_a_job_whose_folder_is_taken_names_the_option_of_sweeps(tmp_path: Path, light: Path) -> None:
    with claimed(tmp_path / "s" / "job"):
        outcome = run(light, "-m", "seed=0", "hydra.sweep.dir=s", "hydra.sweep.subdir=job", cwd=tmp_path)
    assert outcome.code == 2
    assert "Another run is writing to s/job: wait for it, or set hydra.sweep.dir=FOLDER." in outcome.messages


SWEEP_WITHIN = f"""
import subprocess, sys
from pathlib import Path
from thaw.launch.entry import run_experiment

def experiment(config, folder, command):
    if config.seed == 0:
        for options in (["seed=3,4", "hydra.sweep.dir=${{oc.env:PLACE}}"], ["seed=1,0", "sweep.resume=s"]):
            subprocess.run([sys.executable, __file__, "-m", *options])
    (folder / "command.txt").touch()

run_experiment(experiment, Path({str(ROOT / "conf")!r}), lambda sweep: print("closed:", sweep))
"""
"""A sweep in which another one is started in the same folder, as in the same second, and itself is gone on with."""


def test_a_folder_takes_one_sweep_at_a_time(tmp_path: Path) -> None:
    script = tmp_path / "within.py"
    script.write_text(SWEEP_WITHIN)
    refusal = "Another sweep is writing to s: wait for it, or set hydra.sweep.dir=FOLDER."
    first = run(script, "-m", "seed=1,0", "hydra.sweep.dir=s", cwd=tmp_path, PLACE="s")
    assert (first.code, first.messages, first.output.count("closed: s\n")) == (0, [refusal, refusal], 1)
    assert sorted(path.name for path in tmp_path.glob("s/*")) == ["0_seed=1", "1_seed=0", "multirun.yaml"]
    assert "seed=1,0" in (tmp_path / "s" / "multirun.yaml").read_text()


def test_a_table_that_cannot_be_written_hides_no_failure(tmp_path: Path, light: Path) -> None:
    (tmp_path / "s").mkdir()
    (tmp_path / "s" / "table.csv").symlink_to("missing/table.csv")
    outcome = run(light, "-m", "seed=0,1", "hydra.sweep.dir=s", cwd=tmp_path)
    assert outcome.code == 2
    assert outcome.messages[:2] == ["Failed: seed=1", "  dataset.root has no images of seed 1."]
    assert outcome.messages[2].startswith("s/table.csv: No such file or directory.")
    assert outcome.messages[3:] == []


def test_a_mistake_is_not_to_be_retried_unless_it_left_an_epoch_to_go_on_from(tmp_path: Path, light: Path) -> None:
    command = ["-m", "seed=0,1,3", "hydra.sweep.dir=s"]
    hint = "To retry what failed: the same command and sweep.resume=s"
    assert hint not in run(light, *command, cwd=tmp_path).messages
    checkpoint = Run(tmp_path / "s" / "2_seed=3").last
    checkpoint.parent.mkdir()
    checkpoint.touch()
    assert run(light, "-m", "seed=0,1,3", "sweep.resume=s", cwd=tmp_path).messages[-1] == hint


@pytest.mark.parametrize("is_finished", [True, False])
def test_a_job_that_was_trained_for_longer_is_named_and_left_as_it_is(
    tmp_path: Path, light: Path, is_finished: bool
) -> None:
    options = ["-m", "seed=0,4", "trainer.max_epochs=3"]
    run(light, *options, "hydra.sweep.dir=s", cwd=tmp_path)
    job = Run(tmp_path / "s" / "0_seed=0")
    job.write_config(compose("seed=0", "trainer.max_epochs=5"))
    job.checkpoints.mkdir()
    job.last.touch()
    if is_finished:
        job.write_summary({})  # type: ignore[typeddict-item]
    (tmp_path / "s" / "1_seed=4" / "command.txt").unlink()
    outcome = run(light, *options, "sweep.resume=s", cwd=tmp_path)
    reason = (
        "s/0_seed=0 holds a run with trainer.max_epochs=5 (here 3), and stays as it is. To have this job trained, move "
        "that folder away."
    )
    assert (outcome.code, outcome.messages) == (2, ["Failed: seed=0 trainer.max_epochs=3", f"  {reason}"])
    assert not (job.folder / "error.log").exists()
    assert (tmp_path / "s" / "1_seed=4" / "command.txt").exists()


@pytest.mark.slow
def test_a_failing_batch_does_not_keep_the_sweeper_from_the_next(tmp_path: Path, light: Path) -> None:
    outcome = run(light, "-m", "seed=1,3,5,0", "hydra.sweeper.max_batch_size=1", "hydra.sweep.dir=s", cwd=tmp_path)
    assert outcome.code == 2
    assert sorted(path.parent.name for path in tmp_path.glob("s/*/command.txt")) == ["1_seed=3", "2_seed=5", "3_seed=0"]


@pytest.mark.slow
def test_jobs_are_named_by_what_differs(tmp_path: Path, light: Path) -> None:
    overrides = ["strategy=frozen,finetune", "seed=0", f"dataset.root={tmp_path}", "backbone.weights=p/a.pth,null"]
    outcome = run(light, "-m", *overrides, "hydra.sweep.dir=s", cwd=tmp_path)
    assert (outcome.code, outcome.messages) == (0, [])
    assert sorted(path.name for path in tmp_path.glob("s/*_*")) == [
        "0_backbone.weights=p-a.pth,strategy=frozen",
        "1_backbone.weights=null,strategy=frozen",
        "2_backbone.weights=p-a.pth,strategy=finetune",
        "3_backbone.weights=null,strategy=finetune",
    ]


@pytest.mark.slow
def test_a_sweep_goes_on_in_the_folders_that_it_was_begun_with(tmp_path: Path, light: Path) -> None:
    grid, names = ["-m", "dataset.root=a/x,b/y"], "hydra.sweep.subdir=${hydra.job.num}_"
    for place in (["hydra.sweep.dir=s", names], ["sweep.resume=s"], ["sweep.resume=s"]):
        assert run(light, *grid, *place, cwd=tmp_path).code == 0
        assert sorted(path.name for path in tmp_path.glob("s/*_*")) == ["0_", "1_"]


def test_a_range_test_does_not_write_into_a_run(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "checkpoints" / "last.ckpt").touch()
    before = sorted(folder.rglob("*"))
    found = run(FIND_LR, f"hydra.run.dir={folder}", cwd=tmp_path)
    assert (found.code, found.output) == (2, "")
    assert found.messages[0].startswith(f"{folder} holds a run already")
    assert "torch" not in found.imported
    assert sorted(folder.rglob("*")) == before


@pytest.mark.parametrize("command", [[str(TRAIN)], [str(FIND_LR)], ["-m", "thaw.cli"]])
def test_ctrl_c_during_the_imports_shows_no_traceback(tmp_path: Path, command: list[str]) -> None:
    (tmp_path / "hydra.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGINT)\n")
    path = os.pathsep.join([str(tmp_path), *sys.path])
    done = subprocess.run(
        [sys.executable, *command], cwd=tmp_path, env=os.environ | {"PYTHONPATH": path}, capture_output=True, text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")


def test_ctrl_c_outside_a_job_shows_no_traceback(tmp_path: Path) -> None:
    script = tmp_path / "interrupted.py"
    script.write_text(
        "from pathlib import Path\nfrom thaw.launch import entry\n"
        "def experiment(config, folder, command):\n    raise KeyboardInterrupt\n"
        f"entry.run_experiment(experiment, Path({str(ROOT / 'conf')!r}), None)\n"
    )
    outcome = run(script, cwd=tmp_path)
    assert (outcome.code, outcome.messages) == (130, [])


@pytest.mark.parametrize(
    ("arguments", "advice"),
    [
        (["seed=0", "hydra.run.dir=a"], "Ended by SIGPIPE before an epoch was saved in a: start anew."),
        (["-m", "seed=0,4", "hydra.sweep.dir=a"], "Ended by SIGPIPE. To go on: the same command and sweep.resume=a"),
    ],
    ids=["run", "sweep"],
)
def test_a_reader_that_has_read_enough_ends_it_with_a_line(
    tmp_path: Path, light: Path, arguments: list[str], advice: str
) -> None:
    speaking = '    import logging\n    logging.getLogger("thaw").info("Images")\n    (folder / "command.txt")'
    light.write_text(light.read_text().replace('    (folder / "command.txt")', speaking))
    command = [sys.executable, str(light), *arguments]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        process.stdout.close()
        assert process.stderr is not None
        assert process.stderr.read().splitlines() == [advice]
    assert process.returncode == 141


# ---- signals when all is done


LATE = """
import atexit, builtins, os, runpy, sys
moment, number, sys.argv = sys.argv[1], int(sys.argv[2]), sys.argv[3:]

class Last:
    def __del__(self, kill=os.kill, pid=os.getpid(), number=number):
        kill(pid, number)

if moment == "leaving":
    atexit.register(os.kill, os.getpid(), number)
else:
    builtins.last = Last()
runpy.run_path(sys.argv[0], run_name="__main__")
"""
"""Runs a script whose interpreter gets a signal as it closes: before it has given up handling signals, or after."""


@pytest.mark.parametrize(("moment", "number"), [("leaving", signal.SIGTERM), ("unloading", signal.SIGINT)])
@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["light.py", "seed=0", "hydra.run.dir=a"], 0),
        (["light.py", "seed=1", "hydra.run.dir=a"], 2),
        (["light.py", "-m", "seed=0,4", "hydra.sweep.dir=a"], 0),
        ([str(FIND_LR), "--help"], 0),
        ([str(ROOT / "src/thaw/cli.py"), "compare", "--help"], 0),
        ([str(ROOT / "src/thaw/cli.py"), "compare", "nothing"], 2),
    ],
    ids=["run", "failed run", "sweep", "help", "thaw help", "thaw"],
)
def test_a_signal_when_all_is_written_changes_nothing(
    tmp_path: Path, light: Path, moment: str, number: int, arguments: list[str], code: int
) -> None:
    (tmp_path / "late.py").write_text(LATE)
    done = run(tmp_path / "late.py", moment, str(int(number)), *arguments, cwd=tmp_path)
    assert (done.code, len(done.messages)) == (code, int(code != 0))


@pytest.mark.parametrize(("number", "name", "code"), [(signal.SIGINT, "Ctrl-C", 130), (signal.SIGTERM, "SIGTERM", 143)])
def test_a_signal_while_a_sweep_is_closed_ends_it(
    tmp_path: Path, light: Path, number: int, name: str, code: int
) -> None:
    closing = f"    import os\n    os.kill(os.getpid(), {int(number)})\n    print("
    light.write_text(light.read_text().replace("    print(", closing))
    outcome = run(light, "-m", "seed=0,4", "hydra.sweep.dir=a", cwd=tmp_path)
    assert (outcome.code, outcome.messages) == (
        code,
        [f"Ended by {name}. To go on: the same command and sweep.resume=a"],
    )
