from thaw.run import Run
from thaw.summary import ALWAYS, Metrics, Params, Seconds, Summary


def test_a_training_writes_each_figure_that_is_described_and_no_other(finished_run: Run) -> None:
    summary = finished_run.summary
    assert list(summary) == list(Summary.__annotations__)
    assert summary["val"].keys() == Metrics.__required_keys__  # of three classes
    assert summary["seconds"].keys() == Seconds.__required_keys__
    assert summary["params"].keys() == Params.__required_keys__


def test_what_is_required_of_a_run_of_any_version_is_described() -> None:
    assert ALWAYS.keys() <= Summary.__required_keys__
