"""The house: imports run one way, and what one reads to learn stands on its own."""

import ast
from graphlib import TopologicalSorter
from pathlib import Path

import minigan

ROOT = Path(minigan.__file__).parent
MODULES = {".".join(p.relative_to(ROOT).with_suffix("").parts): p for p in ROOT.rglob("*.py")}


def imports(name):
    """The modules of the package that a module imports, by their names within it."""
    found = set()
    for node in ast.walk(ast.parse(MODULES[name].read_text())):
        if isinstance(node, ast.ImportFrom) and node.level:
            folder = name.split(".")[: -node.level] + (node.module.split(".") if node.module else [])
            found |= {".".join([*folder, a.name]) for a in node.names} | {".".join(folder)}
    return found & MODULES.keys()


def test_no_circle():
    graph = {name: imports(name) for name in MODULES}
    assert graph["autodiff"] == {"backend", "guards", "ops", "tensor"}
    TopologicalSorter(graph).prepare()  # it raises a CycleError, which names the circle


def test_what_one_reads_to_learn_imports_nothing_of_a_run():
    beside = {"run", "report", "judge", "pictures", "cli", "files", "workers"}
    learned = {name for name in MODULES if "." not in name} - beside - {"__init__"}
    assert {"tensor", "ops", "autodiff", "penalties", "training", "data"} < learned
    assert all(imports(name) <= learned for name in learned)
    assert all(imports(name).isdisjoint({"run", "report"}) for name in beside - {"run", "report"})
