import pytest

from thaw.errors import ThawError
from thaw.launch.hydra_arguments import refuse_flags


@pytest.mark.parametrize(
    ("arguments", "example"),
    [
        (["--epochs", "3"], "trainer.max_epochs=3, got --epochs."),
        (["seed=1", "--batch-size=16"], "dataset.batch_size=16, got --batch-size."),
        (["--strategy=frozen"], "strategy=frozen, got --strategy."),
        (["--strategy", "seed=1"], "strategy=VALUE, got --strategy."),
        (["--foo", "3"], "trainer.max_epochs=3, got --foo."),
        (["-m", "-lr", "0.1"], "optimizer.lr=0.1, got -lr."),
        (["-model", "resnet50"], "backbone=resnet50, got -model."),
        (["-patience=3"], "trainer.early_stopping=3, got -patience."),
        (["-cfg", "job"], "trainer.max_epochs=3, got -cfg."),
    ],
)
def test_a_flag_that_is_none_of_hydras_is_refused(arguments: list[str], example: str) -> None:
    with pytest.raises(ThawError) as caught:
        refuse_flags(arguments)
    assert str(caught.value) == f"Options are written KEY=VALUE, e.g. {example}"


@pytest.mark.parametrize("line", ["optimizer.lr = 0.01 seed=1", "seed=1 optimizer.lr =0.01"])
def test_a_space_before_a_value_is_refused(line: str) -> None:
    with pytest.raises(ThawError, match=r"^Options are written KEY=VALUE without spaces: optimizer\.lr=0\.01$"):
        refuse_flags(line.split())


@pytest.mark.parametrize(
    "line",
    ["", "-h", "-m seed=1,2", "--multirun a=--b", "--cfg job", "-cjob", "-iconfig", "--config-name=x", "-cn x",
     "-sc install=bash", "--info defaults", "--resolve --package x", "--hydra-help", "--version",
     "~seed"],
)  # fmt: skip
def test_hydras_own_flags_pass(line: str) -> None:
    refuse_flags(line.split())


@pytest.mark.parametrize(("line", "flag"), [("--multi seed=1,2", "--multirun"), ("--config-d=mine", "--config-dir")])
def test_flags_are_not_shortened(line: str, flag: str) -> None:  # only Hydra would know what they mean
    with pytest.raises(ThawError, match=f"^Flags are written in full: {flag}, got --"):
        refuse_flags(line.split())
