"""Which power limit the next job has: what is tried, what is chosen, and every "no"."""

from __future__ import annotations

import math
import pickle
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from observability.core.decision import Decision
from power.devices.device import Device
from power.policy import power_cap
from power.policy.power_cap import CapConfig, CapPoint, CapRun
from tests.power.makers import make_device

NONE, MILD, STRICT = None, 560.0, 350.0
"""No cap, and caps of 0.8 and 0.5 of 700 W."""
TYPICAL = {NONE: (10.0, 6_000.0), MILD: (10.4, 5_200.0), STRICT: (13.0, 4_800.0)}
"""Seconds and joules per unit of work, as a GPU has it: half the limit, a third more time."""


def make_rules(**knobs: Any) -> CapConfig:
    """Capping is on, and tries two caps."""
    return CapConfig(**({"enabled": True, "shares": (1.0, 0.8, 0.5)} | knobs))


def make_points(
    measured: Mapping[float | None, tuple[float, float]], runs: int = 1, uuid: str = "GPU-a"
) -> tuple[CapPoint, ...]:
    """What was measured, by cap: seconds and joules per unit."""
    return tuple(
        CapPoint(uuid=uuid, cap_w=cap_w, seconds=seconds, energy_j=energy_j, runs=runs)
        for cap_w, (seconds, energy_j) in measured.items()
    )


def chosen(
    points: Sequence[CapPoint] = make_points(TYPICAL), device: Device | None = None, **knobs: Any
) -> Decision:
    """What is decided of the next job on GPU-a."""
    return power_cap.choose(points, device or make_device(), make_rules(**knobs))


def test_caps_are_measured_one_by_one_the_mildest_first() -> None:
    """No cap, 560 W, 350 W: a run each, and then there is a choice."""
    points: tuple[CapPoint, ...] = ()
    tried = []
    while (decision := chosen(points, max_slowdown=1.0)).facts["measuring"]:
        cap_w = power_cap.watts(decision)
        assert decision.yes is (cap_w is not None)
        assert "is measured: 0 of 1 runs of it are known" in decision.because
        tried.append(cap_w)
        seconds, energy_j = TYPICAL[cap_w]
        points = power_cap.learn(
            points, CapRun("GPU-a", cap_w, seconds, energy_j, 1.0), make_rules()
        )
    assert [NONE, MILD, STRICT] == tried
    assert STRICT == power_cap.watts(decision)


def test_each_is_measured_as_often_as_is_wanted() -> None:
    """A cap with fewer runs than measure_runs is still to be measured."""
    points = make_points({NONE: TYPICAL[NONE]}, runs=2) + make_points({MILD: TYPICAL[MILD]})
    decision = chosen(points, measure_runs=2)
    assert (MILD, True) == (power_cap.watts(decision), decision.facts["measuring"])
    assert "1 of 2 runs of it are known (measure_runs)" in decision.because


def test_what_is_stricter_than_one_that_is_too_slow_is_not_tried() -> None:
    """At 560 W a job takes 20 % longer, so 350 W is not worth a run."""
    points = make_points({NONE: (10.0, 6_000.0), MILD: (12.0, 5_200.0)})
    decision = chosen(points)
    assert (None, False) == (power_cap.watts(decision), decision.facts["measuring"])
    assert chosen(points, objective="least_energy").facts["measuring"]


def test_without_measuring_the_choice_is_among_what_is_known() -> None:
    """`measure = false` tries nothing; without a run uncapped there is nothing to compare with."""
    known = make_points({NONE: TYPICAL[NONE], MILD: TYPICAL[MILD]})
    assert MILD == power_cap.watts(chosen(known, measure=False, objective="least_energy"))
    decision = chosen(make_points({MILD: TYPICAL[MILD]}), measure=False)
    assert not decision
    assert "set measure = true in [cap]" in decision.because


@pytest.mark.parametrize(
    ("knobs", "cap_w"),
    [
        ({"objective": "least_energy"}, STRICT),
        ({"objective": "least_energy_within", "max_slowdown": 0.05}, MILD),
        ({"objective": "least_energy_within", "max_slowdown": 0.0}, NONE),
        ({"objective": "least_energy_within", "max_slowdown": 0.3}, STRICT),
        # Energy alone costs: as least energy. A dear machine: time is all that counts.
        ({"objective": "least_cost", "price_per_kwh": 0.3}, STRICT),
        ({"objective": "least_cost", "price_per_kwh": 0.3, "price_per_hour": 3.0}, NONE),
        ({"objective": "least_cost", "price_per_kwh": 0.3, "price_per_hour": 0.1}, MILD),
    ],
)
def test_the_objective_chooses(knobs: dict[str, Any], cap_w: float | None) -> None:
    """The same points, and what is best for each objective."""
    decision = chosen(**knobs)
    assert (cap_w, cap_w is not None) == (power_cap.watts(decision), decision.yes)
    assert cap_w == decision.facts["cap_w"]


def test_a_choice_says_its_numbers() -> None:
    """The cap, its share, the objective, and what each point measured, for whoever replays it."""
    decision = chosen()
    expected = {
        "cap_w": 560.0,
        "share": 0.8,
        "objective": "least_energy_within",
        "power_limit_w": 700.0,
        "seconds_uncapped": 10.0,
        "energy_j_uncapped": 6_000.0,
        "runs_uncapped": 1,
        "seconds_at_560_w": 10.4,
        "energy_j_at_560_w": 5_200.0,
        "runs_at_350_w": 1,
    }
    assert expected == {name: decision.facts[name] for name in expected}
    assert "power_cap" == decision.question
    assert (
        "a cap of 560 W is best for least energy within 10 % slow-down among 3 measured: 86.7 % of "
        "the energy and 104 % of the time of a job without a cap"
    ) == decision.because


@pytest.mark.parametrize(
    ("device", "knobs", "told"),
    [
        ({}, {"enabled": False}, "set enabled = true in [cap]"),
        ({"may_set_limit": False}, {}, "run it as root, with CAP_SYS_ADMIN in a container"),
        ({"power_limit_min_w": None}, {}, "does not tell its limit and the range of it"),
        ({"power_limit_max_w": None}, {}, "does not tell its limit and the range of it"),
        ({"power_limit_w": None}, {}, "does not tell its limit and the range of it"),
        ({"power_limit_w": math.nan}, {}, "does not tell its limit and the range of it"),
        ({"power_limit_min_w": 800.0}, {}, "does not tell its limit and the range of it"),
        ({"power_limit_max_w": 1e9}, {}, "does not tell its limit and the range of it"),
        ({"energy_j": None, "power_w": None}, {}, "tells neither energy nor power"),
        ({"unreadable": "GPU is lost"}, {}, "cannot be read (GPU is lost)"),
        ({"power_limit_w": 300.0}, {}, "give smaller ones"),
        ({}, {"shares": (1.0,)}, "give smaller ones"),
    ],
)
def test_what_keeps_a_job_from_being_capped_is_a_no_that_says_what_to_do(
    device: dict[str, Any], knobs: dict[str, Any], told: str
) -> None:
    """Each with its remedy; nothing is capped by guess."""
    decision = chosen(device=make_device(**device), **knobs)
    assert (False, None) == (decision.yes, power_cap.watts(decision))
    assert told in decision.because


def test_a_limit_that_a_person_lowered_is_never_raised() -> None:
    """At 500 of 700 W only caps below 500 W are left."""
    device = make_device(power_limit_w=500.0)
    decision = chosen(make_points({NONE: TYPICAL[NONE]}), device)
    assert STRICT == power_cap.watts(decision)
    assert "runs_at_560_w" not in decision.facts


def test_points_of_another_device_count_for_nothing() -> None:
    """Two GPUs of one machine need not be alike."""
    decision = chosen(make_points(TYPICAL, uuid="GPU-b"))
    assert (None, True) == (power_cap.watts(decision), decision.facts["measuring"])


@pytest.mark.parametrize(
    ("device", "cap_w"),
    [
        ({}, 350.0),
        ({"power_limit_min_w": 420.5}, 420.5),
        ({"power_limit_w": 300.0}, None),
    ],
)
def test_the_lowest_cap_is_for_a_job_that_must_run(
    device: dict[str, Any], cap_w: float | None
) -> None:
    """Within the device's range; a limit that is as low already needs no cap, and is a yes."""
    decision = power_cap.lowest(make_device(**device), CapConfig())
    assert (True, cap_w) == (decision.yes, power_cap.watts(decision))


def test_a_device_that_cannot_be_capped_has_no_lowest_cap() -> None:
    """No privilege, no range: a no, with the remedy."""
    for lacking in ({"may_set_limit": False}, {"power_limit_max_w": None}, {"unreadable": "lost"}):
        decision = power_cap.lowest(make_device(**lacking), CapConfig())
        assert (False, None) == (decision.yes, power_cap.watts(decision))


def test_runs_of_any_size_are_compared_by_the_unit_of_work() -> None:
    """A window twice as long takes twice the time and energy, and is no slower."""
    points = power_cap.learn((), CapRun("GPU-a", None, 10.0, 6_000.0, 1_000.0), CapConfig())
    points = power_cap.learn(points, CapRun("GPU-a", None, 40.0, 24_000.0, 2_000.0), CapConfig())
    assert make_points({None: (0.015, 9.0)}, runs=2) == points


def test_an_old_run_counts_for_less_and_less() -> None:
    """The mean spans about remember_runs: the work may have changed."""
    rules = CapConfig(remember_runs=2)
    points: tuple[CapPoint, ...] = ()
    for seconds in (8.0, 8.0, 8.0, 16.0):
        points = power_cap.learn(points, CapRun("GPU-a", None, seconds, 100.0, 1.0), rules)
    assert make_points({None: (12.0, 100.0)}, runs=4) == points


@pytest.mark.parametrize("value", [math.nan, math.inf, -1.0, 0.0])
def test_a_run_that_was_not_measured_teaches_nothing(value: float) -> None:
    """Unknown, or what cannot be: the points stay as they are."""
    points, run = make_points(TYPICAL), CapRun("GPU-a", None, 10.0, 6_000.0, 1.0)
    for odd in (
        run._replace(seconds=value),
        run._replace(energy_j=value),
        run._replace(work=value),
        run._replace(seconds=None),
        run._replace(energy_j=None),
    ):
        assert points == power_cap.learn(points, odd, CapConfig())


def test_points_are_kept_by_checkpoints() -> None:
    """They come back as they were, from a pickle and from JSON."""
    for point in make_points(TYPICAL):
        assert point == pickle.loads(pickle.dumps(point))
        assert point == CapPoint.model_validate_json(point.model_dump_json())


@pytest.mark.parametrize(
    ("knobs", "told"),
    [
        ({"shares": (1.0, 1.2)}, "shares are above 0 and at most 1"),
        ({"shares": (0.0,)}, "shares are above 0 and at most 1"),
        ({"shares": ()}, "at least 1 item"),
        ({"objective": "least_cost"}, "least_cost needs a price"),
        ({"max_slowdown": -0.1}, "greater than or equal to 0"),
        ({"cap": 300}, "Extra inputs"),
    ],
)
def test_knobs_that_make_no_sense_are_refused(knobs: dict[str, Any], told: str) -> None:
    """The message names the knob and what is allowed."""
    with pytest.raises(ValidationError, match=told):
        CapConfig(**knobs)


AMOUNT = st.floats(1e-3, 1e6)
SHARE = st.floats(0.05, 1.0)
MEASURED = st.dictionaries(
    st.sampled_from([None, 100.0, 140.0, 350.0, 420.0, 490.0, 560.0, 630.0, 700.0]),
    st.tuples(AMOUNT, AMOUNT),
)


@st.composite
def devices(draw: st.DrawFn) -> Device:
    """Any device that tells its range, at a limit within it."""
    least_w, now_w, most_w = sorted(draw(st.lists(st.floats(50, 1_500), min_size=3, max_size=3)))
    return make_device(power_limit_min_w=least_w, power_limit_w=now_w, power_limit_max_w=most_w)


@st.composite
def rule_sets(draw: st.DrawFn) -> CapConfig:
    """Any rules that cap."""
    return CapConfig(
        enabled=True,
        objective=draw(st.sampled_from(["least_energy", "least_cost", "least_energy_within"])),
        max_slowdown=draw(st.floats(0, 1)),
        shares=tuple(draw(st.lists(SHARE, min_size=1, max_size=6))),
        price_per_kwh=draw(st.floats(0.01, 1)),
        price_per_hour=draw(st.floats(0, 10)),
        measure=draw(st.booleans()),
    )


@given(devices(), rule_sets(), MEASURED)
def test_a_cap_is_always_within_the_range_and_below_the_limit_that_was_there(
    device: Device, rules: CapConfig, measured: dict[float | None, tuple[float, float]]
) -> None:
    """Chosen, measured or the lowest: whatever the rules and the points say."""
    for decision in (
        power_cap.choose(make_points(measured), device, rules),
        power_cap.lowest(device, rules),
    ):
        cap_w = power_cap.watts(decision)
        if cap_w is not None:
            assert device.power_limit_min_w is not None
            assert device.power_limit_w is not None
            assert device.power_limit_min_w <= cap_w < device.power_limit_w


@given(rule_sets(), MEASURED)
def test_what_is_chosen_was_measured_and_nothing_allowed_is_better(
    rules: CapConfig, measured: dict[float | None, tuple[float, float]]
) -> None:
    """The objective is really the least, and the bound on the slow-down is kept."""
    rules = rules.model_copy(update={"shares": (0.9, 0.8, 0.7, 0.6, 0.5), "measure": False})
    decision = power_cap.choose(make_points(measured), make_device(), rules)
    cap_w = power_cap.watts(decision)
    if None not in measured:
        assert cap_w is None
        return
    offered = {None, 350.0, 420.0, 490.0, 560.0, 630.0} & set(measured)
    assert cap_w in offered
    slowest_s = math.inf
    if rules.objective == "least_energy_within":
        slowest_s = (1 + rules.max_slowdown) * measured[None][0]
    assert cap_w is None or measured[cap_w][0] <= slowest_s

    def worth(of_w: float | None) -> float:
        seconds, energy_j = measured[of_w]
        if rules.objective == "least_cost":
            return rules.price_per_kwh * energy_j / 3.6e6 + rules.price_per_hour * seconds / 3600
        return energy_j

    allowed = [each for each in offered if each is None or measured[each][0] <= slowest_s]
    assert worth(cap_w) <= min(map(worth, allowed)) * (1 + 1e-12)


@given(rule_sets(), st.floats(0.3, 3.0))
def test_measuring_ends_after_a_run_of_each(rules: CapConfig, exponent: float) -> None:
    """However the device slows down, there is a choice after as many runs as there are caps."""
    rules, device = rules.model_copy(update={"measure": True}), make_device()
    points: tuple[CapPoint, ...] = ()
    for _ in range(len(rules.shares) + 2):
        decision = power_cap.choose(points, device, rules)
        if not decision.facts["measuring"]:
            return
        cap_w = power_cap.watts(decision)
        seconds = (700 / (cap_w or 700)) ** (1 / exponent)
        run = CapRun("GPU-a", cap_w, seconds, (cap_w or 700) * seconds, 1.0)
        points = power_cap.learn(points, run, rules)
    pytest.fail("it goes on measuring")


def test_what_capping_saves_is_known_once_both_were_measured() -> None:
    """Of the device where it saves most energy; as shares of a run without a cap."""
    others = make_points({NONE: (10.0, 6_000.0), MILD: (12.0, 3_000.0)}, uuid="GPU-b")
    found = power_cap.saving((*make_points(TYPICAL), *others), make_rules())
    assert (0.5, 1.2) == found
    assert power_cap.saving(make_points({MILD: (10.4, 5_200.0)}), make_rules()) is None
    assert power_cap.saving(make_points({NONE: (10.0, 6_000.0)}), make_rules()) is None
    assert power_cap.saving(make_points(TYPICAL), make_rules(enabled=False)) is None
