"""An honest prequential replay: which model serves which record, under each simulated policy.

Pure. A policy chooses among candidates that are fitted already. It knows nothing of what comes
later. A model serves from the record on that arrives when its fit has ended, and no fit begins
while another one waits or runs. A simulated policy serves what it fits, as schedules do in the
literature; only the product compares a challenger first.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from flows.laboratory.candidates import FittedCandidate
from flows.laboratory.records import Floats, LabConfig, StreamRecords

Asks = Callable[[int, Sequence[int]], bool]
"""Whether a policy fits now: from the row, and the rows at which it has fitted so far."""

SCHEDULES = (500, 1000, 2000, 5000)


def never(row: int, fitted: Sequence[int]) -> bool:
    """The first champion, and no other."""
    return not fitted


def every(records: int, row: int, fitted: Sequence[int]) -> bool:
    """A fit as soon as there is one, and then every so many records."""
    return not fitted or row - fitted[-1] >= records


def doubled(row: int, fitted: Sequence[int]) -> bool:
    """A fit whenever there are twice as many rows as for the one before."""
    return not fitted or row >= 2 * fitted[-1]


def policies(config: LabConfig) -> Mapping[str, Asks]:
    """The simulated policies by name; a schedule finer than the candidates is left out."""
    return {
        "never": never,
        **{
            f"every {records:,}": partial(every, records)
            for records in SCHEDULES
            if records % config.every == 0
        },
        "amount": doubled,
    }


@dataclass(frozen=True, eq=False)
class Served:
    """A model that serves: from this row on, by these answers, which begin at row `begins`."""

    since: int
    begins: int
    answers: Floats


def chosen(
    asks: Asks, candidates: Sequence[FittedCandidate], config: LabConfig
) -> list[FittedCandidate]:
    """The candidates that a policy fits, in order."""
    fits: list[FittedCandidate] = []
    free = 0
    for candidate in candidates:
        if candidate.row >= free and asks(candidate.row, [each.row for each in fits]):
            fits.append(candidate)
            free = candidate.ready(config)
    return fits


def serving(fits: Sequence[FittedCandidate], config: LabConfig) -> list[Served]:
    """When each of these models serves."""
    return [Served(each.ready(config), each.row, each.answers) for each in fits]


def champion_answers(records: StreamRecords, models: Sequence[Served]) -> Floats:
    """What the champion of each record answers; NaN before the first one serves."""
    answers = records.unanswered()
    for model in models:
        if model.since < len(records):
            answers[model.since :] = model.answers[model.since - model.begins :]
    return answers
