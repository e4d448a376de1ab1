import re
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

# One network of each of torchvision's model files.
FAMILIES = {torchvision.models.get_model_builder(name).__module__: name for name in reversed(BACKBONE_NAMES)}.values()


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


def test_missing_tensors_are_named_and_stay_random(state: State, backbone: Backbone) -> None:
    before = backbone.network.get_parameter("features.0.weight").clone()
    del state["features.0.weight"]
    state["features.3.squeeze.weight"] = torch.zeros(1, 2, 3, 4)
    line = load_weights(backbone, Weights("a file", state, TRANSFORM))
    assert line.startswith("Weights: a file; 48 of 50 tensors loaded; left out: features.3.squeeze.weight, ")
    assert line.endswith("; missing, so random: features.0.weight, features.3.squeeze.weight")
    assert torch.equal(backbone.network.get_parameter("features.0.weight"), before)


def test_many_names_are_cut_short(state: State, backbone: Backbone) -> None:
    some = {name: state[name] for name in list(state)[:40]}
    line = load_weights(backbone, Weights("a file", some, TRANSFORM))
    missing = line.partition("missing, so random: ")[2]
    assert missing.count(",") == 5
    assert missing.endswith(" and 4 more")


def test_under_half_is_refused_and_changes_nothing(state: State, backbone: Backbone) -> None:
    before = {name: tensor.clone() for name, tensor in backbone.network.state_dict().items()}
    few = Weights("a file", {name: state[name] for name in list(state)[:24]}, TRANSFORM)
    with pytest.raises(ThawError, match=r"does not fit backbone=squeezenet1_1: a file has 24 of its 50 tensors\."):
        load_weights(backbone, few)
    assert holds(backbone, before)


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
