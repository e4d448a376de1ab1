import re
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from test_weights import NAME, ONTO_META, TRANSFORM, State, cached, holds, official
from torch import nn

from thaw.backbone_names import BACKBONE_NAMES
from thaw.errors import ThawError
from thaw.model.backbone import Backbone
from thaw.model.loading import load_weights
from thaw.model.weights import Weights, find_weights

# The networks by torchvision's model files, and one of each.
MODULES: dict[str, list[str]] = {}
for name in BACKBONE_NAMES:
    MODULES.setdefault(torchvision.models.get_model_builder(name).__module__.rpartition(".")[2], []).append(name)
FAMILIES = [names[0] for names in MODULES.values()]


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_takes_torchvisions_own_tensors(name: str, empty_on_meta: Any) -> None:
    options = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
    with empty_on_meta():
        backbone = Backbone(name, 224)
        theirs = torchvision.models.get_model(name, weights=None, **options)
    num_tensors = len(backbone.network.state_dict())
    line = load_weights(backbone, Weights("theirs", theirs.state_dict(), TRANSFORM))
    assert f"{num_tensors} of {num_tensors} tensors loaded; left out: " in line
    assert "missing" not in line


# ---- the report


def test_head_is_left_out_by_name(state: State, backbone: Backbone) -> None:
    line = load_weights(backbone, Weights("a file", state, TRANSFORM))
    assert line == "Weights: a file; 50 of 50 tensors loaded; left out: classifier.1.weight, classifier.1.bias"


def test_hidden_layers_of_a_head_that_was_replaced_are_named_and_stay_random(empty_on_meta: Any) -> None:
    with empty_on_meta():
        backbone = Backbone("mobilenet_v3_small", 224)
    state = {name: value for name, value in backbone.network.state_dict().items() if "classifier" not in name}
    state["classifier.weight"], state["classifier.bias"] = torch.zeros(2, 576), torch.zeros(2)
    assert load_weights(backbone, Weights("a file", state, TRANSFORM)).endswith(
        " tensors loaded; left out: classifier.weight, classifier.bias; "
        "missing, so random: classifier.0.weight, classifier.0.bias"
    )


@pytest.mark.parametrize(
    "head", ["classifier.1.0", "classifier.1.3", "classifier", "head", "heads.head", "AuxLogits.fc"]
)
def test_heads_of_other_names_and_widths_are_left_out(head: str, state: State, backbone: Backbone) -> None:
    for name in ("classifier.1.weight", "classifier.1.bias"):
        del state[name]
    state |= {f"{head}.weight": torch.zeros(7, 512), f"{head}.bias": torch.zeros(7)}
    line = load_weights(backbone, Weights("a file", state, TRANSFORM))
    assert line == f"Weights: a file; 50 of 50 tensors loaded; left out: {head}.weight, {head}.bias"


def test_many_names_are_cut_short(state: State, backbone: Backbone) -> None:
    more = {f"aux.{number}": torch.zeros(1) for number in range(8)}
    line = load_weights(backbone, Weights("a file", more | state, TRANSFORM))
    left_out = line.partition("left out: ")[2]
    assert left_out.count(",") == 5
    assert left_out.endswith(" and 4 more")


def test_counters_and_buffers_may_be_missing_or_more(empty_on_meta: Any) -> None:
    """Files of before 2019 count no batches; profilers leave their own counters behind."""
    with empty_on_meta():
        backbone = Backbone("resnet18", 64)
    state = {name: value for name, value in backbone.network.state_dict().items() if "num_batches" not in name}
    line = load_weights(backbone, Weights("a file", {**state, "layer1.0.conv1.total_ops": torch.zeros(1)}, TRANSFORM))
    assert line == "Weights: a file; 100 of 120 tensors loaded; left out: layer1.0.conv1.total_ops"


def test_a_file_that_lacks_a_tensor_is_refused_and_changes_nothing(state: State, backbone: Backbone) -> None:
    before = {name: tensor.clone() for name, tensor in backbone.network.state_dict().items()}
    del state["features.0.weight"]
    state["features.3.squeeze.weight"] = torch.zeros(1, 2, 3, 4)
    with pytest.raises(
        ThawError,
        match=r"does not fit backbone=squeezenet1_1: a file has 48 of its 50 tensors; missing, or of "
        r"another shape: features\.0\.weight, features\.3\.squeeze\.weight\. Is it the file of another network\?",
    ):
        load_weights(backbone, Weights("a file", state, TRANSFORM))
    assert holds(backbone, before)


def test_a_run_of_another_network_is_told_to_be_one(state: State, backbone: Backbone) -> None:
    del state["features.0.weight"]
    with pytest.raises(ThawError, match=r" It is of squeezenet1_0: set backbone=squeezenet1_0\.$"):
        load_weights(backbone, Weights("outputs/run", state, TRANSFORM, backbone="squeezenet1_0"))


def test_a_file_of_a_deeper_network_is_refused_by_name(empty_on_meta: Any) -> None:
    with empty_on_meta():
        backbone, deeper = Backbone("resnet18", 64), Backbone("resnet34", 64)
    with pytest.raises(
        ThawError,
        match=r"does not fit backbone=resnet18: a file has 96 tensors of further layers: layer1\.2\.conv1\.weight, .*"
        r" and 93 more\. Is it the file of another network\?",
    ):
        load_weights(backbone, Weights("a file", deeper.network.state_dict(), TRANSFORM))


SIBLINGS = [
    ("convnext_small", "convnext_tiny"), ("densenet121", "densenet169"), ("efficientnet_b0", "efficientnet_b1"),
    ("resnet50", "resnet101"), ("resnet34", "resnet18"), ("resnext50_32x4d", "wide_resnet50_2"), ("swin_s", "swin_t"),
    ("swin_v2_s", "swin_v2_t"), ("vgg16", "vgg19"), ("vit_b_16", "vit_b_32"),
]  # fmt: skip


@pytest.mark.parametrize("names", SIBLINGS, ids="-".join)
def test_siblings_are_other_networks(names: tuple[str, str], empty_on_meta: Any) -> None:
    with empty_on_meta():
        siblings = [Backbone(name, 224) for name in names]
    for backbone, other in (siblings, siblings[::-1]):
        with pytest.raises(ThawError, match=f"does not fit backbone={backbone.name}"):
            load_weights(backbone, Weights(other.name, other.network.state_dict(), TRANSFORM))


@ONTO_META
@pytest.mark.slow
@pytest.mark.parametrize("family", sorted(MODULES))
def test_of_a_family_each_network_takes_its_own_file_and_no_other(family: str, empty_on_meta: Any) -> None:
    with empty_on_meta():
        backbones = [Backbone(name, 224) for name in MODULES[family]]
        files = [Weights(each.name, each.network.state_dict(), TRANSFORM) for each in backbones]
        for backbone in backbones:
            fitting = []
            for file in files:
                with suppress(ThawError):
                    load_weights(backbone, file)
                    fitting.append(file.source)
            assert fitting == [backbone.name]


def test_file_of_another_network_is_refused(tmp_path: Path, state: State, empty_on_meta: Any) -> None:
    torch.save(state, tmp_path / "squeezenet.pth")
    with empty_on_meta():
        resnet = Backbone("resnet18", 64)
    with pytest.raises(ThawError, match=r"backbone=resnet18: squeezenet\.pth has 0 of its 120 tensors"):
        load_weights(resnet, find_weights("resnet18", str(tmp_path / "squeezenet.pth")))


@pytest.mark.parametrize("bad", [float("nan"), float("-inf")])
def test_weights_that_are_no_numbers_are_refused_by_name(
    tmp_path: Path, state: State, backbone: Backbone, bad: float
) -> None:
    name = "features.3.squeeze.weight"
    broken = state[name].clone()
    broken[0, 0] = bad
    torch.save({**state, name: broken}, tmp_path / "a.pth")
    with pytest.raises(ThawError, match=r"a\.pth has values that are infinite or no number, in features\.3\.squeeze"):
        load_weights(backbone, find_weights(NAME, str(tmp_path / "a.pth")))


# ---- networks with something of their own


@ONTO_META
@pytest.mark.parametrize("name", ["googlenet", "inception_v3"])
def test_official_googlenet_undoes_the_normalisation_itself(name: str, hub: Path, empty_on_meta: Any) -> None:
    with empty_on_meta():
        backbone = Backbone(name, 96)
    assert backbone.network.transform_input is False
    own = backbone.network.state_dict()
    torch.save({key: torch.zeros(()).expand(tensor.shape) for key, tensor in own.items()}, cached(hub, official(name)))
    weights = find_weights(name, "default")
    load_weights(backbone, weights)
    assert backbone.network.transform_input is True
    load_weights(backbone, replace(weights, transform_input=False))
    assert backbone.network.transform_input is False


@ONTO_META
def test_position_embedding_is_interpolated(empty_on_meta: Any) -> None:
    """From 7x7 to 2x2 patches the corners are what interpolation keeps."""
    with empty_on_meta():
        backbone = Backbone("vit_b_32", 64)
    encoder = backbone.network.get_submodule("encoder")
    encoder.pos_embedding = nn.Parameter(torch.zeros(1, 5, 768))
    state = dict(backbone.network.state_dict())
    state["encoder.pos_embedding"] = embedding = torch.randn(1, 50, 768)
    line = load_weights(backbone, Weights("a file", state, TRANSFORM))
    assert line == f"Weights: a file; {len(state)} of {len(state)} tensors loaded"
    patches = embedding[:, 1:].reshape(1, 7, 7, 768)
    corners = patches[:, ::6, ::6].reshape(1, 4, 768)
    torch.testing.assert_close(encoder.pos_embedding, torch.cat([embedding[:, :1], corners], dim=1))


@ONTO_META
@pytest.mark.parametrize("shape", [(2, 50, 768), (1, 49, 768), (50, 768), (1, 1, 768), (0,)])
def test_a_position_embedding_of_no_square_is_refused(shape: tuple[int, ...], empty_on_meta: Any) -> None:
    with empty_on_meta():
        backbone = Backbone("vit_b_32", 64)
    state = {**backbone.network.state_dict(), "encoder.pos_embedding": torch.zeros(shape)}
    with pytest.raises(
        ThawError, match=rf"pos_embedding must be .* \(1, 1 \+ N x N, 768\), got {re.escape(str(shape))}"
    ):
        load_weights(backbone, Weights("a file", state, TRANSFORM))
