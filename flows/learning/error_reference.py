"""The reference of a new champion's errors: what it loses on rows that it did not learn from."""

from __future__ import annotations

from collections.abc import Sequence

from flows.run.state import HeldOutLosses, PipelineState
from flows.run.unit_of_work import UnitOfWork
from models.batch.batch_model import BatchAnswersNothing
from models.core import record_schema, scoring
from models.core.prediction import Answer
from models.core.record_schema import Label
from models.registry.registry import Manifest
from models.stream.source import Records
from observability.drift.error_monitor import CHAMPION

MOST_KEPT = 3
"""Of so many versions the losses are kept: the champion's, and those that may serve in its place.

Each costs a checkpoint about twelve bytes a row of its hold-out.
"""


def keep(
    state: PipelineState,
    version: str,
    positions: Sequence[int],
    answers: Sequence[Answer],
    labels: Sequence[Label],
) -> None:
    """Keep what a version lost on the newest share of its hold-out before it was fitted on it too.

    Afterwards no row is left that it did not learn from. The version that serves was fitted on more
    rows than the one that lost this, so it should lose no more, and its reference is cautious.
    """
    losses = tuple(
        scoring.loss(state.schema.task, answer, label)
        for answer, label in zip(answers, labels, strict=True)
    )
    kept = [*state.held_out.items(), (version, HeldOutLosses(tuple(positions), losses))]
    # The champion's are the last to go.
    kept.sort(key=lambda each: each[0] == state.champion)
    state.held_out = dict(kept[-MOST_KEPT:])


def follow_champion(work: UnitOfWork) -> None:
    """Let the tests of errors begin anew where another champion serves than the one they know.

    Its hold-out is read again and predicted, so a champion that a person promoted has the same
    reference as one that was just fitted. Of a champion that was fitted on its hold-out too, what
    it lost there before is kept. Where neither is known, or the champion cannot answer, its first
    losses become its reference.
    """
    state = work.state
    if state.tested_champion == state.champion:
        return
    state.tested_champion = state.champion
    state.learner.champion_value.begin_anew()
    found = HeldOutLosses((), ())
    if state.champion is not None:
        known = state.held_out.get(state.champion)
        found = known or _held_out_losses(work, work.run.registry.manifest(state.champion))
    state.learner.errors.reset(CHAMPION, state.position, found.positions, found.losses)


def _held_out_losses(work: UnitOfWork, manifest: Manifest) -> HeldOutLosses:
    """What the champion loses on the newest share of its hold-out."""
    state, nothing = work.state, HeldOutLosses((), ())
    if manifest.holdout_from >= state.position:
        # A person promoted a version of further on, into a pipeline that began anew.
        return nothing
    read = work.run.stream.between(
        manifest.holdout_from, min(manifest.holdout_to, state.position), state.cursors
    ).labelled()
    held = _unseen(read, manifest)
    if not held.positions:
        return nothing
    champion = work.champion()
    assert champion is not None
    try:
        predicted = champion.predict(record_schema.frame(held.table, state.schema))
    except BatchAnswersNothing:
        return nothing
    losses = tuple(
        scoring.loss(state.schema.task, answer, label)
        for answer, label in zip(predicted.answers(), held.labels, strict=True)
        if label is not None
    )
    return HeldOutLosses(tuple(held.positions), losses)


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
