import hashlib
import io
import re
import socket
import threading
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from safetensors.torch import save_file
from torch import Tensor
from torchvision.models import WeightsEnum

from thaw.backbone_names import BACKBONE_NAMES
from thaw.data import archives
from thaw.data.transforms import EvaluationTransform
from thaw.errors import ThawError
from thaw.model.backbone import Backbone
from thaw.model.classifier import Classifier
from thaw.model.loading import load_head, load_weights
from thaw.model.weights import CHECKSUM, default_transform, find_weights

NAME = "squeezenet1_1"
TRANSFORM = EvaluationTransform(resize=40, crop=32)
# Copying real tensors onto networks without memory is meant: only the names count there.
ONTO_META = pytest.mark.filterwarnings("ignore:.*copying from a non-meta parameter")

State = dict[str, Tensor]


def official(name: str) -> WeightsEnum:
    return torchvision.models.get_model_weights(name).DEFAULT


def cached(hub: Path, weights: WeightsEnum) -> Path:
    """Where torchvision keeps the file of some weights."""
    return hub / weights.url.rpartition("/")[2]


def holds(backbone: Backbone, state: State) -> bool:
    """True if each of the backbone's tensors is that of the state."""
    return all(torch.equal(tensor, state[name]) for name, tensor in backbone.network.state_dict().items())


# ---- files


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: state,
        lambda state: {"state_dict": state, "epoch": 3},
        lambda state: {"model": state, "args": {"lr": 0.1}},
        lambda state: {f"module.{name}": tensor for name, tensor in state.items()},
        lambda state: {"state_dict": {f"module.{name}": tensor for name, tensor in state.items()}},
        lambda state: {**state, "note": "not a tensor"},
    ],
    ids=["plain", "state_dict", "model", "module.", "state_dict of module.", "with a note"],
)
def test_layouts_of_a_pth_file(
    tmp_path: Path, state: State, backbone: Backbone, wrap: Callable[[State], dict[str, Any]]
) -> None:
    torch.save(wrap(state), tmp_path / "a.pth")
    load_weights(backbone, find_weights(NAME, str(tmp_path / "a.pth")))
    assert holds(backbone, state)


def test_safetensors_file(tmp_path: Path, state: State, backbone: Backbone) -> None:
    save_file(state, tmp_path / "a.safetensors")
    load_weights(backbone, find_weights(NAME, str(tmp_path / "a.safetensors")))
    assert holds(backbone, state)


def test_half_precision_file_fills_a_float_network(tmp_path: Path, state: State, backbone: Backbone) -> None:
    torch.save({name: tensor.half() for name, tensor in state.items()}, tmp_path / "a.pth")
    load_weights(backbone, find_weights(NAME, str(tmp_path / "a.pth")))
    assert holds(backbone, {name: tensor.half().float() for name, tensor in state.items()})


@ONTO_META
def test_old_names_of_densenet(tmp_path: Path, empty_on_meta: Any) -> None:
    """The official files say `denselayer1.norm.1.weight`, today's modules `denselayer1.norm1.weight`."""
    with empty_on_meta():
        backbone = Backbone("densenet121", 64)
    own = backbone.network.state_dict()
    today = {name: torch.zeros(()).expand(tensor.shape) for name, tensor in own.items()}
    renamed = {re.sub(r"(denselayer.*(?:norm|conv))(\d)", r"\1.\2", name): tensor for name, tensor in today.items()}
    assert renamed.keys() != today.keys()
    torch.save(renamed, tmp_path / "a.pth")
    line = load_weights(backbone, find_weights("densenet121", str(tmp_path / "a.pth")))
    assert line == f"Weights: a.pth; {len(own)} of {len(own)} tensors loaded"


def test_file_of_tensors_by_number(tmp_path: Path, backbone: Backbone) -> None:
    torch.save({0: torch.zeros(1)}, tmp_path / "a.pth")
    with pytest.raises(ThawError):
        load_weights(backbone, find_weights(NAME, str(tmp_path / "a.pth")))


# ---- names


@pytest.mark.parametrize("spec", ["missing.pth", "folder/missing", "~/missing.safetensors"])
def test_file_that_does_not_exist(spec: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(ThawError, match=rf"a file that does not exist: {tmp_path}/{spec.removeprefix('~/')}\.$"):
        find_weights(NAME, spec)


def test_a_file_may_be_called_as_if_it_were_at_somebodys_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ThawError, match=rf"a file that does not exist: {tmp_path}/~1\.pth\.$"):
        find_weights(NAME, "~1.pth")


@pytest.mark.parametrize(
    ("spec", "suggestion"),
    [
        ("IMAGENET1K_V3", " Did you mean 'IMAGENET1K_V[12]'[?]"),
        ("defualt", " Did you mean 'default'[?]"),
        ("imagenet", " Did you mean one of IMAGENET1K_V1, IMAGENET1K_V2[?]"),
        ("mine", ""),
    ],
)
def test_unknown_name(spec: str, suggestion: str) -> None:
    rule = r"^backbone\.weights must be one of default, IMAGENET1K_V1, .*, a file, a run folder or null"
    with pytest.raises(ThawError, match=rf"{rule}, got '{spec}'\.{suggestion}$"):
        find_weights("resnet50", spec)


def test_full_name_of_another_networks_weights(hub: Path) -> None:
    torch.save({}, cached(hub, official("resnet18")))
    with pytest.raises(ThawError):
        find_weights("resnet18", "ResNet50_Weights.IMAGENET1K_V1")


def test_each_official_name_is_listed_once() -> None:
    with pytest.raises(ThawError, match="must be one of default, IMAGENET1K_V1, IMAGENET1K_V2, a file"):
        find_weights("resnet50", "imagenet")


def test_folder_that_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(ThawError, match=rf"{tmp_path}/checkpoints/best\.ckpt"):
        find_weights(NAME, str(tmp_path))


# ---- official weights


def test_official_weights_come_from_torchvisions_cache(hub: Path, state: State, backbone: Backbone) -> None:
    torch.save(state, cached(hub, official(NAME)))
    weights = find_weights(NAME, "default")
    line = load_weights(backbone, weights)
    assert holds(backbone, state)
    assert line.startswith("Weights: torchvision's SqueezeNet1_1_Weights.IMAGENET1K_V1; 50 of 50 tensors loaded")
    assert (weights.head, weights.classes) == ({}, ())


@pytest.mark.parametrize("name", BACKBONE_NAMES)
def test_official_weights_bring_their_transform(name: str, hub: Path) -> None:
    for weights in torchvision.models.get_model_weights(name):
        torch.save({}, cached(hub, weights))
        preset = weights.transforms()
        expected = EvaluationTransform(
            *preset.resize_size, *preset.crop_size, preset.interpolation.value, tuple(preset.mean), tuple(preset.std)
        )
        for spec in (weights.name, str(weights)):
            assert find_weights(name, spec).transform == expected


@pytest.mark.parametrize(
    ("name", "resize", "crop", "interpolation"),
    [
        ("resnet18", 256, 224, "bilinear"),
        ("resnet50", 232, 224, "bilinear"),
        ("inception_v3", 342, 299, "bilinear"),
        ("efficientnet_v2_l", 480, 480, "bicubic"),
        ("vit_h_14", 518, 518, "bicubic"),
    ],
)
def test_default_transform(name: str, resize: int, crop: int, interpolation: str) -> None:
    transform = default_transform(name)
    assert (transform.resize, transform.crop, transform.interpolation) == (resize, crop, interpolation)


def test_file_has_the_default_weights_transform(tmp_path: Path) -> None:
    torch.save({}, tmp_path / "a.pth")
    assert find_weights("resnet50", str(tmp_path / "a.pth")).transform.resize == 232


def test_without_network_the_error_says_what_to_do(hub: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    for scheme in ("http", "https"):
        monkeypatch.setenv(f"{scheme}_proxy", f"http://127.0.0.1:{port}")
    monkeypatch.setenv("no_proxy", "")
    monkeypatch.setattr(urllib.request, "_opener", None)  # it remembers the proxies of its first use
    with pytest.raises(ThawError) as caught:
        find_weights(NAME, "default")
    message = str(caught.value)
    assert message.startswith(f"{official(NAME).url} could not be downloaded: ")
    for part in ("backbone.weights=IMAGENET1K_V1", str(hub), "backbone.weights=FILE", "backbone.weights=null"):
        assert part in message
    assert [path for path in hub.iterdir() if path.suffix != ".lock"] == []


@pytest.mark.parametrize(
    "content",
    [
        b"PK\x03\x04 torn",
        b"<html>404</html>",
        b"",
    ],
    ids=["torn", "html", "empty"],
)
def test_damaged_file_in_torchvisions_cache(hub: Path, content: bytes) -> None:
    cached(hub, official(NAME)).write_bytes(content)
    with pytest.raises(
        ThawError, match=r"^backbone\.weights=IMAGENET1K_V1: \S+ cannot be read as .* anew\.$"
    ) as caught:
        find_weights(NAME, "default")
    assert "weights_only" not in str(caught.value)


@dataclass
class Server:
    """What a server on this machine sends."""

    body: bytes = b""
    ranges: list[str | None] = field(default_factory=list)
    stalls_after: int | None = None
    """Bytes of the first answer after which it falls silent."""


@pytest.fixture
def server(hub: Path, state: State, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """Serves the official weights from this machine, under a name that holds the beginning of their SHA-256."""
    content, closed = io.BytesIO(), threading.Event()
    torch.save(state, content)
    served = Server(content.getvalue())

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            served.ranges.append(self.headers["Range"])
            start = int((self.headers["Range"] or "bytes=0-").removeprefix("bytes=").removesuffix("-"))
            self.send_response(206 if start else 200)
            self.send_header("Content-Length", str(len(served.body) - start))
            if start:
                self.send_header("Content-Range", f"bytes {start}-{len(served.body) - 1}/{len(served.body)}")
            self.end_headers()
            self.wfile.write(served.body[start : served.stalls_after])
            if served.stalls_after is not None:
                served.stalls_after = None
                self.wfile.flush()
                closed.wait(60)

        def log_message(self, *args: object) -> None:
            pass

    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(archives, "PAUSES", (0,))
    monkeypatch.setattr(archives, "TIMEOUT", 0.5)
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as web:
        name = f"squeezenet1_1-{hashlib.sha256(served.body).hexdigest()[:8]}.pth"
        monkeypatch.setattr(official(NAME).value, "url", f"http://127.0.0.1:{web.server_port}/{name}")
        threading.Thread(target=web.serve_forever, args=(0.01,), daemon=True).start()
        yield served
        closed.set()
        web.shutdown()


def test_official_weights_are_downloaded_once(hub: Path, server: Server, state: State, backbone: Backbone) -> None:
    for _ in range(2):
        load_weights(backbone, find_weights(NAME, "default"))
    assert holds(backbone, state)
    assert server.ranges == [None]
    assert [path.name for path in hub.iterdir() if path.suffix != ".lock"] == [cached(hub, official(NAME)).name]


def test_a_server_that_stalls_is_not_waited_for(hub: Path, server: Server, state: State, backbone: Backbone) -> None:
    server.stalls_after = 1_000_000
    load_weights(backbone, find_weights(NAME, "default"))
    assert holds(backbone, state)
    assert server.ranges == [None, "bytes=1000000-"]


def test_a_server_that_never_goes_on_is_told(hub: Path, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "PAUSES", ())
    server.stalls_after = 0
    with pytest.raises(ThawError, match=r"could not be downloaded: .*timed out.* backbone\.weights=null"):
        find_weights(NAME, "default")


@pytest.mark.parametrize("body", [b"<html>404</html>", b""])
def test_a_download_that_is_another_file_is_removed(hub: Path, server: Server, body: bytes) -> None:
    server.body = body
    with pytest.raises(
        ThawError, match=r"sent another file: expected sha256:[0-9a-f]{8}…, received .* It was removed\."
    ):
        find_weights(NAME, "default")
    assert [path for path in hub.iterdir() if path.suffix != ".lock"] == []


@pytest.mark.parametrize("name", BACKBONE_NAMES)
def test_the_name_of_each_official_file_says_what_it_holds(name: str) -> None:
    for weights in torchvision.models.get_model_weights(name):
        assert CHECKSUM.search(weights.url)


def test_other_networks_do_not(tmp_path: Path, state: State) -> None:
    torch.save(state, tmp_path / "a.pth")
    assert not find_weights(NAME, str(tmp_path / "a.pth")).transform_input


# ---- an earlier run


@pytest.fixture
def run(tmp_path: Path, fit: Any) -> tuple[Path, Classifier]:
    """The folder of a run of one step, and its classifier."""
    model = Classifier(NAME, ("ant", "bee"), TRANSFORM)
    images = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)
    fit(model, (images, torch.tensor([0, 1]))).save_checkpoint(tmp_path / "checkpoints" / "best.ckpt")
    return tmp_path, model.eval()


@pytest.mark.parametrize("within", [".", "checkpoints/best.ckpt"])
def test_run_gives_backbone_head_classes_and_transform(
    run: tuple[Path, Classifier], backbone: Backbone, within: str
) -> None:
    folder, model = run
    weights = find_weights(NAME, str(folder / within))
    line = load_weights(backbone, weights)
    assert line == f"Weights: {folder}/checkpoints/best.ckpt; 50 of 50 tensors loaded"
    assert holds(backbone, model.backbone.network.state_dict())
    assert (weights.classes, weights.transform) == (("ant", "bee"), TRANSFORM)
    assert weights.head.keys() == model.head.state_dict().keys()
    for name, tensor in model.head.state_dict().items():
        assert torch.equal(weights.head[name], tensor)


def test_classifier_goes_on_from_a_run(run: tuple[Path, Classifier]) -> None:
    folder, model = run
    weights = find_weights(NAME, str(folder))
    other = Classifier(NAME, weights.classes, weights.transform).eval()
    load_weights(other.backbone, weights)
    load_head(other, weights)
    images = torch.randint(0, 256, (3, 3, 32, 32), dtype=torch.uint8)
    with torch.no_grad():
        assert torch.equal(other(images), model(images))


@pytest.mark.parametrize("damage", ["classes", "transform", "transform_input", "state_dict", "thaw", "no texts"])
def test_a_run_with_a_damaged_checkpoint_is_refused(run: tuple[Path, Classifier], damage: str) -> None:
    path = run[0] / "checkpoints" / "best.ckpt"
    content = torch.load(path, weights_only=True)
    if damage == "thaw":
        content["thaw"] = "text"
    elif damage == "no texts":
        content["thaw"]["classes"] = [1, 2]
    else:
        del (content if damage == "state_dict" else content["thaw"])[damage]
    torch.save(content, path)
    with pytest.raises(ThawError, match=r"best\.ckpt is not a complete checkpoint of Thaw: [^\n]+\.$"):
        find_weights(NAME, str(run[0]))


def test_run_of_another_backbone_is_refused(run: tuple[Path, Classifier], empty_on_meta: Any) -> None:
    with empty_on_meta():
        resnet = Backbone("resnet18", 64)
    with pytest.raises(ThawError, match=r"does not fit backbone=resnet18: .*best\.ckpt has 0 of its"):
        load_weights(resnet, find_weights("resnet18", str(run[0])))
