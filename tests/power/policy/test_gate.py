"""The gate's judge, branch by branch."""

from __future__ import annotations

import math
import pickle
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import ValidationError

from power.core import device_readings
from power.core.device_readings import DeviceReading
from power.core.gate_config import GateConfig
from power.policy import deadline, gate, gate_override
from power.policy.gate import DeviceState, GateState
from power.policy.gate_override import Override
from tests.power.makers import BETWEEN_C, COOL_C, HOT_C, judge_one, make_reading, make_survey

OPEN = judge_one(make_reading(read_at_s=-1.0)).state
"""A gate that has just seen a cool GPU-a, at -1 s."""


def test_a_fresh_gate_is_closed_until_a_device_has_been_read() -> None:
    """Nothing known is a no that names what would open it."""
    decision, state = gate.judge(make_survey(), GateState(), GateConfig(), 0.0)
    assert (False, GateState()) == (decision.yes, state)
    assert "no device has been read yet" in decision.because
    assert "opens at a margin of 20 °C" in decision.because


def test_a_cool_device_opens_a_fresh_gate() -> None:
    """One good reading is enough by default, and the decision tells its numbers."""
    decision, state = judge_one(make_reading(margin_c=20), now_s=1.5)
    assert decision.yes
    assert "gate" == decision.question
    assert state.device("GPU-a").open
    expected = {"margin_c": 20.0, "pause_margin_c": 10.0, "resume_margin_c": 20.0, "age_s": 1.5}
    assert expected == {name: decision.facts[name] for name in expected}
    assert "GPU-a is open: its margin is 20.0 °C" in decision.because


@pytest.mark.parametrize("margin_c", [10.0, 5.0, -3.0])
def test_a_device_closes_at_or_below_the_pause_margin(margin_c: float) -> None:
    """One hot reading closes at once, and says which margin opens it again."""
    decision, state = judge_one(make_reading(margin_c=margin_c), OPEN)
    assert (False, False) == (decision.yes, state.device("GPU-a").open)
    assert f"{margin_c:.1f} °C, at or below the pause margin of 10 °C" in decision.because
    assert "it opens at a margin of 20 °C or more" in decision.because


@pytest.mark.parametrize("margin_c", [10.1, 19.9])
def test_between_the_margins_the_gate_stays_as_it_is(margin_c: float) -> None:
    """An open gate stays open and a closed one closed, and each says so."""
    kept_open = judge_one(make_reading(margin_c=margin_c), OPEN).decision
    kept_closed = judge_one(make_reading(margin_c=margin_c)).decision
    assert (True, False) == (kept_open.yes, kept_closed.yes)
    assert "stays open" in kept_open.because
    assert "stays closed" in kept_closed.because


def test_a_closed_gate_wants_its_good_readings_in_a_row() -> None:
    """With good_readings = 3, a reading between the margins starts the count again."""
    answers = []
    state = GateState()
    for at_s, margin_c in enumerate([30, 30, BETWEEN_C, 30, 30, 30]):
        decision, state = judge_one(
            make_reading(read_at_s=at_s, margin_c=margin_c), state, good_readings=3
        )
        answers.append(decision.yes)
    assert [False, False, False, False, False, True] == answers


def test_a_reading_that_is_told_again_counts_once() -> None:
    """A door that has nothing newer must not open the gate by repeating itself."""
    state = GateState()
    for _ in range(5):
        decision, state = judge_one(make_reading(), state, good_readings=2)
    assert not decision.yes
    assert 1 == state.device("GPU-a").good_readings


@pytest.mark.parametrize(
    "reasons",
    [
        "hw_thermal_slowdown",
        "sw_thermal_slowdown",
        "hw_slowdown",
        "hw_power_brake_slowdown",
        "SwThermalSlowdown",
        "sw_power_cap|hw_slowdown",
        "gpu_idle; sw_thermal_slowdown",
        "0x0000000000000040",
        "0x24",
    ],
)
def test_a_thermal_throttle_reason_closes_whatever_the_margin(reasons: str) -> None:
    """Hardware that slows down is hot enough, in names and in NVML's mask."""
    decision = judge_one(make_reading(throttle_reasons=reasons), OPEN).decision
    assert not decision.yes
    assert "the hardware is slowing down" in decision.because


@pytest.mark.parametrize(
    "reasons", [None, "", "none", "gpu_idle", "sw_power_cap|sync_boost", "0x0", "0x4", "0x8000"]
)
def test_a_reason_that_is_not_heat_does_not_close(reasons: str | None) -> None:
    """A power cap or an idle clock is no reason to wait; neither is a bit nobody named yet."""
    assert judge_one(make_reading(throttle_reasons=reasons)).decision.yes


def test_an_unknown_margin_closes() -> None:
    """A device that tells no margin is not healthy, and the remedy is named."""
    decision = judge_one(make_reading(margin_c=None), OPEN).decision
    assert not decision.yes
    assert "max_temperature_c" in decision.because
    assert decision.facts["margin_c"] is None


@pytest.mark.parametrize(
    ("reading", "margin_c", "margin_source", "told"),
    [
        ({"margin_c": 30, "temperature_c": 79}, 30.0, "margin", "its margin is 30.0 °C,"),
        (
            {"margin_c": 30, "margin_source": "threshold", "threshold_c": 92},
            30.0,
            "threshold",
            "its margin is 30.0 °C to its own threshold of 92 °C,",
        ),
        (
            {"margin_c": 30, "margin_source": "threshold"},
            30.0,
            "threshold",
            "its margin is 30.0 °C,",
        ),
        (
            {"margin_c": None, "temperature_c": 60},
            20.0,
            "maximum",
            "its margin is 20.0 °C to max_temperature_c = 80,",
        ),
        ({"margin_c": None, "temperature_c": None}, None, "unknown", "it tells no margin"),
    ],
)
def test_each_margin_source_of_the_ladder_is_told(
    reading: dict[str, Any], margin_c: float | None, margin_source: str, told: str
) -> None:
    """The best source that the device offers is used, and stands in facts and reason."""
    read = make_reading(**reading)
    decision = judge_one(read, max_temperature_c=80.0).decision
    assert (margin_source, margin_c) == (
        decision.facts["margin_source"],
        decision.facts["margin_c"],
    )
    assert (margin_c is not None, True) == (decision.yes, told in decision.because)
    standing = device_readings.with_effective_margin(read, GateConfig(max_temperature_c=80.0))
    assert (margin_source, margin_c) == (standing.margin_source, standing.margin_c)


def test_a_reading_without_a_word_on_its_margin_source_stands_on_its_margin() -> None:
    """What older traces and checkpoints say: the margin they tell is the device's own."""
    assert "margin" == make_reading().margin_source
    assert "unknown" == make_reading(margin_c=None).margin_source
    assert (
        "margin" == device_readings.margin(make_reading(margin_source="unknown"), GateConfig())[1]
    )


def test_a_configured_maximum_never_overrules_the_device() -> None:
    """79 of at most 80 degrees, and a margin of its own: the margin counts."""
    knobs: dict[str, Any] = {"max_temperature_c": 80.0}
    assert judge_one(make_reading(margin_c=COOL_C, temperature_c=79), **knobs).decision.yes
    assert not judge_one(make_reading(margin_c=None, temperature_c=75), **knobs).decision.yes


def test_a_device_that_cannot_be_read_is_closed_at_once_and_alone() -> None:
    """Its reason and the age of its last good reading are told; the neighbour stays open."""
    both = make_survey(make_reading(), make_reading(uuid="GPU-b"))
    state = gate.judge(both, GateState(), GateConfig(), 0.0).state
    silent = {"uuid": "GPU-b", "read_at_s": 5.0, "margin_c": None, "unreadable": "it hung"}
    blank = DeviceReading.model_validate(silent)
    told = make_survey(make_reading(read_at_s=5.0), blank)
    judged = gate.judge(told, state, GateConfig(), 5.0)
    assert judged.decision.yes
    lost = judged.state.device("GPU-b")
    assert not lost.open
    expected = "it cannot be read (it hung); its last good reading was 5.0 s old then"
    assert expected == lost.why
    # However long it lasts, the reason is told and not only an age.
    alone = gate.judge(make_survey(), judged.state, GateConfig(uuid="GPU-b"), 500.0).decision
    assert expected in alone.because
    assert ("it hung", 500.0) == (alone.facts["unreadable"], alone.facts["good_age_s"])


def test_a_device_that_never_could_be_read_says_so() -> None:
    """There is no good reading to be old."""
    silent = DeviceReading(uuid="GPU-a", read_at_s=0.0, unreadable="it hung")
    assert "no good reading of it is known" in judge_one(silent).decision.because


def test_what_cannot_be_is_counted_per_device() -> None:
    """Sentinels that the door met, absurdities and jumps add up; the same reading counts once."""
    state = GateState()
    odd = (
        make_reading(read_at_s=0.0, discarded=2),
        make_reading(read_at_s=1.0, temperature_c=644_245_923.0, power_w=-2.0),
        make_reading(read_at_s=2.0, margin_c=-90.0),
        make_reading(read_at_s=3.0, margin_c=190.0),
    )
    counts = []
    for reading in (*odd, odd[-1]):
        decision, state = judge_one(reading, state, max_jump_c_per_s=20.0)
        counts.append(decision.facts["discarded"])
    assert [2, 4, 5, 6, 6] == counts
    assert 0 == state.device("GPU-b").discarded


@given(st.integers(0, 5), st.sampled_from(sorted(device_readings.PLAUSIBLE)), st.floats())
def test_a_number_is_plausible_or_it_is_counted_and_closes(
    discarded: int, name: str, value: float
) -> None:
    """For every number a device may tell: never open on what cannot be, and never uncounted."""
    least, most = device_readings.PLAUSIBLE[name]
    decision = judge_one(make_reading(discarded=discarded, **{name: value})).decision
    possible = least <= value <= most
    assert discarded + (not possible) == decision.facts["discarded"]
    assert possible or not decision.yes


def test_a_mig_instance_stands_for_its_whole_device() -> None:
    """It has no sensors: named in [gate] uuid, it is its device that counts."""
    reading = make_reading(mig=("MIG-1", "MIG-2"))
    decision = judge_one(reading, uuid="MIG-2").decision
    assert decision.yes
    assert "GPU-a, whose heat is that of the MIG instance MIG-2, is open" in decision.because
    assert not judge_one(reading, uuid="MIG-3").decision.yes


def test_a_memory_from_an_earlier_version_is_taken_as_it_is() -> None:
    """A checkpoint that lacks newer fields has their defaults, and is judged."""
    state = judge_one(make_reading()).state
    (device,) = state.devices
    latest = device.latest
    assert latest is not None
    for value, newer in ((device, "discarded"), (latest, "margin_source"), (latest, "clock_mhz")):
        del value.__dict__[newer]
    restored = pickle.loads(pickle.dumps(state))
    assert ("margin", None, 0) == (
        restored.devices[0].latest.margin_source,
        restored.devices[0].latest.clock_mhz,
        restored.devices[0].discarded,
    )
    assert judge_one(make_reading(read_at_s=1.0), restored).decision.yes


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("temperature_c", 644_245_923.0),
        ("temperature_c", -50.1),
        ("temperature_c", 150.1),
        ("temperature_c", math.nan),
        ("memory_temperature_c", math.inf),
        ("margin_c", math.nan),
        ("margin_c", 200.1),
        ("margin_c", -math.inf),
        ("power_w", -0.1),
        ("power_limit_w", 1e9),
        ("utilization", 101.0),
    ],
)
def test_an_impossible_number_closes(name: str, value: float) -> None:
    """One absurd value says that the device's word is worth nothing at this moment."""
    decision, state = judge_one(make_reading(**{name: value}), OPEN)
    assert not decision.yes
    assert f"its {name} of" in decision.because
    assert "impossible" in decision.because
    assert OPEN.device("GPU-a").trusted == state.device("GPU-a").trusted


@pytest.mark.parametrize(("name", "bounds"), device_readings.PLAUSIBLE.items())
def test_the_bounds_of_the_plausible_are_plausible(name: str, bounds: tuple[float, float]) -> None:
    """A value on a bound is judged by the margins like any other."""
    for value in bounds:
        decision = judge_one(make_reading(**{name: value})).decision
        assert "impossible" not in decision.because


@pytest.mark.parametrize(("name", "leap"), [("temperature_c", 101.0), ("margin_c", -101.0)])
def test_a_leap_that_no_device_can_make_closes(name: str, leap: float) -> None:
    """A hundred degrees within a second is a sensor's mistake; over two seconds it is not."""
    first = {"temperature_c": 20.0, "margin_c": 130.0}
    state = judge_one(make_reading(**first)).state
    leapt = first | {name: first[name] + leap}
    soon = judge_one(make_reading(read_at_s=1.0, **leapt), state).decision
    later = judge_one(make_reading(read_at_s=2.0, **leapt), state).decision
    assert (False, True) == (soon.yes, later.yes)
    assert f"its {name} jumped from {first[name]:g}" in soon.because


def test_a_leap_within_a_fraction_of_a_second_is_measured_over_a_second() -> None:
    """Sensors answer in whole degrees: one degree within a millisecond is no leap."""
    state = judge_one(make_reading(margin_c=60)).state
    decision = judge_one(make_reading(read_at_s=0.001, margin_c=59), state).decision
    assert decision.yes


def test_after_a_wrong_reading_the_next_true_one_is_measured_from_the_last_trusted() -> None:
    """A single absurd value must not make the truth after it look like a leap."""
    knobs = {"max_jump_c_per_s": 30, "dwell_s": 0}
    state = judge_one(make_reading(temperature_c=120, read_at_s=1.0), OPEN, **knobs)
    decision = judge_one(make_reading(read_at_s=2.0), state.state, **knobs).decision
    assert (False, True) == (state.decision.yes, decision.yes)


@pytest.mark.parametrize(("age_s", "open_"), [(60.0, True), (60.1, False)])
def test_a_reading_counts_until_it_is_too_old(age_s: float, open_: bool) -> None:
    """Older than max_age_s, a reading closes the gate and its age is told."""
    decision, state = judge_one(make_reading(), now_s=age_s)
    assert (open_, open_) == (decision.yes, state.device("GPU-a").open)
    if not open_:
        assert "its last reading is 60.1 s old, older than max_age_s = 60" in decision.because


def test_a_device_that_is_not_heard_of_any_more_closes_by_its_age() -> None:
    """A survey that leaves a known device out does not keep it open."""
    decision = gate.judge(make_survey(), OPEN, GateConfig(), 100.0).decision
    assert not decision.yes
    assert "101.0 s old" in decision.because


def test_a_gap_in_the_readings_closes_whether_or_not_anyone_looked() -> None:
    """After a gap longer than max_age_s a device must earn its opening again."""
    decision = judge_one(make_reading(read_at_s=100.0, margin_c=BETWEEN_C), OPEN).decision
    assert not decision.yes
    assert "stays closed" in decision.because


def test_a_reading_from_the_future_closes_and_is_not_measured_from() -> None:
    """Clocks that disagree close the gate, until a reading of now comes."""
    decision, state = judge_one(make_reading(read_at_s=9.0), OPEN, now_s=1.0)
    assert not decision.yes
    assert "8.0 s in the future" in decision.because
    assert judge_one(make_reading(read_at_s=2.0), state, dwell_s=0).decision.yes


@pytest.mark.parametrize("read_at_s", [math.nan, -math.inf])
def test_a_reading_without_a_time_closes(read_at_s: float) -> None:
    """A time that is not a number proves no freshness."""
    decision = judge_one(make_reading(read_at_s=read_at_s), OPEN, now_s=0.0).decision
    assert not decision.yes
    assert "has no time" in decision.because


def test_a_moment_that_is_not_a_number_closes() -> None:
    """A judge that does not know the time cannot know an age."""
    assert not judge_one(make_reading(), OPEN, now_s=math.nan).decision.yes
    assert not gate.judge(make_survey(), OPEN, GateConfig(), math.nan).decision.yes


def test_readings_that_go_back_in_time_close_and_then_start_afresh() -> None:
    """A clock that started again costs one reading, not the gate."""
    decision, state = judge_one(make_reading(read_at_s=-50.0), OPEN)
    assert not decision.yes
    assert "went back in time by 49.0 s" in decision.because
    # What was trusted before the restart is of another clock: no leap is measured from it.
    after = make_reading(read_at_s=-49.0, margin_c=COOL_C + 20)
    assert judge_one(after, state, max_jump_c_per_s=10, dwell_s=0).decision.yes


def test_after_a_restart_of_the_clock_a_remembered_reading_is_of_the_future() -> None:
    """A remembered reading later than now keeps nothing open."""
    decision = gate.judge(make_survey(), OPEN, GateConfig(), -100.0).decision
    assert not decision.yes
    assert "in the future" in decision.because


def test_two_readings_of_one_moment_that_disagree_close() -> None:
    """Of two different truths at one time neither is trusted."""
    state = judge_one(make_reading()).state
    decision = judge_one(make_reading(margin_c=COOL_C + 1), state).decision
    assert not decision.yes
    assert "say different things" in decision.because


def test_an_impossible_reading_that_is_told_again_stays_the_same_no() -> None:
    """NaN is not equal to itself, and must not be taken for a second reading."""
    first = judge_one(make_reading(margin_c=math.nan))
    again = judge_one(make_reading(margin_c=math.nan), first.state)
    assert first.decision == again.decision


def test_a_gate_that_is_off_says_yes_and_remembers_nothing_new() -> None:
    """source = "off" is a yes with its reason, however hot it is."""
    decision, state = judge_one(make_reading(margin_c=HOT_C), OPEN, source="off")
    assert decision.yes
    assert OPEN == state
    assert "the gate is off" in decision.because


@pytest.mark.parametrize(
    ("driver", "knob", "choice", "yes"),
    [
        ("absent", "no_driver", "go", True),
        ("absent", "no_driver", "wait", False),
        ("unreadable", "unreadable", "go", True),
        ("unreadable", "unreadable", "wait", False),
    ],
)
def test_without_a_driver_the_knobs_answer(driver: str, knob: str, choice: str, yes: bool) -> None:
    """Each case has its knob; the answer names knob, cause and way out; devices are closed."""
    survey = make_survey(driver=driver, because="NVML error 15")
    decision, state = gate.judge(survey, OPEN, GateConfig(**{knob: choice}), 0.0)
    assert (yes, False) == (decision.yes, state.device("GPU-a").open)
    assert "NVML error 15" in decision.because
    cause = None if yes else {"absent": "no_driver"}.get(driver, driver)
    assert {"driver": driver, knob: choice, "cause": cause} == decision.facts
    assert (f'or with {knob} = "go"' in decision.because) is not yes


def test_by_default_no_driver_goes_and_an_unreadable_one_waits() -> None:
    """A machine without a GPU has nothing to keep cool; a GPU that is silent may be hot."""
    assert ("go", "wait") == (GateConfig().no_driver, GateConfig().unreadable)


def test_one_open_device_of_several_is_enough_and_is_named() -> None:
    """The coolest open device is the one to use, and its numbers are the facts."""
    survey = make_survey(
        make_reading(uuid="GPU-hot", margin_c=HOT_C),
        make_reading(uuid="GPU-cool", margin_c=30),
        make_reading(uuid="GPU-cooler", margin_c=35),
    )
    decision = gate.judge(survey, GateState(), GateConfig(), 0.0).decision
    assert decision.yes
    assert ("GPU-cooler", 35.0, 3, 2) == tuple(
        decision.facts[name] for name in ("uuid", "margin_c", "devices", "devices_open")
    )
    assert decision.because.startswith("GPU-cooler is open")
    assert "(2 of 3 devices open)" in decision.because


def test_of_several_closed_devices_the_nearest_to_opening_is_named() -> None:
    """An unknown margin is the farthest from opening; the coolest is the nearest."""
    survey = make_survey(
        make_reading(uuid="GPU-blind", margin_c=None),
        make_reading(uuid="GPU-mad", margin_c=math.nan),
        make_reading(uuid="GPU-warm", margin_c=9),
        make_reading(uuid="GPU-hot", margin_c=1),
    )
    decision = gate.judge(survey, GateState(), GateConfig(), 0.0).decision
    assert (False, "GPU-warm") == (decision.yes, decision.facts["uuid"])
    assert "(0 of 4 devices open)" in decision.because


def test_a_device_that_only_spoke_nonsense_about_time_is_known_without_numbers() -> None:
    """Such a device is closed and ranks last, and its facts hold no reading."""
    decision, state = judge_one(make_reading(read_at_s=math.nan), now_s=0.0)
    assert state.device("GPU-a").latest is None
    assert "margin_c" not in decision.facts
    assert not decision.yes


def test_a_named_device_is_the_only_one_that_counts() -> None:
    """A cool neighbour does not open the gate for the device that the job will use."""
    survey = make_survey(make_reading(uuid="GPU-b"), make_reading(margin_c=HOT_C))
    pinned = gate.judge(survey, GateState(), GateConfig(uuid="GPU-a"), 0.0).decision
    assert (False, "GPU-a", 1) == (pinned.yes, pinned.facts["uuid"], pinned.facts["devices"])


def test_a_named_device_that_is_not_there_closes_and_lists_who_is() -> None:
    """A misspelt uuid is told with the names that were seen."""
    decision = judge_one(make_reading(), uuid="GPU-z").decision
    assert not decision.yes
    assert "GPU-z is not among the devices read (GPU-a)" in decision.because
    nobody = gate.judge(make_survey(), GateState(), GateConfig(uuid="GPU-z"), 0.0).decision
    assert "(none)" in nobody.because


@pytest.mark.parametrize(("waited_s", "over"), [(0, False), (3599.9, False), (3600, True)])
def test_a_deferred_request_ends_at_its_deadline(waited_s: float, over: bool) -> None:
    """Before the deadline it waits; at it, it ends, and the numbers are told."""
    decision = deadline.at_deadline(waited_s, GateConfig())
    assert ("deadline", over) == (decision.question, decision.yes)
    assert (waited_s, 3600.0) == (decision.facts["waited_s"], decision.facts["deadline_s"])
    assert ("keeps waiting" in decision.because) is not over


@pytest.mark.parametrize(
    ("choice", "words"),
    [("skip", "is skipped"), ("run", "it runs"), ("capped", "under a power limit")],
)
def test_at_the_deadline_the_knob_says_what_becomes_of_it(choice: str, words: str) -> None:
    """at_deadline is told in the reason and in the facts."""
    limits = GateConfig.model_validate({"at_deadline": choice, "deadline_s": 0})
    decision = deadline.at_deadline(math.inf, limits)
    assert decision.yes
    assert words in decision.because
    assert choice == decision.facts["at_deadline"]


def test_a_wait_that_is_not_a_number_ends_nothing() -> None:
    """NaN is no proof that the time is over."""
    assert not deadline.at_deadline(math.nan, GateConfig()).yes


@pytest.mark.parametrize(
    ("knobs", "told"),
    [
        ({"pause_margin_c": 20, "resume_margin_c": 19.9}, "must be at or above pause_margin_c"),
        ({"source": "trace"}, "name the CSV in"),
        ({"pause_margin": 5}, "Extra inputs are not permitted"),
        ({"good_readings": 0}, "greater than or equal to 1"),
        ({"max_age_s": math.inf}, "finite number"),
        ({"pause_margin_c": math.nan}, "finite number"),
    ],
)
def test_limits_that_make_no_sense_are_refused(knobs: dict[str, object], told: str) -> None:
    """A misspelt, impossible or contradictory knob never becomes a gate."""
    with pytest.raises(ValidationError, match=told):
        GateConfig.model_validate(knobs)


def test_equal_margins_are_allowed_and_the_pause_margin_wins() -> None:
    """With both margins at 15, exactly 15 is closed."""
    knobs: dict[str, Any] = {"pause_margin_c": 15, "resume_margin_c": 15}
    answers = [
        judge_one(make_reading(margin_c=margin_c), **knobs).decision.yes for margin_c in (15, 15.1)
    ]
    assert [False, True] == answers


@pytest.mark.parametrize(
    ("knobs", "reads_from"),
    [
        ({}, "nvml"),
        ({"trace": "t.csv"}, "trace"),
        ({"source": "nvml", "trace": "t.csv"}, "nvml"),
        ({"source": "trace", "trace": "t.csv"}, "trace"),
        ({"source": "off"}, "off"),
    ],
)
def test_auto_reads_a_trace_where_one_is_named(knobs: dict[str, object], reads_from: str) -> None:
    """The door to open follows from two knobs, and the explicit one wins."""
    assert reads_from == GateConfig.model_validate(knobs).reads_from


def test_the_memory_survives_pickling() -> None:
    """A checkpoint brings back the same state, which judges the same."""
    back = pickle.loads(pickle.dumps(OPEN))
    assert OPEN == back
    between = make_reading(margin_c=BETWEEN_C)
    assert judge_one(between, OPEN) == judge_one(between, back)


def test_a_device_never_seen_is_closed() -> None:
    """Asking the memory for a stranger answers a closed device."""
    assert DeviceState(uuid="GPU-x", open=False) == GateState().device("GPU-x")


def test_a_device_that_closed_stays_closed_for_its_dwell() -> None:
    """Cool again at once, it opens when the dwell is over and not before; the answer says so."""
    _, state = judge_one(make_reading(read_at_s=1.0, margin_c=HOT_C), OPEN, dwell_s=30)
    early, state = judge_one(make_reading(read_at_s=30.9), state, dwell_s=30)
    late, state = judge_one(make_reading(read_at_s=31.0), state, dwell_s=30)
    assert (False, True) == (early.yes, late.yes)
    assert "it closed 30 s ago and stays closed for 30 s (dwell_s)" in early.because


def test_a_device_that_only_dwells_says_when_it_opens() -> None:
    """Cool again, in what is left of the dwell; hot, or open, no time is told."""
    limits = GateConfig(dwell_s=30)
    _, hot = judge_one(make_reading(read_at_s=1.0, margin_c=HOT_C), OPEN, dwell_s=30)
    _, cool = judge_one(make_reading(read_at_s=11.0), hot, dwell_s=30)
    told = [
        gate.opens_in_s(state.device("GPU-a"), limits, at_s)
        for state, at_s in ((hot, 1.0), (cool, 11.0), (cool, 31.0), (OPEN, 31.0))
    ]
    assert [None, 20.0, 0.0, None] == told


def test_a_device_that_never_was_open_dwells_for_nothing() -> None:
    """A job that comes to a machine that was hot before need not wait for a dwell."""
    _, state = judge_one(make_reading(margin_c=HOT_C), dwell_s=600)
    assert judge_one(make_reading(read_at_s=1.0), state, dwell_s=600).decision.yes


def test_a_silent_device_closed_when_it_became_too_old_whoever_looked() -> None:
    """The dwell counts from then, so that how often somebody looks changes nothing."""
    looked = gate.judge(make_survey(), OPEN, GateConfig(), 500.0).state
    assert 60.0 - 1.0 <= (looked.device("GPU-a").closed_at_s or 0.0) <= 61.0


def test_a_clock_that_began_anew_ends_a_dwell() -> None:
    """Seconds of another clock cannot keep a device closed for ever."""
    device = DeviceState(uuid="GPU-a", closed_at_s=9_000.0)
    state = GateState(devices=(device,))
    assert judge_one(make_reading(read_at_s=5.0), state, dwell_s=30).decision.yes


@given(urgency=st.floats(), pause_c=st.floats(-50, 100), band_c=st.floats(0, 50))
def test_urgency_moves_the_resume_margin_towards_pause_and_never_past_it(
    urgency: float, pause_c: float, band_c: float
) -> None:
    """Whatever urges, the resume margin stays between what was asked and the pause margin."""
    resume_c = min(pause_c + band_c, 100.0)
    limits = GateConfig(pause_margin_c=pause_c, resume_margin_c=resume_c)
    urged = limits.at_urgency(urgency)
    assert pause_c <= urged.resume_margin_c <= resume_c
    assert limits.model_copy(update={"resume_margin_c": urged.resume_margin_c}) == urged


def test_an_urgent_request_is_let_in_between_the_margins_and_never_at_the_pause_margin() -> None:
    """At full urgency a closed device opens above the pause margin, and not at it."""
    limits = GateConfig().at_urgency(1.0)
    warm, hot = make_reading(margin_c=10.1), make_reading(margin_c=10.0)
    assert gate.judge(make_survey(warm), GateState(), limits, 0.0).decision.yes
    assert not gate.judge(make_survey(hot), GateState(), limits, 0.0).decision.yes


@pytest.mark.parametrize(
    ("waited_s", "severity", "urgency"),
    [
        (0.0, 0.0, 0.0),
        (1800.0, 0.0, 0.25),
        (3600.0, 1.0, 0.75),
        (1e9, 7.0, 0.75),
        (-5.0, -1.0, 0.0),
        (math.nan, math.nan, 0.0),
        (math.nan, 1.0, 0.25),
    ],
)
def test_urgency_grows_with_the_wait_and_with_the_drift(
    waited_s: float, severity: float, urgency: float
) -> None:
    """Each by its own knob, neither beyond it; what is not a number urges nothing."""
    assert urgency == pytest.approx(deadline.urgency(waited_s, severity, GateConfig()))


def test_without_patience_every_request_is_urgent() -> None:
    """A deadline of zero is over at once."""
    assert 0.5 == deadline.urgency(0.0, 0.0, GateConfig(deadline_s=0))


NOON, HOUR = datetime(2026, 11, 26, 12, tzinfo=UTC), timedelta(hours=1)


@pytest.mark.parametrize("opens", [True, False])
def test_an_override_answers_in_place_of_the_gate_until_it_expires(opens: bool) -> None:
    """A person's word stands until its end, says whose word it is, and then counts no more."""
    override = Override(open=opens, set_at=NOON, until=NOON + HOUR, because="maintenance")
    gated = judge_one(make_reading(margin_c=HOT_C if opens else COOL_C)).decision
    overridden = gate_override.overridden(gated, override, NOON)
    assert opens is overridden.yes
    assert "maintenance" in overridden.because
    assert gated.yes is overridden.facts["gate_without_override"]
    assert gated == gate_override.overridden(gated, override, NOON + HOUR)
    assert gated == gate_override.overridden(gated, None, NOON)


@pytest.mark.parametrize("hours", [0, -1, 24 * 7 + 1])
def test_an_override_that_never_ends_or_ended_before_it_began_is_refused(hours: int) -> None:
    """A person who forgets it must not have switched the gate off for good."""
    with pytest.raises(ValidationError, match="until"):
        Override(open=True, set_at=NOON, until=NOON + hours * HOUR, because="why not")


@given(
    margins=st.lists(st.floats(-20, 60), min_size=1, max_size=30),
    cut=st.integers(0, 30),
    good_readings=st.integers(1, 4),
)
@example(margins=[30.0, 15.0, 5.0, 15.0, 30.0], cut=2, good_readings=2)
def test_judging_at_once_or_in_two_parts_answers_the_same(
    margins: list[float], cut: int, good_readings: int
) -> None:
    """How often somebody looks does not change what the gate says."""
    limits = GateConfig(good_readings=good_readings)
    readings = [make_reading(read_at_s=at, margin_c=m) for at, m in enumerate(margins)]
    now_s = readings[-1].read_at_s
    at_once = gate.judge(make_survey(*readings), GateState(), limits, now_s)
    _, half = gate.judge(make_survey(*readings[:cut]), GateState(), limits, now_s)
    in_parts = gate.judge(make_survey(*readings[cut:]), half, limits, now_s)
    assert at_once == in_parts


@given(margins=st.lists(st.floats(10.01, 19.99), max_size=50), start_open=st.booleans())
def test_noise_between_the_margins_never_makes_it_flutter(
    margins: list[float], start_open: bool
) -> None:
    """However it trembles inside the band, the answer never changes."""
    state = OPEN if start_open else GateState()
    answers = set()
    for at_s, margin_c in enumerate(margins):
        decision, state = judge_one(make_reading(read_at_s=at_s, margin_c=margin_c), state)
        answers.add(decision.yes)
    assert answers <= {start_open}


@given(margins=st.lists(st.floats(-20, 60), max_size=60))
def test_transitions_are_bounded_by_journeys_across_the_band(margins: list[float]) -> None:
    """Two transitions always have a whole crossing of the band between them."""
    state, was_open, changes = GateState(), False, 0
    for at_s, margin_c in enumerate(margins):
        reading = make_reading(read_at_s=at_s, margin_c=margin_c)
        decision, state = judge_one(reading, state, dwell_s=0)
        changes += decision.yes is not was_open
        was_open = decision.yes
    sides = [m >= 20 for m in margins if m <= 10 or m >= 20]
    crossings = sum(a is not b for a, b in zip([False, *sides], sides, strict=False))
    assert changes == crossings


@given(
    st.builds(
        make_reading,
        read_at_s=st.floats(),
        temperature_c=st.none() | st.floats(),
        margin_c=st.none() | st.floats(),
        power_w=st.none() | st.floats(),
        throttle_reasons=st.none() | st.text(),
    ),
    st.floats(),
)
def test_whatever_is_read_is_answered_and_a_yes_has_earned_it(reading: Any, now_s: float) -> None:
    """No input makes it raise; a yes is always fresh, finite, plausible and cool."""
    decision, state = judge_one(reading, OPEN, now_s=now_s)
    assert decision.because
    pickle.loads(pickle.dumps(state))
    if decision.yes:
        latest = state.device("GPU-a").latest
        assert latest is not None
        assert 0 <= now_s - latest.read_at_s <= 60
        assert latest.margin_c is not None
        assert latest.margin_c > 10


@pytest.mark.parametrize(
    ("asked_at", "position", "replayed", "expected"),
    [(-1, 0, True, True), (99, 100, True, True), (100, 100, True, False), (100, 100, False, True)],
)
def test_at_one_position_a_recorded_trace_is_asked_once(
    asked_at: int, position: int, replayed: bool, expected: bool
) -> None:
    """Live readings move on by themselves; a no repeats why the request was put off."""
    decision = gate.asks_again(asked_at, position, replayed, "it is warm", "too_warm")
    assert (expected, "gate") == (decision.yes, decision.question)
    assert {"cause": "too_warm"} == decision.facts
    if not expected:
        told = "it is warm (the trace says the same until more is learned)"
        assert told == decision.because
