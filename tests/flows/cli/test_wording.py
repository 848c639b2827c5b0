"""One wording for one state: what every command and message says of the gate, the driver, a device.

The states are those that the real door tells of a stand-in's library; commands are handed what it
told, so that all of them look at the very same state.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, Self

import pytest
from typer.testing import CliRunner

from flows.cli import doctor, run_summary, status
from flows.config import pipeline
from flows.deployed import retrain_run
from flows.deployed.backoff import Backoff
from flows.deployed.flow_run import DeployedRun
from flows.loop import summary
from flows.run.power_source import PowerSource
from flows.run.progress import Display
from flows.run.session import opened
from flows.run.shutdown import Stop
from observability.core.cli_output import CliContext
from observability.core.decision import Decision
from observability.core.paths import Places
from power.cli import gate_commands
from power.core.device_readings import DeviceSnapshot
from power.devices.device import Device
from power.devices.fake_nvml import FakeNvml
from power.devices.nvml import NvmlAdapter
from power.policy import gate
from tests.flows.deployed.makers import asked
from tests.flows.makers import ask, make_pipeline
from tests.flows.plain_loop import without_prefect
from tests.power.makers import make_gpu, make_twin


class State(NamedTuple):
    """A state of a machine, and the one word for it; None: the gate is open."""

    twin: FakeNvml
    cause: str | None
    age_s: float = 0.0


STATES: Mapping[str, State] = {
    "no driver": State(make_twin(nvmlInitWithFlags="driver_not_loaded"), None),
    "unreadable driver": State(make_twin(nvmlInitWithFlags="mismatch"), "unreadable"),
    "lost GPU": State(make_twin(make_gpu(faults={"*": "lost"})), "unreadable"),
    "one of two lost": State(
        make_twin(make_gpu("GPU-a", faults={"*": "lost"}), make_gpu("GPU-b", tlimit_c=1)),
        "too_warm",
    ),
    "hot": State(make_twin(make_gpu(tlimit_c=1)), "too_warm"),
    "slowing down": State(make_twin(make_gpu(throttle_mask=0x40)), "slowdown"),
    "cool": State(make_twin(), None),
    "stale": State(make_twin(), "stale", age_s=120.0),
}


class Told:
    """A door that tells again and again what the real one told once, of now or of some time ago."""

    def __init__(self, survey: DeviceSnapshot, devices: tuple[Device, ...], age_s: float) -> None:
        self._survey, self._devices, self._age_s = survey, devices, age_s

    def __call__(self, **knobs: object) -> Self:
        return self

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        pass

    def survey(self, now_s: float) -> DeviceSnapshot:
        """The same, read at a moment that goes with this one."""
        readings = tuple(
            each.model_copy(update={"read_at_s": now_s - self._age_s})
            for each in self._survey.readings
        )
        return self._survey.model_copy(update={"readings": readings})

    def devices(self) -> tuple[Device, ...]:
        """What there is."""
        return self._devices

    def wait_for_news(self, timeout_s: float) -> bool:
        """Nothing changes."""
        return True


@pytest.fixture(scope="module")
def told() -> Mapping[str, Told]:
    """What the real door tells of each state."""
    doors: dict[str, Told] = {}
    for name, state in STATES.items():
        with NvmlAdapter(visible=None, twin=state.twin, poll_s=0.02, first_answer_s=60.0) as door:
            survey = door.survey(0.0)
            doors[name] = Told(survey, door.devices(), state.age_s)
    return doors


@pytest.fixture(scope="module")
def owed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a pipeline, and a home in which its first retrain is asked for."""
    folder = tmp_path_factory.mktemp("open_request")
    # What is urgent opens at another margin, which the commands know nothing of.
    calm = {"urgency_of_waiting": 0.0, "urgency_of_drift": 0.0}
    asked(make_pipeline(folder, 400, gate={"source": "nvml", **calm}))
    return folder


def said(app: Any, home: Path, *words: str) -> list[dict[str, Any]]:
    """The JSON documents that a command prints, one a line or one in all."""
    result = CliRunner().invoke(app, [*words, "--json"], obj=CliContext(home=home))
    assert result.exit_code in (0, 75), result.output
    lines = result.stdout.splitlines()
    if "watch" in words:
        return [json.loads(line) for line in lines]
    return [json.loads(result.stdout)]


@pytest.mark.parametrize("name", STATES)
def test_all_who_tell_of_a_state_say_the_same(
    name: str,
    told: Mapping[str, Told],
    owed: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Commands, the messages of a deployed run, its summary, the status, the history."""
    for room in ("power.devices.nvml", "flows.run.power_source"):
        monkeypatch.setattr(f"{room}.NvmlAdapter", told[name])
    home, cause = tmp_path / "home", STATES[name].cause
    (shown,) = said(gate_commands.gate_app, home, "show")
    because = shown["because"]
    assert (cause is None, cause) == (shown["yes"], shown["facts"]["cause"])

    (probed,) = said(gate_commands.gpu_app, home, "probe")
    assert {**shown, "forecasts": []} == {**probed["gate"], "forecasts": []}
    watched = said(gate_commands.gate_app, home, "watch", "--count", "1")
    assert watched
    assert {shown["yes"]} == {line["gate_open"] for line in watched}
    assert any(line["because"] in because and line["cause"] == cause for line in watched)

    sentence = gate.in_short(Decision(question="gate", yes=shown["yes"], because=because))
    (finding,) = (each for each in doctor.examine(home) if each.what == "GPU")
    assert sentence in finding.told
    for app, words in (
        (gate_commands.gpu_app, ["probe"]),
        (gate_commands.gate_app, ["watch", "--count", "1"]),
    ):
        printed = CliRunner().invoke(app, words, obj=CliContext(home=home)).stdout
        assert because in " ".join(printed.replace("\n", " ").split())

    shutil.copytree(owed, tmp_path, dirs_exist_ok=True)
    path = tmp_path / "pipeline.toml"
    tried = attempt(path)
    if cause is None:
        assert "Deferred" != tried.name
        return
    cause_words = gate.describe_cause(cause, "nvml")
    assert ("Deferred", cause) == (tried.name, tried.cause)
    assert tried.because.startswith(f"deferred {cause_words}: ")
    # What a forecast says, or of how many devices it is said, stands behind it.
    assert because.partition(" (")[0] in tried.because
    attempt(path)
    with opened(pipeline.read(path), home, Stop(), Display("test")) as work:
        document = summary.collect(work, "finished", "the test ends")
    assert (2, {cause: 2}) == (document["deferrals"], document["deferred_because"])
    (known,) = status.collect(home)
    assert {cause: 2} == known["totals"]["deferred_because"]
    capsys.readouterr()
    run_summary.render(document, "pipeline.toml")
    assert f"2 deferrals: 2 {cause_words}" in capsys.readouterr().out
    status.render([known])
    assert f"small: 2 deferrals: 2 {cause_words}" in capsys.readouterr().out
    kept = ask(
        home,
        "SELECT DISTINCT json_extract_string(facts, '$.cause') AS cause FROM decisions "
        "WHERE question IN ('gate', 'admission')",
    )
    assert [cause] == [row["cause"] for row in kept]
    if cause != "too_warm":
        assert "warm" not in document["open_request"]["why_deferred"].partition("(")[0]


def attempt(path: Path) -> retrain_run.AttemptResult:
    """What a deployed run's attempt comes to."""
    job = DeployedRun(pipeline.read(path), path.parent / "home", "run", Stop(), Display("test"))
    with without_prefect(), PowerSource.opened(job.file, Places(job.home)) as power:
        tried = retrain_run.attempt(job, power, Backoff())
    assert tried is not None
    return tried
