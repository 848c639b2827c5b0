"""What a long fit and whoever watches it say to each other: asked, answered, given back.

Ground: values alone. How each estimator is asked is in `models.batch.interruptible_fit`; who
answers, and by what (a gate, a signal), is none of this room's business.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, Protocol

Kind = Literal["callbacks", "rounds by warm_start", "rounds by partial_fit", "unguarded"]


class Guard(Protocol):
    """Asked before a fit, between its rounds, and after it: may it go on?"""

    def __call__(self, done: float, /) -> None:
        """Return to let it go on; block as long as it must pause; raise GiveBack to end it.

        `done` is the share of the work that is done, from 0 to 1, and never falls. It is at least
        that: a fit that converges early ends before its share says so. It is asked in the thread
        that fits. Whatever else it raises ends the fit too, and comes out as it is.
        """
        ...


class Preempted(BaseException):
    """Raised by a guard: end the fit here, and keep what can be kept.

    A BaseException, so that no library takes it for a failed fit: a search would go on with its
    next candidate. `partial` is filled in on the way out: a Partial by `guarded.fit` and
    `batch.fit`, a PartialChallenge by `challenge.fight`, and None where nothing can be kept.
    """

    def __init__(self, because: str, cause: str | None = None) -> None:
        """`cause` is the same in one word, of those that the guard knows."""
        super().__init__(because)
        self.because, self.cause = because, cause
        self.partial: object | None = None


@dataclass(frozen=True)
class InterruptStrategy:
    """How an estimator is watched while it is fitted, and why so."""

    kind: Kind
    because: str
    keeps: bool
    """Whether what is fitted when the device is given back is kept, and gone on from."""

    def __str__(self) -> str:
        return f"{self.kind}: {self.because}"


@dataclass(frozen=True, eq=False)
class FitCheckpoint:
    """A half-fitted estimator that pickles, and how far it is: `done` rounds `of` so many.

    To go on from it needs the same matrix and the same targets; it is not changed by that.
    """

    estimator: Any
    done: int
    of: int
