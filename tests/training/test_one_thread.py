from collections.abc import Iterator

import lightning.pytorch as pl
import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from thaw.data.sampling import Batch
from thaw.model.classifier import Classifier
from thaw.training.one_thread import OneThread, one_thread


class Witness(Classifier):
    """Counts the threads that its steps are given, in training and validation."""

    def __init__(self, ends_badly: bool = False) -> None:
        super().__init__("squeezenet1_1", ("ants", "bees"))
        self.ends_badly = ends_badly
        self.threads: list[int] = []

    def training_step(self, batch: Batch, batch_idx: int) -> torch.Tensor:
        self.threads.append(torch.get_num_threads())
        if self.ends_badly:
            raise RuntimeError("broken")
        return super().training_step(batch, batch_idx)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self.threads.append(torch.get_num_threads())
        super().validation_step(batch, batch_idx)


class Rows(TensorDataset):
    """Counts the threads that load each item."""

    threads: list[int]

    def __getitem__(self, index: int) -> tuple[torch.Tensor, ...]:
        self.threads.append(torch.get_num_threads())
        return super().__getitem__(index)


@pytest.fixture(autouse=True)
def three_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


def fit(model: Witness, inputs: torch.Tensor, max_epochs: int = 1) -> list[int]:
    """Train on two batches an epoch; returns the threads by which each item was loaded."""
    rows = Rows(inputs, torch.zeros(len(inputs), dtype=torch.long))
    rows.threads = []
    loader = DataLoader(rows, len(inputs) // 2)
    pl.Trainer(
        max_epochs=max_epochs,
        num_sanity_val_steps=0,
        log_every_n_steps=1,
        accelerator="cpu",
        callbacks=[OneThread()],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    ).fit(model, loader, loader)
    return rows.threads


def test_small_steps_on_features_are_done_by_one_thread_what_comes_after_by_all() -> None:
    model = Witness()
    fit(model, torch.randn(8, 512))
    assert model.threads == [1, 1, 1, 1]
    assert torch.get_num_threads() == 3


def test_small_batches_are_loaded_by_one_thread_after_the_first() -> None:
    loading = fit(Witness(), torch.randn(2, 512), max_epochs=2)
    assert set(loading) == {1, 3}
    assert loading.index(1) <= 2  # Lightning loads a batch ahead


@pytest.mark.parametrize("inputs", [torch.zeros(4, 3, 64, 64, dtype=torch.uint8), torch.randn(40_000, 512)])
def test_steps_on_images_and_large_ones_on_features_are_shared(inputs: torch.Tensor) -> None:
    model = Witness()
    fit(model, inputs)
    assert model.threads == [3, 3, 3, 3]


def test_all_threads_work_after_a_step_that_fails() -> None:
    model = Witness(ends_badly=True)
    with pytest.raises(RuntimeError, match="broken"):
        fit(model, torch.randn(8, 512))
    assert (model.threads, torch.get_num_threads()) == ([1], 3)


def test_all_threads_work_after_what_one_has_done() -> None:
    with one_thread():
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == 3
