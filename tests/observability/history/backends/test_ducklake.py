"""The history past one machine: a DuckLake with a real PostgreSQL that the tests start.

Each home here stands for a host: it has a spool of its own, and shares nothing with the others but
the database and the folder of the lake.
"""

from __future__ import annotations

import errno
import re
import shutil
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import pytest

from observability.core import atomic_file
from observability.core.errors import BadConfiguration
from observability.history import store
from observability.history.backends import ducklake
from observability.history.retention import RetentionConfig
from observability.history.schema import PUBLIC_VIEWS, SCHEMA_VERSION
from observability.history.store import (
    BadQuestion,
    History,
    HistoryDamaged,
    HistorySchemaMismatch,
    HistoryUnreachable,
    HistoryUnwritable,
    Logged,
)
from tests.observability.history.makers import (
    at,
    make_cost,
    make_decision,
    make_forecast,
    make_gpu_row,
    make_model,
    make_reject,
    make_request,
    make_run,
    make_score,
    python,
    rows_of,
    write_predictions,
)
from tests.postgres import Database, Server

pytestmark = pytest.mark.slow
WRITER = """
import sys
from pathlib import Path
from observability.history.store import History
from tests.observability.history.makers import make_score
home, writer, commits = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
history = History(home)
for i in range(commits):
    history.commit([make_score(position_from=writer * 1000 + i)] * 2, f"writer-{writer}.{i}")
    if i % 3 == 0:
        history.flush()
left = 1
while left:
    left = history.flush().left
"""

VICTIM = """
import sys
from pathlib import Path
from observability.core import failpoints
from observability.history.store import History
history = History(Path(sys.argv[1]))
failpoints.arm_from(sys.argv[2])
history.flush()
"""


@dataclass
class Lake:
    """A lake of one test's own."""

    server: Server
    database: Database
    folder: Path

    @property
    def data(self) -> Path:
        """Where its Parquet files are."""
        return self.folder / "data"

    def host(self, name: str, url: str = "", data: str = "") -> Path:
        """The home of a host that keeps its history in the lake."""
        home = self.folder / name
        home.mkdir(exist_ok=True)
        (home / "thermodrift.toml").write_text(
            f"[history]\nurl = '{url or self.database.address}'\ndata = '{data or self.data}'\n"
        )
        return home


@pytest.fixture
def lake(postgres_server: Server, tmp_path: Path) -> Iterator[Lake]:
    """An empty lake, on a server that answers before and after."""
    yield Lake(postgres_server, postgres_server.database("lake"), tmp_path)
    if postgres_server.pid is None:
        postgres_server.start()


def positions(home: Path) -> list[int]:
    """First positions of all scores, in order."""
    answer = rows_of(History(home), "SELECT position_from AS p FROM scores ORDER BY p")
    return [row["p"] for row in answer]


def everything() -> list[Any]:
    """A row of every kind, such that every view of them has one."""
    return [
        make_run(),
        make_run(at=at(60), event="ended", position=900, outcome="finished", seconds=60.0),
        make_decision(),
        make_request(),
        make_request(at=at(1), event="deferred", waited_s=1.0),
        make_request(at=at(2), event="promoted", position=1500, waited_s=2.0),
        make_model(rows=1000, fit_s=2.0),
        make_model(at=at(3), event="promoted", position=1500),
        make_score(),
        make_score(member="holdout:champion", position_to=1500, value=0.8),
        make_score(member="holdout:challenger", position_to=1500, value=0.9),
        make_reject(),
        make_gpu_row(),
        make_cost(price=0.2, currency="EUR", carbon_g=300.0, pue=1.2, peak_power_w=190.0),
        make_forecast(),
    ]


def test_a_lake_has_the_views_of_a_file_and_answers_the_same(lake: Lake) -> None:
    """The same names, columns and types, and of the same rows the same answers."""
    file, there = History(lake.folder / "file"), History(lake.host("host"))
    for each in (file, there):
        each.commit(everything(), "all")
        assert 1 == each.flush().files
    assert [(v.name, v.columns) for v in file.views()] == [
        (v.name, v.columns) for v in there.views()
    ]
    for view in set(PUBLIC_VIEWS) - {"predictions"}:
        assert rows_of(file, f"FROM {view} ORDER BY ALL") == rows_of(
            there, f"FROM {view} ORDER BY ALL"
        ), view


def test_a_name_lands_once_whoever_repeats_it(lake: Lake) -> None:
    """Before a fold, after it, and from another host that took the pipeline over."""
    one, other = History(lake.host("one")), History(lake.host("other"))
    for _ in range(2):
        one.commit([make_score()], "a")
        one.flush()
    other.commit([make_score()], "a")
    assert 0 == other.flush().files
    assert [0] == positions(lake.host("one"))


def test_hosts_that_begin_and_write_at_once_lose_and_double_nothing(lake: Lake) -> None:
    """Four hosts find no lake, make it together, and commit: each commit is there once."""
    homes = [lake.host(f"host-{n}") for n in range(4)]
    writers = [python(WRITER, home, n, 12) for n, home in enumerate(homes)]
    assert [""] * 4 == [writer.communicate()[1] for writer in writers]
    expected = sorted(2 * [writer * 1000 + i for writer in range(4) for i in range(12)])
    assert expected == positions(homes[0])
    assert [] == [path for home in homes for path in (home / "history.outbox").glob("*.json")]
    versions = rows_of(History(homes[0]), "SELECT number FROM schema_version")
    assert [{"number": SCHEMA_VERSION}] == versions


@pytest.mark.parametrize("point", ["before_flush", "inside_flush", "after_flush"])
def test_a_kill_loses_and_doubles_nothing(lake: Lake, point: str) -> None:
    """Killed around the lake's own commit: the next fold finds out whether it happened."""
    home = lake.host("host")
    for i in range(3):
        History(home).commit([make_score(position_from=i)], f"a.{i}")
    killed = python(VICTIM, home, f"history.{point}=kill")
    assert ("", "") == killed.communicate()
    assert -signal.SIGKILL == killed.returncode
    assert [0, 1, 2] == positions(home)


def test_a_server_that_is_gone_costs_nothing_but_the_answer(
    lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Commits go on, a fold says why it cannot, a question is to try again; then all is there."""
    home = lake.host("host")
    past = History(home)
    past.commit([make_score(position_from=0)], "a.0")
    past.flush()
    lake.server.stop()
    past.commit([make_score(position_from=1)], "a.1")
    folded = past.flush()
    assert (0, 1) == (folded.files, folded.left)
    assert "does not answer: connection to server" in folded.because
    assert "nothing is lost, 1 commit waits" in folded.because
    with pytest.raises(HistoryUnreachable, match=r"the next attempt is in \d+ s") as error:
        past.ask("FROM scores")
    assert 75 == error.value.exit_code
    lake.server.start()
    monkeypatch.setattr(ducklake, "BACKOFF_S", 0.0)
    assert [0, 1] == positions(home)


def test_a_server_that_is_restarted_amid_a_run_is_found_again(lake: Lake) -> None:
    """No connection outlives a call, so that a restart between two is not noticed at all."""
    past = History(lake.host("host"))
    past.commit([make_score(position_from=0)], "a.0")
    past.flush()
    lake.server.stop()
    lake.server.start()
    past.commit([make_score(position_from=1)], "a.1")
    assert 1 == past.flush().files
    assert [0, 1] == positions(lake.host("host"))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"password": "wrong"}, "password authentication failed"),
        ({"name": "nowhere"}, 'database "nowhere" does not exist'),
    ],
)
def test_what_the_server_refuses_is_a_mistake_in_the_homes_file(
    lake: Lake, change: dict[str, str], says: str
) -> None:
    """Named with its key, without the password, and exit code 78; the rows are safe."""
    wrong = Database(**{**vars(lake.database), **change})
    past = History(lake.host("host", url=wrong.address))
    past.commit([make_score()], "a")
    with pytest.raises(BadConfiguration, match=says) as error:
        past.ask("FROM scores")
    assert "thermodrift.toml: history.url" in str(error.value)
    assert wrong.password not in str(error.value)
    assert [0] == positions(lake.host("host"))


def test_the_password_may_come_from_libpqs_own_file(
    lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that no file of ours has to hold one."""
    there = lake.database
    passwords = lake.folder / "pgpass"
    passwords.write_text(f"{there.host}:{there.port}:*:{there.user}:{there.password}\n")
    passwords.chmod(0o600)
    home = lake.host("host", url=there.address.replace(f":{there.password}", ""))
    History(home).commit([make_score()], "a")
    with pytest.raises(BadConfiguration, match="no password supplied"):
        History(home).ask("FROM scores")
    monkeypatch.setenv("PGPASSFILE", str(passwords))
    assert [0] == positions(home)


def test_what_the_url_adds_is_handed_to_libpq(lake: Lake) -> None:
    """In libpq's own words: spaces and quotes too, and the later of two wins."""
    told = "?application_name=it%27s%20%5Cmine&connect_timeout=3&sslmode=disable"
    past = History(lake.host("host", url=lake.database.address + told))
    with past._backend.writing():
        names = lake.server.ask("SELECT application_name FROM pg_stat_activity", "lake")
    assert "it's \\mine" in names.splitlines()


@pytest.mark.parametrize(
    ("told", "says"),
    [
        ("sslmode=verify-full", "does not support SSL"),
        ("sslmode=some", 'invalid sslmode value: "some"'),
        ("sslmod=require", 'invalid connection option "sslmod"'),
    ],
)
def test_a_connection_that_cannot_be_as_it_is_wanted_is_a_mistake(
    lake: Lake, told: str, says: str
) -> None:
    """To try again would not help; and what was meant to be encrypted never goes in the clear."""
    past = History(lake.host("host", url=f"{lake.database.address}?{told}"))
    with pytest.raises(BadConfiguration, match=re.escape(says)) as error:
        past.ask("FROM scores")
    assert "thermodrift.toml: history.url" in str(error.value)


def test_a_role_that_may_only_read_asks_and_adds_nothing(lake: Lake) -> None:
    """As docs/operations.md makes one; what stands in the rows does not change the error."""
    server, there = lake.server, lake.database
    rows = History(lake.host("writer"))
    rows.commit([make_score()], "a")
    rows.flush()
    for each in (
        "DROP ROLE IF EXISTS reader",
        "CREATE ROLE reader LOGIN PASSWORD 'reads-only'",
        "GRANT SELECT ON ALL TABLES IN SCHEMA public TO reader",
        "ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT SELECT ON TABLES TO reader",
    ):
        server.ask(each, there.name)
    reader = Database(**{**vars(there), "user": "reader", "password": "reads-only"})
    home = lake.host("reader", url=reader.address)
    rows.commit([make_score(position_from=1)], "b")
    rows.vacuum()
    assert [0] == positions(home)
    rows.flush()
    assert [0, 1] == positions(home)
    History(home).commit([make_reject(reason="Connection refused")], "c")
    with pytest.raises(BadConfiguration, match="permission denied for") as error:
        History(home).flush()
    assert "INSERT" not in str(error.value)
    assert [0, 1] == positions(lake.host("writer"))
    server.ask("DROP OWNED BY reader; DROP ROLE reader", there.name)


def test_another_folder_for_the_data_is_refused(lake: Lake) -> None:
    """Half of the rows where nobody else finds them would be worse than none."""
    History(lake.host("one")).ask("SELECT 1")
    with pytest.raises(BadConfiguration, match=r"history\.data: .*does not match"):
        History(lake.host("other", data=str(lake.folder / "elsewhere"))).ask("SELECT 1")


def test_predictions_of_every_host_are_in_the_lake(lake: Lake) -> None:
    """Each commit brings its own; they are seen from everywhere, in the widest type of all."""
    one, other = lake.host("one"), lake.host("other")
    written(one, "elec2", 0, [0, 1, 1])
    History(one).flush()
    assert [0, 1, 1] == store.open(other).predictions()["label"].to_pylist()
    written(other, "words", 0, ["a", "b"])
    History(other).flush()
    seen = store.open(one).predictions()
    assert [("elec2", 0, "0"), ("elec2", 1, "1"), ("elec2", 2, "1"), ("words", 0, "a")] == [
        (row["pipeline"], row["position"], row["label"]) for row in seen.to_pylist()
    ][:4]
    assert [0.5] * 3 == store.open(other).predictions("elec2")["served_probability"].to_pylist()
    members = store.open(other).predictions("elec2")["members"].to_pylist()
    assert [{"linear": each, "tree": each} for each in "011"] == [dict(each) for each in members]


def logged_file(home: Path, pipeline: str, first: int, labels: list[Any]) -> Path:
    """A file of the log, with every column that the loop writes."""
    last, share = first + len(labels), [0.5] * len(labels)
    path = write_predictions(
        home,
        pipeline,
        position=list(range(first, last)),
        label=labels,
        online=labels,
        batch=labels,
        baseline=labels,
        served=labels,
        online_probability=share,
        batch_probability=share,
        served_probability=share,
        members=[{"linear": label, "tree": label} for label in labels],
        model_version=["v1"] * len(labels),
    )
    return path.rename(path.with_name(f"{first:012d}-{last:012d}.parquet"))


def written(home: Path, pipeline: str, first: int, labels: list[Any]) -> None:
    """Log predictions and commit them, as the loop does."""
    last = first + len(labels)
    logged_file(home, pipeline, first, labels)
    History(home).commit(
        [make_score(pipeline=pipeline, position_from=first, position_to=last)],
        f"{pipeline}.x.{first}",
        Logged(pipeline, first, last),
    )


def test_predictions_are_brought_once_though_the_log_was_merged_meanwhile(lake: Lake) -> None:
    """A fold that comes late finds its positions in the file that replaced the parts."""
    home = lake.host("host")
    written(home, "elec2", 0, [0, 1])
    written(home, "elec2", 2, [1, 1])
    folder = home / "pipelines" / "elec2" / "predictions"
    merged = logged_file(lake.folder / "aside", "elec2", 0, [0, 1, 1, 1])
    shutil.copyfile(merged, folder / "000000000000-000000000004.parquet")
    History(home).commit([make_score()], "elec2.x.0", Logged("elec2", 0, 2))
    assert [0, 1, 2, 3] == store.open(home).predictions()["position"].to_pylist()


@pytest.mark.parametrize("late", [False, True])
def test_predictions_that_come_later_are_brought_once(lake: Lake, late: bool) -> None:
    """Records that were rejected first: also where their batch is folded when they are logged."""
    home = lake.host("host")
    folder = home / "pipelines" / "elec2" / "predictions"
    folder.mkdir(parents=True)
    file = folder / "000000000000-000000000003.parquet"
    shutil.copyfile(logged_file(lake.folder / "two", "elec2", 0, [0, 1]), file)
    History(home).commit([make_score()], "elec2.x.0", Logged("elec2", 0, 3))
    if not late:
        History(home).flush()
    shutil.copyfile(logged_file(lake.folder / "three", "elec2", 0, [0, 1, 0]), file)
    History(home).commit([make_score()], "elec2.x.1", Logged("elec2", 2, 3, only=[2]))
    assert [0, 1, 2] == store.open(home).predictions()["position"].to_pylist()


def test_predictions_that_are_gone_hold_nothing_up(lake: Lake) -> None:
    """The rows are folded, and the fold says what is missing."""
    home = lake.host("host")
    written(home, "elec2", 0, [0, 1])
    shutil.rmtree(home / "pipelines")
    folded = History(home).flush()
    assert (1, 0) == (folded.files, folded.left)
    assert "the predictions 0 to 2 are not in" in folded.because


@pytest.fixture(scope="module")
def questioned(postgres_server: Server, tmp_path_factory: pytest.TempPathFactory) -> Lake:
    """A lake with a row of every kind, which is only asked."""
    folder = tmp_path_factory.mktemp("questioned")
    lake = Lake(postgres_server, postgres_server.database("questioned"), folder)
    past = History(lake.host("host"))
    past.commit(everything(), "all")
    past.flush()
    return lake


@pytest.mark.parametrize(
    "sql",
    [
        "INSERT INTO flushed_commits VALUES ('x', now())",
        "FROM read_csv('/etc/passwd')",
        "FROM postgres_execute('__ducklake_metadata_lake', 'CREATE TABLE hack (i int)')",
        "FROM postgres_execute('__ducklake_metadata_lake', 'COMMIT; CREATE TABLE hack (i int)')",
        "FROM postgres_scan('host=127.0.0.1', 'public', 'x')",
        "FROM system.main.\"Postgres_Query\"('x', 'SELECT 1')",
        "FROM POSTGRES_QUERY('__ducklake_metadata_lake', 'SELECT pg_read_file(''/etc/hostname'')')",
        "WITH a AS (SELECT * FROM/**/postgres_query('x', 'y')) FROM a",
        "FROM query('FROM postgres' || '_query(''x'', ''SELECT 1'')')",
        "FROM query_table('folded')",
        "FROM ducklake_cleanup_old_files('lake', cleanup_all => true)",
        "SELECT ducklake_set_option('lake', 'x', 'y')",
        "FROM __ducklake_metadata_lake.ducklake_table",
        'FROM "__ducklake_metadata_lake".main.ducklake_table',
        "EXPLAIN ANALYZE FROM postgres_query('x', 'y')",
        "PIVOT (FROM postgres_query('x', 'y')) ON a",
        "DESCRIBE FROM postgres_query('x', 'y')",
        "SELECT 'éééééééé', * FROM postgres_query('__ducklake_metadata_lake', 'SELECT 1')",
        "SELECT 'éééééééé', * FROM __ducklake_metadata_lake.ducklake_table",
        "FROM\u00a0__ducklake_metadata_lake.ducklake_table",
        "FROM json_execute_serialized_sql(json_serialize_sql('FROM flushed_commits'))",
        "EXPLAIN ANALYZE COPY (SELECT 1) TO '{data}/mine.csv'",
        "FROM lake.merge_adjacent_files()",
        "FROM lake.main.set_option('data_inlining_row_limit', 0)",
    ],
)
def test_a_question_can_neither_write_nor_reach_out(questioned: Lake, sql: str) -> None:
    """The lake is attached to read, and the fence is up."""
    past = History(questioned.host("host"))
    with pytest.raises(BadQuestion):
        past.ask(sql.replace("{data}", str(questioned.data)))
    hacked = "SELECT count(*) FROM pg_tables WHERE tablename = 'hack'"
    assert "0" == questioned.server.ask(hacked, questioned.database.name)
    assert not (questioned.data / "mine.csv").exists()


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT 'postgres_query' AS query_of_mine, count(*) FROM runs -- query(",
        "SELECT * FROM decisions WHERE question = 'query'",
        "PIVOT scores ON member USING avg(value) GROUP BY position_from",
        "DESCRIBE runs",
        "SUMMARIZE scores",
        "EXPLAIN FROM deferrals",
        "SELECT 'é', pipeline AS \"größe\" FROM runs",
    ],
)
def test_an_honest_question_is_answered(questioned: Lake, sql: str) -> None:
    """The fence is about names that reach out, not about words in a text or a comment."""
    assert History(questioned.host("host")).ask(sql).num_columns > 0


def test_a_lake_without_its_files_is_not_the_questions_fault(lake: Lake) -> None:
    """A folder that is not mounted, say: not exit code 2, and the file is named."""
    past = History(lake.host("host"))
    past.commit([make_score(position_from=i) for i in range(2 * ducklake.INLINED_ROWS)], "a")
    past.flush()
    (file,) = lake.data.rglob("score_rows/*.parquet")
    file.unlink()
    with pytest.raises(HistoryDamaged, match=file.name):
        past.ask("SELECT avg(value) FROM scores")


def test_nothing_is_written_where_the_data_is_not_mounted(lake: Lake) -> None:
    """What went into the empty folder would be hidden by the mount: it waits in the spool."""
    home = lake.host("host")
    past = History(home)
    past.commit([make_score(position_from=i) for i in range(600)], "many")
    past.flush()
    lake.data.rename(lake.folder / "unmounted")
    lake.data.mkdir()
    past.commit([make_score(position_from=600)], "one")
    for written in (past.flush, past.vacuum):
        with pytest.raises(HistoryUnwritable, match="mount it"):
            written()
        assert [] == list(lake.data.iterdir())
    lake.data.rmdir()
    (lake.folder / "unmounted").rename(lake.data)
    assert list(range(601)) == positions(home)


def test_upkeep_writes_parquet_and_keeps_every_row(lake: Lake) -> None:
    """What was inlined in the catalogue lies in a few files afterwards; rows keep their order."""
    home = lake.host("host")
    past = History(home)
    for i in range(6):
        past.commit([make_score(position_from=i, member=f"m{n}") for n in range(3)], f"a.{i}")
        past.flush()
    before = rows_of(past, "SELECT position_from, member FROM score_rows ORDER BY rowid")
    assert [] == list(lake.data.rglob("score_rows/*.parquet"))
    said = past.vacuum()
    assert "rows written as Parquet" in said
    assert 1 == len(list(lake.data.rglob("score_rows/*.parquet")))
    past.commit([make_score(position_from=6, member="m0")], "a.6")
    after = rows_of(past, "SELECT position_from, member FROM score_rows ORDER BY rowid")
    assert [*before, {"position_from": 6, "member": "m0"}] == after
    past.vacuum()
    assert after == rows_of(past, "SELECT position_from, member FROM score_rows ORDER BY rowid")


def test_no_file_is_named_before_it_is_on_the_disk(
    lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a fold, of upkeep and of a removal: a loss of power after them loses nothing of them."""
    past = History(lake.host("host"))
    synced: set[Path] = set()
    monkeypatch.setattr(atomic_file, "sync_file", synced.add)
    past.commit([make_score(position_from=i) for i in range(2 * ducklake.INLINED_ROWS)], "a")
    past.flush()
    assert 1 == len(synced) == len(list(lake.data.rglob("*.parquet")))
    past.commit([make_score(at=at(86_400 * 9), position_from=0)], "b")
    past.vacuum()
    past.remove_expired(RetentionConfig(keep_days=5), at(86_400 * 10))
    assert 1 == past.scores().num_rows
    assert sorted(lake.data.rglob("*.parquet")) == sorted(synced)


def test_a_disk_that_does_not_keep_a_file_keeps_the_commit_waiting(
    lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The catalogue names nothing that is not there for good; the next fold brings it."""
    home = lake.host("host")
    past = History(home)
    past.ask("SELECT 1")
    past.commit([make_score(position_from=i) for i in range(2 * ducklake.INLINED_ROWS)], "a")

    def refused(path: Path) -> None:
        raise OSError(errno.EIO, "Input/output error", str(path))

    with monkeypatch.context() as broken:
        broken.setattr(atomic_file, "sync_file", refused)
        with pytest.raises(HistoryUnwritable, match="Input/output error"):
            past.flush()
    assert ["a.json"] == [path.name for path in (home / "history.outbox").glob("*.json")]
    assert 2 * ducklake.INLINED_ROWS == len(positions(home))


def test_rows_that_are_too_old_go_from_a_lake_too(
    lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the same rules, and the predictions that lie in it as well."""
    home = lake.host("host")
    past = History(home)
    past.commit([make_score(), make_score(at=at(86_400 * 9))], "a")
    written(home, "elec2", 0, [0, 1, 1])
    removed = past.remove_expired(
        RetentionConfig.model_construct(
            keep_days=5,
            readings_keep_days=None,
            predictions_keep=1,
            predictions_file_rows=1_000_000,
        ),
        at(86_400 * 10),
    )
    assert {"score_rows": 2, "prediction_rows": 2} == removed
    assert [2] == past.predictions()["position"].to_pylist()
    assert 1 == past.scores().num_rows


@pytest.mark.parametrize("version", [SCHEMA_VERSION - 1, SCHEMA_VERSION + 1])
def test_a_lake_of_another_schema_is_refused(lake: Lake, version: int) -> None:
    """One host has another thermodrift: the others say so, and keep their rows."""
    home = lake.host("host")
    past = History(home)
    past.flush()
    with past._backend.writing() as (duck, _):
        duck.execute(f"UPDATE schema_version SET number = {version}")
    past.commit([make_score()], "a")
    for use in (History.scores, History.flush):
        with pytest.raises(HistorySchemaMismatch, match=f"has schema {version}"):
            use(History(home))
    assert ["a.json"] == [path.name for path in (home / "history.outbox").glob("*.json")]


def test_a_lake_that_was_emptied_is_created_again(lake: Lake) -> None:
    """Under a process that had seen it filled: one flush is put off, the next one goes on."""
    past = History(lake.host("host"))
    past.commit([make_score(position_from=0)], "a.0")
    past.flush()
    with past._backend.writing() as (duck, _):
        for (view,) in duck.execute(
            "SELECT view_name FROM duckdb_views() WHERE database_name = 'lake' AND NOT internal"
        ):
            duck.execute(f"DROP VIEW {view}")
        for (table,) in duck.execute(
            "SELECT table_name FROM duckdb_tables() WHERE database_name = 'lake'"
        ):
            duck.execute(f"DROP TABLE {table}")
    past.commit([make_score(position_from=1)], "a.1")
    assert "is empty, and was not a moment ago" in past.flush().trouble
    assert 1 == past.flush().files


def test_a_database_of_something_else_is_refused(lake: Lake) -> None:
    """A lake with other tables is not ours to write into."""
    home = lake.host("host")
    past = History(home)
    past.commit([make_score()], "a")
    past.flush()
    with past._backend.writing() as (duck, _):
        duck.execute("DROP TABLE schema_version")
    with pytest.raises(HistoryDamaged, match="other tables and no history"):
        History(home).ask("SELECT 1")


def test_without_the_extra_it_says_what_to_install(
    lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is downloaded: what is not installed is named."""
    past = History(lake.host("host"))

    def missing(package: str) -> Path:
        raise ModuleNotFoundError(package)

    monkeypatch.setattr(resources, "files", missing)
    with pytest.raises(BadConfiguration, match=r"duckdb-extension-ducklake.*extra 'lake'"):
        past.ask("SELECT 1")
    monkeypatch.setattr(resources, "files", lambda package: lake.folder)
    with pytest.raises(BadConfiguration, match="is not made for DuckDB"):
        past.ask("SELECT 1")
