"""Interruptible fits: a guard is called between rounds, and the model stays the same to the bit.

Pure computation: it decides nothing, and its clock is an argument. For each class of estimators it
knows a way to call the guard that does not change the model; others are unguarded. The classes are
matched exactly, since a derived class may fit in another way.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from numbers import Integral
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.callback import CallbackSupportMixin
from sklearn.ensemble import (
    BaggingClassifier,
    BaggingRegressor,
    ExtraTreesClassifier,
    ExtraTreesRegressor,
    GradientBoostingClassifier,
    GradientBoostingRegressor,
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
)
from sklearn.linear_model import LogisticRegression

from models.batch.fit_guard import FitCheckpoint, Guard, InterruptStrategy, Preempted

ROUND_S = 1.0
"""Seconds between two calls of the guard, if the size of a round can be chosen."""
GROWTH = 8
"""Largest ratio of the members of a round to those of the round before."""
OWN_ROUNDS = "rounds_of_partial_fit"
"""Attribute of a user's own model: its fit is this number of calls of its partial_fit."""

_HISTOGRAMS = (HistGradientBoostingClassifier, HistGradientBoostingRegressor)
_STAGES = (GradientBoostingClassifier, GradientBoostingRegressor)
_MEMBERS = (
    *(RandomForestClassifier, RandomForestRegressor, ExtraTreesClassifier, ExtraTreesRegressor),
    *(BaggingClassifier, BaggingRegressor),
)
_WHY_NOT = {
    "Ridge": "it is solved in one step",
    **dict.fromkeys(
        ("SGDClassifier", "SGDRegressor"),
        "partial_fit shuffles and rounds otherwise than fit, and leaves another model",
    ),
    **dict.fromkeys(
        ("MLPClassifier", "MLPRegressor"),
        "warm_start and partial_fit begin its optimizer anew, and leave another model",
    ),
}


class GuardProbe:
    """Wraps a guard, and records progress, its exception, and the seconds spent in it."""

    def __init__(self, guard: Guard, clock: Callable[[], float] | None = None) -> None:
        self.failure: BaseException | None = None
        self.waited_s = 0.0
        self.done = 0.0
        self._guard = guard
        self._clock = clock or (lambda: 0.0)

    def __call__(self, done: float, /) -> None:
        """Call the guard; `done` never falls. After it raised, that exception is raised again."""
        self.raise_failure()
        self.done = min(max(self.done, done), 1.0)
        started = self._clock()
        try:
            self._guard(self.done)
        except BaseException as error:
            self.failure = error
            raise
        finally:
            self.waited_s += self._clock() - started

    def raise_failure(self) -> None:
        """Raise what the guard raised, in case a library has swallowed it."""
        if self.failure is not None:
            raise self.failure


@dataclass(frozen=True)
class _Job:
    """One fit, from the round `begun` on."""

    estimator: Any
    matrix: NDArray[Any]
    targets: NDArray[Any]
    guard: GuardProbe
    clock: Callable[[], float] | None
    begun: int


@dataclass(frozen=True)
class _Plan:
    strategy: InterruptStrategy
    run: Callable[[_Job], None]


def strategy_of(estimator: Any) -> InterruptStrategy:
    """How the guard is called for `estimator`; the same before and after the fit."""
    return _plan(estimator).strategy


def fit(
    estimator: Any,
    matrix: NDArray[Any],
    targets: NDArray[Any],
    guard: Guard,
    *,
    clock: Callable[[], float] | None = None,
    partial: FitCheckpoint | None = None,
) -> Any:
    """Fit while calling `guard`, and return the fitted estimator, as `estimator.fit` leaves it.

    It is `estimator` itself or, resumed from `partial`, a copy of the estimator in there. The guard
    is called before, after, and during the fit as `strategy_of` says. `clock` counts seconds; it
    determines the rounds of a forest, which have one member each without it. A `partial` of another
    class or other parameters is not used: the fit begins anew.

    Raises what the guard raises. A Preempted carries a FitCheckpoint if possible: during the fit
    if `strategy_of(estimator).keeps`, and after it always, since the model is complete then.
    """
    probe = GuardProbe(guard)
    resumed = None
    if partial is not None:
        half = partial.estimator
        same = type(half) is type(estimator) and _params(half) == _params(estimator)
        if same and getattr(half, "n_features_in_", matrix.shape[1]) == matrix.shape[1]:
            resumed = partial
    try:
        probe(resumed.done / resumed.of if resumed else 0.0)
    except Preempted as stopped:
        stopped.partial = resumed
        raise
    if resumed is not None:
        estimator = copy.deepcopy(resumed.estimator)
    if resumed is None or resumed.done < resumed.of:
        begun = resumed.done if resumed else 0
        try:
            _plan(estimator).run(_Job(estimator, matrix, targets, probe, clock, begun))
        except Exception as error:
            # A search reports an error of its fits as an error of its own.
            if probe.failure not in (None, error):
                raise probe.failure from error
            raise
        probe.raise_failure()
    try:
        probe(1.0)
    except Preempted as stopped:
        stopped.partial = FitCheckpoint(estimator, 1, 1)
        raise
    return estimator


def _params(estimator: Any) -> str:
    return repr(sorted(estimator.get_params().items())) if hasattr(estimator, "get_params") else ""


def _plan(estimator: Any) -> _Plan:
    kind, name = type(estimator), type(estimator).__name__
    if kind in _HISTOGRAMS:
        # A warm start bins all rows and predicts them by all trees again: at 50,000 rows that
        # costs as much as 45 iterations of 100. So the guard is called inside one fit, and
        # warm_start is used to resume only.
        if not isinstance(estimator.loss, str) or not hasattr(estimator, "_get_loss"):
            return _unguarded(f"{name} with a loss of one's own")
        return _resumable("asked before each iteration; a preempted fit", _by_iterations)
    if kind in _STAGES:
        if estimator.n_iter_no_change is None:
            return _resumable("asked after each stage by its monitor; a preempted fit", _by_stages)
        because = "asked after each stage by its monitor; warm_start cannot resume early stopping"
        return _Plan(InterruptStrategy("callbacks", because, keeps=False), _by_stages)
    if kind in _MEMBERS:
        return _of_members(estimator)
    if isinstance(estimator, CallbackSupportMixin):
        if kind is LogisticRegression and estimator.solver != "lbfgs":
            return _unguarded(f"LogisticRegression calls back with lbfgs, not {estimator.solver!r}")
        # A LogisticRegression has n_jobs, which has no effect.
        if any(
            isinstance(each, CallbackSupportMixin)
            and not isinstance(each, LogisticRegression)
            and getattr(each, "n_jobs", None) not in (None, 1)
            for each in [estimator, *estimator.get_params().values()]
        ):
            return _unguarded(f"{name}: with n_jobs it fits in other processes")
        because = "asked at each task of its fit callbacks; a preempted fit begins anew"
        return _Plan(InterruptStrategy("callbacks", because, keeps=False), _by_callbacks)
    if _whole(getattr(estimator, OWN_ROUNDS, None)) and hasattr(estimator, "partial_fit"):
        because = f"it says that its fit is {getattr(estimator, OWN_ROUNDS)} calls of partial_fit"
        strategy = InterruptStrategy("rounds by partial_fit", because, keeps=True)
        return _Plan(strategy, _by_partial_fit)
    unknown = "no way is known to ask amid its fit that leaves the same model"
    return _unguarded(f"{name}: {_WHY_NOT.get(name, unknown)}")


def _unguarded(because: str) -> _Plan:
    because = f"{because}; it is asked before and after"
    return _Plan(
        InterruptStrategy("unguarded", because, keeps=False),
        lambda job: job.estimator.fit(job.matrix, job.targets),
    )


def _resumable(because: str, run: Callable[[_Job], None]) -> _Plan:
    because = f"{because} is resumed by warm_start"
    return _Plan(InterruptStrategy("rounds by warm_start", because, keeps=True), run)


def _whole(count: object) -> bool:
    return isinstance(count, Integral) and not isinstance(count, bool) and int(count) >= 1


def _by_iterations(job: _Job) -> None:
    """Histogram boosting: each iteration of its loop begins with the gradients of the loss."""
    estimator, done = job.estimator, job.begun

    def before_iteration() -> None:
        nonlocal done
        job.guard(done / estimator.max_iter)
        done += 1

    try:
        with (
            _restored(estimator, "warm_start"),
            _before_gradients(estimator, before_iteration),
        ):
            if job.begun:
                estimator.set_params(warm_start=True)
            estimator.fit(job.matrix, job.targets)
    except Preempted as stopped:
        vars(estimator).pop("_in_fit", None)
        if estimator._is_fitted():
            # The complete iterations, as a fit that ended there would leave them.
            for name in ("train_score_", "validation_score_"):
                setattr(estimator, name, np.asarray(getattr(estimator, name)))
            stopped.partial = FitCheckpoint(estimator, estimator.n_iter_, estimator.max_iter)
        raise


@contextmanager
def _before_gradients(estimator: Any, ask: Callable[[], None]) -> Iterator[None]:
    """Call `ask` before each evaluation of the loss's gradients; undo the change afterwards."""
    names = ("gradient", "gradient_hessian")
    make = estimator._get_loss

    def watched(**given: Any) -> Any:
        loss = make(**given)
        for name in names:
            setattr(loss, name, asking(getattr(loss, name)))
        return loss

    def asking(call: Callable[..., Any]) -> Callable[..., Any]:
        def asked(*args: Any, **given: Any) -> Any:
            ask()
            return call(*args, **given)

        return asked

    estimator._get_loss = watched
    try:
        yield
    finally:
        del estimator._get_loss
        for name in names:
            vars(getattr(estimator, "_loss", watched)).pop(name, None)


def _by_stages(job: _Job) -> None:
    """Gradient boosting by exact splits: its monitor can end it after a stage."""
    estimator = job.estimator
    stopped: Preempted | None = None

    def monitor(stage: int, *_: object) -> bool:
        nonlocal stopped
        try:
            job.guard((stage + 1) / estimator.n_estimators)
        except Preempted as asked:
            stopped = asked
        return stopped is not None

    with _restored(estimator, "warm_start"):
        if job.begun:
            estimator.set_params(warm_start=True)
        estimator.fit(job.matrix, job.targets, monitor=monitor)
    if stopped is not None:
        if strategy_of(estimator).keeps:
            stopped.partial = FitCheckpoint(
                estimator, estimator.n_estimators_, estimator.n_estimators
            )
        raise stopped


def _of_members(estimator: Any) -> _Plan:
    name, seed = type(estimator).__name__, estimator.random_state
    if not _whole(estimator.n_estimators):
        return _unguarded(f"{name} without a number of members")
    if estimator.oob_score or estimator.warm_start:
        return _unguarded(f"{name}: oob_score and a warm_start of one's own need whole fits")
    if seed is not None and not isinstance(seed, Integral):
        return _unguarded(f"{name}: a shared random state would go on otherwise after a round")
    if estimator.n_jobs is not None and not _whole(estimator.n_jobs):
        return _unguarded(f"{name}: rounds would leave workers idle unless n_jobs is their number")
    return _resumable(f"asked between rounds of about {ROUND_S:g} s; a preempted fit", _by_members)


def _by_members(job: _Job) -> None:
    """Forests and bags: members are added, each with the seed that it has in a single fit."""
    estimator, of, done = job.estimator, int(job.estimator.n_estimators), job.begun
    least = count = int(estimator.n_jobs or 1)
    clock = job.clock or (lambda: 0.0)
    try:
        with _restored(estimator, "warm_start", "n_estimators"), _quiet("class_weight presets"):
            while done < of:
                if done > job.begun:
                    job.guard(done / of)
                started, added = clock(), min(count, of - done)
                estimator.set_params(warm_start=done > 0, n_estimators=done + added)
                estimator.fit(job.matrix, job.targets)
                done += added
                # The next round has as many members as take about ROUND_S.
                seconds, count = clock() - started, least
                if seconds > 0:
                    count = max(int(added * min(ROUND_S / seconds, GROWTH)), least)
    except Preempted as stopped:
        stopped.partial = FitCheckpoint(estimator, done, of)
        raise


def _by_callbacks(job: _Job) -> None:
    estimator = job.estimator
    others = list(getattr(estimator, "_skl_callbacks", []))
    with _quiet("The estimator .* does not support callbacks"):
        estimator.set_callbacks(*others, _GuardCallback(job.guard))
        try:
            estimator.fit(job.matrix, job.targets)
        finally:
            estimator.set_callbacks(*others)


class _GuardCallback:
    """A fit callback of scikit-learn (AutoPropagatedCallback), which calls the guard per task."""

    max_propagation_depth = None

    def __init__(self, guard: GuardProbe) -> None:
        self._guard = guard

    def setup(self, estimator: Any, context: Any) -> None:
        """Do nothing."""

    def teardown(self, estimator: Any, context: Any) -> None:
        """Do nothing."""

    def on_fit_task_begin(self, estimator: Any, context: Any) -> None:
        """Call the guard with the share of the work before this task.

        All tasks of one level are taken for equally long.
        """
        path = []
        while context.parent is not None:
            path.append(context)
            context = context.parent
        share, width = 0.0, 1.0
        for task in reversed(path):
            if task.parent.max_subtasks and isinstance(task.task_id, Integral):
                width /= task.parent.max_subtasks
                share += width * int(task.task_id)
        self._guard(share)

    def on_fit_task_end(self, estimator: Any, context: Any) -> None:
        """Do nothing: the guard is called when the next task begins, or the fit has ended."""


def _by_partial_fit(job: _Job) -> None:
    """A user's own model, which declares that these calls are its fit."""
    of = int(getattr(job.estimator, OWN_ROUNDS))
    for done in range(job.begun, of):
        try:
            job.guard(done / of)
        except Preempted as stopped:
            stopped.partial = FitCheckpoint(job.estimator, done, of) if done else None
            raise
        job.estimator.partial_fit(job.matrix, job.targets)


@contextmanager
def _restored(estimator: Any, *names: str) -> Iterator[None]:
    """Restore these parameters afterwards, so that the model equals an unguarded one."""
    before = {name: getattr(estimator, name) for name in names}
    try:
        yield
    finally:
        for name, value in before.items():
            setattr(estimator, name, value)


@contextmanager
def _quiet(message: str) -> Iterator[None]:
    """Ignore this warning, which is about the rounds and not about the model."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=message)
        yield
