"""The simulated device: its physics, its sensors, and its standing in for a real one."""

from __future__ import annotations

import math
from typing import Any, get_args

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from power.core import device_readings
from power.core.gate_config import GateConfig
from power.policy import gate
from power.policy.gate import GateState
from power.simulation import simulated_device
from power.simulation.simulated_device import (
    PRESETS,
    AmbientStep,
    Plant,
    PlantKind,
    Preset,
    SensorFault,
    Sensors,
)

AIR = PRESETS["air"]
EXACT = Sensors(noise_c=0, power_noise=0, whole_degrees=False)


def make_plant(
    kind: PlantKind = AIR, sensors: Sensors = EXACT, seed: int = 0, **body: Any
) -> Plant:
    """A plant at rest whose sensors tell the truth; `body` overrides what it is physically."""
    return Plant(
        kind, np.random.default_rng(seed), sensors, simulated_device.at_rest(kind)._replace(**body)
    )


def steady_c(kind: PlantKind, power_w: float) -> float:
    """Where a die without fans ends at constant power, by Ohm's law of heat."""
    return kind.air_c + power_w * (kind.die_to_sink_c_per_w + kind.sink_to_air_c_per_w)


@pytest.mark.parametrize("preset", get_args(Preset))
def test_every_preset_gets_too_hot_at_full_load_and_not_at_rest(preset: Preset) -> None:
    """A device that never slows down would have nothing to gate, one that always does no use."""
    kind = PRESETS[preset]
    body = simulated_device.at_rest(kind)
    assert body.die_c < kind.slowdown_c - 30
    assert simulated_device.advanced(kind, body, 20, 1.0, None).slowed_s == 0
    assert simulated_device.advanced(kind, body, 5_000, 1.0, None).slowed_s > 0


@pytest.mark.parametrize("load", [0.0, 0.3])
def test_a_constant_load_ends_where_the_resistances_say(load: float) -> None:
    """The integration has the steady state of the equations, and stays there."""
    kind = PRESETS["liquid"].model_copy(update={"swing_c": 0.0})
    power_w = kind.idle_w + load * (kind.full_w - kind.idle_w)
    body = simulated_device.advanced(kind, simulated_device.at_rest(kind), 5_000, load, None)
    assert body.die_c == pytest.approx(steady_c(kind, power_w), abs=0.01)
    assert body.energy_j == pytest.approx(5_000 * power_w)


def test_a_device_at_rest_stays_at_rest() -> None:
    """Also one whose fans turn at rest."""
    kind = AIR.model_copy(update={"swing_c": 0.0, "fan_from_c": 20.0})
    rest = simulated_device.at_rest(kind)
    later = simulated_device.advanced(kind, rest, 3_000, 0.0, None)
    assert later.die_c == pytest.approx(rest.die_c, abs=0.01)


def test_fans_cool_a_warm_heatsink() -> None:
    """With fans the same load ends cooler."""
    fanless = AIR.model_copy(update={"fan_gain": 0.0})
    ends_c = [
        simulated_device.advanced(kind, simulated_device.at_rest(kind), 3_000, 0.6, None).die_c
        for kind in (AIR, fanless)
    ]
    assert ends_c[0] < ends_c[1] - 2


def test_the_hardware_slows_down_when_hot_and_recovers_when_cooler() -> None:
    """At the slowdown temperature the clock falls, and rises again some degrees below."""
    hot = make_plant(die_c=87.5, sink_c=80.0)
    hot.advance(1, load=1.0)
    assert hot.body.slowed
    assert "sw_thermal_slowdown" == hot.reading().throttle_reasons
    # It was held above 83 °C, four below, until the die had cooled beyond that.
    cooler = make_plant(die_c=84.5, sink_c=80.0, slowed=True)
    assert cooler.advance(0.5, load=0.0).throttle_reasons == "sw_thermal_slowdown"
    assert cooler.advance(20).throttle_reasons == "none"


def test_slowed_down_work_takes_longer_and_is_counted() -> None:
    """Half the clock does half the work; seconds at rest are not throttled work."""
    kind = AIR.model_copy(update={"release_c": 500.0})
    slow = simulated_device.at_rest(kind)._replace(die_c=500.0, slowed=True)
    busy = simulated_device.advanced(kind, slow, 10, 0.8, None)
    assert busy.work_s == pytest.approx(10 * 0.8 * 0.5)
    assert busy.slowed_s == pytest.approx(10)
    assert 0 == simulated_device.advanced(kind, slow, 10, 0.0, None).slowed_s


def test_work_ends_at_the_moment_when_it_is_done() -> None:
    """Not at the end of a step, or jobs would be longer than they are."""
    body = simulated_device.advanced(
        AIR, simulated_device.at_rest(AIR), 100, 0.5, None, until_work_s=3.3
    )
    assert body.at_s == pytest.approx(6.6)
    assert body.work_s == pytest.approx(3.3)


@pytest.mark.parametrize(("cap_w", "expected_w"), [(None, 350), (400, 350), (250, 250), (45, 45.6)])
def test_a_cap_holds_power_by_lowering_the_clock(cap_w: float | None, expected_w: float) -> None:
    """Power falls to the cap, or to that of the lowest clock; work falls by less than power."""
    at_clock = simulated_device.clock(AIR, False, 1.0, cap_w)
    assert simulated_device.power_at(AIR, 1.0, at_clock) == pytest.approx(expected_w, abs=0.1)
    assert at_clock >= (expected_w - AIR.idle_w) / (AIR.full_w - AIR.idle_w)


def test_a_cap_and_heat_together_leave_the_lower_clock() -> None:
    """A cap does not undo the slowdown, nor the slowdown a strict cap."""
    assert 0.5 == simulated_device.clock(AIR, True, 1.0, 340)
    assert simulated_device.clock(AIR, True, 1.0, 60) < 0.5


def test_the_air_swings_with_the_day_and_steps() -> None:
    """A quarter of a day on it is warmest, and a step stays."""
    kind = AIR.model_copy(update={"steps": (AmbientStep(at_s=100, by_c=2.5),)})
    assert 26 == kind.ambient_c(0)
    assert 26 + 3 + 2.5 == pytest.approx(kind.ambient_c(21_600))
    assert kind.ambient_c(100) - kind.ambient_c(99.9) == pytest.approx(2.5, abs=0.01)


@given(
    st.floats(0, 1),
    st.floats(0.1, 400),
    st.floats(20, 110),
    st.one_of(st.none(), st.floats(1, 400)),
)
def test_a_device_never_leaves_what_physics_allows(
    load: float, seconds: float, die_c: float, cap_w: float | None
) -> None:
    """No colder than its air, no hotter than full power makes it, and no more power than full."""
    before = simulated_device.at_rest(AIR)._replace(die_c=die_c, sink_c=min(die_c, 80.0))
    after = simulated_device.advanced(AIR, before, seconds, load, cap_w)
    assert after.at_s == pytest.approx(seconds)
    assert (
        min(die_c, AIR.air_c) - AIR.swing_c
        < after.die_c
        < max(die_c, steady_c(AIR, AIR.full_w) + 3)
    )
    assert AIR.idle_w * seconds * 0.999 <= after.energy_j <= AIR.full_w * seconds * 1.001
    assert 0 <= after.slowed_s <= seconds + 1e-6
    assert after.hottest_c >= max(after.die_c - 1e-9, before.die_c - 1e-9 if not seconds else -1)


@given(st.lists(st.integers(1, 60), min_size=1, max_size=8))
def test_time_passes_the_same_in_one_piece_or_in_many(pieces: list[int]) -> None:
    """Whoever reads more often does not change the device."""
    whole = simulated_device.advanced(AIR, simulated_device.at_rest(AIR), sum(pieces), 0.9, None)
    body = simulated_device.at_rest(AIR)
    for piece in pieces:
        body = simulated_device.advanced(AIR, body, piece, 0.9, None)
    assert body.die_c == pytest.approx(whole.die_c)
    assert body.energy_j == pytest.approx(whole.energy_j)


def test_readings_tell_what_the_device_is() -> None:
    """Sensors without noise tell temperature, margin, power, cap, load and energy."""
    one = make_plant()
    one.cap_w = 200
    told = one.advance(50, load=1.0)
    assert told.temperature_c == one.body.die_c
    assert told.margin_c == pytest.approx(AIR.slowdown_c - one.body.die_c)
    assert told.power_w == pytest.approx(200)
    assert (200, 100, "none", 50) == (
        told.power_limit_w,
        told.utilization,
        told.throttle_reasons,
        told.read_at_s,
    )
    assert told.energy_j == pytest.approx(50 * 200)


@given(st.integers(0, 1_000), st.floats(0, 5))
def test_noise_stays_within_its_bounds(seed: int, noise_c: float) -> None:
    """A reading is off by at most the noise, and half a degree where degrees are whole."""
    one = make_plant(sensors=Sensors(noise_c=noise_c), seed=seed)
    for _ in range(5):
        told = one.advance(3, load=0.7)
        assert told.temperature_c is not None
        assert told.power_w is not None
        assert told.margin_c == AIR.slowdown_c - told.temperature_c
        assert abs(told.temperature_c - one.body.die_c) <= noise_c + 0.5
        assert told.temperature_c == round(told.temperature_c)
        assert told.power_w == pytest.approx(40 + 0.7 * 310, rel=0.0201)


def test_noise_is_noise() -> None:
    """Over many readings it is off to both sides, and nearly as far as it may."""
    one = make_plant(sensors=Sensors(whole_degrees=False))
    off_c = [(one.reading().temperature_c or 0) - one.body.die_c for _ in range(300)]
    assert min(off_c) < -0.9
    assert max(off_c) > 0.9
    assert abs(float(np.mean(off_c))) < 0.15


def test_the_same_seed_is_the_same_device_with_the_same_noise() -> None:
    """What was seen can be seen again; another seed is another device."""

    def life(seed: int) -> list[object]:
        generator = np.random.default_rng(seed)
        one = Plant(simulated_device.varied(AIR, generator), generator)
        return [one.advance(5, load=0.8) for _ in range(20)]

    assert life(3) == life(3)
    assert life(3) != life(4)


@pytest.mark.parametrize("preset", get_args(Preset))
def test_a_varied_device_is_still_of_its_kind(preset: Preset) -> None:
    """Parts and air differ, limits do not."""
    kind = simulated_device.varied(PRESETS[preset], np.random.default_rng(1))
    assert kind.slowdown_c == PRESETS[preset].slowdown_c
    assert kind.full_w != PRESETS[preset].full_w
    assert kind.full_w == pytest.approx(PRESETS[preset].full_w, rel=0.08)
    assert PlantKind.model_validate(kind.model_dump()) == kind


@pytest.mark.parametrize(
    ("kind", "expected"),
    [("lost", (None, None)), ("absurd", (644_245_923.0, 87 - 644_245_923.0))],
)
def test_a_failed_sensor_says_nothing_or_nonsense_for_as_long_as_it_has_failed(
    kind: Any, expected: tuple[float | None, float | None]
) -> None:
    """From its first second on, up to and without its last; power is told all the while."""
    fault = SensorFault(kind=kind, from_s=10, until_s=20)
    one = make_plant(sensors=EXACT.model_copy(update={"faults": (fault,)}))
    told = {at_s: one.survey(at_s).readings[0] for at_s in (9, 10, 19, 20)}
    assert expected == (told[10].temperature_c, told[10].margin_c)
    assert expected == (told[19].temperature_c, told[19].margin_c)
    assert told[9].temperature_c == pytest.approx(told[20].temperature_c, abs=0.01)
    assert None not in {each.power_w for each in told.values()}


def test_a_stuck_sensor_repeats_its_last_word() -> None:
    """It looks like a reading, and the device warms behind it."""
    fault = SensorFault(kind="stuck", from_s=10)
    one = make_plant(sensors=Sensors(faults=(fault,)))
    last = one.advance(9, load=1.0)
    later = one.advance(60)
    assert (last.temperature_c, last.margin_c) == (later.temperature_c, later.margin_c)
    assert one.body.die_c > (last.temperature_c or math.inf) + 2


def test_a_sensor_that_was_always_stuck_says_its_first_word() -> None:
    """Before it ever told anything there is nothing to repeat."""
    one = make_plant(
        sensors=EXACT.model_copy(update={"faults": (SensorFault(kind="stuck", from_s=0),)})
    )
    first = one.advance(5, load=1.0)
    assert first.temperature_c == one.body.die_c
    assert first.temperature_c == one.advance(5).temperature_c


def test_a_fault_does_not_change_the_noise_that_follows_it() -> None:
    """Two plants that differ in a fault alone agree once it is over."""
    fault = SensorFault(kind="lost", from_s=0, until_s=10)
    plants = [make_plant(sensors=Sensors(faults=faults)) for faults in ((), (fault,))]
    for each in plants:
        each.advance(5, load=0.5)
    assert plants[0].advance(10) == plants[1].advance(10)


def test_a_device_may_tell_no_margin_and_no_energy() -> None:
    """As some do; the gate then counts from the configured maximum."""
    one = make_plant(sensors=Sensors(tells_margin=False, counts_energy=False))
    told = one.advance(1)
    assert (None, None) == (told.margin_c, told.energy_j)
    assert told.temperature_c is not None
    margin_c, _ = device_readings.margin(told, GateConfig(max_temperature_c=80))
    assert 80 - told.temperature_c == margin_c


def test_a_plant_stands_in_for_a_adapter() -> None:
    """Its survey is judged as any other: open at rest, closed once it runs hot."""
    one = make_plant()
    opened = gate.judge(one.survey(5), GateState(), GateConfig(), 5)
    one.load = 1.0
    closed = gate.judge(one.survey(2_000), opened.state, GateConfig(), 2_000)
    assert (True, False) == (opened.decision.yes, closed.decision.yes)
    assert "PLANT-air" == closed.decision.facts["uuid"]


def test_a_survey_of_the_same_moment_or_an_earlier_one_moves_nothing() -> None:
    """Time does not run backwards in a plant."""
    one = make_plant()
    one.survey(10)
    before = one.body
    assert 10 == one.survey(4).readings[0].read_at_s
    assert before == one.body
