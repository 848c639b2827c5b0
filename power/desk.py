"""The commands of the power room: `gate show`, `gate watch`, `gate simulate` and `gpu probe`.

A desk turns options into limits, asks a door, lets the gate judge, and prints. It decides nothing.
Slow libraries are imported inside the commands.
"""

from __future__ import annotations

import inspect
import itertools
import math
import secrets
import sys
import time
from collections import Counter
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple, get_type_hints

import typer
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from observability import console, durable
from observability.console import JsonOption
from observability.decision import Decision
from observability.errors import BadConfiguration
from observability.places import Places
from observability.records import DecisionRecord
from power import gate
from power.device import PRIVILEGE
from power.gate import GateLimits, GateState, GpuReading, Override, Survey
from power.plant import Preset

if TYPE_CHECKING:
    from rich.console import RenderableType

    from power.device import Device, Door
    from power.plant import PlantKind
    from power.policies import Outcome
    from power.replay import Trace

gate_app = typer.Typer(
    help="May heavy work start on this machine now, and why?", no_args_is_help=True
)
gpu_app = typer.Typer(no_args_is_help=True)

_DEFAULTS = GateLimits()
_CLOSED_EXIT_CODE = 75

PauseOption = Annotated[
    float, typer.Option("--pause-margin-c", help="At or below this margin it closes at once.")
]
ResumeOption = Annotated[
    float, typer.Option("--resume-margin-c", help="At or above this margin it may open again.")
]
GoodOption = Annotated[
    int, typer.Option("--good-readings", help="Readings in a row that open a closed device.")
]
DwellOption = Annotated[
    float, typer.Option("--dwell-s", help="A device that closed stays closed for this long.")
]
AgeOption = Annotated[
    float, typer.Option("--max-age-s", help="A reading older than this counts for nothing.")
]
MaximumOption = Annotated[
    float | None,
    typer.Option("--max-temperature-c", help="Count a margin from here where none is told."),
]
_OPTIONS = (
    *("source", "trace", "uuid", "pause_margin_c", "resume_margin_c", "good_readings", "dwell_s"),
    *("max_age_s", "max_temperature_c", "no_driver", "unreadable"),
)
"""The knobs of [gate] that a look at this machine has as options, too."""


def takes_limits(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the knobs of `_OPTIONS` as options, in place of its parameter `limits`."""

    def with_limits(**given: Any) -> None:
        knobs = {name: given.pop(name) for name in _OPTIONS}
        command(limits=_limits(**knobs), **given)

    hints = get_type_hints(command, include_extras=True)
    own = [
        each.replace(annotation=hints[name], kind=inspect.Parameter.KEYWORD_ONLY)
        for name, each in inspect.signature(command).parameters.items()
        if name != "limits"
    ]
    signature = inspect.Signature([*own, *map(_option, _OPTIONS)])
    with_limits.__doc__, with_limits.__name__ = command.__doc__, command.__name__
    with_limits.__signature__ = signature  # type: ignore[attr-defined]  # what typer reads
    with_limits.__annotations__ = {
        name: each.annotation for name, each in signature.parameters.items()
    }
    return with_limits


def _option(name: str) -> inspect.Parameter:
    knob = GateLimits.model_fields[name]
    words = typer.Option(f"--{name.replace('_', '-')}", help=knob.description)
    return inspect.Parameter(
        name,
        inspect.Parameter.KEYWORD_ONLY,
        default=knob.default,
        annotation=Annotated[knob.annotation, words],
    )


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
    """Say whether the gate is open now, and why. Exit code 0: open, 75: closed."""
    if limits.reads_from == "trace" and limits.trace is not None:
        decision = _judge_trace(Path(limits.trace), at_s, limits)
    else:
        from power import override

        decision = _judge_machine(limits, console.surroundings(context).visible_devices)
        word = override.read(_override_file(context))
        decision = gate.overridden(decision, word, datetime.now(UTC))
    if json:
        console.print_json(decision.model_dump())
    else:
        _print_decision(decision)
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
    looks = _looks(limits, console.surroundings(context).visible_devices, every_s)
    with closing(looks):
        seen = _judged(_bounded(looks, count, for_s), limits)
        try:
            _print_lines(seen) if json else _show_live(seen)
        except KeyboardInterrupt:
            console.stderr().print("stopped watching")


override_app = typer.Typer(
    no_args_is_help=True, help="A person's word in place of the gate's, for a time."
)
gate_app.add_typer(override_app, name="override")


@override_app.command("set")
def override_set(
    context: typer.Context,
    answer: Annotated[Literal["open", "closed"], typer.Argument(help="What it shall answer.")],
    because: Annotated[str, typer.Option(help="Why: it is told wherever it decides.")],
    for_s: Annotated[
        float, typer.Option("--for-s", min=1.0, help="Seconds after which it expires.")
    ] = 3600.0,
    json: JsonOption = False,
) -> None:
    """Keep the gate of this home open or closed for a time, whatever the devices say."""
    from power import override

    now = datetime.now(UTC)
    try:
        word = Override(
            open=answer == "open",
            set_at=now,
            until=now + timedelta(seconds=for_s),
            because=because,
        )
    except (ValidationError, OverflowError) as error:
        raise BadConfiguration(
            f"an override lasts {gate.LONGEST_OVERRIDE.days} days at most, and has a reason of 1 "
            f"to 500 characters; came: --for-s {for_s:g} --because {because!r}"
        ) from error
    override.write(_override_file(context), word)
    told = f"the gate is {answer} until {word.until.isoformat(timespec='seconds')}: {because}"
    _log_override(context, Decision(question="override", yes=word.open, because=told))
    _tell_override(word, now, json)


@override_app.command("clear")
def override_clear(context: typer.Context, json: JsonOption = False) -> None:
    """Take the override back: the gate answers by itself again."""
    from power import override

    if override.clear(_override_file(context)):
        told = "the override was taken back: the gate answers by itself"
        _log_override(context, Decision(question="override", yes=False, because=told))
    _tell_override(None, datetime.now(UTC), json)


@override_app.command("show")
def override_show(context: typer.Context, json: JsonOption = False) -> None:
    """Say whether a person's word stands in place of the gate's, and until when."""
    from power import override

    _tell_override(override.read(_override_file(context)), datetime.now(UTC), json)


def _override_file(context: typer.Context) -> Path:
    return Places(console.surroundings(context).home).override


def _log_override(context: typer.Context, decision: Decision) -> None:
    """The history keeps who was overruled, by whose word: no pipeline's alone."""
    from observability.history import History

    now = datetime.now(UTC)
    run_id = secrets.token_hex(6)
    row = DecisionRecord.of(decision, decided_at=now, pipeline="", run_id=run_id, position=0)
    History(console.surroundings(context).home).commit([row], f"override.{run_id}")


def _tell_override(word: Override | None, now: datetime, json: bool) -> None:
    stands = word is not None and word.set_at <= now < word.until
    if json:
        console.print_json({"stands": stands, "override": word and word.model_dump()})
    elif word is None or not stands:
        console.stdout().print("no override: the gate answers by itself")
    else:
        answer = "open" if word.open else "closed"
        until = word.until.isoformat(timespec="seconds")
        text = f"override: the gate is {answer} until {until} ({word.because})"
        console.stdout().print(text, markup=False, highlight=False, soft_wrap=True)


@gate_app.command()
def simulate(
    trace: Annotated[
        Path | None, typer.Option("--trace", help="Replay this recorded GPU trace (CSV).")
    ] = None,
    plant: Annotated[
        Preset | None,
        typer.Option("--plant", help="Run jobs on a simulated device, cooled like this."),
    ] = None,
    seed: Annotated[
        int, typer.Option("--seed", min=0, help="Draws the simulated device and its jobs.")
    ] = 0,
    jobs: Annotated[
        int,
        typer.Option("--jobs", min=1, max=1000, help="How many jobs the simulated device gets."),
    ] = 12,
    picture: Annotated[
        Path | None,
        typer.Option("--picture", help="Draw the simulated temperatures into this file (SVG)."),
    ] = None,
    pause_margin_c: PauseOption = _DEFAULTS.pause_margin_c,
    resume_margin_c: ResumeOption = _DEFAULTS.resume_margin_c,
    good_readings: GoodOption = _DEFAULTS.good_readings,
    dwell_s: DwellOption = _DEFAULTS.dwell_s,
    max_age_s: AgeOption = _DEFAULTS.max_age_s,
    max_temperature_c: MaximumOption = None,
    json: JsonOption = False,
) -> None:
    """Try the gate: on a recorded trace, reading by reading, or with jobs on a simulated device."""
    if (trace is None) == (plant is None):
        raise typer.BadParameter("name one of --trace FILE and --plant KIND")
    limits = _limits(
        trace=None if trace is None else str(trace),
        pause_margin_c=pause_margin_c,
        resume_margin_c=resume_margin_c,
        good_readings=good_readings,
        dwell_s=dwell_s,
        max_age_s=max_age_s,
        max_temperature_c=max_temperature_c,
    )
    if plant is not None:
        _simulate_plant(plant, seed, jobs, limits, picture, json)
    elif trace is not None:
        if picture is not None:
            raise typer.BadParameter("--picture draws what --plant simulates")
        _simulate_trace(trace, limits, json)


def _simulate_trace(trace: Path, limits: GateLimits, json: bool) -> None:
    from power.replay import Trace

    verdicts = list(verdicts_over(Trace.load(trace), limits))
    if json:
        console.print_json([verdict._asdict() for verdict in verdicts])
    else:
        _print_transitions(verdicts)


def _simulate_plant(
    preset: Preset, seed: int, jobs: int, limits: GateLimits, picture: Path | None, json: bool
) -> None:
    import numpy as np
    from rich.progress import Progress

    from power import policies
    from power.plant import PRESETS, varied

    generator = np.random.default_rng(seed)
    kind = varied(PRESETS[preset], generator)
    mix = policies.draw_jobs(kind, jobs, generator)
    errors = console.stderr()
    with Progress(console=errors, transient=True, disable=not errors.is_terminal) as progress:
        bar = progress.add_task("simulating", total=jobs * policies.POLICIES)
        outcomes = policies.compare(
            kind,
            mix,
            # Every policy meets the same noise.
            lambda: np.random.default_rng([seed, 1]),
            policies.SimulationRules(gate=limits),
            on_done=lambda: progress.advance(bar),
        )
    if picture is not None:
        durable.write(picture, _drawn(kind, seed, outcomes, limits).encode())
    if json:
        console.print_json(
            {
                "plant": preset,
                "seed": seed,
                "device": kind.model_dump(),
                "jobs": [each._asdict() for each in mix],
                "policies": [each.summary() for each in outcomes],
            }
        )
    else:
        _print_outcomes(outcomes)
        if picture is not None:
            console.stdout().print(f"picture: {picture}", markup=False, soft_wrap=True)


def _drawn(kind: PlantKind, seed: int, outcomes: tuple[Outcome, ...], limits: GateLimits) -> str:
    from power.picture import Limit, Panel, svg

    lines = (
        Limit("slowdown", kind.slowdown_c, "#c62828"),
        Limit("pause margin", kind.slowdown_c - limits.pause_margin_c, "#ef6c00"),
        Limit("resume margin", kind.slowdown_c - limits.resume_margin_c, "#2e7d32"),
    )
    panels = [
        Panel(f"{each.policy}: throttled {each.throttled_s:.0f} s", each.course)
        for each in outcomes
    ]
    return svg(f"Temperature of the die, plant {kind.name}, seed {seed}", panels, lines)


def _print_outcomes(outcomes: tuple[Outcome, ...]) -> None:
    heads = ["policy", "throttled s", "makespan s", "mean delay s", "max delay s", "kWh", "peak °C"]
    rows = []
    for each in outcomes:
        told = each.summary()
        rows.append(
            (
                told["policy"],
                *(f"{told[name]:.0f}" for name in _IN_SECONDS),
                f"{each.energy_j / 3.6e6:.2f}",
                f"{each.peak_c:.1f}",
            )
        )
    console.print_table(heads, rows)


_IN_SECONDS = ("throttled_s", "makespan_s", "mean_delay_s", "max_delay_s")


@gpu_app.callback()
def gpu() -> None:
    """What can be read of this machine's GPUs?"""


@gpu_app.command()
def probe(context: typer.Context, json: JsonOption = False) -> None:
    """List, per device, what can be read and controlled, what the gate would go by, what lacks."""
    visible = console.surroundings(context).visible_devices
    probed = {source: _probed(source, visible) for source in ("nvml", "cpu")}
    if json:
        gpus, cpus = (_probe_document(*each) for each in probed.values())
        console.print_json(gpus | {"cpu": cpus})
    else:
        for what, (survey, devices) in zip(("GPU", "CPU"), probed.values(), strict=True):
            _print_probe(what, survey, devices)


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
    uuid: str | None = None
    open: bool | None = Field(default=None, description="What it says of this device.")
    age_s: float | None = None
    reading: GpuReading | None = None


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
    """A closed device opens after some good readings: look until each had as many as that needs."""
    moments: set[tuple[str, float]] = set()
    with closing(_looks(limits, visible, every_s=0.0)) as looks:
        for look in _judged(looks, limits):
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
    return look.decision


def _door(source: str, visible: str | None) -> Door:
    """What reads the devices of one kind: another maker's is one more file, and a line here."""
    if source == "cpu":
        from power.sensors import SensorDoor

        return SensorDoor()
    from power.nvml import NvmlDoor

    return NvmlDoor(visible=visible)


def _looks(
    limits: GateLimits, visible: str | None, every_s: float
) -> Generator[tuple[Survey, float]]:
    """Look after look at what `limits` names: the machine's without an end."""
    if limits.reads_from == "trace" and limits.trace is not None:
        return _looks_at_trace(Path(limits.trace), every_s)
    if limits.reads_from == "off":
        off = Survey(driver="absent", because="the gate is off")
        return (look for look in [(off, 0.0)])
    return _looks_at_machine(limits.reads_from, visible)


def _looks_at_machine(source: str, visible: str | None) -> Generator[tuple[Survey, float]]:
    with _door(source, visible) as door:
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


def _judged(looks: Iterator[tuple[Survey, float]], limits: GateLimits) -> Iterator[Look]:
    state = GateState()
    for survey, now_s in looks:
        decision, state = gate.judge(survey, state, limits, now_s)
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
    if not look.survey.readings:
        return {because: Line(at=at, gate_open=is_open, because=because)}
    return {
        (device.uuid, device.latest.read_at_s, device.open): Line(
            at=at,
            gate_open=is_open,
            because=device.why,
            uuid=device.uuid,
            open=device.open,
            age_s=look.now_s - device.latest.read_at_s,
            reading=device.latest,
        )
        for device in look.state.devices
        if device.latest is not None
    }


def _show_live(looks: Iterator[Look]) -> None:
    from rich.live import Live

    with Live(console=console.stdout(), auto_refresh=False) as live:
        for look in looks:
            live.update(_picture(look), refresh=True)


def _looks_at_trace(path: Path, every_s: float) -> Generator[tuple[Survey, float]]:
    from power.replay import Trace

    trace = Trace.load(path)
    moments = sorted({reading.read_at_s for reading in trace.readings})
    before_s = -math.inf
    for now_s in moments:
        yield trace.survey(before_s, now_s), now_s
        before_s = now_s
        time.sleep(every_s)


def _probed(source: str, visible: str | None) -> tuple[Survey, tuple[Device, ...]]:
    with _door(source, visible) as door:
        survey = door.survey(time.monotonic())
        return survey, door.devices()


def _stands_on(device: Device) -> str:
    """The rung that the gate would go by; the maximum must be configured."""
    if device.rung == "unknown" and device.temperature_c is not None:
        return "maximum"
    return device.rung


def _control(device: Device) -> str:
    """What may be controlled, and what is lacking for it, in words."""
    least_w, most_w = device.power_limit_min_w, device.power_limit_max_w
    if most_w is None:
        return "nothing: it tells no range of power limits"
    range_w = f"power limit {'up to' if least_w is None else f'{least_w:g} to'} {most_w:g} W"
    if device.may_set_limit:
        return range_w
    return f"{range_w}, not by this process: {PRIVILEGE}"


def _probe_document(survey: Survey, devices: tuple[Device, ...]) -> dict[str, Any]:
    return {
        "driver": survey.driver,
        "because": survey.because,
        "devices": [
            {"stands_on": _stands_on(each), "control": _control(each)} | each.model_dump()
            for each in devices
        ],
    }


def _print_decision(decision: Decision) -> None:
    out = console.stdout()
    word = "[green]open[/]" if decision else "[red]closed[/]"
    out.print(f"gate: {word}")
    out.print(decision.because, markup=False, highlight=False, soft_wrap=True)


def _picture(look: Look) -> RenderableType:
    """The live view: one line per device, and the answer under it."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    heads = ("margin °C", "core °C", "power W", "busy %", "MHz", "age s", "odd")
    table = Table("device", "gate", "rung", *heads)
    for device in look.state.devices:
        latest = device.latest or GpuReading(uuid=device.uuid, read_at_s=math.nan)
        numbers = (
            *(latest.margin_c, latest.temperature_c, latest.power_w, latest.utilization),
            *(latest.clock_mhz, look.now_s - latest.read_at_s),
        )
        word = Text("open", "green") if device.open else Text("closed", "red")
        cells = [Text("-" if number is None else f"{number:.1f}") for number in numbers]
        rung = Text("-" if latest.unreadable else latest.rung)
        table.add_row(Text(device.uuid), word, rung, *cells, Text(str(device.discarded)))
    yes = look.decision.yes
    answer = Text("open: " if yes else "closed: ", "bold green" if yes else "bold red")
    return Group(table, answer + Text(look.decision.because))


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


def _print_probe(what: str, survey: Survey, devices: tuple[Device, ...]) -> None:
    out = console.stdout()
    out.print(f"{what} driver {survey.driver}: {survey.because}", markup=False, soft_wrap=True)
    if survey.driver == "absent":
        out.print(
            'Without one the gate follows no_driver in [gate] (default "go"); '
            "a recorded trace can stand in: gate show --trace FILE.",
            markup=False,
            soft_wrap=True,
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
        console.print_table(["device", "not told", "why", "what to do"], missing)


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
    rung, margin_c, offset_c = _stands_on(device), device.margin_c, device.slowdown_offset_c
    if margin_c is None:
        return "maximum, once max_temperature_c is set in [gate]" if rung == "maximum" else rung
    told = f"{rung}: {margin_c:.0f} °C to where it slows down"
    if rung == "threshold":
        return f"{told}, at its own {device.threshold_c:.0f} °C"
    return told if offset_c is None else f"{told}, at its own T.Limit of {offset_c:.0f} °C"
