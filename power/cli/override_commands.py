"""The commands `gate override set|clear|show`: a person answers in place of the gate for a time.

`policy.override_file` stores it in the home, where every run reads it.
"""

from __future__ import annotations

import secrets
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Literal

import typer

from observability.core import cli_output
from observability.core.cli_output import JsonOption
from observability.core.decision import Decision
from observability.core.errors import BadConfiguration
from observability.core.paths import Places
from observability.history.records import DecisionRecord
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
    from power.policy import override_file

    now = datetime.now(UTC)
    try:
        override = Override(
            open=answer == "open",
            set_at=now,
            until=now + timedelta(seconds=for_s),
            because=because,
        )
    except (ValueError, OverflowError) as error:
        raise BadConfiguration(
            f"an override lasts {gate_override.LONGEST_OVERRIDE.days} days at most, and has a "
            f"reason of 1 to 500 characters; came: --for-s {for_s:g} --because {because!r}"
        ) from error
    override_file.write(file_of(context), override)
    _log(context, gate_override.was_set(override))
    _print(override, now, json)


@override_app.command("clear")
def override_clear(context: typer.Context, json: JsonOption = False) -> None:
    """Remove the override: the gate answers by itself again."""
    from power.policy import override_file

    if override_file.clear(file_of(context)):
        _log(context, gate_override.was_cleared())
    _print(None, datetime.now(UTC), json)


@override_app.command("show")
def override_show(context: typer.Context, json: JsonOption = False) -> None:
    """Show whether an override is in force, and until when."""
    from power.policy import override_file

    _print(override_file.read(file_of(context)), datetime.now(UTC), json)


def file_of(context: typer.Context) -> Path:
    """Return the path of the home's override, whether the file exists or not."""
    return Places(cli_output.cli_context(context).home).override


def _log(context: typer.Context, decision: Decision) -> None:
    """Record in the history, for no single pipeline, that a person set or cleared an override."""
    from observability.history.store import History

    now = datetime.now(UTC)
    run_id = secrets.token_hex(6)
    row = DecisionRecord.of(decision, decided_at=now, pipeline="", run_id=run_id, position=0)
    History(cli_output.cli_context(context).home).commit([row], f"override.{run_id}")


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
