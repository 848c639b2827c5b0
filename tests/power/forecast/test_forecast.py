"""The forecast's judge: jobs, errors, trust, the answer, and what it may do to the gate's."""

from __future__ import annotations

import json
import math
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from observability.core.decision import Decision
from power.core.device_readings import DeviceReading
from power.core.gate_config import GateConfig
from power.forecast import forecast, job_profile, thermal_model
from power.forecast.config import ForecastConfig
from power.forecast.forecast import ThermalState
from power.forecast.job_profile import Job, JobProfile
from power.forecast.thermal_model import ThermalModel
from power.policy import admission, gate
from power.policy.gate import GateResult, GateState
from power.simulation import simulated_device
from power.simulation.simulated_device import PRESETS, Plant, Sensors
from tests.power.makers import BETWEEN_C, COOL_C, HOT_C, make_reading, make_survey

LIMITS = GateConfig(max_age_s=60)
RULES = ForecastConfig()
LIQUID = PRESETS["liquid"].model_copy(update={"swing_c": 0.0})
SHORT, LONG = Job(power_w=500, seconds=20), Job(power_w=690, seconds=2_000)


def followed(
    *readings: DeviceReading, known: ThermalState | None = None, **rules: Any
) -> ThermalState:
    """What is known after the readings."""
    known = known or ThermalState()
    for reading in readings:
        known = forecast.learn(known, reading, LIMITS, ForecastConfig(**rules)).known
    return known


class Life(NamedTuple):
    """What a plant went through."""

    body: simulated_device.Body
    readings: tuple[DeviceReading, ...]


def make_life(seconds: int = 3_000, load: float | None = None) -> Life:
    """A plant's life under a changing load, or a constant one, read every 5 s."""
    one = Plant(LIQUID, np.random.default_rng(0), Sensors(noise_c=0.5))
    loads = np.random.default_rng(2).choice([0.0, 0.3, 0.6, 0.8], size=1 + seconds // 150)
    readings = tuple(
        one.advance(5, load=float(loads[at_s // 150]) if load is None else load)
        for at_s in range(0, seconds, 5)
    )
    return Life(one.body, readings)


LIFE = make_life()
KNOWN = followed(*LIFE.readings)
NOW_S = LIFE.body.at_s


def judged(
    job: Job | None = SHORT, known: ThermalState = KNOWN, now_s: float = NOW_S, **rules: Any
) -> Decision:
    """The forecast's answer for a job on a device that is known well."""
    return forecast.judge(known, job, LIMITS, ForecastConfig(**rules), now_s)


def idle(known: ThermalState = KNOWN, for_s: int = 60) -> ThermalState:
    """The same device after it idled on."""
    body = LIFE.body
    for _ in range(for_s // 5):
        body = simulated_device.advanced(LIQUID, body, 5, 0.0, None)
        told = make_reading(
            read_at_s=body.at_s, margin_c=LIQUID.slowdown_c - body.die_c, power_w=LIQUID.idle_w
        )
        known = followed(told, known=known)
    return known


def again(later_s: float, **changes: Any) -> DeviceReading:
    """The last reading of the life, said once more so many seconds later."""
    said = {"read_at_s": NOW_S + later_s, "energy_j": None}
    return LIFE.readings[-1].model_copy(update=said | changes)


def gated(margin_c: float | None, state: GateState | None = None, **overrides: Any) -> GateResult:
    """The gate's answer to one reading of GPU-a, now."""
    reading = make_reading(read_at_s=NOW_S, margin_c=margin_c, **overrides)
    return gate.judge(make_survey(reading), state or GateState(), LIMITS, NOW_S)


def says(yes: bool, trusted: bool = True) -> Decision:
    """A forecast's answer."""
    return Decision(
        question="forecast", yes=yes, because="the forecast's reason", facts={"trusted": trusted}
    )


def test_a_job_that_fits_may_begin_and_the_answer_tells_its_numbers() -> None:
    """Margin with its error, when it is lowest, the job, and how good forecasts were."""
    known = idle()
    decision = judged(known=known, now_s=NOW_S + 60)
    assert (True, "forecast", True, 0.0) == (
        decision.yes,
        decision.question,
        decision.facts["trusted"],
        decision.facts["ready_in_s"],
    )
    assert {"job_power_w": 500.0, "job_seconds": 20.0, "keep_margin_c": RULES.keep_margin_c} == {
        name: decision.facts[name] for name in ("job_power_w", "job_seconds", "keep_margin_c")
    }
    told = f"{decision.facts['margin_c']:.1f} ± {decision.facts['standard_error_c']:.1f} °C after "
    assert told + "20 s of a job of 500 W" in decision.because
    rmse_c = decision.facts["rmse_300_s_c"]
    assert isinstance(rmse_c, float)
    assert 0 < rmse_c < 1.5


def test_what_was_foretold_of_a_job_comes() -> None:
    """The margin at the end of a real job is within three standard errors of the forecast."""
    known = idle()
    body = simulated_device.advanced(LIQUID, LIFE.body, 60, 0.0, None)
    job = Job(power_w=600, seconds=120)
    load = (600 - LIQUID.idle_w) / (LIQUID.full_w - LIQUID.idle_w)
    came = simulated_device.advanced(LIQUID, body, 120, load, None)
    told = forecast.forecast(known.model, job, RULES)
    assert 120 == pytest.approx(told.lowest_at_s)
    off_c = abs(told.margin_c - (LIQUID.slowdown_c - came.die_c))
    assert off_c <= max(3 * told.standard_error_c, 0.1)


def test_a_job_that_does_not_fit_now_is_told_when_it_will() -> None:
    """And once that time has passed idle, the answer is yes."""
    known, now_s = idle(for_s=10), NOW_S + 10
    job = Job(power_w=690, seconds=120)
    decision = judged(job, known, now_s)
    assert not decision.yes
    wait_s = decision.facts["ready_in_s"]
    assert isinstance(wait_s, float)
    assert 5 <= wait_s < 1_000
    assert f"it is enough in about {wait_s:.0f} s" in decision.because
    assert "while it draws 70 W" in decision.because
    # The wait is told to about a fifth, and the device is a little off its model.
    later_s = 5 * (1 + int(1.5 * wait_s / 5)) + 10
    assert judged(job, idle(for_s=later_s), NOW_S + later_s).yes


def test_a_job_that_no_wait_makes_fit_is_told_so() -> None:
    """Too hot for the device, or a neighbour keeps it warm."""
    decision = judged(LONG)
    assert (False, None, True) == (
        decision.yes,
        decision.facts["ready_in_s"],
        decision.facts["trusted"],
    )
    assert "it is not enough within 3600 s" in decision.because


@given(st.floats(0, 800), st.floats(1, 3_000), st.floats(0, 60), st.floats(0, 3), st.floats(0, 20))
@settings(deadline=None, max_examples=60)
def test_it_never_says_ready_where_its_own_model_says_too_hot(
    power_w: float, seconds: float, spread_w: float, errors: float, keep_c: float
) -> None:
    """At the promised moment, and now where it says now, the sure margin is kept throughout."""
    rules = ForecastConfig(standard_errors=errors, keep_margin_c=keep_c)
    job = Job(power_w=power_w, seconds=seconds, power_spread_w=spread_w)
    model = KNOWN.model
    told = forecast.forecast(model, job, rules)
    assert (told.ready_in_s == 0.0) is (told.sure_margin_c >= keep_c)
    assert told.sure_margin_c <= told.margin_c - errors * told.standard_error_c + 1e-9
    assert 0 <= told.lowest_at_s <= seconds + 1e-6
    if told.ready_in_s is not None:
        seen = thermal_model.outlook(
            model,
            thermal_model.estimate(model),
            (model.power_w, power_w),
            spread_w,
            np.array([told.ready_in_s]),
            np.linspace(0, seconds, 50),
            rules.thermal,
        )
        assert np.min(seen.margin_c - errors * seen.standard_error_c) >= keep_c - 0.5


@given(st.floats(0, 800), st.floats(0, 800), st.floats(1, 3_000))
@settings(deadline=None, max_examples=60)
def test_a_heavier_job_is_never_foretold_to_leave_more(
    least_w: float, more_w: float, seconds: float
) -> None:
    """The lowest margin falls with power."""
    least_w, more_w = sorted((least_w, more_w))
    lighter, heavier = (
        forecast.forecast(KNOWN.model, Job(power_w=power_w, seconds=seconds), RULES)
        for power_w in (least_w, more_w)
    )
    assert lighter.margin_c >= heavier.margin_c - 1e-9


def test_a_job_of_uncertain_length_is_taken_for_longer() -> None:
    """By as many standard errors of its length as the margin stays clear by."""
    rules = ForecastConfig(standard_errors=2)
    told = forecast.forecast(KNOWN.model, Job(power_w=690, seconds=100, seconds_spread=30), rules)
    assert 160 == pytest.approx(told.lowest_at_s)


def test_a_device_never_read_has_no_forecast() -> None:
    """The function refuses; the judge answers no."""
    with pytest.raises(ValueError, match="never read"):
        forecast.forecast(ThermalModel(), SHORT, RULES)
    decision = judged(known=ThermalState())
    assert (False, False, None) == (
        decision.yes,
        decision.facts["trusted"],
        decision.facts["age_s"],
    )
    assert "no power together with a margin" in decision.because


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"now_s": NOW_S + 61}, "its last reading is 61.0 s old, must be 0 to 60 s"),
        ({"now_s": NOW_S - 1}, "its last reading is -1.0 s old"),
        ({"now_s": math.nan}, "its last reading is nan s old"),
        ({"min_readings": 601}, "600 of 601 readings that it needs"),
        ({"job": None}, "no run of this job has been measured yet"),
        ({"max_error_c": 0.1}, "over 60 s were off by"),
        ({"min_checks": 1_000}, "of 1000 forecasts over 60 s that it needs"),
        ({"max_standard_error_c": 0.01}, "too unsure, at most ± 0.01 °C would do"),
    ],
)
def test_what_is_not_good_enough_is_not_trusted_and_says_why(
    changes: dict[str, Any], expected: str
) -> None:
    """Every missing piece is a no with its own words."""
    decision = judged(**changes)
    assert (False, False) == (decision.yes, decision.facts["trusted"])
    assert decision.because.startswith("the forecast is not trusted: ")
    assert expected in decision.because


@pytest.mark.parametrize("lost", [{"power_w": None}, {"margin_c": None}, {"margin_c": -60.0}])
def test_a_reading_that_is_missing_or_does_not_fit_unsettles_it(lost: dict[str, Any]) -> None:
    """It is trusted again after so many sound readings in a row."""
    broken = followed(again(1, **lost), known=KNOWN)
    told = judged(known=broken, now_s=NOW_S + 1)
    assert "0 of 5 readings in a row since one was missing or did not fit" in told.because
    sound = [again(1 + at) for at in range(1, 6)]
    four, five = followed(*sound[:4], known=broken), followed(*sound, known=broken)
    assert judged(known=four, now_s=NOW_S + 5).facts["trusted"] is False
    assert judged(known=five, now_s=NOW_S + 6).facts["trusted"] is True


def test_a_short_job_needs_no_proof_of_long_forecasts() -> None:
    """Up to the shortest horizon that one alone counts; beyond it, all do."""
    worse = KNOWN.errors[1].model_copy(update={"mean_square_c2": 100.0})
    known = KNOWN.model_copy(update={"errors": (KNOWN.errors[0], worse)})
    assert judged(Job(power_w=100, seconds=60), known).facts["trusted"]
    decision = judged(Job(power_w=100, seconds=61), known)
    assert "over 300 s were off by 10.0 °C, must be at most 2.5 °C" in decision.because


def test_trust_says_how_good_the_forecasts_were() -> None:
    """The error is shown per horizon, with the number of checks."""
    trust = forecast.trusted(KNOWN, SHORT, LIMITS, RULES, NOW_S)
    assert (True, "forecast_trust") == (trust.yes, trust.question)
    assert f"{KNOWN.errors[0].rmse_c:.1f} °C over 60 s" in trust.because
    assert KNOWN.errors[1].checks == trust.facts["checks_300_s"]


def test_forecasts_are_checked_when_their_moment_has_come() -> None:
    """One every ten seconds, against the first reading from the horizon on."""
    readings = LIFE.readings
    known = followed(*readings[:300], remember_checks=1_000)
    (at_60, at_300) = known.errors
    # Of long forecasts it was sure later, and each takes four minutes more to come true.
    assert 24 <= at_60.checks - at_300.checks < 100
    assert 10 < at_300.checks
    assert {6.0, 30.0} == {float(len(each.pending)) for each in known.errors}
    assert 10 == at_60.pending[1].made_s - at_60.pending[0].made_s


def test_the_error_is_that_of_the_forecasts() -> None:
    """A reading that is 4 degrees off what was foretold is an error of 4 degrees."""
    one = KNOWN.errors[0].model_copy(update={"checks": 0, "mean_square_c2": 0.0})
    known = KNOWN.model_copy(update={"errors": (one,)})
    told_c = LIFE.readings[-1].margin_c
    assert told_c is not None
    sound = followed(again(5), known=known)
    shifted = followed(again(5, margin_c=told_c - 4), known=known)
    assert 1 == sound.errors[0].checks == shifted.errors[0].checks
    sound_c, shifted_c = sound.errors[0].rmse_c, shifted.errors[0].rmse_c
    assert sound_c is not None
    assert shifted_c is not None
    assert abs(shifted_c - 4) == pytest.approx(sound_c, abs=0.01)


def test_the_running_error_spans_the_newest_checks() -> None:
    """A bad beginning is forgotten after about so many checks."""
    bad = KNOWN.errors[0].model_copy(update={"checks": 100, "mean_square_c2": 400.0})
    known = KNOWN.model_copy(update={"errors": (bad, KNOWN.errors[1])})
    life = make_life(1_500)
    readings = [
        each.model_copy(update={"read_at_s": each.read_at_s + NOW_S}) for each in life.readings
    ]
    errors = followed(*readings, known=known, remember_checks=10).errors[0]
    assert errors.rmse_c is not None
    assert errors.rmse_c < 3


def test_an_idle_device_proves_nothing() -> None:
    """That nothing changes is easily foretold: no forecast is noted before load was seen."""
    known = followed(*make_life(1_000, load=0.0).readings)
    assert [0, 0] == [each.checks for each in known.errors]
    told = forecast.judge(known, SHORT, LIMITS, RULES, 1_000)
    assert (False, False) == (told.yes, told.facts["trusted"])


def test_one_spike_of_a_sensor_is_no_error_of_the_forecast() -> None:
    """But the same spike said three times in a row is."""
    last = LIFE.readings[-1]
    spikes = [
        last.model_copy(update={"read_at_s": NOW_S + 5 * at, "margin_c": -40.0}) for at in (1, 2, 3)
    ]
    checks = [
        followed(*spikes[:many], known=KNOWN).errors[0].checks - KNOWN.errors[0].checks
        for many in (1, 2, 3)
    ]
    assert checks[:2] == [0, 0]
    assert checks[2] > 0


def test_a_stuck_sensor_loses_the_trust() -> None:
    """It tells a cool device for ever; the load says otherwise, and the errors grow."""
    loads = [600.0] * 40 + [70.0] * 40
    readings = [again(5 * at, power_w=watts) for at, watts in enumerate(loads, start=1)]
    known = followed(*readings, known=KNOWN)
    assert not forecast.judge(known, SHORT, LIMITS, RULES, NOW_S + 400).facts["trusted"]


def test_after_a_silence_old_forecasts_are_not_held_against_it() -> None:
    """What was in the device is unknown again; trust in the model's errors remains."""
    woken = followed(again(5_000), known=KNOWN)
    assert [0, 0] == [len(each.pending) for each in woken.errors]
    assert [each.checks for each in KNOWN.errors] == [each.checks for each in woken.errors]


def test_a_forecast_checked_far_too_late_is_dropped() -> None:
    """A reading after 200 s checks no forecast over 60 s."""
    known = followed(again(200), known=KNOWN, thermal={"gap_s": 600.0})
    assert KNOWN.errors[0].checks == known.errors[0].checks
    assert len(known.errors[0].pending) <= 1


@given(st.lists(st.integers(0, 60), max_size=4))
@settings(deadline=None, max_examples=15)
def test_it_does_not_matter_where_the_process_was_cut(cuts: list[int]) -> None:
    """JSON between any two readings changes nothing, neither model nor errors."""
    readings = LIFE.readings[:140]
    kept = ThermalState()
    for number, reading in enumerate(readings):
        kept = followed(reading, known=kept)
        if number - 70 in cuts:
            kept = ThermalState.model_validate_json(json.dumps(kept.model_dump(mode="json")))
    assert followed(*readings) == kept


def test_a_profile_is_the_mean_and_the_spread_of_its_runs() -> None:
    """Of many runs nearly the sample's; a fresh one expects nothing."""
    assert JobProfile().job() is None
    profile = JobProfile()
    for watts in [290.0, 310.0] * 40:
        profile = job_profile.learn_job(
            profile, watts, watts - 190, ForecastConfig(remember_runs=1_000)
        )
    job = profile.job()
    assert job is not None
    assert 80 == profile.runs
    assert 300 == pytest.approx(job.power_w)
    assert 110 == pytest.approx(job.seconds)
    assert 10 == pytest.approx(job.power_spread_w, rel=0.05)
    assert 10 == pytest.approx(job.seconds_spread, rel=0.05)


def test_one_run_is_not_taken_for_all() -> None:
    """After a single run its numbers are expected, with a spread that it did not show."""
    job = job_profile.learn_job(JobProfile(), 300.0, 100.0, RULES).job()
    assert job is not None
    assert (300.0, 100.0) == (job.power_w, job.seconds)
    assert 5 < job.power_spread_w < 15


def test_a_profile_follows_a_job_that_changes() -> None:
    """It spans about the newest runs: thirty later it has moved over."""
    profile = JobProfile()
    for watts in [100.0] * 50 + [300.0] * 30:
        profile = job_profile.learn_job(profile, watts, 60, ForecastConfig(remember_runs=5))
    assert 300 == pytest.approx(profile.mean_w, abs=1)


@pytest.mark.parametrize("watts", [None, math.nan, math.inf, -1.0, 1e6])
@pytest.mark.parametrize("learn", [job_profile.learn_job, job_profile.learn_capped])
def test_a_run_that_was_not_measured_teaches_nothing(watts: float | None, learn: Any) -> None:
    """Neither unknown power nor unknown length enters a profile."""
    profile = job_profile.learn_job(JobProfile(), 300.0, 100.0, RULES)
    assert profile == learn(profile, watts, 100.0, RULES)
    for seconds in (None, math.nan, math.inf, 0.0, -5.0):
        assert profile == learn(profile, 200.0, seconds, RULES)


def test_a_capped_job_takes_longer_by_at_most_the_cut() -> None:
    """Unless it is known better; a cap above its power changes nothing."""
    job = Job(power_w=400, seconds=100, power_spread_w=20, seconds_spread=5)
    assert job == job.capped(400)
    worst, known = job.capped(100), job.capped(100, 0.5)
    assert (100, 400, 0, 20) == (
        worst.power_w,
        worst.seconds,
        worst.power_spread_w,
        worst.seconds_spread,
    )
    assert 200 == pytest.approx(known.seconds)
    assert 31_536_000 == Job(power_w=2e4, seconds=3e7).capped(0).seconds


def test_what_a_cap_costs_is_learned_from_capped_runs() -> None:
    """Half the power, and time longer by a quarter: the exponent comes down towards that."""
    profile = job_profile.learn_job(JobProfile(), 400.0, 100.0, RULES)
    assert 1.0 == profile.cap_exponent
    for _ in range(30):
        profile = job_profile.learn_capped(profile, 200.0, 125.0, RULES)
    assert math.log(1.25) / math.log(2) == pytest.approx(profile.cap_exponent, abs=0.1)
    assert (1, 30) == (profile.runs, profile.cap_runs)


def test_the_first_guess_of_a_caps_cost_counts_as_one_run() -> None:
    """One capped run alone does not overthrow it; one outside 0 to 1 counts as its bound."""
    profile = job_profile.learn_job(JobProfile(), 400.0, 100.0, RULES)
    assert 0.5 == pytest.approx(job_profile.learn_capped(profile, 200, 100, RULES).cap_exponent)
    assert 0.5 == pytest.approx(job_profile.learn_capped(profile, 200, 50, RULES).cap_exponent)
    assert 1.0 == pytest.approx(job_profile.learn_capped(profile, 200, 900, RULES).cap_exponent)


def test_a_capped_run_that_shows_no_cut_teaches_nothing_of_caps() -> None:
    """Nor does one of a job that never ran without a cap."""
    profile = job_profile.learn_job(JobProfile(), 400.0, 100.0, RULES)
    assert profile == job_profile.learn_capped(profile, 399.0, 100.0, RULES)
    assert profile == job_profile.learn_capped(profile, 0.0, 100.0, RULES)
    assert JobProfile() == job_profile.learn_capped(JobProfile(), 200.0, 100.0, RULES)


def test_rest_is_where_waiting_gains_little() -> None:
    """Warm from load it is not at rest; half an hour later it is."""
    warm = forecast.at_rest(idle(for_s=5), LIMITS, RULES, NOW_S + 5)
    rested = forecast.at_rest(idle(for_s=1_800), LIMITS, RULES, NOW_S + 1_800)
    assert (False, True) == (warm.yes, rested.yes)
    gain_c = warm.facts["gain_c"]
    assert isinstance(gain_c, float)
    assert f"waiting would cool it by {gain_c:.1f} °C more while it draws 70 W" in warm.because
    assert gain_c > 5


def test_rest_is_foretold() -> None:
    """At half of the time that was told it is not at rest yet, a little after it it is."""
    told = forecast.at_rest(idle(for_s=5), LIMITS, RULES, NOW_S + 5).facts["rest_in_s"]
    assert isinstance(told, float)
    for share, expected in ((0.5, False), (1.3, True)):
        for_s = 5 + 5 * round(told * share / 5)
        rest = forecast.at_rest(idle(for_s=for_s), LIMITS, RULES, NOW_S + for_s)
        assert expected is rest.yes
    assert rest.facts["rest_in_s"] == 0.0


def test_a_known_device_is_unsettled_until_it_was_read_some_times_again() -> None:
    """After a silence, and not before it was ever known, or where nobody asks the forecast."""
    silent = followed(again(500.0), known=KNOWN)
    settled = followed(*(again(501.0 + at) for at in range(RULES.settled_readings)), known=silent)
    asked = [(KNOWN, RULES), (silent, RULES), (settled, RULES), (ThermalState(), RULES)]
    assert [False, True, False, False] == [forecast.unsettled(*each) for each in asked]
    assert not forecast.unsettled(silent, ForecastConfig(enabled=False))


def test_rest_of_an_unknown_device_is_unknown() -> None:
    """No reading, or an old one: no, with the reason."""
    never = forecast.at_rest(ThermalState(), LIMITS, RULES, 0.0)
    stale = forecast.at_rest(KNOWN, LIMITS, RULES, NOW_S + 100)
    assert (False, False) == (never.yes, stale.yes)
    assert "no power together with a margin" in never.because
    assert "100.0 s old" in stale.because
    assert "gain_c" not in never.facts


OPEN_GATE = gated(COOL_C)


@pytest.mark.parametrize(
    ("gate_says", "forecast_says", "expected"),
    [
        (OPEN_GATE, says(True), True),
        (OPEN_GATE, says(False), False),
        (OPEN_GATE, says(False, trusted=False), True),
        (gated(BETWEEN_C), says(True), True),
        (gated(BETWEEN_C), says(False), False),
        (gated(BETWEEN_C), says(False, trusted=False), False),
        (gated(HOT_C), says(True), False),
        (gated(10.0), says(True), False),
        (gated(None), says(True), False),
        (gated(math.nan), says(True), False),
        (gated(BETWEEN_C, throttle_reasons="sw_thermal_slowdown"), says(True), False),
        (gated(BETWEEN_C, temperature_c=644_245_923.0), says(True), False),
    ],
)
def test_gate_and_forecast_together(
    gate_says: GateResult, forecast_says: Decision, expected: bool
) -> None:
    """The forecast vetoes, and opens between the margins; hot, unknown, slow stays closed."""
    decision = admission.admit(gate_says, forecast_says, LIMITS)
    assert (expected, "admission") == (decision.yes, decision.question)
    assert (gate_says.decision.yes, forecast_says.yes) == (
        decision.facts["gate"],
        decision.facts["forecast"],
    )


def test_a_stale_reading_between_the_margins_stays_closed() -> None:
    """The gate's age counts, whatever the forecast says."""
    state = gated(BETWEEN_C).state
    stale = gate.judge(make_survey(), state, LIMITS, NOW_S + 61)
    assert not admission.admit(stale, says(True), LIMITS)


def test_a_device_that_spoke_sense_before_and_nonsense_now_stays_closed() -> None:
    """The last plausible reading is not the last one."""
    state = gated(BETWEEN_C).state
    reading = make_reading(read_at_s=NOW_S + 1, margin_c=BETWEEN_C, power_w=-2.0)
    now = gate.judge(make_survey(reading), state, LIMITS, NOW_S + 1)
    assert not admission.admit(now, says(True), LIMITS)


@pytest.mark.parametrize("knob", ["go", "wait"])
def test_without_a_driver_the_gate_alone_decides(knob: Any) -> None:
    """There is no device whose heat could be foreseen."""
    limits = GateConfig(no_driver=knob)
    away = gate.judge(make_survey(driver="absent", because="none here"), GateState(), limits, NOW_S)
    decision = admission.admit(away, says(False), limits)
    assert (knob == "go") is decision.yes
    assert decision.because.startswith("no GPU driver (none here)")


def test_a_forecast_that_is_switched_off_is_not_trusted_and_says_so() -> None:
    """Then the thresholds decide alone, however good it was."""
    off = forecast.judge(KNOWN, SHORT, LIMITS, ForecastConfig(enabled=False), NOW_S)
    assert (False, False) == (off.yes, off.facts["trusted"])
    assert "enabled = false in [forecast]" in off.because


def test_each_reading_tells_which_forecasts_it_was_the_test_of() -> None:
    """What was foretold and what came, once each: they add up to the running error."""
    known, found = ThermalState(), list[forecast.ForecastCheck]()
    for reading in LIFE.readings:
        known, checked = forecast.learn(known, reading, LIMITS, RULES)
        found.extend(checked)
        assert not forecast.learn(known, reading, LIMITS, RULES).checked
    assert {60.0, 300.0} == {each.horizon_s for each in found}
    assert sum(each.checks for each in known.errors) == len(found)
    assert all(each.error_c == each.predicted_c - each.actual_c for each in found)
    rmse_c = math.sqrt(sum(each.error_c**2 for each in found) / len(found))
    assert rmse_c == pytest.approx(max(each.rmse_c or 0 for each in known.errors), abs=1.0)


def test_the_words_are_those_of_who_decided() -> None:
    """A veto says the forecast's reason; a closed gate its own; distrust both."""
    veto = admission.admit(OPEN_GATE, says(False), LIMITS)
    hot = admission.admit(gated(HOT_C), says(True), LIMITS)
    alone = admission.admit(OPEN_GATE, says(False, trusted=False), LIMITS)
    assert "the forecast's reason" == veto.because
    assert "at or below the pause margin" in hot.because
    assert alone.because.startswith("GPU-a is open")
    assert alone.because.endswith("(the forecast's reason)")


@pytest.mark.parametrize(
    "knobs",
    [{"keep_margin_c": 200}, {"min_checks": 0}, {"max_error_c": math.nan}, {"misspelt": 1}],
)
def test_knobs_out_of_bounds_are_refused(knobs: dict[str, Any]) -> None:
    """And so are unknown ones."""
    with pytest.raises(ValidationError):
        ForecastConfig(**knobs)


def test_a_job_without_a_length_or_with_a_power_that_cannot_be_is_refused() -> None:
    """What cannot be a job is no job."""
    for facts in ({"seconds": 0}, {"seconds": math.inf}, {"power_w": -1}, {"power_w": math.nan}):
        with pytest.raises(ValidationError):
            Job(**({"power_w": 100, "seconds": 10} | facts))


@pytest.mark.parametrize(
    ("paused_s", "resumed", "held", "why_not"),
    [
        (0.0, False, True, ""),
        (3.0, False, True, "it was paused for 3 s"),
        (0.0, True, True, "an earlier attempt"),
        (0.0, False, False, "its power limit was changed"),
    ],
)
def test_only_a_run_that_went_as_planned_says_how_long_such_a_job_takes(
    paused_s: float, resumed: bool, held: bool, why_not: str
) -> None:
    """What was paused, gone on with, or slowed down by others is not what a job takes."""
    decision = forecast.teaches(paused_s, resumed, held)
    assert (not why_not, "profile") == (decision.yes, decision.question)
    assert why_not in decision.because
