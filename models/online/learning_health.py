"""Policy: do the models still learn and predict? The outcome of a batch in, a Decision out.

Pure. Each question is about one batch; the caller records an answer when it changes.
"""

from __future__ import annotations

import numpy as np

from models.core.record_schema import Task
from models.online.tracking import Floats
from observability.core.decision import Decision, Fact

FAR_WORSE = 3.0
"""A member whose recent loss is this many times that of the best baseline is far worse."""
FAR_WORSE_POINTS = 0.1
"""For classes, its loss (half the Brier score) must also be larger by this much."""
LEAST_PATIENCE = 500
"""Records for which a member may be far worse before it is reset the first time."""
MOST_REFUSED = 100
"""Records in a row on which a model may raise before the run ends."""


def refuses_everything(in_a_row: int, recipe: str, position: int, error: str) -> Decision:
    """Does the online model raise on so many records in a row that the model must be at fault?"""
    return Decision(
        question="refusals",
        yes=in_a_row > MOST_REFUSED,
        because=f"the online model {recipe} raised on {in_a_row} records in a row, last on "
        f"position {position}: {error}",
        facts={"in_a_row": in_a_row, "most_in_a_row": MOST_REFUSED},
    )


def champion_answers(error: str | None) -> Decision:
    """Did the champion predict the batch? `error` is the reason if it did not."""
    if error is None:
        return Decision(question="answers", yes=True, because="the champion answered")
    return Decision(question="answers", yes=False, because=f"no batch prediction: {error}")


class Divergence:
    """For how many records an online member has been far worse than the naive baselines.

    A member that diverged, such as a linear model whose weights an outlier blew up, need not
    answer anything that is not finite, and may take thousands of records to come back.
    """

    def __init__(self) -> None:
        self.in_a_row = 0
        self.patience = LEAST_PATIENCE
        """Records in a row after which the member is reset."""

    def learn(self, losses: Floats, naive: Floats, task: Task) -> None:
        """Compare the member's recent losses with those of the best baseline, record by record.

        Both have the shape (n,).
        """
        # A loss is infinite where it is unknown: who does not answer yet is not worse.
        worse = np.isfinite(losses) & (losses > FAR_WORSE * naive)
        if task == "classification":
            # Where labels hardly change, the baseline's loss is nearly zero.
            worse &= losses > naive + FAR_WORSE_POINTS
        better = np.flatnonzero(~worse)
        if len(better):
            self.in_a_row = len(worse) - 1 - int(better[-1])
        else:
            self.in_a_row += len(worse)

    def begin_anew(self) -> None:
        """The member was reset: it gets twice the time before the next reset."""
        self.in_a_row, self.patience = 0, 2 * self.patience


def must_be_reset(name: str, answers_not_finite: int, divergence: Divergence) -> Decision:
    """Must an online member be reset?

    After one NaN its predictions never become finite again. A member that was far worse than the
    baselines for long has diverged.
    """
    facts: dict[str, Fact] = {
        "member": name,
        "answers_not_finite": answers_not_finite,
        "records_far_worse": divergence.in_a_row,
        "patience": divergence.patience,
    }
    because = f"all answers of the online member {name} are finite, and none is far worse"
    if answers_not_finite:
        because = (
            f"the online member {name} gave {answers_not_finite} answers that are not "
            "finite and would never recover; it begins anew, the other members carry on"
        )
    elif divergence.in_a_row >= divergence.patience:
        because = (
            f"the online member {name} lost more than {FAR_WORSE:g} times as much as the best "
            f"baseline for {divergence.in_a_row} records; it begins anew, the other members carry "
            "on"
        )
    yes = answers_not_finite > 0 or divergence.in_a_row >= divergence.patience
    return Decision(question="revive", yes=yes, because=because, facts=facts)
