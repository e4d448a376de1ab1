"""What is known of the images that a run has learned from: from elsewhere, by way of its weights, if they are gone."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import pytest
from omegaconf import OmegaConf
from PIL import Image

from thaw.data.rows import Sample
from thaw.own_images import caution_of, caution_of_weights
from thaw.run import Run

Make: TypeAlias = Callable[..., Run]


@pytest.fixture
def make_run(finished_run: Run, tmp_path: Path) -> Make:
    """Copies of the finished run in folders of their own, with other options, which were started in `tmp_path`."""

    def make(name: str, **options: Any) -> Run:
        run = Run(shutil.copytree(finished_run.folder, tmp_path / "outputs" / name))
        config = OmegaConf.load(run.folder / "config.yaml")
        OmegaConf.update(config, "strategy.from_scratch", False)
        for key, value in options.items():
            OmegaConf.update(config, key.replace("__", "."), value)
        OmegaConf.save(config, run.folder / "config.yaml")
        (run.folder / "started_in.txt").write_text(str(tmp_path))
        return run

    return make


@pytest.fixture
def images(image_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Sample]:
    """Seven of the images in `tmp_path/clinic` that the finished run was trained on; another folder is the one here."""
    shutil.copytree(image_folder, tmp_path / "clinic")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    return [Sample(image_folder / "train" / "red" / f"{number}.png", 0) for number in range(7)]


def test_images_are_known_from_another_folder_too(make_run: Make, images: list[Sample]) -> None:
    run = make_run("a", dataset__root="clinic")
    assert caution_of(run, images) == "Of 7 images, the run was trained on 7, so the figures flatter."
    assert caution_of_weights(str(run.folder), {"train": [], "val": images}) == [
        f"Of 7 val images, backbone.weights={run.folder} was trained on 7, so the figures flatter. Fixed splits, by "
        "folders or dataset.csv_split, avoid it."
    ]


def test_other_images_in_a_folder_of_that_name_are_not_taken_for_them(make_run: Make, images: list[Sample]) -> None:
    run = make_run("a", dataset__root="clinic")
    others = [Sample(Path("clinic", name, f"other{number}.png"), 0) for name in ("red", "blue") for number in range(4)]
    for number, (path, _) in enumerate(others):
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (80, 80), (number, 0, 0)).save(path)
    assert caution_of(run, others) == ""
    assert caution_of(run, images).startswith("Of 7 images, the run was trained on 7")


def test_one_image_among_many_flatters_no_figure(make_run: Make, images: list[Sample]) -> None:
    run = make_run("a", dataset__root="clinic")
    others = [Sample(Path(f"{number}.png"), 0) for number in range(100)]
    for number, (path, _) in enumerate(others):
        Image.new("RGB", (80, 80), (number, 0, 0)).save(path)
    assert caution_of(run, [*others, images[0]]) == "Of 101 images, the run was trained on 1."
    assert caution_of(run, [*others, *images[:2]]).endswith("the run was trained on 2, so the figures flatter.")
    assert caution_of_weights(str(run.folder), {"train": [], "val": [*others, images[0]]})[0].startswith(
        f"Of 101 val images, backbone.weights={run.folder} was trained on 1. Fixed splits"
    )


def test_that_no_one_can_tell_is_said(make_run: Make, images: list[Sample], tmp_path: Path) -> None:
    run = make_run("a", dataset__root="hospital")
    why = f"cannot be told: its own are not at hospital, as seen from {tmp_path / 'elsewhere'}."
    assert caution_of(run, images) == f"Whether the run has learned from these images {why}"
    assert caution_of_weights(str(run.folder), {"train": [], "val": images, "test": images}) == [
        f"Whether backbone.weights={run.folder} has learned from the images of val and test {why}"
    ]
    in_full = make_run("b", dataset__root="/hospital")
    assert caution_of(in_full, images).endswith("cannot be told: its own are not at /hospital.")


def test_so_is_what_keeps_them_from_being_read(make_run: Make, images: list[Sample]) -> None:
    caution = caution_of(make_run("a", dataset__root="clinic", dataset__exclude="gone.csv"), images)
    assert caution.startswith("Whether the run has learned from these images cannot be told: dataset.exclude cannot be")
    assert caution.endswith(".")
    assert not caution.endswith("..")


@pytest.mark.parametrize("name", ["stream", "hotdog"])
def test_nothing_is_said_of_shards_and_of_published_data_that_is_gone(
    make_run: Make, images: list[Sample], name: str
) -> None:
    run = make_run("a", dataset__root="hospital", dataset__name=name)
    assert caution_of(run, images) == ""
    assert caution_of_weights(str(run.folder), {"val": images}) == []


def test_what_a_run_began_from_has_learned_is_told_too(
    make_run: Make, images: list[Sample], image_folder: Path, tmp_path: Path
) -> None:
    others = shutil.copytree(image_folder, tmp_path / "others")
    for path in (others / "train" / "red").iterdir():
        path.write_bytes(path.read_bytes() + b"other")
    first = make_run("a", dataset__root="clinic")
    second = make_run("b", dataset__root="others", backbone__weights="outputs/a")
    third = make_run("c", dataset__root="clinic", backbone__weights="outputs/b/checkpoints/best.ckpt")
    learned = f"began from {first.folder}, which was trained on 7"
    assert caution_of(second, images) == f"Of 7 images, the run {learned}, so the figures flatter."
    assert caution_of(third, images) == f"Of 7 images, the run was trained on 7 and {learned}, so the figures flatter."
    (caution,) = caution_of_weights(str(second.folder), {"train": images, "val": images})
    assert caution.startswith(f"Of 7 val images, backbone.weights={second.folder} {learned}, so the figures flatter.")
    assert caution_of(make_run("d", dataset__root="others", backbone__weights="default"), images) == ""


def test_a_run_may_be_called_as_torchvisions_weights_are(
    make_run: Make, images: list[Sample], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_run("default", dataset__root="clinic")
    monkeypatch.chdir(tmp_path / "outputs")
    for weights in ("default", None):
        assert caution_of_weights(weights, {"train": images, "val": images}) == []


def test_that_no_one_can_tell_what_it_began_from_is_said(make_run: Make, images: list[Sample], tmp_path: Path) -> None:
    first = make_run("a", dataset__root="hospital")
    second = make_run("b", dataset__root="clinic", backbone__weights="outputs/a")
    assert caution_of(second, images) == (
        "Of 7 images, the run was trained on 7, so the figures flatter. "
        f"Whether {first.folder}, from which the run began, has learned from these images cannot be told: its own are "
        f"not at hospital, as seen from {tmp_path / 'elsewhere'}."
    )


@pytest.mark.parametrize("weights", ["outputs/gone", "outputs/a"], ids=["gone", "a circle"])
def test_a_run_that_is_gone_or_began_from_itself_ends_the_line(
    make_run: Make, images: list[Sample], weights: str
) -> None:
    run = make_run("a", dataset__root="clinic", backbone__weights=weights)
    assert caution_of(run, images) == "Of 7 images, the run was trained on 7, so the figures flatter."


def test_random_weights_come_from_no_run(make_run: Make, images: list[Sample]) -> None:
    make_run("a", dataset__root="clinic")
    run = make_run("b", dataset__root="hospital", backbone__weights="outputs/a", strategy__from_scratch=True)
    assert caution_of(run, images).startswith("Whether the run has learned from these images cannot be told")
