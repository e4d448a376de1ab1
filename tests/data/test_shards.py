import json
import os
import pickle
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from threading import Barrier
from typing import Any

import pytest
import sklearn.model_selection  # noqa: F401  (slow: here, it counts for no test)
import torch
from torch import Tensor

from thaw.config import (
    AugmentConfig,
    BackboneConfig,
    Config,
    DatasetConfig,
    LoggerConfig,
    StrategyConfig,
    TrainerConfig,
)
from thaw.data.copies import find_copies
from thaw.data.datamodule import ImageDataModule
from thaw.data.images import BadImage
from thaw.data.index import ImageIndex, build_index, survey
from thaw.data.rows import Row
from thaw.data.shards import Shards, pack
from thaw.data.threads import in_threads
from thaw.data.transforms import EvaluationTransform
from thaw.errors import ThawError
from thaw.run import Run
from thaw.training.train import train

pytest.importorskip("litdata")


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("THAW_CACHE", str(tmp_path / "cache"))


def rows_of(root: Path, **options: Any) -> list[Row]:
    """The images of a folder as they are to be packed."""
    index = survey(root, DatasetConfig(root=str(root), **options))
    return [
        Row(path, index.classes[label], "" if split == "all" else split, index.place(path), index.groups.get(path, ""))
        for split, samples in index.splits.items()
        for path, label in samples
    ]


@pytest.fixture
def packed(image_folder: Path, tmp_path: Path) -> Path:
    """The 27 images in one shard; may be changed."""
    pack(rows_of(image_folder), str(tmp_path / "packed"), 1)
    return tmp_path / "packed"


@pytest.fixture
def shards(packed: Path, tmp_path: Path) -> Shards:
    return Shards(str(packed), tmp_path)


def index_of(root: Path, name: str, **options: Any) -> ImageIndex:
    return build_index(root, DatasetConfig(name=name, root=str(root), **options))


def described(index: ImageIndex) -> dict[str, list[tuple[str, int]]]:
    return {split: [(index.place(path), label) for path, label in index.splits[split]] for split in index.splits}


def refused(root: Path | str) -> str:
    with pytest.raises(ThawError) as caught:
        Shards(str(root), Path())
    return str(caught.value)


# ---- the same data set


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"classes": ["red", "blue"], "train_per_class": 3},
        {"num_folds": 3, "fold": 1},
    ],
)
def test_splits_and_classes_are_those_of_the_folder(image_folder: Path, packed: Path, options: dict[str, Any]) -> None:
    folder, stream = index_of(image_folder, "folder", **options), index_of(packed, "stream", **options)
    assert described(stream) == described(folder)
    assert stream.classes == folder.classes
    assert stream.fingerprint == folder.fingerprint


@pytest.mark.parametrize(
    ("by_table", "in_folders", "classes"),
    [(False, True, ("10", "2")), (True, False, ("2", "10")), (True, True, ("2", "10"))],
)
def test_numbered_classes_are_in_the_order_of_what_was_packed(
    image_folder: Path, tmp_path: Path, by_table: bool, in_folders: bool, classes: tuple[str, ...]
) -> None:
    lines = ["path,label"]
    for name, label in (("blue", "2"), ("red", "10")):
        for i in range(4):
            place = f"{label if in_folders else 'all'}/{name}{i}.png"
            (tmp_path / "images" / place).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(image_folder / "train" / name / f"{i}.png", tmp_path / "images" / place)
            lines.append(f"{place},{label}")
    (tmp_path / "images" / "labels.csv").write_text("\n".join(lines))
    options = {"csv": "labels.csv"} if by_table else {}
    index = index_of(tmp_path / "images", "folder", val_fraction=0.5, **options)
    pack(rows_of(tmp_path / "images", **options), str(tmp_path / "packed"), 1, by_folder=not by_table)
    stream = index_of(tmp_path / "packed", "stream", val_fraction=0.5)
    assert stream.classes == index.classes == classes


def test_a_folder_without_splits_is_split_at_training(image_folder: Path, tmp_path: Path) -> None:
    pack(rows_of(image_folder / "train"), str(tmp_path / "packed"), 1)
    for options in ({"val_fraction": 0.3, "split_seed": 3}, {"val_fraction": 0.2, "test_fraction": 0.2}):
        folder = index_of(image_folder / "train", "folder", **options)
        assert described(index_of(tmp_path / "packed", "stream", **options)) == described(folder)


@pytest.mark.parametrize("options", [{"val_fraction": 0.3, "test_fraction": 0.2}, {"num_folds": 3, "fold": 1}])
def test_groups_stay_together_as_those_of_the_csv_file(
    image_folder: Path, tmp_path: Path, options: dict[str, Any]
) -> None:
    paths = sorted(path.relative_to(image_folder) for path in image_folder.rglob("*.png"))
    lines = [f"../images/{path},{path.parent.name},p{i % 9}" for i, path in enumerate(paths)]
    (tmp_path / "data").mkdir()
    (tmp_path / "images").symlink_to(image_folder)
    (tmp_path / "data" / "labels.csv").write_text("path,label,patient\n" + "\n".join(lines))
    by_patient = {"csv": "labels.csv", "csv_group": "patient"}
    pack(rows_of(tmp_path / "data", **by_patient), str(tmp_path / "packed"), 1, by_folder=False)
    table = index_of(tmp_path / "data", "folder", **by_patient, **options)
    stream = index_of(tmp_path / "packed", "stream", **options)
    for split, samples in table.splits.items():
        assert stream.groups_of(split) == table.groups_of(split)
        assert [path.name for path, _ in stream.splits[split]] == [path.name for path, _ in samples]
    assert not set(stream.groups_of("train")) & set(stream.groups_of("val"))


def test_the_bytes_are_those_of_the_files(image_folder: Path, shards: Shards) -> None:
    for path in shards.images:
        file = image_folder / path.relative_to(shards.root)
        assert shards.contents(path) == file.read_bytes()
        assert shards.images[path].size == file.stat().st_size


def test_images_lie_in_as_many_shards_as_their_size_asks(image_folder: Path, tmp_path: Path) -> None:
    rows = rows_of(image_folder) * 4  # 2 MB
    rows = [row._replace(source=f"{number}/{row.source}") for number, row in enumerate(rows)]
    pack(rows, str(tmp_path / "packed"), 1)
    assert len(list((tmp_path / "packed").glob("*.bin"))) > 1
    shards = Shards(str(tmp_path / "packed"), tmp_path)
    for row in rows:
        assert shards.contents(Path(shards.root, row.source)) == row.path.read_bytes()


def test_names_may_hold_anything(image_folder: Path, tmp_path: Path) -> None:
    names = ['a, "b".png', "two\nlines.png", os.fsdecode(b"\xff.png"), "été 🐜.png"]
    rows = [row._replace(source=f"red/{name}") for row, name in zip(rows_of(image_folder), names, strict=False)]
    pack(rows, str(tmp_path / "packed"), 1)
    shards = Shards(str(tmp_path / "packed"), tmp_path)
    assert [path.name for path in shards.images] == names


def test_a_stamp_changes_with_the_image_and_not_with_the_place(
    packed: Path, tmp_path: Path, image_folder: Path
) -> None:
    index = index_of(packed, "stream")
    moved = index_of(Path(shutil.copytree(packed, tmp_path / "moved")), "stream")
    stamps = [[each.stamp(path) for path, _ in each.splits["train"]] for each in (index, moved)]
    assert stamps[0] == stamps[1]
    assert len(set(stamps[0])) == 18


# ---- reading


def batches(root: Path, name: str, cache: str, num_workers: int, seed: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
    """Two epochs of training batches, then the validation batches."""
    options = DatasetConfig(name, str(root), batch_size=8, num_workers=num_workers, cache=cache)
    data = ImageDataModule(options, EvaluationTransform(73, 64), AugmentConfig(), seed)
    data.setup()
    for epoch in range(2):
        loader = data.train_dataloader()
        loader.sampler.set_epoch(epoch)  # type: ignore[attr-defined]
        yield from loader
    yield from data.val_dataloader()


@pytest.mark.slow
@pytest.mark.parametrize(("cache", "num_workers"), [("none", 0), ("none", 2), ("ram", 0), ("auto", 2)])
def test_batches_are_those_of_the_folder(image_folder: Path, packed: Path, cache: str, num_workers: int) -> None:
    expected = batches(image_folder, "folder", "none", 0)
    for (images, labels), (other, others) in zip(batches(packed, "stream", cache, num_workers), expected, strict=True):
        assert torch.equal(images, other)
        assert torch.equal(labels, others)


def test_copies_are_found_as_in_the_folder(image_folder: Path, tmp_path: Path) -> None:
    root = tmp_path / "images"
    shutil.copytree(image_folder, root)
    shutil.copy(root / "train" / "blue" / "0.png", root / "val" / "blue" / "copy.png")
    shutil.copy(root / "train" / "red" / "1.png", root / "train" / "green" / "copy.png")
    pack(rows_of(root), str(tmp_path / "packed"), 1)
    folder, stream = (
        find_copies(build_index(tmp_path / name, DatasetConfig(kind, str(tmp_path / name))))
        for name, kind in (("images", "folder"), ("packed", "stream"))
    )
    assert [finding.title for finding in folder] == ["Images in two splits", "Images with two labels"]
    assert [(finding.title, finding.items) for finding in stream] == [
        (finding.title, finding.items) for finding in folder
    ]


def test_threads_read_at_the_same_time(shards: Shards, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each waits for the other, as for object storage's answer."""
    import litdata

    paths, meeting, read = list(shards.images), Barrier(2), litdata.StreamingDataset.__getitem__
    expected = list(map(shards.contents, paths))

    def read_in_company(self: Any, number: int) -> Any:
        meeting.wait(timeout=20)
        return read(self, number)

    monkeypatch.setattr(litdata.StreamingDataset, "__getitem__", read_in_company)
    assert list(in_threads(shards.contents, paths[:26], 2)) == expected[:26]


def test_another_process_may_start_from_a_copy(shards: Shards) -> None:
    path = next(iter(shards.images))
    again = pickle.loads(pickle.dumps(shards))
    assert again.contents(path) == shards.contents(path)


@pytest.mark.slow
def test_a_training_ends_with_the_same_weights_and_predictions(
    image_folder: Path, packed: Path, tmp_path: Path
) -> None:
    def trained(name: str, root: Path, strategy: StrategyConfig) -> Run:
        config = Config(
            dataset=DatasetConfig(name, str(root), image_size=64, batch_size=8, num_workers=0),
            backbone=BackboneConfig("squeezenet1_1", None),
            strategy=strategy,
            trainer=TrainerConfig(max_epochs=2, accelerator="cpu", precision="32"),
            logger=LoggerConfig("csv"),
        )
        folder = tmp_path / f"{name}_{strategy.name}"
        train(config, folder)
        return Run(folder)

    for strategy in (StrategyConfig(), StrategyConfig("scratch", backbone_factor=1.0, from_scratch=True)):
        folder, stream = trained("folder", image_folder, strategy), trained("stream", packed, strategy)
        assert stream.predictions_csv.read_text() == folder.predictions_csv.read_text()
        assert stream.summary["data_fingerprint"] == folder.summary["data_fingerprint"]
        weights = folder.load_classifier().state_dict()
        for key, tensor in stream.load_classifier().state_dict().items():
            assert torch.equal(tensor, weights[key]), key
    page = stream.report().read_text()
    assert "<title>squeezenet1_1 on packed: " in page
    assert "The files are those of the training." in page
    assert page.count("data:image/jpeg") > 9  # the photos are there, too
    views = [run.evaluate(tta=True, random_views=1).logits for run in (folder, stream)]
    assert torch.equal(*views)


# ---- what is not whole, or not ours


def test_what_was_not_packed_to_the_end_is_refused(image_folder: Path, tmp_path: Path) -> None:
    def interrupted() -> Iterator[Row]:
        for number in range(10):
            yield from (row._replace(source=f"{number}/{row.source}") for row in rows_of(image_folder))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pack(interrupted(), str(tmp_path / "packed"), 1)
    assert list((tmp_path / "packed").glob("*.bin"))
    assert "holds half a data set: `thaw pack` did not end, or not all was copied." in refused(tmp_path / "packed")


def test_a_missing_or_torn_shard_is_named(packed: Path) -> None:
    shard = packed / "chunk-0-0.bin"
    contents = shard.read_bytes()
    shard.write_bytes(contents[: len(contents) // 2])
    assert refused(packed).endswith("lacks chunk-0-0.bin, or a part of it. Copy or pack it again.")
    shard.unlink()
    assert refused(packed).endswith("lacks chunk-0-0.bin, or a part of it. Copy or pack it again.")


def test_an_image_that_shards_no_longer_have_is_named(packed: Path) -> None:
    shards = index_of(packed, "stream").shards
    assert shards
    with pytest.raises(BadImage, match=r"gone\.png cannot be read as an image: it is not in the shards any more\.$"):
        shards.contents(packed / "train/blue/gone.png")


@pytest.mark.parametrize("cache", ["none", "ram"])
def test_a_damaged_image_is_named(packed: Path, cache: str) -> None:
    index = index_of(packed, "stream")
    path, _ = index.splits["train"][0]
    shard = packed / "chunk-0-0.bin"
    assert index.shards
    image = index.shards.contents(path)
    shard.write_bytes(shard.read_bytes().replace(image, b"\0" * len(image)))
    with pytest.raises(BadImage, match=r"packed/train/blue/0\.png cannot be read as an image: "):
        index_of(packed, "stream").read(path)
    with pytest.raises(BadImage, match=r"packed/train/blue/0\.png cannot be read as an image: "):
        list(batches(packed, "stream", cache, 0))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{", "its index.json is damaged. Pack it again."),
        ("[]", "its index.json is damaged. Pack it again."),
        ('{"chunks": [], "config": {}}', "cannot be read: "),
    ],
)
def test_a_damaged_list_of_shards_is_told(packed: Path, text: str, reason: str) -> None:
    (packed / "index.json").write_text(text)
    assert reason in refused(packed)


def write_shards(folder: Path, items: list[bytes]) -> None:
    from litdata.streaming import Cache

    writer = Cache(str(folder), chunk_bytes="1MB")
    for number, item in enumerate(items):
        writer[number] = item
    writer.done()
    writer.merge()


def test_the_shards_of_others_are_refused(tmp_path: Path) -> None:
    write_shards(tmp_path / "numbers", [b"number"] * 3)
    assert "was not packed by `thaw pack`" in refused(tmp_path / "numbers")


@pytest.mark.parametrize("labels", ["label", "folder"])
def test_earlier_tables_have_no_groups(tmp_path: Path, labels: str) -> None:
    write_shards(tmp_path, [b"image", f"path,{labels},split,bytes,sha256\nred/1.png,red,val,5,6105d6cc\n".encode()])
    shards = Shards(str(tmp_path), tmp_path)
    assert shards.rows == [Row(tmp_path / "red/1.png", "red", "val", "red")]
    assert shards.by_folder == (labels == "folder")


def test_nothing_in_a_hostile_shard_is_run(tmp_path: Path) -> None:
    from litdata.streaming import Cache

    class Hostile:
        def __reduce__(self) -> tuple[Any, tuple[str]]:
            return os.mkdir, (str(tmp_path / "run"),)

    writer = Cache(str(tmp_path / "hostile"), chunk_bytes="1MB")
    for number in range(2):
        writer[number] = Hostile()
    writer.done()
    writer.merge()
    index = json.loads((tmp_path / "hostile" / "index.json").read_text())
    assert index["config"]["data_format"] == ["pickle"]
    for data_format in ("pickle", "graph:pickle"):
        index["config"]["data_format"] = [data_format]
        (tmp_path / "hostile" / "index.json").write_text(json.dumps(index))
        assert "hostile" in refused(tmp_path / "hostile")
        assert not (tmp_path / "run").exists()


def test_no_folder_and_no_shards(tmp_path: Path) -> None:
    assert refused("nowhere") == (
        "dataset.root must be a folder or an address that `thaw pack` has written, got 'nowhere'."
    )
    assert refused(tmp_path) == (
        f"dataset.root={tmp_path} holds no packed data set. Make one by `thaw pack FOLDER {tmp_path}`; a folder of "
        "images is dataset=folder."
    )


def test_without_litdata_the_extra_is_named(packed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "litdata", None)
    message = "dataset=stream and `thaw pack` need the package litdata: pip install -e '.[stream]'."
    assert refused(packed) == message
    with pytest.raises(ThawError) as caught:
        pack([], str(packed / "other"), 1)
    assert str(caught.value) == message
