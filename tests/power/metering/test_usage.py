"""What a job asked of its devices, folded from their readings: what is known, and what is not."""

from __future__ import annotations

import math
import random
from collections.abc import Iterable, Mapping
from functools import reduce
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from power.core.device_readings import DeviceReading
from power.core.gate_config import GateConfig
from power.metering import usage
from power.metering.usage import DeviceUsage, JobUsage
from tests.power.makers import make_reading

LIMITS = GateConfig()


def account_of(*rows: Mapping[str, Any], **knobs: Any) -> DeviceUsage:
    """The account after readings of GPU-a, ten seconds apart unless they say when."""
    readings = (make_reading(**({"read_at_s": 10.0 * i} | dict(r))) for i, r in enumerate(rows))
    return folded(readings, GateConfig(**knobs))


def folded(readings: Iterable[DeviceReading], limits: GateConfig = LIMITS) -> DeviceUsage:
    """A fresh account after all of them."""
    return reduce(lambda known, reading: known.after(reading, limits), readings, DeviceUsage())


def figures_of(known: DeviceUsage) -> tuple[float | None, ...]:
    """What an account tells of power and heat."""
    return (
        known.mean_power_w,
        known.peak_power_w,
        known.peak_temperature_c,
        known.lowest_margin_c,
        known.throttled_s,
        known.unread_s,
    )


def test_a_fresh_account_knows_nothing() -> None:
    """Unknown is None, never zero."""
    assert (None,) * 6 == figures_of(DeviceUsage())
    assert (0, None) == (DeviceUsage().readings, DeviceUsage().source)


def test_one_reading_tells_how_warm_it_is_and_no_mean() -> None:
    """No time has passed, so nothing can be said of it."""
    assert (None, 150.0, 49.0, 40.0, None, None) == figures_of(account_of({}))


def test_the_highest_and_the_lowest_are_kept() -> None:
    """Wherever among the readings they were."""
    known = account_of(
        {"power_w": 100.0, "temperature_c": 60.0, "margin_c": 30.0},
        {"power_w": 400.0, "temperature_c": 80.0, "margin_c": 4.0},
        {"power_w": 200.0, "temperature_c": 70.0, "margin_c": 20.0},
    )
    assert (400.0, 80.0, 4.0) == (
        known.peak_power_w,
        known.peak_temperature_c,
        known.lowest_margin_c,
    )


def test_the_mean_of_power_is_weighted_by_time() -> None:
    """Ten seconds of 200 W on the mean, and thirty of 400 W."""
    known = account_of(
        {"power_w": 100.0},
        {"power_w": 300.0},
        {"power_w": 500.0, "read_at_s": 40.0},
    )
    assert (10 * 200.0 + 30 * 400.0) / 40 == known.mean_power_w
    assert "power" == known.source


def test_a_counter_comes_before_what_was_told_at_an_instant() -> None:
    """An instant is a quarter of the time on some devices; the counter misses none of it."""
    known = account_of({"energy_j": 0.0}, {"energy_j": 3_000.0}, {"energy_j": 4_000.0})
    assert (200.0, "counter") == (known.mean_power_w, known.source)


def test_a_peak_is_never_below_what_the_counter_gives_as_a_mean() -> None:
    """150 W were told at both ends, and it was 300 W on the mean between them."""
    assert 300.0 == account_of({"energy_j": 0.0}, {"energy_j": 3_000.0}).peak_power_w


def test_a_peak_is_told_and_not_worked_out_of_a_counter_that_moves_in_steps() -> None:
    """Over a short time its mean is all error; a device that tells no power has no known peak."""
    steps = ({"energy_j": 0.0}, {"energy_j": 2_500.0}, {"energy_j": 2_500.0})
    assert (125.0, 150.0) == figures_of(account_of(*steps))[:2]
    assert (125.0, None) == figures_of(account_of(*({**s, "power_w": None} for s in steps)))[:2]


def test_a_counter_that_comes_back_tells_of_the_time_without_it() -> None:
    """What power said of that time gives way to the count, and is not counted beside it."""
    known = account_of({"energy_j": 0.0}, {"energy_j": None}, {"energy_j": 6_000.0})
    assert (300.0, "counter") == (known.mean_power_w, known.source)


@pytest.mark.parametrize("broken", [5.0, -1.0, 2e13, 1e9, math.nan])
def test_where_the_counter_cannot_be_power_stands_in(broken: float) -> None:
    """It went backwards, or leapt: the power of that time stands, and the source says both."""
    known = account_of({"energy_j": 1_000.0}, {"energy_j": 3_000.0}, {"energy_j": broken})
    assert (175.0, "counter and power") == (known.mean_power_w, known.source)


def test_a_counter_goes_on_from_where_it_began_anew() -> None:
    """The driver was loaded again: 150 W by power until then, 400 W by the count afterwards."""
    known = account_of({"energy_j": 9_000.0}, {"energy_j": 10.0}, {"energy_j": 4_010.0})
    assert ((150.0 + 400.0) / 2, "counter and power") == (known.mean_power_w, known.source)


def test_throttled_time_is_that_between_readings_which_told_a_slowdown() -> None:
    """All of it between two such, half of it beside one; a power cap is no slowdown."""
    reasons = ("none", "sw_power_cap", "hw_thermal_slowdown", "0x20", "none", "none")
    known = account_of(*({"throttle_reasons": each} for each in reasons))
    assert 5.0 + 10.0 + 5.0 == known.throttled_s


def test_a_device_that_never_tells_its_reasons_leaves_the_slowdowns_unknown() -> None:
    """Absent is not healthy."""
    assert account_of({"throttle_reasons": None}, {"throttle_reasons": None}).throttled_s is None
    assert account_of({}, {"throttle_reasons": None}).throttled_s is None
    assert 0.0 == account_of({}, {}).throttled_s


def test_time_in_which_it_could_not_be_read_is_told_apart() -> None:
    """From the last reading before to the first one after; two losses are two gaps."""
    lost = {"unreadable": "GPU is lost", "power_w": 999.0, "temperature_c": 99.0}
    known = account_of({}, lost, lost, {}, {}, lost, {})
    assert (30.0 + 20.0, 2) == (known.unread_s, known.gaps)
    assert (150.0, 150.0, 49.0) == figures_of(known)[:3]
    assert 10.0 == known.watched_s


def test_a_counter_bridges_a_gap_and_power_does_not() -> None:
    """What was drawn unseen is counted; what was told at the two ends is no measure of it."""
    lost = {"unreadable": "GPU is lost"}
    assert 400.0 == account_of({"energy_j": 0.0}, lost, {"energy_j": 8_000.0}).mean_power_w
    assert account_of({}, lost, {"power_w": 300.0}).mean_power_w is None


def test_a_silence_longer_than_a_reading_counts_is_a_gap() -> None:
    """Nobody knows what went on in it; how long it may be is the gate's own knob."""
    rows: list[dict[str, Any]] = [{}, {"read_at_s": 60.0}, {"read_at_s": 121.0}]
    assert (61.0, 1) == (account_of(*rows).unread_s, account_of(*rows).gaps)
    assert 0.0 == account_of(*rows, max_age_s=61.0).unread_s


@pytest.mark.parametrize("odd", [math.nan, math.inf, -math.inf, 3e4, -101.0, None])
def test_a_value_that_no_device_has_is_unknown(odd: float | None) -> None:
    """It moves no figure, and the other values of its reading count all the same."""
    names = ("power_w", "temperature_c", "margin_c")
    for name in names:
        odd_one = account_of({}, {name: odd, "read_at_s": 5.0}, {})
        others = set(names) - {name}
        assert figures_of(account_of({}, {"read_at_s": 5.0}, {}))[1:] == figures_of(odd_one)[1:]
        only = account_of({name: odd}, {name: odd})
        assert getattr(only, PEAKS[name]) is None
        assert None not in [getattr(only, PEAKS[each]) for each in others]


PEAKS = {
    "power_w": "peak_power_w",
    "temperature_c": "peak_temperature_c",
    "margin_c": "lowest_margin_c",
}


def test_the_margin_is_the_one_that_the_gate_goes_by() -> None:
    """Counted from the configured maximum where the device tells none; never from nonsense."""
    told = {"margin_c": None, "temperature_c": 75.0}
    assert 10.0 == account_of(told, max_temperature_c=85.0).lowest_margin_c
    assert account_of(told).lowest_margin_c is None
    told = {"margin_c": None, "temperature_c": 151.0}
    assert account_of(told, max_temperature_c=85.0).lowest_margin_c is None


def test_a_reading_told_again_counts_once() -> None:
    """A door answers with the last one until there is a newer."""
    first, second = make_reading(), make_reading(read_at_s=10.0, power_w=250.0)
    assert folded([first, second]) == folded([first, first, second, second, second])


def test_one_told_late_moves_no_clock() -> None:
    """What it says counts for the highest and the lowest; the time was counted already."""
    late = make_reading(read_at_s=5.0, power_w=600.0, margin_c=1.0, temperature_c=88.0)
    known = folded([make_reading(), make_reading(read_at_s=10.0), late])
    assert (150.0, 600.0, 88.0, 1.0, 0.0, 0.0) == figures_of(known)
    assert (2, 10.0) == (known.readings, known.read_at_s)


@pytest.mark.parametrize("read_at_s", [math.nan, math.inf, -math.inf, 1e300])
def test_a_reading_without_a_moment_is_none(read_at_s: float) -> None:
    """Nobody knows whether it is of this job."""
    known = account_of({})
    assert known is known.after(make_reading(read_at_s=read_at_s, margin_c=-5.0), LIMITS)


def test_an_account_is_of_one_device() -> None:
    """Two devices' readings in one account would be a device that does not exist."""
    with pytest.raises(ValueError, match=r"account of GPU-a, and GPU-b was read: .*together"):
        account_of({}).after(make_reading(uuid="GPU-b"), LIMITS)


def test_an_account_is_a_value_that_json_keeps() -> None:
    """To the last bit, so that one can be taken up again."""
    known = account_of({"energy_j": 1 / 3}, {"energy_j": 3e3 / 7}, {"unreadable": "lost"})
    assert known == DeviceUsage.model_validate_json(known.model_dump_json())


NUMBERS = st.none() | st.floats() | st.floats(-50, 500) | st.sampled_from([0.0, 20_000.0, 1e13])
REASONS = st.sampled_from([None, "none", "hw_thermal_slowdown", "0x28", "sw_power_cap"])
READINGS = st.lists(
    st.builds(
        make_reading,
        read_at_s=st.integers(0, 200).map(float) | st.floats(),
        power_w=NUMBERS,
        temperature_c=NUMBERS,
        margin_c=NUMBERS,
        energy_j=NUMBERS,
        throttle_reasons=REASONS,
        unreadable=st.none() | st.just("lost"),
    ),
    max_size=12,
)


@given(READINGS)
def test_whatever_is_read_the_figures_are_possible_or_unknown(
    readings: list[DeviceReading],
) -> None:
    """Never NaN, never out of bounds; no mean above its peak, no more time than there was."""
    known = folded(readings)
    span_s = 0.0 if known.read_at_s is None else known.read_at_s - (known.began_s or 0.0)
    powered_s = known.counted_s + known.summed_s + known.since_s
    for seconds in (known.throttled_s, known.unread_s, known.missed_s + known.watched_s, powered_s):
        assert seconds is None or 0 <= seconds <= span_s * (1 + 1e-9)
    assert known.slowed_s <= known.watched_s
    assert (known.mean_power_w is None) == (known.source is None)
    if known.mean_power_w is not None:
        assert 0 <= known.mean_power_w <= 20_000 * (1 + 1e-9)
    if known.peak_power_w is not None:
        assert (known.mean_power_w or 0.0) <= known.peak_power_w <= 20_000 * (1 + 1e-9)
    assert known.peak_temperature_c is None or -50 <= known.peak_temperature_c <= 150
    assert known.lowest_margin_c is None or -100 <= known.lowest_margin_c <= 200


@given(READINGS, st.randoms(use_true_random=False))
def test_in_whatever_order_they_come_and_however_often_the_extremes_are_the_same(
    readings: list[DeviceReading], chance: random.Random
) -> None:
    """The hottest moment is the hottest, though it was told late, or twice."""
    again = readings + [each for each in readings if chance.random() < 0.5]
    chance.shuffle(again)
    one, other = folded(readings), folded(again)
    for name in ("peak_temperature_c", "lowest_margin_c"):
        assert getattr(one, name) == getattr(other, name)


@given(READINGS)
def test_each_reading_told_twice_in_a_row_changes_nothing(readings: list[DeviceReading]) -> None:
    """The same account, field by field."""
    assert folded(readings) == folded(each for each in readings for _ in range(2))


def test_devices_together_draw_the_sum_and_are_as_warm_as_the_warmest() -> None:
    """One account for each; the job goes at the pace of the one that slowed down."""
    cool = account_of({"power_w": 100.0}, {"power_w": 100.0})
    warm = folded(
        make_reading(
            uuid="GPU-b",
            read_at_s=10.0 * i,
            energy_j=3_000.0 * i,
            temperature_c=85.0,
            margin_c=3.0,
            throttle_reasons="hw_slowdown",
        )
        for i in range(3)
    )
    expected = JobUsage(
        uuid=None,
        devices=2,
        readings=2,
        mean_power_w=400.0,
        source="counter and power",
        peak_power_w=400.0,
        peak_temperature_c=85.0,
        lowest_margin_c=3.0,
        throttled_s=20.0,
        unread_s=0.0,
        gaps=0,
    )
    assert expected == usage.combine([cool, warm, DeviceUsage()])
    assert "GPU-b" == usage.combine([warm]).uuid
    assert usage.NONE_READ == usage.combine([DeviceUsage()])


def test_a_device_without_power_leaves_the_sum_unknown() -> None:
    """Its part would be missing from what passes for the whole; how warm it was still counts."""
    silent = account_of({"power_w": None}, {"power_w": None, "temperature_c": 90.0})
    figures = usage.combine([silent, account_of({}, {})])
    assert (None, None, None) == (figures.mean_power_w, figures.source, figures.peak_power_w)
    assert 90.0 == figures.peak_temperature_c
    assert (None, None) == figures.energy(10.0)[:2]


def test_the_mean_power_times_the_seconds_is_the_energy() -> None:
    """With its source and a sentence; a job without a duration has none."""
    figures = usage.combine([account_of({"power_w": 100.0}, {"power_w": 300.0})])
    because = "400 J on 1 device in 2.0 s, by power, from 2 readings"
    assert (400.0, "power", because) == figures.energy(2.0)
    for seconds in (0.0, -1.0, math.nan, math.inf):
        assert figures.energy(seconds).joules is None
