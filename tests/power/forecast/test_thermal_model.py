"""The thermal model of one device: what it learns, from what, and what it never learns from."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from power.core.device_readings import DeviceReading
from power.core.gate_config import GateConfig
from power.forecast import thermal_model
from power.forecast.thermal_model import TAU_S, ThermalConfig, ThermalModel
from power.simulation import simulated_device
from power.simulation.simulated_device import PRESETS, Plant, Sensors
from tests.power.makers import make_reading

LIMITS = GateConfig()
RULES = ThermalConfig()
EXACT = Sensors(noise_c=0, power_noise=0, whole_degrees=False)
STILL = PRESETS["liquid"].model_copy(update={"swing_c": 0.0})


def after(
    *readings: DeviceReading, model: ThermalModel | None = None, **rules: Any
) -> ThermalModel:
    """The model once it has seen the readings in turn."""
    model = model or ThermalModel()
    for reading in readings:
        model = thermal_model.learn(model, reading, LIMITS, ThermalConfig(**rules))
    return model


def lived(
    seconds: int = 3_000, sensors: Sensors = EXACT, seed: int = 0, every_s: float = 5.0
) -> list[DeviceReading]:
    """Readings of a liquid-cooled plant whose load changes every 200 s."""
    generator = np.random.default_rng(seed)
    one = Plant(STILL, generator, sensors)
    loads = np.random.default_rng(9).choice([0.0, 0.2, 0.5, 0.7], size=1 + seconds // 200)
    return [
        one.advance(every_s, load=float(loads[int(at * every_s) // 200]))
        for at in range(int(seconds / every_s))
    ]


def margins(
    model: ThermalModel, job_w: float, *moments_s: float, wait_s: float = 0.0
) -> list[float]:
    """Expected margins so long into a job of `job_w`, which begins after `wait_s`."""
    seen = thermal_model.outlook(
        model,
        thermal_model.estimate(model),
        (model.power_w, job_w),
        0.0,
        np.array([wait_s]),
        np.array(moments_s),
        RULES,
    )
    return [float(each) for each in seen.margin_c]


def standard_errors(
    model: ThermalModel, job_w: float, spread_w: float, wait_s: float, **rules: Any
) -> float:
    """The standard error after 300 s of a job."""
    seen = thermal_model.outlook(
        model,
        thermal_model.estimate(model),
        (model.power_w, job_w),
        spread_w,
        np.array([wait_s]),
        np.array([300.0]),
        ThermalConfig(**rules),
    )
    return float(seen.standard_error_c[0])


def test_a_device_that_was_watched_is_foreseen() -> None:
    """After 50 minutes of changing load, a heavier one than any before is told within a degree."""
    readings = lived()
    model = after(*readings)
    body = simulated_device.at_rest(STILL)
    one = Plant(STILL, np.random.default_rng(0), EXACT)
    for reading in readings:
        one.advance(5, load=(reading.utilization or 0) / 100)
    body = one.body
    for seconds, told_c in zip((60, 300), margins(model, 500.0, 60, 300), strict=True):
        load = (500 - STILL.idle_w) / (STILL.full_w - STILL.idle_w)
        came = simulated_device.advanced(STILL, body, seconds, load, None)
        assert told_c == pytest.approx(STILL.slowdown_c - came.die_c, abs=1.0)


def test_a_wait_cools_and_is_foreseen_too() -> None:
    """A job after ten idle minutes begins from a device that has cooled."""
    model = after(*lived(2_900))
    idle = after(
        *(each.model_copy(update={"power_w": STILL.idle_w}) for each in lived(2_900)[-1:]),
        model=model,
    )
    now_c, later_c = (margins(idle, 500.0, 60, wait_s=wait_s)[0] for wait_s in (0.0, 600.0))
    assert later_c > now_c


@pytest.mark.parametrize("load", [0.0, 0.4])
def test_a_constant_load_converges_to_its_steady_state(load: float) -> None:
    """Where nothing changes, the margin an hour on is the margin that is there."""
    one = Plant(STILL, np.random.default_rng(1), EXACT)
    model = after(*(one.advance(5, load=load) for _ in range(600)))
    steady_c = STILL.slowdown_c - one.body.die_c
    assert margins(model, model.power_w, 60, 3_600) == pytest.approx([steady_c] * 2, abs=0.3)


def test_a_warm_start_is_not_taken_for_a_warm_room() -> None:
    """First read while hot and idle: the heat is foreseen to leave, as it does."""
    warm = simulated_device.at_rest(STILL)._replace(die_c=70.0, sink_c=68.0)
    one = Plant(STILL, np.random.default_rng(1), EXACT, warm)
    model = after(*(one.advance(2, load=0.0) for _ in range(60)))
    came = simulated_device.advanced(STILL, one.body, 100, 0.0, None)
    assert margins(model, STILL.idle_w, 100)[0] == pytest.approx(
        STILL.slowdown_c - came.die_c, abs=3.0
    )


def test_noise_of_a_degree_is_averaged_out() -> None:
    """With noisy whole degrees it foresees the true device nearly as well."""
    readings = lived(6_000, Sensors(), seed=4)
    model = after(*readings)
    exact = after(*lived(6_000, EXACT, seed=4))
    assert margins(model, 500.0, 60, 300) == pytest.approx(margins(exact, 500.0, 60, 300), abs=1.0)


@given(st.integers(0, 20), st.floats(0, 900), st.floats(0, 900), st.floats(0, 600))
@settings(deadline=None)
def test_more_power_never_leaves_more_margin(
    seed: int, least_w: float, more_w: float, wait_s: float
) -> None:
    """However noisy the fit: at every moment of a job a heavier one is no cooler."""
    model = NOISY[seed % len(NOISY)]
    least_w, more_w = sorted((least_w, more_w))
    moments_s = (0.0, 1.0, 20.0, 300.0, 3_000.0)
    cooler = margins(model, least_w, *moments_s, wait_s=wait_s)
    warmer = margins(model, more_w, *moments_s, wait_s=wait_s)
    assert all(a >= b - 1e-9 for a, b in zip(cooler, warmer, strict=True))


NOISY = [after(*lived(60 + 90 * seed, Sensors(noise_c=3), seed)) for seed in range(6)]
"""Models after little of a noisy life: their raw gains are partly below zero."""


def test_gains_below_zero_are_held_at_zero_and_the_rest_follows() -> None:
    """No power cools a device, and what is left still fits what was read."""
    raw = [np.array(model.values)[1 : 1 + len(TAU_S)] for model in NOISY]
    assert min(float(each.min()) for each in raw) < 0
    for model in NOISY:
        known = thermal_model.estimate(model)
        assert float(known.values[1 : 1 + len(TAU_S)].min()) >= 0
        assert float(np.linalg.eigvalsh(known.covariance).min()) > -1e-6
        sees = np.concatenate(([1.0], np.array(model.smoothed_w) / model.reference_w, np.ones(6)))
        before_c, after_c = float(sees @ np.array(model.values)), float(sees @ known.values)
        assert before_c == pytest.approx(after_c, abs=2.0)


def test_all_gains_below_zero_are_held_at_zero() -> None:
    """Not the lowest alone."""
    values = np.array(NOISY[-1].values)
    values[1:4] = (-1.0, -3.0, -2.0)
    model = NOISY[-1].model_copy(
        update={
            "values": tuple(values.tolist()),
            "covariance": tuple(np.eye(len(values)).ravel().tolist()),
        }
    )
    assert [0.0, 0.0, 0.0] == thermal_model.estimate(model).values[1:4].tolist()


def test_a_room_that_warms_slowly_is_followed() -> None:
    """Three degrees in an hour are drift; where none is allowed, the model lags behind."""
    readings = [
        each.model_copy(update={"margin_c": (each.margin_c or 0) - 3 * each.read_at_s / 3_600})
        for each in lived(7_200)
    ]
    last_c, last_w = readings[-1].margin_c, readings[-1].power_w
    assert last_c is not None
    assert last_w is not None
    off_c = [
        abs(margins(after(*readings, ambient_drift_c=drift_c), last_w, 1)[0] - last_c)
        for drift_c in (5.0, 0.0)
    ]
    assert off_c[0] < off_c[1]


def test_it_is_less_sure_of_what_is_further_off_or_less_known() -> None:
    """Later, with an uncertain power, and after fewer readings the standard error is larger."""
    model, young = after(*lived(3_000)), after(*lived(300))
    sure_c = standard_errors(model, 400, 0, 0)
    assert sure_c < standard_errors(model, 400, 0, 0, unmodelled_c=2.0)
    assert sure_c < 2
    assert sure_c < standard_errors(model, 400, 0, 3_000)
    assert sure_c < standard_errors(model, 400, 50, 0)
    assert sure_c < standard_errors(young, 400, 0, 0)


@given(st.lists(st.integers(1, 100), max_size=5))
@settings(deadline=None, max_examples=20)
def test_it_does_not_matter_where_the_process_was_cut(cuts: list[int]) -> None:
    """JSON between any two readings changes nothing, to the last bit."""
    readings = lived(500, Sensors())
    kept = ThermalModel()
    for number, reading in enumerate(readings):
        kept = after(reading, model=kept)
        if number in cuts:
            kept = ThermalModel.model_validate_json(json.dumps(kept.model_dump(mode="json")))
    assert after(*readings) == kept


def test_a_reading_that_is_told_again_counts_once() -> None:
    """A door that has nothing newer teaches nothing by repeating itself."""
    reading = make_reading(read_at_s=7.0)
    assert after(reading) == after(reading, reading, reading)
    assert 1 == after(reading).readings


@pytest.mark.parametrize("value", [None, math.nan, math.inf, -2.0, 1e9])
def test_a_reading_without_power_teaches_nothing(value: float | None) -> None:
    """Nor does it move the model; the device must settle again."""
    model = after(*lived(100))
    told = after(make_reading(read_at_s=101.0, power_w=value), model=model)
    assert model.model_copy(update={"in_a_row": 0}) == told
    assert ThermalModel() == after(make_reading(power_w=value))


@pytest.mark.parametrize("value", [None, math.nan, -math.inf, 644_245_923.0])
def test_a_reading_without_a_margin_moves_the_power_alone(value: float | None) -> None:
    """What was drawn meanwhile still warms the device."""
    model = after(*lived(100))
    told = after(make_reading(read_at_s=103.0, margin_c=value, power_w=650.0), model=model)
    assert (model.readings, 0) == (told.readings, told.in_a_row)
    assert told.smoothed_w[0] > model.smoothed_w[0]
    assert 103.0 == told.read_at_s
    assert ThermalModel() == after(make_reading(margin_c=value))


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_reading_without_a_time_is_none(value: float) -> None:
    """A moment that cannot be is no moment."""
    model = after(*lived(100))
    assert model == after(make_reading(read_at_s=value), model=model)


def test_one_spike_is_not_learned_from_and_is_counted() -> None:
    """A margin that is 40 degrees off moves neither air nor gains."""
    *before, last = lived(1_000)
    model = after(*before)
    assert last.margin_c is not None
    spiked = after(last.model_copy(update={"margin_c": last.margin_c - 40}), model=model)
    assert (1, 0, model.readings) == (spiked.misfits, spiked.in_a_row, model.readings)
    assert margins(spiked, 300, 60) == pytest.approx(margins(model, 300, 60), abs=1.5)
    recovered = after(last.model_copy(update={"read_at_s": last.read_at_s + 5}), model=spiked)
    assert (0, 1) == (recovered.misfits, recovered.in_a_row)


def test_what_is_said_again_and_again_is_the_truth() -> None:
    """A room that got 30 degrees warmer at once is believed after so many misfits in a row."""
    readings = lived(2_000)
    moved = [
        each.model_copy(update={"margin_c": (each.margin_c or 0) - 30}) for each in readings[200:]
    ]
    model = after(*readings[:200], *moved[:9], misfits_in_a_row=10)
    assert 9 == model.misfits
    believed = after(moved[9], model=model, misfits_in_a_row=10)
    assert (0, moved[9].read_at_s) == (believed.misfits, believed.began_s)
    settled = after(*moved[10:], model=believed, misfits_in_a_row=10)
    assert margins(settled, settled.power_w, 1)[0] == pytest.approx(moved[-1].margin_c, abs=1.0)


@pytest.mark.parametrize("silence_s", [121.0, 50_000.0])
def test_after_a_long_silence_the_heat_is_unknown_and_the_gains_are_kept(silence_s: float) -> None:
    """It may have worked or rested meanwhile."""
    readings = lived(3_000)
    model = after(*readings)
    at_s = readings[-1].read_at_s + silence_s
    woken = after(readings[-1].model_copy(update={"read_at_s": at_s}), model=model)
    assert (at_s, 1) == (woken.began_s, woken.in_a_row)
    gains = slice(1, 1 + len(TAU_S))
    assert woken.values[gains] == pytest.approx(model.values[gains], abs=1.0)
    assert standard_errors(woken, 400, 0, 0) > 2 * standard_errors(model, 400, 0, 0)


def test_a_silence_within_bounds_is_bridged() -> None:
    """Up to gap_s the mean of both powers stands in."""
    model = after(make_reading(power_w=100.0), make_reading(read_at_s=120.0, power_w=300.0))
    assert (0.0, 2) == (model.began_s, model.in_a_row)
    assert model.smoothed_w[0] == pytest.approx(200, abs=0.01)


def test_a_clock_that_began_anew_is_a_silence_of_unknown_length() -> None:
    """A reading from before the last one, as after a reboot: it goes on, unsettled."""
    model = after(*lived(1_000))
    again = after(make_reading(read_at_s=3.0), model=model)
    assert (3.0, 3.0, 1) == (again.read_at_s, again.began_s, again.in_a_row)


def test_the_energy_counter_goes_before_the_power_of_an_instant() -> None:
    """What was drawn between two looks is in the counter alone."""
    first = make_reading(power_w=100.0, energy_j=0.0)
    last = make_reading(read_at_s=60.0, power_w=100.0, energy_j=60 * 400.0)
    assert after(first, last).smoothed_w[0] == pytest.approx(400.0)


@pytest.mark.parametrize("energy_j", [None, math.nan, -5.0, 0.5, 1e12])
def test_a_counter_that_cannot_be_is_not_gone_by(energy_j: float | None) -> None:
    """Reset, missing, or faster than any device: the powers told stand in."""
    first = make_reading(power_w=100.0, energy_j=1_000.0)
    last = make_reading(read_at_s=60.0, power_w=300.0, energy_j=energy_j)
    assert after(first, last).smoothed_w[0] == pytest.approx(200.0)


def test_margins_of_another_margin_source_begin_a_new_model() -> None:
    """Degrees to a configured maximum are not degrees to the hardware's own."""
    limits = GateConfig(max_temperature_c=80)
    told = thermal_model.learn(ThermalModel(), make_reading(), limits, RULES)
    later = make_reading(read_at_s=1.0, margin_c=None)
    other = thermal_model.learn(told, later, limits, RULES)
    assert (1, 1.0) == (other.readings, other.began_s)
    assert told.margin_source != other.margin_source


def test_without_a_power_limit_gains_are_told_at_the_first_power() -> None:
    """Laptops tell none; a device at nearly nothing is told at ten watts."""
    assert 700 == after(make_reading()).reference_w
    assert 150 == after(make_reading(power_limit_w=None)).reference_w
    assert 10 == after(make_reading(power_limit_w=None, power_w=0.5)).reference_w


@given(
    st.lists(
        st.builds(
            make_reading,
            read_at_s=st.floats(),
            margin_c=st.one_of(st.none(), st.floats()),
            power_w=st.one_of(st.none(), st.floats()),
            energy_j=st.one_of(st.none(), st.floats()),
            power_limit_w=st.one_of(st.none(), st.floats()),
        ),
        max_size=6,
    )
)
@settings(deadline=None)
def test_no_reading_poisons_the_model(readings: list[DeviceReading]) -> None:
    """Whatever a driver says: all numbers stay finite, and variances positive."""
    model = after(*readings, *lived(100))
    assert np.isfinite(model.values).all()
    assert np.isfinite(model.covariance).all()
    assert np.isfinite(model.smoothed_w).all()
    assert (np.diag(np.array(model.covariance).reshape(13, 13)) > 0).all()
    assert math.isfinite(margins(model, 300, 60)[0])


def test_years_of_idling_leave_it_no_less_sure_than_at_first() -> None:
    """Drift must not add up without end where nothing new is learned."""
    model = after(*lived(1_000))
    reading = lived(1_000)[-1]
    for hour in range(1, 400):
        model = after(
            reading.model_copy(update={"read_at_s": reading.read_at_s + 3_600.0 * hour}),
            model=model,
            gap_s=3_600,
            gain_drift_c=5,
            ambient_drift_c=50,
        )
    variances = np.diag(np.array(model.covariance).reshape(13, 13))
    assert variances[0] <= 40**2 + 50**2
    assert (variances[1:7] <= 20**2 + 5**2).all()


def test_the_margin_since_a_guess_follows_the_power_that_was_drawn() -> None:
    """A guess is held against what came, given the load that came."""
    readings = lived(3_000)
    then = after(*readings[:500])
    now = after(*readings[500:560], model=then)
    guessed = tuple(thermal_model.estimate(then).values.tolist())
    assert thermal_model.margin_since(now, guessed, 300.0) == pytest.approx(
        readings[559].margin_c, abs=1.0
    )
