"""What the README says can be typed, can be."""

import re
import shlex
from collections.abc import Callable
from itertools import product
from pathlib import Path

import pytest
from omegaconf import DictConfig, OmegaConf

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


def commands(program: str) -> list[str]:
    lines = "\n".join(blocks("bash")).replace("\\\n", " ").splitlines()
    inline = re.findall(rf"`({re.escape(program)} [^`]*)`", README)
    return [line.partition("#")[0].strip() for line in [*lines, *inline] if line.startswith(program + " ")]


def jobs(line: str) -> list[list[str]]:
    """The overrides of each job of a command; a list of values is swept only with -m."""
    words = [word for word in shlex.split(line)[2:] if word != "-sc"]
    if "-m" not in words:
        return [words]
    choices = []
    for word in words:
        if word != "-m":
            key, _, values = word.partition("=")
            choices.append([f"{key}={value}" for value in values.split(",")])
    return [list(job) for job in product(*choices)]


@pytest.mark.parametrize(
    "line",
    [
        line
        for program in ("python train.py", "python find_lr.py")
        for line in commands(program)
        if "--" not in line and "-sc" not in line
    ],
)
def test_a_training_command_composes_and_is_accepted(line: str, compose: Callable[..., DictConfig]) -> None:
    for overrides in jobs(line):
        OmegaConf.to_object(compose(*overrides))


def test_every_strategy_and_recipe_is_in_the_readme() -> None:
    conf = Path(__file__).parents[1] / "conf"
    for group in ("strategy", "experiment", "dataset"):
        for path in (conf / group).glob("*.yaml"):
            if not path.stem.startswith("digits_") and path.stem != "pets_last_stages":
                assert re.search(rf"\b{path.stem}\b", README), path


@pytest.mark.parametrize("source", blocks("python"))
def test_the_python_api_runs(
    source: str, image_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("THAW_CACHE", str(tmp_path / "cache"))
    (tmp_path / "photos").symlink_to(image_folder)
    if "find_weights" in source:  # the official weights are not here: the same file format with random numbers is
        source = source.replace('"resnet18"', '"squeezenet1_1"').replace('"default"', '"weights.pth"')
        source = source.replace("max_epochs=5", "max_epochs=1, logger=False, enable_checkpointing=False")
        import torch
        import torchvision

        torch.save(torchvision.models.squeezenet1_1().state_dict(), "weights.pth")
    else:
        source = source.replace("max_epochs=5", "max_epochs=1").replace(
            "config.strategy =",
            "config.backbone.name, config.backbone.weights = 'squeezenet1_1', None\nconfig.strategy =",
        )
    exec(compile(source, "README.md", "exec"), {})
    assert capsys.readouterr().out
