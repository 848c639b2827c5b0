"""Placing a job: which device takes it, and what is said where none does."""

from __future__ import annotations

import math
from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from observability.core.decision import Decision
from power.core.gate_config import GateConfig
from power.forecast import forecast
from power.forecast.config import ForecastConfig
from power.forecast.forecast import ThermalState
from power.forecast.job_profile import Job
from power.policy import admission, deadline, gate
from power.policy.gate import DeviceState, GateResult, GateState
from tests.power.forecast.test_forecast import KNOWN, LIFE, NOW_S, SHORT, followed, make_life
from tests.power.makers import BETWEEN_C, COOL_C, HOT_C, make_reading, make_survey

LIMITS, RULES = GateConfig(), ForecastConfig()
HEAVY = Job(power_w=690, seconds=4_000)
"""More than the plant of `KNOWN` can take."""


def looked(**margins_c: float | None) -> GateResult:
    """What the gate says of devices a, b, ... with these margins."""
    readings = [
        make_reading(uuid=f"GPU-{name}", margin_c=margin_c) for name, margin_c in margins_c.items()
    ]
    return gate.judge(make_survey(*readings), GateState(), LIMITS, 0.0)


def placed(
    gated: GateResult, leased: Mapping[str, str] | None = None, limits: GateConfig = LIMITS
) -> Decision:
    """The placement of a job of which nothing is known."""
    return admission.judge(gated, {}, None, limits, RULES, 0.0, leased or {})


def foretold(job: Job, **knobs: float) -> Decision:
    """The placement of a job on the device that is known."""
    reading = LIFE.readings[-1]
    gated = gate.judge(make_survey(reading), GateState(), LIMITS, NOW_S)
    rules = ForecastConfig(**knobs)
    return admission.judge(gated, {reading.uuid: KNOWN}, job, LIMITS, rules, NOW_S, {})


def test_of_several_open_devices_the_one_with_the_most_headroom_is_chosen() -> None:
    """And the answer says of how many it is the best."""
    decision = placed(looked(a=COOL_C, b=COOL_C + 5, c=HOT_C))
    assert (True, "GPU-b", COOL_C + 5) == (
        decision.yes,
        decision.facts["uuid"],
        decision.facts["headroom_c"],
    )
    assert "the best of 3 devices, 0 of them leased" in decision.because


def test_a_leased_device_is_not_counted_on() -> None:
    """Its headroom is another job's: the next best one is chosen, though it is warmer."""
    decision = placed(looked(a=COOL_C, b=COOL_C + 5), {"GPU-b": "elec2"})
    assert (True, "GPU-a", 1) == (
        decision.yes,
        decision.facts["uuid"],
        decision.facts["devices_leased"],
    )


def test_where_all_that_would_take_it_are_leased_it_says_by_whom() -> None:
    """Cool and taken is a no with the holder's name."""
    decision = placed(looked(a=COOL_C), {"GPU-a": "prices (process 7)"})
    assert not decision.yes
    assert "GPU-a would take it and is leased to prices (process 7)" in decision.because


def test_a_free_hot_device_is_told_of_rather_than_a_leased_cool_one() -> None:
    """What is waited for is the device that may become free of heat."""
    decision = placed(looked(a=HOT_C, b=COOL_C), {"GPU-b": "prices"})
    assert (False, "GPU-a") == (decision.yes, decision.facts["uuid"])


@pytest.mark.parametrize("driver", ["absent", "unreadable"])
def test_where_no_device_was_looked_at_the_gates_answer_stands(driver: str) -> None:
    """A machine without a driver has no device to place a job on."""
    gated = gate.judge(make_survey(driver=driver), GateState(), LIMITS, 0.0)
    decision = placed(gated)
    assert (gated.decision.yes, gated.decision.because) == (decision.yes, decision.because)
    assert (None, "admission") == (decision.facts["uuid"], decision.question)


def test_a_gate_that_is_off_places_nothing_and_says_yes() -> None:
    """Nothing is read, nothing is chosen."""
    gated = gate.judge(make_survey(make_reading()), GateState(), GateConfig(source="off"), 0.0)
    assert (True, None) == (placed(gated).yes, placed(gated).facts["uuid"])


def test_only_the_named_device_counts() -> None:
    """`uuid` in [gate] names it, however cool the others are."""
    limits = GateConfig(uuid="GPU-a")
    readings = [make_reading(margin_c=HOT_C), make_reading(uuid="GPU-b")]
    gated = gate.judge(make_survey(*readings), GateState(), limits, 0.0)
    decision = placed(gated, limits=limits)
    assert (False, "GPU-a", 1) == (decision.yes, decision.facts["uuid"], decision.facts["devices"])


def test_a_forecast_that_says_no_says_when_it_would_say_yes() -> None:
    """The seconds are among the facts, for whoever comes back by itself."""
    # Half a minute after the load fell from high to idle.
    reading = LIFE.readings[455]
    known = {reading.uuid: followed(*LIFE.readings[:456])}
    gated = gate.judge(make_survey(reading), GateState(), LIMITS, reading.read_at_s)
    rules = ForecastConfig(keep_margin_c=16.0)
    no = admission.judge(gated, known, SHORT, LIMITS, rules, reading.read_at_s, {})
    assert not no.yes
    again_in_s = no.facts["again_in_s"]
    assert isinstance(again_in_s, float)
    assert 10 < again_in_s < 60
    assert f"it is enough in about {again_in_s:.0f} s" in no.because


def test_a_job_that_no_wait_makes_safe_begins_at_rest() -> None:
    """It would else be put off for ever: at rest it begins, and is watched; warm it still waits."""
    idle = make_life(load=0.0)
    reading, rules = idle.readings[-1], ForecastConfig(min_checks=1, max_standard_error_c=100)
    known = {reading.uuid: KNOWN.model_copy(update={"model": followed(*idle.readings).model})}
    gated = gate.judge(make_survey(reading), GateState(), LIMITS, reading.read_at_s)
    at_rest = admission.judge(gated, known, HEAVY, LIMITS, rules, reading.read_at_s, {})
    assert (True, True) == (at_rest.yes, at_rest.facts["rest"])
    assert "no wait makes it better, and the device is at rest" in at_rest.because
    warm = LIFE.readings[455]
    known = {warm.uuid: followed(*LIFE.readings[:456])}
    cool_enough = GateConfig(resume_margin_c=12.0)
    gated = gate.judge(make_survey(warm), GateState(), cool_enough, warm.read_at_s)
    waits = admission.judge(gated, known, HEAVY, cool_enough, RULES, warm.read_at_s, {})
    assert (False, False) == (waits.yes, waits.facts["rest"])
    assert "it may begin with the device at rest" in waits.because
    rest = forecast.at_rest(known[warm.uuid], cool_enough, RULES, warm.read_at_s)
    assert rest.facts["rest_in_s"] == waits.facts["again_in_s"] != 0.0


def test_a_device_that_only_the_gate_keeps_closed_has_no_time_to_come_back() -> None:
    """The forecast would let the job in at once: it says nothing of when the gate will."""
    reading = LIFE.readings[-1].model_copy(update={"throttle_reasons": "hw_thermal_slowdown"})
    gated = gate.judge(make_survey(reading), GateState(), LIMITS, NOW_S)
    no = admission.judge(gated, {reading.uuid: KNOWN}, SHORT, LIMITS, RULES, NOW_S, {})
    assert (False, True, 0.0, None) == (
        no.yes,
        no.facts["forecast"],
        no.facts["forecast_ready_in_s"],
        no.facts["again_in_s"],
    )


def test_a_trusted_yes_does_not_end_a_dwell() -> None:
    """Between the margins a forecast opens, but not a device that closed a moment ago."""
    reading = LIFE.readings[-1].model_copy(update={"margin_c": BETWEEN_C})
    says = foretold(SHORT)
    for closed_s, yes in ((5.0, False), (50.0, True)):
        device = DeviceState(
            uuid=reading.uuid,
            latest=reading,
            trusted=reading,
            closed_at_s=NOW_S - closed_s,
            why="its margin is between",
        )
        gated = GateResult(
            gate.device_decision(device, LIMITS, NOW_S), GateState(devices=(device,))
        )
        trusted = says.model_copy(update={"yes": True, "facts": {"trusted": True}})
        assert yes is admission.admit(gated, trusted, LIMITS).yes


def test_a_job_is_never_planned_into_the_margin_in_which_it_would_be_paused() -> None:
    """keep_margin_c below the gate's pause margin counts as the pause margin."""
    decision = foretold(HEAVY, keep_margin_c=-50.0)
    assert LIMITS.pause_margin_c == decision.facts["forecast_keep_margin_c"]


def test_a_foretold_device_comes_before_one_that_the_thermostat_alone_vouches_for() -> None:
    """A margin of now is no headroom at the job's hottest moment."""
    known = LIFE.readings[-1]
    other = make_reading(uuid="GPU-z", margin_c=99.0, read_at_s=NOW_S)
    gated = gate.judge(make_survey(known, other), GateState(), LIMITS, NOW_S)
    decision = admission.judge(gated, {known.uuid: KNOWN}, SHORT, LIMITS, RULES, NOW_S, {})
    assert (True, known.uuid) == (decision.yes, decision.facts["uuid"])


def test_what_begins_all_the_same_keeps_the_no_that_it_overrules() -> None:
    """Both reasons are told, and the placement stays."""
    no = placed(looked(a=HOT_C))
    why = deadline.at_deadline(math.inf, GateConfig(at_deadline="run"))
    decision = admission.force_admit(no, why)
    assert (True, "GPU-a", False) == (
        decision.yes,
        decision.facts["uuid"],
        decision.facts["admission"],
    )
    assert why.because in decision.because
    assert no.because in decision.because


@given(
    margins_c=st.lists(st.none() | st.floats(-30, 90), min_size=1, max_size=5),
    leased=st.sets(st.integers(0, 4)),
)
def test_a_yes_names_an_open_device_that_nobody_has(
    margins_c: list[float | None], leased: set[int]
) -> None:
    """Never a hot, unknown or leased one, whatever the others are; a no where there is none."""
    gated = looked(**{str(n): margin_c for n, margin_c in enumerate(margins_c)})
    taken = {f"GPU-{n}": "somebody" for n in leased}
    decision = placed(gated, taken)
    cool = {
        f"GPU-{n}"
        for n, margin_c in enumerate(margins_c)
        if margin_c is not None and margin_c >= 20 and n not in leased
    }
    assert bool(cool) is decision.yes
    if decision.yes:
        assert decision.facts["uuid"] in cool


def test_between_the_margins_a_closed_device_takes_no_unknown_job() -> None:
    """Without a forecast the thermostat's memory decides."""
    assert not placed(looked(a=BETWEEN_C)).yes


def test_an_unknown_device_is_known_as_nothing() -> None:
    """A device that was never learned of has a fresh model, which is not trusted."""
    (candidate,) = admission.candidates(
        looked(a=COOL_C), {"GPU-b": ThermalState()}, SHORT, LIMITS, RULES, 0.0
    )
    assert (False, None) == (candidate.by_forecast, candidate.ready_in_s)


def test_a_device_that_was_given_back_is_told_with_its_cause() -> None:
    """It is a no to a job that had begun."""
    decision = admission.given_back("paused for 900 s", "too_warm")
    assert (False, "guard", "paused for 900 s") == (
        decision.yes,
        decision.question,
        decision.because,
    )
    assert {"cause": "too_warm"} == decision.facts


@pytest.mark.parametrize(("paused_s", "keeps"), [(0.0, True), (899.0, True), (900.0, False)])
def test_a_fit_that_waits_keeps_its_device_up_to_the_longest_pause(
    paused_s: float, keeps: bool
) -> None:
    """The gate's cause is that of the no, too."""
    closed = Decision(question="gate", yes=False, because="too warm", facts={"cause": "too_warm"})
    decision = admission.keeps_device(0.5, paused_s, closed, GateConfig(max_pause_s=900.0))
    assert (keeps, "guard", "too_warm") == (
        decision.yes,
        decision.question,
        decision.facts["cause"],
    )
    assert decision.because.startswith(f"a fit that was 50% done paused for {paused_s:.0f} s")
