"""Policy: do the models still learn and predict? The outcome of a batch in, a Decision out.

Pure. Each question is about one batch; the caller records an answer when it changes.
"""

from __future__ import annotations

from observability.core.decision import Decision

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


def must_be_reset(recipe: str, answers_not_finite: int) -> Decision:
    """Must the online member be reset? After one NaN its predictions never become finite again."""
    if not answers_not_finite:
        because = f"all answers of the online member {recipe} are finite"
        return Decision(question="revive", yes=False, because=because)
    return Decision(
        question="revive",
        yes=True,
        because=f"the online member {recipe} gave {answers_not_finite} answers that are not "
        "finite and would never recover; it begins anew, the other members carry on",
        facts={"answers_not_finite": answers_not_finite},
    )
