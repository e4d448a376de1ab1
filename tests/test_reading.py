import shutil
from dataclasses import asdict
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from thaw.config import Config
from thaw.errors import ThawError
from thaw.run import Run


@pytest.mark.parametrize("name", ["best.ckpt", "last.ckpt"])
def test_a_checkpoint_means_its_run_by_that_epochs_classifier(
    finished_run: Run, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    path = finished_run.checkpoints / name
    monkeypatch.chdir(finished_run.checkpoints)
    for run in (Run(path), Run(str(path)), Run(name)):
        assert (run.folder, run.checkpoint) == (finished_run.folder, path)
        assert repr(run) == f"Run({str(finished_run.folder if name == 'best.ckpt' else path)!r})"


@pytest.mark.parametrize("name", ["run/checkpoints/other.ckpt", "copied/best.ckpt"])
def test_another_checkpoint_is_no_run(finished_run: Run, tmp_path: Path, name: str) -> None:
    folder = shutil.copytree(finished_run.folder, tmp_path / "run")
    (tmp_path / "copied").mkdir()
    shutil.copy(folder / "checkpoints/best.ckpt", tmp_path / "copied")
    shutil.copy(folder / "checkpoints/best.ckpt", folder / "checkpoints/other.ckpt")
    place = folder if name.startswith("run") else "RUN"
    with pytest.raises(
        ThawError, match=rf"^{tmp_path / name} is not .*folder, {place}, or a checkpoint in it\. By the file alone"
    ):
        Run(tmp_path / name)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("summary.json", b""),
        ("summary.json", b'{"val": {"acc"'),
        ("summary.json", b"\xff\xfe"),
        ("summary.json", b"[1]"),
        ("summary.json", b'{"val": 1}'),
        ("config.yaml", b"{{{"),
        ("config.yaml", b"- 1"),
        ("config.yaml", b"\xff\xfe\x00"),
        ("config.yaml", b"seed: 1"),
        ("config.yaml", b"dataset: {nope: 1}"),
        ("config.yaml", b"dataset: {batch_size: many}"),
    ],
)
def test_a_damaged_file_is_named(finished_run: Run, tmp_path: Path, name: str, content: bytes) -> None:
    run = Run(shutil.copytree(finished_run.folder, tmp_path / "run"))
    (run.folder / name).write_bytes(content)
    with pytest.raises(ThawError, match=rf"^\S+{name} is damaged, or of another version of Thaw: [^\n]+\.$"):
        _ = run.full_summary if name == "summary.json" else run.dataset


@pytest.mark.parametrize(
    "content", [b"epoch,val/acc\n1,high\n", b"epoch,val/acc\n1,0.5,0.6\n", b"path,label\n1,2\n", b"epoch\n\xff\n"]
)
def test_a_damaged_table_of_epochs_is_named(finished_run: Run, tmp_path: Path, content: bytes) -> None:
    run = Run(shutil.copytree(finished_run.folder, tmp_path / "run"))
    run.metrics_csv.write_bytes(content)
    with pytest.raises(ThawError, match=r"^\S+metrics\.csv is damaged, or of another version of Thaw: [^\n]+\.$"):
        _ = run.chose_epoch


@pytest.mark.parametrize("key", ["dataset", "backbone", "augment", "optimizer", "strategy", "trainer", "seed"])
@pytest.mark.parametrize("value", [None, "text"])
def test_options_that_are_damaged_are_named(tmp_path: Path, key: str, value: str | None) -> None:
    run = Run(tmp_path)
    run.write_config(Config())
    file = tmp_path / "config.yaml"
    OmegaConf.save(
        {name: each for name, each in run.config.items() if name != key} | ({key: value} if value else {}), file
    )
    with pytest.raises(ThawError, match=rf"config\.yaml is damaged, or of another version of Thaw: it lacks {key}\."):
        _ = run.config


def test_options_that_an_older_version_did_not_have_have_their_defaults(tmp_path: Path) -> None:
    run = Run(tmp_path)
    run.write_config(Config(seed=3))
    config = run.config
    del config["figures"], config["find_lr"], config["trainer"]["compile"]
    OmegaConf.save(config, tmp_path / "config.yaml")
    assert run.config == asdict(Config(seed=3))
