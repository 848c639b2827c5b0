"""Fits that are watched: the guard is asked between rounds, and the model is the same to the bit.

Maths: knows of each estimator how it can be asked without changing what it learns, and calls one
unguarded that allows no such way. It judges nothing, and is handed its clock. A way is given to the
very classes that it was tried on, since a class derived from one may fit as it likes.
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
"""Seconds of work between two questions, where the size of a round can be chosen."""
GROWTH = 8
"""A round has at most so many times the members of the one before."""
OWN_ROUNDS = "rounds_of_partial_fit"
"""What a model of one's own says of itself: its fit is so many calls of its partial_fit."""

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
    """A guard that remembers: how much was done, what it raised, how long it was waited for."""

    def __init__(self, guard: Guard, clock: Callable[[], float] | None = None) -> None:
        self.failure: BaseException | None = None
        self.waited_s = 0.0
        self.done = 0.0
        self._guard = guard
        self._clock = clock or _no_clock

    def __call__(self, done: float, /) -> None:
        """Ask; the share never falls. After a failure it is not asked again: that stands."""
        self.settle()
        self.done = min(max(self.done, done), 1.0)
        started = self._clock()
        try:
            self._guard(self.done)
        except BaseException as error:
            self.failure = error
            raise
        finally:
            self.waited_s += self._clock() - started

    def settle(self) -> None:
        """Raise what the guard raised, though a library may have swallowed it."""
        if self.failure is not None:
            raise self.failure


@dataclass(frozen=True)
class _Job:
    """One fit: what is fitted on what, from the round `begun` on."""

    estimator: Any
    matrix: NDArray[Any]
    targets: NDArray[Any]
    ask: GuardProbe
    clock: Callable[[], float] | None
    begun: int


@dataclass(frozen=True)
class _Plan:
    way: InterruptStrategy
    run: Callable[[_Job], None]


def strategy_of(estimator: Any) -> InterruptStrategy:
    """How `estimator` is watched; it is told before or after the fit, and is the same."""
    return _plan(estimator).way


def fit(
    estimator: Any,
    matrix: NDArray[Any],
    targets: NDArray[Any],
    guard: Guard,
    *,
    clock: Callable[[], float] | None = None,
    partial: FitCheckpoint | None = None,
) -> Any:
    """Fit while `guard` is asked, and answer the fitted estimator: as `estimator.fit` leaves it.

    It is `estimator` itself, or, gone on from `partial`, one that came of that. The guard is asked
    before, after, and amid the fit as `strategy_of` says. `clock` counts seconds; by it the rounds
    of a forest get their size, and without it they have one member each. A `partial` of another
    class or other parameters is not used: the fit begins anew.

    Raises what the guard raises. A GiveBack carries a Partial where one can be kept: amid the fit
    where `strategy_of(estimator).keeps`, and after it always, since a fitted model is whole.
    """
    ask = GuardProbe(guard)
    kept = partial if partial is not None and _goes_on(partial, estimator, matrix) else None
    try:
        ask(kept.done / kept.of if kept else 0.0)
    except Preempted as stopped:
        stopped.partial = kept
        raise
    if kept is not None:
        estimator = copy.deepcopy(kept.estimator)
    if kept is None or kept.done < kept.of:
        begun = kept.done if kept else 0
        _run(_Job(estimator, matrix, targets, ask, clock, begun))
    try:
        ask(1.0)
    except Preempted as stopped:
        stopped.partial = FitCheckpoint(estimator, 1, 1)
        raise
    return estimator


def _run(job: _Job) -> None:
    try:
        _plan(job.estimator).run(job)
    except Exception as error:
        # A search tells of an error in its fits as of one of its own.
        if job.ask.failure not in (None, error):
            raise job.ask.failure from error
        raise
    job.ask.settle()


def _goes_on(partial: FitCheckpoint, estimator: Any, matrix: NDArray[Any]) -> bool:
    """Whether `partial` is of this class, these parameters and so many features."""
    half = partial.estimator
    features = getattr(half, "n_features_in_", matrix.shape[1])
    return (
        type(half) is type(estimator)
        and _params(half) == _params(estimator)
        and features == matrix.shape[1]
    )


def _params(estimator: Any) -> str:
    return repr(sorted(estimator.get_params().items())) if hasattr(estimator, "get_params") else ""


def _plan(estimator: Any) -> _Plan:
    kind = type(estimator)
    if kind in _HISTOGRAMS:
        return _of_histograms(estimator)
    if kind in _STAGES:
        return _of_stages(estimator)
    if kind in _MEMBERS:
        return _of_members(estimator)
    if isinstance(estimator, CallbackSupportMixin):
        return _of_callbacks(estimator)
    if _whole(getattr(estimator, OWN_ROUNDS, None)) and hasattr(estimator, "partial_fit"):
        told = f"it says that its fit is {getattr(estimator, OWN_ROUNDS)} calls of partial_fit"
        return _Plan(InterruptStrategy("rounds by partial_fit", told, keeps=True), _by_partial_fit)
    return _unguarded(
        f"{kind.__name__}: "
        + _WHY_NOT.get(
            kind.__name__, "no way is known to ask amid its fit that leaves the same model"
        )
    )


def _unguarded(because: str) -> _Plan:
    told = f"{because}; it is asked before and after"
    return _Plan(InterruptStrategy("unguarded", told, keeps=False), _at_once)


def _at_once(job: _Job) -> None:
    job.estimator.fit(job.matrix, job.targets)


def _whole(count: object) -> bool:
    return isinstance(count, Integral) and not isinstance(count, bool) and int(count) >= 1


def _of_histograms(estimator: Any) -> _Plan:
    # A warm start bins all rows and predicts them by all trees again: at 50,000 rows that costs as
    # much as 45 iterations of 100. So it is asked inside one fit, and warm_start only goes on.
    if not isinstance(estimator.loss, str) or not hasattr(estimator, "_get_loss"):
        return _unguarded(f"{type(estimator).__name__} with a loss of one's own")
    told = "asked before each iteration; what was given back goes on by warm_start"
    return _Plan(InterruptStrategy("rounds by warm_start", told, keeps=True), _by_iterations)


def _by_iterations(job: _Job) -> None:
    """Histogram boosting: its loop asks the loss for gradients first of all in an iteration."""
    estimator, done = job.estimator, job.begun

    def before_iteration() -> None:
        nonlocal done
        job.ask(done / estimator.max_iter)
        done += 1

    try:
        with (
            _as_it_was(estimator, "warm_start"),
            _before_gradients(estimator, before_iteration),
        ):
            if job.begun:
                estimator.set_params(warm_start=True)
            estimator.fit(job.matrix, job.targets)
    except Preempted as stopped:
        stopped.partial = _half_boosted(estimator)
        raise


@contextmanager
def _before_gradients(estimator: Any, ask: Callable[[], None]) -> Iterator[None]:
    """Have `ask` called before each evaluation of the loss's gradients; leave no trace."""
    names = ("gradient", "gradient_hessian")
    make = estimator._get_loss

    def watched(**given: Any) -> Any:
        loss = make(**given)
        for name in names:
            setattr(loss, name, _after(ask, getattr(loss, name)))
        return loss

    estimator._get_loss = watched
    try:
        yield
    finally:
        del estimator._get_loss
        for name in names:
            vars(getattr(estimator, "_loss", watched)).pop(name, None)


def _after(ask: Callable[[], None], call: Callable[..., Any]) -> Callable[..., Any]:
    def asked(*args: Any, **given: Any) -> Any:
        ask()
        return call(*args, **given)

    return asked


def _half_boosted(estimator: Any) -> FitCheckpoint | None:
    """The iterations that are whole, as a fit that ended there would leave them."""
    vars(estimator).pop("_in_fit", None)
    if not estimator._is_fitted():
        return None
    for name in ("train_score_", "validation_score_"):
        setattr(estimator, name, np.asarray(getattr(estimator, name)))
    return FitCheckpoint(estimator, estimator.n_iter_, estimator.max_iter)


def _of_stages(estimator: Any) -> _Plan:
    if estimator.n_iter_no_change is not None:
        told = "asked after each stage by its monitor; warm_start does not go on with early stops"
        return _Plan(InterruptStrategy("callbacks", told, keeps=False), _by_stages)
    told = "asked after each stage by its monitor; what was given back goes on by warm_start"
    return _Plan(InterruptStrategy("rounds by warm_start", told, keeps=True), _by_stages)


def _by_stages(job: _Job) -> None:
    """Gradient boosting by exact splits: its monitor ends it in good order."""
    estimator = job.estimator
    stopped: Preempted | None = None

    def monitor(stage: int, *_: object) -> bool:
        nonlocal stopped
        try:
            job.ask((stage + 1) / estimator.n_estimators)
        except Preempted as asked:
            stopped = asked
        return stopped is not None

    with _as_it_was(estimator, "warm_start"):
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
    told = f"asked between rounds of about {ROUND_S:g} s; what was given back goes on"
    return _Plan(InterruptStrategy("rounds by warm_start", told, keeps=True), _by_members)


def _by_members(job: _Job) -> None:
    """Forests and bags: members are added, each with the seed that it would have had anyway."""
    estimator, of, done = job.estimator, int(job.estimator.n_estimators), job.begun
    least = count = int(estimator.n_jobs or 1)
    clock = job.clock or _no_clock
    try:
        with _as_it_was(estimator, "warm_start", "n_estimators"), _quiet("class_weight presets"):
            while done < of:
                if done > job.begun:
                    job.ask(done / of)
                started, added = clock(), min(count, of - done)
                estimator.set_params(warm_start=done > 0, n_estimators=done + added)
                estimator.fit(job.matrix, job.targets)
                done += added
                count = _next_round(added, clock() - started, least)
    except Preempted as stopped:
        stopped.partial = FitCheckpoint(estimator, done, of)
        raise


def _next_round(members: int, seconds: float, least: int) -> int:
    """As many members as take about ROUND_S, as the last ones went."""
    if seconds <= 0:
        return least
    wanted = int(members * min(ROUND_S / seconds, GROWTH))
    return max(wanted, least)


def _of_callbacks(estimator: Any) -> _Plan:
    if type(estimator) is LogisticRegression and estimator.solver != "lbfgs":
        return _unguarded(f"LogisticRegression calls back with lbfgs, not {estimator.solver!r}")
    if any(map(_leaves_the_process, [estimator, *estimator.get_params().values()])):
        return _unguarded(f"{type(estimator).__name__}: with n_jobs it fits in other processes")
    told = "asked at each task of its fit callbacks; a fit that was given back begins anew"
    return _Plan(InterruptStrategy("callbacks", told, keeps=False), _by_callbacks)


def _leaves_the_process(estimator: Any) -> bool:
    # A LogisticRegression has n_jobs, and it does nothing.
    return (
        isinstance(estimator, CallbackSupportMixin)
        and not isinstance(estimator, LogisticRegression)
        and getattr(estimator, "n_jobs", None) not in (None, 1)
    )


def _by_callbacks(job: _Job) -> None:
    estimator = job.estimator
    others = list(getattr(estimator, "_skl_callbacks", []))
    with _quiet("The estimator .* does not support callbacks"):
        estimator.set_callbacks(*others, _Caller(job.ask))
        try:
            estimator.fit(job.matrix, job.targets)
        finally:
            estimator.set_callbacks(*others)


class _Caller:
    """scikit-learn's fit callback (an AutoPropagatedCallback) that asks as each task begins."""

    max_propagation_depth = None

    def __init__(self, ask: GuardProbe) -> None:
        self._ask = ask

    def setup(self, estimator: Any, context: Any) -> None:
        """Nothing is to be prepared."""

    def teardown(self, estimator: Any, context: Any) -> None:
        """Nothing is to be put away."""

    def on_fit_task_begin(self, estimator: Any, context: Any) -> None:
        """Ask, with the share of the tasks that are behind."""
        self._ask(_share(context))

    def on_fit_task_end(self, estimator: Any, context: Any) -> None:
        """The next task's beginning, or the end of the fit, is asked at."""


def _share(context: Any) -> float:
    """What lies before this task, taking all tasks of one level for equally long."""
    path = []
    while context.parent is not None:
        path.append(context)
        context = context.parent
    share, width = 0.0, 1.0
    for task in reversed(path):
        if task.parent.max_subtasks and isinstance(task.task_id, Integral):
            width /= task.parent.max_subtasks
            share += width * int(task.task_id)
    return share


def _by_partial_fit(job: _Job) -> None:
    """A model of one's own, whose promise it is that these calls are its fit."""
    of = int(getattr(job.estimator, OWN_ROUNDS))
    for done in range(job.begun, of):
        try:
            job.ask(done / of)
        except Preempted as stopped:
            stopped.partial = FitCheckpoint(job.estimator, done, of) if done else None
            raise
        job.estimator.partial_fit(job.matrix, job.targets)


@contextmanager
def _as_it_was(estimator: Any, *names: str) -> Iterator[None]:
    """Put these parameters back afterwards, so that no model tells of having been watched."""
    before = {name: getattr(estimator, name) for name in names}
    try:
        yield
    finally:
        for name, value in before.items():
            setattr(estimator, name, value)


@contextmanager
def _quiet(message: str) -> Iterator[None]:
    """Without this warning, which is about the rounds and not about the model."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=message)
        yield


def _no_clock() -> float:
    return 0.0
