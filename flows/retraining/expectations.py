"""Holds what a retrain was expected to bring against what came, and remembers it.

It decides nothing and commits nothing: the rows belong to the outcome of the request.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from flows.learning import worth_check
from flows.retraining.training import Prepared
from flows.run.state import OpenRequest, Reuse
from flows.run.unit_of_work import UnitOfWork
from models.batch.candidates import Trial
from models.batch.evaluation import Challenge
from observability.core.decision import Decision
from observability.history.records import Record
from observability.worth.learning_curve import SizeScore
from observability.worth.memory import Candidate, Change, Level


def conclude(
    work: UnitOfWork,
    request: OpenRequest,
    prepared: Prepared,
    challenge: Challenge,
    version: str,
    promoted: Decision,
    *,
    waits: bool = False,
) -> list[Record]:
    """Remember how a challenger compared, before the champion changes; the rows of the history.

    `promoted` is whether it serves from now on. If not, it may be that it `waits` for a person's
    word: then it is not known yet what comes of it.
    """
    state = work.state
    state.worth = known = replace(state.worth, unfitted=False)
    if prepared.champion_version != state.champion:
        # It was compared with another champion than the one that serves.
        return []
    challenger = worth_check.loss_share(challenge.scores, "challenger", challenge.measure)
    champion = worth_check.loss_share(challenge.scores, "champion", challenge.measure)
    saved = gain(challenge)
    served = served_gain(work, challenge)
    if challenger is not None:
        rows = _rows_of_concept(work, prepared, challenge)
        serving = challenger if promoted or champion is None else champion
        sizes = _sizes(work, prepared, challenge, challenger)
        level = Level(
            version=version if promoted else state.champion or "",
            position=prepared.position,
            loss=serving[0],
            unit=challenger[1],
            rows=rows or len(challenge.parts.train),
            held=len(challenge.parts.held),
            deficit=0.0 if promoted or saved is None else max(-saved, 0.0),
        )
        state.worth = known.scored(sizes, level)
        if (
            not promoted
            and known.level is not None
            and rows < worth_check.fewest_rows(prepared.recipe)
        ):
            # A challenger that does not know the present concept does not show what is attainable.
            state.worth = known
    told = _settle(work, request, version, served, None if waits else promoted)
    if promoted and not waits:
        state.worth = state.worth.ahead_by(saved)
    return told


def gain(challenge: Challenge) -> float | None:
    """What the challenger saves against the champion on the hold-out, as a share of the baseline's.

    None without a champion, or where a loss is unknown.
    """
    challenger = worth_check.loss_share(challenge.scores, "challenger", challenge.measure)
    champion = worth_check.loss_share(challenge.scores, "champion", challenge.measure)
    return None if champion is None or challenger is None else champion[0] - challenger[0]


def served_gain(work: UnitOfWork, challenge: Challenge) -> float | None:
    """What is served gains by the challenger, as far as it is known what champions add to it."""
    own = gain(challenge)
    return None if own is None else work.state.worth.served(own)


def candidate(work: UnitOfWork, version: str, because: str, gain: float | None) -> None:
    """Remember that a challenger won, and waits for a person's word."""
    state = work.state
    state.worth = replace(state.worth, candidate=Candidate(version, state.position, gain, because))


def reused(
    work: UnitOfWork, request: OpenRequest, reuse: Reuse, promoted: Decision
) -> list[Record]:
    """Remember that an archived version serves again; the rows of the history."""
    state = work.state
    served = state.worth.served(reuse.gain)
    state.worth = replace(state.worth, level=reuse.level, unfitted=False)
    rows = _settle(work, request, reuse.version, served, promoted)
    state.worth = state.worth.ahead_by(reuse.gain)
    return rows


def without_model(work: UnitOfWork, request: OpenRequest) -> list[Record]:
    """Remember that a request ended without a challenger; the rows of the history."""
    work.state.worth = replace(work.state.worth, unfitted=True)
    return _settle(work, request, None, None, None)


def _settle(
    work: UnitOfWork,
    request: OpenRequest,
    version: str | None,
    gain: float | None,
    promoted: Decision | None,
) -> list[Record]:
    """Nothing comes of a challenger that is not promoted."""
    state = work.state
    yes = promoted is not None and promoted.yes
    replaced = state.champion if yes else None
    state.worth = state.worth.settle(
        request.request_id,
        version=version,
        replaced=replaced,
        compared=gain if yes else None if promoted is None else 0.0,
    )
    newest = state.worth.newest
    if newest is None or newest.request_id != request.request_id:
        return []
    if yes:
        began = state.worth.loss_since
        place = request.asked_position if began is None else began
        state.worth = state.worth.changed(Change(place, replaced, newest.chance))
    return worth_check.expectation_row(work, newest, "compared")


def _sizes(
    work: UnitOfWork, prepared: Prepared, challenge: Challenge, challenger: tuple[float, float]
) -> list[SizeScore]:
    """The losses of the challenger's recipe by the rows of its windows, its own the last.

    Of a recipe, the windows alone differ, and all were scored on the same hold-out. A window that
    reaches back before the present concept has other rows besides more of them.
    """
    began, chosen = worth_check.concept_began(work.state), challenge.trials[challenge.chosen]
    loss, place = challenger[0], prepared.position

    def of_concept(trial: Trial) -> bool:
        return prepared.positions[int(trial.candidate.rows[0])] >= began

    own = SizeScore(len(chosen.candidate.rows), loss, place)
    if not (of_concept(chosen) and chosen.loss > 0):
        return [own]
    others = [
        SizeScore(len(each.candidate.rows), loss * each.loss / chosen.loss, place)
        for each in challenge.trials
        if each is not chosen and each.candidate.recipe == chosen.candidate.recipe
        if math.isfinite(each.loss) and of_concept(each)
    ]
    return [*others, own]


def _rows_of_concept(work: UnitOfWork, prepared: Prepared, challenge: Challenge) -> int:
    """Of the rows that it could be fitted on, those of the present concept.

    Where a model of fewer rows was better, more of them did not help: they count all the same.
    """
    trained = np.asarray(prepared.positions)[challenge.parts.train]
    return int((trained >= worth_check.concept_began(work.state)).sum())
