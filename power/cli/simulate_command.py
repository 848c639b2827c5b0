"""The command `gate simulate`: the gate tried on a recorded trace, or on a simulated device.

It replays and draws, asks the judges, and prints. Slow libraries are imported inside.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

from observability.core import atomic_file, cli_output
from observability.core.cli_output import JsonOption
from power.cli.options import (
    AgeOption,
    DwellOption,
    GoodOption,
    MaximumOption,
    PauseOption,
    ResumeOption,
    limits_of,
)
from power.core.device_readings import Survey
from power.core.gate_config import GateLimits
from power.policy import gate
from power.policy.gate import GateState
from power.simulation.simulated_device import Preset

if TYPE_CHECKING:
    from power.devices.trace import Trace
    from power.simulation.policy_lab import Outcome
    from power.simulation.simulated_device import PlantKind

_DEFAULTS = GateLimits()


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
    limits = limits_of(
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
    from power.devices.trace import Trace

    verdicts = list(verdicts_over(Trace.load(trace), limits))
    if json:
        cli_output.print_json([verdict._asdict() for verdict in verdicts])
    else:
        _print_transitions(verdicts)


def _simulate_plant(
    preset: Preset, seed: int, jobs: int, limits: GateLimits, picture: Path | None, json: bool
) -> None:
    import numpy as np
    from rich.progress import Progress

    from power.simulation import policy_lab
    from power.simulation.simulated_device import PRESETS, varied

    generator = np.random.default_rng(seed)
    kind = varied(PRESETS[preset], generator)
    mix = policy_lab.draw_jobs(kind, jobs, generator)
    errors = cli_output.stderr()
    with Progress(console=errors, transient=True, disable=not errors.is_terminal) as progress:
        bar = progress.add_task("simulating", total=jobs * policy_lab.POLICIES)
        outcomes = policy_lab.compare(
            kind,
            mix,
            # Every policy meets the same noise.
            lambda: np.random.default_rng([seed, 1]),
            policy_lab.SimulationRules(gate=limits),
            on_done=lambda: progress.advance(bar),
        )
    if picture is not None:
        atomic_file.write(picture, _drawn(kind, seed, outcomes, limits).encode())
    if json:
        cli_output.print_json(
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
            cli_output.stdout().print(f"picture: {picture}", markup=False, soft_wrap=True)


def _drawn(kind: PlantKind, seed: int, outcomes: tuple[Outcome, ...], limits: GateLimits) -> str:
    from power.simulation.svg_chart import Limit, Panel, svg

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
    cli_output.print_table(heads, rows)


_IN_SECONDS = ("throttled_s", "makespan_s", "mean_delay_s", "max_delay_s")


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


def _print_transitions(verdicts: list[Verdict]) -> None:
    """Only the readings at which a device opened or closed, and how it went over all."""
    last: dict[str, bool] = {}
    rows = []
    for verdict in verdicts:
        if last.get(verdict.uuid) is not verdict.open:
            word = "open" if verdict.open else "closed"
            rows.append((f"{verdict.elapsed_s:g}", word, verdict.because))
        last[verdict.uuid] = verdict.open
    cli_output.print_table(["at s", "gate", "because"], rows)
    cli_output.stdout().print(
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
