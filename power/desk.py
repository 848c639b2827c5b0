"""The commands of the power room: `gate show`, `gate watch`, `gate simulate` and `gpu probe`.

A desk turns options into limits, asks a door, lets the gate judge, and prints. It decides nothing.
Slow libraries are imported inside the commands.
"""

from __future__ import annotations

import math
import time
from collections.abc import Generator, Iterator
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, NamedTuple

import typer
from pydantic import ValidationError

from observability import console
from observability.console import JsonOption
from observability.errors import BadConfiguration
from power import gate
from power.gate import GateLimits, GateState, GpuReading, Survey

if TYPE_CHECKING:
    from rich.console import RenderableType

    from observability.decision import Decision
    from power.nvml import Device
    from power.replay import Trace

gate_app = typer.Typer(
    help="May heavy work start on this machine now, and why?", no_args_is_help=True
)
gpu_app = typer.Typer(no_args_is_help=True)

_DEFAULTS = GateLimits()
_CLOSED_EXIT_CODE = 75

TraceOption = Annotated[
    Path | None, typer.Option("--trace", help="Read a recorded GPU trace (CSV), not this machine.")
]
PauseOption = Annotated[
    float, typer.Option("--pause-margin-c", help="At or below this margin it closes at once.")
]
ResumeOption = Annotated[
    float, typer.Option("--resume-margin-c", help="At or above this margin it may open again.")
]
GoodOption = Annotated[
    int, typer.Option("--good-readings", help="Readings in a row that open a closed device.")
]
AgeOption = Annotated[
    float, typer.Option("--max-age-s", help="A reading older than this counts for nothing.")
]
MaximumOption = Annotated[
    float | None,
    typer.Option("--max-temperature-c", help="Count a margin from here where none is told."),
]
UuidOption = Annotated[str | None, typer.Option("--uuid", help="The one device that counts.")]
NoDriverOption = Annotated[
    Literal["go", "wait"], typer.Option("--no-driver", help="Without a GPU driver.")
]
UnreadableOption = Annotated[
    Literal["wait", "go"], typer.Option("--unreadable", help="With a driver that does not answer.")
]


@gate_app.command()
def show(
    context: typer.Context,
    trace: TraceOption = None,
    at_s: Annotated[
        float | None, typer.Option("--at", help="Second of the trace; the default is its end.")
    ] = None,
    pause_margin_c: PauseOption = _DEFAULTS.pause_margin_c,
    resume_margin_c: ResumeOption = _DEFAULTS.resume_margin_c,
    good_readings: GoodOption = _DEFAULTS.good_readings,
    max_age_s: AgeOption = _DEFAULTS.max_age_s,
    max_temperature_c: MaximumOption = None,
    uuid: UuidOption = None,
    no_driver: NoDriverOption = _DEFAULTS.no_driver,
    unreadable: UnreadableOption = _DEFAULTS.unreadable,
    json: JsonOption = False,
) -> None:
    """Say whether the gate is open now, and why. Exit code 0: open, 75: closed."""
    limits = _limits(
        trace=None if trace is None else str(trace),
        pause_margin_c=pause_margin_c,
        resume_margin_c=resume_margin_c,
        good_readings=good_readings,
        max_age_s=max_age_s,
        max_temperature_c=max_temperature_c,
        uuid=uuid,
        no_driver=no_driver,
        unreadable=unreadable,
    )
    decision = (
        _judge_trace(trace, at_s, limits)
        if trace
        else _judge_machine(limits, console.surroundings(context).visible_devices)
    )
    if json:
        console.print_json(decision.model_dump())
    else:
        _print_decision(decision)
    if not decision:
        raise typer.Exit(_CLOSED_EXIT_CODE)


@gate_app.command()
def watch(
    context: typer.Context,
    trace: TraceOption = None,
    count: Annotated[
        int | None, typer.Option("--count", min=1, help="Stop after so many looks.")
    ] = None,
    every_s: Annotated[
        float, typer.Option("--every-s", min=0.0, help="Seconds between looks at a trace.")
    ] = 0.2,
    pause_margin_c: PauseOption = _DEFAULTS.pause_margin_c,
    resume_margin_c: ResumeOption = _DEFAULTS.resume_margin_c,
    good_readings: GoodOption = _DEFAULTS.good_readings,
    max_age_s: AgeOption = _DEFAULTS.max_age_s,
    max_temperature_c: MaximumOption = None,
    uuid: UuidOption = None,
    no_driver: NoDriverOption = _DEFAULTS.no_driver,
    unreadable: UnreadableOption = _DEFAULTS.unreadable,
) -> None:
    """Watch the gate live, look by look, until Ctrl-C."""
    from rich.live import Live

    limits = _limits(
        trace=None if trace is None else str(trace),
        pause_margin_c=pause_margin_c,
        resume_margin_c=resume_margin_c,
        good_readings=good_readings,
        max_age_s=max_age_s,
        max_temperature_c=max_temperature_c,
        uuid=uuid,
        no_driver=no_driver,
        unreadable=unreadable,
    )
    visible = console.surroundings(context).visible_devices
    looks = closing(_looks_at_trace(trace, every_s) if trace else _looks_at_machine(visible))
    state = GateState()
    try:
        with looks as seen, Live(console=console.stdout(), auto_refresh=False) as live:
            for number, (survey, now_s) in enumerate(seen, start=1):
                decision, state = gate.judge(survey, state, limits, now_s)
                live.update(_picture(decision, state, now_s), refresh=True)
                if number == count:
                    break
    except KeyboardInterrupt:
        console.stderr().print("stopped watching")


@gate_app.command()
def simulate(
    trace: Annotated[Path, typer.Option("--trace", help="The recorded GPU trace (CSV).")],
    pause_margin_c: PauseOption = _DEFAULTS.pause_margin_c,
    resume_margin_c: ResumeOption = _DEFAULTS.resume_margin_c,
    good_readings: GoodOption = _DEFAULTS.good_readings,
    max_age_s: AgeOption = _DEFAULTS.max_age_s,
    max_temperature_c: MaximumOption = None,
    json: JsonOption = False,
) -> None:
    """Replay a recorded trace through the gate: what would it have said, reading by reading?"""
    from power.replay import Trace

    limits = _limits(
        trace=str(trace),
        pause_margin_c=pause_margin_c,
        resume_margin_c=resume_margin_c,
        good_readings=good_readings,
        max_age_s=max_age_s,
        max_temperature_c=max_temperature_c,
    )
    verdicts = list(verdicts_over(Trace.load(trace), limits))
    if json:
        console.print_json([verdict._asdict() for verdict in verdicts])
    else:
        _print_transitions(verdicts)


@gpu_app.callback()
def gpu() -> None:
    """What can be read of this machine's GPUs?"""


@gpu_app.command()
def probe(context: typer.Context, json: JsonOption = False) -> None:
    """List, per device, what can be read, what the gate would go by, and what is missing."""
    from power.nvml import NvmlDoor

    visible = console.surroundings(context).visible_devices
    with NvmlDoor(visible=visible, first_answer_s=10.0) as door:
        survey = door.survey(time.monotonic())
        devices = door.devices()
    if json:
        console.print_json(
            {
                "driver": survey.driver,
                "because": survey.because,
                "devices": [
                    {"stands_on": _rung(device)} | device.model_dump() for device in devices
                ],
            }
        )
    else:
        _print_probe(survey, devices)


class Verdict(NamedTuple):
    """What the gate said of one device at one reading."""

    elapsed_s: float
    uuid: str
    open: bool
    because: str


def verdicts_over(trace: Trace, limits: GateLimits) -> Iterator[Verdict]:
    """Judge each reading of a trace at its own time, each device by itself."""
    states: dict[str, GateState] = {}
    for reading in trace.readings:
        survey = Survey(readings=(reading,), driver="present", because=trace.path.name)
        before = states.get(reading.uuid, GateState())
        decision, states[reading.uuid] = gate.judge(survey, before, limits, reading.read_at_s)
        yield Verdict(reading.read_at_s, reading.uuid, decision.yes, decision.because)


def _limits(**options: object) -> GateLimits:
    try:
        return GateLimits.model_validate(options)
    except ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(map(str, each['loc'])) or 'options'}: {each['msg']}"
            for each in error.errors()
        )
        raise BadConfiguration(f"the gate's limits do not fit: {problems}") from error


def _judge_trace(path: Path, at_s: float | None, limits: GateLimits) -> Decision:
    from power.replay import Trace

    trace = Trace.load(path)
    now_s = trace.ends_at_s if at_s is None else at_s
    return gate.judge(trace.survey(-math.inf, now_s), GateState(), limits, now_s).decision


def _judge_machine(limits: GateLimits, visible: str | None) -> Decision:
    """A closed gate opens after some good readings: take as many looks as that needs."""
    state = GateState()
    with closing(_looks_at_machine(visible)) as looks:
        for number, (survey, now_s) in enumerate(looks, start=1):
            decision, state = gate.judge(survey, state, limits, now_s)
            if survey.driver != "present" or number >= limits.good_readings:
                break
    return decision


def _looks_at_machine(visible: str | None) -> Generator[tuple[Survey, float]]:
    from power.nvml import NvmlDoor

    with NvmlDoor(visible=visible) as door:
        while True:
            now_s = time.monotonic()
            yield door.survey(now_s), now_s
            door.wait_for_news(timeout_s=2.0)


def _looks_at_trace(path: Path, every_s: float) -> Generator[tuple[Survey, float]]:
    from power.replay import Trace

    trace = Trace.load(path)
    moments = sorted({reading.read_at_s for reading in trace.readings})
    before_s = -math.inf
    for now_s in moments:
        yield trace.survey(before_s, now_s), now_s
        before_s = now_s
        time.sleep(every_s)


def _rung(device: Device) -> str:
    """What the gate would go by, in words."""
    if device.rung is not None:
        return device.rung
    return "configured maximum" if device.temperature_c is not None else "unknown"


def _print_decision(decision: Decision) -> None:
    out = console.stdout()
    word = "[green]open[/]" if decision else "[red]closed[/]"
    out.print(f"gate: {word}")
    out.print(decision.because, markup=False, highlight=False, soft_wrap=True)


def _picture(decision: Decision, state: GateState, now_s: float) -> RenderableType:
    """The live view: one line per device, and the answer under it."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    table = Table("device", "gate", "margin °C", "core °C", "power W", "busy %", "age s")
    for device in state.devices:
        latest = device.latest or GpuReading(uuid=device.uuid, read_at_s=math.nan)
        numbers = (
            latest.margin_c,
            latest.temperature_c,
            latest.power_w,
            latest.utilization,
            now_s - latest.read_at_s,
        )
        word = Text("open", "green") if device.open else Text("closed", "red")
        cells = [Text("-" if number is None else f"{number:.1f}") for number in numbers]
        table.add_row(Text(device.uuid), word, *cells)
    answer = Text("open: " if decision else "closed: ", "bold green" if decision else "bold red")
    return Group(table, answer + Text(decision.because))


def _print_transitions(verdicts: list[Verdict]) -> None:
    """Only the readings at which a device opened or closed, and how it went over all."""
    last: dict[str, bool] = {}
    rows = []
    for verdict in verdicts:
        if last.get(verdict.uuid) is not verdict.open:
            word = "open" if verdict.open else "closed"
            rows.append((f"{verdict.elapsed_s:g}", word, verdict.because))
        last[verdict.uuid] = verdict.open
    console.print_table(["at s", "gate", "because"], rows)
    console.stdout().print(
        f"readings {len(verdicts)}, devices {len(last)}, transitions {len(rows) - len(last)}, "
        f"open {_share_open(verdicts):.1%} of the time"
    )


def _share_open(verdicts: list[Verdict]) -> float:
    """Share of the time from each device's first to its last reading that it was open."""
    open_s = all_s = 0.0
    last: dict[str, Verdict] = {}
    for verdict in verdicts:
        before = last.get(verdict.uuid)
        if before is not None:
            lasted_s = max(verdict.elapsed_s - before.elapsed_s, 0.0)
            all_s += lasted_s
            open_s += lasted_s if before.open else 0.0
        last[verdict.uuid] = verdict
    return open_s / all_s if all_s else 0.0


def _print_probe(survey: Survey, devices: tuple[Device, ...]) -> None:
    out = console.stdout()
    out.print(f"driver {survey.driver}: {survey.because}", markup=False, soft_wrap=True)
    if survey.driver == "absent":
        out.print(
            'Without a driver the gate follows no_driver in [gate] (default "go"); '
            "a recorded trace can stand in: gate show --trace FILE.",
            markup=False,
            soft_wrap=True,
        )
    if not devices:
        return
    rows = [
        (
            device.uuid,
            device.name,
            _rung(device),
            device.margin_c,
            device.temperature_c,
            None if device.energy_j is None else device.energy_j / 3.6e6,
        )
        for device in devices
    ]
    heads = ["device", "model", "stands on", "margin °C", "core °C", "kWh"]
    console.print_table(heads, rows)
    missing = [
        (device.uuid, each.what, each.why, each.remedy)
        for device in devices
        for each in device.missing
    ]
    if missing:
        console.print_table(["device", "not told", "why", "what to do"], missing)
