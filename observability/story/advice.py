"""The tenth question: what should a person do now, as a command? It follows from the other nine.

Pure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta

from observability.story.past import Past
from observability.story.values import Answer, Live

LATELY = timedelta(days=1)
"""Trouble of that age or less asks for something to be done."""


def advice(nine: Sequence[Answer], past: Past, live: Live, now: datetime) -> Answer:
    """What should a person do now? The first command is the one that matters most."""
    found = _advice({each.key: each for each in nine}, past, live, now)
    question, sql = "What should I do now?", past.sql.get("trouble", "")
    if not found:
        told = "Nothing asks for a person. This shows the state again."
        commands: tuple[str, ...] = (live.command("status"),)
        return Answer(
            "advice", question, "good", "Nothing", told, {}, past.sql.get("trouble", ""), commands
        )
    told = " ".join(why for why, _ in found)
    short = found[0][0].partition(":")[0].rstrip(".")
    commands = tuple(dict.fromkeys(command for _, command in found))
    return Answer("advice", question, "act", short, told, {}, sql, commands)


def _advice(
    by_key: Mapping[str, Answer], past: Past, live: Live, now: datetime
) -> list[tuple[str, str]]:
    """Why something should be done, and the command, the most pressing first."""
    name, file = past.pipeline, live.file or f"{past.pipeline}.toml"
    found: list[tuple[str, str]] = []
    if live.state == "not begun":
        return [("Begin: nothing has run here yet.", live.command("run", file))]
    if live.state == "unreadable":
        return [("The checkpoint cannot be read.", live.command("doctor"))]
    intake = live.intake or {}
    if intake.get("state", "well") != "well":
        told = f"The stream does not fit what it began with: {intake.get('because')}. "
        told += f"What helps: {intake.get('remedy')}"
        found.append((told, live.command("rejects", "ls", file)))
    if by_key["stale"].state == "act":
        found.append(("The last run did not end well: run it again.", live.command("run", file)))
    if by_key["serves"].state == "act":
        found.append(
            ("The service cannot load the newest model.", live.command("models", "verify", name))
        )
    if live.candidate is not None:
        told = f"Decide about version {live.candidate['version']}, which has won."
        version = str(live.candidate["version"])
        found.append((told, live.command("models", "promote", name, version)))
    if by_key["good"].state == "act":
        told = "What is served is worse than no change: see how the members do."
        found.append((told, live.command("models", "ls", name)))
    if by_key["world"].state == "act":
        found.append(
            ("A column is gone or has another type.", live.command("stream", "show", file))
        )
    if past.first("request") is not None:
        found += _for_waiting(by_key["devices"], live, file)
    if live.override_problem:
        found.append(("The override cannot be read.", live.command("gate", "override", "clear")))
    for row in past.rows.get("trouble", ()):
        if now - row["last_at"] <= LATELY and row["question"] in ("history", "answers"):
            told = f"{row['question']}: {row['because']}."
            found.append((told, live.command("doctor")))
    return found


def _for_waiting(devices: Answer, live: Live, file: str) -> list[tuple[str, str]]:
    """What a retrain that waits asks of a person, if anything."""
    if live.override is not None and live.override["answer"] == "closed":
        told = "A retrain waits while a person keeps the gate closed: take that back if it may run."
        return [(told, live.command("gate", "override", "clear"))]
    if live.state == "resting":
        return [("A retrain waits, and no run asks for it: run again.", live.command("run", file))]
    if devices.state == "act":
        return [("A retrain waits for a device: see why.", live.command("gate", "show"))]
    return []
