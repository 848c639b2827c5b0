"""Makers for the tests of the pages: a pipeline that waited for a warm device, and hostile rows."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

from observability.history.records import DecisionRecord, GpuReadingRecord
from observability.history.store import History
from tests.flows.api.makers import Learned, make_learned
from tests.flows.makers import NAME
from tests.power.makers import write_trace

HOSTILE = "<script>alert('x')</script><img src=x onerror=alert(1)>\"'&{{ 7*7 }}"
"""What a column, a device or a person's reason may be called."""


def make_told(folder: Path) -> Learned:
    """A pipeline that ran to its end on a device that was hot at first: all that a page tells."""
    folder.mkdir(parents=True, exist_ok=True)
    hot = [{"temperature_c": 85, "margin_c": 4} for _ in range(40)]
    cool = [{"temperature_c": 60 - each / 10, "margin_c": 25 + each / 10} for each in range(200)]
    write_trace(folder / "trace.csv", *hot, *cool)
    gate = {"source": "trace", "trace": "trace.csv", "trace_s_per_record": 0.1}
    return make_learned(folder, None, gate=gate)


def add_hostile(told: Learned, now: datetime | None = None) -> datetime:
    """Commit rows whose every text is hostile; the moment of their decision."""
    at = now or datetime.now(UTC)
    decided_at = at - timedelta(seconds=1)
    facts = {
        "outcome": "drift_detected",
        "nature": "real",
        "number_method": "wasserstein",
        "category_method": "jensenshannon",
        f"feature:{HOSTILE}": 2.0,
        f"threshold:{HOSTILE}": 1.0,
        "features_drifted": 1,
        HOSTILE: HOSTILE,
    }
    rows = [
        DecisionRecord(
            decided_at=decided_at,
            pipeline=NAME,
            run_id=HOSTILE,
            position=1,
            question="drift",
            yes=True,
            because=HOSTILE,
            facts=facts,
        ),
        GpuReadingRecord(
            at=decided_at,
            pipeline=NAME,
            run_id=HOSTILE,
            source=HOSTILE,
            uuid=HOSTILE,
            elapsed_s=1.0,
            margin_c=12.0,
        ),
    ]
    History(told.home).commit(rows, "hostile")
    return decided_at
