"""The house: folders know files, no file knows a folder, imports run one way, and what stands first stands alone."""

import ast
import re
import shutil
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import numpy as np

import minigan
from minigan.judge import classifier
from tests.running import ROOT
from tests.test_readme import ALONE, BLOCKS

HOUSE = Path(minigan.__file__).parent
MODULES = {".".join(p.relative_to(HOUSE).with_suffix("").parts): p for p in HOUSE.rglob("*.py")}
FILES = {name for name in MODULES if "." not in name}
FOLDERS = {name.partition(".")[0] for name in MODULES} - FILES


def imports(name):
    """The modules of the package that a module imports, by their names within it."""
    found = set()
    for node in ast.walk(ast.parse(MODULES[name].read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.level:
            folder = name.split(".")[: -node.level] + (node.module.split(".") if node.module else [])
            found |= {".".join([*folder, a.name]) for a in node.names} | {".".join(folder)}
    beside = (found & FOLDERS) - {name.partition(".")[0]}
    return found & MODULES.keys() | {f"{folder}.__init__" for folder in beside}


def known_folders(folder):
    inside = [name for name in MODULES if name.startswith(f"{folder}.")]
    return {to.partition(".")[0] for name in inside for to in imports(name)} & FOLDERS - {folder}


def test_no_circle():
    """Neither of modules nor of folders. A CycleError names the circle."""
    graph = {name: imports(name) for name in MODULES}
    assert graph["autodiff"] == {"backend", "guards", "ops", "tensor"}
    TopologicalSorter(graph).prepare()
    TopologicalSorter({folder: known_folders(folder) for folder in FOLDERS}).prepare()


def test_the_map_is_of_this_house():
    """Each file stands above those that it knows, and each arrow between folders is an import."""
    drawn = (ROOT / ".readme" / "map.svg").read_text(encoding="utf-8")
    rows = {name: int(row) for row, name in re.findall(r'data-row="(\d)"[^>]*>(\w+)<', drawn)}
    assert rows.keys() == FILES - {"__init__"}
    assert all(rows[known] < rows[name] for name in rows for known in imports(name) if known in rows)
    assert set(re.findall(r'data-folder="(\w+)"', drawn)) == FOLDERS
    arrows = set(re.findall(r'data-from="(\w+)" data-to="(\w+)"', drawn))
    assert arrows == {(folder, to) for folder in FOLDERS for to in known_folders(folder)}


def test_no_file_knows_a_folder():
    assert {"tensor", "ops", "autodiff", "penalties", "training", "data"} < FILES
    assert {"fast", "run", "judge", "explain", "article"} == FOLDERS
    assert [name for name in FILES if not imports(name) <= FILES] == []


def test_the_files_alone_draw_digits(tmp_path):
    """README's program runs without the folders, and a classifier sees digits in what it draws."""
    (tmp_path / "minigan").mkdir()
    for name in FILES:
        shutil.copy(MODULES[name], tmp_path / "minigan")
    shutil.copytree(HOUSE / "mnist", tmp_path / "minigan" / "mnist")
    program = next(text for _, text in BLOCKS[ROOT / "README.md"] if ALONE in text).replace("2000", "900")
    (tmp_path / "program.py").write_text(f"{program}\nnp.save('samples.npy', samples)\n")
    subprocess.run([sys.executable, "program.py"], cwd=tmp_path, check=True)
    assert (tmp_path / "digits.png").stat().st_size > 5000
    judge = classifier.load(HOUSE / "mnist" / classifier.FILE, 784)
    predicted = classifier.predict(judge, np.load(tmp_path / "samples.npy").reshape(64, 784)).probabilities
    assert predicted.max(axis=1).mean() > 0.6
    assert len(set(predicted.argmax(axis=1))) > 4
