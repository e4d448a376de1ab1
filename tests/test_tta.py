from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from test_evaluation import crops
from thaw.errors import ThawError
from thaw.evaluation import evaluate
from thaw.inspection.predictions import Predictions
from thaw.run import Run
from thaw.tta import average


def test_tta_is_the_mean_of_the_probabilities_of_crop_and_mirror(finished_run: Run, image_folder: Path) -> None:
    evaluation = evaluate(finished_run, tta=True)
    classifier = finished_run.load_classifier()
    images = crops(classifier, image_folder, evaluation.predictions)
    with torch.no_grad():
        plain, mirrored = classifier(images).softmax(dim=1), classifier(images.flip(-1)).softmax(dim=1)
    assert not torch.allclose(plain, mirrored, atol=1e-4)
    torch.testing.assert_close(evaluation.predictions.probabilities, (plain + mirrored) / 2, rtol=1e-4, atol=1e-5)
    assert evaluation.num_views == 2


@pytest.mark.parametrize(("flip", "axes"), [(0.5, [(), (3,), (2,), (2, 3)]), (0, [(), (2,)])])
def test_tta_has_all_mirror_images_that_the_training_had(
    changed_run: Callable[[str, object], Run], image_folder: Path, flip: float, axes: list[tuple[int, ...]]
) -> None:
    run = changed_run("augment", {"flip": flip, "vertical_flip": 0.5})
    evaluation, classifier = evaluate(run, tta=True), run.load_classifier()
    images = crops(classifier, image_folder, evaluation.predictions)
    with torch.no_grad():
        shares = torch.stack([classifier(images.flip(each)).softmax(dim=1) for each in axes])
    torch.testing.assert_close(evaluation.predictions.probabilities, shares.mean(dim=0), rtol=1e-4, atol=1e-5)
    assert evaluation.num_views == len(axes)


def test_random_views_are_drawn_by_the_seed_and_join_the_mean(changed_run: Callable[[str, object], Run]) -> None:
    run = changed_run("dataset.num_workers", 0)
    plain, one, two = (run.evaluate(random_views=number).probabilities for number in (0, 1, 2))
    assert torch.equal(run.evaluate(random_views=2).probabilities, two)
    assert not torch.allclose(one, plain, atol=1e-4)
    second = 3 * two - 2 * one  # what the second random view must have said
    assert not torch.allclose(second, 2 * one - plain, atol=1e-4)
    assert ((second > -1e-5) & (second < 1 + 1e-5)).all()
    assert evaluate(run, tta=True, random_views=2).num_views == 4


def test_an_augmentation_of_ones_own_may_be_gone_where_no_random_view_is_drawn(
    changed_run: Callable[[str, object], Run],
) -> None:
    run = changed_run("augment", {"transforms": {"salt": {"_target_": "salt_that_is_gone.Salt"}}})
    assert evaluate(run, tta=True).num_views == 2
    with pytest.raises(ThawError, match="salt_that_is_gone"):
        evaluate(run, random_views=1)


def test_the_average_is_of_probabilities_and_survives_certainty() -> None:
    logits = torch.tensor([[0.0, 1.0], [400.0, 0.0]]), torch.tensor([[2.0, 0.0], [300.0, 0.0]])
    views = [Predictions(["a", "b"], torch.tensor([0, 1]), each, ("x", "y")) for each in logits]
    mean = average(views)
    torch.testing.assert_close(mean.probabilities, (views[0].probabilities + views[1].probabilities) / 2)
    assert mean.losses[1] == pytest.approx(300.6931)  # log(2 / exp(-300)), where a probability would be 0


def test_views_that_add_nothing_are_refused(changed_run: Callable[[str, object], Run]) -> None:
    run = changed_run("augment", {"flip": 0})
    with pytest.raises(ThawError, match=r"`tta` has nothing to add: the run has augment\.flip=0"):
        evaluate(run, tta=True)
    assert evaluate(run, tta=True, random_views=1).num_views == 2


def test_a_run_that_used_no_mirror_images_is_not_judged_by_them(changed_run: Callable[[str, object], Run]) -> None:
    with pytest.raises(ThawError, match=r"`tta` has nothing to add: the run has augment\.policy=none"):
        evaluate(changed_run("augment.policy", "none"), tta=True)


def test_random_views_need_a_random_augmentation(changed_run: Callable[[str, object], Run]) -> None:
    with pytest.raises(ThawError, match="`random_views` has nothing to add: the run has augment"):
        evaluate(changed_run("augment.policy", "none"), random_views=2)
