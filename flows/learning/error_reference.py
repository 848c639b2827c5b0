"""The reference of a new champion's errors: what it loses on rows that it did not learn from."""

from __future__ import annotations

from flows.run.unit_of_work import UnitOfWork
from models.batch.batch_model import BatchAnswersNothing
from models.core import record_schema, scoring
from models.registry.registry import Manifest
from models.stream.source import Records
from observability.drift.error_monitor import CHAMPION


def follow_champion(work: UnitOfWork) -> None:
    """Let the tests of errors begin anew where another champion serves than the one they know.

    Its hold-out is read again and predicted, so a champion that a person promoted has the same
    reference as one that was just fitted. Where it has no rows that it did not learn from, or
    cannot answer, its first losses become its reference.
    """
    state = work.state
    if state.tested_champion == state.champion:
        return
    state.tested_champion = state.champion
    positions: list[int] = []
    losses: list[float] = []
    if state.champion is not None:
        positions, losses = _held_out_losses(work, work.run.registry.manifest(state.champion))
    state.learner.errors.reset(CHAMPION, state.position, positions, losses)


def _held_out_losses(work: UnitOfWork, manifest: Manifest) -> tuple[list[int], list[float]]:
    """The positions of the newest share that were held out, and the champion's losses there."""
    state = work.state
    read = work.run.stream.between(
        manifest.holdout_from, min(manifest.holdout_to, state.position), state.marks
    ).labelled()
    held = _unseen(read, manifest)
    if not held.positions:
        return [], []
    champion = work.champion()
    assert champion is not None
    try:
        predicted = champion.predict(record_schema.frame(held.table, state.schema))
    except BatchAnswersNothing:
        return [], []
    losses = [
        scoring.loss(state.schema.task, answer, label)
        for answer, label in zip(predicted.answers(), held.labels, strict=True)
        if label is not None
    ]
    return held.positions, losses


def _unseen(held_out: Records, manifest: Manifest) -> Records:
    """The rows that the model was not fitted on."""
    seen = {*manifest.joined}
    return held_out.take(
        [
            index
            for index, position in enumerate(held_out.positions)
            if position >= manifest.train_to and position not in seen
        ]
    )
