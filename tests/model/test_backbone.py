import subprocess
import sys
from collections import Counter
from collections.abc import Iterable
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import pytest
import torch
import torchvision
from torch import Tensor, nn

from thaw.backbone_names import BACKBONE_NAMES
from thaw.errors import ThawError
from thaw.model.backbone import Backbone

IMAGE_SIZE = 224


@dataclass
class Built:
    """A backbone without memory, and what happened as two images passed through it.

    Attributes:
        backbone: Its weights are on the meta device.
        features: What it gave.
        visited: The stage of each layer, in the order in which the layers were called.
    """

    backbone: Backbone
    features: Tensor
    visited: list[int]


@pytest.fixture(scope="module", params=BACKBONE_NAMES)
def built(request: pytest.FixtureRequest, empty_on_meta: Any) -> Built:
    with empty_on_meta():
        backbone = Backbone(request.param, IMAGE_SIZE)
    visited: list[int] = []
    runnable = deepcopy(backbone).to("meta").eval()
    for index, stage in enumerate(runnable.stages):
        for module in stage.modules:
            module.register_forward_pre_hook(lambda *_, index=index: visited.append(index))
    features = runnable(torch.empty(2, 3, IMAGE_SIZE, IMAGE_SIZE, device="meta"))
    return Built(backbone, features, visited)


def images(image_size: int = 64) -> Tensor:
    return torch.randn(2, 3, image_size, image_size, generator=torch.Generator().manual_seed(0))


# ---- names


def test_names_are_those_of_torchvision() -> None:
    assert list(BACKBONE_NAMES) == torchvision.models.list_models(module=torchvision.models)


def test_options_are_checked_without_torch() -> None:
    code = "import sys, thaw.config; print({'torch', 'torchvision', 'lightning'} & set(sys.modules))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "set()"


# ---- every classifier of torchvision


def test_features_have_the_promised_width(built: Built) -> None:
    assert built.features.shape == (2, built.backbone.num_features)


def head_of(own: Iterable[str], official: Iterable[str]) -> str:
    """Name of the one module whose tensors only torchvision's network has, beside auxiliary heads."""
    missing = set(official) - set(own)
    (head,) = {key.rpartition(".")[0] for key in missing if not key.startswith(("aux", "AuxLogits"))}
    return head


def test_only_the_head_is_missing(built: Built, empty_on_meta: Any) -> None:
    name = built.backbone.name
    options = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
    with empty_on_meta():
        official = torchvision.models.get_model(name, weights=None, **options).state_dict()
    own = list(built.backbone.network.state_dict())
    head = head_of(own, official)
    assert own == [key for key in official if not key.startswith((f"{head}.", "aux", "AuxLogits"))]
    assert official[f"{head}.weight"].shape[:2] == (1000, built.backbone.num_features)


def test_every_parameter_is_in_exactly_one_stage(built: Built) -> None:
    staged = Counter(id(parameter) for stage in built.backbone.stages for parameter in stage.parameters())
    assert staged == Counter(id(parameter) for parameter in built.backbone.parameters())


def test_every_stage_has_a_weight(built: Built) -> None:
    for stage in built.backbone.stages:
        assert any(parameter.ndim >= 2 for parameter in stage.parameters())


def test_images_pass_the_stages_in_their_order(built: Built) -> None:
    assert built.visited == sorted(built.visited)
    assert set(built.visited) == set(range(len(built.backbone.stages)))


def test_number_of_stages(built: Built) -> None:
    assert 7 <= len(built.backbone.stages) <= 81


@pytest.mark.parametrize(
    ("name", "num_stages"),
    [
        ("resnet18", 9),
        ("squeezenet1_0", 9),
        ("efficientnet_v2_l", 81),
        ("alexnet", 7),
        ("convnext_tiny", 22),
        ("vit_b_16", 13),
        ("densenet121", 8),
    ],
)
def test_number_of_stages_of_a_family(name: str, num_stages: int, empty_on_meta: Any) -> None:
    with empty_on_meta():
        assert len(Backbone(name, IMAGE_SIZE).stages) == num_stages


# ---- what it computes


@pytest.mark.parametrize(
    "name", ["densenet121", "mnasnet0_5", "mobilenet_v3_small", "regnet_y_400mf", "resnet18", "shufflenet_v2_x0_5"]
)
def test_torchvisions_head_on_the_features_gives_torchvisions_logits(name: str) -> None:
    official = torchvision.models.get_model(name, weights=None).eval()
    backbone = Backbone(name, 64).eval()
    official_state = official.state_dict()
    for key, tensor in backbone.network.state_dict().items():
        tensor.copy_(official_state[key])
    with torch.no_grad():
        head = official.get_submodule(head_of(backbone.network.state_dict(), official_state))
        assert torch.equal(head(backbone(images())), official(images()))


def test_squeezenet_gives_the_mean_of_its_last_map() -> None:
    backbone = Backbone("squeezenet1_1", 64).eval()
    with torch.no_grad():
        last_map = backbone.network.get_submodule("features")(images())
        torch.testing.assert_close(backbone(images()), last_map.mean(dim=(2, 3)))


@pytest.mark.parametrize("name", ["googlenet", "inception_v3"])
def test_no_auxiliary_logits_in_training(name: str, empty_on_meta: Any) -> None:
    with empty_on_meta():
        backbone = Backbone(name, 96).to("meta").train()
    features = backbone(torch.empty(2, 3, 96, 96, device="meta"))
    assert isinstance(features, Tensor)
    assert features.shape == (2, backbone.num_features)


@pytest.mark.parametrize(
    ("name", "image_size"), [("vit_b_32", 64), ("vit_b_16", 384), ("maxvit_t", 448), ("swin_t", 96), ("resnet18", 33)]
)
def test_other_image_size(name: str, image_size: int, empty_on_meta: Any) -> None:
    with empty_on_meta():
        backbone = Backbone(name, image_size).to("meta").eval()
    features = backbone(torch.empty(2, 3, image_size, image_size, device="meta"))
    assert features.shape == (2, backbone.num_features)


@pytest.mark.parametrize(
    ("name", "image_size"),
    [
        ("vit_b_32", 100),
        ("maxvit_t", 100),
        ("squeezenet1_1", 16),
        ("densenet121", 16),
    ],
)
def test_unsuitable_image_size(name: str, image_size: int) -> None:
    with pytest.raises(
        ThawError, match=rf"^dataset\.image_size={image_size} does not suit backbone={name}: .*[^.!]\.$"
    ):
        Backbone(name, image_size)


@pytest.mark.parametrize(("name", "size"), [("vit_b_32", 160), ("squeezenet1_1", 16)])
def test_unsuitable_size_of_crops_that_grow(name: str, size: int) -> None:
    backbone = Backbone(name, 224)
    with pytest.raises(ThawError, match=rf"^augment\.start_size={size} does not suit backbone={name}: .*[^.!]\.$"):
        backbone.require_size(size, "augment.start_size")
    assert backbone.training


# ---- stages


def test_weights_that_averaging_has_saved_are_read() -> None:
    backbone = Backbone("mnasnet0_5", 64)
    backbone.load_state_dict(dict(backbone.state_dict()))  # without the metadata of torch's


def test_first_stage_holds_loose_parameters(empty_on_meta: Any) -> None:
    with empty_on_meta():
        backbone = Backbone("vit_b_32", 64)
    network = backbone.network
    loose = [network.get_parameter("class_token"), network.get_parameter("encoder.pos_embedding")]
    assert {id(parameter) for parameter in backbone.stages[0].loose} == {id(parameter) for parameter in loose}
    assert not any(stage.loose for stage in backbone.stages[1:])


def test_norms_join_the_layer_before_them() -> None:
    backbone = Backbone("resnet18", 64)
    network = backbone.network
    assert backbone.stages[0].modules[:2] == [network.get_submodule("conv1"), network.get_submodule("bn1")]
    assert backbone.stages[1].modules == [network.get_submodule("layer1.0")]


@pytest.mark.parametrize("name", ["alexnet", "vgg11"])
def test_hidden_layers_of_the_classifier_are_the_last_stages(name: str, empty_on_meta: Any) -> None:
    with empty_on_meta():
        last, before = reversed(Backbone(name, IMAGE_SIZE).stages[-2:])
    for stage in (before, last):
        assert sum(isinstance(module, nn.Linear) for module in stage.modules) == 1


def test_stage_is_frozen_only_if_nothing_in_it_learns() -> None:
    stage = Backbone("squeezenet1_1", 32).stages[1]
    parameters = list(stage.parameters())
    assert not stage.is_frozen
    for parameter in parameters[1:]:
        parameter.requires_grad_(False)
    assert not stage.is_frozen
    parameters[0].requires_grad_(False)
    assert stage.is_frozen
