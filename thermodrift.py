"""The command line, composed of the commands of each package.

An error ends with a message on stderr that says what, why and what to do, and with an exit code (0
done, 1 failed, 2 usage, 75 try again later, 78 bad configuration). Nothing slow is imported here,
so that ``--help`` answers at once.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from flows.cli.commands import register as register_flows
from flows.cli.lab_commands import lab_app
from models.cli import models_app
from observability.cli import history_app
from observability.core import atomic_file
from observability.core.cli_output import CliContext
from observability.core.errors import ThermodriftError
from power.cli.gate_commands import gate_app, gpu_app

app = typer.Typer(
    name="thermodrift",
    help="Keep machine-learning models fresh without cooking the hardware.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
register_flows(app)
app.add_typer(gate_app, name="gate")
app.add_typer(gpu_app, name="gpu")
app.add_typer(models_app, name="models")
app.add_typer(history_app, name="history")
app.add_typer(lab_app, name="lab")


@app.callback()
def prepare(
    context: typer.Context,
    home: Annotated[
        Path | None,
        typer.Option(
            help="Folder that keeps models, checkpoints and history "
            "(default: THERMODRIFT_HOME, or .thermodrift here).",
            file_okay=False,
        ),
    ] = None,
    debug: Annotated[bool, typer.Option(help="Show tracebacks.")] = False,
) -> None:
    """Find the home, arm the failpoints of tests, and turn off the libraries' telemetry."""
    from flows.config.settings import Settings, silence_telemetry, visible_devices
    from observability.core import failpoints

    silence_telemetry()
    settings = Settings()
    failpoints.arm_from(settings.faults)
    context.obj = CliContext(
        home=home or settings.home,
        debug=debug,
        visible_devices=visible_devices(),
        fake_nvml=settings.fake_nvml,
    )


def main() -> None:
    """Run the command line; an error becomes a message and an exit code."""
    debug = "--debug" in sys.argv[1:]
    try:
        app(standalone_mode=True)
    except ThermodriftError as error:
        if debug:
            raise
        _print_error(str(error))
        raise SystemExit(error.exit_code) from error
    except OSError as error:
        if debug:
            raise
        _print_error(
            f"{error}: {atomic_file.remedy(error)}, then run again. What was acknowledged is on "
            "disk, and the same command goes on from it (--debug shows where it happened)"
        )
        raise SystemExit(1) from error
    except Exception as error:
        if debug:
            raise
        _print_error(f"{type(error).__name__}: {error} (--debug shows where it happened)")
        raise SystemExit(1) from error


def _print_error(message: str) -> None:
    sys.stderr.write(f"thermodrift: {message}\n")


if __name__ == "__main__":
    main()
