"""What is going on, and why: read from the checkpoints' first lines, so that it always answers.

Neither a model is unpickled nor the history opened: an analyst's open session, a run in progress or
a missing library never stands in the way.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from flows.session import AlreadyRunning, locked
from models import checkpoint
from observability import console
from observability.places import PIPELINE_NAME, PipelinePlaces, Places


def of(home: Path) -> list[dict[str, Any]]:
    """One document per pipeline of the home, by name."""
    folder = Places(home).pipelines
    if not folder.is_dir():
        return []
    return [
        _one(Places(home).pipeline(each.name))
        for each in sorted(folder.iterdir())
        if each.is_dir() and PIPELINE_NAME.fullmatch(each.name)
    ]


def _one(places: PipelinePlaces) -> dict[str, Any]:
    try:
        known = checkpoint.brief(places.checkpoint)
    except FileNotFoundError:
        return {"pipeline": places.name, "state": "not begun"}
    except OSError as error:
        return {"pipeline": places.name, "state": "unreadable", "because": str(error)}
    return {**known, "state": _state(places)}


def _state(places: PipelinePlaces) -> str:
    try:
        with locked(places, wait_s=0):
            return "resting"
    except AlreadyRunning:
        return "running"
    except OSError:
        # Another user's home may be read and not locked.
        return "unknown"


def server(home: Path) -> str | None:
    """The page of the Prefect server of a home that is up (`thermodrift up`); else None."""
    from flows import box

    return box.where(home)


def tell(found: Sequence[dict[str, Any]], up_at: str | None = None) -> None:
    """Print the documents for people, and where the runs of a home that is up can be seen."""
    out = console.stdout()
    if up_at is not None:
        out.print(f"up: {up_at}", highlight=False, soft_wrap=True)
    if not found:
        out.print("nothing has run here yet; `thermodrift init` writes a pipeline to start from")
        return
    console.print_table(
        ["pipeline", "state", "position", "served", "champion", "alarms", "retrains", "owed"],
        [
            (
                each["pipeline"],
                each["state"],
                each.get("position"),
                each.get("scores", {}).get("served"),
                each.get("champion"),
                each.get("totals", {}).get("alarms"),
                each.get("totals", {}).get("retrains"),
                _owed(each.get("request")),
            )
            for each in found
        ],
    )
    for each in found:
        for vote in each.get("unknown_votes", []):
            out.print(
                f"{each['pipeline']}: drift unknown, {vote['vote']}, since {vote['since']:,}: "
                f"{vote['because']}; known with: {vote['remedy']}",
                markup=False,
                soft_wrap=True,
            )
        if each["state"] == "unreadable":
            out.print(each["because"], markup=False, soft_wrap=True)


def _owed(request: dict[str, Any] | None) -> str | None:
    if request is None:
        return None
    return f"a retrain, deferred {request['deferrals']} times: {request['why_deferred']}"
