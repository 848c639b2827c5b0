"""A person answers in place of the gate, or takes that back: a file of the home, and a decision.

The command `thermodrift gate override` and the page of the service do it by these functions.
"""

from __future__ import annotations

import secrets
from datetime import datetime, timedelta
from typing import Literal

from observability.core.decision import Decision
from observability.core.errors import BadConfiguration
from observability.core.paths import Places
from observability.history.records import DecisionRecord
from observability.history.store import History
from power.policy import gate_override, override_file
from power.policy.gate_override import Override


def answer(
    home: Places, word: Literal["open", "closed"], because: str, for_s: float, now: datetime
) -> Override:
    """Keep the gate of the home open or closed for so many seconds.

    Raises BadConfiguration for a length or a reason that an override cannot have, and what the
    disk and the history raise.
    """
    try:
        override = Override(
            open=word == "open",
            set_at=now,
            until=now + timedelta(seconds=for_s),
            because=" ".join(_plain(because).split()),
        )
    except (ValueError, OverflowError) as error:
        raise BadConfiguration(
            f"an override lasts {gate_override.LONGEST_OVERRIDE.days} days at most, and has a "
            f"reason of 1 to 500 characters; came: --for-s {for_s:g} --because {because!r}"
        ) from error
    override_file.write(home.override, override)
    _log(home, gate_override.was_set(override), now)
    return override


def _plain(text: str) -> str:
    """The text without what would forge lines of a log, or move a terminal's cursor."""
    return "".join(each if each.isprintable() else " " for each in text)


def take_back(home: Places, now: datetime) -> bool:
    """Let the gate answer by itself again; False if there was no override. Raises as `answer`."""
    if not override_file.clear(home.override):
        return False
    _log(home, gate_override.was_cleared(), now)
    return True


def _log(home: Places, decision: Decision, now: datetime) -> None:
    """Record in the history, for no single pipeline, what a person did."""
    run_id = secrets.token_hex(6)
    row = DecisionRecord.of(decision, decided_at=now, pipeline="", run_id=run_id, position=0)
    History(home.home).commit([row], f"override.{run_id}")
