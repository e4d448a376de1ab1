"""What a hostile file could get hold of must not be in the sources."""

import ast
import re
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCES = [*sorted((ROOT / "src").rglob("*.py")), ROOT / "train.py", ROOT / "find_lr.py"]
RUNS_CODE = {
    *("eval", "exec", "compile", "__import__", "os.system", "os.popen", "yaml.load", "yaml.unsafe_load"),
    *("subprocess.getoutput", "subprocess.getstatusoutput", "torch.hub.load", "torch.package.PackageImporter"),
}
"""Forbidden under any name and also as a value, which something else could call."""
UNSAFE_MODULES = {"pickle", "_pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
LOADERS = (".load_from_checkpoint", ".get_state_dict", ".load_state_dict_from_url")


def names_of(tree: ast.AST) -> dict[str, str]:
    """What each imported name stands for, in full."""
    known = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                first = alias.name.partition(".")[0]
                known[alias.asname or first] = alias.name if alias.asname else first
        elif isinstance(node, ast.ImportFrom):
            known |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
    return known


def faults(source: str) -> Iterator[str]:
    tree = ast.parse(source)
    known = names_of(tree)

    def full(node: ast.AST) -> str:
        """The full name of a name or attribute, wherever it was imported from."""
        first, dot, rest = ast.unparse(node).partition(".")
        return (known.get(first, first) + dot + rest).removeprefix("builtins.")

    called = {id(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.partition(".")[0] in UNSAFE_MODULES)
        elif isinstance(node, ast.ImportFrom):
            if node.module in UNSAFE_MODULES:  # an exception runs nothing
                yield from (f"{node.module}.{name.name}" for name in node.names if name.name != "UnpicklingError")
        elif isinstance(node, ast.Name | ast.Attribute) and isinstance(node.ctx, ast.Load):
            name = full(node)
            if name in RUNS_CODE:
                yield name
            elif name == "torch.load" and id(node) not in called:
                yield "torch.load as a value"
        elif isinstance(node, ast.Call):
            options = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
            name = full(node.func)
            if options.get("shell", "False") != "False":
                yield f"{name}(shell=…)"
            if options.get("allow_pickle", "False") != "False":
                yield f"{name}(allow_pickle=…)"
            if name == "importlib.import_module" and ast.unparse(node.args[0]).strip("'") in UNSAFE_MODULES:
                yield ast.unparse(node)
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
        "from torch import load\nload(path)",
        "import torch as t\nt.load(path)",
        "import torch\nread = torch.load",
        "from torch import load as read\nmap(read, paths)",
        "map(eval, texts)",
        "import builtins\nbuiltins.eval(text)",
        "from builtins import exec as run\nrun(text)",
        "import subprocess\nsubprocess.getoutput(text)",
        "from os import system\nsystem(text)",
        "import importlib\nimportlib.import_module('pickle')",
        "from importlib import import_module\nimport_module('pickle')",
        "import torch\ntorch.hub.load(repository, name)",
        "from torch import hub\nhub.load(repository, name)",
    ],
)
def test_the_search_finds_it(source: str) -> None:
    assert len(list(faults(source))) == 1


@pytest.mark.parametrize(
    "source",
    [
        "torch.load(path, weights_only=True)",
        "from torch import load\nload(path, weights_only=True)",
        "re.compile(text)",
        "import json\njson.load(file)",
        "model.eval()",
        "model.backbone.compile()",
        "from pickle import UnpicklingError",
        "from importlib import import_module\nimport_module(name)",
        "subprocess.run(command, shell=False)",
        "torch.hub.get_dir()",
    ],
)
def test_the_search_lets_sound_code_pass(source: str) -> None:
    assert list(faults(source)) == []


def test_the_malicious_releases_of_lightning_are_outside_the_bounds() -> None:
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert '"pytorch-lightning!=2.6.2,!=2.6.3"' in text
    for name in ("lightning", "pytorch-lightning"):
        assert version(name) not in ("2.6.2", "2.6.3")
    least = re.search(r'"lightning>=(\d+)\.(\d+)\.(\d+)', text)
    assert least is not None
    assert tuple(map(int, least.groups())) > (2, 6, 3)
