"""The figures of a home are those of its pipelines, its gate, its history and its upkeep."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from flows.config import pipeline
from flows.loop import local_loop
from flows.maintenance import upkeep
from flows.metrics import home_metrics
from flows.metrics.gate_recorder import EVERY_S, GateRecorder
from flows.run.power_source import PowerSource
from observability.core.paths import Places
from observability.history.store import History
from observability.metrics import definitions, samples
from observability.metrics.definitions import Metric
from power.core.gate_config import GateConfig
from power.monitoring.device_monitor import MonitorView
from power.policy import gate, override_file
from power.policy.gate import GateState
from power.policy.gate_override import Override
from tests.flows.makers import NAME, make_pipeline
from tests.pace import until
from tests.power.makers import make_reading, make_survey, write_trace

pytestmark = pytest.mark.usefixtures("without_prefect")

LATER_S = 4e9
"""A moment after all that these tests write, in seconds since 1970."""


def told(home: Path, now_s: float | None = None) -> dict[Metric, dict[tuple[str, ...], float]]:
    """The values of each metric by its labels; of a summary the sum."""
    clock = {} if now_s is None else {"clock": lambda: now_s}
    found: dict[Metric, dict[tuple[str, ...], float]] = {}
    for each in home_metrics.collect(Places(home), **clock):
        assert each.labels not in found.setdefault(each.metric, {}), "a value comes twice"
        found[each.metric][each.labels] = each.value
    return found


def test_a_home_that_is_not_there_tells_its_version_and_nothing_else(tmp_path: Path) -> None:
    """Nothing of it is made by asking."""
    found = told(tmp_path / "home")
    assert {definitions.INFO, definitions.OUTBOX, definitions.CORRUPT} <= set(found)
    assert definitions.HISTORY_BYTES not in found
    assert not (tmp_path / "home").exists()


def test_a_run_is_told_as_its_summary_says(tmp_path: Path) -> None:
    """Counts, scores by member, champion, and when it learned last."""
    began = datetime.now(UTC).timestamp()
    path = make_pipeline(tmp_path)
    summary = local_loop.run_loop.fn(path, tmp_path / "home")
    found = told(tmp_path / "home")
    mine = (NAME,)
    for metric, key in (
        (definitions.POSITION, "position"),
        (definitions.RECORDS, "records"),
        (definitions.LEARNED, "learned"),
        (definitions.REJECTED, "rejected"),
        (definitions.ALARMS, "alarms"),
        (definitions.RETRAINS, "retrains"),
        (definitions.PROMOTIONS, "promotions"),
    ):
        assert summary[key] == found[metric][mine], key
    assert {(NAME, summary["champion"]): 1.0} == found[definitions.CHAMPION]
    sums = found[definitions.SCORE]
    assert summary["scores"]["served"] * summary["scored"]["served"] == pytest.approx(
        sums[NAME, "served", "accuracy"]
    )
    assert began <= found[definitions.LEARNED_AT][mine] <= found[definitions.CHECKPOINT_AT][mine]
    assert 1.0 == found[definitions.INTAKE_WELL][mine]
    assert 0.0 == found[definitions.REQUEST_OPEN][mine]
    rows = History(tmp_path / "home").ask("SELECT count(*) AS n FROM decisions").to_pylist()
    assert rows[0]["n"] == found[definitions.ROWS]["decision_rows",]
    assert 0.0 == found[definitions.OUTBOX][()]
    assert (tmp_path / "home" / "history.duckdb").stat().st_size == found[
        definitions.HISTORY_BYTES
    ][()]
    assert 1.0 == found[definitions.SOURCE_READABLE][f"checkpoint of {NAME}",]


def test_a_request_that_waits_for_the_gate_is_told_with_its_cause(tmp_path: Path) -> None:
    """A hot trace defers; what was read of the device is told beside."""
    write_trace(tmp_path / "hot.csv", *({"margin_c": 3} for _ in range(1_000)))
    gated = {"source": "trace", "trace": "hot.csv", "trace_s_per_record": 1.0}
    path = make_pipeline(tmp_path, gate=gated)
    summary = local_loop.run_loop.fn(path, tmp_path / "home")
    found = told(tmp_path / "home")
    assert 1.0 == found[definitions.REQUEST_OPEN][NAME,]
    assert {(NAME, "too_warm"): summary["deferrals"]} == found[definitions.DEFERRALS]
    # On the trace's clock, a second for each record.
    asked_at = summary["open_request"]["asked_position"]
    assert summary["position"] - asked_at == found[definitions.REQUEST_WAIT][NAME,]
    assert {(NAME, "too_warm"): 1.0} == found[definitions.GATE_CLOSED]
    assert {("GPU-a",): 3.0} == found[definitions.MARGIN]
    assert definitions.MARGIN not in told(tmp_path / "home", LATER_S)
    assert definitions.DEVICE_READ_AT in told(tmp_path / "home", LATER_S)


def test_what_cannot_be_read_is_said_and_the_rest_is_told(tmp_path: Path) -> None:
    """A damaged checkpoint, an override that nobody understands, a snapshot that is none."""
    home = tmp_path / "home"
    local_loop.run_loop.fn(make_pipeline(tmp_path), home, 100)
    places = Places(home)
    places.pipeline(NAME).checkpoint.write_bytes(b"\0")
    places.override.write_text("{}", encoding="utf-8")
    (places.metrics / "foreign.json").write_text("[]", encoding="utf-8")
    found = told(home)
    assert {
        (f"checkpoint of {NAME}",): 0.0,
        ("foreign",): 0.0,
        ("gate override",): 0.0,
        ("history",): 1.0,
        ("outbox",): 1.0,
    } == found[definitions.SOURCE_READABLE]
    assert definitions.POSITION not in found
    assert found[definitions.ROWS]


def test_an_override_is_told_while_it_is_in_force(tmp_path: Path) -> None:
    """With its answer; not after its end."""
    set_at = datetime(2026, 1, 1, tzinfo=UTC)
    until = set_at + timedelta(hours=1)
    override = Override(open=False, set_at=set_at, until=until, because="test")
    override_file.write(Places(tmp_path).override, override)
    assert {("closed",): 1.0} == told(tmp_path, set_at.timestamp())[definitions.OVERRIDE]
    assert definitions.OVERRIDE not in told(tmp_path, until.timestamp())


def test_what_waits_in_the_outbox_is_counted_with_its_age(tmp_path: Path) -> None:
    """And what was found damaged."""
    outbox = Places(tmp_path).outbox
    outbox.mkdir()
    for name, at in (("a.json", 100), ("b.json", 50), ("c.json.corrupt", 10)):
        (outbox / name).touch()
        os.utime(outbox / name, (at, at))
    (tmp_path / "history.duckdb.wal.damaged-1").touch()
    found = told(tmp_path)
    assert 2.0 == found[definitions.OUTBOX][()]
    assert 50.0 == found[definitions.OUTBOX_OLDEST][()]
    assert 2.0 == found[definitions.CORRUPT][()]


def test_upkeep_is_told_and_keeps_the_time_of_its_last_success(tmp_path: Path) -> None:
    """An upkeep that fails is no success; what it freed is that of its merges."""
    home = tmp_path / "home"
    local_loop.run_loop.fn(make_pipeline(tmp_path), home, 400)
    upkeep.fn(home)
    first = told(home)
    assert first[definitions.UPKEEP_AT] == first[definitions.UPKEEP_SUCCESS_AT]
    assert first[definitions.UPKEEP_FREED][()] > 0
    assert {("done",): 2.0, ("later",): 0.0, ("failed",): 0.0} == first[definitions.UPKEEP_TASKS]
    Places(home).pipeline(NAME).checkpoint.write_bytes(b"\0")
    upkeep.fn(home)
    second = told(home)
    assert first[definitions.UPKEEP_SUCCESS_AT] == second[definitions.UPKEEP_SUCCESS_AT]
    assert first[definitions.UPKEEP_AT][()] < second[definitions.UPKEEP_AT][()]
    assert 1.0 == second[definitions.UPKEEP_TASKS]["failed",]


def test_the_recorder_leaves_a_view_once_in_a_while(tmp_path: Path) -> None:
    """Readings come several times a second; a clock that is set back does not silence it."""
    now_s = [1_000.0]
    config = GateConfig()
    recorder = GateRecorder(tmp_path / "gate.json", NAME, config, lambda: now_s[0])

    def left(margin_c: float, at_s: float) -> float:
        now_s[0] = at_s
        seen = make_survey(make_reading(margin_c=margin_c))
        judged = gate.judge(seen, GateState(), config, 0.0)
        recorder(MonitorView(seen, judged, {}, 0.0))
        known = samples.read(tmp_path / "gate.json").samples
        return next(each.value for each in known if each.metric is definitions.MARGIN)

    assert [30.0, 30.0, 32.0, 33.0] == [
        left(30.0, 1_000.0),
        left(31.0, 1_000.0 + EVERY_S / 2),
        left(32.0, 1_000.0 + EVERY_S),
        left(33.0, 500.0),
    ]


def test_a_disk_that_refuses_figures_stops_no_reading(tmp_path: Path) -> None:
    """The folder of the snapshots is a file here."""
    (tmp_path / "metrics").touch()
    recorder = GateRecorder(tmp_path / "metrics" / "gate.json", NAME, GateConfig())
    seen = make_survey(make_reading())
    judged = gate.judge(seen, GateState(), GateConfig(), 0.0)
    recorder(MonitorView(seen, judged, {}, 0.0))
    assert (tmp_path / "metrics").is_file()


def test_live_devices_are_told_while_a_run_has_them_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also when nobody asks the gate: whoever scrapes sees the present margin."""
    gpus = '{"gpus": [{"uuid": "GPU-a", "tlimit_c": 27}]}'
    (tmp_path / "gpus.json").write_text(gpus, encoding="utf-8")
    monkeypatch.setenv("THERMODRIFT_FAKE_NVML", str(tmp_path / "gpus.json"))
    file = pipeline.read(make_pipeline(tmp_path, gate={"source": "nvml"}))
    places = Places(tmp_path / "home")
    places.home.mkdir()
    with PowerSource.opened(file, places):
        until(lambda: definitions.DEVICE_READABLE in told(places.home), "a reading")
        found = told(places.home)
    assert {(NAME, "nvml"): 1.0} == found[definitions.DRIVER_READABLE]
    assert {("GPU-a",): 1.0} == found[definitions.DEVICE_READABLE]
    # As the gate counts it: this device slows down at a T.Limit of -2 °C.
    assert {("GPU-a",): 29.0} == found[definitions.MARGIN]
