"""The history's rows of a run: that it began, and how it ended."""

from __future__ import annotations

import socket
from contextlib import suppress
from dataclasses import dataclass
from typing import Literal

from flows.run.unit_of_work import UnitOfWork
from observability.history.records import RunRecord

Outcome = Literal["finished", "limit_reached", "stopped", "failed", "schema_mismatch"]


@dataclass(frozen=True)
class RunEnd:
    """How a run ended, and why."""

    outcome: Outcome
    because: str


def run_record(
    work: UnitOfWork, event: Literal["started", "ended"], ended: RunEnd | None = None
) -> RunRecord:
    """The row of a run that begins, or has ended."""
    totals, before = work.state.totals, work.statistics.totals_before
    return work.run.row(
        RunRecord,
        event=event,
        position=work.state.position,
        outcome=ended.outcome if ended else None,
        because=ended.because if ended else None,
        records=totals.records - before.records if ended else None,
        learned=totals.learned - before.learned if ended else None,
        # Replayed records were rejected by other runs.
        rejected=totals.rejected + totals.replayed - before.rejected - before.replayed
        if ended
        else None,
        replayed=totals.replayed - before.replayed if ended else None,
        unlabelled=totals.unlabelled - before.unlabelled if ended else None,
        seconds=work.statistics.seconds if ended else None,
        cpu_s=work.statistics.cpu_s if ended else None,
        host=socket.gethostname(),
    )


def end(work: UnitOfWork, ended: RunEnd) -> None:
    """Record how the run ended; all that it committed is in the history after that."""
    work.report_warnings("a library")
    work.commit([run_record(work, "ended", ended)])
    work.flush()
    work.wait()
    work.export_metrics(ends=True)


def end_failed(work: UnitOfWork, error: Exception) -> None:
    """Record that the run failed; where even that fails, the run is shown without an end."""
    failed = run_record(work, "ended", RunEnd("failed", f"{type(error).__name__}: {error}"))
    with suppress(OSError):
        work.run.history.commit([failed], f"{work.run.name}.{work.run.run_id}.failed")
    work.export_metrics(ends=True)
