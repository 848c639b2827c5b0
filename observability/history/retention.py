"""The retention policy of the history: the settings of ``[upkeep]``, and what they remove. Pure.

This file holds SQL as text and does not execute it. Rows that no setting names are kept. With any
setting these are kept as well: every model and its periods as champion, the newest run of each
pipeline, every open request, and the last commit name of each writer, which a resumed run may
repeat.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

from pydantic import BaseModel, ConfigDict, Field

NAMES_KEPT_DAYS = 30
"""The name of a commit is kept for at least this long, and for as long as its rows."""
FLUSHED_FILES = 1000
FLUSHED_BYTES = 64 << 20
FLUSHED_DAYS = 7
"""Limits of the outbox files that are kept after their flush, in case the history loses rows."""


class RetentionConfig(BaseModel):
    """Table ``[upkeep]``: what `thermodrift upkeep` merges and removes."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    keep_days: int | None = Field(
        default=None,
        ge=1,
        le=36_500,
        description="Days that decisions, scores, rejects, readings, costs, forecasts,"
        " expectations, ended runs and closed requests are kept; left out: for ever. Models and"
        " champion periods are kept for ever.",
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
    """One DELETE: its table, its SQL, and its one parameter."""

    table: str
    sql: str
    before: datetime


def removals(config: RetentionConfig, now: datetime) -> Iterator[Removal]:
    """Yield what is removed at `now`, in an order that keeps the views correct after each step."""
    readings_days = config.readings_keep_days or config.keep_days
    if readings_days is not None:
        yield _older("gpu_reading_rows", '"at"', now - timedelta(days=readings_days))
    if config.keep_days is None:
        return
    before = now - timedelta(days=config.keep_days)
    yield _older("decision_rows", "decided_at", before)
    for table in (
        *("score_rows", "reject_rows", "replay_rows", "cost_rows", "forecast_rows"),
        "expectation_rows",
    ):
        yield _older(table, '"at"', before)
    yield Removal("run_rows", _RUNS, before)
    yield Removal("request_rows", _REQUESTS, before)
    names_days = max(config.keep_days, NAMES_KEPT_DAYS)
    yield Removal("flushed_commits", _NAMES, now - timedelta(days=names_days))


def flushed_files_kept(sizes: Iterable[tuple[int, int]], now_ns: int) -> int:
    """Return how many of the newest flushed outbox files are kept at `now_ns`.

    `sizes` are their sizes in bytes and the times of their last change in ns since 1970, newest
    first.
    """
    total, kept = 0, 0
    oldest_ns = now_ns - FLUSHED_DAYS * 86_400 * 10**9
    for size, changed_at_ns in sizes:
        total += size
        if kept >= FLUSHED_FILES or total > FLUSHED_BYTES or changed_at_ns < oldest_ns:
            break
        kept += 1
    return kept


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
    SELECT (pipeline, request_id) FROM requests WHERE closed_at < ?)"""
_NAMES = r"""
DELETE FROM flushed_commits WHERE name IN (
    SELECT name FROM (
        SELECT name, flushed_at, row_number() OVER (
            PARTITION BY regexp_replace(name, '\.[0-9]+$', '')
            ORDER BY length(name) DESC, name DESC) AS age
        FROM flushed_commits)
    WHERE age > 1 AND flushed_at < ?)"""
