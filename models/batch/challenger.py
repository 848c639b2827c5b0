"""Fits the candidates of a challenge one after another, under a guard; it can be resumed.

Pure computation: it reads no disk, and no clock but the one it is given. `models.batch.candidates`
says which candidates there are and which is chosen. When a preempted challenge is resumed, all that
follows from the fits is computed again, so that it ends as an uninterrupted one would.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from models.batch import batch_model, candidates
from models.batch.batch_model import (
    BatchAnswersNothing,
    BatchCannotLearn,
    BatchModel,
    TooLittleToLearn,
)
from models.batch.candidates import Candidate, Trial
from models.batch.fit_guard import FitCheckpoint, Guard, Preempted
from models.batch.holdout import HoldoutSplit, Rows
from models.batch.recipe_config import BatchRecipe
from models.core import metrics
from models.core.metrics import Measure
from models.core.prediction import BatchPrediction
from models.core.record_schema import Label, Schema
from observability.core.errors import ThermodriftError

if TYPE_CHECKING:
    import pandas as pd

    from models.batch.interruptible_fit import GuardProbe

FEWEST_ROWS = 20
"""Fewest rows that a candidate is fitted on; the window itself has at least batch.min_rows."""


@dataclass(frozen=True, eq=False)
class UnfinishedChallenge:
    """The models of a preempted challenge that are fitted so far; it can be pickled."""

    work: str
    """A hash of its rows, labels, configuration and schema; other work does not use it."""
    models: tuple[BatchModel | ThermodriftError, ...] = ()
    """Of the candidates in order, and why there is none; then that of the refit."""
    part: FitCheckpoint | None = None
    """The unfinished fit of the next one."""
    fit_s: float = 0.0
    """Seconds spent on it so far, without pauses."""
    done: float = 0.0
    """Share of the work, from 0 to 1."""


@dataclass(frozen=True, eq=False)
class Window:
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

    def taken(self, rows: Rows) -> tuple[pd.DataFrame, list[Label]]:
        """The frame and the labels of these rows."""
        return self.frame.iloc[rows], [self.labels[row] for row in rows.tolist()]


@dataclass(frozen=True, eq=False)
class Chosen:
    """The challenger of a window, and what it was chosen among."""

    model: BatchModel
    """Fitted on the rows of its candidate alone."""
    trials: tuple[Trial, ...]
    """All candidates, the simplest first."""
    index: int
    """Of the chosen one."""

    @property
    def candidate(self) -> Candidate:
        """The chosen recipe and its rows."""
        return self.trials[self.index].candidate

    @property
    def answers(self) -> BatchPrediction:
        """Its predictions for the hold-out."""
        found = self.trials[self.index].answers
        assert found is not None
        return found


@dataclass
class Fits:
    """The fits of one challenge, in order: each is made, or taken from an unfinished challenge."""

    window: Window
    clock: Callable[[], float]
    asked: GuardProbe | None = None
    resumed: UnfinishedChallenge = field(default_factory=lambda: UnfinishedChallenge(""))
    models: list[BatchModel | ThermodriftError] = field(default_factory=list)
    fitted_rows: int = 0
    """Of all fits together."""
    _started_s: float = math.nan
    _total: int = 1
    """Rows of all fits that there may be."""

    @classmethod
    def begin(
        cls,
        window: Window,
        clock: Callable[[], float],
        guard: Guard | None,
        partial: UnfinishedChallenge | None,
    ) -> Fits:
        """Begin the fits, or go on with those of `partial` if it is of the same work."""
        from models.batch import interruptible_fit

        fits = cls(window, clock)
        if partial is not None and partial.work == window.work:
            fits.resumed = partial
        if guard is not None:
            fits.asked = interruptible_fit.GuardProbe(guard, clock)
        fits._started_s = clock()
        return fits

    @property
    def spent_s(self) -> float:
        """Seconds of all fits so far, without the guard's."""
        waited_s = self.asked.waited_s if self.asked else 0.0
        return self.resumed.fit_s + self.clock() - self._started_s - waited_s

    def challenger(self, refits: bool) -> Chosen:
        """Fit the candidates, and choose among them; `refits` says whether a refit may follow.

        A candidate that fails leaves the others in the contest. Raises the first failure if none
        is left, and Preempted with an UnfinishedChallenge, if anything is fitted.
        """
        window = self.window
        estimators = candidates.recipes(window.recipe, window.measure)
        first, shorter = candidates.windows(window.parts, window.changed, window.recipe)
        self._total = len(estimators) * len(first[0])
        self._total += sum(len(rows) for rows in (*first[1:], *shorter))
        self._total += len(window.labels) if refits else 0
        made = [self._trial(Candidate(one, first[0])) for one in estimators]
        held = window.taken(window.parts.held)[1]
        leader = candidates.choose([trial for trial, _ in made], held, window.measure)
        best, mine = estimators[leader], [made[leader]]
        mine += [self._trial(Candidate(best, rows)) for rows in first[1:]]
        least = min(mine, key=lambda each: _known(each[0].loss))[0].loss
        for rows in shorter:
            mine.append(self._trial(Candidate(best, rows)))
            if not mine[-1][0].loss < least:
                break
            least = mine[-1][0].loss
        made[leader : leader + 1] = mine
        trials = tuple(trial for trial, _ in made)
        index = candidates.choose(trials, held, window.measure)
        found = made[index][1]
        if isinstance(found, ThermodriftError):
            raise found
        return Chosen(found, trials, index)

    def again(self, chosen: Chosen) -> tuple[BatchModel, float] | None:
        """Fit the challenger on the hold-out too, and its loss there; None if that failed.

        A fit minimizes a loss on its rows. With more rows, its loss on these alone can only fall:
        where the sum of two parts is least, the second part is no larger than where the first one
        is. So a loss on the hold-out that would not win any more is that of a failed fit.
        """
        window, candidate = self.window, chosen.candidate
        rows = np.arange(candidate.rows[0], len(window.labels), dtype=np.intp)
        found = self._fitted(Candidate(candidate.recipe, rows))
        if isinstance(found, ThermodriftError):
            return None
        return found, self._scored(candidate, found).loss

    def _trial(self, candidate: Candidate) -> tuple[Trial, BatchModel | ThermodriftError]:
        found = self._fitted(candidate)
        if isinstance(found, ThermodriftError):
            return Trial(candidate, math.nan, failure=str(found)), found
        trial = self._scored(candidate, found)
        return trial, (BatchAnswersNothing(trial.failure) if trial.failure else found)

    def _scored(self, candidate: Candidate, model: BatchModel) -> Trial:
        window = self.window
        frame, labels = window.taken(window.parts.held)
        try:
            answers = model.predict(frame)
        except BatchAnswersNothing as error:
            return Trial(candidate, math.nan, failure=str(error))
        value = metrics.value(labels, answers, window.measure, window.rarer)
        return Trial(candidate, window.measure.loss(value), answers)

    def _fitted(self, candidate: Candidate) -> BatchModel | ThermodriftError:
        number, done = len(self.models), self.fitted_rows / self._total
        self.fitted_rows += len(candidate.rows)
        if number < len(self.resumed.models):
            found = self.resumed.models[number]
        else:
            part = self.resumed.part if number == len(self.resumed.models) else None
            found = self._fit(candidate, part, (done, self.fitted_rows / self._total))
        self.models.append(found)
        return found

    def _fit(
        self, candidate: Candidate, part: FitCheckpoint | None, share: tuple[float, float]
    ) -> BatchModel | ThermodriftError:
        window = self.window
        frame, labels = window.taken(candidate.rows)
        try:
            return batch_model.fit(
                frame,
                labels,
                candidate.recipe.model_copy(update={"min_rows": FEWEST_ROWS}),
                window.schema,
                window.beside,
                guard=self._between(*share),
                clock=self.clock,
                partial=part,
                device=window.device,
                measure=window.measure,
            )
        except (TooLittleToLearn, BatchCannotLearn) as error:
            # An exception keeps its frames alive, and these the rows.
            return error.with_traceback(None)
        except Preempted as stopped:
            part = stopped.partial if isinstance(stopped.partial, FitCheckpoint) else None
            stopped.partial = None
            if self.models or part is not None:
                stopped.partial = UnfinishedChallenge(
                    window.work,
                    tuple(self.models),
                    part,
                    self.spent_s,
                    self.asked.done if self.asked else 0.0,
                )
            raise

    def _between(self, begin: float, end: float) -> Guard | None:
        """The guard of one fit, which scales its progress to this part of the whole work."""
        asked = self.asked
        if asked is None:
            return None
        return lambda done: asked(begin + (end - begin) * done)


def _known(loss: float) -> float:
    return loss if math.isfinite(loss) else math.inf
