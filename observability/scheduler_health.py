"""Does the scheduler of a Prefect server schedule? A pure decision about what the server shows.

A scheduler that works keeps some runs of each active schedule ahead of their time: three at least,
and an hour of them (Prefect's ``server.services.scheduler.min_runs`` and ``min_scheduled_time``).
So a schedule without coming runs, of which nothing became due for three of its intervals, is not
scheduled, whatever else the server answers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from observability.core.decision import Decision, Fact

ROUND_S = 60.0
"""Seconds between two rounds of Prefect's scheduler, by default."""
INTERVALS = 3
"""Intervals without a run after which a schedule is not scheduled."""


class Schedule(BaseModel):
    """The active schedules of one deployment, as its server shows them."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    name: str = Field(description="The deployment, as FLOW/NAME.")
    kind: Literal["interval", "cron", "rrule"]
    every_s: float | None = Field(
        default=None, gt=0, description="Seconds from run to run; None: a cron or an rrule."
    )
    silent_s: float = Field(
        description="Seconds since its newest run became due, or since it was made or changed, "
        "whichever is less."
    )
    coming: int = Field(ge=0, description="Runs of it that are scheduled and not yet due.")

    @property
    def patience_s(self) -> float:
        """Seconds of silence that prove nothing yet.

        Three intervals; of a longer interval than the scheduler's round, and of a cron, three
        rounds: by then runs of it are scheduled ahead, or nobody schedules.
        """
        return INTERVALS * min(self.every_s or ROUND_S, ROUND_S)

    @property
    def silent(self) -> bool:
        """Whether nobody schedules it."""
        return not self.coming and self.silent_s > self.patience_s


class SchedulerFacts(BaseModel):
    """All that is known when the decision is made."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    schedules: Sequence[Schedule]
    log_errors: int | None = Field(
        default=None, ge=0, description="Errors in the server's log; None: its log is not known."
    )
    last_error: str = Field(default="", description="The last of them, on one line.")


def judge(seen: SchedulerFacts) -> Decision:
    """Whether the runs of all active schedules become due."""
    judged = [each for each in seen.schedules if each.kind != "rrule"]
    silent = [each for each in judged if each.silent]
    waiting = [each for each in judged if not each.coming and not each.silent]
    facts: dict[str, Fact] = {
        "schedules": len(seen.schedules),
        "silent": len(silent),
        "waiting": len(waiting),
        "coming": sum(each.coming for each in judged),
        "longest_silence_s": max((each.silent_s for each in silent), default=None),
        "log_errors": seen.log_errors,
    }
    # An error is no proof while runs go on becoming due: SQLite is locked now and then.
    is_failing = bool(seen.log_errors and waiting)
    reasons = [_reason(judged, silent, waiting, is_failing=is_failing)]
    if unjudged := len(seen.schedules) - len(judged):
        reasons.append(f"not judged, since an rrule may have come to its end: {unjudged}")
    if seen.log_errors:
        reasons.append(
            f"its log has errors of its scheduler ({seen.log_errors}), the last: {seen.last_error}"
        )
    yes = not silent and not is_failing
    return Decision(question="clock", yes=yes, because="; ".join(reasons), facts=facts)


def _reason(
    judged: Sequence[Schedule],
    silent: Sequence[Schedule],
    waiting: Sequence[Schedule],
    *,
    is_failing: bool,
) -> str:
    if silent:
        worst = max(silent, key=lambda each: each.silent_s / each.patience_s)
        others = f", and so it is with {len(silent) - 1} more" if len(silent) > 1 else ""
        return (
            f"the server does not schedule: no run of {_named(worst)} became due for "
            f"{worst.silent_s:.0f} s, and none is coming{others}"
        )
    if is_failing:
        return f"the server does not schedule: no run of {_named(waiting[0])} is coming"
    if waiting:
        first = min(waiting, key=lambda each: each.patience_s - each.silent_s)
        left_s = first.patience_s - first.silent_s
        return f"no run of {_named(first)} is coming yet; judged in {left_s:.0f} s"
    if not judged:
        return "no deployment has an active schedule that can be judged"
    coming = sum(each.coming for each in judged)
    return f"the server schedules: {coming} runs are coming, of {len(judged)} deployments"


def _named(schedule: Schedule) -> str:
    every = schedule.kind if schedule.every_s is None else f"every {schedule.every_s:g} s"
    return f"{schedule.name} ({every})"
