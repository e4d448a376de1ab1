import json
import math
import resource
from dataclasses import asdict
from typing import Any

import pytest
import torch
import torchvision
from torch import Tensor
from torchvision.transforms.functional import normalize, to_pil_image
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2.functional import center_crop, resize

from thaw.config import AugmentConfig, DatasetConfig
from thaw.data.transforms import EvaluationTransform, Mirrored, growing_sides, mixing_transform, training_transform
from thaw.errors import ThawError
from thaw.model.weights import default_transform

POLICIES = ("none", "default", "trivial", "rand", "color")
SMALL = EvaluationTransform(resize=40, crop=32)


def noise(height: int = 60, width: int = 80) -> Tensor:
    """A uint8 RGB image (3, H, W), the hardest for an interpolation."""
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (3, height, width), dtype=torch.uint8, generator=generator)


def ramp(height: int = 60, width: int = 80) -> Tensor:
    """A uint8 RGB image (3, H, W) that brightens from left to right."""
    return torch.linspace(0, 255, width).round().to(torch.uint8).expand(3, height, width).contiguous()


def augmented(options: AugmentConfig, seed: int = 0, image: Tensor | None = None) -> Tensor:
    torch.manual_seed(seed)
    return training_transform(options, SMALL)(noise() if image is None else image)


# ---- evaluation


@pytest.mark.parametrize("shape", [(60, 80), (300, 280), (500, 700), (224, 224)])
@pytest.mark.parametrize(
    "backbone", ["resnet18", "resnet50", "efficientnet_b0", "efficientnet_v2_s", "inception_v3", "swin_t", "vit_h_14"]
)
def test_evaluation_is_torchvisions_of_a_pillow_image(backbone: str, shape: tuple[int, int]) -> None:
    transform = default_transform(backbone)
    image = noise(*shape)
    theirs = torchvision.models.get_model_weights(backbone).DEFAULT.transforms()(to_pil_image(image))
    ours = normalize(transform(image) / 255, list(transform.mean), list(transform.std))
    levels = 255 * (ours - theirs).abs() * torch.tensor(transform.std).view(3, 1, 1)
    # Where bicubic overshoots, each of its two passes may round otherwise.
    assert levels.max() < (1.01 if transform.interpolation == "bilinear" else 2.01)


@pytest.mark.parametrize("shape", [(60, 80), (80, 60), (20, 30), (32, 32), (500, 33)])
def test_evaluation_gives_a_uint8_square(shape: tuple[int, int]) -> None:
    crop = SMALL(noise(*shape))
    assert (crop.dtype, crop.shape) == (torch.uint8, (3, 32, 32))


def test_evaluation_crops_the_centre_of_the_shorter_side() -> None:
    image = torch.zeros(3, 40, 100, dtype=torch.uint8)
    image[:, :, 34:66] = 255
    assert SMALL(image).min() == 255


def test_exact_resize_changes_the_aspect_ratio() -> None:
    crop = EvaluationTransform(resize=(32, 32), crop=32)(ramp())
    assert crop.shape == (3, 32, 32)
    assert crop[0, 0, 0] < 10
    assert crop[0, 0, -1] > 245


def test_exact_resize_is_height_then_width() -> None:
    image = torch.zeros(3, 32, 64, dtype=torch.uint8)
    image[:, 8:24, 16:48] = 255
    assert EvaluationTransform(resize=(64, 128), crop=30)(image).min() == 255
    assert EvaluationTransform(resize=(128, 64), crop=40)(image).min() == 0


@pytest.mark.parametrize("size", [40, (40, 50)])
@pytest.mark.parametrize("shape", [(1, 10**6), (10**6, 1), (3, 300_000), (300_000, 3)])
def test_a_line_of_a_million_pixels_takes_little_memory(shape: tuple[int, int], size: Any) -> None:
    image = torch.full((3, *shape), 90, dtype=torch.uint8)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    crop = EvaluationTransform(size, 32)(image)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000  # KiB
    assert crop.shape == (3, 32, 32)
    assert (crop == 90).all()


@pytest.mark.parametrize("size", [32, 64])
@pytest.mark.parametrize("length", [700, 701])
def test_of_a_long_image_the_same_centre_is_seen(length: int, size: int) -> None:
    """Its long side is cut before it is resized, not afterwards, which makes no difference."""
    transform = EvaluationTransform(40, size)
    for image in (noise(4, length), noise(length, 4)):
        resized = resize(image, [40], InterpolationMode.BILINEAR, antialias=True)
        assert torch.equal(transform(image), center_crop(resized, [size, size]))


def test_a_long_image_is_resized_exactly_as_well_in_two_steps() -> None:
    for image in (ramp(20, 2000), ramp(20, 2000).mT):
        theirs = resize(image, [40, 50], InterpolationMode.BILINEAR, antialias=True)
        ours = EvaluationTransform((40, 50), 40)(image)
        assert (ours.int() - center_crop(theirs, [40, 40])).abs().max() <= 1


# ---- options


@pytest.mark.parametrize(
    ("start", "options", "resize", "crop"),
    [
        ((256, 224), {}, 256, 224),
        ((256, 224), {"image_size": 112}, 128, 112),
        ((232, 224), {"image_size": 64}, 66, 64),
        ((224, 224), {"image_size": 32}, 32, 32),
        ((256, 224), {"resize": 300}, 300, 224),
        ((256, 224), {"resize": [256, 240]}, (256, 240), 224),
        ((256, 224), {"image_size": 64, "resize": 64}, 64, 64),
        (((256, 240), 224), {}, (256, 240), 224),
        (((256, 240), 224), {"image_size": 112}, (128, 120), 112),
        (((256, 256), 224), {"image_size": 448}, (512, 512), 448),
        (((256, 256), 224), {"image_size": 64, "resize": [64, 80]}, (64, 80), 64),
    ],
)
def test_options_override_size_and_resize(start: Any, options: dict[str, Any], resize: Any, crop: int) -> None:
    changed = EvaluationTransform(*start, interpolation="bicubic", mean=(0.5,) * 3).with_options(
        DatasetConfig(**options)
    )
    assert changed == EvaluationTransform(resize, crop, "bicubic", mean=(0.5,) * 3)


@pytest.mark.parametrize(
    ("start", "options", "resize", "crop"),
    [
        ((384, 384), {"resize": [256, 300]}, "(256, 300)", 384),
        ((256, 224), {"resize": 223}, "223", 224),
        ((256, 224), {"image_size": 384, "resize": 256}, "256", 384),
        ((256, 224), {"image_size": 384, "resize": [256, 256]}, "(256, 256)", 384),
    ],
)
def test_a_resize_that_leaves_borders_is_refused(start: Any, options: dict[str, Any], resize: str, crop: int) -> None:
    with pytest.raises(ThawError) as caught:
        EvaluationTransform(*start).with_options(DatasetConfig(**options))
    assert str(caught.value).startswith(f"dataset.resize must be at least the crop's {crop} pixels, ")
    assert f"; got {resize}. Set dataset.resize={crop} or more, or dataset.image_size=2" in str(caught.value)


@pytest.mark.parametrize("resize", [40, (40, 50)])
def test_survives_json(resize: Any) -> None:
    transform = EvaluationTransform(resize, 32, "bicubic", mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6))
    assert EvaluationTransform.from_dict(json.loads(json.dumps(asdict(transform)))) == transform


# ---- training


@pytest.mark.parametrize("shape", [(60, 80), (20, 300), (8, 8)])
@pytest.mark.parametrize("policy", POLICIES)
def test_training_gives_a_uint8_square(policy: str, shape: tuple[int, int]) -> None:
    for seed in range(20):
        image = augmented(AugmentConfig(policy=policy, erasing=0.5), seed, noise(*shape))
        assert (image.dtype, image.shape) == (torch.uint8, (3, 32, 32))


@pytest.mark.parametrize("policy", POLICIES)
def test_training_is_a_function_of_the_seed(policy: str) -> None:
    options = AugmentConfig(policy=policy, erasing=0.5)
    first, again, other = (augmented(options, seed) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert torch.equal(first, other) == (policy == "none")


def test_policy_none_is_the_evaluation_transform() -> None:
    options = AugmentConfig(policy="none", flip=1.0, vertical_flip=1.0, degrees=180, erasing=1.0)
    assert torch.equal(augmented(options), SMALL(noise()))


@pytest.mark.parametrize(
    "policy",
    ["none", "default", "trivial", "rand", "color"],
)
def test_training_for_a_backbone_with_bicubic_resize(policy: str) -> None:
    """EfficientNet, Swin and others: `interpolation` of their weights is bicubic."""
    transform = training_transform(AugmentConfig(policy=policy), EvaluationTransform(40, 32, "bicubic"))
    for seed in range(40):
        torch.manual_seed(seed)
        assert transform(noise()).shape == (3, 32, 32)


def test_crop_takes_the_given_share_in_the_given_ratio() -> None:
    options = AugmentConfig(crop_scale=[0.25, 0.25], crop_ratio=[1.0, 1.0], flip=0)
    rise = [(image[..., -1].float() - image[..., 0].float()).mean() for image in augmented_ramps(options)]
    assert torch.stack(rise).div(255).mean() == pytest.approx(0.5, abs=0.03)


@pytest.mark.parametrize("num_epochs", [1, 2, 3, 5, 8, 25, 100])
def test_crops_rest_at_their_start_then_grow_and_end_at_full_size(num_epochs: int) -> None:
    sides = growing_sides(128, 224, num_epochs)
    assert len(sides) == num_epochs
    assert sides == sorted(sides)
    assert {side % 16 for side in sides} == {0}
    assert set(sides[: num_epochs // 2]) <= {128}
    assert set(sides[-max(1, num_epochs // 5) :]) == {224}
    assert num_epochs < 8 or len({*sides}) > 2


def test_crops_grow_to_a_size_that_is_no_step() -> None:
    assert growing_sides(64, 100, 10) == [64] * 7 + [80, 100, 100]


@pytest.mark.parametrize(("flip", "expected"), [(0.0, 0), (1.0, 100), (0.5, 50)])
def test_flip_is_as_often_as_asked_for(flip: float, expected: int) -> None:
    flipped = sum(bool(image[0, 0, 0] > image[0, 0, -1]) for image in augmented_ramps(AugmentConfig(flip=flip)))
    assert flipped == pytest.approx(expected, abs=15)


@pytest.mark.parametrize(("flip", "expected"), [(0.0, 0), (1.0, 100), (0.5, 50)])
def test_vertical_flip_is_as_often_as_asked_for(flip: float, expected: int) -> None:
    options, image = AugmentConfig(vertical_flip=flip), ramp(64, 64).mT
    images = [augmented(options, seed, image) for seed in range(100)]
    assert sum(bool(image[0, 0, 0] > image[0, -1, 0]) for image in images) == pytest.approx(expected, abs=15)


@pytest.mark.parametrize("degrees", [0, 30, 180])
def test_images_are_turned_both_ways_and_at_most_so_far(degrees: float) -> None:
    options = AugmentConfig(crop_scale=[1.0, 1.0], crop_ratio=[1.0, 1.0], flip=0, degrees=degrees)
    angles = torch.tensor([brightening(image) for image in augmented_ramps(options)])
    assert angles.abs().max() <= degrees + 0.5
    assert angles.max() - angles.min() >= 1.8 * degrees


def brightening(image: Tensor) -> float:
    """Degrees, clockwise from the right, of the direction in which the middle of an image becomes brighter."""
    middle = image[0, 8:-8, 8:-8].float()
    down, right = (middle.diff(dim=axis).mean().item() for axis in (0, 1))
    return math.degrees(math.atan2(down, right))


def test_what_turning_lays_bare_has_the_mean_colour_and_is_mostly_cut_off() -> None:
    white = torch.full((3, 64, 64), 255, dtype=torch.uint8)
    images = torch.stack([augmented(AugmentConfig(degrees=45), seed, white) for seed in range(100)])
    bare, kept = (
        (images == torch.tensor(colour).view(3, 1, 1)).all(dim=1).float().mean()
        for colour in ([124, 116, 104], [255, 255, 255])
    )
    assert 0.005 < bare < 0.05  # if crops were turned, it would be 0.11
    assert bare + kept > 0.95  # but for the edge between them


def augmented_ramps(options: AugmentConfig) -> list[Tensor]:
    return [augmented(options, seed, ramp(64, 64)) for seed in range(100)]


def test_erasing_paints_with_the_mean_colour() -> None:
    white = torch.full((3, 60, 80), 255, dtype=torch.uint8)
    colours = augmented(AugmentConfig(erasing=1.0), image=white).flatten(1).T.unique(dim=0).tolist()
    assert colours == [[124, 116, 104], [255, 255, 255]]


def test_colour_policy_keeps_the_shapes() -> None:
    grey = torch.full((3, 60, 80), 100, dtype=torch.uint8)
    images = [augmented(AugmentConfig(policy="color"), seed, grey) for seed in range(10)]
    assert all(image.flatten(1).unique(dim=1).shape[1] == 1 for image in images)
    assert len({int(image[0, 0, 0]) for image in images}) > 5


def test_mirrored() -> None:
    assert torch.equal(Mirrored(SMALL, (-1,))(noise()), SMALL(noise()).flip(-1))
    assert torch.equal(Mirrored(SMALL, (-2, -1))(noise()), SMALL(noise()).flip(1).flip(2))


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_image_is_left_as_it_was(interpolation: str) -> None:
    image = noise()
    for policy in ("none", "default", "color"):
        training_transform(AugmentConfig(policy=policy, erasing=1.0), EvaluationTransform(60, 32, interpolation))(image)
    assert torch.equal(image, noise())


# ---- mixing


def test_no_mixing_by_default() -> None:
    assert mixing_transform(AugmentConfig(), 3) is None


@pytest.mark.parametrize("options", [{"mixup": 0.4}, {"cutmix": 1.0}, {"mixup": 0.4, "cutmix": 1.0}])
def test_mixing_keeps_images_and_targets_in_step(options: dict[str, float]) -> None:
    """Each image is filled with its label, so that its mean is what its mixed target must be."""
    labels = torch.tensor([0, 1, 1, 0])
    mix = mixing_transform(AugmentConfig(**options), 2)
    assert mix is not None
    torch.manual_seed(0)
    for _ in range(10):
        images, targets = mix(labels.float().view(4, 1, 1, 1).expand(4, 3, 16, 16), labels)
        assert targets.shape == (4, 2)
        torch.testing.assert_close(targets.sum(dim=1), torch.ones(4))
        torch.testing.assert_close(images.mean(dim=(1, 2, 3)), targets[:, 1])


def test_both_mixings_take_turns() -> None:
    mix = mixing_transform(AugmentConfig(mixup=1.0, cutmix=1.0), 2)
    assert mix is not None
    torch.manual_seed(0)
    labels = torch.tensor([0, 1])
    batches = [mix(labels.float().view(2, 1, 1, 1).expand(2, 3, 16, 16), labels)[0] for _ in range(40)]
    only_black_and_white = sum(bool(((images == 0) | (images == 1)).all()) for images in batches)
    assert 10 < only_black_and_white < 30


# ---- the user's own


def further(**recipe: Any) -> dict[str, Any]:
    return {"own": {"_target_": "torchvision.transforms.v2.RandomSolarize", "threshold": 100} | recipe}


@pytest.mark.parametrize("policy", ["none", "default", "trivial"])
def test_a_transform_of_ones_own_comes_after_those_of_the_policy(policy: str) -> None:
    plain = augmented(AugmentConfig(policy=policy))
    solarized = augmented(AugmentConfig(policy=policy, transforms=further(p=1.0)))
    assert torch.equal(solarized, torch.where(plain >= 100, 255 - plain, plain))


def test_a_transform_of_ones_own_leaves_evaluation_and_what_is_drawn_later_as_they_are() -> None:
    torch.manual_seed(0)
    training_transform(AugmentConfig(transforms=further()), SMALL)
    drawn = torch.rand(1)
    torch.manual_seed(0)
    assert torch.equal(drawn, torch.rand(1))


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        ({"_target_": "torchvision.transforms.v2.Nothing"}, "cannot be made: .*Nothing"),
        ({"size": 3}, "cannot be made: .*size"),
        ({"_target_": "torchvision.transforms.v2.Resize", "size": 8, "threshold": None}, "cannot be made"),
        ({"_target_": "torch.nn.Flatten", "threshold": None}, "cannot be made"),
    ],
)
def test_a_transform_that_cannot_be_made_is_named(recipe: dict[str, Any], message: str) -> None:
    with pytest.raises(ThawError, match=f"augment.transforms.own {message}"):
        training_transform(AugmentConfig(transforms=further(**recipe)), SMALL)


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        ({"_target_": "torchvision.transforms.v2.Resize", "size": 8}, r"must make \(3, 32, 32\) .*, got \(3, 8, 8\)"),
        ({"_target_": "torchvision.transforms.v2.ToPILImage"}, "must make .*, got Image"),
        ({"_target_": "torch.nn.Linear", "in_features": 32, "out_features": 32}, "fails on an image: "),
        ({"size": 8}, r"must be \{_target_: MODULE.CLASS, …\}, got \{'size': 8\}"),
        ("blur", r"must be \{_target_: MODULE.CLASS, …\}, got 'blur'"),
    ],
)
def test_a_transform_of_something_else_than_images_is_refused(recipe: Any, message: str) -> None:
    with pytest.raises(ThawError, match=f"augment.transforms.own {message}"):
        training_transform(AugmentConfig(transforms={"own": recipe}), SMALL)
