"""The schema of the history: its number, its tables, and the public views over them.

This file holds SQL as text; the backends execute it. A database is created with the whole schema at
once. A database with another number is refused, so every change here must raise `SCHEMA_VERSION`.
Tables have no keys and no indexes, because rows are only appended; the present state is a view.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal, get_args, get_origin

from pydantic import AwareDatetime

from observability.history.records import Record

LabelType = Literal["BIGINT", "DOUBLE", "VARCHAR"]

SCHEMA_VERSION = 10
"""The number of this schema. Numbers below 9 are of homes from before the first release."""

FEWEST_FOLLOWED = 200
"""Records after a retrain from which on they say more than its hold-out."""

_SQL_TYPES: Mapping[object, str] = {
    bool: "BOOLEAN",
    int: "BIGINT",
    float: "DOUBLE",
    str: "VARCHAR",
    AwareDatetime: "TIMESTAMPTZ",
}


def _sql_type(annotation: object) -> str:
    """Return DuckDB's type for a field of a record; a Literal is text."""
    if get_origin(annotation) is Mapping:
        return "JSON"
    kinds = [each for each in get_args(annotation) if each is not type(None)]
    return _SQL_TYPES.get(kinds[0] if kinds else annotation, "VARCHAR")


def _table(kind: type[Record]) -> str:
    """Return the statement that creates the table of a record, with a column for each field."""
    columns = ", ".join(
        f'"{name}" {_sql_type(field.annotation)}' for name, field in kind.model_fields.items()
    )
    return f"CREATE TABLE {kind.table} ({columns})"


# "at" is a reserved word in DuckDB: the public views give it a name that needs no quotes. Events of
# equal times are ordered by the row's place in the table, which is the order of commits.
_VIEWS = (
    """CREATE VIEW decisions AS
       SELECT decided_at, pipeline, run_id, question, yes, because, facts, "position"
       FROM decision_rows""",
    # A pipeline has one run at a time, so a run without an end crashed if another began later. A
    # sum with an unknown part is unknown, since a partial sum would be taken for the whole. Prices
    # in two currencies have no sum.
    """CREATE VIEW runs AS
       WITH ordered AS (
           SELECT *, row_number() OVER (PARTITION BY pipeline ORDER BY "at", rowid) AS nth
           FROM run_rows),
       summed AS (
           SELECT pipeline, run_id,
               min("at") FILTER (event = 'started') AS started_at,
               max(nth) FILTER (event = 'started') AS last_start,
               max("at") FILTER (event = 'ended') AS last_end,
               arg_max(event, nth) = 'ended' AS ended,
               arg_max(coalesce(outcome, 'ended'), nth) AS outcome,
               arg_max(because, nth) AS because,
               arg_min("position", nth) FILTER (event = 'started') AS position_from,
               arg_max("position", nth) FILTER (event = 'ended') AS position_to,
               sum(records)::BIGINT AS records,
               sum(learned)::BIGINT AS learned,
               sum(rejected)::BIGINT AS rejected,
               sum(unlabelled)::BIGINT AS unlabelled,
               sum(replayed)::BIGINT AS replayed,
               sum(seconds) AS seconds,
               sum(cpu_s) AS cpu_s,
               arg_max(host, nth) AS host
           FROM ordered GROUP BY pipeline, run_id),
       fits AS (
           SELECT pipeline, run_id, sum(seconds) AS fit_s,
               CASE WHEN count(joules) = count(*) THEN sum(joules) END AS fit_joules,
               CASE WHEN count(price) = count(*) AND count(DISTINCT currency) = 1
                    THEN sum(price) END AS fit_price,
               CASE WHEN count(price) = count(*) AND count(DISTINCT currency) = 1
                    THEN min(currency) END AS currency,
               CASE WHEN count(carbon_g) = count(*) THEN sum(carbon_g) END AS fit_carbon_g
           FROM cost_rows GROUP BY pipeline, run_id),
       followed AS (
           SELECT *, last_start < max(last_start) OVER (PARTITION BY pipeline) AS is_followed
           FROM summed)
       SELECT f.pipeline, f.run_id, f.started_at,
           CASE WHEN f.ended THEN f.last_end END AS ended_at,
           CASE WHEN f.ended THEN f.outcome
                WHEN f.is_followed THEN 'crashed' ELSE 'running' END AS outcome,
           f.because, f.position_from, f.position_to, f.records, f.learned, f.rejected,
           f.seconds, f.cpu_s, c.fit_s, c.fit_joules, f.host,
           c.fit_price, c.currency, c.fit_carbon_g, f.unlabelled, f.replayed
       FROM followed f
       LEFT JOIN fits c ON c.pipeline = f.pipeline AND c.run_id = f.run_id""",
    """CREATE VIEW requests AS
       WITH ordered AS (
           SELECT *, row_number() OVER (
               PARTITION BY pipeline, request_id ORDER BY "at", rowid) AS nth
           FROM request_rows),
       states AS (
           SELECT pipeline, request_id, arg_min(run_id, nth) AS run_id,
               min("at") FILTER (event = 'requested') AS requested_at,
               max("at") FILTER (event = 'started') AS started_at,
               arg_max("at", nth) AS last_at,
               arg_max(event, nth) AS state,
               state IN ('promoted', 'rejected', 'candidate', 'reused', 'skipped', 'no_model')
                   AS is_closed,
               count(*) FILTER (event = 'deferred') AS deferrals,
               arg_max(waited_s, nth) AS waited_s,
               arg_max(deadline_s, nth) AS deadline_s,
               arg_min("position", nth) FILTER (event = 'requested') AS position_requested,
               arg_max("position", nth) AS last_position,
               arg_min(because, nth) FILTER (event = 'requested') AS requested_because,
               arg_max(because, nth) AS because
           FROM ordered GROUP BY pipeline, request_id)
       SELECT pipeline, request_id, run_id, requested_at, started_at,
           CASE WHEN is_closed THEN last_at END AS closed_at,
           state, deferrals, waited_s, deadline_s, position_requested,
           CASE WHEN is_closed THEN last_position END AS position_closed,
           requested_because, because
       FROM states""",
    """CREATE VIEW champion_periods AS
       WITH promotions AS (
           SELECT *, row_number() OVER (PARTITION BY pipeline ORDER BY "at", rowid) AS nth
           FROM model_rows WHERE event IN ('promoted', 'rolled_back')),
       changes AS (
           SELECT *, lag(version) OVER (PARTITION BY pipeline ORDER BY nth) AS predecessor
           FROM promotions)
       SELECT pipeline,
           row_number() OVER (PARTITION BY pipeline ORDER BY nth) AS period,
           version, event,
           "at" AS started_at,
           lead("at") OVER (PARTITION BY pipeline ORDER BY nth) AS ended_at,
           "position" AS serves_from,
           lead("position") OVER (PARTITION BY pipeline ORDER BY nth) AS serves_to,
           because
       FROM changes WHERE version IS DISTINCT FROM predecessor""",
    """CREATE VIEW models AS
       WITH ordered AS (
           SELECT *, row_number() OVER (PARTITION BY pipeline ORDER BY "at", rowid) AS nth
           FROM model_rows),
       versions AS (
           SELECT pipeline, version, arg_min(run_id, nth) AS run_id,
               arg_max(recipe, nth) AS recipe,
               min("at") FILTER (event = 'stored') AS stored_at,
               arg_max("rows", nth) AS "rows",
               arg_max(train_from, nth) AS train_from,
               arg_max(train_to, nth) AS train_to,
               arg_max(fit_s, nth) AS fit_s,
               arg_max(size_bytes, nth) AS size_bytes,
               arg_max(sha256, nth) AS sha256,
               coalesce(arg_max(CASE event WHEN 'rolled_back' THEN 'promoted' ELSE event END, nth)
                   FILTER (event <> 'stored'), 'stored') AS state,
               min("at") FILTER (event = 'promoted') AS promoted_at,
               arg_max(because, nth) AS because
           FROM ordered GROUP BY pipeline, version),
       latest AS (
           SELECT * FROM champion_periods
           QUALIFY row_number() OVER (PARTITION BY pipeline, version ORDER BY period DESC) = 1)
       SELECT v.pipeline, v.version, v.run_id, v.recipe, v.stored_at, v."rows", v.train_from,
           v.train_to, v.fit_s, v.size_bytes, v.sha256, v.state, v.promoted_at,
           l.serves_from, l.serves_to,
           l.period IS NOT NULL AND l.ended_at IS NULL AS champion,
           v.because
       FROM versions v LEFT JOIN latest l ON l.pipeline = v.pipeline AND l.version = v.version""",
    """CREATE VIEW scores AS
       SELECT pipeline, run_id, "at" AS scored_at, position_from, position_to, member, metric,
           "value", scored
       FROM score_rows""",
    # A position may be rejected once in every life of a pipeline: a replay belongs to the newest
    # earlier reject of its position.
    """CREATE VIEW rejects AS
       WITH followed AS (
           SELECT *, lead("at") OVER (
               PARTITION BY pipeline, "position" ORDER BY "at", rowid) AS next_at
           FROM reject_rows)
       SELECT f.pipeline, f."position", f.reason, f.kind, f.raw, f."at" AS rejected_at, f.run_id,
           r."at" AS replayed_at
       FROM followed f
       LEFT JOIN replay_rows r ON r.pipeline = f.pipeline AND r."position" = f."position"
           AND r."at" >= f."at" AND (f.next_at IS NULL OR r."at" < f.next_at)""",
    """CREATE VIEW gpu_readings AS
       SELECT "at" AS read_at, * EXCLUDE ("at") FROM gpu_reading_rows""",
    """CREATE VIEW costs AS
       SELECT "at" AS started_at, pipeline, run_id, request_id, "position", work, version, seconds,
           cpu_s, joules, coalesce(mean_power_w, joules / nullif(seconds, 0)) AS mean_power_w,
           energy_source, uuid, peak_power_w, peak_temperature_c, lowest_margin_c, throttled_s,
           unread_s, deferred_s, paused_s, cap_w, interrupt_strategy, work_rows, price, currency,
           carbon_g, pue
       FROM cost_rows""",
    # The cost of a deferral is measured by the comparison that ended it: the challenger that waited
    # against the champion that served meanwhile, on the same newest rows. A rejected challenger
    # would not have served sooner. The score of a range is weighted by its scored records.
    """CREATE VIEW deferrals AS
       WITH ordered AS (
           SELECT *, row_number() OVER (
               PARTITION BY pipeline, request_id ORDER BY "at", rowid) AS nth
           FROM request_rows),
       latest AS (
           SELECT pipeline, request_id, max("position") AS position_to,
               arg_max(run_id, nth) AS run_id,
               coalesce(arg_max(waited_s, nth) FILTER (event = 'started'),
                   arg_max(waited_s, nth)) AS deferred_s
           FROM ordered GROUP BY pipeline, request_id),
       waits AS (
           SELECT r.pipeline, r.request_id, l.run_id, r.requested_at, r.closed_at, r.state,
               r.deferrals, l.deferred_s, r.position_requested, l.position_to,
               l.position_to - r.position_requested AS records_deferred, r.because
           FROM requests r JOIN latest l
               ON l.pipeline = r.pipeline AND l.request_id = r.request_id
           WHERE r.deferrals > 0),
       ranges AS (
           SELECT *, coalesce(scored, position_to - position_from) AS n FROM score_rows
           WHERE member = 'served' AND metric IN ('accuracy', 'mae') AND "value" IS NOT NULL),
       placed AS (
           SELECT w.pipeline, w.request_id, s.metric, s."value" * s.n AS total, s.n,
               s.position_to <= w.position_requested AS is_before,
               s.position_from >= w.position_requested AND s.position_to <= w.position_to
                   AS is_during,
               s.position_from >= w.position_to AND w.closed_at IS NOT NULL AS is_after
           FROM waits w JOIN ranges s ON s.pipeline = w.pipeline
               AND s.position_to > w.position_requested - w.records_deferred
               AND s.position_from < w.position_to + w.records_deferred),
       served AS (
           SELECT pipeline, request_id, metric,
               sum(total) FILTER (is_before) / sum(n) FILTER (is_before) AS served_before,
               sum(total) FILTER (is_during) / sum(n) FILTER (is_during) AS served_during,
               sum(total) FILTER (is_after) / sum(n) FILTER (is_after) AS served_after
           FROM placed GROUP BY pipeline, request_id, metric),
       compared AS (
           SELECT w.pipeline, w.request_id, s.metric,
               any_value(s."value") FILTER (s.member = 'holdout:champion') AS champion_score,
               any_value(s."value") FILTER (s.member = 'holdout:challenger') AS challenger_score,
               CASE s.metric WHEN 'accuracy' THEN challenger_score - champion_score
                   WHEN 'mae' THEN champion_score - challenger_score END AS lost_per_record
           FROM waits w JOIN score_rows s
               ON s.pipeline = w.pipeline AND s.run_id = w.run_id
               AND s.position_to = w.position_to AND s.metric IN ('accuracy', 'mae')
               AND s.member IN ('holdout:champion', 'holdout:challenger')
           WHERE w.state IN ('promoted', 'rejected')
           GROUP BY w.pipeline, w.request_id, s.metric)
       SELECT w.pipeline, w.request_id, w.requested_at, w.closed_at, w.state, w.deferrals,
           w.deferred_s, w.records_deferred, coalesce(c.metric, s.metric) AS metric,
           s.served_before, s.served_during, s.served_after,
           c.champion_score, c.challenger_score, c.lost_per_record,
           CASE w.state WHEN 'promoted' THEN c.lost_per_record * w.records_deferred
               WHEN 'rejected' THEN 0.0 END AS lost,
           w.because
       FROM waits w
       LEFT JOIN served s ON s.pipeline = w.pipeline AND s.request_id = w.request_id
       LEFT JOIN compared c ON c.pipeline = w.pipeline AND c.request_id = w.request_id
           AND c.metric = coalesce(s.metric, c.metric)""",
    """CREATE VIEW forecasts AS
       SELECT "at" AS checked_at, pipeline, run_id, "position", uuid, kind, horizon_s, predicted_c,
           standard_error_c, actual_c, predicted_c - actual_c AS error_c
       FROM forecast_rows""",
    # What is known of an expectation grows with its events, so the newest value that is known
    # counts. What came after a retrain says more than its hold-out, once enough has come.
    f"""CREATE VIEW expectations AS
       WITH ordered AS (
           SELECT *, row_number() OVER (
               PARTITION BY pipeline, request_id ORDER BY "at", rowid) AS nth
           FROM expectation_rows),
       known AS (
           SELECT pipeline, request_id,
               min("at") FILTER (event = 'expected') AS expected_at,
               min("position") FILTER (event = 'expected') AS "position",
               arg_max(evidence, nth) AS evidence,
               arg_max(metric, nth) AS metric,
               arg_max(expected_gain, nth) AS expected_gain,
               arg_max(horizon_records, nth) AS horizon_records,
               arg_max(cost_records, nth) AS cost_records,
               arg_max(version, nth) AS version,
               arg_max(replaced, nth) AS replaced,
               arg_max(compared_gain, nth) AS compared_gain,
               arg_max(followed_gain, nth) AS followed_gain,
               arg_max(followed_records, nth) AS followed_records
           FROM ordered GROUP BY pipeline, request_id)
       SELECT *,
           CASE WHEN followed_records >= {FEWEST_FOLLOWED} THEN followed_gain
                ELSE compared_gain END AS realised_gain
       FROM known""",
)

STATEMENTS = (
    "CREATE TABLE schema_version (number BIGINT, created_at TIMESTAMPTZ)",
    f"INSERT INTO schema_version VALUES ({SCHEMA_VERSION}, now())",
    "CREATE TABLE flushed_commits (name VARCHAR, flushed_at TIMESTAMPTZ)",
    "CREATE TABLE flush_counts (number BIGINT, flushed_at TIMESTAMPTZ)",
    *(_table(kind) for kind in Record.__subclasses__()),
    *_VIEWS,
)
"""The statements that create the history in an empty database, except the view `predictions`."""

PUBLIC_VIEWS = (
    "decisions",
    "runs",
    "requests",
    "models",
    "champion_periods",
    "scores",
    "predictions",
    "rejects",
    "gpu_readings",
    "costs",
    "deferrals",
    "forecasts",
    "expectations",
)
"""The public interface; docs/history.md describes every column."""


def label_types(columns: Mapping[str, str]) -> list[str]:
    """Return the types of the labels and predictions among the `columns` of a log file."""
    return [columns[name] for name in LABEL_COLUMNS if name in columns]


def widest(kinds: Iterable[str]) -> LabelType:
    """Return the narrowest type that holds the labels of every pipeline.

    Integers are BIGINT, with any fraction among them DOUBLE, with anything else VARCHAR. Without
    any known type it is BIGINT.
    """
    seen = set(kinds)
    if seen - _WHOLE - _FRACTIONS:
        return "VARCHAR"
    return "DOUBLE" if seen & _FRACTIONS else "BIGINT"


_WHOLE = frozenset({"TINYINT", "SMALLINT", "INTEGER", "BIGINT"})
_FRACTIONS = frozenset({"FLOAT", "DOUBLE"})

LABEL_COLUMNS = ("label", "online", "batch", "baseline", "served")
_PROBABILITY_COLUMNS = ("online_probability", "batch_probability", "served_probability")
LOGGED_COLUMNS = ("position", *LABEL_COLUMNS, *_PROBABILITY_COLUMNS, "members", "model_version")
"""The columns of the prediction log, in order."""


def predictions_query(pattern: str | None, kind: LabelType, replaced: Sequence[str] = ()) -> str:
    """Return the query of the view `predictions` over the Parquet files that match `pattern`.

    Files in `replaced` are left out, because other files hold their rows. It is not in `STATEMENTS`
    because DuckDB freezes a view's types, and `kind`, the type of labels, depends on the files. The
    types are named here, so DuckDB need not open every file to find them, and a column that a file
    lacks is NULL. Without a pattern the view is empty, and its columns are typed.
    """
    kinds = {"position": "BIGINT"}
    kinds |= dict.fromkeys(LABEL_COLUMNS, kind)
    kinds |= dict.fromkeys(_PROBABILITY_COLUMNS, "DOUBLE")
    kinds["members"] = f"MAP(VARCHAR, {kind})"
    kinds["model_version"] = "VARCHAR"
    if pattern is None:
        columns = ", ".join(f'NULL::{each} AS "{name}"' for name, each in kinds.items())
        return f"SELECT NULL::VARCHAR AS pipeline, {columns} WHERE false"
    schema = ", ".join(
        f"'{name}': {{name: '{name}', type: '{each}', default_value: NULL}}"
        for name, each in kinds.items()
    )
    columns = ", ".join(f'"{name}"' for name in kinds)
    left_out = ", ".join(quoted(path) for path in replaced)
    return (
        f"SELECT regexp_extract(filename, '([^/]+)/predictions/[^/]+$', 1) AS pipeline, "
        f"{columns} FROM read_parquet("
        f"{quoted(pattern)}, schema = MAP {{{schema}}}, hive_partitioning = false)"
        + (f" WHERE filename NOT IN ({left_out})" if replaced else "")
    )


def lake_predictions_query(kind: LabelType) -> str:
    """Return the query of the view `predictions` in a lake, which stores labels as text."""
    types = dict.fromkeys(LABEL_COLUMNS, str(kind)) | {"members": f"MAP(VARCHAR, {kind})"}
    columns = ", ".join(
        f'CAST("{name}" AS {types[name]}) AS "{name}"' if name in types else f'"{name}"'
        for name in LOGGED_COLUMNS
    )
    return f"SELECT pipeline, {columns} FROM prediction_rows"


def quoted(text: str) -> str:
    """Return `text` as an SQL string."""
    return "'" + text.replace("'", "''") + "'"
