import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import lightning.pytorch as pl
import pytest
import torch
from torch import Tensor, nn

from thaw.config import AugmentConfig, DatasetConfig, HeadConfig, OptimizerConfig, StrategyConfig
from thaw.data.datamodule import ImageDataModule
from thaw.data.device import Crops
from thaw.data.feature_views import FrozenBackbone
from thaw.data.images import read_image
from thaw.data.sampling import NO_LABEL, ImageDataset
from thaw.data.transforms import EvaluationTransform
from thaw.data.unreadable import index_again
from thaw.errors import ThawError
from thaw.evaluation import evaluate
from thaw.model.classifier import Classifier
from thaw.model.strategy import is_still_frozen
from thaw.run import Run

TRANSFORM = EvaluationTransform(resize=73, crop=64)
NUM_TRAIN, NUM_VAL = 18, 9
Batch = tuple[Tensor, Tensor]


def make_data(root: Path, seed: int = 0, augment: AugmentConfig | None = None, **options: Any) -> ImageDataModule:
    plain = {"batch_size": 4, "num_workers": 0, "cache": "ram"}
    data = ImageDataModule(DatasetConfig(root=str(root), **plain | options), TRANSFORM, augment, seed)
    data.setup()
    return data


def batches_of(loader: Any, epoch: int = 0) -> list[Batch]:
    if hasattr(loader.sampler, "set_epoch"):
        loader.sampler.set_epoch(epoch)
    return list(loader)


def assert_equal_batches(first: list[Batch], second: list[Batch]) -> None:
    for (inputs, labels), (other_inputs, other_labels) in zip(first, second, strict=True):
        assert torch.equal(inputs, other_inputs)
        assert torch.equal(labels, other_labels)


# ---- images


def test_the_options_size_holds_whatever_the_weights_transform(image_folder: Path) -> None:
    data = ImageDataModule(DatasetConfig(root=str(image_folder), image_size=64), EvaluationTransform(256, 224))
    data.setup()
    for loader in (data.train_dataloader(), data.predict_dataloader()):
        assert next(iter(loader))[0].shape[1:] == (3, 64, 64)
    assert data.transform.with_options(data.options) == data.transform


def test_classes_are_not_known_before_setup(image_folder: Path) -> None:
    data = ImageDataModule(DatasetConfig(root=str(image_folder)), TRANSFORM)
    with pytest.raises(ThawError, match=r"^Nothing is known of the images yet: call setup\(\) first\.$"):
        _ = data.classes


def test_a_run_is_not_gone_on_with_on_other_images(image_folder: Path) -> None:
    data, other = make_data(image_folder), make_data(image_folder, train_per_class=2)
    data.load_state_dict(data.state_dict())
    with pytest.raises(ThawError, match=r"the images in .* are no longer those"):
        other.load_state_dict(data.state_dict())


def test_a_batch_is_uint8_crops_and_labels(image_folder: Path) -> None:
    data = make_data(image_folder)
    assert data.classes == ("blue", "green", "red")
    for loader, size in ((data.train_dataloader(), NUM_TRAIN), (data.val_dataloader(), NUM_VAL)):
        batches = batches_of(loader)
        assert sum(len(labels) for _, labels in batches) == size
        images, labels = batches[0]
        assert (images.shape, images.dtype) == ((4, 3, 64, 64), torch.uint8)
        means = images.float().mean(dim=(2, 3))
        assert torch.equal(means.argmax(dim=1), 2 - labels)  # blue is class 0 and channel 2


def test_validation_images_come_in_order_and_through_the_evaluation_transform(image_folder: Path) -> None:
    data = make_data(image_folder)
    images = torch.cat([images for images, _ in batches_of(data.val_dataloader())])
    expected = [TRANSFORM(read_image(sample.path)) for sample in data.index.splits["val"]]
    assert torch.equal(images, torch.stack(expected))


def test_each_epoch_and_each_seed_has_images_of_its_own(image_folder: Path) -> None:
    first, other = make_data(image_folder), make_data(image_folder, seed=1)
    epochs = [batches_of(data.train_dataloader(), epoch) for data in (first, other) for epoch in (0, 1)]
    assert len({epoch[0][0].numpy().tobytes() for epoch in epochs}) == 4
    assert_equal_batches(batches_of(make_data(image_folder).train_dataloader(), 1), epochs[1])


@pytest.mark.parametrize(
    ("batch_size", "drop_last", "sizes"),
    [(4, False, [4, 4, 4, 4, 2]), (4, True, [4, 4, 4, 4]), (18, True, [18]), (32, True, [18]), (1, True, [1] * 18)],
)
def test_an_incomplete_last_batch_is_dropped_on_request_but_never_the_whole_epoch(
    image_folder: Path, batch_size: int, drop_last: bool, sizes: list[int]
) -> None:
    data = make_data(image_folder, batch_size=batch_size, drop_last=drop_last)
    for features in (False, True):
        data.features.backbone = left_and_right() if features else None
        loader = data.train_dataloader()
        assert [len(labels) for _, labels in loader] == sizes
        assert len(loader) == len(sizes)
        assert sum(len(labels) for _, labels in data.val_dataloader()) == NUM_VAL


@pytest.mark.parametrize(
    ("labels", "inputs_left", "labels_left"),
    [([1, 0, 2], 3, [1, 0, 2]), ([1, 0, NO_LABEL], 2, [1, 0]), ([NO_LABEL], 1, [])],
)
def test_of_images_without_label_one_stays_where_there_is_no_other(
    image_folder: Path, labels: list[int], inputs_left: int, labels_left: list[int]
) -> None:
    data, given = make_data(image_folder), torch.tensor(labels)
    images, left = data.on_before_batch_transfer((torch.rand(len(labels), 3, 8, 8), given), 0)
    assert (len(images), left.tolist()) == (inputs_left, labels_left)
    crops = Crops(
        "train", 32, torch.arange(len(labels)), torch.rand(len(labels), 4), torch.ones(len(labels)).bool(), given
    )
    crops = data.on_before_batch_transfer(crops, 0)
    assert isinstance(crops, Crops)
    assert (len(crops.indices), len(crops.boxes), crops.labels.tolist()) == (inputs_left, inputs_left, labels_left)


def test_loss_weights_are_inverse_to_the_frequency(image_folder: Path) -> None:
    weights = make_data(image_folder, balance="loss").class_weights()
    assert weights is not None
    counts = torch.tensor([4.0, 6.0, 8.0])
    assert torch.allclose(weights, 18 / (3 * counts))
    assert float((weights * counts).sum()) == pytest.approx(18)  # an image weighs 1 on average
    assert make_data(image_folder).class_weights() is None
    assert make_data(image_folder, balance="sampler").class_weights() is None


@pytest.mark.parametrize(
    ("balance", "shares"), [("none", [4 / 18, 6 / 18, 8 / 18]), ("sampler", [1 / 3, 1 / 3, 1 / 3])]
)
def test_a_balancing_sampler_draws_all_classes_equally_often(
    image_folder: Path, balance: str, shares: list[float]
) -> None:
    data = make_data(image_folder, balance=balance)
    sampler: Any = data.train_dataloader().sampler
    labels = [sample.label for sample in data.index.splits["train"]]
    drawn: Counter[int] = Counter()
    for epoch in range(200):
        sampler.set_epoch(epoch)
        drawn.update(labels[draw % NUM_TRAIN] for _, draw in sampler)
    assert [drawn[label] / (200 * NUM_TRAIN) for label in range(3)] == pytest.approx(shares, abs=0.03)


@pytest.mark.parametrize("cache", ["ram", "none", "device"])
def test_an_image_that_is_drawn_again_is_another_view(image_folder: Path, cache: str) -> None:
    """Also where the epoch runs on fresh features, which are those of these images."""
    data = make_data(image_folder, balance="sampler", cache=cache)
    loader: Any = data.train_dataloader()
    draws = [draw for _, draw in loader.sampler]
    assert len({draw % NUM_TRAIN for draw in draws}) < NUM_TRAIN
    images = torch.cat([data.on_after_batch_transfer(batch, 0)[0] for batch in loader])
    assert len(images.unique(dim=0)) == len(images) == NUM_TRAIN
    if cache != "device":
        data.features.backbone = left_and_right("fresh")
        assert torch.equal(torch.cat([features for features, _ in data.train_dataloader()]), LeftAndRight()(images))


@pytest.mark.parametrize(("cache", "num_workers"), [("ram", 0), ("ram", 2), ("none", 0), ("none", 2), ("device", 0)])
def test_crops_of_training_images_grow_with_the_epoch(image_folder: Path, cache: str, num_workers: int) -> None:
    options = DatasetConfig(root=str(image_folder), batch_size=4, cache=cache, num_workers=num_workers)
    data = ImageDataModule(options, TRANSFORM, AugmentConfig(start_size=32), num_epochs=4)
    data.setup()
    assert data.sides == [32, 32, 32, 64]
    kept: Any = data.train_dataloader()
    for epoch, size in enumerate((32, 32, 32, 64, 64)):
        for loader in (kept, data.train_dataloader()):
            batches = [data.on_after_batch_transfer(batch, 0) for batch in batches_of(loader, epoch)]
            assert {images.shape[1:] for images, _ in batches} == {(3, size, size)}
    assert data.preview(4)[0].shape == (4, 3, 32, 32)
    others = data.val_dataloader()
    assert {data.on_after_batch_transfer(batch, 0)[0].shape[1:] for batch in others} == {(3, 64, 64)}
    data.features.backbone = left_and_right("fresh")
    assert next(iter(data.train_dataloader()))[0].shape == (4, 6)  # of crops of the full size, as the head is judged


@pytest.mark.parametrize("options", [{"policy": "none", "start_size": 32}, {"start_size": 64}, {}])
def test_crops_do_not_grow_where_there_are_none_or_no_room(image_folder: Path, options: dict[str, Any]) -> None:
    data = ImageDataModule(DatasetConfig(root=str(image_folder)), TRANSFORM, AugmentConfig(**options), num_epochs=4)
    data.setup()
    assert {images.shape[1:] for images, _ in data.train_dataloader()} == {(3, 64, 64)}


def test_loaders_set_it_up(image_folder: Path) -> None:
    for make_loader in (ImageDataModule.train_dataloader, ImageDataModule.val_dataloader):
        data = ImageDataModule(DatasetConfig(root=str(image_folder), num_workers=0), TRANSFORM)
        assert sum(len(labels) for _, labels in make_loader(data)) in (NUM_TRAIN, NUM_VAL)


def test_setup_happens_once(image_folder: Path) -> None:
    data = make_data(image_folder)
    index, datasets = data.index, dict(data.datasets)
    data.setup("fit")
    assert data.index is index
    assert data.datasets == datasets


@pytest.mark.parametrize("cache", ["ram", "none"])
def test_an_unreadable_file_stops_or_is_left_out(image_folder: Path, tmp_path: Path, cache: str) -> None:
    shutil.copytree(image_folder, tmp_path / "images")
    for name in ("train/red/0.png", "val/red/0.png"):
        (tmp_path / "images" / name).write_bytes(b"<html>")
    with pytest.raises(ThawError, match=r"(?s)0\.png.*0\.png"):
        make_data(tmp_path / "images", cache=cache)
    data = make_data(tmp_path / "images", cache=cache, on_bad="skip")
    assert sum(len(labels) for _, labels in data.train_dataloader()) == NUM_TRAIN - 1
    assert sum(len(labels) for _, labels in data.val_dataloader()) == NUM_VAL - 1


@pytest.mark.parametrize("cache", ["ram", "none"])
def test_of_very_many_files_those_are_left_out_that_are_left_out_of_few(
    image_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cache: str
) -> None:
    shutil.copytree(image_folder, tmp_path / "images")
    truncated = tmp_path / "images/train/red/0.png"
    truncated.write_bytes(truncated.read_bytes()[:-2000])
    monkeypatch.setattr("thaw.data.unreadable.MOST_READ", 10)
    data = make_data(tmp_path / "images", cache=cache, on_bad="skip")
    assert data.index.ignored["unreadable"] == (truncated,)
    _, is_same = index_again(tmp_path / "images", data.options, data.index.fingerprint)
    assert is_same


def test_a_trainer_that_would_share_the_images_once_more_is_refused(image_folder: Path) -> None:
    data, flags = make_data(image_folder), {"accelerator": "cpu", "devices": 2, "logger": False}
    data.trainer = pl.Trainer(**flags, enable_checkpointing=False)
    for loader in (data.train_dataloader, data.val_dataloader):
        with pytest.raises(ThawError, match="Trainer must have use_distributed_sampler=False"):
            loader()
    data.trainer = pl.Trainer(**flags, enable_checkpointing=False, use_distributed_sampler=False)
    assert len(data.train_dataloader().sampler) == NUM_TRAIN // 2


@pytest.mark.parametrize("cache", ["auto", "none", "device"])
def test_lightnings_own_trainer_predicts_every_image(finished_run: Run, image_folder: Path, cache: str) -> None:
    model = finished_run.load_classifier()
    data = make_data(image_folder, cache=cache)
    trainer = pl.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False)
    logits, labels = map(torch.cat, zip(*cast(list[Batch], trainer.predict(model, data)), strict=True))
    expected = evaluate(finished_run).predictions
    assert torch.equal(labels, expected.labels)
    assert torch.allclose(logits, expected.logits, atol=1e-5)


# ---- stored features


class LeftAndRight(nn.Module):
    """Mean colours of the left and of the right half (B, 6); counts the images that it has seen."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))
        self.seen = 0

    def forward(self, images: Tensor) -> Tensor:
        self.seen += len(images)
        return torch.cat([half.float().mean(dim=(2, 3)) for half in images.chunk(2, dim=3)], dim=1)


def left_and_right(views: int | str = "mirror", frozen_until: int = 10**9) -> FrozenBackbone:
    module = LeftAndRight()
    return FrozenBackbone(module, module, lambda epoch: epoch < frozen_until, views, ("32-true", "cpu"))


def test_a_frozen_epoch_gives_features_and_labels_in_place_of_images(image_folder: Path) -> None:
    data = make_data(image_folder)
    data.features.backbone = left_and_right()
    for loader, size in ((data.train_dataloader(), NUM_TRAIN), (data.val_dataloader(), NUM_VAL)):
        batches = list(loader)
        assert [inputs.ndim for inputs, _ in batches] == [2] * len(batches)
        assert sum(len(labels) for _, labels in batches) == size
        for features, labels in batches:
            assert torch.equal(features[:, :3].argmax(dim=1), 2 - labels)
    data.features.backbone = left_and_right(frozen_until=0)
    assert next(iter(data.train_dataloader()))[0].ndim == 4


@pytest.mark.parametrize("balance", ["none", "sampler"])
@pytest.mark.parametrize("views", ["mirror", "fresh"])
def test_the_preview_shows_images_also_where_the_epoch_runs_on_features(
    image_folder: Path, views: str, balance: str
) -> None:
    data = make_data(image_folder, balance=balance)
    first = batches_of(data.train_dataloader())[0]
    data.features.backbone = left_and_right(views)
    images, labels = data.preview(most=24)
    assert images.shape == (4, 3, 64, 64)
    assert torch.equal(labels, first[1])
    assert torch.equal(images, first[0]) == (views == "fresh")
    assert torch.equal(data.preview(most=3)[0], images[:3])
    data.options.batch_size = 40
    assert len(data.preview(most=24)[0]) == NUM_TRAIN


# ---- a whole training


class Recorder(pl.Callback):
    """Ranks of the batches, and the metrics, of each epoch."""

    def __init__(self) -> None:
        self.ranks: list[set[int]] = []
        self.val_ranks: list[set[int]] = []
        self.metrics: list[dict[str, float]] = []

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.ranks.append(set())
        self.val_ranks.append(set())

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Batch, batch_idx: int
    ) -> None:
        self.ranks[-1].add(batch[0].ndim)

    def on_validation_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Batch, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        self.val_ranks[-1].add(batch[0].ndim)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.metrics.append({name: float(value) for name, value in trainer.callback_metrics.items()})


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Sums are added up in the same order, whatever machine this is."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def fit(
    root: Path,
    strategy: StrategyConfig,
    use_features: bool = True,
    max_epochs: int = 3,
    lr: float = 1e-2,
    precision: Any = "32-true",
    **options: Any,
) -> tuple[Recorder, Classifier]:
    data = make_data(root, augment=AugmentConfig(), **options)
    torch.manual_seed(0)
    head, optimizer = HeadConfig(dropout=0.2), OptimizerConfig(lr=lr)
    weights = data.class_weights()
    model = Classifier(
        "squeezenet1_1",
        data.classes,
        TRANSFORM,
        head,
        strategy,
        optimizer,
        augment=AugmentConfig(),
        class_weights=weights,
    )
    recorder = Recorder()
    trainer = pl.Trainer(
        max_epochs=max_epochs,
        accelerator="cpu",
        precision=precision,
        callbacks=[recorder],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        log_every_n_steps=1,
        use_distributed_sampler=False,
        reload_dataloaders_every_n_epochs=1,
    )
    if use_features:
        num_stages = len(model.backbone.stages)
        data.features.backbone = FrozenBackbone(
            model.backbone,
            model.extract_frozen,
            lambda epoch: is_still_frozen(strategy, epoch, num_stages),
            strategy.feature_views,
            ("32-true", "cpu"),
        )
    trainer.fit(model, datamodule=data)
    return recorder, model


@pytest.mark.slow
@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize(
    "options", [{}, {"balance": "loss", "cache": "none"}, {"balance": "sampler", "drop_last": True}]
)
def test_fresh_features_train_as_augmented_images_do(image_folder: Path, options: dict[str, Any]) -> None:
    strategy = StrategyConfig(feature_views="fresh")
    on_features, model = fit(image_folder, strategy, **options)
    on_images, reference = fit(image_folder, strategy, use_features=False, **options)
    assert on_features.ranks == on_features.val_ranks == [{2}] * 3
    assert on_images.ranks == on_images.val_ranks == [{4}] * 3
    for ours, theirs in zip(on_features.metrics, on_images.metrics, strict=True):
        assert ours == pytest.approx(theirs, rel=1e-5, abs=1e-5)
    assert len({round(epoch["train/loss"], 4) for epoch in on_images.metrics}) == 3
    for ours, theirs in zip(model.head.parameters(), reference.head.parameters(), strict=True):
        assert torch.allclose(ours, theirs, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
@pytest.mark.usefixtures("one_thread")
def test_a_gradual_training_goes_over_from_features_to_images(image_folder: Path) -> None:
    strategy = StrategyConfig("gradual", 0.3, 0.1, head_epochs=2, unfreeze_epochs=2, feature_views="fresh")
    on_features, _ = fit(image_folder, strategy, max_epochs=4)
    on_images, _ = fit(image_folder, strategy, use_features=False, max_epochs=4)
    assert on_features.ranks == on_features.val_ranks == [{2}, {2}, {4}, {4}]
    for ours, theirs in zip(on_features.metrics, on_images.metrics, strict=True):
        assert ours == pytest.approx(theirs, rel=1e-3, abs=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("views", ["mirror", 2])
def test_stored_views_train_the_head(image_folder: Path, views: int | str) -> None:
    recorder, _ = fit(image_folder, StrategyConfig(feature_views=views), max_epochs=6, lr=1e-3)
    assert recorder.ranks == [{2}] * 6
    assert recorder.metrics[-1]["val/acc"] == 1.0
    assert recorder.metrics[-1]["val/loss"] < 0.6 * recorder.metrics[0]["val/loss"]


@pytest.mark.slow
def test_loader_processes_load_each_image_once_an_epoch(
    image_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = tmp_path / "loaded.txt"
    get = ImageDataset.__getitem__

    def note(dataset: ImageDataset, position: tuple[int, int]) -> tuple[Tensor, int]:
        with loaded.open("a") as file:
            file.write(f"{position}\n")
        return get(dataset, position)

    monkeypatch.setattr(ImageDataset, "__getitem__", note)
    strategy = StrategyConfig("finetune", backbone_factor=1.0)
    fit(image_folder, strategy, max_epochs=3, lr=1e-3, cache="none", num_workers=1)
    counts = Counter(loaded.read_text().splitlines())
    assert [counts[f"({epoch}, {image})"] for epoch in (1, 2) for image in range(NUM_TRAIN)] == [1] * 2 * NUM_TRAIN


def test_loaders_suit_the_trainer_that_asks_for_them(image_folder: Path) -> None:
    data = make_data(image_folder)
    before = data.train_dataloader()
    assert data.train_dataloader() is before
    data.trainer = pl.Trainer(
        accelerator="cpu", devices=2, strategy="ddp", logger=False, enable_checkpointing=False,
        use_distributed_sampler=False,
    )  # fmt: skip
    assert len(cast(Any, data.train_dataloader().sampler)) == len(cast(Any, before.sampler)) / 2


def test_where_crops_are_drawn_is_asked_anew_for_a_trainer_on_another_device(image_folder: Path) -> None:
    data = make_data(image_folder, cache="auto")
    data.images.device = torch.device("meta")
    data.train_dataloader()
    assert data.state_dict()["cuts_crops"] is False
    data.trainer = pl.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False)
    data.setup("fit")
    assert data.state_dict()["cuts_crops"] is None


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["bf16-true", "64-true"])
def test_no_precision_of_a_training_changes_the_crops_of_the_device(image_folder: Path, precision: str) -> None:
    strategy = StrategyConfig("finetune", backbone_factor=1.0)
    recorder, _ = fit(image_folder, strategy, max_epochs=1, lr=1e-3, precision=precision, cache="device", batch_size=18)
    exact, _ = fit(image_folder, strategy, max_epochs=1, lr=1e-3, cache="device", batch_size=18)
    assert recorder.metrics[0]["train/loss"] == pytest.approx(exact.metrics[0]["train/loss"], rel=0.05)


@pytest.mark.slow
def test_crops_cut_on_the_device_train_the_network(image_folder: Path) -> None:
    strategy = StrategyConfig("finetune", backbone_factor=1.0)
    losses = {}
    for cache in ("ram", "device"):
        recorder, _ = fit(image_folder, strategy, max_epochs=3, lr=1e-3, cache=cache, batch_size=18)
        assert recorder.ranks == [{4}] * 3
        losses[cache] = [epoch["train/loss"] for epoch in recorder.metrics]
    assert losses["device"] == pytest.approx(losses["ram"], rel=0.1)
    assert losses["device"][-1] < losses["device"][0]
