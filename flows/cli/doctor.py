"""Check an installation. Each finding says what was checked, its state, and the remedy."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Literal

from flows.cli import status
from flows.config import settings
from flows.run.bootstrap import ROOM_BYTES
from models.persistence.signing import SigningKey
from observability.core import atomic_file, cli_output
from observability.core.errors import ThermodriftError, TryAgainLater
from observability.core.paths import Places
from observability.history import home_config
from observability.history.store import History
from power.core.device_readings import DeviceSnapshot
from power.core.gate_config import GateConfig
from power.policy import gate, gate_override
from power.policy.gate import GateState

MOST_NAMED = 3
"""Damaged files that are named; the count is of all."""

_DECISIONS = """
SELECT count(*) AS "all", count(*) FILTER (question = 'history') AS losses FROM decisions"""

State = Literal["well", "note", "broken"]


@dataclass(frozen=True)
class Finding:
    """The result of one check."""

    what: str
    state: State
    told: str


def examine(home: Path) -> list[Finding]:
    """Check Python, libraries, home, key, history, GPU, CPU, the server's scheduler, and metrics.

    A pipeline whose stream no longer fits is a finding, too: broken where its run ended for that.
    A version that waits for a person's word is another.
    """
    checks: list[tuple[str, Callable[[Path], tuple[State, str]]]] = [
        ("Python", _python),
        ("libraries", _libraries),
        ("home", _home),
        ("key", _key),
        ("history", _history),
        ("outbox", _outbox),
        ("GPU", _gpu),
        ("CPU", _cpu),
        ("clock", _clock),
        ("metrics", _metrics),
    ]
    return [_finding(what, check, home) for what, check in checks] + _pipelines(home)


def _finding(what: str, check: Callable[[Path], tuple[State, str]], home: Path) -> Finding:
    try:
        state, told = check(home)
    except TryAgainLater as error:
        return Finding(what, "note", str(error))
    except ThermodriftError as error:
        return Finding(what, "broken", str(error))
    except OSError as error:
        return Finding(what, "broken", f"{error}: {atomic_file.remedy(error)}")
    return Finding(what, state, told)


def _python(home: Path) -> tuple[State, str]:
    version = sys.version.split()[0]
    if (3, 11) <= sys.version_info[:2] <= (3, 13):
        return "well", version
    return "note", f"{version}; tried are 3.11 to 3.13"


def _libraries(home: Path) -> tuple[State, str]:
    from packaging.requirements import Requirement

    wrong = []
    for line in metadata.requires("thermodrift") or ():
        wanted = Requirement(line)
        if wanted.marker is not None and not wanted.marker.evaluate({"extra": ""}):
            continue
        found = metadata.version(wanted.name)
        if found not in wanted.specifier:
            wrong.append(f"{wanted.name} is {found}, wanted {wanted.specifier}")
    if wrong:
        return "broken", "; ".join(wrong) + ". Install from requirements.lock"
    return "well", f"thermodrift {metadata.version('thermodrift')}, all within their bounds"


def _home(home: Path) -> tuple[State, str]:
    if not home.exists():
        return "note", f"{home.resolve()} is not there yet; the first run makes it"
    atomic_file.ensure_room(home, ROOM_BYTES)
    free = shutil.disk_usage(home).free
    return "well", f"{home.resolve()} can be written; {free / 1e9:.1f} GB are free"


def _key(home: Path) -> tuple[State, str]:
    if not Places(home).key.exists():
        return "note", "not there yet; the first run makes it"
    SigningKey.open(Places(home).key)
    return "well", "there, and closed to others"


def _history(home: Path) -> tuple[State, str]:
    places, history = Places(home), History(home)
    # A file that was lost, or rows elsewhere, must not be reported as "not there yet".
    known = (places.history, places.watermark, places.outbox)
    if history.where == str(places.history) and not any(each.exists() for each in known):
        return "note", "not there yet; the first run makes it"
    (counts,) = history.ask(_DECISIONS).to_pylist()
    told = f"{counts['all']} decisions"
    if counts["losses"]:
        told += f"; rows were missing {counts['losses']} times: ask for question = 'history'"
    return "well", told


def _outbox(home: Path) -> tuple[State, str]:
    """Commits that still wait after the history was read, and files that are damaged."""
    places = Places(home)
    waiting = len(list(places.outbox.glob("*.json")))
    damaged = [
        *sorted(places.outbox.glob("*.corrupt")),
        *sorted(home.glob(f"{places.history.name}.wal.damaged-*")),
    ]
    told = f"{waiting} waiting to be flushed into the history"
    if damaged:
        names = ", ".join(str(path.relative_to(home)) for path in damaged[:MOST_NAMED])
        told += (
            f"; damaged and renamed, keep them until you know where the disk failed: "
            f"{len(damaged)} ({names})"
        )
    return "note" if waiting or damaged else "well", told


def _gpu(home: Path) -> tuple[State, str]:
    import time

    from power.devices.nvml import NvmlAdapter

    with NvmlAdapter(visible=settings.visible_devices(), twin=settings.fake_nvml()) as adapter:
        now_s = time.monotonic()
        snapshot = adapter.survey(now_s)
    return _devices(snapshot, home, GateConfig(), now_s)


def _cpu(home: Path) -> tuple[State, str]:
    import time

    from power.devices.cpu_sensors import CpuSensorAdapter

    with CpuSensorAdapter() as adapter:
        now_s = time.monotonic()
        snapshot = adapter.survey(now_s)
    return _devices(snapshot, home, GateConfig(source="cpu"), now_s)


def _devices(
    snapshot: DeviceSnapshot, home: Path, limits: GateConfig, now_s: float
) -> tuple[State, str]:
    """What was read, and what the gate decides by it, worded as in `gate show`."""
    from power.policy import override_file

    decision = gate.judge(snapshot, GateState(), limits, now_s).decision
    override = override_file.read(Places(home).override)
    decision = gate_override.overridden(decision, override, datetime.now(UTC))
    state: State = "note" if snapshot.driver == "unreadable" else "well"
    temperatures = [each.temperature_c for each in snapshot.readings if each.temperature_c]
    hottest = f", at most {max(temperatures):.0f} °C" if temperatures else ""
    # Without a driver the gate's answer has the reason already.
    read = f"{snapshot.because}{hottest}; " if snapshot.driver == "present" else ""
    return state, f'{read}with source = "{limits.reads_from}" {gate.in_short(decision)}'


def _clock(home: Path) -> tuple[State, str]:
    """Whether the scheduler works of the home's server, or of the one that is configured."""
    from flows.stack import local_stack, scheduler_watch

    found = local_stack.server_of(home)
    if found is None:
        return "note", (
            "this home is not up and PREFECT_API_URL names no server; `thermodrift run` needs none"
        )
    server, _ = found
    decision = scheduler_watch.check(server)
    facts = decision.facts
    doubtful = facts["waiting"] or facts["log_errors"]
    state: State = "broken" if not decision.yes else "note" if doubtful else "well"
    return state, scheduler_watch.describe(decision, server)


def _metrics(home: Path) -> tuple[State, str]:
    """Where figures go, and whether a textfile can be written there; nothing is pushed."""
    config = home_config.read(Places(home)).metrics
    ways = ["`thermodrift serve` shows them"]
    if config.textfile is not None:
        folder = (home / config.textfile).parent
        if not folder.is_dir() or not os.access(folder, os.W_OK):
            return "broken", (
                f"metrics.textfile: {folder} is no folder that this user may write to; make it, or "
                "name another in the home's file"
            )
        ways.append(f"runs write {home / config.textfile}")
    if config.push is not None:
        ways.append(f"runs push to {config.push}")
    return "well", "; ".join(ways)


def _pipelines(home: Path) -> list[Finding]:
    try:
        known = status.collect(home)
    except OSError as error:
        return [Finding("intake", "broken", f"{error}: {atomic_file.remedy(error)}")]
    intakes = [
        Finding(
            f"intake of {each['pipeline']}",
            "broken" if each["intake"]["state"] == "stopped" else "note",
            status.describe(each["intake"]),
        )
        for each in known
        if each.get("intake", {}).get("state", "well") != "well"
    ]
    candidates = [
        Finding(
            f"candidate of {each['pipeline']}",
            "note",
            status.describe_candidate(each["pipeline"], each["candidate"]),
        )
        for each in known
        if each.get("candidate")
    ]
    return intakes + candidates


def render(findings: Sequence[Finding]) -> None:
    """Print the findings for people."""
    marks = {"well": "✓", "note": "i", "broken": "✗"}
    for each in findings:
        line = f"{marks[each.state]} {each.what:<10} {each.told}"
        cli_output.stdout().print(line, soft_wrap=True, highlight=False, markup=False)
