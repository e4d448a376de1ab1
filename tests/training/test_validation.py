import pytest
from test_checkpoints import Scripted, fit

from thaw.training.stopping import LastStep
from thaw.training.validation import EvaluationEpochs


@pytest.mark.parametrize(
    ("every", "max_epochs", "validated"),
    [(1, 3, [1, 2, 3]), (2, 5, [2, 4, 5]), (5, 12, [5, 10, 12]), (10, 4, [4]), (100, 1, [1])],
)
def test_validation_at_each_interval_and_at_the_end(every: int, max_epochs: int, validated: list[int]) -> None:
    model = Scripted([0.5] * max_epochs)
    fit(model, EvaluationEpochs(every))
    assert [epoch + 1 for epoch in model.validated] == validated


def test_an_epoch_that_a_callback_makes_the_last_is_validated() -> None:
    model = Scripted([0.5] * 5)
    fit(model, LastStep(6), EvaluationEpochs(2))
    assert [epoch + 1 for epoch in model.validated] == [2, 3]


@pytest.mark.parametrize(
    ("interval", "validated"), [(2, [1, 1, 1, 2, 2, 2]), (0.4, [1, 1, 1, 2, 2, 2]), ("00:01:00:00", [1, 2])]
)
def test_the_end_of_an_epoch_is_validated_whatever_the_interval(interval: float | str, validated: list[int]) -> None:
    model = Scripted([0.5] * 2)
    flags = {"val_check_interval": interval, "reload_dataloaders_every_n_epochs": 1}  # as in Thaw's Trainer
    fit(model, EvaluationEpochs(1), num_batches=5, **flags)
    assert [epoch + 1 for epoch in model.validated] == validated
