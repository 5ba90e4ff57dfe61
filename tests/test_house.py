"""The house: imports run one way, and what one reads to learn stands on its own."""

import ast
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
    above = {}

    def height(name, way=()):
        assert name not in way, f"a circle: {' -> '.join([*way, name])}"
        if name not in above:
            above[name] = 1 + max((height(other, (*way, name)) for other in imports(name)), default=0)
        return above[name]

    assert len({height(name) for name in MODULES}) > 5


def test_what_one_reads_to_learn_imports_nothing_of_a_run():
    beside = {"run", "report", "judge", "pictures", "cli", "files", "workers"}
    learned = {name for name in MODULES if "." not in name} - beside - {"__init__"}
    assert {"tensor", "ops", "autodiff", "penalties", "training", "data"} < learned
    assert all(imports(name) <= learned for name in learned)
    assert all(imports(name).isdisjoint({"run", "report"}) for name in beside - {"run", "report"})
