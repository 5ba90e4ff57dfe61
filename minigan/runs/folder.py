"""A run's folder: the one place that knows what is in it."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..data import DataError
from ..judge.evaluation import sound
from ..settings import COUNT
from ..tools.cli import InputError
from ..tools.files import read_json, sweep
from .checkpoint import FILE

PICTURES = ("curves.png", "progress.png", "animation.gif", "classes.png", "nearest.png", "interpolations.png")


class Folder:
    """The paths of all that a run leaves in ``path``, and what can be read from it again."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.checkpoint = path / FILE
        self.settings = path / "settings.json"
        self.curves = path / "curves.csv"
        self.evaluation = path / "evaluation.json"
        self.report = path / "report.html"
        self.newest = path / "newest.js"  # says to a page that is open how far the run is
        self.samples = path / "samples"
        self.generated = path / "generated.npy"

    def grid(self, iteration: int) -> Path:
        """The samples of the fixed noise at an iteration."""
        return self.samples / f"{iteration:07d}.png"

    def picture(self, name: str) -> Path:
        """One of PICTURES."""
        return self.path / name

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Make the folder, and let nobody else write into it inside. Raises InputError where another does."""
        self.path.mkdir(parents=True, exist_ok=True)
        with open(self.path / ".lock", "w") as file:
            try:
                _lock(file.fileno())
            except OSError:
                raise InputError(f"--out {self.path}: another run is writing there") from None
            for folder in (self.path, self.samples):
                sweep(folder)
            yield

    def refuse_a_new_run(self) -> None:
        """Raises InputError where a new run would overwrite another, or what is somebody's own.

        What a run left that never came to its first checkpoint is nobody's.
        """
        if self.checkpoint.exists():
            raise InputError(
                f"--out {self.path} already holds a run: --resume goes on with it; or name another folder, or remove it"
            )
        if self._settings() is None:
            others = (self.settings, self.curves, self.evaluation, self.report, self.samples)
            for path in (*others, *map(self.picture, PICTURES)):
                if path.exists():
                    raise InputError(f"--out {self.path} holds a {path.name} that is not a run's; name another folder")

    def data(self) -> Path:
        """The images that its run was trained on. Raises DataError."""
        settings = self._settings()
        if settings is None:
            raise DataError(f"{self.settings} does not say what the run was trained on; give --data")
        return Path(settings["data"])

    def size(self) -> int | None:
        """What pictures were brought to, if that was said."""
        size = (self._settings() or {}).get("size")
        return size if COUNT.allows(size) else None

    def threads(self) -> int | None:
        """How many its run was trained with, if that can be known."""
        threads = (self._settings() or {}).get("threads")
        return threads if COUNT.allows(threads) else None

    def _settings(self) -> dict[str, Any] | None:
        try:
            settings = read_json(self.settings, "a run's settings")
        except DataError:
            return None
        ours = isinstance(settings, dict) and "iterations" in settings and isinstance(settings.get("data"), str)
        return settings if ours else None

    def evaluations(self) -> list[dict[str, float]]:
        """The evaluations in the folder so far, one for each iteration at which there was one. Raises DataError."""
        if not self.evaluation.exists():
            return []
        try:
            rows = sound(read_json(self.evaluation, "")["samples"])
            return list({row["iteration"]: row for row in rows}.values())
        except (ValueError, KeyError, TypeError):
            raise DataError(f"{self.evaluation}: not what an evaluation writes; move it away") from None


def _lock(file: int) -> None:
    """Raises OSError where another process has locked the file; the lock goes with the process."""
    if os.name == "nt":
        import msvcrt

        msvcrt.locking(file, msvcrt.LK_NBLCK, 1)
    else:
        import fcntl

        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
