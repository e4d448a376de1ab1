import hashlib
import io
import os
import pickle
import re
import socket
import threading
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from safetensors.torch import save_file
from torch import Tensor, nn
from torchvision.models import WeightsEnum

from thaw.backbone_names import BACKBONE_NAMES
from thaw.data import archives
from thaw.data.transforms import EvaluationTransform
from thaw.errors import ThawError
from thaw.model.backbone import Backbone
from thaw.model.classifier import Classifier
from thaw.model.weights import CHECKSUM, FORMAT, Weights, default_transform, find_weights, load_weights, read_tensors

NAME = "squeezenet1_1"
TRANSFORM = EvaluationTransform(resize=40, crop=32)
# One network of each of torchvision's model files.
FAMILIES = {torchvision.models.get_model_builder(name).__module__: name for name in reversed(BACKBONE_NAMES)}.values()

# Copying real tensors onto networks without memory is meant: only the names count there.
ONTO_META = pytest.mark.filterwarnings("ignore:.*copying from a non-meta parameter")

State = dict[str, Tensor]


@pytest.fixture
def state() -> State:
    """What torchvision's own SqueezeNet holds, head included."""
    return dict(torchvision.models.get_model(NAME, weights=None).state_dict())


@pytest.fixture
def backbone() -> Backbone:
    return Backbone(NAME, 64)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder where torchvision looks for downloaded weights."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(torch.hub, "_hub_dir", None)
    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    return folder


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


# ---- what cannot be read


class Payload:
    """A pickle that makes a folder as it is read."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str]]:
        return os.mkdir, (str(self.folder),)


def pickle_plain(content: object, path: Path) -> None:
    path.write_bytes(pickle.dumps(content, protocol=2))


@pytest.mark.parametrize("write", [torch.save, pickle_plain])
def test_code_in_a_file_is_refused_and_not_run(
    tmp_path: Path, state: State, write: Callable[[object, Path], None]
) -> None:
    path, trace = tmp_path / "a.pth", tmp_path / "was here"
    write({"state_dict": state, "extra": Payload(trace)}, path)
    asked = r"it asks for (posix\.mkdir|torch\.storage\._load_from_bytes), .* refused"
    with pytest.raises(ThawError, match=asked) as caught:
        find_weights(NAME, str(path))
    assert not trace.exists()
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


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


def test_a_checkpoint_of_a_newer_version_is_refused(tmp_path: Path, state: State) -> None:
    torch.save({"state_dict": state, "thaw": {"format": FORMAT + 1}}, tmp_path / "best.ckpt")
    with pytest.raises(ThawError, match=rf"newer version of Thaw: format {FORMAT + 1}; this one reads up to {FORMAT}"):
        find_weights(NAME, str(tmp_path / "best.ckpt"))


@pytest.mark.parametrize("version", ["2", None, 1.5])
def test_a_checkpoint_whose_format_is_no_number_is_refused(tmp_path: Path, state: State, version: object) -> None:
    torch.save({"state_dict": state, "thaw": {"format": version}}, tmp_path / "best.ckpt")
    with pytest.raises(
        ThawError, match=r"best\.ckpt is no whole checkpoint of Thaw: its format must be a whole number"
    ):
        find_weights(NAME, str(tmp_path / "best.ckpt"))


@pytest.mark.parametrize("part", [0.1, 0.9, 0.999])
@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
def test_truncated_file(tmp_path: Path, state: State, suffix: str, part: float) -> None:
    path = tmp_path / f"a.{suffix}"
    save_file(state, path) if suffix == "safetensors" else torch.save(state, path)
    path.write_bytes(path.read_bytes()[: int(part * path.stat().st_size)])
    with pytest.raises(ThawError, match=rf"a\.{suffix} cannot be read as weights \(.+\)\.$"):
        find_weights(NAME, str(path))


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.pth", "<html>404 Not Found</html>"),
        ("a.safetensors", "<html>404 Not Found</html>"),
        ("a.bin", "version https://git-lfs.github.com/spec/v1"),
        ("a.safetensors", ""),
        ("a.pth", ""),
    ],
)
def test_file_of_another_kind(tmp_path: Path, name: str, content: str) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(ThawError, match=rf"{name} cannot be read as weights \(.+\)\.$"):
        find_weights(NAME, str(tmp_path / name))


def test_file_must_hold_tensors_by_name(tmp_path: Path) -> None:
    torch.save([torch.zeros(1)], tmp_path / "a.pth")
    with pytest.raises(ThawError, match=r"a\.pth must hold tensors by name, got list\."):
        find_weights(NAME, str(tmp_path / "a.pth"))


def test_file_of_tensors_by_number(tmp_path: Path, backbone: Backbone) -> None:
    torch.save({0: torch.zeros(1)}, tmp_path / "a.pth")
    with pytest.raises(ThawError):
        load_weights(backbone, find_weights(NAME, str(tmp_path / "a.pth")))


def test_read_tensors_gives_plain_python_too(tmp_path: Path) -> None:
    content = {"epoch": 3, "names": ["a", "b"], "state_dict": {"weight": torch.arange(3)}}
    torch.save(content, tmp_path / "a.ckpt")
    read = read_tensors(tmp_path / "a.ckpt")
    assert (read["epoch"], read["names"]) == (3, ["a", "b"])
    assert torch.equal(read["state_dict"]["weight"], torch.arange(3))


# ---- names


@pytest.mark.parametrize("spec", ["missing.pth", "folder/missing", "~/missing.safetensors"])
def test_file_that_does_not_exist(spec: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(ThawError, match=rf"a file that does not exist: {spec}\. No such file: {tmp_path}.*missing"):
        find_weights(NAME, spec)


@pytest.mark.parametrize(
    ("spec", "suggestion"),
    [
        ("IMAGENET1K_V3", " Did you mean 'IMAGENET1K_V[12]'[?]"),
        ("defualt", " Did you mean 'default'[?]"),
        ("imagenet", ""),
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


def test_other_networks_do_not(tmp_path: Path, state: State) -> None:
    torch.save(state, tmp_path / "a.pth")
    assert not find_weights(NAME, str(tmp_path / "a.pth")).transform_input


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
    other.load_head(weights)
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
    with pytest.raises(ThawError, match=r"best\.ckpt is no whole checkpoint of Thaw: [^\n]+\.$"):
        find_weights(NAME, str(run[0]))


def test_run_of_another_backbone_is_refused(run: tuple[Path, Classifier], empty_on_meta: Any) -> None:
    with empty_on_meta():
        resnet = Backbone("resnet18", 64)
    with pytest.raises(ThawError, match=r"does not fit backbone=resnet18: .*best\.ckpt has 0 of its"):
        load_weights(resnet, find_weights("resnet18", str(run[0])))
