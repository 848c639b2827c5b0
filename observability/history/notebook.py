"""How the history looks in a notebook: its answers as tables, every value escaped.

Arrow tables show themselves as text there. `show_tables` lets the notebook show them as tables; it
changes nothing of them, and outside of a notebook it does nothing.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pyarrow as pa

MOST_ROWS = 20


def show_tables() -> None:
    """Let the notebook in which this runs, if any, show Arrow tables as tables."""
    ipython = sys.modules.get("IPython")
    shell = None if ipython is None else ipython.get_ipython()
    if shell is not None:
        html = shell.display_formatter.formatters["text/html"]
        html.for_type_by_name("pyarrow.lib", "Table", arrow_html)


def arrow_html(table: pa.Table) -> str:
    """The first rows of an Arrow table as HTML, and how many there are."""
    rows = (tuple(row.values()) for row in table.slice(0, MOST_ROWS).to_pylist())
    more = f", the first {MOST_ROWS} shown" if table.num_rows > MOST_ROWS else ""
    return table_html(table.column_names, rows, f"{table.num_rows:,} rows{more}")


def table_html(columns: Sequence[str], rows: Iterable[Sequence[object]], caption: str) -> str:
    """Rows as an HTML table."""
    head = "".join(f'<th scope="col">{escape(each)}</th>' for each in columns)
    body = "".join(f"<tr>{''.join(f'<td>{_cell(each)}</td>' for each in row)}</tr>" for row in rows)
    return (
        f"<table><caption>{escape(caption)}</caption><thead><tr>{head}</tr></thead>"
        f"<tbody>{body}</tbody></table>"
    )


def _cell(value: object) -> str:
    return "" if value is None else escape(str(value))
