"""The commands of the power room: `gate show`, `gate watch` and `gpu probe`, and where all join.

A desk turns options into limits, asks a door, lets the gate judge, and prints. It decides nothing.
Slow libraries are imported inside the commands.
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
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from observability.core import cli_output
from observability.core.cli_output import JsonOption, Surroundings
from observability.core.decision import Decision
from observability.core.paths import Places
from power.cli import override_commands, simulate_command
from power.cli.options import takes_limits
from power.core.device_readings import GpuReading, Survey
from power.core.gate_config import GateLimits
from power.devices.device import PRIVILEGE
from power.policy import gate, gate_override
from power.policy.gate import GateState

if TYPE_CHECKING:
    from rich.console import RenderableType

    from power.devices.device import Device, Door

gate_app = typer.Typer(
    help="May heavy work start on this machine now, and why?", no_args_is_help=True
)
gpu_app = typer.Typer(no_args_is_help=True)

_CLOSED_EXIT_CODE = 75


@gate_app.command()
@takes_limits
def show(
    context: typer.Context,
    limits: GateLimits,
    at_s: Annotated[
        float | None, typer.Option("--at", help="Second of the trace; the default is its end.")
    ] = None,
    json: JsonOption = False,
) -> None:
    """Say whether the gate is open now, and why, and how good its forecasts were.

    Exit code 0: open, 75: closed.
    """
    proven: list[Proven] = []
    if limits.reads_from == "trace" and limits.trace is not None:
        decision = _judge_trace(Path(limits.trace), at_s, limits)
    else:
        decision = _judge_machine(limits, cli_output.surroundings(context))
        proven = _proven(Places(cli_output.surroundings(context).home))
    if json:
        told = [each._asdict() for each in proven]
        cli_output.print_json({**decision.model_dump(), "forecasts": told})
    else:
        _print_decision(decision)
        _print_proven(proven)
    if not decision:
        raise typer.Exit(_CLOSED_EXIT_CODE)


@gate_app.command()
@takes_limits
def watch(
    context: typer.Context,
    limits: GateLimits,
    count: Annotated[
        int | None, typer.Option("--count", min=1, help="Stop after so many looks.")
    ] = None,
    for_s: Annotated[
        float | None, typer.Option("--for", min=0.0, help="Stop after so many seconds.")
    ] = None,
    every_s: Annotated[
        float, typer.Option("--every-s", min=0.0, help="Seconds between looks at a trace.")
    ] = 0.2,
    json: Annotated[
        bool, typer.Option("--json", help="Print one JSON document per reading, each on a line.")
    ] = False,
) -> None:
    """Watch the gate live, look by look, until Ctrl-C."""
    looks = _looks(limits, cli_output.surroundings(context), every_s)
    with closing(looks):
        here = cli_output.surroundings(context)
        replayed = limits.reads_from == "trace"
        seen = _judged(_bounded(looks, count, for_s), limits, None if replayed else here)
        try:
            _print_lines(seen) if json else _show_live(seen)
        except KeyboardInterrupt:
            cli_output.stderr().print("stopped watching")


gate_app.command()(simulate_command.simulate)
gate_app.add_typer(override_commands.override_app, name="override")


@gpu_app.callback()
def gpu() -> None:
    """What can be read of this machine's GPUs?"""


@gpu_app.command()
def probe(context: typer.Context, json: JsonOption = False) -> None:
    """List, per device, what can be read and controlled, what the gate would go by, what lacks."""
    here = cli_output.surroundings(context)
    probed = {
        limits.reads_from: _probed(limits, here)
        for limits in (GateLimits(), GateLimits(source="cpu"))
    }
    if json:
        gpus, cpus = map(_probe_document, probed.values())
        cli_output.print_json(gpus | {"cpu": cpus})
    else:
        for what, (source, found) in zip(("GPU", "CPU"), probed.items(), strict=True):
            _print_probe(what, source, found)


class Look(NamedTuple):
    """What was seen at one moment, and what the gate made of it."""

    survey: Survey
    now_s: float
    decision: Decision
    state: GateState


class Line(BaseModel):
    """One line of `gate watch --json`: a reading, or that there was none."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    at: AwareDatetime
    gate_open: bool = Field(description="What the gate says of all devices together.")
    because: str = Field(description="Why the device is open or closed; without one, the gate.")
    cause: str | None = Field(default=None, description="The same in one word; none of a yes.")
    uuid: str | None = None
    open: bool | None = Field(default=None, description="What it says of this device.")
    age_s: float | None = None
    reading: GpuReading | None = None


def _judge_trace(path: Path, at_s: float | None, limits: GateLimits) -> Decision:
    from power.devices.trace import Trace

    trace = Trace.load(path)
    now_s = trace.ends_at_s if at_s is None else at_s
    return gate.judge(trace.survey(-math.inf, now_s), GateState(), limits, now_s).decision


def _judge_machine(limits: GateLimits, here: Surroundings) -> Decision:
    """What the gate of this home answers now, a person's override included."""
    with closing(_looks(limits, here, every_s=0.0)) as looks:
        return _looked(looks, limits, here).decision


def _looked(looks: Iterator[tuple[Survey, float]], limits: GateLimits, here: Surroundings) -> Look:
    """A closed device opens after some good readings: look until each had as many as that needs."""
    moments: set[tuple[str, float]] = set()
    for look in _judged(looks, limits, here):
        moments |= {(each.uuid, each.read_at_s) for each in look.survey.readings}
        read = Counter(uuid for uuid, _ in moments)
        # A device that cannot be read has nothing more to say.
        awaited = [
            each.uuid
            for each in look.survey.readings
            if each.unreadable is None and read[each.uuid] < limits.good_readings
        ]
        if look.decision or look.survey.driver != "present" or not awaited:
            break
    return look


def _door(source: str, here: Surroundings) -> Door:
    """What reads the devices of one kind: another maker's is one more file, and a line here."""
    if source == "cpu":
        from power.devices.cpu_sensors import SensorDoor

        return SensorDoor()
    from power.devices.nvml import NvmlDoor

    if here.stand_in is not None:
        from power.devices.fake_nvml import StandIn

        return NvmlDoor(visible=here.visible_devices, twin=StandIn.load(here.stand_in))
    return NvmlDoor(visible=here.visible_devices)


def _looks(
    limits: GateLimits, here: Surroundings, every_s: float
) -> Generator[tuple[Survey, float]]:
    """Look after look at what `limits` names: the machine's without an end."""
    if limits.reads_from == "trace" and limits.trace is not None:
        return _looks_at_trace(Path(limits.trace), every_s)
    if limits.reads_from == "off":
        off = Survey(driver="absent", because="the gate is off")
        return (look for look in [(off, 0.0)])
    return _looks_at_machine(limits.reads_from, here)


def _looks_at_machine(source: str, here: Surroundings) -> Generator[tuple[Survey, float]]:
    with _door(source, here) as door:
        yield from _looks_at(door)


def _looks_at(door: Door) -> Generator[tuple[Survey, float]]:
    while True:
        now_s = time.monotonic()
        yield door.survey(now_s), now_s
        door.wait_for_news(timeout_s=2.0)


def _bounded(
    looks: Iterator[tuple[Survey, float]], count: int | None, for_s: float | None
) -> Iterator[tuple[Survey, float]]:
    """The first `count` looks, and those of the first `for_s` seconds; None: all."""
    began_s = time.monotonic()
    for look in itertools.islice(looks, count):
        yield look
        if for_s is not None and time.monotonic() - began_s >= for_s:
            return


def _judged(
    looks: Iterator[tuple[Survey, float]], limits: GateLimits, here: Surroundings | None
) -> Iterator[Look]:
    """Each look with the gate's answer, by the override of the home `here`; None: by none."""
    from power.policy import override_file

    state = GateState()
    for survey, now_s in looks:
        decision, state = gate.judge(survey, state, limits, now_s)
        if here is not None:
            word = override_file.read(Places(here.home).override)
            decision = gate_override.overridden(decision, word, datetime.now(UTC))
        yield Look(survey, now_s, decision, state)


def _print_lines(looks: Iterator[Look]) -> None:
    """Each reading as one JSON document on a line; what was said before is not said again."""
    before: dict[object, Line] = {}
    for look in looks:
        now = _lines(look)
        for key, line in now.items():
            if key not in before:
                sys.stdout.write(line.model_dump_json() + "\n")
        sys.stdout.flush()
        before = now


def _lines(look: Look) -> dict[object, Line]:
    """A line per device, or one that says why there is none, each by what makes it a new one."""
    at, is_open = datetime.now(UTC), look.decision.yes
    because = look.decision.because
    lines: dict[object, Line] = {
        (device.uuid, device.latest.read_at_s, device.open): Line(
            at=at,
            gate_open=is_open,
            because=device.why,
            cause=device.cause,
            uuid=device.uuid,
            open=device.open,
            age_s=look.now_s - device.latest.read_at_s,
            reading=device.latest,
        )
        for device in look.state.devices
        if device.latest is not None
    }
    if lines and look.survey.driver == "present":
        return lines
    # Without a driver the gate answers, whatever devices there were before.
    cause = look.decision.facts.get("cause")
    told = Line(at=at, gate_open=is_open, because=because, cause=cause and str(cause))
    return {(because, is_open): told}


def _show_live(looks: Iterator[Look]) -> None:
    from rich.live import Live

    with Live(console=cli_output.stdout(), auto_refresh=False) as live:
        for look in looks:
            live.update(_picture(look), refresh=True)


def _looks_at_trace(path: Path, every_s: float) -> Generator[tuple[Survey, float]]:
    from power.devices.trace import Trace

    trace = Trace.load(path)
    moments = sorted({reading.read_at_s for reading in trace.readings})
    before_s = -math.inf
    for now_s in moments:
        yield trace.survey(before_s, now_s), now_s
        before_s = now_s
        time.sleep(every_s)


class Probed(NamedTuple):
    """What a door told, and what the gate answers by it."""

    survey: Survey
    devices: tuple[Device, ...]
    decision: Decision


def _probed(limits: GateLimits, here: Surroundings) -> Probed:
    with _door(limits.reads_from, here) as door:
        look = _looked(_looks_at(door), limits, here)
        return Probed(look.survey, door.devices(), look.decision)


def _stands_on(device: Device) -> str:
    """What the gate would compute the margin from; the maximum must be configured."""
    if device.margin_source == "unknown" and device.temperature_c is not None:
        return "maximum"
    return device.margin_source


def _control(device: Device) -> str:
    """What may be controlled, and what is lacking for it, in words."""
    least_w, most_w = device.power_limit_min_w, device.power_limit_max_w
    if most_w is None:
        return "nothing: it tells no range of power limits"
    range_w = f"power limit {'up to' if least_w is None else f'{least_w:g} to'} {most_w:g} W"
    if device.may_set_limit:
        return range_w
    return f"{range_w}, not by this process: {PRIVILEGE}"


def _probe_document(found: Probed) -> dict[str, Any]:
    return {
        "driver": found.survey.driver,
        "because": found.survey.because,
        "gate": found.decision.model_dump(),
        "devices": [
            {"stands_on": _stands_on(each), "control": _control(each)} | each.model_dump()
            for each in found.devices
        ],
    }


def _print_decision(decision: Decision) -> None:
    out = cli_output.stdout()
    word = "[green]open[/]" if decision else "[red]closed[/]"
    out.print(f"gate: {word}")
    out.print(decision.because, markup=False, highlight=False, soft_wrap=True)


class Proven(NamedTuple):
    """How good the forecasts of a device were, as far as this home has checked them."""

    uuid: str
    horizon_s: float
    checks: int
    rmse_c: float | None


def _proven(places: Places) -> list[Proven]:
    from power.forecast import device_state_file

    return [
        Proven(uuid, each.horizon_s, each.checks, each.rmse_c)
        for uuid, known in device_state_file.load(places.devices).items()
        for each in known.errors
    ]


def _print_proven(proven: Sequence[Proven]) -> None:
    """One line per device whose forecasts were held against what came."""
    for uuid, found in itertools.groupby(proven, key=lambda each: each.uuid):
        told = [
            f"{each.rmse_c:.1f} °C over {each.horizon_s:g} s ({each.checks} checks)"
            for each in found
            if each.rmse_c is not None
        ]
        if told:
            text = f"forecasts of {uuid} were off by {', '.join(told)}"
            cli_output.stdout().print(text, markup=False, highlight=False, soft_wrap=True)


def _picture(look: Look) -> RenderableType:
    """The live view: one line per device, and the answer under it."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    heads = ("margin °C", "core °C", "power W", "busy %", "MHz", "age s", "odd")
    table = Table("device", "gate", "margin source", *heads)
    for device in look.state.devices:
        latest = device.latest or GpuReading(uuid=device.uuid, read_at_s=math.nan)
        numbers = (
            *(latest.margin_c, latest.temperature_c, latest.power_w, latest.utilization),
            *(latest.clock_mhz, look.now_s - latest.read_at_s),
        )
        word = Text("open", "green") if device.open else Text("closed", "red")
        cells = [Text("-" if number is None else f"{number:.1f}") for number in numbers]
        margin_source = Text("-" if latest.unreadable else latest.margin_source)
        table.add_row(Text(device.uuid), word, margin_source, *cells, Text(str(device.discarded)))
    yes = look.decision.yes
    answer = Text("open: " if yes else "closed: ", "bold green" if yes else "bold red")
    return Group(table, answer + Text(look.decision.because))


def _print_probe(what: str, source: str, found: Probed) -> None:
    out = cli_output.stdout()
    survey, devices, decision = found
    out.print(f"{what} driver {survey.driver}: {survey.because}", markup=False, soft_wrap=True)
    out.print(
        f'With source = "{source}" {gate.told(decision)}',
        markup=False,
        highlight=False,
        soft_wrap=True,
    )
    if survey.driver == "absent":
        out.print(
            "A recorded trace can stand in: gate show --trace FILE.", markup=False, soft_wrap=True
        )
    if not devices:
        return
    for each in devices:
        out.print(f"\n{each.uuid}  {each.name or 'unknown model'}", markup=False, soft_wrap=True)
        for word, told in _probe_lines(each):
            out.print(f"  {word:<10} {told}", markup=False, highlight=False, soft_wrap=True)
    missing = [
        (device.uuid, each.what, each.why, each.remedy)
        for device in devices
        for each in device.missing
    ]
    if missing:
        cli_output.print_table(["device", "not told", "why", "what to do"], missing)


def _probe_lines(device: Device) -> Iterator[tuple[str, str]]:
    """What one device tells, in lines of a word and what is to be said to it."""
    yield "stands on", _standing_in_words(device)
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
    told = [words.format(number) for number, words in numbers if number is not None]
    yield "reads", ", ".join(told) or f"nothing: {device.unreadable}"
    yield "controls", _control(device)
    if device.mig:
        yield "MIG", f"{', '.join(device.mig)}; their heat is the whole device's"
    if device.discarded:
        yield "discarded", f"{device.discarded} values that could not be"


def _standing_in_words(device: Device) -> str:
    margin_source, margin_c, offset_c = (
        _stands_on(device),
        device.margin_c,
        device.slowdown_offset_c,
    )
    if margin_c is None:
        return (
            "maximum, once max_temperature_c is set in [gate]"
            if margin_source == "maximum"
            else margin_source
        )
    told = f"{margin_source}: {margin_c:.0f} °C to where it slows down"
    if margin_source == "threshold":
        return f"{told}, at its own {device.threshold_c:.0f} °C"
    return told if offset_c is None else f"{told}, at its own T.Limit of {offset_c:.0f} °C"
