from functools import partial

import pytest
import torch
from torch import Tensor, nn
from torchvision.transforms.v2.functional import rgb_to_grayscale

from thaw.data.transforms import EvaluationTransform
from thaw.errors import ThawError
from thaw.inspection.grad_cam import as_map, find_spatial_layer, grad_cam, overlay
from thaw.model.classifier import Classifier

RED, BLUE = torch.tensor([255, 0, 0]), torch.tensor([0, 0, 255])


def make_classifier(backbone: str, size: int = 64) -> Classifier:
    torch.manual_seed(0)
    return Classifier(backbone, "abcdefgh", EvaluationTransform(resize=size, crop=size)).eval()


def make_images(number: int, size: int = 64) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (number, 3, size, size), dtype=torch.uint8, generator=generator)


def quadrants() -> Tensor:
    """A black image (3, 64, 64) whose top left quarter is red and whose bottom right quarter is blue."""
    image = torch.zeros(3, 64, 64, dtype=torch.uint8)
    image[:, :32, :32] = RED[:, None, None]
    image[:, 32:, 32:] = BLUE[:, None, None]
    return image


@pytest.fixture
def colour_classifier() -> Classifier:
    """Class 0 is red, class 1 is blue, wherever in the image; the layer before the mean has 8 x 8 places."""
    model = make_classifier("squeezenet1_1")
    convolution = nn.Conv2d(3, 2, 8, stride=8)
    nn.init.zeros_(convolution.weight)
    nn.init.constant_(convolution.bias, -1.5 * 64)
    with torch.no_grad():
        convolution.weight[0, 0] = convolution.weight[1, 2] = 1.0
    model.backbone.network = nn.Sequential(convolution, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    model.head = nn.Sequential(nn.Linear(2, 2, bias=False))
    nn.init.eye_(model.head[0].weight)
    return model.freeze()


def test_the_heat_is_where_the_class_is(colour_classifier: Classifier) -> None:
    red, blue = grad_cam(colour_classifier, quadrants().expand(2, -1, -1, -1), torch.tensor([0, 1]))
    assert red[:28, :28].min() > 0.99
    assert red[36:].max() == red[:, 36:].max() == 0
    assert blue[36:, 36:].min() > 0.99
    assert blue[:28].max() == blue[:, :28].max() == 0


def test_each_image_has_its_own_scale(colour_classifier: Classifier) -> None:
    image = torch.zeros(3, 64, 64, dtype=torch.uint8)
    image[:, :32, :32] = RED[:, None, None]
    faint, black = image * 0.95, image * 0
    heat = grad_cam(colour_classifier, torch.stack([image, faint.byte(), black]), torch.tensor([0, 0, 0]))
    assert heat[:2].amax(dim=(1, 2)).tolist() == [1, 1]
    assert heat[2].count_nonzero() == 0


def test_what_speaks_for_all_classes_alike_leaves_no_heat(colour_classifier: Classifier) -> None:
    images = quadrants()[None]
    before = grad_cam(colour_classifier, images, torch.tensor([0]))
    colour_classifier.head[0].weight.data += torch.tensor([3.0, 5.0])
    assert before.std() > 0.1
    assert torch.allclose(grad_cam(colour_classifier, images, torch.tensor([0])), before, atol=1e-4)


@pytest.mark.parametrize(
    ("backbone", "layer"),
    [
        ("resnet18", "layer4"),
        ("squeezenet1_1", "classifier.2"),
        ("efficientnet_b0", "features"),
        pytest.param("convnext_tiny", "features", marks=pytest.mark.slow),
        ("densenet121", "features"),  # changes what this module returns in place
        pytest.param("swin_t", "permute", marks=pytest.mark.slow),
        pytest.param("vit_b_32", "encoder.layers.encoder_layer_11.ln_1", marks=pytest.mark.slow),
    ],
)
def test_any_family_has_heat_maps(backbone: str, layer: str) -> None:
    model = make_classifier(backbone).freeze()
    names = {id(module): name for name, module in model.backbone.network.named_modules()}
    images = make_images(2)
    assert names[id(find_spatial_layer(model, images[:1]))] == layer
    heat = grad_cam(model, images.repeat_interleave(4, dim=0), torch.arange(8))
    assert heat.shape == (8, 64, 64)
    assert heat.isfinite().all()
    # Random weights may speak against a class everywhere, but not against every class.
    assert set(heat.amax(dim=(1, 2)).tolist()) <= {0.0, 1.0}
    assert heat.std(dim=(1, 2)).max() > 0.05


def test_frozen_or_not_the_map_is_the_same() -> None:
    model, images = make_classifier("resnet18"), make_images(2)
    find = partial(grad_cam, model, images, torch.tensor([0, 1]))
    thawed = find()
    model.freeze()
    assert torch.equal(find(), thawed)


def test_the_model_is_left_as_it_was() -> None:
    model, images = make_classifier("resnet18"), make_images(2)
    model.freeze_to(3).train()
    modes = [module.training for module in model.modules()]
    learns = [parameter.requires_grad for parameter in model.parameters()]
    values = {name: value.clone() for name, value in model.state_dict().items()}
    with torch.no_grad():
        grad_cam(model, images, torch.tensor([0, 1]))
        assert not torch.is_grad_enabled()
    assert [module.training for module in model.modules()] == modes
    assert [parameter.requires_grad for parameter in model.parameters()] == learns
    assert all(parameter.grad is None for parameter in model.parameters())
    assert not any(module._forward_hooks for module in model.modules())
    assert all(torch.equal(value, values[name]) for name, value in model.state_dict().items())


def test_a_network_without_a_spatial_stage_is_named() -> None:
    model = make_classifier("resnet18")
    model.backbone.network = nn.Sequential(nn.Flatten(), nn.LazyLinear(512))
    with pytest.raises(ThawError, match="backbone=resnet18 has no spatial last stage at 64 x 64 pixels"):
        grad_cam(model, make_images(1), torch.tensor([0]))


@pytest.mark.slow
def test_swin_has_none_where_its_last_map_is_one_pixel() -> None:
    with pytest.raises(ThawError, match="backbone=swin_t has no spatial last stage at 32 x 32 pixels"):
        grad_cam(make_classifier("swin_t", 32), make_images(1, 32), torch.tensor([0]))


def test_tokens_are_laid_out_as_their_patches() -> None:
    patches = torch.arange(6 * 2).view(1, 2, 2, 3)[..., :2]  # one image, two channels, 2 x 2 places
    tokens = torch.cat([torch.full((1, 1, 2), -1), patches.flatten(2).transpose(1, 2)], dim=1)
    assert torch.equal(as_map(tokens), patches)
    assert torch.equal(as_map(patches), patches)


def test_the_overlay_has_colour_where_it_is_hot() -> None:
    image, heat = make_images(1)[0], torch.zeros(64, 64)
    heat[:32] = 1
    warm, cold = overlay(image, heat).split(32, dim=1)
    assert (warm.shape, warm.dtype) == ((3, 32, 64), torch.uint8)
    assert (warm[:2].float().mean() - warm[2].float().mean()) > 50  # yellow
    assert torch.equal(cold, rgb_to_grayscale(image[:, 32:], num_output_channels=3))
