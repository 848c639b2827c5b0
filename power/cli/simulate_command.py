"""The command `gate simulate`: it tries the gate on a recorded trace or a simulated device.

It replays or simulates, calls the policies, and prints. Slow libraries are imported inside.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

from observability.core import atomic_file, cli_output
from observability.core.cli_output import JsonOption
from power.cli.options import THERMOSTAT_OPTIONS, takes_gate_options
from power.core.device_readings import DeviceSnapshot
from power.core.gate_config import GateConfig
from power.policy import gate
from power.policy.gate import GateState
from power.simulation.simulated_device import Preset

if TYPE_CHECKING:
    from power.devices.trace import Trace
    from power.simulation.policy_lab import PolicyOutcome
    from power.simulation.simulated_device import PlantKind


@takes_gate_options(THERMOSTAT_OPTIONS)
def simulate(
    gate_config: GateConfig,
    trace: Annotated[
        Path | None, typer.Option("--trace", help="Replay this recorded GPU trace (CSV).")
    ] = None,
    plant: Annotated[
        Preset | None,
        typer.Option("--plant", help="Run jobs on a simulated device with this cooling."),
    ] = None,
    seed: Annotated[
        int, typer.Option("--seed", min=0, help="Seed of the simulated device and its jobs.")
    ] = 0,
    jobs: Annotated[
        int,
        typer.Option("--jobs", min=1, max=1000, help="Number of jobs on the simulated device."),
    ] = 12,
    picture: Annotated[
        Path | None,
        typer.Option("--picture", help="Write the simulated temperatures to this SVG file."),
    ] = None,
    json: JsonOption = False,
) -> None:
    """Try the gate: on a recorded trace, reading by reading, or with jobs on a simulated device."""
    if (trace is None) == (plant is None):
        raise typer.BadParameter("name one of --trace FILE and --plant KIND")
    if plant is not None:
        _simulate_plant(plant, seed, jobs, gate_config, picture, json)
    elif trace is not None:
        if picture is not None:
            raise typer.BadParameter("--picture draws what --plant simulates")
        from power.devices.trace import Trace

        verdicts = list(verdicts_over(Trace.load(trace), gate_config))
        if json:
            cli_output.print_json([verdict._asdict() for verdict in verdicts])
        else:
            _print_transitions(verdicts)


def _simulate_plant(
    preset: Preset, seed: int, jobs: int, gate_config: GateConfig, picture: Path | None, json: bool
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
            # Every policy gets the same noise.
            lambda: np.random.default_rng([seed, 1]),
            policy_lab.SimulationConfig(gate=gate_config),
            on_done=lambda: progress.advance(bar),
        )
    if picture is not None:
        atomic_file.write(picture, _picture(kind, seed, outcomes, gate_config).encode())
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
        return
    heads = ["policy", "throttled s", "makespan s", "mean delay s", "max delay s", "kWh", "peak °C"]
    rows = []
    for each in outcomes:
        figures = each.summary()
        seconds = ("throttled_s", "makespan_s", "mean_delay_s", "max_delay_s")
        energy_kwh = f"{each.energy_j / 3.6e6:.2f}"
        rows.append(
            (
                each.policy,
                *(f"{figures[name]:.0f}" for name in seconds),
                energy_kwh,
                f"{each.peak_c:.1f}",
            )
        )
    cli_output.print_table(heads, rows)
    if picture is not None:
        cli_output.stdout().print(f"picture: {picture}", markup=False, soft_wrap=True)


def _picture(
    kind: PlantKind, seed: int, outcomes: tuple[PolicyOutcome, ...], gate_config: GateConfig
) -> str:
    from power.simulation.svg_chart import Limit, Panel, svg

    lines = (
        Limit("slowdown", kind.slowdown_c, "#c62828"),
        Limit("pause margin", kind.slowdown_c - gate_config.pause_margin_c, "#ef6c00"),
        Limit("resume margin", kind.slowdown_c - gate_config.resume_margin_c, "#2e7d32"),
    )
    panels = [
        Panel(f"{each.policy}: throttled {each.throttled_s:.0f} s", each.course)
        for each in outcomes
    ]
    return svg(f"Temperature of the die, plant {kind.name}, seed {seed}", panels, lines)


class Verdict(NamedTuple):
    """The gate's answer for one device at one reading."""

    elapsed_s: float
    uuid: str
    open: bool
    because: str


def verdicts_over(trace: Trace, gate_config: GateConfig) -> Iterator[Verdict]:
    """Judge each reading of a trace at its moment, each device by itself."""
    states: dict[str, GateState] = {}
    for reading in trace.readings:
        survey = DeviceSnapshot(readings=(reading,), driver="present", because=trace.path.name)
        before = states.get(reading.uuid, GateState())
        decision, states[reading.uuid] = gate.judge(survey, before, gate_config, reading.read_at_s)
        yield Verdict(reading.read_at_s, reading.uuid, decision.yes, decision.because)


def _print_transitions(verdicts: list[Verdict]) -> None:
    """Print the readings at which a device opened or closed, and a summary.

    The share of time that devices were open counts from each one's first to its last reading.
    """
    open_s = all_s = 0.0
    last: dict[str, Verdict] = {}
    rows = []
    for verdict in verdicts:
        before = last.get(verdict.uuid)
        if before is None or before.open is not verdict.open:
            answer = "open" if verdict.open else "closed"
            rows.append((f"{verdict.elapsed_s:g}", answer, verdict.because))
        if before is not None:
            lasted_s = max(verdict.elapsed_s - before.elapsed_s, 0.0)
            all_s += lasted_s
            open_s += lasted_s if before.open else 0.0
        last[verdict.uuid] = verdict
    cli_output.print_table(["at s", "gate", "because"], rows)
    cli_output.stdout().print(
        f"readings {len(verdicts)}, devices {len(last)}, transitions {len(rows) - len(last)}, "
        f"open {open_s / all_s if all_s else 0.0:.1%} of the time"
    )
