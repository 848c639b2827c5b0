"""The progress of a run for people: one bar, and one line for each event.

Everything goes to stderr; stdout is for the result. Where stderr is no terminal, only the lines are
printed.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import TYPE_CHECKING, Self

from observability.core import cli_output

if TYPE_CHECKING:
    from rich.progress import Progress, ProgressColumn

_STEPS = 10_000


class Display:
    """The bar and the lines of one run."""

    def __init__(self, pipeline: str) -> None:
        from rich.progress import Progress

        self._console = cli_output.stderr()
        self._progress: Progress = Progress(
            *_columns(), console=self._console, disable=not self._console.is_terminal
        )
        self._task = self._progress.add_task(
            pipeline, total=_STEPS, position=0, rate=0.0, score="", doing="starting"
        )

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._progress.stop()

    def at(self, position: int, fraction: float | None, rate: float, score: str) -> None:
        """Show how far the stream is: `rate` in records per second, `fraction` from 0 to 1."""
        self._progress.update(
            self._task,
            completed=None if fraction is None else fraction * _STEPS,
            position=position,
            rate=rate,
            score=score,
        )

    @contextmanager
    def doing(self, what: str) -> Iterator[None]:
        """Show what is going on while the block runs."""
        self._progress.update(self._task, doing=what)
        yield
        self._progress.update(self._task, doing="learning")

    def log_event(self, position: int, what: str, because: str, style: str) -> None:
        """Print one line: where in the stream, what, and why."""
        from rich.text import Text

        line = Text.assemble((f"{position:>11,}  ", "dim"), (f"{what:<10}", style), f" {because}")
        # A terminal shows one line each; an output that is kept has every number.
        if self._console.is_terminal:
            self._console.print(line, no_wrap=True, overflow="ellipsis")
        else:
            self._console.print(line, soft_wrap=True)


def _columns() -> list[ProgressColumn]:
    from rich.progress import BarColumn, SpinnerColumn, TextColumn, TimeRemainingColumn

    return [
        SpinnerColumn(),
        TextColumn("[bold]{task.description}"),
        BarColumn(bar_width=24),
        TextColumn("{task.fields[position]:,} records"),
        TextColumn("{task.fields[rate]:,.0f}/s"),
        TextColumn("{task.fields[score]}"),
        TimeRemainingColumn(),
        TextColumn("[italic]{task.fields[doing]}"),
    ]
