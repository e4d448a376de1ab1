import pytest
import torch
from torch import Tensor
from torch.utils.data import default_collate

from thaw.config import AugmentConfig
from thaw.data.device import CropDataset, Crops, DeviceImages, can_cut, fits_on_device
from thaw.data.transforms import EvaluationTransform, training_transform
from thaw.seeding import seeded

SIZES = [(60, 80), (90, 50), (40, 40)]
CPU = torch.device("cpu")


@pytest.fixture
def images() -> list[Tensor]:
    """Smooth images: colours that change linearly."""
    images = []
    for height, width in SIZES:
        rows, columns = torch.meshgrid(torch.linspace(0, 1, height), torch.linspace(0, 1, width), indexing="ij")
        images.append((torch.stack([rows, columns, (rows + columns) / 2]) * 255).round().to(torch.uint8))
    return images


def test_crops_are_those_that_the_transform_cuts_on_the_cpu(images: list[Tensor]) -> None:
    evaluation, options = EvaluationTransform(resize=36, crop=32), AugmentConfig()
    dataset = CropDataset(SIZES, torch.tensor([2, 0, 1]), options, seed=3)
    positions = [(epoch, index) for epoch in range(8) for index in range(3)]
    crops = default_collate([dataset[position] for position in positions])
    assert isinstance(crops, Crops)
    assert crops.labels.tolist() == [2, 0, 1] * 8
    assert 0 < int(crops.mirrored.sum()) < 24
    transform, expected = training_transform(options, evaluation), []
    for epoch, index in positions:
        with seeded(3, epoch, index):
            expected.append(transform(images[index]))
    cut = DeviceImages(images, CPU).cut(crops, side=32)
    assert cut.dtype == torch.uint8
    assert (cut.float() - torch.stack(expected).float()).abs().mean() < 1
    assert (cut.float() - torch.stack(expected).float()).abs().max() <= 12


def test_shrinking_averages(images: list[Tensor]) -> None:
    checkers = (255 * ((torch.arange(64)[:, None] + torch.arange(64)) % 2)).to(torch.uint8).expand(3, 64, 64)
    whole = Crops(torch.tensor([0]), torch.tensor([[0.0, 0, 64, 64]]), torch.tensor([False]), torch.tensor([0]))
    cut = DeviceImages([checkers], CPU).cut(whole, side=16)
    assert (cut.float() - 127.5).abs().max() <= 1


def test_padding_is_not_seen(images: list[Tensor]) -> None:
    white = [torch.full((3, 10, 20), 255, dtype=torch.uint8), torch.full((3, 30, 12), 255, dtype=torch.uint8)]
    boxes = torch.tensor([[0.0, 0, 20, 10], [0, 0, 12, 30]])
    crops = Crops(torch.arange(2), boxes, torch.tensor([False, True]), torch.zeros(2))
    assert bool((DeviceImages(white, CPU).cut(crops, side=8) == 255).all())


@pytest.mark.parametrize(
    ("options", "interpolation", "can"),
    [
        (AugmentConfig(), "bilinear", True),
        (AugmentConfig(policy="trivial"), "bilinear", False),
        (AugmentConfig(policy="none"), "bilinear", False),
        (AugmentConfig(erasing=0.5), "bilinear", False),
        (AugmentConfig(mixup=0.2), "bilinear", True),
        (AugmentConfig(), "bicubic", False),
    ],
)
def test_what_the_device_can_cut(options: AugmentConfig, interpolation: str, can: bool) -> None:
    assert can_cut(options, EvaluationTransform(36, 32, interpolation)) == can


def test_other_devices_than_gpus_are_taken_to_have_room() -> None:
    assert fits_on_device([(10**6, 10**6)], CPU)
