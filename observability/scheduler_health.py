"""The policy about a Prefect server's scheduler: does it create the runs of active schedules? Pure.

A working scheduler creates runs of each active schedule in advance: at least three, and for an hour
(Prefect's ``server.services.scheduler.min_runs`` and ``min_scheduled_time``). So a schedule is not
scheduled if it has no coming runs and none became due for three of its intervals, whatever else the
server reports.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from observability.core.decision import Decision, Fact

ROUND_S = 60.0
"""Seconds between two rounds of Prefect's scheduler, by default."""
INTERVALS = 3
"""Intervals without a run after which a schedule counts as not scheduled."""


class Schedule(BaseModel):
    """The active schedules of one deployment, as the server reports them."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    name: str = Field(description="The deployment, as FLOW/NAME.")
    kind: Literal["interval", "cron", "rrule"]
    every_s: float | None = Field(
        default=None, gt=0, description="Seconds from run to run; None: a cron or an rrule."
    )
    silent_s: float = Field(
        description="Seconds since its newest run became due, or since it was created or "
        "changed, whichever is less."
    )
    coming: int = Field(ge=0, description="Its runs that are scheduled and not yet due.")

    @property
    def timeout_s(self) -> float:
        """Seconds without a run that prove nothing yet.

        It is three intervals. For a cron, and for an interval that is longer than the scheduler's
        round, it is three rounds: by then a working scheduler has created runs in advance.
        """
        return INTERVALS * min(self.every_s or ROUND_S, ROUND_S)

    @property
    def silent(self) -> bool:
        """Whether it is not scheduled."""
        return not self.coming and self.silent_s > self.timeout_s


class SchedulerFacts(BaseModel):
    """What is known when the decision is made."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    schedules: Sequence[Schedule]
    log_errors: int | None = Field(
        default=None, ge=0, description="Errors in the server's log; None: the log is unknown."
    )
    last_error: str = Field(default="", description="The last error, on one line.")


def judge(status: SchedulerFacts) -> Decision:
    """Decide whether the server schedules the runs of all active schedules."""
    judged = [each for each in status.schedules if each.kind != "rrule"]
    silent = [each for each in judged if each.silent]
    waiting = [each for each in judged if not each.coming and not each.silent]
    facts: dict[str, Fact] = {
        "schedules": len(status.schedules),
        "silent": len(silent),
        "waiting": len(waiting),
        "coming": sum(each.coming for each in judged),
        "longest_silence_s": max((each.silent_s for each in silent), default=None),
        "log_errors": status.log_errors,
    }
    # While runs still become due an error is no proof, because SQLite is locked now and then.
    is_failing = bool(status.log_errors and waiting)
    reasons = [_reason(judged, silent, waiting, is_failing=is_failing)]
    if unjudged := len(status.schedules) - len(judged):
        reasons.append(f"not judged, since an rrule may have come to its end: {unjudged}")
    if status.log_errors:
        reasons.append(
            f"its log has errors of its scheduler ({status.log_errors}), "
            f"the last: {status.last_error}"
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
        worst = max(silent, key=lambda each: each.silent_s / each.timeout_s)
        others = f", and so it is with {len(silent) - 1} more" if len(silent) > 1 else ""
        return (
            f"the server does not schedule: no run of {_named(worst)} became due for "
            f"{worst.silent_s:.0f} s, and none is coming{others}"
        )
    if is_failing:
        return f"the server does not schedule: no run of {_named(waiting[0])} is coming"
    if waiting:
        first = min(waiting, key=lambda each: each.timeout_s - each.silent_s)
        left_s = first.timeout_s - first.silent_s
        return f"no run of {_named(first)} is coming yet; judged in {left_s:.0f} s"
    if not judged:
        return "no deployment has an active schedule that can be judged"
    coming = sum(each.coming for each in judged)
    return f"the server schedules: {coming} runs are coming, of {len(judged)} deployments"


def _named(schedule: Schedule) -> str:
    every = schedule.kind if schedule.every_s is None else f"every {schedule.every_s:g} s"
    return f"{schedule.name} ({every})"
