"""Detects labels that are new: a new class, or values outside the range so far.

Pure computation. Such labels are evidence of a change by themselves, without any statistic, and no
earlier model can know them. Only records are counted, and no time.
"""

from __future__ import annotations

from collections import deque

from models.core.record_schema import Label, Task

WARM = 500
"""First records, in which nothing counts as new."""
CONFIRMED = 10
"""New labels that confirm a change; fewer may be mistakes or outliers."""
NEAR_CLASS = 500
"""Records within which a new class must occur `CONFIRMED` times. A rarer one is no change."""
NEAR_VALUE = 50
"""Records within which `CONFIRMED` values must be far outside: tails of a target are rare."""


class Novelty:
    """Learns every label, and says from which record on labels are new."""

    def __init__(self, task: Task) -> None:
        self.task = task
        self.learned = 0
        self.changed_at: int | None = None
        """The first record of the last change, counted from 0; None: there was none."""
        self.because = ""
        """What changed."""
        self._first: dict[Label, int] = {}
        self._counts: dict[Label, int] = {}
        self._low = self._high = 0.0
        self._outside: deque[tuple[int, float]] = deque(maxlen=CONFIRMED)

    def learn(self, label: Label) -> bool:
        """Learn a label; returns whether it confirms a change."""
        now, self.learned = self.learned, self.learned + 1
        if self.task == "regression":
            return self._learn_value(now, float(label))
        count = self._counts[label] = self._counts.get(label, 0) + 1
        if count > CONFIRMED:
            return False
        first = self._first.setdefault(label, now)
        if count < CONFIRMED or first < WARM or now - first >= NEAR_CLASS:
            return False
        self.changed_at = first
        self.because = (
            f"the class {label!r} is new: it came {count} times in {now - first + 1} records, and "
            f"never in the {first} before"
        )
        return True

    def _learn_value(self, now: int, value: float) -> bool:
        if now == 0:
            self._low = self._high = value
        span = self._high - self._low
        if now < WARM or self._low - span <= value <= self._high + span:
            self._widen(value)
            return False
        if len(self._outside) == CONFIRMED:
            # The oldest one was an outlier: it belongs to the known range from now on.
            self._widen(self._outside[0][1])
        self._outside.append((now, value))
        first, _ = self._outside[0]
        if len(self._outside) < CONFIRMED or now - first >= NEAR_VALUE:
            return False
        low, high = self._low, self._high
        for _, each in self._outside:
            self._widen(each)
        self._outside.clear()
        self.changed_at = first
        self.because = (
            f"the target left the range seen: {CONFIRMED} of {now - first + 1} values, the last "
            f"{value:.6g}, are further out of {low:.6g} to {high:.6g} than that is wide"
        )
        return True

    def _widen(self, value: float) -> None:
        self._low, self._high = min(self._low, value), max(self._high, value)
