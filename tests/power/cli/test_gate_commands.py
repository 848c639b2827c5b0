"""The commands `gate show|watch|simulate` and `gpu probe`, as a user types them."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from observability.core.cli_output import CliContext
from observability.core.errors import BadConfiguration
from observability.core.paths import Places
from power.cli import gate_commands, simulate_command
from power.core.device_readings import DeviceSnapshot
from power.core.gate_config import GateConfig
from power.devices.cpu_sensors import CpuSensorAdapter
from power.devices.fake_nvml import FakeNvml
from power.devices.nvml import NvmlAdapter
from power.devices.trace import Trace, TraceUnreadable
from power.forecast import device_state_file
from tests.power.forecast.test_forecast import KNOWN
from tests.power.makers import (
    StandInPsutil,
    make_gpu,
    make_reading,
    make_survey,
    make_temperature,
    make_twin,
    write_trace,
)


def run(app: Any, *arguments: object) -> Result:
    """Type a command; exceptions of ours come through, as they do to the front desk."""
    result = CliRunner().invoke(
        app, [str(each) for each in arguments], obj=CliContext(home=Path("unused"))
    )
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    """Cool, between, hot, between, cool: one reading per second of GPU-a."""
    return write_trace(
        tmp_path / "t.csv", *({"margin_c": margin_c} for margin_c in (30, 15, 5, 15, 25))
    )


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Callable[[FakeNvml], None]:
    """Put a stand-in into this machine."""

    def be(twin: FakeNvml) -> None:
        def door(visible: str | None) -> NvmlAdapter:
            return NvmlAdapter(visible=visible, twin=twin, poll_s=0.02, first_answer_s=10.0)

        monkeypatch.setattr("power.devices.nvml.NvmlAdapter", door)

    return be


@pytest.fixture(autouse=True)
def cpu(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Put stand-in sensors into this machine; at first it has none."""

    def be(**chips: list[Any]) -> None:
        def door() -> CpuSensorAdapter:
            return CpuSensorAdapter(
                tool=StandInPsutil(chips), powercap=Path("nowhere"), poll_s=0.02
            )

        monkeypatch.setattr("power.devices.cpu_sensors.CpuSensorAdapter", door)

    be()
    return be


def test_show_says_open_or_closed_and_ends_accordingly(trace: Path) -> None:
    """Exit code 0 for open and 75 for try again later, at any second of a trace."""
    ends = {
        at_s: run(gate_commands.gate_app, "show", "--trace", trace, "--at", at_s) for at_s in (1, 3)
    }
    assert {1: 0, 3: 75} == {at_s: result.exit_code for at_s, result in ends.items()}
    assert "gate: open" in ends[1].stdout
    assert "gate: closed" in ends[3].stdout
    assert "it opens at a margin of 20 °C or more" in ends[3].stdout


def test_show_judges_the_end_of_a_trace_by_default(trace: Path) -> None:
    """The last reading is the newest there is."""
    result = run(gate_commands.gate_app, "show", "--trace", trace, "--dwell-s", 0, "--json")
    answer = json.loads(result.stdout)
    assert (0, True, 25.0) == (result.exit_code, answer["yes"], answer["facts"]["margin_c"])


def test_show_long_after_a_trace_is_closed(trace: Path) -> None:
    """Readings that grew old keep nothing open."""
    result = run(gate_commands.gate_app, "show", "--trace", trace, "--at", 500)
    assert 75 == result.exit_code
    assert "older than max_age_s" in result.stdout


def test_show_prints_one_json_document_also_when_closed(trace: Path) -> None:
    """The no is as much an answer as the yes."""
    result = run(gate_commands.gate_app, "show", "--trace", trace, "--at", 2, "--json")
    answer = json.loads(result.stdout)
    assert (75, "gate", False) == (result.exit_code, answer["question"], answer["yes"])
    assert {"uuid", "margin_c", "pause_margin_c", "resume_margin_c", "age_s"} <= set(
        answer["facts"]
    )


@pytest.mark.parametrize(
    ("options", "exit_code"),
    [
        (["--resume-margin-c", "26"], 75),
        (["--good-readings", "2"], 75),
        (["--pause-margin-c", "4", "--resume-margin-c", "15"], 0),
        (["--uuid", "GPU-b"], 75),
        (["--max-age-s", "0.5"], 0),
        (["--dwell-s", "3"], 75),
    ],
)
def test_show_takes_the_limits_as_options(trace: Path, options: list[str], exit_code: int) -> None:
    """Each option is a knob of [gate]."""
    words = ["show", "--trace", trace, "--dwell-s", "0", *options]
    assert exit_code == run(gate_commands.gate_app, *words).exit_code


def test_show_reads_this_machine(machine: Callable[[FakeNvml], None]) -> None:
    """Without a trace the devices are asked, as many rounds as good readings are wanted."""
    machine(make_twin())
    assert 0 == run(gate_commands.gate_app, "show").exit_code
    assert 0 == run(gate_commands.gate_app, "show", "--good-readings", 3).exit_code
    machine(make_twin(make_gpu(tlimit_c=1)))
    assert 75 == run(gate_commands.gate_app, "show").exit_code
    machine(make_twin(nvmlInitWithFlags="driver_not_loaded"))
    assert 0 == run(gate_commands.gate_app, "show").exit_code
    assert 75 == run(gate_commands.gate_app, "show", "--no-driver", "wait").exit_code


def test_show_tells_how_good_the_forecasts_of_a_device_were(
    machine: Callable[[FakeNvml], None], tmp_path: Path
) -> None:
    """What this home has checked so far, per device and horizon; nothing where nothing was."""
    machine(make_twin())
    surroundings = CliContext(home=tmp_path)
    before = CliRunner().invoke(gate_commands.gate_app, ["show"], obj=surroundings)
    assert "forecasts of" not in before.stdout
    device_state_file.save(Places(tmp_path).devices, {"GPU-a": KNOWN})
    after = CliRunner().invoke(gate_commands.gate_app, ["show"], obj=surroundings)
    first, second = KNOWN.errors
    told = f"forecasts of GPU-a were off by {first.rmse_c:.1f} °C over 60 s ({first.checks} checks)"
    assert told in after.stdout
    answer = json.loads(
        CliRunner().invoke(gate_commands.gate_app, ["show", "--json"], obj=surroundings).stdout
    )
    assert [first.rmse_c, second.rmse_c] == [each["rmse_c"] for each in answer["forecasts"]]


def test_limits_that_contradict_each_other_are_a_bad_configuration(trace: Path) -> None:
    """The message names both knobs; the front desk makes it exit code 78."""
    with pytest.raises(BadConfiguration, match=r"resume_margin_c .* must be at or above"):
        run(gate_commands.gate_app, "simulate", "--trace", trace, "--pause-margin-c", 30)
    with pytest.raises(BadConfiguration, match="good_readings"):
        run(gate_commands.gate_app, "simulate", "--trace", trace, "--good-readings", 0)


def test_simulate_answers_one_object_per_reading(trace: Path) -> None:
    """The list's objects have exactly the promised keys, in the order of the trace."""
    words = ["simulate", "--trace", trace, "--dwell-s", "0", "--json"]
    answers = json.loads(run(gate_commands.gate_app, *words).stdout)
    assert [
        (0.0, "GPU-a", True),
        (1.0, "GPU-a", True),
        (2.0, "GPU-a", False),
        (3.0, "GPU-a", False),
        (4.0, "GPU-a", True),
    ] == [(each["elapsed_s"], each["uuid"], each["open"]) for each in answers]
    assert {("elapsed_s", "uuid", "open", "because")} == {tuple(each) for each in answers}
    assert all(each["because"] for each in answers)


def test_simulate_judges_each_device_by_itself(tmp_path: Path) -> None:
    """A cool neighbour opens nobody else's gate."""
    rows = [
        {"elapsed_s": at_s, "uuid": uuid, "margin_c": margin_c}
        for at_s in (0, 1)
        for uuid, margin_c in (("GPU-hot", 5), ("GPU-cool", 30))
    ]
    path = write_trace(tmp_path / "two.csv", *rows)
    answers = json.loads(run(gate_commands.gate_app, "simulate", "--trace", path, "--json").stdout)
    assert [("GPU-hot", False), ("GPU-cool", True)] * 2 == [
        (each["uuid"], each["open"]) for each in answers
    ]


def test_simulate_closes_over_a_gap_longer_than_the_maximum_age(tmp_path: Path) -> None:
    """--max-age-s is heeded between readings, though each is judged at its own time."""
    rows = [{"elapsed_s": 0}, {"elapsed_s": 20, "margin_c": 15}]
    path = write_trace(tmp_path / "gap.csv", *rows)
    opens = {
        age: [
            each["open"]
            for each in json.loads(
                run(
                    gate_commands.gate_app,
                    "simulate",
                    "--trace",
                    path,
                    "--json",
                    "--max-age-s",
                    age,
                ).stdout
            )
        ]
        for age in (19, 20)
    }
    assert {19: [True, False], 20: [True, True]} == opens


def test_simulate_summarises_for_people(trace: Path) -> None:
    """A table of transitions, then how many and how long it was open."""
    out = run(gate_commands.gate_app, "simulate", "--trace", trace, "--dwell-s", 0).stdout
    assert "readings 5, devices 1, transitions 2, open 50.0% of the time" in out


def test_the_share_of_time_is_of_time_and_not_of_readings(tmp_path: Path) -> None:
    """A reading's answer holds until the next one, however long that takes."""
    rows = [{"elapsed_s": 0}, {"elapsed_s": 9, "margin_c": 5}, {"elapsed_s": 10}]
    path = write_trace(tmp_path / "uneven.csv", *rows)
    assert (
        "open 90.0% of the time" in run(gate_commands.gate_app, "simulate", "--trace", path).stdout
    )


def test_simulate_of_an_empty_trace_is_an_empty_list(tmp_path: Path) -> None:
    """Nothing recorded, nothing said, nothing failed."""
    path = write_trace(tmp_path / "empty.csv")
    assert [] == json.loads(
        run(gate_commands.gate_app, "simulate", "--trace", path, "--json").stdout
    )
    assert "readings 0" in run(gate_commands.gate_app, "simulate", "--trace", path).stdout


def test_simulate_refuses_what_is_no_trace(tmp_path: Path) -> None:
    """The door's error comes through to the front desk."""
    with pytest.raises(TraceUnreadable):
        run(gate_commands.gate_app, "simulate", "--trace", tmp_path / "none.csv")


def test_verdicts_are_the_judges_own(trace: Path) -> None:
    """The simulation adds nothing to what the gate says."""
    verdicts = list(simulate_command.verdicts_over(Trace.load(trace), GateConfig()))
    assert "its margin is 5.0 °C, at or below the pause margin" in verdicts[2].because


def test_watch_stops_after_its_count(trace: Path) -> None:
    """Bounded by --count, it shows the last look and ends well."""
    result = run(gate_commands.gate_app, "watch", "--trace", trace, "--every-s", 0, "--count", 3)
    assert 0 == result.exit_code
    assert "closed: GPU-a is closed: its margin is 5.0 °C" in result.stdout


def test_watch_ends_with_its_trace(trace: Path) -> None:
    """A recording has an end."""
    result = run(gate_commands.gate_app, "watch", "--trace", trace, "--every-s", 0, "--dwell-s", 0)
    assert "open: GPU-a is open: its margin is 25.0 °C" in result.stdout


def test_watch_reads_this_machine(machine: Callable[[FakeNvml], None]) -> None:
    """Without a trace it looks at the devices, round by round."""
    machine(make_twin())
    result = run(gate_commands.gate_app, "watch", "--count", 2)
    assert (0, True) == (result.exit_code, "GPU-a is open" in result.stdout)


def test_ctrl_c_ends_watching_cleanly(monkeypatch: pytest.MonkeyPatch) -> None:
    """An interrupt is how one stops watching: no error, and the door is closed."""
    closed = []

    def looks(source: str, visible: str | None) -> Generator[tuple[DeviceSnapshot, float]]:
        try:
            yield make_survey(make_reading()), 0.0
            raise KeyboardInterrupt
        finally:
            closed.append(True)

    monkeypatch.setattr(gate_commands, "_machine_snapshots", looks)
    result = run(gate_commands.gate_app, "watch")
    assert (0, [True]) == (result.exit_code, closed)
    assert "stopped watching" in result.stderr


def test_probe_tells_what_the_gate_would_stand_on(machine: Callable[[FakeNvml], None]) -> None:
    """Each margin_source by its name, and what is missing with its remedy."""
    old = {"tlimit_c": None, "slowdown_tlimit_c": None, "architecture": 7}
    machine(
        make_twin(
            make_gpu("GPU-new"),
            make_gpu("GPU-old", slowdown_c=92, **old),
            make_gpu("GPU-odd", **old),
            make_gpu("GPU-mute", temperature_c=None, **old),
        )
    )
    result = run(gate_commands.gpu_app, "probe", "--json")
    answer = json.loads(result.stdout)
    assert (0, "present") == (result.exit_code, answer["driver"])
    assert ["margin", "threshold", "maximum", "unknown"] == [
        device["stands_on"] for device in answer["devices"]
    ]
    assert {"what", "why", "remedy"} == set(answer["devices"][2]["missing"][0])
    for_people = run(gate_commands.gpu_app, "probe").stdout
    for told in (
        "margin: 42 °C to where it slows down, at its own T.Limit of -2 °C",
        "threshold: 47 °C to where it slows down, at its own 92 °C",
        "maximum, once max_temperature_c is set in [gate]",
        "stands on  unknown",
        "core 45 °C, memory 50 °C, 120.0 W, limit 700 W, busy 30 %, 1980 MHz",
    ):
        assert told in for_people
    assert "what to do" in for_people


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        ({}, "power limit 200 to 700 W, not by this process: run it as root"),
        ({"power_limit_min_mw": None}, "nothing: it reports no range of power limits"),
    ],
)
def test_probe_tells_what_may_be_controlled(
    machine: Callable[[FakeNvml], None],
    monkeypatch: pytest.MonkeyPatch,
    overrides: dict[str, Any],
    told: str,
) -> None:
    """The range that the device takes, and whether this process has the privilege."""
    machine(make_twin(make_gpu(mig=("MIG-1",), **overrides)))
    (device,) = json.loads(run(gate_commands.gpu_app, "probe", "--json").stdout)["devices"]
    if device["may_set_limit"]:
        told = told.partition(",")[0]
    assert device["control"].startswith(told)
    for_people = run(gate_commands.gpu_app, "probe").stdout
    assert f"controls   {told}" in for_people
    assert "MIG-1; their heat is the whole device's" in for_people


def test_probe_counts_what_could_not_be(machine: Callable[[FakeNvml], None]) -> None:
    """Sentinels are unknown, with the number of them."""
    machine(make_twin(make_gpu(faults={"nvmlDeviceGetPowerUsage": "blank"})))
    (device,) = json.loads(run(gate_commands.gpu_app, "probe", "--json").stdout)["devices"]
    assert (1, None) == (device["discarded"], device["power_w"])
    assert "discarded  1 impossible values" in run(gate_commands.gpu_app, "probe").stdout


def test_probe_tells_of_a_device_that_cannot_be_read(machine: Callable[[FakeNvml], None]) -> None:
    """It stands beside the others, with the reason and the remedy."""
    machine(make_twin(make_gpu("GPU-a", faults={"nvmlDeviceGetPowerUsage": "lost"}), make_gpu("B")))
    lost, well = json.loads(run(gate_commands.gpu_app, "probe", "--json").stdout)["devices"]
    assert ("unknown", "margin") == (lost["stands_on"], well["stands_on"])
    assert "GPU is lost" in lost["unreadable"]
    assert "reset the device, or reboot the machine" in run(gate_commands.gpu_app, "probe").stdout


def test_probe_of_a_healthy_machine_lists_nothing_missing(
    machine: Callable[[FakeNvml], None],
) -> None:
    """No table of complaints where there is none; the energy counter is told in kWh."""
    machine(make_twin(make_gpu(energy_mj=9_000_000_000, power_mw=0)))
    told = run(gate_commands.gpu_app, "probe").stdout
    assert "what to do" not in told
    assert "2.5" in told
    (device,) = json.loads(run(gate_commands.gpu_app, "probe", "--json").stdout)["devices"]
    assert 9_000_000.0 == device["energy_j"]


def test_probe_without_a_driver_says_so_plainly(machine: Callable[[FakeNvml], None]) -> None:
    """No GPU is an answer and no failure, and says how the gate takes it."""
    machine(make_twin(nvmlInitWithFlags="driver_not_loaded"))
    result = run(gate_commands.gpu_app, "probe")
    assert (0, True) == (result.exit_code, "GPU driver absent" in result.stdout)
    assert "CPU driver absent: psutil shows no sensor" in result.stdout
    assert 'With source = "nvml" the gate is open: no GPU driver' in result.stdout
    assert 'no_driver = "go" in [gate]' in result.stdout
    answer = json.loads(run(gate_commands.gpu_app, "probe", "--json").stdout)
    assert ("absent", []) == (answer["driver"], answer["devices"])
    assert ("absent", []) == (answer["cpu"]["driver"], answer["cpu"]["devices"])


def test_the_cpu_is_probed_shown_and_watched(
    machine: Callable[[FakeNvml], None], cpu: Callable[..., None]
) -> None:
    """The same commands over the CPU's own sensors, against the chip's own threshold."""
    machine(make_twin(nvmlInitWithFlags="driver_not_loaded"))
    cpu(coretemp=[make_temperature("Package id 0", 45.0, 100.0)])
    (device,) = json.loads(run(gate_commands.gpu_app, "probe", "--json").stdout)["cpu"]["devices"]
    assert ("cpu-0", "threshold", 55.0) == (
        device["uuid"],
        device["stands_on"],
        device["margin_c"],
    )
    shown = run(gate_commands.gate_app, "show", "--source", "cpu", "--good-readings", 2)
    assert 0 == shown.exit_code
    assert "its margin is 55.0 °C to its own threshold of 100 °C" in shown.stdout
    watched = run(gate_commands.gate_app, "watch", "--source", "cpu", "--count", 1)
    assert "cpu-0 is open" in watched.stdout
    cpu(coretemp=[make_temperature("Package id 0", 91.0, 100.0)])
    assert 75 == run(gate_commands.gate_app, "show", "--source", "cpu").exit_code


def test_a_cpu_without_sensors_follows_the_knob() -> None:
    """Nothing to read is said, and no_driver decides."""
    assert "no CPU sensor" in run(gate_commands.gate_app, "show", "--source", "cpu").stdout
    waits = run(gate_commands.gate_app, "show", "--source", "cpu", "--no-driver", "wait")
    assert 75 == waits.exit_code


def test_a_gate_that_is_off_is_open() -> None:
    """And there is one look to be had at it."""
    assert 0 == run(gate_commands.gate_app, "show", "--source", "off").exit_code
    assert "the gate is off" in run(gate_commands.gate_app, "watch", "--source", "off").stdout


def test_show_waits_for_enough_readings_of_each_device(machine: Callable[[FakeNvml], None]) -> None:
    """With several devices each look may tell of one alone; a lost one is not waited for."""
    hot = {"tlimit_c": 1}
    machine(
        make_twin(
            make_gpu("GPU-a", **hot),
            make_gpu("GPU-b", **hot),
            make_gpu("GPU-c", faults={"nvmlDeviceGetPowerUsage": "lost"}),
            make_gpu("GPU-d"),
        )
    )
    assert 0 == run(gate_commands.gate_app, "show", "--good-readings", 4).exit_code
    assert (
        75 == run(gate_commands.gate_app, "show", "--good-readings", 2, "--uuid", "GPU-a").exit_code
    )


def lines_of(result: Result) -> list[dict[str, Any]]:
    """The JSON documents that a command printed, one per line."""
    return [json.loads(line) for line in result.stdout.splitlines()]


def test_watch_prints_one_json_document_per_reading(trace: Path) -> None:
    """Each on its line, with what the gate says of the device, why, and the reading."""
    words = ["watch", "--trace", trace, "--every-s", "0", "--dwell-s", "0", "--json"]
    watched = run(gate_commands.gate_app, *words)
    lines = lines_of(watched)
    assert [True, True, False, False, True] == [line["open"] for line in lines]
    assert [30.0, 15.0, 5.0, 15.0, 25.0] == [line["reading"]["margin_c"] for line in lines]
    assert {"margin"} == {line["reading"]["margin_source"] for line in lines}
    assert all(line["gate_open"] is line["open"] and line["because"] for line in lines)


def test_watch_says_each_reading_once(machine: Callable[[FakeNvml], None]) -> None:
    """However many devices there are, and however often it looks."""
    machine(make_twin(make_gpu("GPU-a"), make_gpu("GPU-b")))
    lines = lines_of(run(gate_commands.gate_app, "watch", "--json", "--count", 6))
    moments = [(line["uuid"], line["reading"]["read_at_s"]) for line in lines]
    assert sorted(set(moments)) == sorted(moments)
    assert {"GPU-a", "GPU-b"} == {uuid for uuid, _ in moments}


def test_watch_says_once_that_there_is_nothing_to_read(
    machine: Callable[[FakeNvml], None],
) -> None:
    """A line without a reading, and no second one that says the same."""
    machine(make_twin(nvmlInitWithFlags="driver_not_loaded"))
    (line,) = lines_of(run(gate_commands.gate_app, "watch", "--json", "--count", 2))
    assert (True, None, None) == (line["gate_open"], line["uuid"], line["reading"])
    assert "no GPU driver" in line["because"]


def test_watch_ends_after_its_time(machine: Callable[[FakeNvml], None]) -> None:
    """--for ends it with the look that comes after so many seconds."""
    machine(make_twin())
    result = run(gate_commands.gate_app, "watch", "--for", 0.0, "--json")
    assert (0, 1) == (result.exit_code, len(lines_of(result)))


def test_the_options_are_the_knobs_of_the_gate() -> None:
    """What they mean is said once, in GateLimits."""
    for command in ("show", "watch"):
        told = " ".join(run(gate_commands.gate_app, command, "--help").stdout.split())
        for name in ("--source", "--pause-margin-c", "--max-temperature-c", "--uuid"):
            assert name in told
    bad = CliRunner().invoke(gate_commands.gate_app, ["show", "--source", "moon"])
    assert (2, True) == (bad.exit_code, "'moon' is not one of" in bad.stderr)


def test_the_command_line_loads_no_slow_library() -> None:
    """`thermodrift --help` must stay quick: pandas, rich and pynvml come with the commands."""
    program = (
        "import sys; import power.cli.gate_commands; "
        "print(sorted({'pandas', 'pynvml', 'rich', 'prefect', 'numpy'} & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert "[]" == result.stdout.strip()
