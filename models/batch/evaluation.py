"""Fits a challenger on a window, and compares it with champion and baseline on the newest rows.

Pure computation: it reads no disk, and no clock but the one it is given. It decides nothing: that
is for `models.batch.promotion`. `models.batch.challenger` makes the fits; a preempted challenge can
be resumed later.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from models.batch import batch_model, challenger, holdout
from models.batch.batch_model import BatchAnswersNothing, BatchModel, TooLittleToLearn
from models.batch.candidates import Trial
from models.batch.challenger import Fits, UnfinishedChallenge
from models.batch.fit_guard import Guard
from models.batch.holdout import HoldoutSplit, Rows
from models.batch.promotion import Comparison
from models.batch.recipe_config import BatchRecipe
from models.core import metrics
from models.core.metrics import Measure
from models.core.record_schema import Label, Schema
from observability.core.errors import BadConfiguration

if TYPE_CHECKING:
    import pandas as pd

FEWEST_HELD_OUT = 10
"""Fewest rows for a comparison of models."""
NO_GUARD = "no guard"
"""The interrupt strategy of a challenge without a guard."""


@dataclass(frozen=True, eq=False)
class Challenge:
    """A challenger, its scores and those of the other contestants, and its rows.

    `scores` holds every metric of the task under holdout:challenger, holdout:champion,
    holdout:baseline, older:challenger, older:champion and older:baseline; without a champion or an
    older window its entries are missing. If rare rows were held out besides the newest share,
    newest:challenger and so on are the scores on that share alone, in which classes are as
    frequent as in the stream. The scores, and the answers in the reference, are of the challenger
    as it was before a refit: the hold-out was not among its rows.
    """

    model: BatchModel
    scored: BatchModel
    """The challenger that the scores are of; `model` itself if it was not fitted again."""
    reference: pd.DataFrame
    scores: dict[str, dict[str, float]]
    fit_s: float
    """Seconds of all fits, without pauses."""
    rows: int
    """Rows that `model` was fitted on."""
    fitted_rows: int
    """Rows of all fits together."""
    first_row: int
    """Index in the window of the first row that the challenger was trained on."""
    trials: tuple[Trial, ...]
    """All candidates, the simplest first."""
    chosen: int
    """Index of the trial that is the challenger."""
    parts: HoldoutSplit
    """Which rows of the window were trained on, and which were held out."""
    measure: Measure
    guarded: str = NO_GUARD
    """The interrupt strategy of the fit of `scored`, and its reason."""

    @property
    def refitted(self) -> bool:
        """Whether `model` was fitted on the hold-out too, after it was scored there."""
        return self.model is not self.scored

    @property
    def recipe(self) -> str:
        """The recipe of the challenger."""
        return self.trials[self.chosen].candidate.recipe.recipe

    @property
    def holdout_rows(self) -> int:
        """Rows that all contestants were scored on."""
        return len(self.parts.held)

    @property
    def comparison(self) -> Comparison:
        """The losses of this challenge, for `promotion.judge`."""
        return _comparison(self.scores, self.measure, self.holdout_rows)


def evaluate(
    frame: pd.DataFrame,
    labels: Sequence[Label],
    *,
    recipe: BatchRecipe,
    schema: Schema,
    clock: Callable[[], float],
    champion: BatchModel | None = None,
    older: tuple[pd.DataFrame, Sequence[Label]] | None = None,
    beside: Path | None = None,
    reference_rows: int = 5000,
    guard: Guard | None = None,
    partial: UnfinishedChallenge | None = None,
    device: str | None = None,
    measure: Measure | None = None,
    seen: NDArray[np.bool_] | None = None,
    changed: int | None = None,
    promotes: Callable[[Comparison], bool] | None = None,
) -> Challenge:
    """Fit on the older part of a window, and score all contestants on its newest rows.

    Several candidates are fitted, and the best one by `measure` (default: the task's) is the
    challenger: see `models.batch.candidates`. `models.batch.holdout` defines which rows are held
    out; `seen` and `changed` are about the whole `frame`, as there. If `promotes` says yes to the
    comparison, the challenger is fitted again, on the hold-out too; without it, it never is.

    `frame` and `labels` are the window in time order, cut to its newest `recipe.window` rows;
    `older` is a window from before it, of which the newest `recipe.older_rows` are scored. `clock`
    counts seconds. A champion that cannot predict scores NaN. Raises what `fit` raises, and
    TooLittleToLearn if fewer than 10 rows would be held out.

    `guard` is called throughout the fits and does not change the result; its own time is not in
    `fit_s`. A `Preempted` that it raises carries an UnfinishedChallenge, or None if nothing is
    fitted yet that can be saved. Given as `partial`, with the same rows and configuration, the work
    is resumed from there; otherwise it begins anew.
    """
    import pandas as pd

    from models.batch import interruptible_fit

    if batch_model.PREDICTION in {*schema.names, schema.target}:
        raise BadConfiguration(
            f"a column of the stream is called {batch_model.PREDICTION!r}, which a reference needs "
            f"for the model's answers; rename that column in the data"
        )
    measure = measure or metrics.measure("auto", schema.task)
    cut = max(len(frame) - recipe.window, 0)
    frame, labels = frame.iloc[-recipe.window :], labels[-recipe.window :]
    seen = None if seen is None else seen[cut:]
    changed = None if changed is None or changed < cut else changed - cut
    rows = len(labels)
    if rows < recipe.min_rows:
        raise TooLittleToLearn(
            f"a window of {rows} rows is too short for a retrain: batch.min_rows is "
            f"{recipe.min_rows}; wait for more labelled rows, or lower it"
        )
    newest = batch_model.split(rows, recipe)[1].start
    parts = holdout.split(labels, schema.task, newest, seen, changed)
    newest_held = len(parts.held) - len(parts.apart)
    if newest_held < FEWEST_HELD_OUT:
        raise TooLittleToLearn(
            f"{newest_held} of {rows} rows would be held out, and {FEWEST_HELD_OUT} are "
            f"needed to compare models; raise batch.holdout or window"
        )
    window = challenger.Window(
        frame, labels, parts, changed, recipe, schema, measure, beside, device
    )
    refits = promotes is not None and recipe.refit
    fits = Fits.begin(window, clock, guard, partial)
    chosen = fits.challenger(refits)
    scored, train = chosen.model, chosen.candidate.rows
    scores = _scores(window, scored, chosen.candidate.rows, champion, older)
    model, comparison = None, _comparison(scores, measure, len(parts.held))
    if refits and promotes is not None and promotes(comparison):
        again = fits.again(chosen)
        if again is not None:
            comparison = comparison.model_copy(update={"challenger_loss": again[1]})
            model = again[0] if promotes(comparison) else None
    fit_s = fits.spent_s
    # The reference has predictions for the newest share alone: the other rows that were held out
    # are of rare classes, and would be too many of them.
    answers: list[Label | None] = [None] * rows
    for row, answer in zip(parts.held.tolist(), chosen.answers.values, strict=True):
        if row >= parts.newest:
            answers[row] = answer
    made = batch_model.sanitized(frame, schema)
    made[schema.target] = pd.Series(list(labels), dtype=object)
    made[batch_model.PREDICTION] = pd.Series(answers, dtype=object)
    reference = batch_model.typed_reference(made, schema).iloc[train[0] :].tail(reference_rows)
    strategy = NO_GUARD if guard is None else str(interruptible_fit.strategy_of(scored.estimator))
    return Challenge(
        scored if model is None else model,
        scored,
        reference.reset_index(drop=True),
        scores,
        fit_s,
        rows=len(train) if model is None else rows - int(train[0]),
        fitted_rows=fits.fitted_rows,
        first_row=int(train[0]),
        trials=chosen.trials,
        chosen=chosen.index,
        parts=parts,
        measure=measure,
        guarded=strategy,
    )


def with_unlabelled(
    made: Challenge,
    positions: Sequence[int],
    frame: pd.DataFrame,
    places: Sequence[int],
    *,
    schema: Schema,
    reference_rows: int,
) -> Challenge:
    """The same challenge, with the unlabelled records of the window added to its reference.

    Later windows of the stream have such records; a reference without them would differ for that
    reason alone. `positions` are those of the rows of the challenge, `places` those of the rows of
    `frame`. The reference has the challenger's predictions from the start of the newest share on;
    it begins at the same position as before.
    """
    import pandas as pd

    begins = positions[-len(made.reference)]
    inside = [index for index, place in enumerate(places) if place >= begins]
    if not inside:
        return made
    frame, places = frame.iloc[inside], [places[index] for index in inside]
    first = positions[made.parts.newest]
    held_out = [index for index, place in enumerate(places) if place >= first]
    answers: list[Label | None] = [None] * len(places)
    # A model that fails on these rows has predicted the hold-out, so it is kept all the same.
    with suppress(BatchAnswersNothing):
        answered = made.scored.predict(frame.iloc[held_out].reset_index(drop=True)).values
        for index, answer in zip(held_out, answered, strict=True):
            answers[index] = answer
    waiting = batch_model.sanitized(frame, schema)
    waiting[schema.target] = pd.Series([None] * len(places), dtype=object)
    waiting[batch_model.PREDICTION] = pd.Series(answers, dtype=object)
    known = [*positions[-len(made.reference) :], *places]
    newest = sorted(range(len(known)), key=lambda index: known[index])[-reference_rows:]
    columns = {}
    for name in made.reference.columns:
        # pd.concat would warn if a column has no value at all on one side.
        values = [*made.reference[name], *waiting[name]]
        columns[name] = pd.Series([values[index] for index in newest], dtype=object)
    return replace(made, reference=batch_model.typed_reference(pd.DataFrame(columns), schema))


def _scores(
    window: challenger.Window,
    model: BatchModel,
    train: Rows,
    champion: BatchModel | None,
    older: tuple[pd.DataFrame, Sequence[Label]] | None,
) -> dict[str, dict[str, float]]:
    """The scores of the contestants on the hold-out, its newest share, and the older window."""
    baseline = batch_model.baseline(window.taken(train)[1], window.schema.task, window.measure)
    contestants = {"challenger": model, "baseline": baseline}
    if champion is not None:
        contestants["champion"] = champion
    held, newest = window.parts.held, window.parts.newest
    compared = {"holdout": window.taken(held)}
    if len(window.parts.apart):
        compared["newest"] = window.taken(held[held >= newest])
    most = window.recipe.older_rows
    if older is not None and most and len(older[0]):
        compared["older"] = (older[0].iloc[-most:], list(older[1][-most:]))
    scores: dict[str, dict[str, float]] = {}
    for name, (frame, labels) in compared.items():
        scores |= _compare(name, contestants, frame, labels, window.measure, window.rarer)
    return scores


def _comparison(
    scores: dict[str, dict[str, float]], measure: Measure, holdout_rows: int
) -> Comparison:
    losses = {who: measure.loss(values[measure.name]) for who, values in scores.items()}
    # The baseline always predicts: if its loss is not finite, the rows do not define any loss.
    older_defined = math.isfinite(losses.get("older:baseline", math.nan))
    return Comparison(
        holdout_rows=holdout_rows,
        metric=measure.name,
        challenger_loss=losses["holdout:challenger"],
        baseline_loss=losses["holdout:baseline"],
        champion_loss=losses.get("holdout:champion"),
        older_challenger_loss=losses.get("older:challenger") if older_defined else None,
        older_champion_loss=losses.get("older:champion") if older_defined else None,
    )


def _compare(
    window: str,
    contestants: dict[str, BatchModel],
    frame: pd.DataFrame,
    labels: Sequence[Label],
    measure: Measure,
    rarer: Label | None,
) -> dict[str, dict[str, float]]:
    scores: dict[str, dict[str, float]] = {}
    for who, model in contestants.items():
        try:
            found = metrics.score(labels, model.predict(frame), measure, rarer)
        except BatchAnswersNothing:
            if who != "champion":
                raise
            found = dict.fromkeys(metrics.names(measure.task), math.nan)
        scores[f"{window}:{who}"] = found
    return scores
