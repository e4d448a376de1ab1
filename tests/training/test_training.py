import logging
import re
import shutil
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.utilities.exceptions import SIGTERMException

from thaw.comparison.runs import find_runs
from thaw.config import BackboneConfig, Config, DatasetConfig, HeadConfig, LoggerConfig, StrategyConfig, TrainerConfig
from thaw.errors import ThawError
from thaw.run import Run
from thaw.training.learning_rate import find_lr
from thaw.training.resuming import earlier_seconds
from thaw.training.train import train
from thaw.writing import locked


@pytest.mark.parametrize("program", [train, find_lr])
def test_a_machine_that_cannot_train_so_is_told_before_the_images_are_read(
    program: Callable[[Config, Path], Any], image_folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    accelerator = "tpu" if torch.cuda.is_available() or torch.backends.mps.is_available() else "gpu"
    config = Config(
        dataset=DatasetConfig(root=str(image_folder)),
        backbone=BackboneConfig(weights=None),
        trainer=TrainerConfig(accelerator=accelerator),
    )
    with pytest.raises(ThawError, match=r"^trainer\.(\* does not fit this machine|accelerator=gpu finds no GPU)"):
        program(config, tmp_path / "run")
    assert caplog.records == []
    assert not (tmp_path / "run").exists()


def test_compiling_is_announced_and_done(
    image_folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("THAW_CACHE", str(tmp_path / "cache"))
    compiled: list[str] = []

    def compile_soon(module: torch.nn.Module, *_: Any, **__: Any) -> None:  # what it would take minutes to do
        compiled.append(type(module).__name__)

    monkeypatch.setattr(torch.nn.Module, "compile", compile_soon)
    config = Config(
        dataset=DatasetConfig(root=str(image_folder), image_size=32),
        backbone=BackboneConfig("squeezenet1_1", weights=None),
        trainer=TrainerConfig(max_epochs=1, compile=True),
        figures=False,
    )
    with caplog.at_level(logging.INFO, "thaw"):
        train(config, tmp_path / "run")
    assert compiled == ["Backbone"]
    assert "The first epoch compiles the backbone: some seconds on a GPU, up to minutes on a CPU" in caplog.messages


def test_the_curves_of_a_training_that_left_nothing_to_go_on_from_are_not_gone_on_with(
    finished_run: Run, tmp_path: Path
) -> None:
    run = Run(tmp_path / "run")
    run.write_config(Config())
    run.write_tracking_id("killed")
    run.events.mkdir()
    for name in ("events.out.tfevents.1.host.1.0", "notes.txt"):
        (run.events / name).touch()
    config = replace(going_on(finished_run, run.folder, max_epochs=1), resume=None, logger=LoggerConfig())
    train(config, run.folder)
    assert run.tracking_id is None
    names = {path.name for path in run.events.iterdir()}
    assert "events.out.tfevents.1.host.1.0" not in names
    assert "notes.txt" in names
    assert any(name.startswith("events.out.tfevents.") for name in names)


@pytest.mark.parametrize("experiment", [train, find_lr])
def test_a_folder_that_another_run_is_writing_to_is_refused_from_python_too(
    experiment: Callable[..., Any], image_folder: Path, tmp_path: Path
) -> None:
    data, trainer = DatasetConfig(root=str(image_folder), image_size=64), TrainerConfig(accelerator="cpu")
    with (
        locked(tmp_path / ".lock", "of another process"),
        pytest.raises(ThawError, match=rf"^Another run is writing to {tmp_path}: wait for it, or set folder=FOLDER\.$"),
    ):
        experiment(Config(data, trainer=trainer), tmp_path)


@pytest.mark.parametrize("place", ["", "checkpoints/last.ckpt"])
def test_weights_that_were_trained_on_what_is_to_be_judged_are_told(
    finished_run: Run, image_folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, place: str
) -> None:
    images = shutil.copytree(image_folder, tmp_path / "images")
    shutil.rmtree(images / "val")
    weights = str(finished_run.folder / place)
    config = Config(
        dataset=DatasetConfig(root=str(images), image_size=64, val_fraction=0.5),
        backbone=BackboneConfig("squeezenet1_1", weights),
        trainer=TrainerConfig(max_epochs=0, accelerator="cpu"),
        logger=LoggerConfig("csv"),
    )
    flatters = (
        f"Of 9 val images, backbone.weights={weights} was trained on 9, so the figures flatter. Fixed splits, by "
        "folders or dataset.csv_split, avoid it."
    )
    train(config, tmp_path / "run")
    assert flatters in caplog.messages
    caplog.clear()
    config.dataset.root = str(image_folder)
    train(config, tmp_path / "same split")
    assert "flatter" not in caplog.text


@pytest.mark.parametrize(
    ("finished_at", "fit", "total"),
    [(None, 21.0, 21.0), (3, 8.0, 10.0), (2, 8.0 + 16, 10.0 + 16)],
    ids=["cut off", "finished", "finished and then cut off"],
)
def test_the_seconds_before_a_run_was_resumed(
    finished_run: Run, tmp_path: Path, finished_at: int | None, fit: float, total: float
) -> None:
    run = Run(tmp_path)
    assert earlier_seconds(run).total == 0  # cut off in its first epoch
    run.metrics_csv.write_text("epoch,seconds\n1,4.0\n2,1.0\n3,16.0\n")
    if finished_at:
        seconds = {"fit": 8.0, "epoch_median": 4.0, "epoch_longest": 4.0, "total": 10.0}
        run.write_summary(finished_run.full_summary | {"epochs": finished_at, "seconds": seconds})  # type: ignore[arg-type]
    earlier = earlier_seconds(run)
    assert (earlier.fit, earlier.total, earlier.epochs) == (fit, total, [4.0, 1.0, 16.0])


def going_on(run: Run, folder: Path, **options: Any) -> Config:
    """The options of a run of random weights, to go on with a copy of it in another folder."""
    return Config(
        dataset=run.dataset,
        backbone=BackboneConfig(**run.config["backbone"]),
        strategy=StrategyConfig(**run.config["strategy"]),
        trainer=replace(run.trainer, **options),
        logger=LoggerConfig("csv"),
        figures=False,
        resume=str(folder),
    )


@pytest.mark.parametrize(
    ("options", "fact"),
    [
        ({"seed": 1}, "seed=0, and now it is 1"),
        ({"head": HeadConfig("default")}, "head.init=auto, and now it is default"),
        ({"strategy": StrategyConfig("finetune", 1.0)}, "strategy.from_scratch=true, and now it is false"),
        ({"backbone": BackboneConfig("squeezenet1_1", "w.pth")}, "backbone.weights=null, and now it is w.pth"),
    ],
)
def test_what_a_run_began_with_stays_as_it_was(
    finished_run: Run, tmp_path: Path, options: dict[str, Any], fact: str
) -> None:
    folder = tmp_path / "run"
    shutil.copytree(finished_run.folder, folder)
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    with pytest.raises(
        ThawError, match=rf"^resume={folder} began with {re.escape(fact)}\. Leave it out, or begin anew"
    ):
        train(replace(going_on(finished_run, folder, max_epochs=3), **options), folder)
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


@pytest.mark.slow
def test_a_run_goes_on_from_another_folder(image_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("here", "there"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / "here")
    shutil.copytree(image_folder, "photos")
    config = Config(
        dataset=DatasetConfig(root="photos", image_size=64, batch_size=8),
        backbone=BackboneConfig("squeezenet1_1", None),
        strategy=StrategyConfig("scratch", backbone_factor=1.0, from_scratch=True),
        trainer=TrainerConfig(max_epochs=1, accelerator="cpu", precision="32"),
        logger=LoggerConfig("csv"),
        figures=False,
    )
    run = Run(tmp_path / "run")
    train(config, run.folder)
    monkeypatch.chdir(tmp_path / "there")
    train(replace(config, trainer=replace(config.trainer, max_epochs=2), resume=str(run.folder)), run.folder)
    assert (run.summary["epochs"], run.config["dataset"]["root"]) == (2, "photos")
    assert run.evaluate().metrics() == run.summary["val"]


def test_a_resume_that_lightning_refuses_leaves_the_record_as_it_was(finished_run: Run, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(finished_run.folder, folder)
    before = Run(folder).config
    with pytest.raises(ThawError, match=r"^trainer\.\* does not fit this machine or Lightning's Trainer: "):
        train(going_on(finished_run, folder, max_epochs=3, extra={"val_check_interval": 1000}), folder)
    assert Run(folder).config == before


class BreaksOff(pl.Callback):
    """Ends the training as its fourth epoch begins."""

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.current_epoch == 3:
            raise RuntimeError("broken off")


def test_a_run_that_is_trained_for_longer_is_unfinished_until_it_has_been(finished_run: Run, tmp_path: Path) -> None:
    run = Run(shutil.copytree(finished_run.folder, tmp_path / "run"))
    files = {path.name for path in run.folder.iterdir()}
    run.write_summary({**run.full_summary, "seconds": {"fit": 500.0, "epoch_median": 1.0, "total": 1000.0}})
    longer = going_on(run, run.folder, max_epochs=5, checkpoint_seconds=0)
    with pytest.raises(RuntimeError, match="broken off"):
        train(longer, run.folder, callbacks=[BreaksOff()])
    assert (run.is_finished, find_runs(run.folder), run.trainer.max_epochs) == (False, [], 5)
    assert 500 < earlier_seconds(run).fit < 1000 < earlier_seconds(run).total
    summary = train(longer, run.folder)
    assert (run.is_finished, summary["epochs"]) == (True, 5)
    assert 500 < summary["seconds"]["fit"] < 1000 < summary["seconds"]["total"] < 1500
    assert {path.name for path in run.folder.iterdir()} == files


def test_a_run_that_is_to_end_where_it_had_ended_is_finished_again(finished_run: Run, tmp_path: Path) -> None:
    run = Run(shutil.copytree(finished_run.folder, tmp_path / "run"))
    run.write_config(going_on(run, run.folder, max_epochs=5))  # to go no further
    assert not run.is_finished
    summary = train(going_on(finished_run, run.folder, max_epochs=2), run.folder)
    assert (run.is_finished, summary["epochs"], run.trainer.max_epochs) == (True, 2, 2)
    assert (summary["last"], summary["val"]) == (finished_run.summary["last"], finished_run.summary["val"])


@pytest.mark.parametrize("report", [False, True])
def test_what_was_made_of_a_run_before_it_was_trained_for_longer_is_told(
    finished_run: Run, tmp_path: Path, caplog: pytest.LogCaptureFixture, report: bool
) -> None:
    run = Run(shutil.copytree(finished_run.folder, tmp_path / "run"))
    for name in ("model.onnx", "model_last.pt2", "report.html", "model.py"):
        (run.folder / name).touch()
    (run.folder / "evaluation_train").mkdir()
    with caplog.at_level(logging.INFO, "thaw"):
        train(replace(going_on(run, run.folder, max_epochs=3), report=report), run.folder)
    names = f"{'' if report else 'report.html, '}evaluation_train, model.onnx, model_last.pt2"
    assert f"Of the run before it was trained for longer, and not made anew: {names}" in caplog.messages


@pytest.mark.slow
def test_a_run_that_its_steps_or_its_time_have_ended_counts_its_epochs_and_goes_on(
    finished_run: Run, tmp_path: Path
) -> None:
    folder, moment = tmp_path / "run", {"max_time": {"microseconds": 1}}
    shutil.copytree(finished_run.folder, folder)  # two epochs of three steps
    steps = [({"max_steps": num_steps}, epochs, num_steps) for num_steps, epochs in ((6, 2), (10, 4), (10, 4), (15, 6))]
    for extra, epochs, num_steps in (*steps, (moment, 7, 16), (moment, 7, 16)):
        summary = train(going_on(finished_run, folder, max_epochs=9, extra=extra), folder)
        assert (summary["epochs"], [row["epoch"] for row in Run(folder).metrics]) == (epochs, [*range(1, epochs + 1)])
        assert torch.load(Run(folder).last, weights_only=True)["global_step"] == num_steps


@pytest.mark.slow
def test_a_resumed_run_takes_the_seconds_of_all_its_pieces(finished_run: Run, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(finished_run.folder, folder)
    rows = Run(folder).metrics_csv.read_text().splitlines()
    rows[1:] = [",".join([row.split(",")[0], "1000.0", *row.split(",")[2:]]) for row in rows[1:]]
    Run(folder).metrics_csv.write_text("\n".join(rows) + "\n")
    Run(folder).summary_json.unlink()
    seconds = train(going_on(finished_run, folder, max_epochs=3), folder)["seconds"]
    assert 2000 < seconds["fit"] < seconds["total"] < 2300
    assert seconds["epoch_median"] == 1000


class CtrlC(pl.Callback):
    """Presses it in the middle of the second epoch."""

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        if trainer.global_step == 4:
            signal.raise_signal(signal.SIGINT)


def test_ctrl_c_in_python_is_one_with_the_epoch_saved(
    finished_run: Run, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = Run(tmp_path / "run")
    config = replace(going_on(finished_run, run.folder, max_epochs=3), resume=None)
    train(config, tmp_path / "unbroken")
    with caplog.at_level(logging.INFO, "thaw"), pytest.raises(KeyboardInterrupt):
        train(config, run.folder, callbacks=[CtrlC()])
    assert caplog.messages[-1] == (
        f"To go on from the last saved epoch: train(compose('resume={run.folder}'), '{run.folder}')"
    )
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    train(replace(config, resume=str(run.folder)), run.folder)
    weights = [torch.load(each.best, weights_only=True)["state_dict"] for each in (run, Run(tmp_path / "unbroken"))]
    assert all(torch.equal(own, weights[1][name]) for name, own in weights[0].items())


def test_a_program_keeps_the_handlers_of_its_own(finished_run: Run, tmp_path: Path) -> None:
    heard: list[int] = []
    previous = signal.signal(signal.SIGTERM, lambda number, _: heard.append(number))

    class Terminate(pl.Callback):
        def on_train_start(self, *_: Any) -> None:
            signal.raise_signal(signal.SIGTERM)

    config = replace(going_on(finished_run, tmp_path), resume=None)
    try:
        with pytest.raises(SIGTERMException):  # Lightning's
            train(config, tmp_path / "run", callbacks=[Terminate()])
    finally:
        signal.signal(signal.SIGTERM, previous)
    assert heard == [signal.SIGTERM]
