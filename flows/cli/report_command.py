"""The command `thermodrift report`: the page of pipelines as a file, as Markdown, or as values."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Literal

import typer

from observability.core import cli_output
from observability.core.cli_output import JsonOption


def report(
    context: typer.Context,
    pipelines: Annotated[
        list[str],
        typer.Argument(
            metavar="PIPELINE...",
            help="Names of pipelines, or their TOML files.",
            show_default=False,
        ),
    ],
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", help="File to write (default: NAME-report.html, or .md, here)."
        ),
    ] = None,
    markdown: Annotated[
        bool, typer.Option("--markdown", help="Write Markdown, a model card, and no HTML.")
    ] = False,
    reach: Annotated[
        Literal["hour", "day", "week", "month", "all"],
        typer.Option("--range", help="How much is drawn, up to the newest row."),
    ] = "all",
    as_json: JsonOption = False,
) -> None:
    """Write the page of pipelines as one file, which needs no network and no service.

    With --json the values are printed, and no file is written.
    """
    from flows.page import report as reports
    from observability.core import atomic_file
    from observability.core.paths import Places

    home, now = Places(cli_output.cli_context(context).home.resolve()), datetime.now(UTC)
    found = reports.collect(home, pipelines, now, reach)
    if as_json:
        cli_output.print_json([reports.document(each) for each in found])
        return
    ending = "md" if markdown else "html"
    path = output or Path(f"{found[0].story.pipeline}-report.{ending}")
    content = reports.markdown(found, now) if markdown else reports.html(found, now)
    atomic_file.write(path.absolute(), content.encode())
    cli_output.stdout().print(
        f"wrote {path} ({len(content.encode()) / 1000:.0f} kB)",
        markup=False,
        highlight=False,
        soft_wrap=True,
    )
