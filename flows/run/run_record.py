"""How a run ended, and its row in the history."""

from __future__ import annotations

import socket
import time
from dataclasses import dataclass
from typing import Literal

from flows.run.session import Session
from observability.history.records import RunRecord

Outcome = Literal["finished", "limit_reached", "stopped", "failed", "schema_mismatch"]


@dataclass(frozen=True)
class Ended:
    """How a run ended, and why."""

    outcome: Outcome
    because: str


def run_record(
    session: Session, event: Literal["started", "ended"], ended: Ended | None = None
) -> RunRecord:
    """The row of a run that begins, or has ended so."""
    totals, before = session.state.totals, session.totals_before
    return session.row(
        RunRecord,
        event=event,
        position=session.state.position,
        outcome=ended.outcome if ended else None,
        because=ended.because if ended else None,
        records=totals.records - before.records if ended else None,
        learned=totals.learned - before.learned if ended else None,
        # Those that are rejects no more were rejected by other runs.
        rejected=totals.rejected + totals.replayed - before.rejected - before.replayed
        if ended
        else None,
        replayed=totals.replayed - before.replayed if ended else None,
        unlabelled=totals.unlabelled - before.unlabelled if ended else None,
        seconds=time.monotonic() - session.started_monotonic_s if ended else None,
        cpu_s=session.cpu_s if ended else None,
        host=socket.gethostname(),
    )
