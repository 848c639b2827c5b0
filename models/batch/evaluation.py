"""A challenger against the champion and the dummy: fitted on a window, compared on its newest rows.

Maths: reads no disk and no clock but the one it is given, and decides nothing: that is for
`models.batch.promotion`. A challenge may be given back half done, and gone on with.
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
from models.core.record_schema import Label, Schema, Task
from observability.core.errors import BadConfiguration

if TYPE_CHECKING:
    import pandas as pd

    from models.batch.interruptible_fit import GuardProbe

FEWEST_HELD_OUT = 10
"""Rows below which a comparison of models says nothing."""
NO_GUARD = "nobody watched"
"""How a challenge without a guard was watched."""


@dataclass(frozen=True, eq=False)
class UnfinishedChallenge:
    """What is fitted of a challenge that was given back, which pickles: nothing of it is lost."""

    work: str
    """Names the rows, labels, knobs and schema that it is about; of other work it is not used."""
    whole: BatchModel | None = None
    """The model of all training rows, once it is fitted."""
    part: FitCheckpoint | None = None
    """The fit in progress: of all training rows, or of the newest where `whole` is there."""
    fit_s: float = 0.0
    """Seconds spent on it so far, pauses not among them."""
    done: float = 0.0
    """Share of the work, from 0 to 1."""


@dataclass(frozen=True, eq=False)
class Challenge:
    """A challenger, what it was compared with, and the rows it stands for.

    `scores` holds every metric of the task under holdout:challenger, holdout:champion,
    holdout:baseline, older:challenger, older:champion and older:baseline; a champion or an older
    window that there is not has no entry. Where rare rows were held out beside the newest share,
    newest:challenger and the others are over that share alone, in which classes are as frequent as
    in the stream.
    """

    model: BatchModel
    reference: pd.DataFrame
    scores: dict[str, dict[str, float]]
    fit_s: float
    rows: int
    first_row: int
    """Place in the window of the first row that the challenger was trained on."""
    parts: HoldoutSplit
    """Which rows of the window were trained on and which held out."""
    measure: Measure
    guarded: str = NO_GUARD
    """How the fits were watched, and why so."""

    @property
    def holdout_rows(self) -> int:
        """Rows that all contestants were scored on."""
        return len(self.parts.held)

    @property
    def comparison(self) -> Comparison:
        """The losses of this challenge, as `promotion.judge` wants them."""
        losses = {
            who: self.measure.loss(scores[self.measure.name]) for who, scores in self.scores.items()
        }
        # The baseline always answers: where it has no loss, it is the rows that cannot tell any.
        older_tells = math.isfinite(losses.get("older:baseline", math.nan))
        return Comparison(
            holdout_rows=self.holdout_rows,
            metric=self.measure.name,
            challenger_loss=losses["holdout:challenger"],
            baseline_loss=losses["holdout:baseline"],
            champion_loss=losses.get("holdout:champion"),
            older_challenger_loss=losses.get("older:challenger") if older_tells else None,
            older_champion_loss=losses.get("older:champion") if older_tells else None,
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

    Two models are fitted, on all training rows and on the newest of them (on those since a change
    of the world, where one is known); the better one is the challenger. That choice is made on the
    hold-out too, which flatters the challenger a little. Better is what loses less by `measure`,
    the task's own where it is None. `models.batch.holdout` says which rows are held out; `seen` and
    `changed` are about the whole `frame`, as there.

    `frame` and `labels` are the window in time order, cut to its newest `recipe.window` rows;
    `older` is a window from before it, of which the newest `recipe.older_rows` are scored. `clock`
    counts seconds. A champion that cannot answer scores NaN. Raises what `fit` raises, and
    TooLittleToLearn where fewer than 10 rows would be held out.

    `guard` is asked all through the fits, and changes nothing of the outcome; the time that it
    takes is not in `fit_s`. A GiveBack of its comes out with a PartialChallenge, or with None where
    nothing was fitted yet that can be kept. Given as `partial` with the same rows and knobs, the
    work goes on from there; with others it begins anew.
    """
    from models.batch import interruptible_fit

    if batch_model.PREDICTION in {*schema.names, schema.target}:
        raise BadConfiguration(
            f"a column of the stream is called {batch_model.PREDICTION!r}, which a reference needs "
            f"for the model's answers; rename that column in the data"
        )
    measure = measure or metrics.measure("auto", schema.task)
    cut = max(len(frame) - recipe.window, 0)
    frame, labels = _newest(frame, labels, recipe.window)
    seen = None if seen is None else seen[cut:]
    changed = None if changed is None or changed < cut else changed - cut
    parts = _parts(labels, schema.task, recipe, seen, changed)
    window = _Window(frame, labels, parts, changed, recipe, schema, measure, beside, device)
    model, train, fit_s = _fought(window, clock, guard, partial)
    baseline = batch_model.baseline(_at(labels, train), schema.task)
    contestants = {"challenger": model, "baseline": baseline}
    if champion is not None:
        contestants["champion"] = champion
    scores = window.compare("holdout", contestants, parts.held)
    if len(parts.apart):
        scores |= window.compare("newest", contestants, parts.held[parts.held >= parts.newest])
    if older is not None and recipe.older_rows and len(older[0]):
        scores |= _compare(
            "older", contestants, *_newest(*older, recipe.older_rows), measure, window.rarer
        )
    reference = _reference(window, model).iloc[train[0] :].tail(reference_rows)
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
    """The same challenge, its reference with the records of the window that have no label, too.

    Later windows of the stream have such records; a reference without them would differ by that
    alone. `positions` are those of the rows that were fought on, `places` those of the rows of
    `frame`. The challenger's answers are in the reference from where the newest share begins; the
    reference begins where it began.
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
    # A model that answers these alone not at all has answered the hold-out: it is no worse for it.
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
        # Not pd.concat: it warns where a column has no value at all on one side.
        values = [*made.reference[name], *waiting[name]]
        columns[name] = pd.Series([values[index] for index in newest], dtype=object)
    return replace(made, reference=batch_model.typed_reference(pd.DataFrame(columns), schema))


@dataclass(frozen=True, eq=False)
class _Window:
    """The rows of a challenge, and how models are made of them."""

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
        """The rarer of two classes, which some metrics are about."""
        return metrics.counted(self.labels) if self.schema.task == "classification" else None

    @property
    def recent(self) -> Rows | None:
        """The newest training rows, which a second model is fitted on; None where it is not."""
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
        """A name that other rows, labels, knobs or columns do not have."""
        import pandas as pd

        told = hashlib.sha256()
        told.update(self.recipe.model_dump_json().encode())
        told.update(self.schema.model_dump_json().encode())
        hashes = pd.util.hash_pandas_object(
            batch_model.sanitized(self.frame, self.schema), index=False
        )
        told.update(hashes.to_numpy().tobytes())
        told.update(repr(list(self.labels)).encode())
        told.update(repr((self.measure, self.changed)).encode())
        told.update(self.parts.train.tobytes())
        return told.hexdigest()

    def fit(self, rows: Rows, watch: _Fits, share: tuple[float, float]) -> BatchModel:
        """The model of these rows; `share` is where its work begins and ends in all of it."""
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
        """What `model` loses on the rows held out."""
        held = self.parts.held
        answers = model.predict(self.frame.iloc[held])
        found = metrics.value(_at(self.labels, held), answers, self.measure, self.rarer)
        return self.measure.loss(found)

    def compare(
        self, window: str, contestants: dict[str, BatchModel], rows: Rows
    ) -> dict[str, dict[str, float]]:
        """What each scores on these rows, under its name and the window's."""
        frame, labels = self.frame.iloc[rows], _at(self.labels, rows)
        return _compare(window, contestants, frame, labels, self.measure, self.rarer)


@dataclass(frozen=True)
class _Fits:
    """How the fits of a challenge are watched, and what the next of them goes on from."""

    asked: GuardProbe | None
    clock: Callable[[], float]
    part: FitCheckpoint | None

    def between(self, begin: float, end: float) -> Guard | None:
        """The guard of one fit, whose shares lie between these of the whole."""
        asked = self.asked
        if asked is None:
            return None
        return lambda done: asked(begin + (end - begin) * done)


def _fought(
    window: _Window,
    clock: Callable[[], float],
    guard: Guard | None,
    partial: UnfinishedChallenge | None,
) -> tuple[BatchModel, Rows, float]:
    """The better model, the rows it was made of, and the seconds that both took, pauses aside."""
    kept = (
        partial if partial is not None and partial.work == window.work else UnfinishedChallenge("")
    )
    from models.batch import interruptible_fit

    asked = None if guard is None else interruptible_fit.GuardProbe(guard, clock)
    started = clock()

    def spent_s() -> float:
        return kept.fit_s + clock() - started - (asked.waited_s if asked else 0.0)

    try:
        model, rows = _better(window, kept, _Fits(asked, clock, kept.part))
    except Preempted as stopped:
        begun = stopped.partial
        if isinstance(begun, UnfinishedChallenge):
            done = asked.done if asked else 0.0
            stopped.partial = replace(begun, work=window.work, fit_s=spent_s(), done=done)
        raise
    return model, rows, spent_s()


def _better(window: _Window, kept: UnfinishedChallenge, watch: _Fits) -> tuple[BatchModel, Rows]:
    """The model of all training rows, or that of the newest alone where it is the better one.

    After an abrupt change the older rows tell of a world that is gone.
    """
    everything, recent = window.parts.train, window.recent
    first = len(everything) / (len(everything) + (0 if recent is None else len(recent)))
    model = kept.whole
    if model is None:
        try:
            model = window.fit(everything, watch, (0.0, first))
        except Preempted as stopped:
            stopped.partial = _begun(None, stopped.partial)
            raise
        watch = replace(watch, part=None)
    if recent is None:
        return model, everything
    try:
        fresh = window.fit(recent, watch, (first, 1.0))
    except TooLittleToLearn:
        return model, everything
    except Preempted as stopped:
        stopped.partial = _begun(model, stopped.partial)
        raise
    return (fresh, recent) if window.loss(fresh) < window.loss(model) else (model, everything)


def _begun(whole: BatchModel | None, part: object) -> UnfinishedChallenge | None:
    part = part if isinstance(part, FitCheckpoint) else None
    return UnfinishedChallenge("", whole, part) if whole or part else None


def _newest(
    frame: pd.DataFrame, labels: Sequence[Label], rows: int
) -> tuple[pd.DataFrame, Sequence[Label]]:
    return frame.iloc[-rows:], labels[-rows:]


def _at(labels: Sequence[Label], rows: Rows) -> list[Label]:
    return [labels[row] for row in rows.tolist()]


def _parts(
    labels: Sequence[Label],
    task: Task,
    recipe: BatchRecipe,
    seen: NDArray[np.bool_] | None,
    changed: int | None,
) -> HoldoutSplit:
    rows = len(labels)
    if rows < recipe.min_rows:
        raise TooLittleToLearn(
            f"a window of {rows} rows is too short for a retrain: batch.min_rows is "
            f"{recipe.min_rows}; wait for more labelled rows, or lower it"
        )
    newest = batch_model.split(rows, recipe)[1].start
    parts = holdout.split(labels, task, newest, seen, changed)
    newest_held = len(parts.held) - len(parts.apart)
    if newest_held < FEWEST_HELD_OUT:
        raise TooLittleToLearn(
            f"{newest_held} of {rows} rows would be held out, and {FEWEST_HELD_OUT} are "
            f"needed to compare models; raise batch.holdout or window"
        )
    return parts


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


def _reference(window: _Window, model: BatchModel) -> pd.DataFrame:
    """All rows with what `model` answers on the newest share: of what is rare there are too many
    among the others that were held out."""
    import pandas as pd

    parts, rows = window.parts, len(window.labels)
    newest = parts.held[parts.held >= parts.newest]
    answers: list[Label | None] = [None] * rows
    for row, answer in zip(
        newest.tolist(), model.predict(window.frame.iloc[newest]).values, strict=True
    ):
        answers[row] = answer
    made = batch_model.sanitized(window.frame, window.schema)
    made[window.schema.target] = pd.Series(list(window.labels), dtype=object)
    made[batch_model.PREDICTION] = pd.Series(answers, dtype=object)
    return batch_model.typed_reference(made, window.schema)
