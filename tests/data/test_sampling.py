from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision.transforms.v2.functional as F
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader
from torchvision.transforms import v2

from thaw.config import AugmentConfig
from thaw.data.images import read_image
from thaw.data.rows import Sample
from thaw.data.sampling import (
    FILLER,
    NO_LABEL,
    EpochSampler,
    FeatureDataset,
    GrowingImages,
    ImageDataset,
    Position,
    SequentialPositions,
)
from thaw.data.transforms import EvaluationTransform, training_transform

EVALUATION = EvaluationTransform(resize=36, crop=32)


@pytest.fixture
def samples(tmp_path: Path) -> list[Sample]:
    """Ten images of noise, of two classes."""
    generator = np.random.default_rng(0)
    for number in range(10):
        pixels = generator.integers(0, 256, (40, 48, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{number}.png")
    return [Sample(tmp_path / f"{number}.png", number % 2) for number in range(10)]


def augmented(samples: list[Sample], seed: int = 0, read: Callable[[Path], Tensor] = read_image) -> ImageDataset:
    return ImageDataset(samples, training_transform(AugmentConfig(policy="trivial"), EVALUATION), seed, read)


def order(sampler: EpochSampler, epoch: int) -> list[Position]:
    sampler.set_epoch(epoch)
    return list(sampler)


# ---- the images


def test_an_image_that_grows_shows_the_same_part_in_another_size() -> None:
    ramps = [Sample(Path(str(number)), 0) for number in range(8)]
    ramp = torch.linspace(0, 255, 48).round().to(torch.uint8).expand(3, 40, 48)
    images = ImageDataset(ramps, training_transform(AugmentConfig(), EVALUATION), seed=0, read=lambda path: ramp)
    growing = GrowingImages(images, AugmentConfig(), EVALUATION, [16, 24, 32])
    for epoch, size in enumerate((16, 24, 32, 32)):
        for number in range(8):
            (small, label), (full, _) = growing[epoch, number], images[epoch, number]
            assert (small.shape, small.dtype, label) == ((3, size, size), torch.uint8, 0)
            assert (F.resize(full, [size, size]).float() - small.float()).abs().max() <= 2


# ---- the order


def test_an_epoch_has_every_image_once() -> None:
    for epoch in (0, 1, 7):
        positions = order(EpochSampler(50, seed=3), epoch)
        assert sorted(positions) == [(epoch, index) for index in range(50)]


def test_the_order_depends_on_the_seed_and_the_epoch_alone() -> None:
    sampler = EpochSampler(50, seed=3)
    orders = [tuple(order(sampler, epoch)) for epoch in range(4)]
    torch.rand(1000)
    assert [tuple(order(EpochSampler(50, seed=3), epoch)) for epoch in range(4)] == orders
    assert tuple(order(sampler, 2)) == orders[2]  # in any sequence
    others = [tuple(order(EpochSampler(50, seed=4), epoch)) for epoch in range(4)]
    indices = {tuple(index for _, index in positions) for positions in orders + others}
    assert len(indices) == 8


def test_the_order_leaves_the_default_generator_alone() -> None:
    before = torch.get_rng_state()
    list(EpochSampler(50, seed=3))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("is_weighted", [False, True])
@pytest.mark.parametrize(("num_images", "num_processes"), [(12, 1), (12, 2), (12, 3), (13, 4), (5, 4), (3, 4)])
def test_processes_share_each_round_of_the_epoch(num_images: int, num_processes: int, is_weighted: bool) -> None:
    weights = torch.arange(1.0, num_images + 1) if is_weighted else None
    whole = order(EpochSampler(num_images, seed=1, weights=weights), epoch=2)
    samplers = [EpochSampler(num_images, 1, rank, num_processes, weights) for rank in range(num_processes)]
    parts = [order(sampler, epoch=2) for sampler in samplers]
    rounds = [position for positions in zip(*parts, strict=True) for position in positions]
    assert rounds[:num_images] == whole
    assert rounds[num_images:] == [(2, FILLER)] * (len(rounds) - num_images)
    assert len(rounds) - num_images < num_processes
    assert [len(sampler) for sampler in samplers] == [len(part) for part in parts]


def test_weights_are_how_often_an_image_is_drawn() -> None:
    weights = torch.tensor([0.0, 1.0, 2.0, 5.0])
    sampler = EpochSampler(4, seed=0, weights=weights)
    drawn = Counter(draw % 4 for epoch in range(2000) for _, draw in order(sampler, epoch))
    assert sum(drawn.values()) == 8000
    assert drawn[0] == 0
    assert [drawn[index] / 8000 for index in (1, 2, 3)] == pytest.approx([1 / 8, 2 / 8, 5 / 8], abs=0.02)


def test_a_further_draw_of_an_image_has_a_number_of_its_own() -> None:
    draws = [draw for _, draw in order(EpochSampler(10, seed=0, weights=torch.tensor([9.0] * 2 + [1.0] * 8)), epoch=3)]
    for image, times in Counter(draw % 10 for draw in draws).items():
        assert [draw for draw in draws if draw % 10 == image] == [image + 10 * number for number in range(times)]
    assert max(draws) > 20


def test_a_weighted_order_depends_on_the_seed_and_the_epoch_alone() -> None:
    weights = torch.rand(30)
    first, again, other = (EpochSampler(30, seed, weights=weights) for seed in (5, 5, 6))
    assert order(first, 1) == order(again, 1)
    assert order(first, 2) != order(other, 2)
    assert [index for _, index in order(first, 1)] != [index for _, index in order(first, 2)]


@pytest.mark.parametrize("num_processes", [1, 2, 3, 11])
def test_sequential_positions_are_shared_and_none_comes_twice(num_processes: int) -> None:
    samplers = [SequentialPositions(range(10), rank, num_processes, epoch=4) for rank in range(num_processes)]
    parts = [list(sampler) for sampler in samplers]
    indices = [index for part in parts for epoch, index in part if epoch == 4 and index != FILLER]
    assert sorted(indices) == list(range(10))
    assert all(sorted(part, key=lambda position: position[1] % 11) == part for part in parts)  # fillers last
    assert {len(sampler) for sampler in samplers} == {len(part) for part in parts} == {-(-10 // num_processes)}


def test_an_epoch_of_whole_batches_leaves_the_last_images_out() -> None:
    whole = order(EpochSampler(13, seed=1), epoch=2)
    parts = [order(EpochSampler(13, 1, rank, 2, num_drawn=12), epoch=2) for rank in range(2)]
    assert [position for pair in zip(*parts, strict=True) for position in pair] == whole[:12]


def test_a_filler_has_no_label(samples: list[Sample]) -> None:
    dataset = augmented(samples)
    image, label = dataset[0, FILLER]
    assert label == NO_LABEL
    assert torch.equal(image, dataset[0, len(samples) - 1][0])
    features = FeatureDataset(torch.arange(6.0).view(1, 6, 1), torch.tensor([0, 1, 2, 0, 1, 2]), seed=0)
    assert features.__getitems__([(0, 1), (0, FILLER)])[1].tolist() == [1, NO_LABEL]


# ---- the image


def test_a_sample_depends_on_the_seed_the_epoch_and_the_index_alone(samples: list[Sample]) -> None:
    dataset = augmented(samples)
    image, label = dataset[2, 5]
    assert (image.shape, image.dtype, label) == ((3, 32, 32), torch.uint8, 1)
    torch.rand(1000)
    dataset[7, 1]
    assert torch.equal(dataset[2, 5][0], image)
    assert torch.equal(augmented(samples)[2, 5][0], image)
    assert not torch.equal(dataset[3, 5][0], image)
    assert not torch.equal(augmented(samples, seed=1)[2, 5][0], image)


def test_two_indices_of_one_epoch_are_augmented_differently(samples: list[Sample]) -> None:
    dataset = augmented([samples[0]] * 8)
    assert len({dataset[0, index][0].numpy().tobytes() for index in range(8)}) == 8


def test_each_draw_of_an_image_in_an_epoch_is_augmented_differently(samples: list[Sample]) -> None:
    dataset = augmented(samples)
    images, labels = zip(*(dataset[0, draw] for draw in range(5, 85, 10)), strict=True)
    assert len({image.numpy().tobytes() for image in images}) == 8
    assert labels == (1,) * 8


def test_a_sample_leaves_the_default_generator_alone(samples: list[Sample]) -> None:
    before = torch.get_rng_state()
    augmented(samples)[0, 0]
    assert torch.equal(torch.get_rng_state(), before)


def test_images_in_memory_give_the_same_samples_and_are_not_changed(samples: list[Sample]) -> None:
    images = {sample.path: read_image(sample.path) for sample in samples}
    in_memory, from_files = augmented(samples, read=images.__getitem__), augmented(samples)
    for position in ((0, 0), (0, 3), (5, 3)):
        assert torch.equal(in_memory[position][0], from_files[position][0])
    assert all(torch.equal(read_image(path), image) for path, image in images.items())


def test_worker_processes_change_nothing(samples: list[Sample]) -> None:
    epochs: list[list[tuple[Tensor, Tensor]]] = []
    for num_workers in (0, 2):
        sampler = EpochSampler(len(samples), seed=0)
        options: dict[str, Any] = {"sampler": sampler, "num_workers": num_workers}
        loader = DataLoader(augmented(samples), 4, persistent_workers=num_workers > 0, **options)
        batches = []
        for epoch in (0, 1, 5):
            sampler.set_epoch(epoch)
            batches += list(loader)
        epochs.append(batches)
    for alone, by_workers in zip(*epochs, strict=True):
        assert torch.equal(alone[0], by_workers[0])
        assert torch.equal(alone[1], by_workers[1])


def test_the_transform_may_be_without_chance(samples: list[Sample]) -> None:
    dataset = ImageDataset(samples, v2.CenterCrop(8), seed=0)
    assert torch.equal(dataset[0, 4][0], dataset[9, 4][0])


# ---- stored features


def feature_dataset(num_views: int, num_images: int = 40, seed: int = 0) -> FeatureDataset:
    """Features (F=2) that tell which view of which image they are."""
    views, images = torch.meshgrid(torch.arange(num_views), torch.arange(num_images), indexing="ij")
    return FeatureDataset(torch.stack([views, images], dim=-1).float(), torch.arange(num_images) % 3, seed)


def views_of(dataset: FeatureDataset, epoch: int) -> list[int]:
    features, _ = dataset.__getitems__([(epoch, index) for index in range(len(dataset))])
    view: list[int] = features[:, 0].int().tolist()
    return view


def test_a_batch_of_features_holds_the_images_and_labels_asked_for() -> None:
    features, labels = feature_dataset(num_views=1).__getitems__([(0, 7), (0, 3), (0, 39)])
    assert features.tolist() == [[0, 7], [0, 3], [0, 39]]
    assert labels.tolist() == [1, 0, 0]


def test_the_view_depends_on_the_seed_the_epoch_and_the_index_alone() -> None:
    dataset = feature_dataset(num_views=4)
    views = views_of(dataset, epoch=3)
    torch.rand(1000)
    assert views_of(feature_dataset(num_views=4), epoch=3) == views
    one_by_one = [int(dataset.__getitems__([(3, index)])[0][0, 0]) for index in reversed(range(40))]
    assert one_by_one == views[::-1]  # whatever else is in the batch
    assert views_of(dataset, epoch=4) != views
    assert views_of(feature_dataset(num_views=4, seed=1), epoch=3) != views


def test_each_draw_of_an_image_in_an_epoch_is_the_next_of_its_views() -> None:
    features, labels = feature_dataset(num_views=3).__getitems__([(5, draw) for draw in range(7, 247, 40)])
    views = features[:, 0].int().tolist()
    assert views == [(views[0] + number) % 3 for number in range(6)]
    assert features[:, 1].tolist() == [7] * 6
    assert labels.tolist() == [1] * 6


def test_all_views_are_seen_equally_often() -> None:
    dataset = feature_dataset(num_views=4)
    counts = Counter(view for epoch in range(100) for view in views_of(dataset, epoch))
    assert [counts[view] / 4000 for view in range(4)] == pytest.approx([0.25] * 4, abs=0.03)
