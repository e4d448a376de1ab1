"""What a hostile file could get hold of must not be in the sources."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCES = [*sorted((ROOT / "src").rglob("*.py")), ROOT / "train.py"]
FORBIDDEN_CALLS = {"eval", "exec", "compile", "__import__", "os.system", "os.popen", "yaml.load", "yaml.unsafe_load"}
FORBIDDEN_MODULES = {"pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
LOADERS = (".load_from_checkpoint", ".get_state_dict", ".load_state_dict_from_url")


def faults(source: str) -> Iterator[str]:
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in FORBIDDEN_MODULES)
        elif isinstance(node, ast.ImportFrom) and node.module in FORBIDDEN_MODULES:  # an exception runs nothing
            yield from (f"{node.module}.{name.name}" for name in node.names if name.name != "UnpicklingError")
        elif isinstance(node, ast.Call):
            options = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
            name = ast.unparse(node.func)
            if name in FORBIDDEN_CALLS:
                yield name
            if options.get("shell", "False") != "False":
                yield f"{name}(shell=…)"
            if options.get("allow_pickle", "False") != "False":
                yield f"{name}(allow_pickle=…)"
            loads = name == "torch.load" or name.endswith(LOADERS) or "ckpt_path" in options
            if loads and options.get("weights_only") != "True":
                yield f"{name} without weights_only=True"


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.stem)
def test_nothing_in_a_file_can_be_run(path: Path) -> None:
    assert list(faults(path.read_text(encoding="utf-8"))) == []


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "from pickle import loads",
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
        "eval(text)",
        "subprocess.run(text, shell=True)",
        "os.system(text)",
        "np.load(path, allow_pickle=True)",
        "trainer.fit(model, ckpt_path=path)",
        "Classifier.load_from_checkpoint(path)",
    ],
)
def test_the_search_finds_it(source: str) -> None:
    assert len(list(faults(source))) == 1


@pytest.mark.parametrize("source", ["torch.load(path, weights_only=True)", "re.compile(text)", "json.load(file)"])
def test_the_search_lets_sound_code_pass(source: str) -> None:
    assert list(faults(source)) == []


def test_the_malicious_releases_of_lightning_are_outside_the_bounds() -> None:
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    least = re.search(r'"lightning>=(\d+)\.(\d+)\.(\d+)', text)
    assert least is not None
    assert tuple(map(int, least.groups())) > (2, 6, 3)
