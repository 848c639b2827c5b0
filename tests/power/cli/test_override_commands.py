"""The commands `gate override set|clear|show`, and what `gate show` makes of a person's word."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from observability.core.cli_output import CliContext
from observability.core.errors import BadConfiguration
from observability.core.paths import Places
from observability.history.store import History
from power.cli import gate_commands
from power.devices.fake_nvml import FakeNvml
from power.devices.nvml import NvmlAdapter
from power.policy import override_file
from power.policy.gate_override import Override
from tests.flows.makers import thermodrift
from tests.power.makers import make_gpu, make_twin, write_trace


@pytest.fixture
def gate(tmp_path: Path) -> Callable[..., Result]:
    """Type `gate ...` for a home; exceptions of ours come through, as they do to the front desk."""

    def typed(*words: object) -> Result:
        result = CliRunner().invoke(
            gate_commands.gate_app,
            [str(each) for each in words],
            obj=CliContext(home=tmp_path / "home"),
        )
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result

    return typed


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Callable[[FakeNvml], None]:
    """Put a stand-in into this machine."""

    def be(twin: FakeNvml) -> None:
        def door(visible: str | None) -> NvmlAdapter:
            return NvmlAdapter(visible=visible, twin=twin, poll_s=0.02, first_answer_s=10.0)

        monkeypatch.setattr("power.devices.nvml.NvmlAdapter", door)

    return be


def kept(home: Path, **changes: Any) -> Path:
    """A home in which somebody said "open" a minute ago, for an hour, but for `changes`."""
    set_at = datetime.now(UTC) - timedelta(minutes=1)
    facts = {"open": True, "set_at": set_at, "until": set_at + timedelta(hours=1), "because": "ok"}
    override_file.write(Places(home).override, Override(**(facts | changes)))
    return home


def decisions(home: Path) -> list[dict[str, Any]]:
    """What the history knows of overrides, in order."""
    sql = "FROM decisions WHERE question = 'override' ORDER BY decided_at"
    rows: list[dict[str, Any]] = History(home).ask(sql).to_pylist()
    return rows


@pytest.mark.parametrize(("answer", "opens"), [("open", True), ("closed", False)])
def test_an_override_is_set_shown_and_cleared(
    gate: Callable[..., Result], answer: str, opens: bool
) -> None:
    """For people: what it is, until when, and why; and afterwards that there is none."""
    for told in (
        gate("override", "set", answer, "--because", "a [demo] today", "--for-s", 600).stdout,
        gate("override", "show").stdout,
    ):
        assert told.startswith(f"override: the gate is {answer} until ")
        assert told.endswith("(a [demo] today)\n")
    nothing = "no override: the gate answers by itself\n"
    assert nothing == gate("override", "clear").stdout
    assert nothing == gate("override", "show").stdout


@pytest.mark.parametrize(("answer", "opens"), [("open", True), ("closed", False)])
def test_each_command_prints_one_json_document(
    gate: Callable[..., Result], answer: str, opens: bool
) -> None:
    """Whether one stands, and the whole of it; null where there is none."""
    words = ("override", "set", answer, "--because", "a demo", "--for-s", 600, "--json")
    told = json.loads(gate(*words).stdout)
    assert told == json.loads(gate("override", "show", "--json").stdout)
    assert (True, opens, "a demo") == (
        told["stands"],
        told["override"]["open"],
        told["override"]["because"],
    )
    set_at, until = (datetime.fromisoformat(told["override"][each]) for each in ("set_at", "until"))
    assert timedelta(seconds=600) == until - set_at
    for command in ("clear", "show"):
        document = json.loads(gate("override", command, "--json").stdout)
        assert {"stands": False, "override": None} == document


def test_an_override_lasts_an_hour_unless_told_otherwise(gate: Callable[..., Result]) -> None:
    """Whoever forgets it is not surprised for long."""
    told = json.loads(gate("override", "set", "open", "--because", "a demo", "--json").stdout)
    set_at, until = (datetime.fromisoformat(told["override"][each]) for each in ("set_at", "until"))
    assert timedelta(hours=1) == until - set_at


def test_the_last_word_counts(gate: Callable[..., Result]) -> None:
    """Setting again replaces what was set."""
    gate("override", "set", "open", "--because", "a demo")
    gate("override", "set", "closed", "--because", "maintenance")
    assert "the gate is closed" in gate("override", "show").stdout


def test_an_expired_override_does_not_stand(gate: Callable[..., Result], tmp_path: Path) -> None:
    """People are told that there is none; a program sees what it was, and that it is over."""
    long_ago = datetime.now(UTC) - timedelta(days=1)
    kept(tmp_path / "home", set_at=long_ago, until=long_ago + timedelta(hours=1))
    assert gate("override", "show").stdout.startswith("no override")
    told = json.loads(gate("override", "show", "--json").stdout)
    assert (False, True) == (told["stands"], told["override"]["open"])


@pytest.mark.parametrize(
    ("for_s", "because"),
    [
        (7 * 86_400 + 1, "a demo"),
        (1e300, "a demo"),
        ("inf", "a demo"),
        (60, ""),
        (60, "why " * 200),
    ],
)
def test_an_override_without_an_end_or_a_reason_is_refused(
    gate: Callable[..., Result], tmp_path: Path, for_s: object, because: str
) -> None:
    """The message says what is allowed and what came; nothing is set, nothing is written down."""
    with pytest.raises(BadConfiguration, match="7 days at most, and has a reason") as refused:
        gate("override", "set", "open", "--for-s", for_s, "--because", because)
    assert repr(because) in str(refused.value)
    assert not (tmp_path / "home").exists()


@pytest.mark.parametrize(
    "words",
    [
        ("set", "open"),
        ("set", "ajar", "--because", "a demo"),
        ("set", "open", "--because", "a demo", "--for-s", "0"),
        ("set", "open", "--because", "a demo", "--for-s", "nan"),
    ],
)
def test_what_is_no_override_is_a_mistake_of_usage(
    gate: Callable[..., Result], words: tuple[str, ...]
) -> None:
    """A reason must be given, the answer is one of two, and no time is no override."""
    assert 2 == gate("override", *words).exit_code


def test_the_history_knows_who_was_overruled_and_when_that_ended(
    gate: Callable[..., Result], tmp_path: Path
) -> None:
    """A row for each word, of no pipeline; clearing what is not there is no word."""
    gate("override", "set", "closed", "--because", "maintenance")
    gate("override", "set", "open", "--because", "a demo")
    gate("override", "clear")
    gate("override", "clear")
    rows = decisions(tmp_path / "home")
    assert [False, True, False] == [row["yes"] for row in rows]
    assert {""} == {row["pipeline"] for row in rows}
    assert rows[0]["because"].startswith("the gate is closed until ")
    assert rows[0]["because"].endswith(": maintenance")
    assert "taken back" in rows[2]["because"]


def test_show_obeys_an_override_on_this_machine(
    gate: Callable[..., Result], machine: Callable[[FakeNvml], None]
) -> None:
    """Open, a hot device is open; closed, a cool one is closed; and what it would say is told."""
    machine(make_twin(make_gpu(tlimit_c=1)))
    assert 75 == gate("show").exit_code
    gate("override", "set", "open", "--because", "a demo")
    shown = gate("show", "--json")
    answer = json.loads(shown.stdout)
    assert (0, True, "open", False) == (
        shown.exit_code,
        answer["yes"],
        answer["facts"]["override"],
        answer["facts"]["gate_without_override"],
    )
    assert "by itself it would say: GPU-a is closed" in answer["because"]
    machine(make_twin())
    gate("override", "set", "closed", "--because", "maintenance")
    shown = gate("show")
    assert (75, True) == (shown.exit_code, "(maintenance)" in shown.stdout)
    gate("override", "clear")
    assert 0 == gate("show").exit_code


def test_show_forgets_an_override_that_expired(
    gate: Callable[..., Result], machine: Callable[[FakeNvml], None], tmp_path: Path
) -> None:
    """The file is still there, and says nothing any more."""
    long_ago = datetime.now(UTC) - timedelta(days=1)
    kept(tmp_path / "home", open=False, set_at=long_ago, until=long_ago + timedelta(hours=1))
    machine(make_twin(nvmlInitWithFlags="driver_not_loaded"))
    assert 0 == gate("show").exit_code


def test_show_of_a_trace_knows_no_override(gate: Callable[..., Result], tmp_path: Path) -> None:
    """What was recorded is judged as it was: a word of today says nothing of it."""
    trace = write_trace(tmp_path / "hot.csv", {"margin_c": 5})
    kept(tmp_path / "home")
    shown = gate("show", "--trace", trace, "--json")
    assert (75, False) == (
        shown.exit_code,
        "override" in json.loads(shown.stdout)["facts"],
    )


@pytest.mark.parametrize("words", [("gate", "override", "show"), ("gate", "show")])
def test_a_damaged_override_ends_with_78_and_says_what_to_do(
    tmp_path: Path, words: tuple[str, ...]
) -> None:
    """Nobody can tell which way it pointed, so a person must; what they are told to do helps."""
    home = kept(tmp_path / "home")
    path = Places(home).override
    path.write_bytes(path.read_bytes()[:-5])
    done = thermodrift("--home", home, *words)
    assert (78, "") == (done.returncode, done.stdout)
    assert "thermodrift gate override clear" in done.stderr
    assert "Traceback" not in done.stderr
    assert 0 == thermodrift("--home", home, "gate", "override", "clear").returncode
    assert 0 == thermodrift("--home", home, "gate", "override", "show").returncode
