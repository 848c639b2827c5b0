"""What a fit cost is in history: time, joules, heat, money; one that brought nothing too."""

from __future__ import annotations

import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from threading import Barrier
from typing import Any

import pytest

from flows.cli import run_summary
from flows.loop import local_loop
from flows.run import power_source
from flows.run.cost_meter import Cost, Meter
from flows.run.power_source import PowerSource
from flows.run.state import IntakeState, ServiceTotals
from observability import energy_cost
from observability.energy_cost import Tariff
from power.core.device_readings import DeviceSnapshot
from power.core.gate_config import GateConfig
from power.devices.cpu_sensors import CpuSensorAdapter
from power.devices.fake_nvml import FakeNvml
from power.devices.leases import Leases
from power.devices.nvml import NvmlAdapter
from power.forecast.config import ForecastConfig
from power.metering.energy import Energy
from power.monitoring.device_monitor import DeviceMonitor
from tests.flows.makers import ask, make_pipeline
from tests.power.makers import (
    COOL_C,
    HOT_C,
    StandInPsutil,
    make_gpu,
    make_reading,
    make_survey,
    make_temperature,
    make_twin,
    write_trace,
)

pytestmark = [pytest.mark.usefixtures("without_prefect"), pytest.mark.slow]

FAILING = """
from sklearn.dummy import DummyClassifier

class Failing(DummyClassifier):
    def fit(self, X, y):
        {act}
        return super().fit(X, y)
"""


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Callable[[FakeNvml], None]:
    """Put a stand-in for NVIDIA's library into this machine."""

    def put(twin: FakeNvml) -> None:
        monkeypatch.setattr(power_source, "NvmlAdapter", partial(NvmlAdapter, twin=twin))

    return put


def run(folder: Path, records: int = 1_000, **tables: Any) -> dict[str, Any]:
    """The summary of a small pipeline that was run to its end."""
    # Each alarm leads to a fit here, whatever it is worth.
    knobs: dict[str, Any] = {"worth": {"decide": "alarm"}, **tables}
    told: dict[str, Any] = local_loop.run_loop.fn(
        make_pipeline(folder, records, **knobs), folder / "home"
    )
    return told


def test_every_fit_has_a_cost_and_the_model_that_came_of_it(tmp_path: Path) -> None:
    """Promoted or kept: one row each, around the time of the fit alone, in the request's name."""
    told = run(tmp_path)
    fits = ask(
        tmp_path / "home",
        "SELECT c.*, m.fit_s, m.state, r.state AS settled FROM costs c"
        " JOIN models m ON m.version = c.version AND m.run_id = c.run_id"
        " JOIN requests r ON r.request_id = c.request_id ORDER BY c.position",
    )
    assert {"promoted", "rejected"} == {fit["state"] for fit in fits}
    assert told["retrains"] == len(fits) == len(ask(tmp_path / "home", "FROM costs"))
    for fit in fits:
        assert fit["state"] == fit["settled"]
        assert 0 < fit["fit_s"] <= fit["seconds"]
        assert fit["cpu_s"] > 0
        assert ("fit", f"v{fit['position']:09d}") == (fit["work"], fit["version"])


def test_a_run_tells_its_processor_time_its_machine_and_its_fits(tmp_path: Path) -> None:
    """History and summary say the same of one run."""
    told = run(tmp_path)["run"]
    (row,) = ask(tmp_path / "home", "FROM runs")
    assert socket.gethostname() == row["host"]
    assert 0 < row["cpu_s"] <= told["cpu_s"]
    assert pytest.approx(row["fit_s"]) == told["fit_s"]
    assert (3, None, None) == (told["fits"], told["fit_joules"], row["fit_joules"])
    assert "the gate is off" in told["energy"]
    again = run(tmp_path)["run"]
    assert (0, 0.0, 0.0, None) == tuple(
        again[key] for key in ("fits", "fit_s", "fit_joules", "energy")
    )
    assert (0.0, 0.0) == (again["fit_price"], again["fit_carbon_g"])
    assert again["cpu_s"] < told["cpu_s"]


def test_a_live_device_tells_the_joules(
    tmp_path: Path, machine: Callable[[FakeNvml], None]
) -> None:
    """120 W for as long as it took, whichever way they are read; the counter is in the readings."""
    machine(make_twin())
    told = run(tmp_path, gate={"source": "nvml"})["run"]
    fits = ask(tmp_path / "home", "FROM costs")
    for fit in fits:
        # A reading is heard of a moment after it was taken, later still on a busy machine.
        assert pytest.approx(120 * fit["seconds"], rel=0.25) == fit["joules"]
        assert fit["energy_source"] in {"counter", "power"}
    assert pytest.approx(sum(fit["joules"] for fit in fits)) == told["fit_joules"]
    assert set(told["energy"].split(", ")) == {fit["energy_source"] for fit in fits}
    readings = ask(tmp_path / "home", "SELECT energy_j, margin_source, source FROM gpu_readings")
    assert readings
    assert all(row["energy_j"] >= 5_000_000 for row in readings)
    assert {("margin", "nvml")} == {(row["margin_source"], row["source"]) for row in readings}


def test_a_heavy_fit_is_gated_by_the_cpu_where_the_pipeline_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same readings of the CPU, from its threshold; too hot, nothing is fitted."""
    for name in ("cool", "hot"):
        (tmp_path / name).mkdir()
    sensors = StandInPsutil({"coretemp": [make_temperature(current=45.0)]})
    monkeypatch.setattr(power_source, "CpuSensorAdapter", partial(CpuSensorAdapter, tool=sensors))
    assert run(tmp_path / "cool", gate={"source": "cpu"})["retrains"]
    readings = ask(tmp_path / "cool/home", "FROM gpu_readings")
    assert {("cpu-0", "cpu", "threshold", 55.0)} == {
        (row["uuid"], row["source"], row["margin_source"], row["margin_c"]) for row in readings
    }
    sensors.chips = {"coretemp": [make_temperature(current=99.0)]}
    hot = run(tmp_path / "hot", gate={"source": "cpu"})
    assert (0, True) == (hot["retrains"], hot["deferrals"] > 0)


def test_the_history_tells_the_margin_that_the_gate_went_by(
    tmp_path: Path, machine: Callable[[FakeNvml], None]
) -> None:
    """A device that tells a temperature alone is counted from the configured maximum."""
    machine(make_twin(make_gpu(tlimit_c=None)))
    run(tmp_path, gate={"source": "nvml", "max_temperature_c": 85.0})
    readings = ask(tmp_path / "home", "SELECT DISTINCT margin_source, margin_c FROM gpu_readings")
    assert [{"margin_source": "maximum", "margin_c": 40.0}] == readings


def test_a_device_without_power_and_counter_leaves_the_joules_unknown(
    tmp_path: Path, machine: Callable[[FakeNvml], None]
) -> None:
    """Unknown is NULL, with the reason in the summary, and not zero."""
    machine(make_twin(make_gpu(power_mw=None, energy_mj=None)))
    told = run(tmp_path, 300, gate={"source": "nvml"})["run"]
    (fit,) = ask(tmp_path / "home", "FROM costs")
    assert (None, None, None) == tuple(
        fit[name] for name in ("joules", "energy_source", "mean_power_w")
    )
    assert (None, "GPU-a reports neither energy nor power") == (told["fit_joules"], told["energy"])


RATES = "[energy]\nprice_per_kwh = 0.3\ncarbon_g_per_kwh = 400\npue = 1.5\n"


def test_a_live_device_tells_how_warm_a_fit_made_it(
    tmp_path: Path, machine: Callable[[FakeNvml], None]
) -> None:
    """Power, temperature, margin and slowdowns of the one device; let in at once, it waited 0 s."""
    machine(make_twin(make_gpu(throttle_mask=0x4)))
    run(tmp_path, gate={"source": "nvml"})
    fits = ask(tmp_path / "home", "FROM costs")
    assert fits
    for fit in fits:
        assert ("GPU-a", 45.0, 42.0) == tuple(
            fit[name] for name in ("uuid", "peak_temperature_c", "lowest_margin_c")
        )
        assert pytest.approx(fit["mean_power_w"] * fit["seconds"]) == fit["joules"]
        assert max(120.0, fit["mean_power_w"]) == pytest.approx(fit["peak_power_w"])
        assert 0.0 == fit["deferred_s"]
        # A short fit may end before the device was read anew: then no time was watched.
        assert {fit["throttled_s"], fit["unread_s"]} in ({0.0}, {None})
        assert (None, None, None, None) == tuple(
            fit[name] for name in ("price", "currency", "carbon_g", "pue")
        )


def test_the_home_says_what_the_energy_of_its_fits_costs(
    tmp_path: Path, machine: Callable[[FakeNvml], None]
) -> None:
    """Money and grams by the rates of its file, in `costs`, in `runs` and in the summary."""
    machine(make_twin())
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "thermodrift.toml").write_text(RATES)
    told = run(tmp_path, gate={"source": "nvml"})["run"]
    fits = ask(tmp_path / "home", "FROM costs")
    for fit in fits:
        assert pytest.approx(fit["joules"] / 3.6e6 * 1.5 * 0.3) == fit["price"]
        assert pytest.approx(fit["joules"] / 3.6e6 * 1.5 * 400) == fit["carbon_g"]
        assert ("EUR", 1.5) == (fit["currency"], fit["pue"])
    (row,) = ask(tmp_path / "home", "FROM runs")
    for name, each in (("fit_price", "price"), ("fit_carbon_g", "carbon_g")):
        assert pytest.approx(sum(fit[each] for fit in fits)) == row[name]
        assert pytest.approx(row[name]) == told[name]
    assert "EUR" == row["currency"] == told["currency"]


def test_a_fit_that_waited_tells_for_how_long(tmp_path: Path) -> None:
    """On the clock of the trace: what `deferrals` says of its request, and 0 of the others."""
    hot = [{"elapsed_s": 10 * i, "margin_c": HOT_C if i < 4 else COOL_C} for i in range(20)]
    write_trace(tmp_path / "trace.csv", *hot)
    run(tmp_path, gate={"source": "trace", "trace": "trace.csv", "trace_s_per_record": 0.1})
    fits = ask(
        tmp_path / "home",
        "SELECT c.deferred_s, coalesce(d.deferred_s, 0) AS waited_s, c.uuid, c.lowest_margin_c"
        " FROM costs c LEFT JOIN deferrals d USING (request_id) ORDER BY c.position",
    )
    assert fits[0]["deferred_s"] > 0
    assert [fit["waited_s"] for fit in fits] == [fit["deferred_s"] for fit in fits]
    # The trace does not tell of a job that runs today.
    assert {(None, None)} == {(fit["uuid"], fit["lowest_margin_c"]) for fit in fits}


def test_a_recorded_trace_tells_no_energy(tmp_path: Path) -> None:
    """Its clock stands still during a fit, whatever power and energy were recorded."""
    write_trace(tmp_path / "trace.csv", *({"elapsed_s": 10 * i} for i in range(200)))
    told = run(tmp_path, 300, gate={"source": "trace", "trace": "trace.csv"})["run"]
    (fit,) = ask(tmp_path / "home", "FROM costs")
    assert (None, None) == (fit["joules"], fit["energy_source"])
    assert fit["seconds"] > 0
    assert "recorded trace" in told["energy"]


def test_a_fit_that_brought_nothing_cost_what_it_cost(tmp_path: Path) -> None:
    """It ran and failed: a row without a version, and the request says that it was started."""
    (tmp_path / "own_failing.py").write_text(FAILING.format(act="raise ValueError('no')"))
    run(tmp_path, 400, batch={"recipe": "own_failing:Failing"})
    fits = ask(
        tmp_path / "home",
        "SELECT c.*, r.started_at AS fit_started_at, r.state FROM costs c"
        " JOIN requests r USING (request_id)",
    )
    assert fits
    for fit in fits:
        assert (None, "no_model") == (fit["version"], fit["state"])
        assert fit["seconds"] > 0
        assert fit["fit_started_at"] <= fit["started_at"]


def test_what_is_refused_before_it_is_fitted_cost_nothing(tmp_path: Path) -> None:
    """No fit ran, so there is no row, and the request was never started."""
    run(tmp_path, 400, batch={"min_rows": 5_000})
    (request,) = ask(tmp_path / "home", "SELECT DISTINCT state, started_at FROM requests")
    assert {"state": "no_model", "started_at": None} == request
    assert [] == ask(tmp_path / "home", "FROM costs")


def test_a_fit_that_a_signal_broke_off_is_paid_for_and_comes_again(tmp_path: Path) -> None:
    """Its cost is told without a model; the next run's fit, for the same request, has its own."""
    act = "import os, signal; os.kill(os.getpid(), signal.SIGTERM)"
    (tmp_path / "own_broken.py").write_text(FAILING.format(act=act))
    knobs = {"batch": {"recipe": "own_broken:Failing"}}
    told = run(tmp_path, 400, **knobs)
    assert ("stopped", 1) == (told["outcome"], told["run"]["fits"])
    (broken,) = ask(tmp_path / "home", "FROM costs")
    assert (None, told["open_request"]["request_id"]) == (broken["version"], broken["request_id"])
    (tmp_path / "own_whole.py").write_text(FAILING.format(act="pass"))
    run(tmp_path, 400, batch={"recipe": "own_whole:Failing"})
    versions = ask(tmp_path / "home", "SELECT request_id, version FROM costs ORDER BY started_at")
    assert broken["request_id"] == versions[1]["request_id"]
    assert [None, "v000000200"] == [row["version"] for row in versions][:2]


class Looks:
    """A door that has one survey to show."""

    def __init__(self, survey: DeviceSnapshot) -> None:
        self._survey = survey

    def survey(self, now_s: float) -> DeviceSnapshot:
        """The same, whenever it is asked."""
        return self._survey


def source(after: DeviceSnapshot, **knobs: Any) -> PowerSource:
    """A source of live readings whose next look is `after`."""
    door: Any = Looks(after)
    limits, rules = GateConfig(**knobs), ForecastConfig()
    return PowerSource(
        limits, rules, Leases(Path("unused")), None, DeviceMonitor(door, limits, rules)
    )


def test_the_energy_is_that_of_the_devices_that_count() -> None:
    """All, or the one that the gate was told to go by."""
    before = make_survey(*(make_reading(uuid=name, energy_j=0.0) for name in ("GPU-a", "GPU-b")))
    after = make_survey(
        make_reading(read_at_s=10.0, energy_j=1_000.0),
        make_reading(uuid="GPU-b", read_at_s=10.0, energy_j=3_000.0),
    )
    assert (4_000.0, "counter") == source(after).energy(before, 10.0)[:2]
    assert (3_000.0, "counter") == source(after, uuid="GPU-b").energy(before, 10.0)[:2]


def test_a_meter_tells_no_cost_of_what_did_not_run_and_all_of_what_raised() -> None:
    """Unstarted it has none; an error passes through a meter, and is metered."""
    meter = Meter(source(make_survey()), make_survey())
    assert meter.cost is None
    with pytest.raises(ValueError, match="no"), meter.running():
        raise ValueError("no")
    assert meter.cost is not None
    assert meter.cost.seconds > 0
    assert meter.cost.energy.joules is None


def metered(
    power: PowerSource, before: DeviceSnapshot, *surveys: DeviceSnapshot, uuid: str | None = None
) -> Cost:
    """What a piece of work cost during which `surveys` were handed in."""
    meter = Meter(power, before, uuid)
    with meter.running():
        for survey in surveys:
            meter.on_snapshot(survey)
    assert meter.cost is not None
    return meter.cost


def test_a_meter_without_anybody_watching_knows_the_two_ends() -> None:
    """The reading that let the work begin, the last of its survey, and the one at its end."""
    before = make_survey(
        make_reading(temperature_c=99.0), make_reading(read_at_s=10.0, power_w=100.0)
    )
    after = make_survey(make_reading(read_at_s=20.0, power_w=300.0, temperature_c=70.0))
    cost = metered(source(after), before)
    figures = cost.figures
    assert (2, 200.0, 300.0, 70.0, 0.0) == (
        figures.readings,
        figures.mean_power_w,
        figures.peak_power_w,
        figures.peak_temperature_c,
        figures.throttled_s,
    )
    assert pytest.approx(200.0 * cost.seconds) == cost.energy.joules


def test_a_meter_takes_what_was_seen_meanwhile() -> None:
    """Its heat and its energy are then of all readings, each of which counts once."""
    peak = make_survey(
        make_reading(read_at_s=10.0, power_w=550.0, margin_c=2.0, throttle_reasons="hw_slowdown")
    )
    after = make_survey(make_reading(read_at_s=20.0))
    cost = metered(source(after), make_survey(make_reading()), peak, peak, peak)
    figures = cost.figures
    assert (3, 350.0, 550.0, 2.0, 10.0) == (
        figures.readings,
        figures.mean_power_w,
        figures.peak_power_w,
        figures.lowest_margin_c,
        figures.throttled_s,
    )
    assert pytest.approx(350.0 * cost.seconds) == cost.energy.joules
    assert "power" == cost.energy.source


def test_a_meter_counts_the_device_that_the_work_is_done_on() -> None:
    """The one it was told, before the one that the gate goes by; else all that are read."""
    before = make_survey(*(make_reading(uuid=name) for name in ("GPU-a", "GPU-b")))
    after = make_survey(
        *(make_reading(uuid=name, read_at_s=10.0, power_w=350.0) for name in ("GPU-a", "GPU-b"))
    )
    one = metered(source(after, uuid="GPU-a"), before, uuid="GPU-b")
    assert ("GPU-b", 1, 250.0) == (
        one.figures.uuid,
        one.figures.devices,
        one.figures.mean_power_w,
    )
    assert "GPU-a" == metered(source(after, uuid="GPU-a"), before).figures.uuid
    both = metered(source(after), before)
    assert (None, 2, 500.0) == (
        both.figures.uuid,
        both.figures.devices,
        both.figures.mean_power_w,
    )


def test_where_readings_do_not_tell_the_energy_those_at_the_ends_do() -> None:
    """A work of hours of which nobody read a thing: the mean of both ends, as ever."""
    after = make_survey(make_reading(read_at_s=7_200.0, power_w=250.0))
    cost = metered(source(after), make_survey(make_reading()))
    assert (None, 7_200.0, 1) == (
        cost.figures.mean_power_w,
        cost.figures.unread_s,
        cost.figures.gaps,
    )
    assert pytest.approx(200.0 * cost.seconds) == cost.energy.joules


def test_a_meter_takes_nothing_after_the_end_and_from_many_threads_everything() -> None:
    """Whoever watches need not know whether the work still goes on."""
    meter = Meter(source(make_survey()), make_survey(make_reading(uuid="GPU-z")))
    together = Barrier(8)

    def watch_one(number: int) -> None:
        together.wait()
        for i in range(200):
            meter.on_snapshot(make_survey(make_reading(uuid=f"GPU-{number}", read_at_s=float(i))))

    with meter.running(), ThreadPoolExecutor(8) as pool:
        list(pool.map(watch_one, range(8)))
    cost = meter.cost
    assert cost is not None
    assert (9, 1, 49.0) == (
        cost.figures.devices,
        cost.figures.readings,
        cost.figures.peak_temperature_c,
    )
    meter.on_snapshot(make_survey(make_reading(uuid="GPU-z", read_at_s=300.0, temperature_c=99.0)))
    assert cost is meter.cost


def test_a_cost_is_billed_at_the_rates_that_are_known() -> None:
    """Until then, and without energy, what it cost is unknown."""
    after = make_survey(make_reading(read_at_s=10.0))
    cost = metered(source(after), make_survey(make_reading()))
    rates = Tariff(price_per_kwh=3.6e5, pue=2.0)
    assert energy_cost.UNKNOWN == cost.bill
    assert pytest.approx(2.0 * 15.0 * cost.seconds) == cost.billed(rates).bill.price
    silent = metered(source(make_survey()), make_survey())
    assert energy_cost.UNKNOWN == silent.billed(rates).bill


def test_one_fit_of_unknown_energy_leaves_the_sum_of_the_run_unknown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A part of the joules would pass for all of them, in history and in the summary."""
    energies = iter(
        [Energy(5.0, "power", ""), Energy(None, None, "lost"), Energy(7.0, "power", "")]
    )
    monkeypatch.setattr(PowerSource, "energy", lambda *_: next(energies))
    told = run(tmp_path)["run"]
    assert (3, None, "lost") == (told["fits"], told["fit_joules"], told["energy"])
    assert (None, None, None) == tuple(told[k] for k in ("fit_price", "currency", "fit_carbon_g"))
    (row,) = ask(tmp_path / "home", "SELECT fit_joules FROM runs")
    assert row["fit_joules"] is None
    assert [5.0, None, 7.0] == [row["joules"] for row in ask(tmp_path / "home", "FROM costs")]


@pytest.mark.parametrize(
    ("fits", "joules", "price", "carbon_g", "told"),
    [
        (0, 0.0, 0.0, 0.0, "7.0 s of processor time\n"),
        (1, 1_200.0, None, None, "7.0 s of processor time; 1 fit took 2.0 s and 1,200 J\n"),
        (1, 9.0, None, 0.12, "; 1 fit took 2.0 s and 9 J (0.12 g of CO2)\n"),
        (1, 9.0, 0.0001, 1_234.5, " and 9 J (under 0.01 CHF, 1,234.50 g of CO2)\n"),
        (1, 9.0, 0.0, None, " and 9 J (0.00 CHF)\n"),
        (
            *(2, None, None, None),
            "7.0 s of processor time; 2 fits took 2.0 s and an unknown amount of energy\n",
        ),
    ],
)
def test_the_story_of_a_run_says_in_a_line_what_it_cost(
    fits: int,
    joules: float | None,
    price: float | None,
    carbon_g: float | None,
    told: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Processor time always, fits where there were any; joules, money and grams where known."""
    run = {"records": 1, "seconds": 8.0, "records_per_second": None, "cpu_s": 7.0}
    counted = ("learned", "unlabelled", "rejected", "alarms", "retrains", "promotions")
    counts = dict.fromkeys(counted, 0)
    run_summary.render(
        {
            "run": {
                **run,
                "fits": fits,
                "fit_s": 2.0,
                "fit_joules": joules,
                "fit_price": price,
                "currency": "CHF",
                "fit_carbon_g": carbon_g,
                "warnings": 0,
            },
            "pipeline": "small",
            "outcome": "finished",
            "because": "of this test",
            **counts,
            "deferrals": 0,
            "reads_from": "nvml",
            "metric": "accuracy",
            "scores": {},
            "judged_by": "brier",
            "judged": {},
            "threshold": None,
            "calibration": None,
            "champion_value": None,
            "candidate": None,
            "reused": 0,
            "unknown_votes": [],
            "open_request": None,
            "intake": IntakeState().brief(),
            "history_trouble": None,
            "metrics_trouble": None,
            "service": vars(ServiceTotals()),
            "unlabelled_look": None,
            "estimate": None,
            "labels": None,
            "unfinished_bytes": 0,
            "home": "home",
        },
        "small.toml",
    )
    assert told in capsys.readouterr().out
