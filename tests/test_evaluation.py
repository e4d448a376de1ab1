import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor

from thaw.config import BackboneConfig, Config, DatasetConfig, LoggerConfig, TrainerConfig
from thaw.data.images import read_image
from thaw.errors import ThawError
from thaw.evaluation import evaluate
from thaw.evaluation_files import write_evaluation
from thaw.inspection.prediction_files import read_predictions
from thaw.inspection.predictions import Predictions
from thaw.model.classifier import Classifier
from thaw.predict import Predictor
from thaw.run import Run
from thaw.training.train import train


def crops(classifier: Classifier, folder: Path, predictions: Predictions) -> Tensor:
    """The centre crops (N, 3, S, S) of the images that predictions are of."""
    return torch.stack([classifier.transform(read_image(folder / path)) for path in predictions.paths])


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("THAW_CACHE", str(tmp_path_factory.mktemp("cache")))


def trained(folder: Path, max_epochs: int = 1, precision: str = "32", **dataset: Any) -> Run:
    """A run on the images in `folder / "images"`, of which 0.3 are split off as test images unless told otherwise."""
    options = {"image_size": 64, "batch_size": 4, "test_fraction": 0.3} | dataset
    config = Config(
        dataset=DatasetConfig(root=str(folder / "images"), **options),
        backbone=BackboneConfig("squeezenet1_1", None),
        trainer=TrainerConfig(max_epochs=max_epochs, accelerator="cpu", precision=precision),
        logger=LoggerConfig("csv"),
    )
    train(config, folder / "run")
    return Run(folder / "run")


# ---- which images


def test_val_is_judged_as_the_training_judged_it_to_the_last_digit(finished_run: Run) -> None:
    assert finished_run.evaluate().metrics() == finished_run.summary["val"]


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["bf16-mixed", "64"])
def test_so_is_a_frozen_backbone_whose_training_saw_features_only(
    image_folder: Path, tmp_path: Path, precision: str
) -> None:
    shutil.copytree(image_folder / "train", tmp_path / "images")
    run = trained(tmp_path, max_epochs=3, precision=precision)
    assert evaluate(run).split == "test"
    assert run.evaluate().metrics() == run.summary["test"]
    assert run.evaluate("val").metrics() == run.summary["val"]


@pytest.mark.parametrize(
    ("split", "n", "caution"),
    [
        (None, 9, "The best epoch was chosen on these images, so the figures flatter."),
        ("val", 9, "The best epoch was chosen on these images, so the figures flatter."),
        ("train", 18, "The classifier has learned from these images."),
    ],
)
def test_it_says_which_images_they_are_and_what_the_figures_are_worth(
    finished_run: Run, split: str | None, n: int, caution: str
) -> None:
    evaluation = evaluate(finished_run, split)
    assert (evaluation.split, evaluation.caution) == (split or "val", caution)
    assert len(evaluation.predictions.labels) == n
    assert (evaluation.precision, evaluation.device) == ("32-true", "cpu")


@pytest.mark.parametrize(
    ("copies", "caution"),
    [
        ({}, ""),
        ({"train/red/0.png": "red/x.png"}, "Of 4 images, the run was trained on 1, so the figures flatter."),
        ({f"train/red/{n}.png": f"red/x{n}.png" for n in range(3)}, "Of 6 images, the run was trained on 3, so"),
        ({"val/red/2.png": "blue/x.png"}, "Of 3 images, the run chose its best epoch on 1, so the figures flatter."),
        (
            {"val/red/2.png": "blue/x.png", "train/red/0.png": "red/x.png"},
            "Of 4 images, the run was trained on 1 and chose its best epoch on 1, so the figures flatter.",
        ),
    ],
)
def test_training_images_among_others_are_noticed(
    finished_run: Run, image_folder: Path, tmp_path: Path, copies: dict[str, str], caution: str
) -> None:
    data = tmp_path / "new"
    for name, colour in (("red/new.png", "red"), ("red/twice.png", "red"), ("blue/x.png", "blue")):
        (data / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (80, 80), colour).save(data / name)
    for source, target in copies.items():
        shutil.copy(image_folder / source, data / target)
    found = evaluate(finished_run, data=data).caution
    assert found.startswith(caution)
    assert bool(found) == bool(caution)


def test_training_images_that_are_gone_are_not_missed(
    changed_run: Callable[[str, object], Run], image_folder: Path, tmp_path: Path
) -> None:
    run = changed_run("dataset", {"name": "hotdog", "root": str(tmp_path)})
    assert evaluate(run, data=image_folder / "train").caution == ""
    assert not (tmp_path / "hotdog").exists()


@pytest.mark.parametrize(
    ("asked", "trained", "is_fast_at_bf16", "precision"),
    [
        ("auto", "bf16-mixed", True, "bf16-mixed"),
        ("auto", "bf16-mixed", False, "32-true"),
        ("auto", "16-mixed", True, "bf16-mixed"),
        ("auto", "32-true", True, "32-true"),
        ("bf16-mixed", "bf16-mixed", False, "bf16-mixed"),
        ("32", "32-true", True, "32-true"),
    ],
)
def test_evaluation_and_prediction_keep_the_precision_unless_auto_chose_it_for_a_faster_device(
    changed_run: Callable[[str, object], Run],
    monkeypatch: pytest.MonkeyPatch,
    asked: str,
    trained: str,
    is_fast_at_bf16: bool,
    precision: str,
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": is_fast_at_bf16})
    run = changed_run("trainer.precision", asked)
    run.write_summary(run.summary | {"precision": trained})
    assert evaluate(run, device="cpu").precision == precision
    assert Predictor(run, "cpu").precision == precision


def test_training_images_are_not_augmented(finished_run: Run, image_folder: Path) -> None:
    evaluation = evaluate(finished_run, "train")
    expected = crops(finished_run.load_classifier(), image_folder, evaluation.predictions)
    assert torch.equal(torch.stack(evaluation.show(range(18))), expected)


def test_a_split_that_is_not_there_is_a_users_mistake(finished_run: Run) -> None:
    with pytest.raises(ThawError, match=r"no test split in .*: it has train, val\. A training with .* makes one"):
        evaluate(finished_run, "test")


def test_test_images_that_served_as_val_are_found_as_test(image_folder: Path, tmp_path: Path) -> None:
    shutil.copytree(image_folder / "train", tmp_path / "images" / "train")
    shutil.copytree(image_folder / "val", tmp_path / "images" / "test")
    run = trained(tmp_path, max_epochs=2, val_fraction=0, test_fraction=0)
    (tmp_path / "images" / "train" / "red" / "0.png").unlink()
    evaluation = evaluate(run, "test")
    assert evaluation.caution.startswith("The best epoch was chosen on these images")
    assert evaluation.predictions.metrics() == run.summary["val"]


def test_images_that_were_moved_are_asked_for(changed_run: Callable[[str, object], Run]) -> None:
    with pytest.raises(ThawError, match=r"are not at nowhere, as seen from .*, or name labelled images by `data`\."):
        evaluate(changed_run("dataset.root", "nowhere"))


def test_no_epoch_of_a_probe_is_said_to_be_chosen(changed_run: Callable[[str, object], Run]) -> None:
    run = changed_run("trainer.max_epochs", 0)
    run.metrics_csv.unlink()
    run.write_summary(run.summary | {"epochs": 0})
    assert evaluate(run).caution == ""


def test_images_that_have_come_or_gone_change_no_split_that_was_drawn_by_chance(
    image_folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    images = shutil.copytree(image_folder / "train", tmp_path / "images")
    run = trained(tmp_path)
    n = run.summary["test"]["n"]
    caplog.clear()
    with caplog.at_level(logging.WARNING, "thaw"):
        evaluate(run)
        assert not caplog.records
        for number in range(20):
            Image.new("RGB", (80, 80), "red").save(images / "red" / f"a{number}.png")
        shutil.copytree(images / "red", images / "a class of later")
        assert run.evaluate().metrics() == run.summary["test"]
        assert run.evaluate("val").metrics() == run.summary["val"]
        (images / run.evaluate().paths[0]).unlink()
        assert len(run.evaluate().labels) == n - 1
    assert (
        f"The images in {images} are no longer those of the training. Judged are those of its {n} test images that are "
        f"there: {n - 1}."
    ) in caplog.messages


def test_so_it_is_of_images_in_other_places(image_folder: Path, tmp_path: Path) -> None:
    images = shutil.copytree(image_folder / "train", tmp_path / "images")
    run = trained(tmp_path, max_epochs=2)
    judged = shutil.copytree(images, tmp_path / "judged")
    Image.new("RGB", (80, 80), "red").save(images / "red" / "new.png")
    n, n_val, n_test = 18, run.summary["val"]["n"], run.summary["test"]["n"]
    assert evaluate(run, data=judged).caution == (
        f"Of {n} images, the run may have been trained on {n - n_val - n_test} and chose its best epoch on {n_val}, so "
        "the figures flatter."
    )


def test_of_images_that_are_all_gone_none_is_judged(image_folder: Path, tmp_path: Path) -> None:
    images = shutil.copytree(image_folder / "train", tmp_path / "images")
    run = trained(tmp_path)
    for path in read_predictions(run.predictions_csv)["test"].paths:
        (images / path).unlink()
    with pytest.raises(ThawError, match=r"no longer those of the training: none of its test images are there\."):
        run.evaluate()
    assert run.evaluate("val").metrics() == run.summary["val"]


def test_so_it_is_where_unreadable_ones_are_left_out(
    image_folder: Path, changed_run: Callable[[str, object], Run], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data = shutil.copytree(image_folder, tmp_path / "data")
    run = changed_run("dataset", {"root": str(data), "on_bad": "skip"})
    (data / "train" / "red" / "broken.png").write_text("no image")
    (data / "val" / "red" / "dangling.png").symlink_to("nowhere")
    with caplog.at_level(logging.WARNING, "thaw"):
        evaluate(run)
        assert [message.split(":")[0] for message in caplog.messages] == [
            "2 of 29 files cannot be read as images and are left out"
        ]
        (data / "val" / "red" / "0.png").unlink()
        evaluate(run)
    assert "are no longer those of the training" in caplog.text
    assert evaluate(run, "train").caution == "The classifier may have learned from these images, or from some of them."


# ---- other images


@pytest.fixture
def some_classes(image_folder: Path, tmp_path: Path) -> Path:
    """The validation images of red and green, in no split, below folders of another order than the classifier's."""
    root = tmp_path / "some"
    for name in ("red", "green"):
        shutil.copytree(image_folder / "val" / name, root / name)
    return root


def by_path(predictions: Predictions) -> dict[str, tuple[int, Tensor]]:
    """Label and logits of each image by the last two parts of its path."""
    names = ["/".join(Path(path).parts[-2:]) for path in predictions.paths]
    return dict(zip(names, zip(predictions.labels.tolist(), predictions.logits, strict=True), strict=True))


def assert_same(few: Predictions, all_of_them: Predictions) -> None:
    """The same images have the same labels and logits."""
    expected = by_path(all_of_them)
    for path, (label, logits) in by_path(few).items():
        assert label == expected[path][0]
        torch.testing.assert_close(logits, expected[path][1], rtol=1e-5, atol=1e-5)


def test_classes_are_matched_by_name(finished_run: Run, some_classes: Path) -> None:
    evaluation = evaluate(finished_run, data=some_classes)
    predictions = evaluation.predictions
    assert (evaluation.split, evaluation.caution) == (
        "all",
        "Of 6 images, the run chose its best epoch on 6, so the figures flatter.",
    )
    assert predictions.classes == ("blue", "green", "red")
    assert predictions.labels.tolist() == [1, 1, 1, 2, 2, 2]
    assert predictions.paths[0] == "green/0.png"
    assert_same(predictions, finished_run.evaluate())


def test_a_class_without_images_is_not_said_to_be_unlearned(
    finished_run: Run, some_classes: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "thaw"):
        finished_run.evaluate(data=some_classes)
    assert "not learned" not in caplog.text
    assert "Training refuses" not in caplog.text
    assert "Splits that lack a class: 1 (no blue in the images)." in caplog.text


def test_a_csv_file_may_list_them_in_any_order(finished_run: Run, image_folder: Path, tmp_path: Path) -> None:
    lines = [f"{image_folder}/val/{name}/{number}.png,{name}" for number in (2, 0) for name in ("red", "blue")]
    (tmp_path / "list.csv").write_text("\n".join(["path,label", *lines]))
    predictions = finished_run.evaluate(data=tmp_path / "list.csv")
    assert sorted(predictions.labels.tolist()) == [0, 0, 2, 2]
    (tmp_path / "other.csv").write_text("\n".join(["path,class", *lines]))
    others = finished_run.evaluate(data=tmp_path / "other.csv", columns={"csv_label": "class"})
    assert torch.equal(others.labels, predictions.labels)
    assert_same(predictions, finished_run.evaluate())


def test_the_class_may_stand_in_the_name_of_the_file(finished_run: Run, image_folder: Path, tmp_path: Path) -> None:
    for name in ("green", "blue"):
        shutil.copy(image_folder / "val" / name / "1.png", tmp_path / f"{name}_1.png")
    assert finished_run.evaluate(data=tmp_path, label_pattern="^(.+)_").labels.tolist() == [0, 1]
    with pytest.raises(ThawError, match=r"has no folders, so nothing tells the classes.*`label_pattern`"):
        finished_run.evaluate(data=tmp_path)


def test_a_flat_folder_is_read_by_the_runs_own_pattern(
    changed_run: Callable[[str, object], Run], image_folder: Path, tmp_path: Path
) -> None:
    run = changed_run("dataset.label_pattern", "^(.+)_")
    (tmp_path / "flat" / ".ipynb_checkpoints").mkdir(parents=True)
    shutil.copy(image_folder / "val" / "red" / "1.png", tmp_path / "flat" / "red_1.png")
    assert run.evaluate(data=tmp_path / "flat").labels.tolist() == [2]


def test_split_folders_are_told_apart(finished_run: Run, image_folder: Path) -> None:
    assert_same(finished_run.evaluate(data=image_folder), finished_run.evaluate())
    assert len(finished_run.evaluate("train", data=image_folder).labels) == 18
    with pytest.raises(ThawError, match=r"There is no test split in \S+: it has train, val\.$"):
        finished_run.evaluate("test", data=image_folder)
    with pytest.raises(ThawError, match=r"There is no test split in \S+: it has none\.$"):
        finished_run.evaluate("test", data=image_folder / "val")


def test_an_unknown_class_is_named_with_the_nearest_known_one(finished_run: Run, some_classes: Path) -> None:
    (some_classes / "red").rename(some_classes / "Red")
    with pytest.raises(ThawError) as error:
        finished_run.evaluate(data=some_classes)
    assert str(error.value) == (
        f"{some_classes} has a class that the classifier was not trained for: 'Red' (such as Red/0.png; n=3). "
        "Did you mean 'red'? It knows blue, green, red. Rename the class, or take it out."
    )


def test_the_folder_of_a_run_is_not_written_to(finished_run: Run) -> None:
    before = finished_run.predictions_csv.read_bytes()
    with pytest.raises(ThawError, match=r"is the folder of a run, whose predictions would be lost\. Name another one"):
        write_evaluation(evaluate(finished_run), finished_run.folder)
    assert finished_run.predictions_csv.read_bytes() == before


def test_a_path_that_is_not_there_is_named(finished_run: Run, tmp_path: Path) -> None:
    with pytest.raises(ThawError, match=r"There is no folder or CSV file of labelled images at .*absent"):
        finished_run.evaluate(data=tmp_path / "absent")


def test_an_unreadable_file_is_left_out_and_said(
    finished_run: Run, some_classes: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (some_classes / "red" / "broken.png").write_text("no image")
    with caplog.at_level(logging.WARNING, "thaw"):
        predictions = finished_run.evaluate(data=some_classes)
    assert len(predictions.labels) == 6
    assert "1 of 7 files cannot be read as images and are left out:\n  red/broken.png: its contents" in caplog.text


def test_a_line_without_a_file_is_left_out_and_said(
    finished_run: Run, some_classes: Path, caplog: pytest.LogCaptureFixture
) -> None:
    lines = [f"{path},red" for path in sorted((some_classes / "red").iterdir())]
    (some_classes / "labels.csv").write_text("\n".join(["path,label", *lines, "gone.png,blue"]))
    with caplog.at_level(logging.WARNING, "thaw"):
        predictions = finished_run.evaluate(data=some_classes / "labels.csv")
    assert len(predictions.labels) == len(lines)
    assert "Lines of the CSV file whose image does not exist: 1 (gone.png)." in caplog.text
