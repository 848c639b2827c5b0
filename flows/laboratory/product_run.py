"""The product's own loop over a stream, and what became of it: no rule is imitated here.

The procedures are those of `thermodrift run`, called as plain functions, since an experiment needs
no server. Its home is thrown away when the run's retrains, alarms and models are known.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from flows.config.pipeline import Pipeline, PipelineFile
from flows.laboratory import candidates
from flows.laboratory.pieces import Arrays
from flows.laboratory.records import Floats, LabConfig, StreamRecords, for_the_lab
from flows.laboratory.simulation import Served
from flows.learning import drift_check, learn_batch
from flows.retraining import retrain
from flows.run import run_record
from flows.run.progress import Display
from flows.run.run_record import RunEnd
from flows.run.session import opened
from flows.run.shutdown import Stop
from flows.run.unit_of_work import UnitOfWork
from observability.core import toml_config

EVERY_ALARM: Mapping[str, Mapping[str, Any]] = {
    "worth": {"decide": "alarm", "cooldown_records": 0, "min_new_rows": 1, "archived_versions": 0}
}
"""Knobs with which each alarm leads to a fit."""
REUSED = "Reused"
"""How a request ended that an archived version has answered, without a fit."""
Knobs = Mapping[str, Mapping[str, Any]]
"""Values by table and knob, as in a pipeline file."""


@dataclass(frozen=True)
class Retrain:
    """A retrain of the product, or a version that serves again: where, and how it ended."""

    position: int
    outcome: str
    fit_s: float
    """Processor seconds, which other work on the machine does not change."""
    version: str | None
    """Of what was promoted."""


@dataclass(frozen=True)
class ProductRun:
    """What the loop did over a whole stream."""

    retrains: tuple[Retrain, ...]
    """Those that were answered by an archived version too."""
    alarms: tuple[int, ...]
    """Positions of the drift checks that said yes."""
    checks: int
    answers: Mapping[str, Floats]
    """Of each promoted version, from the row where it was promoted first to the stream's end."""

    @property
    def fits(self) -> list[Retrain]:
        """The retrains for which anything was fitted."""
        return [each for each in self.retrains if each.outcome != REUSED]

    @property
    def promoted(self) -> list[Retrain]:
        """The retrains that ended with a promotion."""
        return [each for each in self.retrains if each.version is not None]

    def serving(self, records: StreamRecords, config: LabConfig) -> list[Served]:
        """When each promoted version serves, when records go on arriving while it is fitted."""
        found: list[Served] = []
        for each in self.promoted:
            row, version = records.row_at(each.position), str(each.version)
            since = row if each.outcome == REUSED else candidates.ready(row, each.fit_s, config)
            begins = records.row_at(_first_served(self.retrains)[version])
            found.append(Served(since, begins, self.answers[version]))
        return found

    def to_arrays(self) -> Iterator[tuple[str, Floats]]:
        """The same as named arrays, for a file."""
        document = {
            "retrains": [asdict(each) for each in self.retrains],
            "alarms": self.alarms,
            "checks": self.checks,
        }
        yield "document", np.frombuffer(json.dumps(document).encode(), dtype=np.uint8)
        yield from self.answers.items()

    @classmethod
    def from_arrays(cls, arrays: Arrays) -> ProductRun:
        """The run that `to_arrays` has named."""
        answers = dict(arrays)
        document = json.loads(answers.pop("document").tobytes())
        return cls(
            tuple(Retrain(**each) for each in document["retrains"]),
            tuple(document["alarms"]),
            document["checks"],
            answers,
        )


def _first_served(retrains: Sequence[Retrain]) -> dict[str, int]:
    """The position at which each version was promoted first."""
    return {each.version: each.position for each in reversed(retrains) if each.version is not None}


def with_knobs(file: PipelineFile, knobs: Knobs) -> PipelineFile:
    """The pipeline with these values in place of the file's. Raises BadConfiguration."""
    given = file.pipeline.model_dump()
    for table, values in knobs.items():
        given[table] = {**given[table], **values}
    checked = toml_config.checked(given, Pipeline, file.path)
    return file.model_copy(update={"pipeline": checked})


def run(
    records: StreamRecords, home: Path, knobs: Knobs, stop: Callable[[], bool] = lambda: False
) -> ProductRun:
    """Run the product's loop over the stream in an empty `home`, with these knobs changed."""
    file = for_the_lab(with_knobs(records.file, knobs))
    candidates.warm_up(file.pipeline.batch.recipes, records.schema.task)
    retrains: list[Retrain] = []
    alarms: list[int] = []
    checks = 0
    with opened(file, home, Stop(), _Silent(), records.last) as work:
        work.commit([run_record.run_record(work, "started")])
        ended = False
        while True:
            if ended or learn_batch.aligned(work):
                if drift_check.due(work):
                    checks += 1
                    if _plain(drift_check.check)(work).changed:
                        alarms.append(work.state.position)
                if retrain.due(work):
                    retrains.extend(_retrained(work))
            if ended or work.records >= records.last or stop():
                break
            ended = _plain(learn_batch.learn)(work).ended
        run_record.end(work, RunEnd("finished", "the stream ends"))
        answers = {
            version: _answers(records, work, version, position)
            for version, position in _first_served(retrains).items()
        }
    return ProductRun(tuple(retrains), tuple(alarms), checks, answers)


def _plain(step: Any) -> Any:
    """A step of the loop as the plain function that Prefect has wrapped."""
    return getattr(step, "fn", step)


def _retrained(work: UnitOfWork) -> Iterator[Retrain]:
    """Attempt the open request; yields the retrain, if a fit ran or a version serves again."""
    before, position = len(work.statistics.costs), work.state.position
    ending = _plain(retrain.retrain)(work)
    spent = work.statistics.costs[before:]
    if ending is None or (not spent and ending.name != REUSED):
        return
    yield Retrain(
        position,
        ending.name,
        sum(each.cpu_s for each in spent),
        work.state.champion if ending.name in ("Promoted", REUSED) else None,
    )


def _answers(records: StreamRecords, work: UnitOfWork, version: str, position: int) -> Floats:
    model = work.run.registry.load(version, records.file.folder)
    rest = records.frame.iloc[records.row_at(position) :].reset_index(drop=True)
    return records.array_of_batch(model.predict(rest))


class _Silent(Display):
    """A display that shows nothing: the laboratory shows how far it is."""

    def __init__(self) -> None:
        """Nothing is drawn."""

    def at(self, position: int, fraction: float | None, rate: float, score: str) -> None:
        """Show nothing."""

    @contextmanager
    def doing(self, what: str) -> Iterator[None]:
        """Show nothing."""
        yield

    def log_event(self, position: int, what: str, because: str, style: str) -> None:
        """Print nothing."""
