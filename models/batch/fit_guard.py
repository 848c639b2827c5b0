"""The interface between a long fit and its guard, which can pause or preempt it.

Types only. `models.batch.interruptible_fit` calls the guard for each kind of estimator; guards are
implemented elsewhere (a thermal guard, a signal).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, Protocol

Kind = Literal["callbacks", "rounds by warm_start", "rounds by partial_fit", "unguarded"]


class Guard(Protocol):
    """Called before a fit, between its rounds, and after it: may the fit go on?"""

    def __call__(self, done: float, /) -> None:
        """Return to let it go on; block as long as it must pause; raise Preempted to end it.

        `done` is the share of the work that is done, from 0 to 1, and never falls. It is a lower
        bound: a fit that converges early ends before. The guard is called in the thread that fits.
        Any other exception ends the fit too, and passes through.
        """
        ...


class Preempted(BaseException):
    """Raised by a guard: end the fit here, and save what can be saved.

    It is a BaseException, so that no library takes it for a failed fit: a search would go on with
    its next candidate. `partial` is set while it is raised: a FitCheckpoint by
    `interruptible_fit.fit` and `batch_model.fit`, an UnfinishedChallenge by `evaluation.evaluate`,
    and None if nothing can be saved.
    """

    def __init__(self, because: str, cause: str | None = None) -> None:
        """`because` is a sentence; `cause` is one of the guard's short names for it."""
        super().__init__(because)
        self.because, self.cause = because, cause
        self.partial: object | None = None


@dataclass(frozen=True)
class InterruptStrategy:
    """How the guard is called during the fit of an estimator, and the reason."""

    kind: Kind
    because: str
    keeps: bool
    """Whether a preempted fit leaves a checkpoint, from which it can be resumed."""

    def __str__(self) -> str:
        return f"{self.kind}: {self.because}"


@dataclass(frozen=True, eq=False)
class FitCheckpoint:
    """A partly fitted estimator, which can be pickled, after `done` of `of` rounds.

    Resuming needs the same matrix and the same targets, and does not change the checkpoint.
    """

    estimator: Any
    done: int
    of: int
