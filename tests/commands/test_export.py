import json
import os
import shutil
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from omegaconf import OmegaConf
from PIL import Image

from thaw.cli import main
from thaw.errors import ThawError
from thaw.export import Parity, export, images_for_proof, measure_parity, weights_file
from thaw.model.classifier import Classifier
from thaw.run import Run


@pytest.fixture(scope="module")
def onnx_file(finished_run: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The finished run as ONNX; not to be changed."""
    out = tmp_path_factory.mktemp("onnx") / "model.onnx"
    weights_file(out).write_text("those of a larger network, which was in its place")
    assert main(["export", str(finished_run.folder), "--format", "onnx", "--out", str(out)]) == 0
    return out


def crop_with_pillow(path: Path, preprocessing: dict[str, object]) -> np.ndarray:
    """What a user writes after reading the metadata: uint8 (3, S, S)."""
    assert (preprocessing["resize_rule"], preprocessing["interpolation"]) == ("shorter side", "bilinear")
    resize, crop = int(str(preprocessing["resize"])), int(str(preprocessing["center_crop"]))
    with Image.open(path) as image:
        scale = resize / min(image.size)
        width, height = (int(side * scale + 1e-6) for side in image.size)
        resized = image.convert("RGB").resize((width, height), Image.Resampling.BILINEAR)
    left, top = round((width - crop) / 2), round((height - crop) / 2)
    return np.asarray(resized.crop((left, top, left + crop, top + crop))).transpose(2, 0, 1)


@pytest.mark.slow
def test_onnx_is_used_with_its_metadata_alone(finished_run: Run, image_folder: Path, onnx_file: Path) -> None:
    session = onnxruntime.InferenceSession(onnx_file)
    metadata = session.get_modelmeta().custom_metadata_map
    classes, preprocessing = json.loads(metadata["classes"]), json.loads(metadata["preprocessing"])
    paths = sorted((image_folder / "val").rglob("*.png"))
    crops = np.stack([crop_with_pillow(path, preprocessing) for path in paths])
    (logits,) = session.run(None, {"images": crops})
    shares = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    for each, own in zip(finished_run.predict(paths), shares, strict=True):
        assert classes[own.argmax()] == each.label
        assert dict(each.top) == pytest.approx(dict(zip(classes, own.tolist(), strict=True)), abs=0.01)


@pytest.mark.slow
def test_nothing_is_left_of_the_file_before(onnx_file: Path) -> None:
    assert [path.name for path in onnx_file.parent.iterdir()] == ["model.onnx"]


@pytest.mark.slow
def test_onnx_takes_any_batch_of_uint8_crops(onnx_file: Path) -> None:
    session = onnxruntime.InferenceSession(onnx_file)
    (images,), (logits,) = session.get_inputs(), session.get_outputs()
    assert (images.name, images.type, images.shape) == ("images", "tensor(uint8)", ["batch", 3, 64, 64])
    assert (logits.name, logits.type, logits.shape) == ("logits", "tensor(float)", ["batch", 3])
    for size in (1, 3, 7):
        assert session.run(None, {"images": np.zeros((size, 3, 64, 64), np.uint8)})[0].shape == (size, 3)


@pytest.mark.slow
def test_torch_export_is_loaded_back(finished_run: Run, image_folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "model.pt2"
    assert main(["export", str(finished_run.folder), "--format", "torch-export", "--out", str(out)]) == 0
    notes = {"classes": "", "preprocessing": ""}
    network = torch.export.load(out, extra_files=notes).module()
    classifier = finished_run.load_classifier()
    assert tuple(json.loads(notes["classes"])) == classifier.classes
    assert json.loads(notes["preprocessing"])["center_crop"] == 64
    images, _ = images_for_proof(finished_run, classifier)
    with torch.inference_mode():
        assert torch.allclose(network(images[:5]), classifier(images[:5]), atol=1e-4)


@pytest.mark.slow
def test_a_link_stays_and_is_written_through(finished_run: Run, tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    link, file = tmp_path / "latest.pt2", tmp_path / "models" / "first.pt2"
    link.symlink_to(file)
    assert main(["export", str(finished_run.folder), "--format", "torch-export", "--out", str(link)]) == 0
    assert link.readlink() == file
    assert torch.export.load(link).module()
    assert [path.name for path in file.parent.iterdir()] == ["first.pt2"]


def test_a_link_to_no_folder_is_a_users_mistake(
    finished_run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    link = tmp_path / "latest.pt2"
    link.symlink_to(tmp_path / "nowhere" / "first.pt2")
    assert main(["export", str(finished_run.folder), "--format", "torch-export", "--out", str(link)]) == 2
    assert capsys.readouterr().err == f"--out={link} cannot be written: there is no folder {tmp_path / 'nowhere'}.\n"


@pytest.mark.slow
def test_the_proof_is_printed_with_its_images(
    finished_run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "model.pt2"
    assert main(["export", str(finished_run.folder), "--format", "torch-export", "--out", str(out)]) == 0
    parity, written = capsys.readouterr().out.splitlines()
    assert parity.startswith("Parity with the run on 9 images of its data: largest difference of the logits ")
    assert parity.endswith("same top class for 9 of 9 images, in batches of 1 and 9")
    size = out.stat().st_size / 1e6
    assert written == f"Written: {out} ({size:.1f} MB, float32, 3 classes)"


@pytest.mark.slow
@pytest.mark.parametrize("has_images", [False, True])
def test_a_checkpoint_alone_is_enough(
    finished_run: Run, image_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], has_images: bool
) -> None:
    file = shutil.copy(finished_run.best, tmp_path / "bees.ckpt")
    images = ["--images", str(image_folder / "val")] if has_images else []
    assert main(["export", str(file), "--format", "torch-export", *images]) == 0
    whose = "9 given images" if has_images else "16 random images, since a checkpoint alone tells no data (--images"
    assert capsys.readouterr().out.startswith(f"Parity with the run on {whose}")
    assert (tmp_path / "bees.pt2").exists()


def test_given_images_are_the_proof_and_what_cannot_be_read_is_passed_over(
    finished_run: Run, image_folder: Path
) -> None:
    given = [f"{image_folder}/train/red/*.png", "nowhere.jpg"]
    images, whose = images_for_proof(finished_run, finished_run.load_classifier(), given)
    assert (images.shape, images.dtype) == ((8, 3, 64, 64), torch.uint8)
    assert whose == "8 given images"


def test_for_given_images_the_data_of_the_run_is_left_alone(
    finished_run: Run, image_folder: Path, tmp_path: Path
) -> None:
    run = Run(shutil.copytree(finished_run.folder, tmp_path / "run"))
    run.predictions_csv.write_text("no,such\ntable,at all\n")
    _, whose = images_for_proof(run, run.load_classifier(), [f"{image_folder}/val/red"])
    assert whose == "3 given images"


def test_a_table_of_another_form_is_as_good_as_none(finished_run: Run, tmp_path: Path) -> None:
    run = Run(shutil.copytree(finished_run.folder, tmp_path / "run"))
    run.predictions_csv.write_text("no,such\ntable,at all\n")
    _, whose = images_for_proof(run, run.load_classifier())
    assert whose.startswith("16 random images, since predictions.csv names none of its data")


def test_data_that_is_gone_is_said(finished_run: Run, tmp_path: Path) -> None:
    run = Run(shutil.copytree(finished_run.folder, tmp_path / "run"))
    config = OmegaConf.create(run.config)
    config.dataset.root = str(tmp_path / "gone")
    OmegaConf.save(config, run.folder / "config.yaml")
    images, whose = images_for_proof(run, run.load_classifier())
    assert images.shape == (16, 3, 64, 64)
    assert whose == f"16 random images, since its data is not at {tmp_path}/gone (--images takes others)"


def test_data_is_looked_for_where_the_training_was_started(
    finished_run: Run, image_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Run(shutil.copytree(finished_run.folder, tmp_path / "run"))
    config = OmegaConf.create(run.config)
    config.dataset.root = image_folder.name
    OmegaConf.save(config, run.folder / "config.yaml")
    monkeypatch.chdir(tmp_path)
    why = f"since its data is not at {image_folder.name}, as seen from {tmp_path} (--images takes others)"
    (run.folder / "started_in.txt").unlink()
    assert images_for_proof(run, run.load_classifier())[1] == f"16 random images, {why}"
    (run.folder / "started_in.txt").write_text(str(image_folder.parent))
    assert images_for_proof(run, run.load_classifier())[1] == "9 images of its data"


@pytest.mark.slow
@pytest.mark.parametrize(("form", "name"), [("onnx", "model.onnx"), ("torch-export", "model.pt2")])
def test_what_computes_something_else_is_not_written(finished_run: Run, tmp_path: Path, form: str, name: str) -> None:
    class Shifted(Classifier):
        """Not what its parts compute, so that no export of the parts can agree with it."""

        def forward(self, batch: torch.Tensor) -> torch.Tensor:
            return super().forward(batch) + 0.01

    classifier = Shifted.load_from_checkpoint(finished_run.best)
    images, _ = images_for_proof(finished_run, classifier)
    (tmp_path / name).write_text("the last good one")
    with pytest.raises(ThawError, match=r"was not written, since .* largest difference of the logits 1\.0e-02"):
        export(classifier, form, tmp_path / name, images)
    assert [path.read_text() for path in tmp_path.iterdir()] == ["the last good one"]


def test_parity_is_rounding_and_nothing_more() -> None:
    expected = torch.tensor([[1.0, 3.0], [40.0, 2.0]])
    images = torch.arange(2)

    def parity(logits: torch.Tensor) -> Parity:
        return measure_parity(lambda batch: logits[batch], expected, images)

    assert parity(expected + 0.003).holds  # 1e-4 of the largest logit
    assert not parity(expected + 0.005).holds
    assert not parity(expected * torch.tensor([1.0, torch.nan])).holds
    ties = torch.tensor([[1.0, 1.0]])
    assert not measure_parity(lambda batch: ties + torch.tensor([0.0, 1e-6]), ties, images[:1]).holds
    assert parity(expected).batch_sizes == (1, 2)


@pytest.mark.slow
@pytest.mark.parametrize("form", ["onnx", "torch-export"])
def test_class_names_of_any_bytes_are_in_the_metadata(tmp_path: Path, form: str) -> None:
    names = [os.fsdecode(b"caf\xe9"), "蚂蚁"]
    classifier = Classifier("squeezenet1_1", names).eval()
    out = tmp_path / "model"
    export(classifier, form, out, torch.randint(256, (2, 3, 224, 224), dtype=torch.uint8))
    notes = {"classes": ""}
    if form == "onnx":
        notes = onnxruntime.InferenceSession(out).get_modelmeta().custom_metadata_map
    else:
        torch.export.load(out, extra_files=notes)
    assert json.loads(notes["classes"]) == names


@pytest.mark.slow
@pytest.mark.parametrize(("form", "name"), [("onnx", "model.onnx"), ("torch-export", "model.pt2")])
def test_a_residual_network_with_batchnorm_is_the_same(tmp_path: Path, form: str, name: str) -> None:
    torch.manual_seed(0)
    classifier = Classifier("resnet18", ["a", "b", "c"])
    images = torch.randint(256, (4, 3, 224, 224), dtype=torch.uint8)
    with torch.no_grad():
        classifier(images)  # running statistics of its own
    parity = export(classifier.eval(), form, tmp_path / name, images)
    assert parity.difference < 1e-4
    assert parity.scale > 0.1


# ---- mistakes


def test_a_missing_package_is_named_with_the_remedy(
    finished_run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    out = tmp_path / "model.onnx"
    assert main(["export", str(finished_run.folder), "--format", "onnx", "--out", str(out)]) == 2
    message = "thaw export --format onnx needs the package onnxruntime: pip install -e '.[export]'.\n"
    assert capsys.readouterr().err == message
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--out", "model.pt"], "--out must end in .onnx, got 'model.pt'."),
        (["--out", "no/such/model.onnx"], "--out=no/such/model.onnx cannot be written"),
        (["--out", "folder.onnx"], "--out=folder.onnx is a folder: name a file."),
        (["--images", "nowhere.jpg"], "None of the images can be read: nowhere.jpg."),
    ],
)
def test_a_users_mistake_is_one_line_and_exit_code_2(
    finished_run: Run,
    arguments: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("folder.onnx").mkdir()
    assert main(["export", str(finished_run.folder), "--format", "onnx", *arguments]) == 2
    assert capsys.readouterr().err.startswith(message)
