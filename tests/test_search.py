"""Optuna searches: the study outlives its process, failures do not end it, hopeless trials are stopped."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import hydra
import pytest
from omegaconf import OmegaConf, open_dict

optuna = pytest.importorskip("optuna")
pytest.importorskip("hydra_plugins.hydra_optuna_sweeper")

from hydra.core.hydra_config import HydraConfig  # noqa: E402 - after what may be absent

from thaw.config import SweepConfig  # noqa: E402
from thaw.launch.sweep import OutputFolder, find_jobs  # noqa: E402
from thaw.summary import objective  # noqa: E402
from thaw.training.pruning import current_trial  # noqa: E402

ROOT = Path(__file__).parents[1]
TINY = [
    "backbone=squeezenet1_1", "backbone.weights=null", "dataset=folder", "dataset.image_size=64", "trainer=cpu",
    "trainer.precision=32", "logger=csv", "figures=false",
]  # fmt: skip
LIGHT_EXPERIMENT = f"""
import os
import time
from pathlib import Path
from thaw.launch.entry import run_experiment
from thaw.errors import ThawError

def experiment(config, folder, command):
    time.sleep(0.2)
    if config.head.dropout > 0.35:
        raise ThawError("The disk is full.")
    if config.seed == 2:  # until another one is running, too
        (folder / "begun").touch()
        while len(list(folder.parent.glob("*/begun"))) < 2:
            time.sleep(0.05)
    (folder / "result.txt").write_text(f"{{os.getpid()}}")
    return 1 - abs(config.head.dropout - 0.2)

if __name__ == "__main__":
    run_experiment(experiment, Path({str(ROOT / "conf")!r}), lambda sweep: print("closed:", sweep))
"""


def command(script: Path, *overrides: str) -> list[str]:
    return [sys.executable, str(script), "-m", *overrides]


def load(sweep: Path) -> "optuna.Study":
    return optuna.load_study("thaw", f"sqlite:///{sweep}/study.db")


def count(sweep: Path, state: "optuna.trial.TrialState") -> int:
    return len(load(sweep).get_trials(states=(state,)))


@pytest.fixture
def light(tmp_path: Path) -> Path:
    script = tmp_path / "light.py"
    script.write_text(LIGHT_EXPERIMENT)
    return script


@pytest.mark.slow
def test_a_killed_search_goes_on_with_its_study_past_failures(light: Path, tmp_path: Path) -> None:
    complete, failed, running = (getattr(optuna.trial.TrialState, name) for name in ("COMPLETE", "FAIL", "RUNNING"))
    sweep = tmp_path / "sweep"
    search = ["sweep=search", "head.dropout=interval(0,0.9)", "hydra.sweeper.sampler.seed=3"]
    process = subprocess.Popen(
        command(light, *search, "hydra.sweeper.n_trials=1000", f"hydra.sweep.dir={sweep}"),
        cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    deadline = time.monotonic() + 120
    while len(list(sweep.glob("*/error.log"))) < 1 or len(list(sweep.glob("*/result.txt"))) < 3:
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    before = {trial.number: trial.values for trial in load(sweep).get_trials(states=(complete,))}
    assert len(before) >= 2
    assert count(sweep, failed) >= 1
    done = subprocess.run(
        command(light, *search, "hydra.sweeper.n_trials=4", f"sweep.resume={sweep}"),
        cwd=tmp_path, capture_output=True, text=True, timeout=200,
    )  # fmt: skip
    assert done.returncode == 2, done.stderr  # failures there were, and all are the user's
    assert "Failed: " in done.stderr
    trials = load(sweep).get_trials()
    assert {trial.number: trial.values for trial in trials if trial.number in before} == before
    assert len([trial for trial in trials if trial.number > max(before) and trial.state.is_finished()]) >= 4
    assert count(sweep, running) <= 1  # the one that was killed
    best = OmegaConf.load(sweep / "optimization_results.yaml")
    assert best.best_value == load(sweep).best_value
    assert best.best_params["head.dropout"] == load(sweep).best_params["head.dropout"]


@pytest.mark.slow
def test_a_search_that_puts_up_with_no_failure_ends_with_it(light: Path, tmp_path: Path) -> None:
    search = ["sweep=search", "head.dropout=interval(0.4,0.9)", "hydra.sweeper.max_failure_rate=0"]
    done = subprocess.run(
        command(light, *search, f"hydra.sweep.dir={tmp_path / 'sweep'}"), cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 2
    assert done.stderr.count("Failed: ") == 1


@pytest.mark.slow
def test_a_search_whose_study_cannot_be_opened_is_one_line(light: Path, tmp_path: Path) -> None:
    (tmp_path / "taken").touch()
    search = ["sweep=search", "head.dropout=interval(0,0.9)", f"hydra.sweep.dir={tmp_path / 'taken' / 'sweep'}"]
    done = subprocess.run(command(light, *search), cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stderr.splitlines()) == (
        2,
        [
            "The study of the search cannot be opened or written: (sqlite3.OperationalError) unable to open database "
            "file. Fix that and start again."
        ],
    )


@pytest.mark.slow
def test_a_search_in_which_all_fail_names_each_failure(light: Path, tmp_path: Path) -> None:
    search = ["sweep=search", "head.dropout=interval(0.4,0.9)", "hydra.sweeper.n_trials=2"]
    done = subprocess.run(
        command(light, *search, f"hydra.sweep.dir={tmp_path / 'sweep'}"), cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 2
    assert done.stderr.count("Failed: head.dropout=") == 2
    assert "Traceback" not in done.stderr
    assert done.stderr.splitlines()[-1] == "The search has no best trial, for none has finished."


@pytest.mark.slow
def test_a_resumed_search_is_judged_by_its_own_trials_and_keeps_the_earlier_ones(light: Path, tmp_path: Path) -> None:
    sweep = tmp_path / "sweep"
    search = ["sweep=search", "hydra.sweeper.n_trials=6", "hydra.sweeper.sampler.seed=3"]
    before: dict[Path, str] = {}
    for code, highest, place in ((2, 0.9, "hydra.sweep.dir"), (0, 0.3, "sweep.resume")):
        line = command(light, *search, f"head.dropout=interval(0,{highest})", f"{place}={sweep}")
        done = subprocess.run(line, cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == code, done.stderr
        assert ("Failed: " in done.stderr) == (code == 2)
        assert {path: path.read_text() for path in before} == before
        before = {path: path.read_text() for path in sweep.glob("*/*.*") if path.is_file()}
    for change in (["dataset.root=elsewhere"], ["strategy=finetune"]):
        line = command(light, *search, "head.dropout=interval(0,0.3)", *change, f"sweep.resume={sweep}")
        done = subprocess.run(line, cwd=tmp_path, capture_output=True, text=True)
        assert (done.returncode, done.stdout) == (2, "")
        assert "goes on with the options that it was started with" in done.stderr
    assert len(list(sweep.glob("*/error.log"))) >= 1
    assert len(load(sweep).get_trials()) == len(find_jobs(sweep)) == 12


@pytest.mark.slow
def test_two_trials_are_tried_at_once(light: Path, tmp_path: Path) -> None:
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    search = [
        "sweep=search", "head.dropout=interval(0,0.3)", "hydra.sweeper.n_trials=4", "seed=2",
        "hydra/launcher=joblib", "hydra.launcher.n_jobs=2", "hydra.sweeper.n_jobs=2",
    ]  # fmt: skip
    sweep = tmp_path / "sweep"
    done = subprocess.run(
        command(light, *search, f"hydra.sweep.dir={sweep}"), cwd=tmp_path, capture_output=True, text=True, timeout=200
    )
    assert done.returncode == 0, done.stderr
    assert len({path.read_text() for path in sweep.glob("*/result.txt")}) == 2  # processes
    assert len(find_jobs(sweep)) == count(sweep, optuna.trial.TrialState.COMPLETE) == 4
    assert OmegaConf.load(sweep / "optimization_results.yaml").best_value == load(sweep).best_value


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.* is experimental")
@pytest.mark.parametrize("monitor", ["val/acc", "val/macro_f1", "val/loss"])
def test_a_hopeless_trial_is_stopped_early(image_folder: Path, tmp_path: Path, monitor: str) -> None:
    sweep = tmp_path / "sweep"
    sweep.mkdir()
    study = optuna.create_study(f"sqlite:///{sweep}/study.db", study_name="thaw", direction="maximize")
    for rate in (0.03, 1e-9):
        study.enqueue_trial({"optimizer.lr": rate})
    search = [
        "sweep=search", "optimizer.lr=tag(log,interval(1e-9,1))", "hydra.sweeper.n_trials=2",
        "optimizer.name=adamw", "trainer.max_epochs=6", "sweep.prune_after_trials=1", "sweep.prune_after_epochs=3",
        "dataset.batch_size=4", f"dataset.root={image_folder}", f"trainer.monitor={monitor}",
    ]  # fmt: skip
    environment = os.environ | {"THAW_CACHE": str(tmp_path / "cache"), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        command(ROOT / "train.py", *TINY, *search, f"hydra.sweep.dir={sweep}"), cwd=tmp_path, env=environment,
        capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    runs = [json.loads((job / "summary.json").read_text()) for job in find_jobs(sweep)]
    assert [(run["epochs"], run["pruned"]) for run in runs] == [(6, False), (3, True)], done.stdout
    assert "\n*: 1 of 2 runs stopped early by sweep.prune" in done.stdout
    assert re.findall(r"Stopped after epoch (\d)", done.stdout) == ["3"]
    trials = study.get_trials()
    assert [trial.values[0] for trial in trials] == [objective(run, monitor) for run in runs]
    for trial in trials:
        assert [*trial.intermediate_values.values()][-1] == pytest.approx(trial.values[0])
    assert [[*trial.intermediate_values] for trial in trials] == [[1, 2, 3, 4, 5, 6], [1, 2, 3]]


@pytest.mark.usefixtures("compose")  # starts Hydra
def test_the_running_trial_is_found_by_its_values(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study = optuna.create_study(f"sqlite:///{tmp_path}/study.db", study_name="thaw", direction="maximize")
    asked = [study.ask() for _ in range(2)]
    values = [trial.suggest_float("optimizer.lr", 1e-4, 1e-1) for trial in asked]
    lr = f"optimizer.lr={values[0]}"
    assert current_trial(SweepConfig()) is None  # no Hydra
    config = hydra.compose("config", ["sweep=search", lr, f"hydra.sweep.dir={tmp_path}"], return_hydra_config=True)
    monkeypatch.setattr(HydraConfig.instance(), "cfg", config)
    config.hydra.mode = "RUN"
    assert current_trial(SweepConfig()) is None  # the command of a trial, typed again
    config.hydra.mode = "MULTIRUN"
    trial = current_trial(SweepConfig())
    assert trial is not None
    assert trial.number == 0


@pytest.mark.usefixtures("compose")  # starts Hydra
@pytest.mark.parametrize(
    ("options", "params", "message"),
    [
        ([], {}, "The search has nothing to search: add options"),
        (["sweep=frozen_head", "seed=1,2"], {}, "seed=1,2 would be searched, too, for the luckiest value. Search with"),
        (["sweep=frozen_head", "dataset.fold=0,1"], {}, "dataset.fold=0,1 would be searched"),
        (
            ["optimizer.lr=interval(1e-3,1)"],
            {"dataset.split_seed": "choice(1,2)"},
            "dataset.split_seed=choice(1,2) wou",
        ),
        (["optimizer.lr=interval(1e-3,1)", "seed=1"], {}, ""),
        (["sweep=frozen_head"], {}, ""),
    ],
)
def test_a_search_for_nothing_or_for_luck_is_refused(
    options: list[str], params: dict[str, str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    preset = [each for each in options if each.startswith("sweep=")] or ["sweep=search"]
    config = hydra.compose("config", [*preset, f"hydra.sweep.dir={tmp_path / 'sweep'}"], return_hydra_config=True)
    with open_dict(config):
        config.hydra.overrides.task = options
        config.hydra.sweeper.params = {**(config.hydra.sweeper.params or {}), **params} or None
    if not message:
        with OutputFolder.claim:
            OutputFolder().on_multirun_start(config)
        return
    with pytest.raises(SystemExit) as caught:
        OutputFolder().on_multirun_start(config)
    assert caught.value.code == 2
    assert capsys.readouterr().err.startswith(message)
    assert not (tmp_path / "sweep").exists()
