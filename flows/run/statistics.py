"""What a run counts, for its summary and its row in the history."""

from __future__ import annotations

import time
from dataclasses import replace

from flows.run.cost_meter import Cost
from flows.run.state import Totals
from models.core.library_warnings import CollectedWarnings


class RunStatistics:
    """Counts and sums of one run, which begins at `position` with these totals of the pipeline."""

    def __init__(self, position: int, totals: Totals) -> None:
        self.started_position = position
        self.totals_before = replace(totals)
        self._started_s = time.monotonic()
        self._started_cpu_s = time.process_time()
        self.costs: list[Cost] = []
        """Of the heavy work that this run did."""
        self.learning_s = 0.0
        """Seconds spent in learning batches, without drift checks and retrains."""
        self.refused_in_a_row = 0
        """Records on which the online model raised, since it last learned one."""
        self.unfinished_bytes = 0
        """Bytes at the end of the stream's file that are no whole record yet."""
        self.logged_nowhere = 0
        """Replayed records whose file of the log is removed or damaged."""
        self.warned = CollectedWarnings()
        """Warnings of libraries that were not reported yet, without those of fits."""
        self.reported_warnings = 0
        self._reporters: set[str] = set()

    @property
    def seconds(self) -> float:
        """Seconds since the run began."""
        return time.monotonic() - self._started_s

    @property
    def cpu_s(self) -> float:
        """Processor time of this process since the run began, all threads, in seconds."""
        return time.process_time() - self._started_cpu_s

    @property
    def warnings(self) -> int:
        """The number of warnings in this run, reported or not."""
        return self.reported_warnings + self.warned.count

    def take_warnings(self, who: str) -> CollectedWarnings | None:
        """What was collected since the last call, to be reported of `who`.

        None where nothing was, or where `who` was reported in this run: then it is only counted.
        """
        warned, self.warned.count, self.warned.first = replace(self.warned), 0, ""
        if not warned.count:
            return None
        if who in self._reporters:
            self.reported_warnings += warned.count
            return None
        self._reporters.add(who)
        return warned
