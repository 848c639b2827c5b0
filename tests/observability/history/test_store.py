"""The history in one process: commit, fold, ask, export, and what is refused."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import duckdb
import pyarrow as pa
import pytest
from pyarrow import csv, parquet

from observability.core import failpoints, file_lock
from observability.core.errors import BadConfiguration
from observability.history import schema
from observability.history.outbox import Outbox
from observability.history.schema import SCHEMA_VERSION
from observability.history.store import (
    BadQuestion,
    ExportFormat,
    FlushResult,
    History,
    HistoryBusy,
    HistoryDamaged,
    HistorySchemaMismatch,
    HistoryUnwritable,
)
from tests.observability.history.makers import (
    make_decision,
    make_model,
    make_reject,
    make_score,
    rows_of,
    write_predictions,
)
from tests.pace import stretched


def count(history: History, view: str = "scores") -> int:
    """Number of rows of a view."""
    return int(rows_of(history, f"SELECT count(*) AS n FROM {view}")[0]["n"])


def spooled(home: Path) -> list[str]:
    """Names of what waits in the spool, or was set aside there."""
    return sorted(path.name for path in (home / "history.outbox").iterdir() if path.is_file())


def test_a_committed_row_is_answered(tmp_path: Path) -> None:
    """What was committed is asked back, cell for cell, without a fold by hand."""
    history = History(tmp_path)
    history.commit([make_score(value=0.5), make_score(member="online")], "run-1.0")
    expected = [("online", 0.84), ("served", 0.5)]
    rows = rows_of(history, "FROM scores ORDER BY member")
    assert expected == [(row["member"], row["value"]) for row in rows]
    assert "2026-03-01T12:00:00+00:00" == rows[0]["scored_at"].isoformat()


def test_a_commit_of_nothing_writes_nothing(tmp_path: Path) -> None:
    """No rows, no file, no folder."""
    History(tmp_path / "home").commit([], "nothing")
    assert not (tmp_path / "home").exists()


def test_a_flush_says_what_it_did(tmp_path: Path) -> None:
    """Commits and rows are counted, and the spool is empty afterwards."""
    history = History(tmp_path)
    assert FlushResult(0, 0, 0, "the outbox was empty") == history.flush()
    history.commit([make_score(), make_score(), make_decision()], "a")
    history.commit([make_score()], "b")
    assert FlushResult(2, 4, 0, "flushed 2 commits of 4 rows") == history.flush()
    assert [] == spooled(tmp_path)


def test_a_name_lands_once_before_and_after_a_flush(tmp_path: Path) -> None:
    """The name is the idempotency key: repeated in the spool or after it was folded."""
    history = History(tmp_path)
    history.commit([make_score()], "a")
    history.commit([make_score()], "a")
    assert 1 == history.flush().rows
    history.commit([make_score()], "a")
    assert FlushResult(0, 0, 0, "flushed 0 commits of 0 rows") == history.flush()
    assert 1 == count(history)


def test_rows_keep_the_order_of_their_commits(tmp_path: Path) -> None:
    """Events of one moment are ordered by their commits, whatever the commits are called."""
    ticks = iter([30, 20, 10])
    history = History(tmp_path, now_ns=lambda: next(ticks))
    for name in ("a", "b", "c"):
        history.commit([make_score(member=f"{name}1"), make_score(member=f"{name}2")], name)
    members = [row["member"] for row in rows_of(history, "FROM score_rows ORDER BY rowid")]
    assert ["c1", "c2", "b1", "b2", "a1", "a2"] == members


def test_a_corrupt_outbox_file_is_set_aside_and_blocks_nobody(tmp_path: Path) -> None:
    """The others are folded; the torn one is kept under another name and reported."""
    history = History(tmp_path)
    for name in ("a", "b", "c"):
        history.commit([make_score()], name)
    torn = tmp_path / "history.outbox" / "b.json"
    torn.write_bytes(torn.read_bytes()[:-9])
    folded = history.flush()
    assert (2, 2, 0, ("b.json.corrupt",)) == (
        folded.files,
        folded.rows,
        folded.left,
        folded.corrupt,
    )
    assert "b.json is cut" in folded.because
    assert ["b.json.corrupt"] == spooled(tmp_path)
    assert 2 == count(history)


@pytest.mark.parametrize("version", [SCHEMA_VERSION - 1, SCHEMA_VERSION + 1])
def test_rows_of_another_schema_wait_for_their_thermodrift(tmp_path: Path, version: int) -> None:
    """They are neither converted nor renamed, and the thermodrift that wrote them flushes them."""
    History(tmp_path).commit([make_score()], "ours")
    Outbox(tmp_path / "history.outbox", version).write([make_score()], "theirs", now_ns=1)
    folded = History(tmp_path).flush()
    assert (1, 1, ()) == (folded.files, folded.left, folded.corrupt)
    assert f"theirs.json was written for schema {version}" in folded.because
    assert ["theirs.json"] == spooled(tmp_path)


def test_more_commits_than_one_transaction_takes_are_all_flushed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A long wait is folded in parts; the sum is the same."""
    monkeypatch.setattr("observability.history.store._FILES_AT_ONCE", 3)
    history = History(tmp_path)
    for i in range(8):
        history.commit([make_score(position_from=i)], f"c{i}")
    assert (8, 8, 0) == (lambda f: (f.files, f.rows, f.left))(history.flush())
    assert 8 == rows_of(history, "SELECT count(DISTINCT position_from) AS n FROM scores")[0]["n"]


def test_odd_cells_survive(tmp_path: Path) -> None:
    """Unknown numbers are NULL, odd text is text, facts are JSON that SQL can reach into."""
    history = History(tmp_path)
    history.commit([make_score(value=float("nan")), make_reject(raw="é\x00\ud800'; --")], "a")
    history.commit([make_decision(facts={"headroom_c": 4.5, "gpu": None, "name": "ä"})], "b")
    assert None is rows_of(history, "FROM scores")[0]["value"]
    assert "é\x00\\ud800'; --" == rows_of(history, "FROM rejects")[0]["raw"]
    asked = "SELECT (facts->>'headroom_c')::DOUBLE AS c, facts->>'name' AS name FROM decisions"
    assert [{"c": 4.5, "name": "ä"}] == rows_of(history, asked)


def test_facts_of_odd_text_hold_no_flush_up(tmp_path: Path) -> None:
    """Half of a surrogate pair, which JSON lines may bring, is escaped: no JSON may hold it."""
    history = History(tmp_path)
    history.commit([make_decision(facts={"col\ud800": "a\udce9"})], "a")
    assert 1 == history.flush().files
    assert ['{"col\\\\ud800": "a\\\\udce9"}'] == [
        row["facts"] for row in rows_of(history, "FROM decisions")
    ]


def test_ten_thousand_rows_are_flushed_well_within_a_second(tmp_path: Path) -> None:
    """Rows are inserted in bulk: one by one they would take tens of seconds."""
    history = History(tmp_path)
    history.commit([make_score(position_from=i) for i in range(10_000)], "many")
    history.ask("SELECT 1")
    history.commit([make_score(position_from=i) for i in range(10_000)], "more")
    begun = time.perf_counter()
    assert 10_000 == history.flush().rows
    assert time.perf_counter() - begun < stretched(1.0)


def test_a_question_takes_parameters(tmp_path: Path) -> None:
    """Values are passed beside the SQL, never pasted into it."""
    history = History(tmp_path)
    history.commit([make_score(member="it's"), make_score()], "a")
    answer = history.ask("SELECT count(*) AS n FROM scores WHERE member = ?", ["it's"])
    assert [{"n": 1}] == answer.to_pylist()


def test_an_empty_history_answers(tmp_path: Path) -> None:
    """Every public view exists and is empty before anything has happened."""
    shapes = History(tmp_path / "new" / "home").views()
    assert list(schema.PUBLIC_VIEWS) == [shape.name for shape in shapes]
    assert {0} == {shape.rows for shape in shapes}


@pytest.mark.parametrize(
    "sql",
    [
        "DELETE FROM score_rows",
        "DROP TABLE score_rows",
        "DROP VIEW scores",
        "INSERT INTO flushed_commits VALUES ('x', now())",
        "UPDATE score_rows SET value = 1",
        "CREATE TABLE mine (x INT)",
        "COPY (SELECT 1) TO 'leak.csv'",
        "ATTACH 'other.duckdb'",
        "INSTALL httpfs",
        "SET threads = 1",
        "EXPLAIN ANALYZE DELETE FROM score_rows",
        "SELECT 1; DELETE FROM score_rows",
        "BEGIN",
        "CHECKPOINT",
    ],
)
def test_the_history_cannot_be_changed_by_asking(tmp_path: Path, sql: str) -> None:
    """Whatever is asked, the rows stay, and the refusal is a usage error."""
    history = History(tmp_path)
    history.commit([make_score()], "a")
    with pytest.raises(BadQuestion) as refused:
        history.ask(sql)
    assert 2 == refused.value.exit_code
    assert 1 == count(history)


@pytest.mark.parametrize(
    "explain",
    [
        "EXPLAIN ANALYZE",
        "EXPLAIN (ANALYZE, FORMAT json)",
        "/* é */ EXPLAIN /* SELECT 1 */ analyze -- é\n",
        "EXPLAIN\u00a0ANALYZE\u00a0",
    ],
)
def test_to_explain_is_not_to_carry_out(tmp_path: Path, explain: str) -> None:
    """EXPLAIN ANALYZE runs what it explains: a COPY would go over a pipeline's checkpoint."""
    checkpoint = tmp_path / "pipelines" / "elec2" / "checkpoint"
    checkpoint.parent.mkdir(parents=True)
    checkpoint.write_bytes(b"all that was learned")
    with pytest.raises(BadQuestion):
        History(tmp_path).ask(f"{explain} COPY (SELECT 1) TO '{checkpoint}' (FORMAT csv)")
    assert b"all that was learned" == checkpoint.read_bytes()


@pytest.mark.parametrize(
    "sql",
    [
        "FROM read_text('/etc/hostname')",
        "FROM read_csv('https://localhost:1/x.csv')",
        "FROM 'https://localhost:1/x.parquet'",
        "FROM glob('/etc/*')",
        "FROM read_blob('{home}/key')",
        "FROM a_frame_of_the_caller",
    ],
)
def test_a_question_reaches_no_other_file_and_no_network(tmp_path: Path, sql: str) -> None:
    """Files outside the pipelines, addresses and the caller's variables are out of reach."""
    (tmp_path / "key").write_bytes(b"secret")
    a_frame_of_the_caller = pa.table({"secret": [1]})
    with pytest.raises(BadQuestion, match=r"Permission Error|Catalog Error"):
        History(tmp_path).ask(sql.format(home=tmp_path))
    assert 1 == a_frame_of_the_caller.num_rows


@pytest.mark.parametrize(
    ("sql", "says"),
    [
        ("SELECT nope FROM scores", 'Referenced column "nope" not found'),
        ("SELEC 1", "syntax error"),
        ("", "0 statements"),
        ("SELECT 1; SELECT 2", "2 statements"),
        ("SELECT ?", "parameters"),
        ("SELECT 'a'::INT", "Could not convert"),
        ("SELECT '\udce9'", "Unicode"),
    ],
)
def test_a_bad_question_is_answered_with_the_reason(tmp_path: Path, sql: str, says: str) -> None:
    """DuckDB's own words, on one line."""
    with pytest.raises(BadQuestion, match=says) as refused:
        History(tmp_path).ask(sql)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    "sql",
    [
        "DESCRIBE runs",
        "SUMMARIZE scores",
        "SHOW TABLES",
        "EXPLAIN SELECT 1",
        "EXPLAIN (ANALYZE, FORMAT json) FROM runs -- é",
        "explain analyze with x as (select 'é') from x",
        "WITH x AS (SELECT 1) FROM x; -- done",
        "PIVOT scores ON member USING avg(value) GROUP BY metric",
    ],
)
def test_every_kind_of_question_is_answered(tmp_path: Path, sql: str) -> None:
    """Asking is more than SELECT."""
    history = History(tmp_path)
    history.commit([make_score()], "a")
    assert history.ask(sql).num_rows > 0


def test_many_threads_may_ask_and_commit_with_one_handle(tmp_path: Path) -> None:
    """Calls wait for each other within the process; nothing is lost or doubled."""
    history = History(tmp_path)

    def work(i: int) -> int:
        history.commit([make_score(position_from=i)], f"c{i}")
        history.flush()
        return count(history)

    with ThreadPoolExecutor(4) as pool:
        seen = list(pool.map(work, range(12)))
    assert 12 == max(seen) == count(history)


def test_a_flush_waits_for_nobody(tmp_path: Path) -> None:
    """While another thermodrift folds, rows stay spooled, and a question says who and why."""
    history = History(tmp_path, timeout_s=0.05)
    history.ask("SELECT 1")
    history.commit([make_score()], "a")
    lock = tmp_path / "history.duckdb.lock"
    with file_lock.held(lock, holder="4711"):
        folded = history.flush()
        with pytest.raises(HistoryBusy, match="process 4711") as busy:
            history.ask("FROM scores")
    assert (0, 1) == (folded.files, folded.left)
    assert "process 4711" in folded.because
    assert 75 == busy.value.exit_code
    assert 1 == count(history)


def test_a_notebook_that_has_the_file_open_in_this_process_is_named(tmp_path: Path) -> None:
    """DuckDB says it in other words when the holder is the same process."""
    history = History(tmp_path)
    history.ask("SELECT 1")
    with duckdb.connect(str(tmp_path / "history.duckdb")):
        history.commit([make_score()], "a")
        assert 1 == history.flush().left
        with pytest.raises(HistoryBusy, match="this very process"):
            history.ask("FROM scores")
    assert 1 == count(history)


def _overwrite(path: Path) -> None:
    path.write_bytes(b"not a database at all" * 500)


def _flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[9000] ^= 0xFF
    path.write_bytes(content)


def _empty(path: Path) -> None:
    path.write_bytes(b"")


def _of_something_else(path: Path) -> None:
    path.unlink()
    with duckdb.connect(str(path)) as connection:
        connection.execute("CREATE TABLE mine (x INT)")


@pytest.mark.parametrize("damage", [_overwrite, _flip, _empty, _of_something_else])
def test_a_damaged_file_is_reported_and_the_outbox_is_kept(
    tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    """Nothing is repaired by guessing; what waits is folded once the file is put right."""
    history, file = History(tmp_path), tmp_path / "history.duckdb"
    history.ask("SELECT 1")
    history.commit([make_score()], "a")
    damage(file)
    with pytest.raises(HistoryDamaged, match=r"history\.duckdb"):
        history.ask("FROM scores")
    with pytest.raises(HistoryDamaged):
        history.flush()
    assert ["a.json"] == spooled(tmp_path)
    file.unlink()
    assert 1 == count(history)


def content_of(home: Path) -> dict[str, bytes]:
    """Every file of a home but the empty ones of locks, by its path."""
    files = [path for path in home.rglob("*") if path.is_file() and path.suffix != ".lock"]
    return {str(path.relative_to(home)): path.read_bytes() for path in files}


@pytest.mark.parametrize("version", [SCHEMA_VERSION - 1, SCHEMA_VERSION + 1])
@pytest.mark.parametrize("has_watermark", [True, False])
def test_a_home_of_another_schema_is_refused(
    tmp_path: Path, version: int, has_watermark: bool
) -> None:
    """Older or newer, nothing in it is touched; the error says what to do, and ends with 78."""
    history = History(tmp_path)
    history.commit([make_score()], "a")
    history.flush()
    with duckdb.connect(str(tmp_path / "history.duckdb")) as connection:
        connection.execute(f"UPDATE schema_version SET number = {version}")
    watermark = tmp_path / "history.watermark"
    if has_watermark:
        watermark.write_text(json.dumps({**json.loads(watermark.read_text()), "schema": version}))
    else:
        watermark.unlink()
    Outbox(tmp_path / "history.outbox", SCHEMA_VERSION).write([make_score()], "b", now_ns=1)
    before = content_of(tmp_path)
    for use in (History.flush, History.runs, History.vacuum):
        with pytest.raises(
            HistorySchemaMismatch, match=f"has schema {version}, .*another"
        ) as error:
            use(History(tmp_path))
        assert 78 == error.value.exit_code
    assert before == content_of(tmp_path)


@pytest.mark.parametrize("file", ["history.mark", "history.duckdb"])
def test_a_home_from_before_the_first_release_is_refused(tmp_path: Path, file: str) -> None:
    """Its watermark had another name, and its number stood in a table of steps."""
    if file == "history.mark":
        (tmp_path / file).write_text('{"number": 7, "latest": []}')
    else:
        with duckdb.connect(str(tmp_path / file)) as connection:
            connection.execute("CREATE TABLE migrations AS SELECT 8 AS number")
    before = content_of(tmp_path)
    with pytest.raises(HistorySchemaMismatch, match=r"has (schema 8|a schema without)"):
        History(tmp_path).runs()
    assert before == content_of(tmp_path)


@pytest.mark.parametrize("kind", ["parquet", "csv"])
def test_every_view_is_exported_into_one_file(tmp_path: Path, kind: ExportFormat) -> None:
    """The files hold what the views answer."""
    history = History(tmp_path / "it's home")
    history.commit([make_score(), make_score(member="online"), make_decision()], "a")
    written = history.export(tmp_path / "out" / "put", kind)
    assert [f"{view}.{kind}" for view in schema.PUBLIC_VIEWS] == [p.name for p in written]
    read = parquet.read_table if kind == "parquet" else csv.read_csv
    assert 2 == read(tmp_path / "out" / "put" / f"scores.{kind}").num_rows
    assert sorted(written) == sorted((tmp_path / "out" / "put").iterdir())


def test_an_unknown_format_is_refused(tmp_path: Path) -> None:
    """Only what is documented."""
    with pytest.raises(BadQuestion, match="parquet or csv; came: 'xlsx'"):
        History(tmp_path).export(tmp_path, "xlsx")  # type: ignore[arg-type]  # the mistake tried


def test_an_export_onto_a_file_is_refused(tmp_path: Path) -> None:
    """A folder is needed; the message says what stands there."""
    (tmp_path / "out").write_text("a file")
    with pytest.raises(HistoryUnwritable, match="out"):
        History(tmp_path).export(tmp_path / "out")


@contextmanager
def full_disk(point: str) -> Iterator[None]:
    """A disk without space at one point."""
    failpoints.arm(point, "raise")
    try:
        yield
    finally:
        failpoints.disarm()


@pytest.mark.parametrize(
    "point",
    [
        "history.before_outbox",
        "atomic_file.before_write",
        "atomic_file.before_rename",
        "atomic_file.after_rename",
    ],
)
def test_a_commit_on_a_full_disk_is_an_error_and_may_be_repeated(
    tmp_path: Path, point: str
) -> None:
    """What was acknowledged before stays; what was refused lands once when it is tried again."""
    history = History(tmp_path)
    history.commit([make_score()], "before")
    with full_disk(point), pytest.raises(HistoryUnwritable, match="no space left"):
        history.commit([make_score()], "refused")
    assert [] == list((tmp_path / "history.outbox").glob(".*"))
    history.commit([make_score()], "refused")
    assert 2 == count(history)


@pytest.mark.parametrize(
    "point",
    [
        "history.before_flush",
        "history.inside_flush",
        "history.before_checkpoint",
        "history.after_flush",
    ],
)
def test_a_flush_on_a_full_disk_is_an_error_and_loses_nothing(tmp_path: Path, point: str) -> None:
    """The spool keeps the rows until they are in the file; they are folded once."""
    history = History(tmp_path)
    history.commit([make_score()], "a")
    with full_disk(point), pytest.raises(HistoryUnwritable, match="no space left"):
        history.flush()
    assert ["a.json"] == spooled(tmp_path)
    history.commit([make_model()], "b")
    assert (1, 1) == (count(history), count(history, "models"))


def test_a_home_that_cannot_be_made_is_an_error_of_ours(tmp_path: Path) -> None:
    """A file stands where the home should be."""
    (tmp_path / "home").write_text("a file")
    history = History(tmp_path / "home")
    with pytest.raises(HistoryUnwritable):
        history.commit([make_score()], "a")
    with pytest.raises(HistoryUnwritable):
        history.ask("SELECT 1")


def test_predictions_follow_the_files(tmp_path: Path) -> None:
    """The view is empty without files, sees each new one, and is empty again without them."""
    history = History(tmp_path)
    assert 0 == count(history, "predictions")
    path = write_predictions(tmp_path, label=[1, 0], served=[1, 1], served_probability=[0.9, 0.6])
    row = rows_of(history, "FROM predictions ORDER BY position")[1]
    assert ("elec2", 1, 0, 1, 0.6) == tuple(
        row[name] for name in ("pipeline", "position", "label", "served", "served_probability")
    )
    assert {None} == {row[name] for name in ("online", "batch", "baseline", "model_version")}
    write_predictions(tmp_path, position=[2], label=[1], model_version=["v1"])
    assert 3 == count(history, "predictions")
    for each in path.parent.iterdir():
        each.unlink()
    assert 0 == count(history, "predictions")


def test_labels_of_all_pipelines_share_the_widest_type(tmp_path: Path) -> None:
    """Alone a pipeline keeps its natural type; beside one with text, numbers read as text."""
    history = History(tmp_path)

    def label_type() -> str:
        return history.views()[schema.PUBLIC_VIEWS.index("predictions")].columns["label"]

    write_predictions(tmp_path, "elec2", label=[1, 0])
    assert "BIGINT" == label_type()
    write_predictions(tmp_path, "bikes", label=[1.5, 2.5])
    assert "DOUBLE" == label_type()
    write_predictions(tmp_path, "insects", label=["a", "b"])
    assert "VARCHAR" == label_type()
    labels = {row["label"] for row in rows_of(history, "FROM predictions")}
    assert {"1", "0", "1.5", "2.5", "a", "b"} == labels


@pytest.mark.parametrize("name", ["it's [here]", "a*b", "x=1"])
def test_predictions_are_found_under_an_odd_home(tmp_path: Path, name: str) -> None:
    """Quotes, brackets and stars in a folder's name are only letters."""
    home = tmp_path / name
    write_predictions(home, label=[1, 0])
    assert 2 == count(History(home), "predictions")


@pytest.mark.parametrize(
    ("name", "says"),
    [("what?", "question mark"), ("a\\b", "backslash"), ("caf\udce9", "UTF-8")],
)
def test_a_home_that_duckdb_cannot_work_in_is_refused_at_once(
    tmp_path: Path, name: str, says: str
) -> None:
    """It misplaces its log, finds no predictions, or cannot even be told the name."""
    with pytest.raises(BadConfiguration, match=says):
        History(tmp_path / name)


def test_an_analyst_with_plain_duckdb_sees_the_predictions(tmp_path: Path) -> None:
    """The stored view is renewed when the file is written, and works from any folder."""
    history = History(tmp_path)
    history.ask("SELECT 1")
    write_predictions(tmp_path, label=["a", "b"])
    history.commit([make_score()], "a")
    history.flush()
    with duckdb.connect(str(tmp_path / "history.duckdb"), read_only=True) as connection:
        labels = connection.execute("SELECT label FROM predictions ORDER BY 1").fetchall()
    assert [("a",), ("b",)] == labels


def test_a_damaged_prediction_file_spoils_only_questions_about_predictions(tmp_path: Path) -> None:
    """A fold and every other question go on."""
    write_predictions(tmp_path, label=[1, 0]).write_bytes(b"torn")
    history = History(tmp_path)
    history.commit([make_score()], "a")
    assert 1 == count(history)
    with pytest.raises(BadQuestion, match="parquet"):
        count(history, "predictions")


def test_a_damaged_prediction_file_is_no_reason_to_move_the_history_away(tmp_path: Path) -> None:
    """Whoever lists or exports the views is told of the file that is damaged, and what to do."""
    torn = write_predictions(tmp_path, label=[1, 0])
    torn.write_bytes(b"torn")
    history = History(tmp_path)
    for asked in (history.views, lambda: history.export(tmp_path / "out")):
        with pytest.raises(HistoryDamaged, match="a prediction log cannot be read") as damaged:
            asked()
        assert torn.name in str(damaged.value)
        assert "history.duckdb" not in str(damaged.value)
