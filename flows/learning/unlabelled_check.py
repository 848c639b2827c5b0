"""Watch what has no label yet: have its features, or what was answered, changed?

The policy decides (`unlabelled.judge`); this module reads the newest predictions that wait in the
inbox of this pipeline's own service, and records the decision. Nothing follows from it but that it
is said. It looks at what waits now, so two runs over the same stream may look at other rows.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from flows.run.state import UnlabelledLook
from flows.run.unit_of_work import UnitOfWork
from models.batch import batch_model
from models.core import record_schema
from models.stream.source import Records
from observability.core.decision import Decision
from observability.drift import drift, evidently_adapter, unlabelled

if TYPE_CHECKING:
    import pandas as pd


def look(work: UnitOfWork) -> Decision | None:
    """Judge what waits, where that is due; None: it is not, or there is nothing to compare with."""
    state, config = work.state, work.run.file.pipeline.drift
    if work.run.file.pipeline.stream.service != work.run.name or state.champion is None:
        return None
    counts = work.run.stream.counts()
    if counts is None:
        return None
    recorded, waiting = counts
    if not unlabelled.due(recorded, state.unlabelled.recorded, waiting, config):
        return None
    with work.run.display.doing("checking"), work.run.stop.breakable():
        records = work.run.stream.waiting(config.window)
        champion = work.run.registry.manifest(state.champion)
        reference = work.run.registry.reference(champion).drop(columns=state.schema.target)
        watched = drift.watched(
            {column.name: column.kind for column in state.schema.columns},
            label_kind="category" if state.schema.task == "classification" else "number",
            prediction=batch_model.PREDICTION,
        )
        reading = evidently_adapter.measure(reference, _frame(work, records), watched, config)
    judged = unlabelled.judge(reading, waiting, config)
    if judged:
        work.run.display.log_event(state.position, "unlabelled", judged.because, "yellow")
    state.unlabelled = UnlabelledLook(recorded, state.position, judged.yes, judged.because)
    work.commit([work.decision_row(judged)])
    return judged


def _frame(work: UnitOfWork, records: Records) -> pd.DataFrame:
    """Features, and what the champion of now had answered of them."""
    import pandas as pd

    schema, champion = work.state.schema, work.state.champion
    frame = record_schema.frame(records.table, schema)
    answers = [
        None if each is None or each.champion != champion else each.members.get("batch")
        for each in records.given
    ]
    frame[schema.target] = None
    frame[batch_model.PREDICTION] = pd.Series(
        [None if each is None else each.value for each in answers], dtype=object
    )
    return batch_model.typed_reference(frame, schema).drop(columns=schema.target)
