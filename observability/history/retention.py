"""How long the history keeps what it knows: the knobs of ``[upkeep]``, and what they remove. Pure.

Yields SQL as text and executes none; `history` does. Nothing is removed that a person did not ask
to have removed, and whatever their knobs say these stay: every model and its reigns, the newest run
of each pipeline, every request that is not settled, and of each writer the last commit by name,
which a resumed run may repeat.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

from pydantic import BaseModel, ConfigDict, Field

NAMES_KEPT_DAYS = 30
"""A commit is known by its name for at least so long, and as long as its rows."""


class UpkeepRules(BaseModel):
    """What `thermodrift upkeep` merges and removes, table ``[upkeep]``."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    keep_days: int | None = Field(
        default=None,
        ge=1,
        le=36_500,
        description="Days that decisions, scores, rejects, readings, costs, forecasts, ended runs"
        " and settled requests are kept; left out: for ever. Models and reigns always are.",
    )
    readings_keep_days: int | None = Field(
        default=None,
        ge=1,
        le=36_500,
        description="The same for GPU readings alone; left out: as keep_days.",
    )
    predictions_keep: int | None = Field(
        default=None,
        ge=100_000,
        description="Newest positions of each pipeline's prediction log that are kept, rounded up"
        " to whole files; left out: all.",
    )
    predictions_file_rows: int = Field(
        default=1_000_000,
        ge=10_000,
        le=10_000_000,
        description="Positions that one merged file of the prediction log covers.",
    )


@dataclass(frozen=True)
class Removal:
    """One DELETE: the table it is about, its SQL, and its one parameter."""

    table: str
    sql: str
    before: datetime


def removals(rules: UpkeepRules, now: datetime) -> Iterator[Removal]:
    """What must go at `now`, in an order in which every step leaves the views right."""
    readings_days = rules.readings_keep_days or rules.keep_days
    if readings_days is not None:
        yield _older("gpu_reading_rows", '"at"', now - timedelta(days=readings_days))
    if rules.keep_days is None:
        return
    before = now - timedelta(days=rules.keep_days)
    yield _older("decision_rows", "decided_at", before)
    for table in ("score_rows", "reject_rows", "replay_rows", "cost_rows", "forecast_rows"):
        yield _older(table, '"at"', before)
    yield Removal("run_rows", _RUNS, before)
    yield Removal("request_rows", _REQUESTS, before)
    names_days = max(rules.keep_days, NAMES_KEPT_DAYS)
    yield Removal("folded", _NAMES, now - timedelta(days=names_days))


def _older(table: str, column: str, before: datetime) -> Removal:
    return Removal(table, f"DELETE FROM {table} WHERE {column} < ?", before)


_RUNS = """
DELETE FROM run_rows WHERE (pipeline, run_id) IN (
    SELECT (pipeline, run_id) FROM (
        SELECT pipeline, run_id, max("at") AS last_at,
            row_number() OVER (PARTITION BY pipeline ORDER BY max("at") DESC, run_id) AS age
        FROM run_rows GROUP BY pipeline, run_id)
    WHERE age > 1 AND last_at < ?)"""
_REQUESTS = """
DELETE FROM request_rows WHERE (pipeline, request_id) IN (
    SELECT (pipeline, request_id) FROM requests WHERE settled_at < ?)"""
_NAMES = r"""
DELETE FROM folded WHERE name IN (
    SELECT name FROM (
        SELECT name, folded_at, row_number() OVER (
            PARTITION BY regexp_replace(name, '\.[0-9]+$', '')
            ORDER BY length(name) DESC, name DESC) AS age
        FROM folded)
    WHERE age > 1 AND folded_at < ?)"""
