"""The services of `up`: a live table on a terminal, else a line for each change.

Everything goes to stderr; stdout is for the result.
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
    """The display; call it with a status to show that."""

    def __init__(self) -> None:
        from rich.live import Live

        self._console = cli_output.stderr()
        self._services: dict[str, ServiceStatus] = {}
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

    def __call__(self, status: ServiceStatus) -> None:
        """Show the status of a service."""
        self._services[status.name] = status
        if self._live is not None:
            self._live.update(self._table(), refresh=True)
        else:
            line = f"{status.name}: {status.state}  {status.told}  {status.link}".rstrip()
            self._console.print(line, soft_wrap=True, highlight=False, markup=False)

    def _table(self) -> Table:
        from rich.table import Table
        from rich.text import Text

        table = Table(title="thermodrift up - Ctrl-C stops it all", title_justify="left")
        for column in ("service", "state", "", "page"):
            table.add_column(column, overflow="fold")
        for each in self._services.values():
            link = Text(each.link, style=f"link {each.link}" if each.link else "")
            table.add_row(each.name, Text(each.state, style=_STYLES[each.state]), each.told, link)
        return table
