import pytest
from test_checkpoints import Scripted, fit

from thaw.training.validation import EvaluationEpochs


@pytest.mark.parametrize(
    ("first", "every", "max_epochs", "validated"),
    [
        (1, 1, 3, [1, 2, 3]),
        (1, 2, 5, [1, 3, 5]),
        (2, 2, 5, [2, 4, 5]),
        (5, 5, 12, [5, 10, 12]),
        (3, 10, 4, [3, 4]),
        (4, 1, 4, [4]),
        (1, 100, 1, [1]),
    ],
)
def test_validation_from_the_first_epoch_on_at_each_interval_and_at_the_end(
    first: int, every: int, max_epochs: int, validated: list[int]
) -> None:
    model = Scripted([0.5] * max_epochs)
    fit(model, EvaluationEpochs(first, every))
    assert [epoch + 1 for epoch in model.validated] == validated
