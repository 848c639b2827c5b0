"""What `up` runs, on a screen: a table that changes, or a line for each change where there is none.

Everything goes to stderr; stdout is for the answer.
"""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING, Self

from observability.core import cli_output

if TYPE_CHECKING:
    from rich.table import Table

    from flows.stack.local_stack import ServiceStatus

_STYLES = {
    "starting": "yellow",
    "running": "green",
    "not scheduling": "red",
    "ended": "red",
    "stopping": "yellow",
    "stopped": "dim",
}


class StatusTable:
    """The screen; calling it with a part shows the state of that."""

    def __init__(self) -> None:
        from rich.live import Live

        self._console = cli_output.stderr()
        self._parts: dict[str, ServiceStatus] = {}
        self._live = (
            Live(self._table(), console=self._console, auto_refresh=False)
            if self._console.is_terminal
            else None
        )

    def __enter__(self) -> Self:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def __call__(self, part: ServiceStatus) -> None:
        """Show the state of a part."""
        self._parts[part.name] = part
        if self._live is not None:
            self._live.update(self._table(), refresh=True)
        else:
            line = f"{part.name}: {part.state}  {part.told}  {part.link}".rstrip()
            self._console.print(line, soft_wrap=True, highlight=False, markup=False)

    def _table(self) -> Table:
        from rich.table import Table
        from rich.text import Text

        table = Table(title="thermodrift up - Ctrl-C stops it all", title_justify="left")
        for column in ("part", "state", "", "page"):
            table.add_column(column, overflow="fold")
        for part in self._parts.values():
            link = Text(part.link, style=f"link {part.link}" if part.link else "")
            table.add_row(part.name, Text(part.state, style=_STYLES[part.state]), part.told, link)
        return table
