"""Fits a challenger on a window, and compares it with champion and baseline on the newest rows.

Pure computation: it reads no disk, and no clock but the one it is given. It decides nothing: that
is for `models.batch.promotion`. A preempted challenge can be resumed later.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from models.batch import batch_model, holdout
from models.batch.batch_model import BatchAnswersNothing, BatchModel, TooLittleToLearn
from models.batch.fit_guard import FitCheckpoint, Guard, Preempted
from models.batch.holdout import HoldoutSplit, Rows
from models.batch.promotion import Comparison
from models.batch.recipe_config import BatchRecipe
from models.core import metrics
from models.core.metrics import Measure
from models.core.record_schema import Label, Schema
from observability.core.errors import BadConfiguration

if TYPE_CHECKING:
    import pandas as pd

    from models.batch.interruptible_fit import GuardProbe

FEWEST_HELD_OUT = 10
"""Fewest rows for a comparison of models."""
NO_GUARD = "no guard"
"""The interrupt strategy of a challenge without a guard."""


@dataclass(frozen=True, eq=False)
class UnfinishedChallenge:
    """The models of a preempted challenge that are fitted so far; it can be pickled."""

    work: str
    """A hash of its rows, labels, configuration and schema; other work does not use it."""
    whole: BatchModel | None = None
    """The model of all training rows, once it is fitted."""
    part: FitCheckpoint | None = None
    """The unfinished fit: on all training rows, or on the newest ones if `whole` is there."""
    fit_s: float = 0.0
    """Seconds spent on it so far, without pauses."""
    done: float = 0.0
    """Share of the work, from 0 to 1."""


@dataclass(frozen=True, eq=False)
class Challenge:
    """A challenger, its scores and those of the other contestants, and its rows.

    `scores` holds every metric of the task under holdout:challenger, holdout:champion,
    holdout:baseline, older:challenger, older:champion and older:baseline; without a champion or an
    older window its entries are missing. If rare rows were held out besides the newest share,
    newest:challenger and so on are the scores on that share alone, in which classes are as
    frequent as in the stream.
    """

    model: BatchModel
    reference: pd.DataFrame
    scores: dict[str, dict[str, float]]
    fit_s: float
    rows: int
    first_row: int
    """Index in the window of the first row that the challenger was trained on."""
    parts: HoldoutSplit
    """Which rows of the window were trained on, and which were held out."""
    measure: Measure
    guarded: str = NO_GUARD
    """The interrupt strategy of the fits, and its reason."""

    @property
    def holdout_rows(self) -> int:
        """Rows that all contestants were scored on."""
        return len(self.parts.held)

    @property
    def comparison(self) -> Comparison:
        """The losses of this challenge, for `promotion.judge`."""
        losses = {
            who: self.measure.loss(scores[self.measure.name]) for who, scores in self.scores.items()
        }
        # The baseline always predicts: if its loss is not finite, the rows do not define any loss.
        older_defined = math.isfinite(losses.get("older:baseline", math.nan))
        return Comparison(
            holdout_rows=self.holdout_rows,
            metric=self.measure.name,
            challenger_loss=losses["holdout:challenger"],
            baseline_loss=losses["holdout:baseline"],
            champion_loss=losses.get("holdout:champion"),
            older_challenger_loss=losses.get("older:challenger") if older_defined else None,
            older_champion_loss=losses.get("older:champion") if older_defined else None,
        )


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
) -> Challenge:
    """Fit on the older part of a window, and score all contestants on its newest rows.

    Two models are fitted: on all training rows, and on the newest of them (on those since a change
    of the data, if one is known). The better one by `measure` (default: the task's) is the
    challenger; that choice is made on the hold-out too, which favours the challenger slightly.
    `models.batch.holdout` defines which rows are held out; `seen` and `changed` are about the whole
    `frame`, as there.

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
    window = _Window(frame, labels, parts, changed, recipe, schema, measure, beside, device)
    model, train, fit_s = _fit_challenger(window, clock, guard, partial)
    baseline = batch_model.baseline(_at(labels, train), schema.task)
    contestants = {"challenger": model, "baseline": baseline}
    if champion is not None:
        contestants["champion"] = champion
    scores = window.compare("holdout", contestants, parts.held)
    if len(parts.apart):
        scores |= window.compare("newest", contestants, parts.held[parts.held >= parts.newest])
    if older is not None and recipe.older_rows and len(older[0]):
        most = recipe.older_rows
        scores |= _compare(
            "older", contestants, older[0].iloc[-most:], older[1][-most:], measure, window.rarer
        )
    # The reference has predictions for the newest share alone: the other rows that were held out
    # are of rare classes, and would be too many of them.
    newest_rows = parts.held[parts.held >= parts.newest]
    answers: list[Label | None] = [None] * rows
    predicted = model.predict(frame.iloc[newest_rows]).values
    for row, answer in zip(newest_rows.tolist(), predicted, strict=True):
        answers[row] = answer
    made = batch_model.sanitized(frame, schema)
    made[schema.target] = pd.Series(list(labels), dtype=object)
    made[batch_model.PREDICTION] = pd.Series(answers, dtype=object)
    reference = batch_model.typed_reference(made, schema).iloc[train[0] :].tail(reference_rows)
    return Challenge(
        model,
        reference.reset_index(drop=True),
        scores,
        fit_s,
        rows=len(train),
        first_row=int(train[0]),
        parts=parts,
        measure=measure,
        guarded=NO_GUARD if guard is None else str(interruptible_fit.strategy_of(model.estimator)),
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
        answered = made.model.predict(frame.iloc[held_out].reset_index(drop=True)).values
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


@dataclass(frozen=True, eq=False)
class _Window:
    """The rows of a challenge, and the configuration of its fits."""

    frame: pd.DataFrame
    labels: Sequence[Label]
    parts: HoldoutSplit
    changed: int | None
    recipe: BatchRecipe
    schema: Schema
    measure: Measure
    beside: Path | None
    device: str | None

    @property
    def rarer(self) -> Label | None:
        """The positive class of some metrics."""
        return metrics.counted(self.labels) if self.schema.task == "classification" else None

    @property
    def recent(self) -> Rows | None:
        """The newest training rows, for a second model; None if there is no second model."""
        train = self.parts.train
        fewest = batch_model.split(self.recipe.min_rows, self.recipe)[0].stop
        if self.changed is not None:
            since = train[train >= self.changed]
            if fewest <= len(since) < len(train):
                return since
        recent = train[len(train) - int(len(train) * self.recipe.recent_share) :]
        if len(recent) == len(train) or len(recent) < self.recipe.min_rows:
            return None
        return recent

    @property
    def work(self) -> str:
        """A hash of the rows, labels, configuration and columns."""
        import pandas as pd

        digest = hashlib.sha256()
        digest.update(self.recipe.model_dump_json().encode())
        digest.update(self.schema.model_dump_json().encode())
        hashes = pd.util.hash_pandas_object(
            batch_model.sanitized(self.frame, self.schema), index=False
        )
        digest.update(hashes.to_numpy().tobytes())
        digest.update(repr(list(self.labels)).encode())
        digest.update(repr((self.measure, self.changed)).encode())
        digest.update(self.parts.train.tobytes())
        return digest.hexdigest()

    def fit(self, rows: Rows, watch: _Fits, share: tuple[float, float]) -> BatchModel:
        """Fit a model on these rows; `share` is its beginning and end within the whole work."""
        return batch_model.fit(
            self.frame.iloc[rows],
            _at(self.labels, rows),
            self.recipe,
            self.schema,
            self.beside,
            guard=watch.between(*share),
            clock=watch.clock,
            partial=watch.part,
            device=self.device,
        )

    def loss(self, model: BatchModel) -> float:
        """The loss of `model` on the rows held out."""
        held = self.parts.held
        answers = model.predict(self.frame.iloc[held])
        found = metrics.value(_at(self.labels, held), answers, self.measure, self.rarer)
        return self.measure.loss(found)

    def compare(
        self, window: str, contestants: dict[str, BatchModel], rows: Rows
    ) -> dict[str, dict[str, float]]:
        """The scores of each contestant on these rows, under its name and that of the window."""
        frame, labels = self.frame.iloc[rows], _at(self.labels, rows)
        return _compare(window, contestants, frame, labels, self.measure, self.rarer)


@dataclass(frozen=True)
class _Fits:
    """The guard of the fits of a challenge, and the checkpoint that the next fit resumes."""

    asked: GuardProbe | None
    clock: Callable[[], float]
    part: FitCheckpoint | None

    def between(self, begin: float, end: float) -> Guard | None:
        """The guard of one fit, which scales its progress to this part of the whole work."""
        asked = self.asked
        if asked is None:
            return None
        return lambda done: asked(begin + (end - begin) * done)


def _fit_challenger(
    window: _Window,
    clock: Callable[[], float],
    guard: Guard | None,
    partial: UnfinishedChallenge | None,
) -> tuple[BatchModel, Rows, float]:
    """The better model, the rows that it was fitted on, and the seconds of both fits.

    After an abrupt change, the older rows no longer describe the data: then the model of the newest
    rows alone is better.
    """
    from models.batch import interruptible_fit

    resumed = UnfinishedChallenge("")
    if partial is not None and partial.work == window.work:
        resumed = partial
    asked = None if guard is None else interruptible_fit.GuardProbe(guard, clock)
    watch, started = _Fits(asked, clock, resumed.part), clock()

    def spent_s() -> float:
        return resumed.fit_s + clock() - started - (asked.waited_s if asked else 0.0)

    everything, recent = window.parts.train, window.recent
    first = len(everything) / (len(everything) + (0 if recent is None else len(recent)))
    model, fresh = resumed.whole, None
    try:
        if model is None:
            model = window.fit(everything, watch, (0.0, first))
            watch = replace(watch, part=None)
        if recent is not None:
            with suppress(TooLittleToLearn):
                fresh = window.fit(recent, watch, (first, 1.0))
    except Preempted as stopped:
        part = stopped.partial if isinstance(stopped.partial, FitCheckpoint) else None
        done = asked.done if asked else 0.0
        stopped.partial = None
        if model is not None or part is not None:
            stopped.partial = UnfinishedChallenge(window.work, model, part, spent_s(), done)
        raise
    if fresh is not None and recent is not None and window.loss(fresh) < window.loss(model):
        return fresh, recent, spent_s()
    return model, everything, spent_s()


def _at(labels: Sequence[Label], rows: Rows) -> list[Label]:
    return [labels[row] for row in rows.tolist()]


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
