"""Turn the configuration of [gate] into options, for the commands that take them."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Annotated, Any, get_type_hints

import typer
from pydantic import ValidationError

from observability.core.errors import BadConfiguration
from power.core.gate_config import GateConfig

THERMOSTAT_OPTIONS = (
    *("pause_margin_c", "resume_margin_c", "good_readings", "dwell_s"),
    *("max_age_s", "max_temperature_c"),
)
ALL_OPTIONS = ("source", "trace", "uuid", *THERMOSTAT_OPTIONS, "no_driver", "unreadable")


def takes_gate_options(
    options: Sequence[str] = ALL_OPTIONS,
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Return a decorator that replaces a command's parameter `gate_config` by options of [gate].

    The command raises BadConfiguration if the options do not fit together.
    """

    def decorated(command: Callable[..., None]) -> Callable[..., None]:
        def with_options(**given: Any) -> None:
            try:
                config = GateConfig.model_validate({name: given.pop(name) for name in options})
            except ValidationError as error:
                problems = "; ".join(
                    f"{'.'.join(map(str, each['loc'])) or 'options'}: {each['msg']}"
                    for each in error.errors()
                )
                raise BadConfiguration(f"the gate's limits do not fit: {problems}") from error
            command(gate_config=config, **given)

        hints = get_type_hints(command, include_extras=True)
        parameters = [
            each.replace(annotation=hints[name], kind=inspect.Parameter.KEYWORD_ONLY)
            for name, each in inspect.signature(command).parameters.items()
            if name != "gate_config"
        ]
        for name in options:
            field = GateConfig.model_fields[name]
            option = typer.Option(f"--{name.replace('_', '-')}", help=field.description)
            parameters.append(
                inspect.Parameter(
                    name,
                    inspect.Parameter.KEYWORD_ONLY,
                    default=field.default,
                    annotation=Annotated[field.annotation, option],
                )
            )
        with_options.__doc__, with_options.__name__ = command.__doc__, command.__name__
        with_options.__signature__ = inspect.Signature(  # type: ignore[attr-defined]  # typer's
            parameters
        )
        with_options.__annotations__ = {each.name: each.annotation for each in parameters}
        return with_options

    return decorated
