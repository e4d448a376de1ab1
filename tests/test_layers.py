"""Which module may import which, as CONTRIBUTING.md has it."""

import ast
from collections.abc import Iterator, Sequence
from graphlib import TopologicalSorter
from pathlib import Path

SOURCE = Path(__file__).parents[1] / "src"
MODULES = {".".join(path.relative_to(SOURCE).with_suffix("").parts): path for path in SOURCE.rglob("*.py")}
BARRED = {
    "inspection": ["thaw.training.", "thaw.launch.", "thaw.comparison."],
    "training": ["thaw.evaluation", "thaw.launch.", "thaw.comparison."],
    "launch": ["thaw.model.", "thaw.inspection.", "thaw.training.", "thaw.comparison."],
    "comparison": ["thaw.training."],
}
BASE = [
    f"thaw.{name}" for name in ("config", "errors", "instantiation", "paths", "ranks", "seeding", "signals", "writing")
]


def imports(nodes: Sequence[ast.AST], also_later: bool) -> Iterator[str]:
    """Modules of ours that are imported, with `also_later` in functions and for types as well."""
    for node in nodes:
        if isinstance(node, ast.ImportFrom):
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            yield from {str(node.module), *names} & MODULES.keys()
        elif also_later or isinstance(node, ast.Try | ast.With):
            yield from imports(list(ast.iter_child_nodes(node)), also_later)


def test_a_part_imports_those_before_it_alone() -> None:
    for name, path in MODULES.items():
        found = list(imports([ast.parse(path.read_text(encoding="utf-8"))], also_later=True))
        allowed = {"data": [*BASE, "thaw.data."], "model": [*BASE, "thaw.data.", "thaw.model."]}.get(name.split(".")[1])
        if allowed:
            assert [each for each in found if not each.startswith(tuple(allowed))] == [], name
        barred = BARRED.get(name.split(".")[1], [])
        if name.count(".") == 1 and name not in ("thaw.__init__", "thaw.__main__", "thaw.cli"):
            barred = ["thaw.launch.", "thaw.comparison."]  # what all stand on, and what a finished run is used by
        if not name.startswith(("thaw.__main__", "thaw.cli", "thaw.commands.")):
            barred = [*barred, "thaw.cli", "thaw.commands."]
        assert [each for each in found if each.startswith(tuple(barred))] == [], name


def test_no_modules_wait_for_one_another() -> None:
    graph = {
        name: set(imports(ast.parse(path.read_text(encoding="utf-8")).body, False)) for name, path in MODULES.items()
    }
    assert len(list(TopologicalSorter(graph).static_order())) == len(MODULES)
