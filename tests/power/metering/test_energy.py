"""How much energy a job took, out of two surveys: what is known, and what is not."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from power.core.device_readings import DeviceSnapshot
from power.metering import energy
from tests.power.makers import make_reading, make_survey

NUMBERS = st.none() | st.floats() | st.sampled_from([0.0, 150.0, 1e6, 5e6, 1e13, 1e14, -1.0])


def before(**overrides: Any) -> DeviceSnapshot:
    """GPU-a at 0 s with a counter of 1,000 J."""
    return make_survey(make_reading(**({"energy_j": 1_000.0} | overrides)))


def after(**overrides: Any) -> DeviceSnapshot:
    """GPU-a ten seconds and 3,000 joules later."""
    return make_survey(make_reading(**({"read_at_s": 10.0, "energy_j": 4_000.0} | overrides)))


def test_the_counter_says_what_was_used() -> None:
    """The difference of both counts, over a job as long as the time between them."""
    expected = energy.Energy(3_000.0, "counter", "3000 J on 1 device in 10.0 s, by counter")
    assert expected == energy.used(before(), after(), 10.0)


def test_a_job_shorter_than_the_time_between_readings_is_billed_for_itself() -> None:
    """300 W over ten seconds are 150 J for half a second of work."""
    assert 150.0 == energy.used(before(), after(), 0.5).joules


def test_devices_add_up_and_a_new_one_does_not_count() -> None:
    """Only a device that was read at both ends has a difference."""
    two = make_survey(*before().readings, make_reading(uuid="GPU-b", energy_j=0.0))
    three = make_survey(
        *after().readings,
        make_reading(uuid="GPU-b", read_at_s=10.0, energy_j=500.0),
        make_reading(uuid="GPU-c", read_at_s=10.0, energy_j=9_000.0),
    )
    assert (3_500.0, "counter") == energy.used(two, three, 10.0)[:2]
    assert (500.0, "counter") == energy.used(two, three, 10.0, uuid="GPU-b")[:2]


def test_a_mig_instance_is_billed_its_whole_device() -> None:
    """It has no counter of its own."""
    told = {"mig": ("MIG-1",)}
    assert 3_000.0 == energy.used(before(**told), after(**told), 10.0, uuid="MIG-1").joules
    assert energy.used(before(**told), after(**told), 10.0, uuid="MIG-2").joules is None


def test_the_last_reading_of_a_device_is_the_one_that_counts() -> None:
    """A survey may hold several of one device, in the order they were taken."""
    twice = make_survey(*before(energy_j=1.0).readings, *before(read_at_s=2.0).readings)
    assert 3_000.0 == energy.used(twice, after(read_at_s=12.0), 10.0).joules


@pytest.mark.parametrize(
    ("first", "last"),
    [
        ({"energy_j": None}, {}),
        ({}, {"energy_j": None}),
        # The driver was loaded again.
        ({"energy_j": 5_000.0}, {}),
        ({"energy_j": -1.0}, {}),
        ({}, {"energy_j": 2e13}),
        # More than any device draws.
        ({}, {"energy_j": 1e9}),
        # Not read anew.
        ({"read_at_s": 10.0}, {}),
        ({"read_at_s": 11.0}, {}),
        ({"read_at_s": math.nan}, {}),
        ({"energy_j": math.nan}, {}),
    ],
)
def test_without_a_counter_to_trust_power_stands_in(
    first: dict[str, Any], last: dict[str, Any]
) -> None:
    """The mean of the power at both ends, times the seconds, and the source says so."""
    found = energy.used(before(**first, power_w=100.0), after(**last, power_w=300.0), 10.0)
    assert (2_000.0, "power") == found[:2]


@pytest.mark.parametrize("power_w", [None, math.nan, math.inf, -2.0, 20_001.0])
def test_a_device_that_tells_neither_leaves_the_sum_unknown(power_w: float | None) -> None:
    """Half a sum would pass for a whole one, so the other device's joules are not told."""
    silent = {"uuid": "GPU-b", "power_w": power_w}
    first = make_survey(*before().readings, make_reading(**silent))
    last = make_survey(*after().readings, make_reading(read_at_s=10.0, **silent))
    expected = energy.Energy(None, None, "GPU-b reports neither energy nor power")
    assert expected == energy.used(first, last, 10.0)


def test_devices_of_both_kinds_say_both() -> None:
    """One by its counter, one by its power: the sum names both sources."""
    first = make_survey(*before().readings, make_reading(uuid="GPU-b"))
    last = make_survey(*after().readings, make_reading(uuid="GPU-b", read_at_s=10.0))
    assert (4_500.0, "counter and power") == energy.used(first, last, 10.0)[:2]


@pytest.mark.parametrize("driver", ["absent", "unreadable"])
def test_without_a_driver_nothing_is_known_and_the_reason_is_kept(driver: Any) -> None:
    """At either end: also a driver that went away meanwhile, whose readings are old."""
    none = make_survey(*before().readings, driver=driver, because="no library")
    for surveys in ((none, after()), (before(), none)):
        found = energy.used(*surveys, 10.0)
        assert (None, None) == found[:2]
        assert "no library" in found.because


@pytest.mark.parametrize("uuid", [None, "GPU-b"])
def test_devices_that_were_not_read_at_both_ends_leave_it_unknown(uuid: str | None) -> None:
    """Nothing was measured, which is not nothing used."""
    last = after(uuid="GPU-b") if uuid is None else after()
    assert (None, None) == energy.used(before(), last, 10.0, uuid=uuid)[:2]


@pytest.mark.parametrize("seconds", [0.0, -1.0, math.nan, math.inf])
def test_a_job_without_a_duration_has_no_energy(seconds: float) -> None:
    """A clock that stood still says nothing of joules."""
    assert (None, None) == energy.used(before(), after(), seconds)[:2]


@given(NUMBERS, NUMBERS, NUMBERS, NUMBERS, st.floats(), st.floats())
def test_whatever_is_read_the_joules_are_possible_or_unknown(
    first_j: float | None,
    last_j: float | None,
    first_w: float | None,
    last_w: float | None,
    over_s: float,
    seconds: float,
) -> None:
    """Never negative, never NaN, never more than a device can draw; a source where it is known."""
    found = energy.used(
        before(energy_j=first_j, power_w=first_w),
        after(read_at_s=over_s, energy_j=last_j, power_w=last_w),
        seconds,
    )
    assert (found.joules is None) == (found.source is None)
    assert found.because
    if found.joules is not None:
        assert 0 <= found.joules <= 20_000 * seconds
