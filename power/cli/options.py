"""The knobs of [gate] as options: what the desks of this room share on the command line."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Annotated, Any, get_type_hints

import typer
from pydantic import ValidationError

from observability.core.errors import BadConfiguration
from power.core.gate_config import GateLimits

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
        command(limits=limits_of(**knobs), **given)

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


def limits_of(**options: object) -> GateLimits:
    """The limits that options make. Raises BadConfiguration where they do not fit together."""
    try:
        return GateLimits.model_validate(options)
    except ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(map(str, each['loc'])) or 'options'}: {each['msg']}"
            for each in error.errors()
        )
        raise BadConfiguration(f"the gate's limits do not fit: {problems}") from error
