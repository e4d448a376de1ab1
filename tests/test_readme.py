"""What the README and docs/ say can be typed, can be."""

import re
import shlex
from collections.abc import Callable
from itertools import product
from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import IntervalSweep, Override
from omegaconf import DictConfig, OmegaConf
from PIL import Image

from thaw.cli import _parser
from thaw.overrides import readable

ROOT = Path(__file__).parents[1]
README, *DOCS = [path.read_text(encoding="utf-8") for path in (ROOT / "README.md", *(ROOT / "docs").glob("*.md"))]


def blocks(language: str, *texts: str) -> list[str]:
    return [block for text in texts for block in re.findall(rf"```{language}\n(.*?)```", text, flags=re.DOTALL)]


def commands(program: str) -> list[str]:
    """The command lines from the program's name on, without those that leave something out."""
    lines = "\n".join(blocks("bash", README, *DOCS)).replace("\\\n", " ").splitlines()
    inline = re.findall(r"`([^`\n]*)`", "\n".join([README, *DOCS]))
    texts = [line.partition("#")[0].strip() for line in [*lines, *inline]]
    launched = rf"(?:(?:python|torchrun .*|srun .*) +)?({re.escape(program)} .*)"
    found = [re.fullmatch(launched, text) for text in texts]
    return sorted({match[1] for match in found if match and "…" not in match[1]})


def jobs(line: str) -> list[list[str]]:
    """The overrides of each job of a command, or of the ends of an interval; values are swept only with -m."""
    words = readable(shlex.split(line.removeprefix("thaw "))[1:])
    if "-m" not in words:
        return [words]
    overrides = OverridesParser.create().parse_overrides([word for word in words if word != "-m"])
    return [list(job) for job in product(*map(values, overrides))]


def values(override: Override) -> list[str]:
    if not override.is_sweep_override():
        return [str(override.input_line)]
    value = override.value()
    ends = [value.start, value.end] if isinstance(value, IntervalSweep) else override.sweep_string_iterator()
    return [f"{override.get_key_element()}={end}" for end in ends]


@pytest.mark.parametrize(
    "line",
    [
        line
        for program in ("train.py", "find_lr.py", "thaw train", "thaw find_lr")
        for line in commands(program)
        if "--" not in line and "-sc" not in line
    ],
)
def test_a_training_command_composes_and_is_accepted(
    line: str, compose: Callable[..., DictConfig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for folder in ("photos", "PATH"):
        Path(folder).mkdir()
    Path("FILE").touch()
    for name, content in re.findall(r"`(mine/[^`]+\.yaml)`[^`]*:\n\n```yaml\n(.*?)```", "".join(DOCS), flags=re.DOTALL):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_text(content)
    for overrides in jobs(line):
        OmegaConf.to_object(compose(*overrides))


@pytest.mark.parametrize(
    "line",
    [
        line
        for line in commands("thaw")
        if "--help" not in line and line.count(" ") > 1 and not line.startswith(("thaw train ", "thaw find_lr "))
    ],
)
def test_a_command_on_runs_is_understood(line: str) -> None:
    assert callable(_parser().parse_args(shlex.split(line)[1:]).run)


def test_every_strategy_and_recipe_is_in_the_readme() -> None:
    for group in ("strategy", "experiment", "dataset"):
        for path in (ROOT / "conf" / group).glob("*.yaml"):
            if not path.stem.startswith("digits_") and path.stem != "pets_last_stages":
                assert re.search(rf"\b{path.stem}\b", README), path


@pytest.mark.parametrize("source", blocks("python", README, *DOCS))
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
        small = "config.backbone.name, config.backbone.weights = 'squeezenet1_1', None"
        source = source.replace("max_epochs=5", "max_epochs=1").replace("\nsummary =", f"\n{small}\nsummary =")
        (tmp_path / "more").mkdir()
        for name in ("garden.jpg", "more/1.jpg"):
            Image.new("RGB", (80, 90), "red").save(name)
    exec(compile(source, "README.md", "exec"), {})
    assert capsys.readouterr().out
