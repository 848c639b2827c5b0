"""The commands `gate override set|clear|show`: a person answers in place of the gate for a time.

`policy.override_file` stores it in the home, where every run reads it.
"""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Literal

import typer

from observability.core import cli_output
from observability.core.cli_output import JsonOption
from observability.core.paths import Places
from power.policy import gate_override
from power.policy.gate_override import Override

override_app = typer.Typer(
    no_args_is_help=True, help="A person's answer in place of the gate's, for a time."
)


@override_app.command("set")
def override_set(
    context: typer.Context,
    answer: Annotated[Literal["open", "closed"], typer.Argument(help="What it shall answer.")],
    because: Annotated[str, typer.Option(help="Why: it is shown wherever it decides.")],
    for_s: Annotated[
        float, typer.Option("--for-s", min=1.0, help="Seconds after which it expires.")
    ] = 3600.0,
    json: JsonOption = False,
) -> None:
    """Keep the gate of this home open or closed for a time, whatever the devices report."""
    from power.policy import override_by_hand

    now = datetime.now(UTC)
    override = override_by_hand.answer(_places(context), answer, because, for_s, now)
    _print(override, now, json)


@override_app.command("clear")
def override_clear(context: typer.Context, json: JsonOption = False) -> None:
    """Remove the override: the gate answers by itself again."""
    from power.policy import override_by_hand

    now = datetime.now(UTC)
    override_by_hand.take_back(_places(context), now)
    _print(None, now, json)


@override_app.command("show")
def override_show(context: typer.Context, json: JsonOption = False) -> None:
    """Show whether an override is in force, and until when."""
    from power.policy import override_file

    _print(override_file.read(file_of(context)), datetime.now(UTC), json)


def file_of(context: typer.Context) -> Path:
    """Return the path of the home's override, whether the file exists or not."""
    return _places(context).override


def _places(context: typer.Context) -> Places:
    return Places(cli_output.cli_context(context).home)


def _print(override: Override | None, now: datetime, json: bool) -> None:
    stands = gate_override.in_force(override, now)
    if json:
        cli_output.print_json({"stands": stands, "override": override and override.model_dump()})
    elif override is None or not stands:
        cli_output.stdout().print("no override: the gate answers by itself")
    else:
        text = f"override: the gate is {override.answer} until {override.until_text}"
        cli_output.stdout().print(
            f"{text} ({override.because})", markup=False, highlight=False, soft_wrap=True
        )
