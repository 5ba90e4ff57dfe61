"""What is said while a run goes on: a bar in a terminal, and elsewhere a line now and then."""

import sys
from typing import Any

from tqdm import tqdm

from .run import Row, Run

FORMAT = "{l_bar}{bar}| {n_fmt}/{total_fmt} [{elapsed}<{remaining}{postfix}]"


class Bar(tqdm):
    """The progress bar of a run; ``show`` counts an iteration."""

    def __init__(self, run: Run) -> None:
        total = run.settings.iterations
        super().__init__(total=total, initial=run.done, desc="starting", bar_format=FORMAT, disable=None)

    def show(self, row: Row | None) -> None:
        if row:
            self.set_postfix_str(self.measured(row), refresh=False)
        self.update()
        self.set_description_str("training", refresh=False)

    def measured(self, row: Row) -> str:
        return f"L1 {row[1]:.3f}, slope {row[2]:.3f}"

    def waits_for(self, what: str) -> None:
        self.set_description_str(what)

    def say(self, run: Run) -> None:
        """A line: how far the run is, how good its samples are, and, where no bar tells, how long it will take."""
        whole, metrics = run.settings.iterations, run.evaluations[-1] if run.evaluations else {}
        shown = [self.measured(run.rows[-1])]
        shown += [f"{name} {metrics[name]:.3f}" for name in ("precision", "recall") if metrics]
        left = round(run.seconds * (whole - run.done) / run.done)
        to_go = f"; {left // 60}:{left % 60:02} min of training to go" if self.disable else ""
        self.write(f"{run.done:,} of {whole:,}: {', '.join(shown)}{to_go}")
        sys.stdout.flush()


def warn(line: object, *_: Any) -> None:
    """Print a line on standard error, above the progress bar."""
    tqdm.write(f"run_mnist.py: {line}", file=sys.stderr)
