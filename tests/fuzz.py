"""Files that a fuzzer made up, given to every reader: ``python -m tests.fuzz`` (needs ``pip install atheris``).

Each has to be read, or to be refused in one line that names it, without great memory or time. Members of zip files are
made up by themselves too, since a changed byte of the whole file mostly fails at its checksum.
"""

import argparse
import gzip
import io
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import numpy as np

import minigan.run
from minigan import data, judge
from minigan.data import DataError, read_idx
from minigan.files import in_memory
from minigan.run import EVALUATION, FILE, Run, load
from minigan.settings import Settings
from tests.test_data import idx


def checkpoint():
    about = {"data": "x", "size": None, "crc32": 7, "workers": 1, "threads": 1, "kernels": "", "device": "cpu"}
    run = Run(Settings(critic=(3,), generator=(2,), batch_size=4, noise_dim=2, constraint="spectral"), (2, 3), about)
    run.rows, run.pending = [(1, 0.5, 1.0, 0.1)], [np.ones(2, "float32")]
    run.snapshots = [(i, np.full((run.samples_kept, 2, 3), i, "uint8")) for i in (0, 1)]
    run.evaluations = [dict.fromkeys(EVALUATION, 1)]
    with tempfile.TemporaryDirectory() as folder:
        run.save(Path(folder))
        return Path(folder, FILE).read_bytes()


def classifier(pixels, features=64, weight=1.0):
    layers = ((pixels, 256), (256, features), (features, 3))
    parts = (np.full(shape, weight, "float16") for n, m in layers for shape in ((n, m), (m,)))
    return in_memory(np.savez_compressed, *parts)


def member(archive, name, encode=bytes):
    """A member of a zip file, and the function that puts what is encoded of other bytes in its place."""
    with zipfile.ZipFile(io.BytesIO(archive)) as file:
        held = {n: file.read(n) for n in file.namelist()}

    def replaced(data):
        out = io.BytesIO()
        with zipfile.ZipFile(out, "w") as file:
            for n, content in {**held, name: encode(data)}.items():
                file.writestr(n, content)
        return out.getvalue()

    return held[name], replaced


def as_text(data):
    return in_memory(np.save, data.decode("latin-1").rstrip("\0"))


IMAGES, CHECKPOINT, CLASSIFIER = idx((3, 4, 5)), checkpoint(), classifier(6)
HEADER = str(np.load(io.BytesIO(CHECKPOINT))["header"]).encode("latin-1")

# each: the file's name, honest bytes, what makes a file of them, and who reads it with what besides
READERS = {
    "idx": ("images", IMAGES, bytes, read_idx, 3),
    "idx-gz": ("images.gz", gzip.compress(IMAGES), bytes, read_idx, 3),
    "idx-in-gz": ("images.gz", IMAGES, gzip.compress, read_idx, 3),
    "checkpoint": ("checkpoint.npz", CHECKPOINT, bytes, load),
    "checkpoint-header": ("checkpoint.npz", HEADER, member(CHECKPOINT, "header.npy", as_text)[1], load),
    "checkpoint-array": ("checkpoint.npz", *member(CHECKPOINT, "ema.weight1.npy"), load),
    "checkpoint-snapshots": ("checkpoint.npz", *member(CHECKPOINT, "snapshots.npy"), load),
    "classifier": ("classifier.npz", CLASSIFIER, bytes, judge.load, 6),
    "classifier-array": ("classifier.npz", *member(CLASSIFIER, "arr_5.npy"), judge.load, 6),
}


def check(reader, data, folder):
    """Whether the reader takes what is made of ``data``; raises all but the one line that names the file."""
    name, _, made, read, *given = READERS[reader]
    path = folder / name
    path.write_bytes(made(data))
    try:
        read(path, *given)
    except DataError as error:
        assert str(error).startswith(f"{path}") and "\n" not in str(error), error
        return False
    return True


def fuzz(reader, runs, seed):
    import atheris

    for module in (data, judge, minigan.run):
        for value in vars(module).values():
            if getattr(value, "__module__", None) == module.__name__ and hasattr(value, "__code__"):
                atheris.instrument_func(value)
    corpus = Path(tempfile.mkdtemp(), "corpus")
    corpus.mkdir()
    (corpus / "honest").write_bytes(READERS[reader][1])
    flags = [f"-runs={runs}", f"-seed={seed}", "-rss_limit_mb=1024", "-timeout=5", "-verbosity=0", "-max_len=20000"]
    atheris.Setup([sys.argv[0], *flags, str(corpus)], lambda made_up: check(reader, made_up, corpus.parent) and None)
    atheris.Fuzz()


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("reader", nargs="?", choices=READERS, help="[all, one after the other]")
    parser.add_argument("--files", type=int, default=100_000, metavar="N", help="for each reader [100000]")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    if args.reader:
        return fuzz(args.reader, args.files, args.seed)
    for reader in READERS:
        command = [sys.executable, "-m", "tests.fuzz", reader, f"--files={args.files}", f"--seed={args.seed}"]
        status = subprocess.run(command, capture_output=True, text=True)
        found = status.stderr[-2000:] if status.returncode else "nothing found"
        print(f"{reader}: {args.files:,} files, {found}", flush=True)


if __name__ == "__main__":
    main()
