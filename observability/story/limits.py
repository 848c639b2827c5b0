"""What a reader of a story must not conclude from it: what is unknown, left out, or still moves.

Pure.
"""

from __future__ import annotations

from observability.story.story import Story
from observability.story.words import counted, number

ALWAYS = (
    "Scores are of records that were predicted before they were learned, over those with a label; "
    "what a record without one would have scored is unknown."
)
CALIBRATED = 0.02
"""Probabilities that are off by more than this, in the mean, are named."""


def limits(story: Story) -> list[str]:
    """The limits as sentences; the first of them always holds."""
    past, live = story.past, story.live
    found = [ALWAYS]
    found += [
        f"Unknown: {each.question} {each.sentence}"
        for each in story.answers
        if each.state == "unknown"
    ]
    run = past.first("run") or {}
    if run.get("unlabelled"):
        found.append(f"In the last run {counted(run['unlabelled'], 'record')} had no label.")
    if run.get("rejected"):
        found.append(f"In the last run {counted(run['rejected'], 'record')} did not fit.")
    unknown = sum(row["unknown_energy"] or 0 for row in past.rows.get("retrains", ()))
    if unknown:
        found.append(f"The energy of {counted(unknown, 'fit')} is unknown, and in no sum.")
    champion = past.first("champion")
    if champion is not None and champion["train_to"] is not None and live.position is not None:
        since = live.position - champion["train_to"]
        found.append(f"The champion has seen none of the newest {counted(since, 'record')}.")
    if story.answer("world").state in ("watch", "act"):
        found.append("The data has changed: scores of the past may not go on.")
    if live.calibration_error is not None and live.calibration_error > CALIBRATED:
        found.append(
            f"Served probabilities are {number(live.calibration_error)} from the share of hits "
            "that they promise, in the mean."
        )
    found += [
        f"Drift is unknown by {each['vote']}: {each['because']}; known with: {each['remedy']}."
        for each in live.unknown_votes
    ]
    if live.stale_because:
        found.append(f"The history could not be read anew: {live.stale_because}.")
    return found
