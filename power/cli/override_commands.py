"""The commands `gate override set|clear|show`: a person's word in place of the gate's, for a time.

The door `override` keeps it in the home, and every run reads it there.
"""

from __future__ import annotations

import secrets
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Literal

import typer

from observability.core import cli_output
from observability.core.cli_output import JsonOption
from observability.core.decision import Decision, Fact
from observability.core.errors import BadConfiguration
from observability.core.paths import Places
from observability.history.records import DecisionRecord
from power.policy import gate_override
from power.policy.gate_override import Override

override_app = typer.Typer(
    no_args_is_help=True, help="A person's word in place of the gate's, for a time."
)


@override_app.command("set")
def override_set(
    context: typer.Context,
    answer: Annotated[Literal["open", "closed"], typer.Argument(help="What it shall answer.")],
    because: Annotated[str, typer.Option(help="Why: it is told wherever it decides.")],
    for_s: Annotated[
        float, typer.Option("--for-s", min=1.0, help="Seconds after which it expires.")
    ] = 3600.0,
    json: JsonOption = False,
) -> None:
    """Keep the gate of this home open or closed for a time, whatever the devices say."""
    from power.policy import override_file

    now = datetime.now(UTC)
    try:
        word = Override(
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
    override_file.write(file_of(context), word)
    told = f"the gate is {answer} until {word.until.isoformat(timespec='seconds')}: {because}"
    facts: dict[str, Fact] = {
        "override": answer,
        "override_until": word.until.isoformat(),
        "given_because": because,
    }
    _log_override(context, Decision(question="override", yes=word.open, because=told, facts=facts))
    _tell_override(word, now, json)


@override_app.command("clear")
def override_clear(context: typer.Context, json: JsonOption = False) -> None:
    """Take the override back: the gate answers by itself again."""
    from power.policy import override_file

    if override_file.clear(file_of(context)):
        told = "the override was taken back: the gate answers by itself"
        facts: dict[str, Fact] = {"override": "cleared"}
        _log_override(context, Decision(question="override", yes=False, because=told, facts=facts))
    _tell_override(None, datetime.now(UTC), json)


@override_app.command("show")
def override_show(context: typer.Context, json: JsonOption = False) -> None:
    """Say whether a person's word stands in place of the gate's, and until when."""
    from power.policy import override_file

    _tell_override(override_file.read(file_of(context)), datetime.now(UTC), json)


def file_of(context: typer.Context) -> Path:
    """Where the home keeps the override, whether there is one or not."""
    return Places(cli_output.surroundings(context).home).override


def _log_override(context: typer.Context, decision: Decision) -> None:
    """The history keeps who was overruled, by whose word: no pipeline's alone."""
    from observability.history.store import History

    now = datetime.now(UTC)
    run_id = secrets.token_hex(6)
    row = DecisionRecord.of(decision, decided_at=now, pipeline="", run_id=run_id, position=0)
    History(cli_output.surroundings(context).home).commit([row], f"override.{run_id}")


def _tell_override(word: Override | None, now: datetime, json: bool) -> None:
    stands = word is not None and word.set_at <= now < word.until
    if json:
        cli_output.print_json({"stands": stands, "override": word and word.model_dump()})
    elif word is None or not stands:
        cli_output.stdout().print("no override: the gate answers by itself")
    else:
        answer = "open" if word.open else "closed"
        until = word.until.isoformat(timespec="seconds")
        text = f"override: the gate is {answer} until {until} ({word.because})"
        cli_output.stdout().print(text, markup=False, highlight=False, soft_wrap=True)
