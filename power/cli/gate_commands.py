"""The commands `gate show`, `gate watch` and `gpu probe`, and the command groups of power.

A command turns options into limits, reads through an adapter, calls the policy, and prints. It
decides nothing. Slow libraries are imported inside the commands.
"""

from __future__ import annotations

import itertools
import math
import sys
import time
from collections import Counter
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer
from pydantic import AwareDatetime, Field

from observability.core import cli_output
from observability.core.cli_output import CliContext, JsonOption
from observability.core.decision import Decision
from observability.core.paths import Places
from power.cli import override_commands, simulate_command
from power.cli.options import takes_gate_options
from power.core.device_readings import DeviceReading, DeviceSnapshot
from power.core.frozen_model import FrozenModel
from power.core.gate_config import GateConfig
from power.devices.device import PRIVILEGE
from power.policy import gate, gate_override
from power.policy.gate import GateState

if TYPE_CHECKING:
    from rich.console import RenderableType

    from power.devices.device import Device, DeviceAdapter
    from power.forecast.forecast import ThermalState

gate_app = typer.Typer(
    help="May heavy work start on this machine now, and why?", no_args_is_help=True
)
gpu_app = typer.Typer(no_args_is_help=True)

_CLOSED_EXIT_CODE = 75


@gate_app.command()
@takes_gate_options()
def show(
    context: typer.Context,
    gate_config: GateConfig,
    at_s: Annotated[
        float | None, typer.Option("--at", help="Second of the trace; the default is its end.")
    ] = None,
    json: JsonOption = False,
) -> None:
    """Show whether the gate is open now, and why, and how good its forecasts were.

    Exit code 0: open, 75: closed.
    """
    here = cli_output.cli_context(context)
    known: dict[str, ThermalState] = {}
    if gate_config.reads_from == "trace" and gate_config.trace is not None:
        from power.devices.trace import Trace

        trace = Trace.load(Path(gate_config.trace))
        now_s = trace.ends_at_s if at_s is None else at_s
        snapshot = trace.survey(-math.inf, now_s)
        decision = gate.judge(snapshot, GateState(), gate_config, now_s).decision
    else:
        from power.forecast import device_state_file

        with closing(_snapshots(gate_config, here, every_s=0.0)) as snapshots:
            decision = _settled(snapshots, gate_config, here).decision
        known = device_state_file.load(Places(here.home).devices)
    if json:
        forecasts = [
            {
                "uuid": uuid,
                **each.model_dump(include={"horizon_s", "checks"}),
                "rmse_c": each.rmse_c,
            }
            for uuid, device in known.items()
            for each in device.errors
        ]
        cli_output.print_json({**decision.model_dump(), "forecasts": forecasts})
    else:
        cli_output.stdout().print(f"gate: {'[green]open[/]' if decision else '[red]closed[/]'}")
        _print(decision.because)
        for uuid, device in known.items():
            errors = [
                f"{each.rmse_c:.1f} °C over {each.horizon_s:g} s ({each.checks} checks)"
                for each in device.errors
                if each.rmse_c is not None
            ]
            if errors:
                _print(f"forecasts of {uuid} were off by {', '.join(errors)}")
    if not decision:
        raise typer.Exit(_CLOSED_EXIT_CODE)


@gate_app.command()
@takes_gate_options()
def watch(
    context: typer.Context,
    gate_config: GateConfig,
    count: Annotated[
        int | None, typer.Option("--count", min=1, help="Stop after so many snapshots.")
    ] = None,
    for_s: Annotated[
        float | None, typer.Option("--for", min=0.0, help="Stop after so many seconds.")
    ] = None,
    every_s: Annotated[
        float, typer.Option("--every-s", min=0.0, help="Seconds between snapshots of a trace.")
    ] = 0.2,
    json: Annotated[
        bool, typer.Option("--json", help="Print one JSON document per reading, each on a line.")
    ] = False,
) -> None:
    """Watch the gate live until Ctrl-C."""
    here = cli_output.cli_context(context)
    snapshots = _snapshots(gate_config, here, every_s)
    with closing(snapshots):
        replayed = gate_config.reads_from == "trace"
        judged = _judged(_bounded(snapshots, count, for_s), gate_config, None if replayed else here)
        try:
            if json:
                _print_lines(judged)
            else:
                from rich.live import Live

                with Live(console=cli_output.stdout(), auto_refresh=False) as live:
                    for frame in judged:
                        live.update(_live_view(frame), refresh=True)
        except KeyboardInterrupt:
            cli_output.stderr().print("stopped watching")


gate_app.command()(simulate_command.simulate)
gate_app.add_typer(override_commands.override_app, name="override")


@gpu_app.callback()
def gpu() -> None:
    """What can be read of this machine's GPUs?"""


@gpu_app.command()
def probe(context: typer.Context, json: JsonOption = False) -> None:
    """List per device what can be read and controlled, its margin source, and what is missing."""
    here = cli_output.cli_context(context)
    documents: list[dict[str, Any]] = []
    for what, gate_config in (("GPU", GateConfig()), ("CPU", GateConfig(source="cpu"))):
        with _adapter_for(gate_config.reads_from, here) as adapter:
            frame = _settled(_snapshots_of(adapter), gate_config, here)
            devices = adapter.devices()
        if not json:
            _print_probe(what, gate_config.reads_from, frame, devices)
            continue
        documents.append(
            {
                "driver": frame.survey.driver,
                "because": frame.survey.because,
                "gate": frame.decision.model_dump(),
                "devices": [
                    {"stands_on": gate.usable_margin_source(each), "control": _control(each)}
                    | each.model_dump()
                    for each in devices
                ],
            }
        )
    if json:
        gpus, cpus = documents
        cli_output.print_json(gpus | {"cpu": cpus})


class WatchFrame(NamedTuple):
    """A snapshot of the devices, and the gate's answer."""

    survey: DeviceSnapshot
    now_s: float
    decision: Decision
    state: GateState


class Line(FrozenModel):
    """One line of `gate watch --json`: a reading, or why there is none."""

    at: AwareDatetime
    gate_open: bool = Field(description="The gate's answer for all devices together.")
    because: str = Field(
        description="Why the device is open or closed; without a device, the gate."
    )
    cause: str | None = Field(default=None, description="The cause of a no.")
    uuid: str | None = None
    open: bool | None = Field(default=None, description="The gate's answer for this device.")
    age_s: float | None = None
    reading: DeviceReading | None = None


def _print(text: str) -> None:
    cli_output.stdout().print(text, markup=False, highlight=False, soft_wrap=True)


def _settled(
    snapshots: Iterator[tuple[DeviceSnapshot, float]], gate_config: GateConfig, here: CliContext
) -> WatchFrame:
    """Return the first snapshot that more readings would not change, by this home's override."""
    moments: set[tuple[str, float]] = set()
    for frame in _judged(snapshots, gate_config, here):
        moments |= {(each.uuid, each.read_at_s) for each in frame.survey.readings}
        counts = Counter(uuid for uuid, _ in moments)
        if not gate.needs_readings(frame.survey, frame.decision, counts, gate_config):
            break
    return frame


def _adapter_for(source: str, here: CliContext) -> DeviceAdapter:
    """Return the adapter of a source; another maker needs one more file, and a line here."""
    if source == "cpu":
        from power.devices.cpu_sensors import CpuSensorAdapter

        return CpuSensorAdapter()
    from power.devices.nvml import NvmlAdapter

    if here.fake_nvml is None:
        return NvmlAdapter(visible=here.visible_devices)
    from power.devices.fake_nvml import FakeNvml

    return NvmlAdapter(visible=here.visible_devices, twin=FakeNvml.load(here.fake_nvml))


def _snapshots(
    gate_config: GateConfig, here: CliContext, every_s: float
) -> Generator[tuple[DeviceSnapshot, float]]:
    """Yield snapshots and their moments from the configured source; a machine's never end."""
    if gate_config.reads_from == "trace" and gate_config.trace is not None:
        return _trace_snapshots(Path(gate_config.trace), every_s)
    if gate_config.reads_from == "off":
        off = DeviceSnapshot(driver="absent", because="the gate is off")
        return (frame for frame in [(off, 0.0)])
    return _machine_snapshots(gate_config.reads_from, here)


def _trace_snapshots(path: Path, every_s: float) -> Generator[tuple[DeviceSnapshot, float]]:
    from power.devices.trace import Trace

    trace = Trace.load(path)
    before_s = -math.inf
    for now_s in sorted({reading.read_at_s for reading in trace.readings}):
        yield trace.survey(before_s, now_s), now_s
        before_s = now_s
        time.sleep(every_s)


def _machine_snapshots(source: str, here: CliContext) -> Generator[tuple[DeviceSnapshot, float]]:
    with _adapter_for(source, here) as adapter:
        yield from _snapshots_of(adapter)


def _snapshots_of(adapter: DeviceAdapter) -> Generator[tuple[DeviceSnapshot, float]]:
    while True:
        now_s = time.monotonic()
        yield adapter.survey(now_s), now_s
        adapter.wait_for_news(timeout_s=2.0)


def _bounded(
    snapshots: Iterator[tuple[DeviceSnapshot, float]], count: int | None, for_s: float | None
) -> Iterator[tuple[DeviceSnapshot, float]]:
    """Yield at most `count` snapshots within `for_s` seconds; None: no bound."""
    began_s = time.monotonic()
    for frame in itertools.islice(snapshots, count):
        yield frame
        if for_s is not None and time.monotonic() - began_s >= for_s:
            return


def _judged(
    snapshots: Iterator[tuple[DeviceSnapshot, float]],
    gate_config: GateConfig,
    here: CliContext | None,
) -> Iterator[WatchFrame]:
    """Yield each snapshot with the gate's answer, by the override of `here`; None: no override."""
    from power.policy import override_file

    state = GateState()
    for snapshot, now_s in snapshots:
        decision, state = gate.judge(snapshot, state, gate_config, now_s)
        if here is not None:
            override = override_file.read(Places(here.home).override)
            decision = gate_override.overridden(decision, override, datetime.now(UTC))
        yield WatchFrame(snapshot, now_s, decision, state)


def _print_lines(snapshots: Iterator[WatchFrame]) -> None:
    """Print each reading as one JSON document per line, without repetitions."""
    before: dict[object, Line] = {}
    for frame in snapshots:
        now = _lines(frame)
        for key, line in now.items():
            if key not in before:
                sys.stdout.write(line.model_dump_json() + "\n")
        sys.stdout.flush()
        before = now


def _lines(frame: WatchFrame) -> dict[object, Line]:
    """Return a line per device, or one that says why there is none; the key tells repetitions."""
    at, is_open = datetime.now(UTC), frame.decision.yes
    because = frame.decision.because
    lines: dict[object, Line] = {
        (device.uuid, device.latest.read_at_s, device.open): Line(
            at=at,
            gate_open=is_open,
            because=device.why,
            cause=device.cause,
            uuid=device.uuid,
            open=device.open,
            age_s=frame.now_s - device.latest.read_at_s,
            reading=device.latest,
        )
        for device in frame.state.devices
        if device.latest is not None
    }
    if lines and frame.survey.driver == "present":
        return lines
    # Without a driver there is one line, whatever devices there were before.
    cause = frame.decision.facts.get("cause")
    line = Line(at=at, gate_open=is_open, because=because, cause=cause and str(cause))
    return {(because, is_open): line}


def _control(device: Device) -> str:
    """Describe what may be controlled, or which privilege is missing."""
    least_w, most_w = device.power_limit_min_w, device.power_limit_max_w
    if most_w is None:
        return "nothing: it reports no range of power limits"
    range_w = f"power limit {'up to' if least_w is None else f'{least_w:g} to'} {most_w:g} W"
    if device.may_set_limit:
        return range_w
    return f"{range_w}, not by this process: {PRIVILEGE}"


def _live_view(frame: WatchFrame) -> RenderableType:
    """Return the live view: a row per device, and the answer below."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    heads = ("margin °C", "core °C", "power W", "busy %", "MHz", "age s", "odd")
    table = Table("device", "gate", "margin source", *heads)
    for device in frame.state.devices:
        latest = device.latest or DeviceReading(uuid=device.uuid, read_at_s=math.nan)
        numbers = (
            *(latest.margin_c, latest.temperature_c, latest.power_w, latest.utilization),
            *(latest.clock_mhz, frame.now_s - latest.read_at_s),
        )
        answer = Text("open", "green") if device.open else Text("closed", "red")
        cells = [Text("-" if number is None else f"{number:.1f}") for number in numbers]
        margin_source = Text("-" if latest.unreadable else latest.margin_source)
        table.add_row(Text(device.uuid), answer, margin_source, *cells, Text(str(device.discarded)))
    yes = frame.decision.yes
    answer = Text("open: " if yes else "closed: ", "bold green" if yes else "bold red")
    return Group(table, answer + Text(frame.decision.because))


def _print_probe(what: str, source: str, frame: WatchFrame, devices: Sequence[Device]) -> None:
    _print(f"{what} driver {frame.survey.driver}: {frame.survey.because}")
    _print(f'With source = "{source}" {gate.in_short(frame.decision)}')
    if frame.survey.driver == "absent":
        _print("A recorded trace can be used instead: gate show --trace FILE.")
    for each in devices:
        _print(f"\n{each.uuid}  {each.name or 'unknown model'}")
        for label, text in _probe_lines(each):
            _print(f"  {label:<10} {text}")
    missing = [
        (device.uuid, each.what, each.why, each.remedy)
        for device in devices
        for each in device.missing
    ]
    if missing:
        cli_output.print_table(["device", "missing", "why", "what to do"], missing)


def _probe_lines(device: Device) -> Iterator[tuple[str, str]]:
    """Yield the lines about one device: a label and a text."""
    margin_source = gate.usable_margin_source(device)
    margin = f"{margin_source}: {device.margin_c or 0.0:.0f} °C to where it slows down"
    if device.margin_c is None:
        margin = margin_source
        if margin_source == "maximum":
            margin = "maximum, once max_temperature_c is set in [gate]"
    elif margin_source == "threshold":
        margin += f", at its own {device.threshold_c:.0f} °C"
    elif device.slowdown_offset_c is not None:
        margin += f", at its own T.Limit of {device.slowdown_offset_c:.0f} °C"
    yield "stands on", margin
    numbers = (
        (device.temperature_c, "core {:.0f} °C"),
        (device.memory_temperature_c, "memory {:.0f} °C"),
        (device.power_w, "{:.1f} W"),
        (device.power_limit_w, "limit {:.0f} W"),
        (device.utilization, "busy {:.0f} %"),
        (device.clock_mhz, "{:.0f} MHz"),
        (device.memory_clock_mhz, "memory {:.0f} MHz"),
        (device.memory_used_bytes and device.memory_used_bytes / 1e9, "memory used {:.1f} GB"),
        (device.memory_total_bytes and device.memory_total_bytes / 1e9, "of {:.1f} GB"),
        (device.energy_j and device.energy_j / 3.6e6, "energy {:.4g} kWh"),
        (device.throttle_reasons, "throttle reasons {}"),
    )
    metrics = [text.format(number) for number, text in numbers if number is not None]
    yield "reads", ", ".join(metrics) or f"nothing: {device.unreadable}"
    yield "controls", _control(device)
    if device.mig:
        yield "MIG", f"{', '.join(device.mig)}; their heat is the whole device's"
    if device.discarded:
        yield "discarded", f"{device.discarded} impossible values"
