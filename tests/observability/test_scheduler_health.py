"""The judge of a server's clock: when it is said that nothing is scheduled, and on what grounds."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from observability import scheduler_health
from observability.core.decision import Decision
from observability.scheduler_health import Schedule, SchedulerFacts

LOCKED = "06:43:07.772 sqlite3.OperationalError: database is locked"


def make_schedule(**changes: Any) -> Schedule:
    """Every minute, and well."""
    well = {
        "name": "learn/elec2",
        "kind": "interval",
        "every_s": 60.0,
        "silent_s": 5.0,
        "coming": 9,
    }
    return Schedule(**(well | changes))


def judged(*schedules: Schedule, errors: int | None = 0) -> Decision:
    """The answer for these."""
    return scheduler_health.judge(
        SchedulerFacts(schedules=schedules, log_errors=errors, last_error=LOCKED if errors else "")
    )


def test_a_schedule_with_runs_to_come_is_scheduled() -> None:
    """However long ago the last one was: the server may have been off over night."""
    decision = judged(make_schedule(), make_schedule(silent_s=40_000.0, coming=3))
    assert (True, "clock") == (decision.yes, decision.question)
    assert "the server schedules: 12 runs are coming, of 2 deployments" == decision.because
    assert {
        "schedules": 2,
        "silent": 0,
        "waiting": 0,
        "coming": 12,
        "longest_silence_s": None,
        "log_errors": 0,
    } == decision.facts


@pytest.mark.parametrize(
    ("every_s", "kind", "silent_s", "expected"),
    [
        (60.0, "interval", 180.0, True),
        (60.0, "interval", 180.1, False),
        (2.0, "interval", 6.0, True),
        (2.0, "interval", 6.1, False),
        # A day is not waited for three times: by now runs would have been scheduled ahead.
        (86_400.0, "interval", 180.0, True),
        (86_400.0, "interval", 180.1, False),
        (None, "cron", 180.0, True),
        (None, "cron", 180.1, False),
        (None, "rrule", 1e6, True),
    ],
)
def test_three_intervals_without_a_run_prove_that_nobody_schedules(
    every_s: float | None, kind: str, silent_s: float, expected: bool
) -> None:
    """And an rrule proves nothing, since it may have come to its end."""
    schedule = make_schedule(kind=kind, every_s=every_s, silent_s=silent_s, coming=0)
    assert expected is judged(schedule).yes


def test_a_no_names_the_schedule_that_is_longest_without_a_run() -> None:
    """By its own measure: of a fast one, less silence says more."""
    decision = judged(
        make_schedule(name="slow", every_s=60.0, silent_s=200.0, coming=0),
        make_schedule(name="fast", every_s=2.0, silent_s=100.0, coming=0),
        make_schedule(),
    )
    assert not decision
    assert (
        "the server does not schedule: no run of fast (every 2 s) became due for 100 s, and none "
        "is coming, and so it is with 1 more" == decision.because
    )
    assert (2, 200.0) == (decision.facts["silent"], decision.facts["longest_silence_s"])


def test_before_three_intervals_it_is_told_when_it_will_be_judged() -> None:
    """A deployment that was made just now is no reason to alarm anybody."""
    decision = judged(make_schedule(kind="cron", every_s=None, silent_s=30.0, coming=0))
    assert decision
    assert "no run of learn/elec2 (cron) is coming yet; judged in 150 s" == decision.because
    assert 1 == decision.facts["waiting"]


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        (make_schedule(), True),
        (make_schedule(silent_s=30.0, coming=0), False),
        (make_schedule(silent_s=300.0, coming=0), False),
    ],
)
def test_errors_of_the_scheduler_are_told_and_prove_it_where_nothing_is_coming(
    schedule: Schedule, expected: bool
) -> None:
    """While runs go on becoming due, an error was one round that the next made good."""
    decision = judged(schedule, errors=2)
    assert expected is decision.yes
    assert decision.because.endswith(
        f"; its log has errors of its scheduler (2), the last: {LOCKED}"
    )
    assert expected is not decision.because.startswith("the server does not schedule: no run of")
    assert "judged in" not in decision.because


@pytest.mark.parametrize("errors", [0, None])
def test_a_server_without_schedules_cannot_fail_to_schedule(errors: int | None) -> None:
    """Also where its log cannot be read, and where all there is goes by an rrule."""
    nothing = judged(errors=errors)
    assert nothing
    assert "no deployment has an active schedule that can be judged" == nothing.because
    assert errors == nothing.facts["log_errors"]
    rrule = judged(make_schedule(kind="rrule", every_s=None, coming=0), errors=errors)
    assert rrule
    assert "not judged, since an rrule may have come to its end: 1" in rrule.because


@given(
    st.lists(
        st.builds(
            make_schedule,
            every_s=st.none() | st.floats(0.5, 1e6),
            silent_s=st.floats(-5.0, 1e6),
            coming=st.integers(0, 3),
        ),
        max_size=5,
    )
)
def test_one_schedule_without_a_run_is_enough_for_a_no(schedules: list[Schedule]) -> None:
    """Others that go well do not hide it, and a no always has one."""
    over = [
        each.coming == 0 and each.silent_s > 3 * min(each.every_s or 60.0, 60.0)
        for each in schedules
    ]
    assert any(over) is not judged(*schedules).yes
