"""Policy: have the columns of predictions changed whose labels have not come? Pure.

Without labels it is known what was asked and what was answered, and not whether that was right. So
the newest predictions that wait for their labels are compared with the champion's reference, column
by column, by the methods and thresholds of a drift check (`drift.judge`). The answer is a decision
of its own, about unlabelled rows: it says nothing of errors, and nothing is trained because of it.
By chance alone, `column_false_alarms` of such looks at columns that have not changed say yes, where
no threshold is a person's. The rows are those that still wait: where some kinds of them wait
longer than others, that is a difference, too.
"""

from __future__ import annotations

from observability.core.decision import Decision, Fact
from observability.drift import drift
from observability.drift.drift import DriftConfig, DriftReading

QUESTION = "unlabelled drift"
_OF_LABELS = ("error_", "performance_")
"""Beginnings of facts that need labels."""


def due(recorded: int, checked_at: int, waiting: int, config: DriftConfig) -> bool:
    """Return whether to look, after a look when `checked_at` predictions had been recorded.

    `recorded` are all predictions so far, and `waiting` those without a label.
    """
    return waiting >= config.min_rows and recorded - checked_at >= config.every


def judge(reading: DriftReading, waiting: int, config: DriftConfig) -> Decision:
    """Decide whether features or predictions of unlabelled rows have changed.

    `reading` has no target and no errors, and `waiting` is how many predictions have no label.
    """
    judged = drift.judge(reading, config)
    named = {config.named_threshold(each.kind) for each in reading.columns} - {None}
    rate = None if named else config.column_false_alarms
    by_chance = (
        "how often chance alone says yes is not known, with thresholds that a person named"
        if rate is None
        else f"chance alone says yes in {rate:g} of such looks"
    )
    facts: dict[str, Fact] = {
        key: value
        for key, value in judged.facts.items()
        if not key.startswith(_OF_LABELS) and key not in {"untested", "change", "change_estimate"}
    }
    facts |= {
        "nature": "unknown" if judged.yes else "none",
        "waiting": waiting,
        "false_alarm_share": rate,
    }
    return Decision(
        question=QUESTION,
        yes=judged.yes,
        because=f"of the {reading.current_rows} newest of {waiting} unlabelled rows: "
        f"{judged.because}; {by_chance}, and whether errors rose is not known without labels",
        facts=facts,
    )
