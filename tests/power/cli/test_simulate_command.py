"""The command `gate simulate --plant`, as a user types it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest
from typer.testing import CliRunner, Result

from observability.core.errors import BadConfiguration
from power.cli import gate_commands


def simulate(*arguments: object) -> Result:
    """Type `gate simulate`; errors of ours come through, as they do to the front desk."""
    result = CliRunner().invoke(
        gate_commands.gate_app, ["simulate", *(str(each) for each in arguments)]
    )
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def answer(*arguments: object) -> dict[str, Any]:
    """What it says in JSON."""
    result = simulate("--plant", "liquid", "--jobs", 3, "--json", *arguments)
    assert 0 == result.exit_code
    told: dict[str, Any] = json.loads(result.stdout)
    return told


def test_it_sets_the_policies_side_by_side() -> None:
    """A table with a row for each, in this order."""
    result = simulate("--plant", "air", "--jobs", 2)
    assert 0 == result.exit_code
    places = [result.stdout.find(name) for name in ("no gate", "cap only", "oracle")]
    assert sorted(places) == places
    assert -1 not in places


def test_as_json_it_tells_device_jobs_and_every_figure() -> None:
    """One document; what a picture or a script needs is in it."""
    told = answer()
    assert {"plant", "seed", "device", "jobs", "policies"} == set(told)
    assert ("liquid", 0, 3, 6) == (
        told["plant"],
        told["seed"],
        len(told["jobs"]),
        len(told["policies"]),
    )
    figures = {
        *("policy", "throttled_s", "makespan_s", "mean_delay_s", "max_delay_s", "energy_j"),
        *("peak_c", "work_s", "jobs", "forced"),
    }
    assert all(figures == set(each) for each in told["policies"])
    assert 1 == len({each["work_s"] for each in told["policies"]})


def test_a_seed_is_a_device_and_its_day() -> None:
    """The same one again gives the same figures, another one others."""
    assert answer("--seed", 4) == answer("--seed", 4)
    assert answer("--seed", 4)["device"] != answer("--seed", 5)["device"]


def test_the_gates_options_are_for_the_simulated_gate_too() -> None:
    """A resume margin that is never reached makes every job wait for its deadline."""
    by_name = {each["policy"]: each for each in answer("--resume-margin-c", 90)["policies"]}
    assert (3, 0) == (by_name["hysteresis"]["forced"], by_name["no gate"]["forced"])


def test_the_picture_is_written_and_named(tmp_path: Path) -> None:
    """An SVG with a panel per policy and the three limits."""
    path = tmp_path / "temperatures.svg"
    result = simulate("--plant", "laptop", "--jobs", 1, "--picture", path)
    assert f"picture: {path}" in result.stdout.replace("\n", "")
    text = path.read_text("utf-8")
    root = ET.fromstring(text)
    written = [each.text or "" for each in root.iter("{http://www.w3.org/2000/svg}text")]
    assert {"slowdown", "pause margin", "resume margin"} <= set(written)
    assert any(each.startswith("forecast + cap: throttled 0 s") for each in written)


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("--trace", "t.csv", "--plant", "air"),
        ("--plant", "steam"),
        ("--plant", "air", "--jobs", "0"),
        ("--trace", "t.csv", "--picture", "p.svg"),
    ],
)
def test_what_cannot_be_meant_is_a_usage_error(arguments: tuple[str, ...]) -> None:
    """Neither or both sources, a cooling nobody knows, no job, a picture of a trace."""
    assert 2 == simulate(*arguments).exit_code


def test_limits_that_contradict_are_a_bad_configuration() -> None:
    """As with a trace."""
    with pytest.raises(BadConfiguration, match="resume_margin_c"):
        simulate("--plant", "air", "--pause-margin-c", 30)
