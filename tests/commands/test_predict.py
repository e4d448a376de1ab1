import csv
import io
import json
import os
import shutil
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from thaw.cli import main
from thaw.commands.predict import _summary
from thaw.data.images import BadImage
from thaw.errors import ThawError
from thaw.predict import Predictor
from thaw.prediction import Prediction, photo_grid, write_csv, write_json
from thaw.run import Run

CLASSES = {"blue", "green", "red"}


@pytest.fixture
def photos(image_folder: Path, tmp_path: Path) -> Path:
    """Four images, one of them no image, in a folder and one below it."""
    folder = tmp_path / "photos"
    (folder / "more").mkdir(parents=True)
    for name, source in {"a.png": "red/0.png", "c.png": "blue/1.png", "more/d.png": "green/2.png"}.items():
        shutil.copy(image_folder / "val" / source, folder / name)
    (folder / "b.jpg").write_text("no image")
    return folder


def read_csv(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


# ---- what is predicted


def test_lightning_gives_no_hints() -> None:
    code = "from thaw.predict import Fabric; Fabric(accelerator='cpu', devices=1, precision='bf16-mixed')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("", "")


@pytest.mark.parametrize("batch_size", [None, 1, 4])
def test_predictions_are_those_of_the_training(finished_run: Run, image_folder: Path, batch_size: int | None) -> None:
    rows = read_csv(finished_run.predictions_csv)
    predictions = finished_run.predict([image_folder / "val"], batch_size=batch_size)
    assert [each.path for each in predictions] == [image_folder / row["path"] for row in rows]
    for each, row in zip(predictions, rows, strict=True):
        assert (each.label, each.error) == (row["predicted"], None)
        assert dict(each.top) == pytest.approx({name: float(row[f"p_{name}"]) for name in CLASSES}, abs=1e-5)
        assert each.probability == each.top[0][1] == max(value for _, value in each.top)


def test_tta_says_what_the_evaluation_says(finished_run: Run, image_folder: Path) -> None:
    expected = finished_run.evaluate(tta=True)
    predictions = finished_run.predict([image_folder / "val"], tta=True)
    for each, shares in zip(predictions, expected.probabilities.tolist(), strict=True):
        assert dict(each.top) == pytest.approx(dict(zip(expected.classes, shares, strict=True)), abs=1e-5)


def test_tta_of_a_run_that_mirrors_nothing_is_refused(
    changed_run: Callable[[str, object], Run], image_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = changed_run("augment", {"flip": 0})
    assert main(["predict", str(run.folder), str(image_folder), "--tta"]) == 2
    errors = capsys.readouterr().err
    assert "--tta has nothing to add: the run has augment.flip=0" in errors
    assert errors.endswith("as those of digits do. Leave it out.\n")


@pytest.mark.parametrize("precision", ["bf16-true", "64-true", "bf16-mixed"])
def test_a_precision_is_the_models_own_and_not_that_of_the_process(
    changed_run: Callable[[str, object], Run], image_folder: Path, precision: str
) -> None:
    """Lightning's own contexts for these set torch's default dtype, which all threads share."""
    run = changed_run("trainer.precision", precision)
    run.write_summary(run.summary | {"precision": precision})
    expected = run.evaluate()
    for _ in range(10):
        predictions = run.predict([image_folder / "val"], batch_size=1)
        assert torch.get_default_dtype() is torch.float32
        for each, shares in zip(predictions, expected.probabilities.tolist(), strict=True):
            assert dict(each.top) == pytest.approx(dict(zip(expected.classes, shares, strict=True)), abs=1e-5)


def test_the_order_is_that_of_the_files_however_many_batches(finished_run: Run, image_folder: Path) -> None:
    paths = sorted(image_folder.rglob("*.png"))[::-1] * 3
    assert [each.path for each in finished_run.predict(paths, batch_size=2)] == paths


def test_images_in_memory_are_predicted_as_their_files_are(finished_run: Run, image_folder: Path) -> None:
    paths = sorted((image_folder / "val").rglob("*.png"))
    images = [Image.open(path) for path in paths]
    lying, content = images[0].transpose(Image.Transpose.ROTATE_90), io.BytesIO()
    lying.getexif()[274] = 6  # it is to be turned back for a look at it
    lying.save(content, "png", exif=lying.getexif())
    turned = Image.open(content)
    predictions = finished_run.predict([*images, turned, content.getvalue(), paths[1]])
    expected = finished_run.predict([*paths, paths[0], paths[0], paths[1]])
    assert [each.top for each in predictions] == [each.top for each in expected]
    assert [each.path for each in predictions] == [*[None] * (len(paths) + 2), paths[1]]
    assert turned.size == images[0].size[::-1]  # the caller's own are left as they are


def test_an_image_in_memory_that_cannot_be_decoded_is_named_too(finished_run: Run, image_folder: Path) -> None:
    content = (image_folder / "val/red/0.png").read_bytes()
    torn = Image.open(io.BytesIO(content[: len(content) // 2]))
    whole = Image.open(io.BytesIO(content))
    *several, good = finished_run.predict([torn, content[: len(content) // 2], whole])
    for bad in several:
        assert (bad.label, bad.path) == (None, None)
        assert bad.error
    assert good.label == "red"


def test_an_array_is_predicted_as_the_file_is(finished_run: Run, image_folder: Path) -> None:
    path = image_folder / "val/red/0.png"
    pixels = np.asarray(Image.open(path))
    grey = np.asarray(Image.open(path).convert("L"))
    tensor = torch.from_numpy(pixels.copy()).permute(2, 0, 1)
    file, *same, of_grey, of_grey_image = finished_run.predict([path, pixels, tensor, grey, Image.fromarray(grey)])
    assert [each.top for each in same] == [file.top] * 2
    assert of_grey.top == of_grey_image.top


def test_a_run_and_a_predictor_take_the_same(finished_run: Run, photos: Path) -> None:
    predictor = Predictor(str(finished_run.folder))
    for images in (str(photos), photos, f"{photos}/*.png", str(photos / "a.png"), [photos / "a.png", photos / "more"]):
        predictions = finished_run.predict(images)
        assert predictions == list(predictor.predict(images))
        assert all(each.path and each.path.is_relative_to(photos) for each in predictions)
    with pytest.raises(TypeError, match=r"got int\.$"):
        predictor.predict(5)


def test_a_predictor_answers_one_image_with_one_prediction(finished_run: Run, photos: Path) -> None:
    predictor = Predictor(finished_run)
    (expected,) = finished_run.predict(photos / "a.png", top=2)
    one = predictor(str(photos / "a.png"), top=2)
    assert one == predictor(photos / "a.png", top=2) == expected
    assert predictor(Image.open(photos / "a.png"), top=2).top == expected.top
    assert predictor(photos / "b.jpg").error
    assert torch.equal(predictor.read(str(photos / "a.png")), predictor.read(Image.open(photos / "a.png")))
    assert predictor([photos / "a.png"], top=2) == [expected]
    for top in (0, -1):
        with pytest.raises(ThawError, match=f"^top must be at least 1, got {top}"):
            predictor(photos / "a.png", top)
    assert [each.path for each in predictor(photos)] == [each.path for each in finished_run.predict(photos)]


def test_top_is_bounded_by_the_number_of_classes(finished_run: Run, image_folder: Path) -> None:
    image = image_folder / "val/red/0.png"
    one, all_of_them = (finished_run.predict([image], top=top)[0] for top in (1, 9))
    assert one.top == all_of_them.top[:1]
    assert {label for label, _ in all_of_them.top} == CLASSES
    assert sum(value for _, value in all_of_them.top) == pytest.approx(1)


def test_who_stops_listening_stops_the_work(finished_run: Run, image_folder: Path) -> None:
    read = []

    class Counting(Predictor):
        def read(self, path: Path) -> torch.Tensor:
            read.append(path)
            return super().read(path)

    before = torch.get_num_threads()
    predictions = Counting(finished_run, batch_size=1).predict([image_folder / "val/red/0.png"] * 500)
    next(predictions)
    predictions.close()  # type: ignore[attr-defined]
    assert len(read) < 500
    assert torch.get_num_threads() == before


def test_features_are_what_the_head_tells_classes_by(finished_run: Run, image_folder: Path) -> None:
    predictor = Predictor(finished_run, batch_size=2)
    paths = sorted((image_folder / "val").rglob("*.png"))
    features = predictor.features(paths)
    assert (features.shape, features.dtype, features.device.type) == ((9, 512), torch.float32, "cpu")
    shares = finished_run.load_classifier().classify(features).softmax(dim=1)
    assert [predictor.classes[label] for label in shares.argmax(dim=1)] == [each.label for each in predictor(paths)]
    assert torch.allclose(shares, predictor.classify(torch.stack([predictor.read(path) for path in paths])), atol=1e-5)
    predictor.precision = "bf16-mixed"
    assert predictor.features(paths).dtype == torch.float32
    with pytest.raises(BadImage, match=r"missing\.png cannot be read as an image"):
        predictor.features([image_folder / "missing.png"])


@pytest.mark.parametrize(("num_images", "most"), [(1, 2), (6, 1)])
def test_one_image_or_one_core_needs_no_other_threads(
    finished_run: Run, image_folder: Path, num_images: int, most: int
) -> None:
    seen: set[tuple[int, int]] = set()
    before = torch.get_num_threads()
    torch.set_num_threads(most)
    predictor = Predictor(finished_run, batch_size=1)
    predictor.module.register_forward_pre_hook(lambda *_: seen.add((threading.get_ident(), torch.get_num_threads())))
    try:
        assert len(list(predictor.predict([image_folder / "val/red/0.png"] * num_images))) == num_images
    finally:
        torch.set_num_threads(before)
    assert seen == {(threading.get_ident(), most)}


def test_calls_on_several_threads_leave_the_number_of_torchs_threads_as_it_was(
    finished_run: Run, image_folder: Path
) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    images = [image_folder / "val/red/0.png"] * 8
    try:
        predictor = Predictor(finished_run, batch_size=1)
        for _ in range(3):  # threads that are new to torch, each of which calls while others do
            with ThreadPoolExecutor(4) as pool:
                assert len(list(pool.map(predictor, [images] * 8))) == 8
                assert set(pool.map(lambda _: torch.get_num_threads(), range(8))) == {2}
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


# ---- the command


def test_a_broken_file_is_a_row_and_exit_code_1(
    finished_run: Run, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out.CSV"
    assert main(["predict", str(finished_run.folder), str(photos), "--out", str(out), "--top", "2"]) == 1
    rows = read_csv(out)
    assert [Path(row["path"]).name for row in rows] == ["a.png", "b.jpg", "c.png", "d.png"]
    assert list(rows[0]) == ["path", "label", "probability", "label_2", "probability_2", "error"]
    broken = rows.pop(1)
    assert broken["error"] == "its contents are in no image format that Thaw reads"
    assert not broken["label"] + broken["probability"]
    assert all(row["label"] in CLASSES and 0 < float(row["probability"]) <= 1 and not row["error"] for row in rows)
    printed = capsys.readouterr()
    assert printed.out.startswith("3 images: ")
    assert "images/s (32-true on cpu)" in printed.out
    assert printed.err.startswith(f"1 of 4 files cannot be read: {photos / 'b.jpg'} (its contents")


def test_a_class_with_a_comma_in_its_name_is_counted_in_quotes(finished_run: Run) -> None:
    predictions = [Prediction(Path("a.png"), ((name, 1.0),)) for name in ("red, dark", "red, dark", "blue")]
    summary = _summary(Predictor(finished_run, "cpu"), predictions, 1.0)
    assert summary.startswith('3 images: "red, dark" 2, blue 1; ')


def test_json_says_the_same_as_the_api(finished_run: Run, photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    assert main(["predict", str(finished_run.folder), f"{photos}/*.png", "--out", str(out)]) == 0
    expected = finished_run.predict([photos / "a.png", photos / "c.png"])
    for row, each in zip(json.loads(out.read_text()), expected, strict=True):
        assert (row["path"], row["label"], row["error"]) == (str(each.path), each.label, None)
        assert row["probability"] == pytest.approx(each.probability)
        assert [entry["label"] for entry in row["top"]] == [label for label, _ in each.top]


def test_images_in_memory_have_no_path_in_a_table(finished_run: Run, tmp_path: Path) -> None:
    predictions = finished_run.predict([Image.new("RGB", (64, 64))])
    write_csv(predictions, tmp_path / "out.csv")
    write_json(predictions, tmp_path / "out.json")
    assert [row["path"] for row in read_csv(tmp_path / "out.csv")] == [""]
    assert [row["path"] for row in json.loads((tmp_path / "out.json").read_text())] == [None]


def test_paths_come_from_stdin_and_are_no_patterns(
    finished_run: Run,
    photos: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (photos / "a.png").rename(photos / "[a].png")
    monkeypatch.setattr("sys.stdin", io.StringIO(f"{photos / '[a].png'}\n\n{photos / 'c.png'}\r\n"))
    assert main(["predict", str(finished_run.folder), "-"]) == 0
    header, first, second, summary = capsys.readouterr().out.splitlines()
    assert header.split() == ["image", "prediction", "next", "next"]
    assert first.startswith(str(photos / "[a].png"))
    assert second.split()[1] in CLASSES
    assert summary.startswith("2 images: ")


def test_nothing_is_told_of_slurm_where_it_is_installed(
    finished_run: Run, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "srun").touch(mode=0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        assert main(["predict", str(finished_run.folder), str(photos / "a.png")]) == 0
    assert [str(each.message) for each in warned if "srun" in str(each.message)] == []


def test_stdin_that_is_not_asked_for_is_left_alone(
    finished_run: Run, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stdin = io.TextIOWrapper(io.BytesIO(b"one line\nand another"))
    next(stdin)  # from here on its encoding cannot be changed
    monkeypatch.setattr("sys.stdin", stdin)
    assert main(["predict", str(finished_run.folder), str(photos / "a.png")]) == 0


@pytest.mark.parametrize("suffix", ["jpg", "png"])
def test_an_image_on_stdin_is_told_not_printed(
    finished_run: Run, suffix: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    image = tmp_path / f"a.{suffix}"
    Image.new("RGB", (64, 64), "red").save(image)
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(image.read_bytes())))
    assert main(["predict", str(finished_run.folder), "-"]) == 2
    printed = capsys.readouterr()
    assert printed.err.endswith(": standard input (-) takes one path a line, and this is no text.\n")
    assert printed.err.count("\n") == 1
    assert not printed.out


def test_a_missing_file_alone_is_told_not_raised(finished_run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["predict", str(finished_run.folder), "nowhere.jpg"]) == 1
    printed = capsys.readouterr()
    assert "nowhere.jpg  cannot be read" in printed.out
    assert printed.out.endswith("No image was classified\n")
    assert printed.err == "1 of 1 files cannot be read: nowhere.jpg (No such file or directory)\n"


def test_so_is_a_pattern_that_matches_nothing_beside_what_is_found(
    finished_run: Run, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["predict", str(finished_run.folder), f"{photos}/x*.jpg", str(photos / "a.png")]) == 1
    printed = capsys.readouterr()
    assert f"{photos}/x*.jpg  cannot be read" in printed.out
    assert printed.err == f"1 of 2 files cannot be read: {photos}/x*.jpg (no file matches)\n"
    first, second = Predictor(finished_run)([f"{photos}/x*.jpg", str(photos / "a.png")])
    assert (first.path, first.error, second.error) == (photos / "x*.jpg", "no file matches", None)
    assert main(["predict", str(finished_run.folder), f"{photos}/x*.jpg"]) == 2
    assert capsys.readouterr().err.startswith(f"No images in {photos}/x*.jpg. Name files, folders or patterns.")


def test_the_grid_is_drawn(finished_run: Run, photos: Path, tmp_path: Path) -> None:
    grid = tmp_path / "grid.png"
    assert main(["predict", str(finished_run.folder), str(photos), "--grid", str(grid)]) == 1
    with Image.open(grid) as image:
        assert image.width > 600


def test_a_grid_of_nothing_is_not_said_to_be_written(
    finished_run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    grid = tmp_path / "grid.png"
    assert main(["predict", str(finished_run.folder), "nowhere.jpg", "--grid", str(grid)]) == 1
    assert "Written" not in capsys.readouterr().out
    assert not grid.exists()


def test_a_prediction_shows_what_it_says() -> None:
    said = Prediction(Path("a.jpg"), (("ants", 0.75), ("bees", 0.25)))
    assert repr(said) == "Prediction('a.jpg', 'ants' 0.7500, 'bees' 0.2500)"
    many = Prediction(None, tuple((str(number), 0.1) for number in range(10)))
    assert repr(many) == "Prediction(None, '0' 0.1000, '1' 0.1000, '2' 0.1000 and 7 more)"
    assert repr(Prediction(None, error="it is empty")) == "Prediction(None, error='it is empty')"


def test_a_predictor_shows_what_it_is_of(finished_run: Run) -> None:
    predictor = Predictor(finished_run, "cpu")
    assert repr(predictor) == f"Predictor('{finished_run.folder}', squeezenet1_1, 3 classes: blue, green, red; on cpu)"


def test_the_grid_names_prediction_and_file() -> None:
    shown = [Prediction(Path("photos") / ("$x$" * 20 + ".jpg"), (("ants", 0.75), ("bees", 0.25)))]
    grid = photo_grid([torch.zeros(3, 8, 8, dtype=torch.uint8)], shown, 40)
    assert grid.titles[0].splitlines()[0] == "ants 75%"
    assert len(grid.titles[0].splitlines()[1]) <= 24
    assert grid.heading == "Predictions of 1 of 40 images, evenly chosen"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nothing/*.jpg"], "No images in nothing/*.jpg."),
        (["a.jpg", "--out", "table.xlsx"], "--out must end in .csv or .json, got 'table.xlsx'."),
        (["a.jpg", "--grid", "no/such/grid.png"], "--grid=no/such/grid.png cannot be written"),
        (["a.jpg", "--out", "folder.csv"], "--out=folder.csv is a folder: name a file."),
        (["a.jpg", "--top", "0"], "--top must be at least 1, got 0."),
        (["a.jpg", "--device", "abacus"], "The device 'abacus' cannot be used on this machine"),
        (["a.jpg", "--device", "tpu"], "The device 'tpu' cannot be used on this machine"),
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
    Path("folder.csv").mkdir()
    assert main(["predict", str(finished_run.folder), *arguments]) == 2
    assert capsys.readouterr().err.startswith(message)


def test_a_folder_that_is_no_run_is_a_users_mistake(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["predict", str(tmp_path), "a.jpg"]) == 2
    assert "is not the folder of a finished run" in capsys.readouterr().err


def test_a_run_among_the_images_is_refused(finished_run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    folder = str(finished_run.folder)
    assert main(["predict", folder, folder]) == 2
    expected = f"{folder} is the folder of a run, and no images: one run predicts, {folder}.\n"
    assert capsys.readouterr().err == expected


def test_an_image_that_a_shell_puts_behind_grid_is_not_drawn_over(
    finished_run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("a.png", "b.png"):
        Image.new("RGB", (8, 8)).save(tmp_path / name)
    before = (tmp_path / "a.png").read_bytes()
    arguments = ["--grid", str(tmp_path / "a.png"), str(tmp_path / "b.png")]
    assert main(["predict", str(finished_run.folder), *arguments]) == 2
    assert "is there already, among the images: it may be one." in capsys.readouterr().err
    assert (tmp_path / "a.png").read_bytes() == before


# ---- a checkpoint alone


def test_a_checkpoint_alone_predicts_what_its_run_does(
    finished_run: Run, image_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    alone = Path(shutil.copy(finished_run.best, tmp_path / "model.ckpt"))
    said, expected = (Predictor(source)(image_folder / "val") for source in (alone, finished_run))
    assert isinstance(said, list)
    assert isinstance(expected, list)
    assert [each.label for each in said] == [each.label for each in expected]
    assert [each.probability for each in said] == pytest.approx([each.probability for each in expected], abs=0.02)
    assert main(["predict", str(alone), str(image_folder / "val/red/0.png")]) == 0
    assert "0.png" in capsys.readouterr().out
    assert main(["predict", str(alone), str(image_folder / "val/red/0.png"), "--tta"]) == 2
    assert capsys.readouterr().err == f"--tta needs the whole run, for its augmentation: {alone} is a file alone.\n"
    assert main(["report", str(alone)]) == 2
    assert capsys.readouterr().err.endswith("`thaw predict`, `thaw export` and, with --data, `thaw evaluate` work.\n")
