"""A forecast that is trusted decides in a run: it defers what the thermostat would let in.

The device is a simulated one behind a door of its own, and the clock is the test's: an hour of heat
takes no time.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Self

import numpy as np
import pytest

from flows.learning import drift_check, learn_batch
from flows.loop import local_loop
from flows.retraining import retrain, thermal_guard
from flows.retraining.retrain_request import RequestOutcome
from flows.run import power_source
from flows.run.unit_of_work import UnitOfWork
from power.core.device_readings import DeviceSnapshot
from power.devices.device import Device
from power.forecast.job_profile import JobProfile
from power.monitoring import device_monitor
from power.simulation.simulated_device import PRESETS, Plant, Sensors
from tests.flows.makers import ask, make_pipeline

LIQUID = PRESETS["liquid"].model_copy(update={"swing_c": 0.0})
HEAVY = JobProfile(runs=8, mean_w=600.0, mean_s=60.0)
"""A job that a warm device is too warm for at its end, and a cool one is not."""


class Simulated:
    """A door to a plant, on a clock that only `pass_s` moves."""

    def __init__(self) -> None:
        self.plant = Plant(LIQUID, np.random.default_rng(0), Sensors(noise_c=0.3))
        self.now_s = 0.0
        self._survey = self.plant.survey(0.0)

    def __call__(self, **knobs: object) -> Self:
        return self

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        pass

    def monotonic(self) -> float:
        """The clock of whoever reads this device."""
        return self.now_s

    def pass_s(self, seconds: float, load: float) -> None:
        """Let the device work at a load."""
        self.plant.load = load
        self.now_s += seconds
        self._survey = self.plant.survey(self.now_s)

    def survey(self, now_s: float) -> DeviceSnapshot:
        """The last that was read."""
        return self._survey

    def devices(self) -> tuple[Device, ...]:
        """One, of which nobody may set the limit."""
        return tuple(Device(uuid=each.uuid) for each in self._survey.readings)

    def wait_for_news(self, timeout_s: float) -> bool:
        """It has news when the test reads it."""
        time.sleep(min(timeout_s, 0.05))
        return False


class Clock:
    """What `time` is to a module that must live by the test's clock."""

    def __init__(self, door: Simulated) -> None:
        self.monotonic = door.monotonic
        self.time = door.monotonic
        self.perf_counter = time.perf_counter


@pytest.fixture
def door(monkeypatch: pytest.MonkeyPatch) -> Simulated:
    """A machine with a simulated device, whose clock the run goes by; no Prefect."""
    device = Simulated()
    monkeypatch.setattr(power_source, "NvmlAdapter", device)
    for module in (device_monitor, power_source, thermal_guard):
        monkeypatch.setattr(module, "time", Clock(device))
    for room, name in ((learn_batch, "learn"), (drift_check, "check"), (retrain, "retrain")):
        monkeypatch.setattr(room, name, getattr(room, name).fn)
    return device


def look_every_5_s(work: UnitOfWork, door: Simulated, seconds: float, load: float) -> None:
    """The device works, and the follower sees it as often as a real one's readings come."""
    for _ in range(round(seconds / 5)):
        door.pass_s(5.0, load)
        work.run.power.latest()


def become_known(work: UnitOfWork, door: Simulated) -> None:
    """An hour of changing load, past jobs, and then some minutes of work and a short rest.

    The die has cooled by then, which is what the thermostat sees, and the heatsink has not.
    """
    work.state.job = HEAVY
    chance = np.random.default_rng(2)
    for _ in range(20):
        look_every_5_s(work, door, 150, float(chance.choice([0.0, 0.3, 0.6])))
    look_every_5_s(work, door, 600, 0.6)
    look_every_5_s(work, door, 15, 0.0)


def test_a_trusted_forecast_defers_what_the_thermostat_lets_in_until_the_time_it_foretells(
    tmp_path: Path, door: Simulated, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No while warm, with the time to ask again; not before that, but then; each told."""
    endings: list[RequestOutcome] = []
    once = retrain.retrain

    def lived(work: UnitOfWork) -> RequestOutcome | None:
        """Attempts: at once, half way to the moment that it named, and a little after that."""
        become_known(work, door)
        for share in (0.5, 0.7, 0.0):
            ending = once(work)
            assert ending is not None
            endings.append(ending)
            look_every_5_s(work, door, share * (endings[0].again_in_s or 0.0), 0.0)
        return endings[-1]

    monkeypatch.setattr(retrain, "retrain", lived)
    path = make_pipeline(tmp_path, gate={"source": "nvml", "deadline_s": 100_000})
    local_loop.run_loop.fn(path, tmp_path / "home", 200)
    warm, half_way, cool = endings
    assert ["Deferred", "Deferred", "Promoted"] == [each.name for each in endings]
    facts = warm.decision.facts
    assert (True, True, False) == (facts["gate"], facts["forecast_trusted"], facts["forecast"])
    assert "must be left" in warm.decision.because
    assert warm.again_in_s == facts["again_in_s"]
    assert 30 < (warm.again_in_s or 0.0) < 600
    # The second one's time is that of the same moment.
    left_s = (half_way.again_in_s or 0.0) / (warm.again_in_s or 1.0)
    assert 0.5 == pytest.approx(left_s, abs=0.25)
    assert cool.again_in_s is None
    kinds = ask(tmp_path / "home", "SELECT kind, count(*) AS rows FROM forecasts GROUP BY ALL")
    assert {"margin at horizon", "lowest margin of a job"} == {row["kind"] for row in kinds}
    (job,) = ask(tmp_path / "home", "FROM forecasts WHERE kind = 'lowest margin of a job'")
    (cost,) = ask(tmp_path / "home", "FROM costs")
    assert job["actual_c"] == cost["lowest_margin_c"]
    assert 10 <= job["predicted_c"] < job["actual_c"]
    (request,) = ask(tmp_path / "home", "SELECT deferrals, state FROM requests")
    assert {"deferrals": 2, "state": "promoted"} == request


def test_what_a_run_decides_of_a_job_is_json(
    tmp_path: Path, door: Simulated, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Facts are flat, and no number among them is one that JSON has no word for."""
    once = retrain.retrain

    def lived(work: UnitOfWork) -> RequestOutcome | None:
        become_known(work, door)
        return once(work)

    monkeypatch.setattr(retrain, "retrain", lived)
    local_loop.run_loop.fn(make_pipeline(tmp_path, gate={"source": "nvml"}), tmp_path / "home", 200)
    told = ask(tmp_path / "home", "SELECT question, facts FROM decisions")
    assert {"gate", "admission", "deadline"} <= {row["question"] for row in told}
    for row in told:
        facts = json.loads(row["facts"], parse_constant=pytest.fail)
        assert not any(isinstance(each, dict | list) for each in facts.values())
