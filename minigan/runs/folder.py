"""A run's folder: the one place that knows what is in it."""

import json
from pathlib import Path

from ..data import DataError


class Folder:
    """The paths of all that a run leaves in ``path``, and what can be read from it again."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.checkpoint = path / "checkpoint.npz"
        self.settings = path / "settings.json"
        self.curves = path / "curves.csv"
        self.evaluation = path / "evaluation.json"
        self.report = path / "report.html"
        self.generated = path / "generated.npy"

    def grid(self, iteration: int) -> Path:
        """The samples of the fixed noise at an iteration."""
        return self.path / "samples" / f"{iteration:07d}.png"

    def picture(self, name: str) -> Path:
        return self.path / name

    @property
    def taken(self) -> bool:
        """Whether it already holds a run."""
        return self.settings.exists() or self.checkpoint.exists()

    def data(self) -> Path:
        """The folder of images that its run was trained on. Raises DataError."""
        try:
            return Path(json.loads(self.settings.read_text())["data"])
        except (OSError, ValueError, KeyError, TypeError):
            raise DataError(f"{self.settings} does not say what the run was trained on; give --data") from None

    def evaluations(self) -> list[dict[str, float]]:
        """The evaluations of its run so far, one for each iteration at which there was one. Raises DataError."""
        try:
            rows = json.loads(self.evaluation.read_text())["samples"] if self.evaluation.exists() else []
            return list({row["iteration"]: row for row in rows}.values())
        except (OSError, ValueError, KeyError, TypeError):
            raise DataError(f"{self.evaluation}: not what an evaluation writes; move it away") from None
