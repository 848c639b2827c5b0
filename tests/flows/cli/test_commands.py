"""The command line as people and scripts meet it: answers, messages, exit codes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import thermodrift as desk
from flows.cli import doctor
from flows.run.session import locked
from models.persistence import checkpoint
from models.persistence.signing import SigningKey
from observability.core.errors import BadConfiguration, ThermodriftError, TryAgainLater
from observability.core.paths import Places
from observability.history.outbox import Outbox
from observability.history.store import History
from tests import ROOT
from tests.flows.makers import answer, environment_of, make_pipeline, thermodrift
from tests.observability.history.makers import make_score

COMMANDS = (
    *("init", "run", "status", "doctor", "schema"),
    *("gate", "gpu", "models", "history", "drift"),
)
TRACE = (
    "elapsed_s,uuid,temperature_c,memory_temperature_c,margin_c,power_w,power_limit_w,"
    "utilization,throttle_reasons\n"
    "0,GPU-a,80,,5,300,350,0.9,\n"
    "10,GPU-a,60,,30,100,350,0.1,\n"
)


def test_help_names_every_command() -> None:
    """Whoever types --help sees all there is."""
    done = thermodrift("--help")
    assert 0 == done.returncode
    assert all(f" {command} " in done.stdout for command in COMMANDS)
    assert all(option in done.stdout for option in ("--home", "--debug"))


@pytest.mark.parametrize("group", ["gate", "gpu", "models", "history", "drift"])
def test_every_group_says_what_it_has(group: str) -> None:
    """A group without a command shows its help; every command of it says in a sentence what for."""
    done = thermodrift(group, "--help")
    assert 0 == done.returncode
    rows = [line.strip("│ ") for line in done.stdout.partition("Commands")[2].splitlines()]
    commands = [row.split(None, 1) for row in rows if row and row[0].isalpha()]
    assert commands
    assert all(len(each) == 2 for each in commands)


@pytest.mark.parametrize(
    "words",
    [[], ["nonsense"], ["run"], ["status", "--nonsense"], ["run", "x.toml", "--limit", "0"]],
)
def test_a_mistake_of_usage_ends_with_2(words: list[str]) -> None:
    """What was typed is no command: that is said, with no traceback and nothing on the disk."""
    done = thermodrift(*words)
    assert 2 == done.returncode
    assert "Usage: " in done.stdout + done.stderr
    assert "Traceback" not in done.stderr


def test_a_wrong_file_ends_with_78(tmp_path: Path) -> None:
    """A person must correct something, and is told what."""
    done = thermodrift("run", tmp_path / "none.toml", "--json", cwd=tmp_path)
    assert 78 == done.returncode
    assert done.stderr.startswith(
        f"thermodrift: {tmp_path / 'none.toml'}: the pipeline file cannot"
    )
    assert "" == done.stdout


def test_a_failing_disk_ends_with_1(tmp_path: Path) -> None:
    """What failed is told, and that what was acknowledged is still there."""
    (tmp_path / "file").write_text("")
    done = thermodrift("init", tmp_path / "file" / "folder")
    assert 1 == done.returncode
    assert done.stderr.startswith("thermodrift: ")
    assert "Not a directory" in done.stderr
    assert "What was acknowledged is on disk" in done.stderr
    assert "Traceback" not in done.stderr


def test_what_is_in_use_ends_with_75(tmp_path: Path) -> None:
    """Nothing is wrong, but another process has it: a script may try again later."""
    path, places = make_pipeline(tmp_path, records=10), Places(tmp_path / "home").pipeline("small")
    places.root.mkdir(parents=True)
    places.checkpoint.touch()
    with locked(places):
        done = thermodrift("--home", tmp_path / "home", "drift", "show", path, "--json")
    assert 75 == done.returncode
    assert "is being run by another process" in done.stderr
    assert "Traceback" not in done.stderr
    assert "" == done.stdout


@pytest.mark.parametrize(
    ("error", "code", "told"),
    [
        (ThermodriftError("it failed: do this"), 1, "thermodrift: it failed: do this\n"),
        (TryAgainLater("not now"), 75, "thermodrift: not now\n"),
        (BadConfiguration("a.toml: x: wrong"), 78, "thermodrift: a.toml: x: wrong\n"),
        (OSError(28, "No space left on device"), 1, "No space left on device"),
        (ZeroDivisionError("by nought"), 1, "thermodrift: ZeroDivisionError: by nought (--debug"),
        (RecursionError("too deep"), 1, "thermodrift: RecursionError: too deep (--debug"),
    ],
)
def test_every_error_becomes_a_message_and_a_code(
    error: Exception,
    code: int,
    told: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Whatever a command raises; with --debug it is raised on, for the traceback."""

    def failing(**_: object) -> None:
        raise error

    monkeypatch.setattr(desk, "app", failing)
    monkeypatch.setattr(sys, "argv", ["thermodrift", "status"])
    with pytest.raises(SystemExit) as ended:
        desk.main()
    assert code == ended.value.code
    assert told in capsys.readouterr().err
    monkeypatch.setattr(sys, "argv", ["thermodrift", "--debug", "status"])
    with pytest.raises(type(error)):
        desk.main()


def test_the_traceback_is_there_for_whoever_asks(tmp_path: Path) -> None:
    """--debug shows where it happened, with its cause; the exit code is not 0."""
    words = ("run", tmp_path / "none.toml")
    assert "Traceback" not in thermodrift(*words).stderr
    done = thermodrift("--debug", *words)
    assert 1 == done.returncode
    assert "Traceback (most recent call last)" in done.stderr
    assert "FileNotFoundError" in done.stderr
    assert "BadConfiguration" in done.stderr


def test_an_empty_home_has_nothing_going_on(tmp_path: Path) -> None:
    """Asked before the first run, status answers, says how to begin, and makes no folder."""
    assert [] == answer(thermodrift("status", "--json", cwd=tmp_path))
    assert "thermodrift init" in thermodrift("status", cwd=tmp_path).stdout
    assert [] == list(tmp_path.iterdir())


def put_checkpoint(home: Path, name: str, position: int) -> Path:
    """The checkpoint of a pipeline, with what `status` reads of it."""
    places = Places(home).pipeline(name)
    brief = {
        "pipeline": name,
        "position": position,
        "champion": None,
        "scores": {"served": 0.75},
        "totals": {"alarms": 0, "retrains": 0},
        "open_request": {"deferrals": 3, "why_deferred": "its margin is [4.0] °C"},
    }
    checkpoint.save(places.checkpoint, {}, SigningKey.open(Places(home).key), brief)
    return places.checkpoint


def test_status_tells_each_pipeline_and_what_it_owes(tmp_path: Path) -> None:
    """By name, resting or running, with the reason of what is deferred."""
    put_checkpoint(tmp_path, "second", 500)
    put_checkpoint(tmp_path, "first", 250)
    (tmp_path / "pipelines" / "third").mkdir()
    with locked(Places(tmp_path).pipeline("second")):
        found = answer(thermodrift("--home", tmp_path, "status", "--json"))
    assert ["first", "second", "third"] == [each["pipeline"] for each in found]
    assert ["resting", "running", "not begun"] == [each["state"] for each in found]
    assert [250, 500] == [each["position"] for each in found[:2]]
    shown = thermodrift("--home", tmp_path, "status").stdout
    assert "a retrain, deferred 3 times: its margin is [4.0] °C" in shown


def test_a_damaged_checkpoint_does_not_hide_the_other_pipelines(tmp_path: Path) -> None:
    """It is shown as what it is, with the reason; the sound ones are told as ever."""
    put_checkpoint(tmp_path, "sound", 250)
    put_checkpoint(tmp_path, "broken", 250).write_bytes(b"\xff\xfe")
    broken, sound = answer(thermodrift("--home", tmp_path, "status", "--json"))
    assert ("broken", "unreadable") == (broken["pipeline"], broken["state"])
    assert "its first line is not JSON" in broken["because"]
    assert 250 == sound["position"]
    assert "its first line is not JSON" in thermodrift("--home", tmp_path, "status").stdout


def test_the_doctor_finds_this_installation_well(tmp_path: Path) -> None:
    """Every look has its finding: what, how it is, and what was seen."""
    found = answer(thermodrift("--home", tmp_path, "doctor", "--json"))
    looks = ("Python", "libraries", "home", "key", "history", "outbox", "GPU", "CPU", "clock")
    assert [*looks, "metrics"] == [each["what"] for each in found]
    assert all(each["state"] in {"well", "note"} and each["told"] for each in found)
    assert {"what", "state", "told"} == set(found[0])


def test_the_doctor_finds_what_is_broken(tmp_path: Path) -> None:
    """A key that everybody can read proves nothing: exit code 1, and the remedy is told."""
    (tmp_path / "key").write_bytes(bytes(32))
    (tmp_path / "key").chmod(0o644)
    done = thermodrift("--home", tmp_path, "doctor")
    assert 1 == done.returncode
    assert "chmod 600" in done.stdout
    assert "✗" in done.stdout


def test_the_doctor_says_where_figures_go(tmp_path: Path) -> None:
    """And that a textfile cannot be written, before a run finds out."""

    def metrics(table: str) -> doctor.Finding:
        (tmp_path / "thermodrift.toml").write_text(f"[metrics]\n{table}\n", encoding="utf-8")
        (found,) = [each for each in doctor.examine(tmp_path) if each.what == "metrics"]
        return found

    assert ("well", "`thermodrift serve` shows them") == (metrics("").state, metrics("").told)
    missing = metrics('textfile = "nowhere/a.prom"')
    assert "broken" == missing.state
    assert "nowhere is no folder" in missing.told
    both = metrics('textfile = "a.prom"\npush = "http://127.0.0.1:9091"').told
    assert f"runs write {tmp_path / 'a.prom'}; runs push to http://127.0.0.1:9091" in both


def test_the_doctor_names_what_the_history_set_aside(tmp_path: Path) -> None:
    """A commit that must wait and files that were damaged are worth a note, and break nothing."""
    spool = Places(tmp_path).outbox
    Outbox(spool, version=999).write([make_score()], "newer", now_ns=0)
    for aside in (spool / "a.json.corrupt", tmp_path / "history.duckdb.wal.damaged-7"):
        aside.write_bytes(b"")
    found = {each.what: each for each in doctor.examine(tmp_path)}
    assert "well" == found["history"].state
    assert "note" == found["outbox"].state
    assert "1 waiting" in found["outbox"].told
    assert "2 (history.outbox/a.json.corrupt, history.duckdb.wal.damaged-7)" in found["outbox"].told


def test_the_doctor_asks_a_lake_before_anything_ran(tmp_path: Path) -> None:
    """A wrong address is found before the first run is, not by it."""
    (tmp_path / "thermodrift.toml").write_text(
        f"[history]\nurl = 'postgresql://me@127.0.0.1:1/no'\ndata = '{tmp_path / 'data'}'\n"
    )
    (found,) = [each for each in doctor.examine(tmp_path) if each.what == "history"]
    assert "note" == found.state
    assert "postgresql://me@127.0.0.1:1/no does not answer" in found.told


def test_the_doctor_looks_for_a_history_that_is_gone(tmp_path: Path) -> None:
    """It was there once, so to call it not there yet would hide a loss."""
    history = History(tmp_path)
    history.commit([make_score()], "a")
    history.flush()
    Places(tmp_path).history.unlink()
    (found,) = [each for each in doctor.examine(tmp_path) if each.what == "history"]
    assert "well" == found.state
    assert "rows were missing 1 times" in found.told


def test_the_schema_is_that_of_a_pipeline_file() -> None:
    """Editors check a file with it as it is typed."""
    schema = answer(thermodrift("schema"))
    assert {"pipeline", "stream"} == set(schema["required"])
    assert schema["additionalProperties"] is False
    assert {"gate", "worth", "online", "batch"} <= set(schema["properties"])


def test_init_answers_with_what_it_wrote(tmp_path: Path) -> None:
    """A script gets the paths."""
    written = answer(thermodrift("init", "folder", "--json", cwd=tmp_path))["written"]
    assert ["folder/pipeline.toml", "folder/sample.csv"] == written
    assert all((tmp_path / each).is_file() for each in written)


def test_the_gate_is_simulated_reading_by_reading(tmp_path: Path) -> None:
    """One object per reading, with the keys that scripts rely on: hot is closed, cool is open."""
    trace = tmp_path / "trace.csv"
    trace.write_text(TRACE)
    told = answer(thermodrift("gate", "simulate", "--trace", trace, "--json"))
    assert all({"elapsed_s", "uuid", "open", "because"} <= set(each) for each in told)
    assert [(0, "GPU-a", False), (10, "GPU-a", True)] == [
        (each["elapsed_s"], each["uuid"], each["open"]) for each in told
    ]
    assert all(each["because"] for each in told)


def test_the_history_is_there_before_the_first_row(tmp_path: Path) -> None:
    """Its views are told, each with its columns and no row."""
    told = answer(thermodrift("--home", tmp_path, "history", "tables", "--json"))
    views = {each["view"]: each for each in told}
    assert {"decisions", "runs", "requests", "models", "scores", "predictions"} <= set(views)
    assert {0} == {each["rows"] for each in told}


def test_whoever_stops_reading_is_no_failure_to_talk_about(tmp_path: Path) -> None:
    """`thermodrift schema | head -1` ends without a traceback."""
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [sys.executable, "-m", "thermodrift", "schema"],
        cwd=ROOT,
        env=environment_of(),
        stdout=writing,
        stderr=subprocess.PIPE,
        text=True,
    )
    os.close(writing)
    assert "Traceback" not in done.stderr


def test_an_armed_fault_reaches_the_command(tmp_path: Path) -> None:
    """Tests of recovery arm the product itself: a full disk ends with 1, and leaves nothing."""
    done = thermodrift(
        "init", tmp_path / "here", THERMODRIFT_FAULTS="atomic_file.before_rename=raise"
    )
    assert 1 == done.returncode
    assert "no space left on device" in done.stderr
    assert [] == list((tmp_path / "here").iterdir())


def test_a_run_answers_on_stdout_and_talks_on_stderr(tmp_path: Path) -> None:
    """The document alone is on stdout; a server that the user's folder names is never asked."""
    (tmp_path / ".env").write_text("PREFECT_API_URL=http://127.0.0.1:9/api\n")
    path = make_pipeline(tmp_path, records=300)
    done = thermodrift("--home", "home", "run", path, "--json", cwd=tmp_path)
    summary = answer(done)
    assert {
        *("pipeline", "records", "learned", "rejected", "scores", "alarms", "retrains"),
        *("promotions", "deferrals", "history"),
    } <= set(summary)
    members = {"linear", "linear_fast", "hoeffding_adaptive_tree"}
    assert {"served", "online", "batch", "baseline"} | members == set(summary["scores"])
    assert (300, 300, 0) == (summary["records"], summary["learned"], summary["rejected"])
    assert str(tmp_path / "home" / "history.duckdb") == summary["history"]
    assert "a retrain: there is no champion yet" in done.stderr
