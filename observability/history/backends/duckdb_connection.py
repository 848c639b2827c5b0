"""Connections to DuckDB; this is the one file that imports it.

It does not know the history's tables. It runs SQL, inserts rows in bulk, and answers a question in
such a way that the question can neither write nor reach other files or servers.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import duckdb

from observability.core.errors import BadConfiguration, ThermodriftError
from observability.history.errors import BadQuestion
from observability.history.schema import quoted

if TYPE_CHECKING:
    import pyarrow as pa

Mode = Literal["READ_ONLY", "READ_WRITE"]
ErrorFactory = Callable[[str], ThermodriftError]
"""Makes one of thermodrift's errors from the text of one of DuckDB's."""
_HALF = 1000
"""Characters that are kept at each end of a long error."""

_CONFIG: Mapping[str, str | bool | int | float | list[str]] = {
    "autoinstall_known_extensions": "false",
    "autoload_known_extensions": "false",
    "allow_community_extensions": "false",
}
_FUNCTIONS = "SELECT DISTINCT lower(function_name) FROM duckdb_functions()"
_RUNS_TEXT = frozenset({"query", "query_table", "json_execute_serialized_sql"})
"""Functions that run SQL from a string."""
_WRITES_OF_A_LAKE = frozenset({"merge_adjacent_files", "set_option"})
"""Functions of a lake that write files before DuckDB refuses them as read-only."""
_NAME = re.compile(rb'"((?:[^"]|"")*)"|([\w$\x80-\xff]+)')
_ODD_SPACE = re.compile("[\u00a0\u2000-\u200b\u202f\u205f\u2060\u3000\ufeff]")
"""Spaces for DuckDB's parser, but parts of a name for its tokenizer."""


class Duck:
    """An open connection. It raises DuckDB's errors, which `opened` converts."""

    def __init__(self, connection: duckdb.DuckDBPyConnection) -> None:
        self._connection = connection
        self._is_extended = False
        self._dangerous: frozenset[str] = frozenset()

    def execute(self, sql: str, parameters: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        """Run one statement and return its rows."""
        return self._connection.execute(sql, list(parameters)).fetchall()

    def one(self, sql: str, parameters: Sequence[object] = ()) -> Any:
        """Return the first cell of the first row; None where there is no row."""
        found = self._connection.execute(sql, list(parameters)).fetchone()
        return None if found is None else found[0]

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Run the block in a transaction."""
        self._connection.execute("BEGIN")
        try:
            yield
            self._connection.execute("COMMIT")
        except BaseException:
            with suppress(duckdb.Error):  # the error may have ended the transaction already
                self._connection.execute("ROLLBACK")
            raise

    def append(self, table: str, rows: Sequence[Mapping[str, object]]) -> None:
        """Insert `rows` in bulk; a column that is missing in all of them is NULL."""
        import pyarrow as pa

        names = dict.fromkeys(name for row in rows for name in row)
        incoming = pa.table({name: pa.array([row.get(name) for row in rows]) for name in names})
        self._connection.register("incoming", incoming)
        self._connection.execute(f'INSERT INTO "{table}" BY NAME SELECT * FROM incoming')
        self._connection.unregister("incoming")

    def parquet_columns(self, pattern: str) -> Mapping[str, str] | None:
        """Return DuckDB's type of each column of a Parquet file; None where it cannot be read."""
        try:
            described = self.execute("DESCRIBE SELECT * FROM read_parquet(?)", [pattern])
        except duckdb.Error:
            return None
        return {row[0]: row[1] for row in described}

    def load(self, extension: str) -> None:
        """Load an extension from its installed Python package; nothing is downloaded.

        Raises BadConfiguration where it is not installed for this DuckDB.
        """
        self._connection.execute(f"LOAD {quoted(str(_extension(extension)))}")
        self._is_extended = True

    def restrict(self, folders: Sequence[str]) -> None:
        """Restrict the following statements to this database and the files in `folders`.

        Without external access DuckDB does not see the variables of the calling program either.
        """
        if self._is_extended:
            # In a SELECT on a read-only database they can still write, and reach other servers.
            available = frozenset(name for (name,) in self.execute(_FUNCTIONS))
            self._dangerous = available - _builtin() | _RUNS_TEXT | _WRITES_OF_A_LAKE
        allowed = ", ".join(quoted(folder) for folder in dict.fromkeys(folders))
        self._connection.execute(f"SET allowed_directories = [{allowed}]")
        self._connection.execute("SET enable_external_access = false")
        self._connection.execute("SET lock_configuration = true")

    def answer(self, sql: str, parameters: Sequence[object] = ()) -> pa.Table:
        """Answer one question. Raises BadQuestion where DuckDB cannot answer it."""
        try:
            self._check_is_question(sql)
            return self._connection.execute(sql, list(parameters)).to_arrow_table()
        except duckdb.Error as cause:
            # A question about a lake cannot name a file: one that cannot be opened is the lake's.
            if _is_damage(cause) or (self._dangerous and isinstance(cause, duckdb.IOException)):
                raise
            raise BadQuestion(_short(cause)) from cause

    def _check_names(self, sql: str) -> None:
        """Raise BadQuestion where `sql` names a function or the catalogue of an extension."""
        if not self._dangerous:
            return
        if odd := _ODD_SPACE.search(sql):
            raise BadQuestion(
                f"a question of a lake is written with plain spaces; came: U+{ord(odd[0]):04X} "
                f"at character {odd.start() + 1}; type a space there"
            )
        text = sql.encode()  # tokens have offsets in bytes
        for start, kind in duckdb.tokenize(sql):
            if kind in (duckdb.token_type.string_const, duckdb.token_type.comment):
                continue
            found = _NAME.match(text, start)
            spelt = (found[1] or found[2]) if found else b""
            name = spelt.decode().replace('""', '"').lower()
            if name in self._dangerous or name.startswith("__ducklake_metadata"):
                raise BadQuestion(
                    f"a question may not use {name}, which reaches beyond the history; "
                    "ask the views that `thermodrift history tables` lists"
                )

    def _check_is_question(self, sql: str) -> None:
        """Raise BadQuestion unless `sql` is one statement that only reads."""
        try:
            sql.encode()
        except UnicodeEncodeError as cause:
            raise BadQuestion(
                "a question is text in Unicode; this one holds other bytes"
            ) from cause
        self._check_names(sql)
        kind = self._kind(sql)
        if kind == duckdb.StatementType.EXPLAIN:
            # EXPLAIN ANALYZE runs the statement, which may be a COPY over a pipeline's files.
            kind = self._explained(sql)
        if kind != duckdb.StatementType.SELECT:
            raise BadQuestion(
                f"only thermodrift writes to the history: ask with SELECT; came: {kind.name}"
            )

    def _kind(self, sql: str) -> duckdb.StatementType:
        found = self._connection.extract_statements(sql)
        # PIVOT is parsed into two statements: one without text, and the question.
        asked = [each for each in found if each.query.strip()] or found[-1:]
        if len(asked) != 1:
            raise BadQuestion(f"ask one question at a time; came: {len(asked)} statements")
        return asked[0].type

    def _explained(self, sql: str) -> duckdb.StatementType:
        """Return the kind of the explained statement: the first suffix of `sql` that parses."""
        text = sql.encode()
        for start, _ in duckdb.tokenize(sql)[1:]:
            with suppress(duckdb.ParserException, UnicodeDecodeError):
                return self._kind(text[start:].decode())
        raise BadQuestion("the explained statement cannot be parsed; write EXPLAIN and a SELECT")


@contextmanager
def opened(database: Path | None, mode: Mode, make_error: ErrorFactory) -> Iterator[Duck]:
    """Open a connection to the file `database`, or in memory, and close it after the block.

    An error of DuckDB inside the block is raised as the error that `make_error` makes of its text.
    """
    name = ":memory:" if database is None else str(database)
    try:
        connection = duckdb.connect(name, config={**_CONFIG, "access_mode": mode})
        try:
            connection.execute("SET TimeZone = 'UTC'")
            yield Duck(connection)
        finally:
            connection.close()
    except duckdb.Error as cause:
        raise make_error(_short(cause)) from cause


@cache
def _builtin() -> frozenset[str]:
    """Return the functions of a bare DuckDB; to list them takes as long as a small flush."""
    with duckdb.connect(":memory:", config=dict(_CONFIG)) as bare:
        return frozenset(name for (name,) in bare.execute(_FUNCTIONS).fetchall())


def _extension(name: str) -> Path:
    """Return the file of an extension that was built for exactly this release of DuckDB."""
    package = f"duckdb_extension_{name}"
    try:
        root = Path(str(resources.files(package)))
    except ModuleNotFoundError as cause:
        raise BadConfiguration(
            f"a history in a DuckLake needs {package.replace('_', '-')}, which is not installed: "
            "install thermodrift with its extra 'lake'"
        ) from cause
    file = root / "extensions" / f"v{duckdb.__version__}" / f"{name}.duckdb_extension"
    if not file.is_file():
        raise BadConfiguration(
            f"{package.replace('_', '-')} is not made for DuckDB {duckdb.__version__}, which is "
            "installed: install thermodrift with its extra 'lake', or from requirements.lock"
        )
    return file


def _is_damage(error: duckdb.Error) -> bool:
    """Return whether the database is damaged, rather than the question wrong."""
    return isinstance(error, (duckdb.FatalException, duckdb.InternalException)) or (
        "Corrupt database file" in str(error)
    )


def _short(error: duckdb.Error) -> str:
    """Return DuckDB's text on one line, without the excerpt of the SQL.

    A long text is cut in the middle: its start says what was tried, and its end has the reason.
    """
    text = str(error).split("\n\nLINE ")[0].split("\n\nStack Trace:")[0]
    text = " ".join(text.split(". See also https")[0].split())
    return text if len(text) <= 2 * _HALF else f"{text[:_HALF]} … {text[-_HALF:]}"
