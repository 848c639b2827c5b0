"""Rules, alerts and dashboard use figures that are there, and say what to do about each alert."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest
import typer.main
import yaml  # type: ignore[import-untyped]  # it publishes no types

import thermodrift
from examples.monitoring import make_dashboard
from observability.metrics.definitions import BY_NAME
from tests import ROOT

FOLDER = ROOT / "examples" / "monitoring"
DCGM = {
    # The new name of each field of dcgm-exporter 4.9.0, and the old one.
    *("DCGM_FI_DEV_GPU_TEMP_CELSIUS", "DCGM_FI_DEV_GPU_TEMP"),
    *("DCGM_FI_DEV_MEMORY_TEMP_CELSIUS", "DCGM_FI_DEV_MEMORY_TEMP"),
    *("DCGM_FI_DEV_BOARD_POWER_WATTS", "DCGM_FI_DEV_POWER_USAGE"),
    *("DCGM_FI_DEV_GPU_ENERGY_JOULES_TOTAL", "DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION"),
    *("DCGM_FI_DEV_GPU_UTIL_RATIO", "DCGM_FI_DEV_GPU_UTIL"),
    *("DCGM_FI_DEV_SM_CLOCK_HERTZ", "DCGM_FI_DEV_SM_CLOCK"),
    # Those that its default counters do not have.
    *("DCGM_FI_DEV_GPU_TEMP_MARGIN_CELSIUS", "DCGM_FI_DEV_GPU_TEMP_LIMIT"),
    *("DCGM_FI_DEV_BOARD_POWER_LIMIT_ENFORCED_WATTS", "DCGM_FI_DEV_ENFORCED_POWER_LIMIT"),
}
NAME = re.compile(r"\b(?:thermodrift_|DCGM_)\w+|\b[a-z_]+:[a-z_]+:[a-z0-9_]+")


def load(name: str) -> Any:
    """A file of the folder."""
    return yaml.safe_load((FOLDER / name).read_text(encoding="utf-8"))


def rules(name: str) -> list[dict[str, Any]]:
    """All rules of a file."""
    return [rule for group in load(name)["groups"] for rule in group["rules"]]


RECORDED = {rule["record"]: rule["expr"] for rule in rules("recording_rules.yml")}
ALERTS = {rule["alert"]: rule for rule in rules("alerts.yml")}


def questions() -> Iterator[str]:
    """Everything that is asked of Prometheus."""
    yield from RECORDED.values()
    yield from (rule["expr"] for rule in ALERTS.values())
    for panels in make_dashboard.ROWS.values():
        for panel in panels:
            curves = panel.curves if isinstance(panel, make_dashboard.Chart) else (panel.curve,)
            yield from (curve.ask for curve in curves)


def is_there(name: str) -> bool:
    """Whether a name is recorded, one of the exporter's, or one of ours with its suffix."""
    plain = re.sub(r"_(sum|count|bucket)$", "", name)
    kind = BY_NAME[plain].kind if plain in BY_NAME else ""
    return name in {*RECORDED, *DCGM, *BY_NAME} or kind in ("summary", "histogram")


def test_all_that_is_asked_is_there() -> None:
    """A figure that was renamed would silence an alert, and empty a panel."""
    used = {name for question in questions() for name in NAME.findall(question)}
    assert set() == {name for name in used if not is_there(name)}
    assert DCGM <= used
    assert {} == {name: expr for name, expr in RECORDED.items() if name in NAME.findall(expr)}


def test_the_dashboard_is_what_its_script_makes() -> None:
    """A change by hand would be lost."""
    assert make_dashboard.build() == make_dashboard.PATH.read_text(encoding="utf-8")


@pytest.mark.parametrize("alert", ALERTS)
def test_an_alert_says_how_bad_it_is_and_which_command_says_more(alert: str) -> None:
    """The runbook begins with a command that there is."""
    rule = ALERTS[alert]
    assert rule["labels"]["severity"] in ("critical", "warning")
    assert rule["annotations"]["summary"]
    found = re.match(r"`thermodrift ([a-z ]+)`", rule["annotations"]["runbook"])
    assert found is not None
    command: Any = typer.main.get_command(thermodrift.app)
    for word in found[1].split():
        command = command.commands[word]
    assert not hasattr(command, "commands"), "a command that does something"


@pytest.mark.parametrize("alert", ALERTS)
def test_each_alert_is_tried_where_it_fires_and_where_it_must_not(alert: str) -> None:
    """By promtool, below: here only that nobody forgets one."""
    tried = [
        each.get("exp_samples") or []
        for case in load("rules_test.yml")["tests"]
        for each in case.get("promql_expr_test", ())
        if f'"{alert}"' in each["expr"]
    ]
    assert {True, False} == {bool(samples) for samples in tried}


@pytest.mark.parametrize(
    "words",
    [
        ("check", "rules", "recording_rules.yml", "alerts.yml"),
        ("check", "config", "prometheus.yml"),
        ("test", "rules", "rules_test.yml"),
    ],
    ids=" ".join,
)
def test_promtool_finds_nothing_wrong(words: tuple[str, ...]) -> None:
    """Syntax, references, and each alert over made-up figures."""
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not installed; Debian's package prometheus has it")
    done = subprocess.run([promtool, *words], cwd=FOLDER, capture_output=True, text=True)
    assert 0 == done.returncode, done.stdout + done.stderr
