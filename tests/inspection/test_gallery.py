import shutil
from base64 import b64decode
from io import BytesIO
from pathlib import Path

import pytest
import torch
from PIL import Image

from thaw.inspection.gallery import SIDE, make_gallery, to_data_uri
from thaw.inspection.prediction_files import read_predictions
from thaw.inspection.predictions import Predictions
from thaw.run import Run


@pytest.fixture
def predictions(finished_run: Run) -> Predictions:
    return read_predictions(finished_run.predictions_csv)["val"]


def decode(address: str | None) -> Image.Image:
    assert address
    return Image.open(BytesIO(b64decode(address.removeprefix("data:image/jpeg;base64,"))))


def test_the_worst_come_first_with_their_heat(finished_run: Run, predictions: Predictions, image_folder: Path) -> None:
    gallery = make_gallery(finished_run, predictions, image_folder, most=4)
    losses = [card.loss for card in gallery.top_losses]
    assert losses == sorted(predictions.losses.tolist(), reverse=True)[:4]
    assert [card.shares[0][1] for card in gallery.least_certain] == sorted(predictions.confidences.tolist())[:4]
    assert all(decode(card.picture).size == decode(card.heat).size == (64, 64) for card in gallery.top_losses)
    assert gallery.note == ""
    for card in gallery.top_losses:
        assert card.path.startswith(f"val/{card.actual}/")
        assert card.predicted == card.shares[0][0]
        assert [share for _, share in card.shares] == sorted((share for _, share in card.shares), reverse=True)


def test_a_missing_image_leaves_its_place(
    finished_run: Run, predictions: Predictions, image_folder: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "images"
    shutil.copytree(image_folder, folder)
    lost = predictions.paths[predictions.top_losses(1)[0]]
    (folder / lost).unlink()
    first, *others = make_gallery(finished_run, predictions, folder, most=9).top_losses
    assert (first.path, first.picture, first.heat) == (lost, None, None)
    assert all(card.picture and card.heat for card in others)


def test_without_a_checkpoint_there_are_no_pictures_but_a_reason(
    finished_run: Run, predictions: Predictions, image_folder: Path, tmp_path: Path
) -> None:
    gallery = make_gallery(Run(tmp_path), predictions, image_folder, most=2)
    assert [card.picture for card in gallery.top_losses] == [None, None]
    assert "best.ckpt" in gallery.note


def test_large_pictures_are_made_small() -> None:
    picture = decode(to_data_uri(torch.full((3, 480, 480), 128, dtype=torch.uint8)))
    assert (picture.size, picture.format) == ((SIDE, SIDE), "JPEG")
