"""Files that a fuzzer made up, given to every reader: ``python -m tests.fuzz`` (needs ``pip install atheris``).

Each has to be read, or to be refused in one line that names it, without great memory or time. Members of zip files are
made up by themselves too, since a changed byte of the whole file mostly fails at its checksum.
"""

import argparse
import gzip
import io
import os
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from minigan import judge
from minigan.data import DataError, read_idx
from minigan.run import EVALUATION, FILE, Run, load
from minigan.settings import Settings
from tests.test_data import idx

SETTINGS = Settings(critic=(3,), generator=(2,), batch_size=4, noise_dim=2, constraint="spectral")


def honest_checkpoint() -> bytes:
    about = {"data": "x", "size": None, "crc32": 7, "workers": 1, "threads": 1, "kernels": "", "device": "cpu"}
    run = Run(SETTINGS, (2, 3), about)
    run.rows, run.pending = [(1, 0.5, 1.0, 0.1)], [np.ones(2, "float32")]
    run.snapshots = [(i, np.full((run.samples_kept, 2, 3), i, "uint8")) for i in (0, 1)]
    run.evaluations = [dict.fromkeys(EVALUATION, 1)]
    with tempfile.TemporaryDirectory() as folder:
        run.save(Path(folder))
        return (Path(folder) / FILE).read_bytes()


def honest_classifier() -> bytes:
    file = io.BytesIO()
    layers = ((6, 256), (256, 64), (64, 3))
    parts = (np.ones(shape, "float16") for n, m in layers for shape in ((n, m), (m,)))
    np.savez_compressed(file, *parts)
    return file.getvalue()


def member(archive: bytes, name: str) -> tuple[bytes, Callable[[bytes], bytes]]:
    """A member of a zip file, and the function that puts another in its place."""
    with zipfile.ZipFile(io.BytesIO(archive)) as file:
        held, compression = {n: file.read(n) for n in file.namelist()}, file.infolist()[0].compress_type

    def replaced(data: bytes) -> bytes:
        out = io.BytesIO()
        with zipfile.ZipFile(out, "w", compression) as file:
            for n, content in {**held, name: data}.items():
                file.writestr(n, content)
        return out.getvalue()

    return held[name], replaced


def header(archive: bytes) -> tuple[bytes, Callable[[bytes], bytes]]:
    """The text of a checkpoint's header, and the function that puts another in its place."""
    held, replaced = member(archive, "header.npy")

    def encoded(text: bytes) -> bytes:
        file = io.BytesIO()
        np.save(file, text.decode("latin-1").rstrip("\0"))
        return replaced(file.getvalue())

    return str(np.load(io.BytesIO(held))).encode("latin-1"), encoded


def as_it_is(data: bytes) -> bytes:
    return data


IDX = idx((3, 4, 5))
CHECKPOINT, CLASSIFIER = honest_checkpoint(), honest_classifier()

# each: the file's name, honest bytes, what makes a file of them, and who reads it
READERS: dict[str, tuple[str, bytes, Callable[[bytes], bytes], Callable[[Path], object]]] = {
    "idx": ("images", IDX, as_it_is, lambda path: read_idx(path, 3)),
    "idx-gz": ("images.gz", gzip.compress(IDX), as_it_is, lambda path: read_idx(path, 3)),
    "idx-in-gz": ("images.gz", IDX, lambda data: gzip.compress(data, 1), lambda path: read_idx(path, 3)),
    "checkpoint": ("checkpoint.npz", CHECKPOINT, as_it_is, load),
    "checkpoint-header": ("checkpoint.npz", *header(CHECKPOINT), load),
    "checkpoint-array": ("checkpoint.npz", *member(CHECKPOINT, "ema.weight1.npy"), load),
    "checkpoint-snapshots": ("checkpoint.npz", *member(CHECKPOINT, "snapshots.npy"), load),
    "classifier": ("classifier.npz", CLASSIFIER, as_it_is, lambda path: judge.load(path, 6)),
    "classifier-array": ("classifier.npz", *member(CLASSIFIER, "arr_5.npy"), lambda path: judge.load(path, 6)),
}


def check(reader: str, data: bytes, folder: Path) -> bool:
    """Whether the reader takes what is made of ``data``; raises all but the one line that names the file."""
    name, _, made, read = READERS[reader]
    path = folder / name
    path.write_bytes(made(data))
    try:
        read(path)
    except DataError as error:
        assert str(error).startswith(f"{path}") and "\n" not in str(error), error
        return False
    return True


def fuzz(reader: str, runs: int, seed: int) -> None:
    import atheris

    for module in ("minigan.data", "minigan.judge", "minigan.run"):
        for value in vars(sys.modules[module]).values():
            if getattr(value, "__module__", None) == module and callable(value) and hasattr(value, "__code__"):
                atheris.instrument_func(value)
    folder = Path(tempfile.mkdtemp(dir="/dev/shm" if os.path.isdir("/dev/shm") else None))
    corpus = folder / "corpus"
    corpus.mkdir()
    (corpus / "honest").write_bytes(READERS[reader][1])
    flags = [f"-runs={runs}", f"-seed={seed}", "-rss_limit_mb=1024", "-timeout=5", "-verbosity=0", "-max_len=20000"]
    atheris.Setup([sys.argv[0], *flags, str(corpus)], lambda data: check(reader, data, folder) and None)
    atheris.Fuzz()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("reader", nargs="?", choices=READERS, help="[all, one after the other]")
    parser.add_argument("--files", type=int, default=100_000, metavar="N", help="for each reader [100000]")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    if args.reader:
        fuzz(args.reader, args.files, args.seed)
        return
    for reader in READERS:
        command = [sys.executable, "-m", "tests.fuzz", reader, "--files", str(args.files), "--seed", str(args.seed)]
        status = subprocess.run(command, capture_output=True, text=True)
        print(
            f"{reader}: {args.files:,} files, {'nothing found' if status.returncode == 0 else status.stderr[-2000:]}",
            flush=True,
        )


if __name__ == "__main__":
    main()
