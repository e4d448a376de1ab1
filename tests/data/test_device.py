import pytest
import torch
import torchvision.transforms.v2.functional as F
from scipy.stats import ks_2samp
from torch import Tensor
from torchvision.transforms import v2

from thaw.config import AugmentConfig
from thaw.data.device import NUMBERS, CropDataset, Crops, DeviceImages, can_cut, fits_on_device, random_crops
from thaw.data.sampling import FILLER, NO_LABEL, Position
from thaw.data.transforms import EvaluationTransform

SIZES = [(60, 80), (90, 50), (40, 40)]
CPU = torch.device("cpu")


def of_32(epoch: int) -> int:
    return 32


@pytest.fixture
def images() -> list[Tensor]:
    """Smooth images: colours that change linearly."""
    images = []
    for height, width in SIZES:
        rows, columns = torch.meshgrid(torch.linspace(0, 1, height), torch.linspace(0, 1, width), indexing="ij")
        images.append((torch.stack([rows, columns, (rows + columns) / 2]) * 255).round().to(torch.uint8))
    return images


def test_crops_are_those_that_the_transform_would_cut_on_the_cpu(images: list[Tensor]) -> None:
    dataset = CropDataset("train", SIZES, torch.tensor([2, 0, 1]), AugmentConfig(), seed=3, side=of_32)
    batches = [dataset.__getitems__([(epoch, index) for index in (1, 2, 0)]) for epoch in range(8)]
    assert all(crops.split == "train" and crops.labels.tolist() == [0, 1, 2] for crops in batches)
    assert 0 < sum(int(crops.mirrored.sum()) for crops in batches) < 24
    kept = DeviceImages(images, CPU)
    for crops in batches:
        cut = kept.cut(crops)
        assert cut.dtype == torch.uint8
        for image, index, box, mirrored in zip(cut, crops.indices, crops.boxes, crops.mirrored, strict=True):
            left, top, right, bottom = box.int().tolist()
            expected = F.resized_crop(images[index], top, left, bottom - top, right - left, [32, 32], antialias=True)
            difference = image.float() - (expected.flip(-1) if mirrored else expected).float()
            assert difference.abs().mean() < 1
            assert difference.abs().max() <= 12


def test_a_crop_depends_on_seed_epoch_and_index_alone() -> None:
    def boxes(*positions: Position, dataset: CropDataset | None = None, seed: int = 0) -> Tensor:
        dataset = dataset or CropDataset("train", SIZES, torch.zeros(3), AugmentConfig(), seed, of_32)
        return dataset.__getitems__(list(positions)).boxes

    used = CropDataset("train", SIZES, torch.zeros(3), AugmentConfig(), seed=0, side=of_32)
    used.__getitems__([(4, 2), (4, 1)])
    assert torch.equal(boxes((5, 0), (5, 1)), boxes((5, 1), (5, 0), dataset=used).flip(0))
    assert not torch.equal(boxes((5, 0)), boxes((6, 0)))
    assert not torch.equal(boxes((5, 0)), boxes((5, 0), seed=1))


def test_each_draw_of_an_image_in_an_epoch_is_another_crop_whatever_else_is_in_the_batch() -> None:
    dataset = CropDataset("train", SIZES, torch.tensor([2, 0, 1]), AugmentConfig(), seed=0, side=of_32)
    crops = dataset.__getitems__([(5, draw) for draw in (4, 1, 10, 0, 3, 6, 7)])
    assert crops.indices.tolist() == [1, 1, 1, 0, 0, 0, 1]
    assert crops.labels.tolist() == [0, 0, 0, 2, 2, 2, 0]
    assert len(crops.boxes.unique(dim=0)) == 7
    assert 0 < int(crops.mirrored.sum()) < 7
    for place, draw in enumerate((4, 1, 10, 0, 3, 6, 7)):
        alone = CropDataset("train", SIZES, torch.zeros(3), AugmentConfig(), seed=0, side=of_32).__getitems__(
            [(5, draw)]
        )
        assert torch.equal(alone.boxes[0], crops.boxes[place])
        assert alone.mirrored[0] == crops.mirrored[place]


def test_images_that_are_not_augmented_come_as_they_are() -> None:
    images = [torch.randint(256, (3, 24, 24), dtype=torch.uint8) for _ in range(3)]
    dataset = CropDataset("val", [(24, 24)] * 3, torch.tensor([0, 1, 0]), None, seed=0, side=lambda epoch: 24)
    crops = dataset.__getitems__([(0, 2), (0, FILLER), (0, 0)])
    assert crops.labels.tolist() == [0, NO_LABEL, 0]
    assert torch.equal(DeviceImages(images, CPU).cut(crops), torch.stack([images[i] for i in (2, 2, 0)]))


@pytest.mark.parametrize(
    ("size", "options"),
    [
        ((60, 80), AugmentConfig()),
        ((200, 200), AugmentConfig(crop_scale=[0.35, 1.0])),
        ((40, 90), AugmentConfig(crop_scale=[0.9, 1.0])),  # most tries are too large
        ((20, 200), AugmentConfig(crop_scale=[0.5, 1.0])),  # all are
        ((200, 20), AugmentConfig(crop_scale=[0.5, 1.0])),
    ],
)
def test_boxes_are_distributed_as_those_of_torchvision(size: tuple[int, int], options: AugmentConfig) -> None:
    torch.manual_seed(0)
    transform, image = v2.RandomResizedCrop(8, options.crop_scale, options.crop_ratio), torch.empty(3, *size)
    drawn = [transform.make_params([image]) for _ in range(2000)]
    theirs = torch.tensor([[box["left"], box["top"], box["width"], box["height"]] for box in drawn])
    numbers = torch.rand(NUMBERS, 2000, generator=torch.Generator().manual_seed(0))
    boxes, _ = random_crops(torch.tensor([size] * 2000), options, numbers)
    own = torch.cat([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], dim=1)
    assert bool((boxes >= 0).all())
    assert bool((boxes[:, 2] <= size[1]).all())
    assert bool((boxes[:, 3] <= size[0]).all())
    for part in range(4):
        # Kolmogorov and Smirnov's test; where all boxes are one, there is nothing to compare but that one.
        assert ks_2samp(own[:, part].numpy(), theirs[:, part].numpy()).pvalue > 1e-3


def test_shrinking_averages(images: list[Tensor]) -> None:
    checkers = (255 * ((torch.arange(64)[:, None] + torch.arange(64)) % 2)).to(torch.uint8).expand(3, 64, 64)
    whole = Crops(
        "train", 16, torch.tensor([0]), torch.tensor([[0.0, 0, 64, 64]]), torch.tensor([False]), torch.tensor([0])
    )
    cut = DeviceImages([checkers], CPU).cut(whole)
    assert (cut.float() - 127.5).abs().max() <= 1


def test_padding_is_not_seen(images: list[Tensor]) -> None:
    white = [torch.full((3, 10, 20), 255, dtype=torch.uint8), torch.full((3, 30, 12), 255, dtype=torch.uint8)]
    boxes = torch.tensor([[0.0, 0, 20, 10], [0, 0, 12, 30]])
    crops = Crops("train", 8, torch.arange(2), boxes, torch.tensor([False, True]), torch.zeros(2))
    assert bool((DeviceImages(white, CPU).cut(crops) == 255).all())


@pytest.mark.parametrize(
    ("options", "interpolation", "can"),
    [
        (AugmentConfig(), "bilinear", True),
        (AugmentConfig(policy="trivial"), "bilinear", False),
        (AugmentConfig(policy="none"), "bilinear", False),
        (AugmentConfig(erasing=0.5), "bilinear", False),
        (AugmentConfig(vertical_flip=0.5), "bilinear", False),
        (AugmentConfig(degrees=10), "bilinear", False),
        (AugmentConfig(mixup=0.2), "bilinear", True),
        (AugmentConfig(), "bicubic", False),
    ],
)
def test_what_the_device_can_cut(options: AugmentConfig, interpolation: str, can: bool) -> None:
    assert can_cut(options, EvaluationTransform(36, 32, interpolation)) == can


@pytest.mark.parametrize(
    ("batch_size", "kept", "fits"), [(0, 0, True), (0, 300, True), (0, 301, False), (1, 0, False), (64, 0, False)]
)
def test_a_gpu_keeps_half_of_what_is_free_or_can_be_used_again(
    monkeypatch: pytest.MonkeyPatch, batch_size: int, kept: int, fits: bool
) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (1600 - kept, 5000))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 700)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: 500)
    sizes = [(4, 5), (3, 25)]  # 2 x 3 x 4 x 25 bytes
    assert fits_on_device(sizes, torch.device("cuda"), batch_size, kept) == fits


def test_other_devices_than_gpus_are_taken_to_have_room() -> None:
    assert fits_on_device([(10**6, 10**6)], CPU, 32)
