"""The history's shape: an ordered list of small named steps, and the public views they end in.

Yields SQL as text and executes none; `history` does. Steps go forward only: one that has shipped is
never edited, a change is a new step at the end. Rows carry no keys and no indexes, because rows are
only ever appended; what is true now is a view.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

LabelType = Literal["BIGINT", "DOUBLE", "VARCHAR"]


@dataclass(frozen=True)
class Migration:
    """One step: its place in the order, its name, and its SQL statements."""

    number: int
    name: str
    statements: tuple[str, ...]


_ROWS = (
    """CREATE TABLE migrations (number BIGINT, name VARCHAR, applied_at TIMESTAMPTZ)""",
    """CREATE TABLE folded (name VARCHAR, folded_at TIMESTAMPTZ)""",
    """CREATE TABLE decision_rows (
        decided_at TIMESTAMPTZ, pipeline VARCHAR, run_id VARCHAR, "position" BIGINT,
        question VARCHAR, yes BOOLEAN, because VARCHAR, facts JSON)""",
    """CREATE TABLE run_rows (
        "at" TIMESTAMPTZ, pipeline VARCHAR, run_id VARCHAR, event VARCHAR, "position" BIGINT,
        outcome VARCHAR, because VARCHAR, records BIGINT, learned BIGINT, rejected BIGINT,
        seconds DOUBLE)""",
    """CREATE TABLE request_rows (
        "at" TIMESTAMPTZ, pipeline VARCHAR, run_id VARCHAR, request_id VARCHAR, event VARCHAR,
        "position" BIGINT, because VARCHAR, deadline_s DOUBLE, waited_s DOUBLE)""",
    """CREATE TABLE model_rows (
        "at" TIMESTAMPTZ, pipeline VARCHAR, run_id VARCHAR, version VARCHAR, event VARCHAR,
        "position" BIGINT, recipe VARCHAR, "rows" BIGINT, train_from BIGINT, train_to BIGINT,
        fit_s DOUBLE, size_bytes BIGINT, sha256 VARCHAR, because VARCHAR)""",
    """CREATE TABLE score_rows (
        "at" TIMESTAMPTZ, pipeline VARCHAR, run_id VARCHAR, position_from BIGINT,
        position_to BIGINT, member VARCHAR, metric VARCHAR, "value" DOUBLE)""",
    """CREATE TABLE reject_rows (
        "at" TIMESTAMPTZ, pipeline VARCHAR, run_id VARCHAR, "position" BIGINT, reason VARCHAR,
        kind VARCHAR, raw VARCHAR)""",
    """CREATE TABLE gpu_reading_rows (
        "at" TIMESTAMPTZ, pipeline VARCHAR, run_id VARCHAR, source VARCHAR, uuid VARCHAR,
        elapsed_s DOUBLE, temperature_c DOUBLE, memory_temperature_c DOUBLE, margin_c DOUBLE,
        power_w DOUBLE, power_limit_w DOUBLE, utilization DOUBLE, throttle_reasons VARCHAR)""",
)

# "at" is a reserved word in DuckDB: the public views give it a name that nobody needs to quote.
# Events of equal times are ordered by the row's place in the table, which is the order of commits.
_VIEWS = (
    """CREATE VIEW decisions AS
       SELECT decided_at, pipeline, run_id, question, yes, because, facts, "position"
       FROM decision_rows""",
    """CREATE VIEW runs AS
       WITH ordered AS (
           SELECT *, row_number() OVER (PARTITION BY pipeline, run_id ORDER BY "at", rowid) AS nth
           FROM run_rows)
       SELECT pipeline, run_id,
           min("at") FILTER (event = 'started') AS started_at,
           CASE WHEN arg_max(event, nth) = 'ended'
                THEN max("at") FILTER (event = 'ended') END AS ended_at,
           CASE WHEN arg_max(event, nth) = 'ended'
                THEN arg_max(coalesce(outcome, 'ended'), nth) ELSE 'running' END AS outcome,
           arg_max(because, nth) AS because,
           arg_min("position", nth) FILTER (event = 'started') AS position_from,
           arg_max("position", nth) FILTER (event = 'ended') AS position_to,
           sum(records)::BIGINT AS records,
           sum(learned)::BIGINT AS learned,
           sum(rejected)::BIGINT AS rejected,
           sum(seconds) AS seconds
       FROM ordered GROUP BY pipeline, run_id""",
    """CREATE VIEW requests AS
       WITH ordered AS (
           SELECT *, row_number() OVER (
               PARTITION BY pipeline, request_id ORDER BY "at", rowid) AS nth
           FROM request_rows),
       states AS (
           SELECT pipeline, request_id, arg_min(run_id, nth) AS run_id,
               min("at") FILTER (event = 'asked') AS asked_at,
               max("at") FILTER (event = 'started') AS started_at,
               arg_max("at", nth) AS last_at,
               arg_max(event, nth) AS state,
               count(*) FILTER (event = 'deferred') AS deferrals,
               arg_max(waited_s, nth) AS waited_s,
               arg_max(deadline_s, nth) AS deadline_s,
               arg_min("position", nth) FILTER (event = 'asked') AS position_asked,
               arg_max("position", nth) AS last_position,
               arg_min(because, nth) FILTER (event = 'asked') AS asked_because,
               arg_max(because, nth) AS because
           FROM ordered GROUP BY pipeline, request_id)
       SELECT pipeline, request_id, run_id, asked_at, started_at,
           CASE WHEN state IN ('promoted', 'kept', 'skipped', 'refused')
                THEN last_at END AS settled_at,
           state, deferrals, waited_s, deadline_s, position_asked,
           CASE WHEN state IN ('promoted', 'kept', 'skipped', 'refused')
                THEN last_position END AS position_settled,
           asked_because, because
       FROM states""",
    """CREATE VIEW reigns AS
       WITH crowns AS (
           SELECT *, row_number() OVER (PARTITION BY pipeline ORDER BY "at", rowid) AS nth
           FROM model_rows WHERE event IN ('promoted', 'rolled_back')),
       changes AS (
           SELECT *, lag(version) OVER (PARTITION BY pipeline ORDER BY nth) AS predecessor
           FROM crowns)
       SELECT pipeline,
           row_number() OVER (PARTITION BY pipeline ORDER BY nth) AS reign,
           version, event,
           "at" AS began_at,
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
           SELECT * FROM reigns
           QUALIFY row_number() OVER (PARTITION BY pipeline, version ORDER BY reign DESC) = 1)
       SELECT v.pipeline, v.version, v.run_id, v.recipe, v.stored_at, v."rows", v.train_from,
           v.train_to, v.fit_s, v.size_bytes, v.sha256, v.state, v.promoted_at,
           l.serves_from, l.serves_to,
           l.reign IS NOT NULL AND l.ended_at IS NULL AS champion,
           v.because
       FROM versions v LEFT JOIN latest l ON l.pipeline = v.pipeline AND l.version = v.version""",
    """CREATE VIEW scores AS
       SELECT pipeline, run_id, "at" AS scored_at, position_from, position_to, member, metric,
           "value"
       FROM score_rows""",
    """CREATE VIEW rejects AS
       SELECT pipeline, "position", reason, raw, "at" AS rejected_at, run_id FROM reject_rows""",
    """CREATE VIEW gpu_readings AS
       SELECT "at" AS read_at, pipeline, run_id, source, uuid, elapsed_s, temperature_c,
           memory_temperature_c, margin_c, power_w, power_limit_w, utilization, throttle_reasons
       FROM gpu_reading_rows""",
)

_COSTS = (
    """ALTER TABLE run_rows ADD COLUMN cpu_s DOUBLE""",
    """ALTER TABLE run_rows ADD COLUMN host VARCHAR""",
    """ALTER TABLE gpu_reading_rows ADD COLUMN energy_j DOUBLE""",
    """CREATE TABLE cost_rows (
        "at" TIMESTAMPTZ, pipeline VARCHAR, run_id VARCHAR, request_id VARCHAR, "position" BIGINT,
        work VARCHAR, version VARCHAR, seconds DOUBLE, cpu_s DOUBLE, joules DOUBLE,
        energy_source VARCHAR)""",
    """CREATE TABLE fold_marks (number BIGINT, folded_at TIMESTAMPTZ)""",
    """INSERT INTO fold_marks SELECT count(*), now() FROM folded""",
)

# One run of a pipeline goes at a time, so a run without an end was killed if another began later.
# A sum of joules of which some are unknown would pass for the whole: it is unknown.
# What waiting cost is told by the comparison that ended it: on the same newest rows, the model that
# waited against the one that served meanwhile. A model that was kept would not have served sooner.
_COST_VIEWS = (
    """CREATE OR REPLACE VIEW costs AS
       SELECT "at" AS began_at, pipeline, run_id, request_id, "position", work, version, seconds,
           cpu_s, joules, joules / nullif(seconds, 0) AS mean_power_w, energy_source
       FROM cost_rows""",
    """CREATE OR REPLACE VIEW runs AS
       WITH ordered AS (
           SELECT *, row_number() OVER (PARTITION BY pipeline ORDER BY "at", rowid) AS nth
           FROM run_rows),
       told AS (
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
               sum(seconds) AS seconds,
               sum(cpu_s) AS cpu_s,
               arg_max(host, nth) AS host
           FROM ordered GROUP BY pipeline, run_id),
       heavy AS (
           SELECT pipeline, run_id, sum(seconds) AS fit_s,
               CASE WHEN count(joules) = count(*) THEN sum(joules) END AS fit_joules
           FROM cost_rows GROUP BY pipeline, run_id),
       followed AS (
           SELECT *, last_start < max(last_start) OVER (PARTITION BY pipeline) AS outlived
           FROM told)
       SELECT f.pipeline, f.run_id, f.started_at,
           CASE WHEN f.ended THEN f.last_end END AS ended_at,
           CASE WHEN f.ended THEN f.outcome
                WHEN f.outlived THEN 'killed' ELSE 'running' END AS outcome,
           f.because, f.position_from, f.position_to, f.records, f.learned, f.rejected,
           f.seconds, f.cpu_s, h.fit_s, h.fit_joules, f.host
       FROM followed f
       LEFT JOIN heavy h ON h.pipeline = f.pipeline AND h.run_id = f.run_id""",
    """CREATE OR REPLACE VIEW gpu_readings AS
       SELECT "at" AS read_at, pipeline, run_id, source, uuid, elapsed_s, temperature_c,
           memory_temperature_c, margin_c, power_w, power_limit_w, utilization, throttle_reasons,
           energy_j
       FROM gpu_reading_rows""",
    """CREATE OR REPLACE VIEW deferrals AS
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
           SELECT r.pipeline, r.request_id, l.run_id, r.asked_at, r.settled_at, r.state,
               r.deferrals, l.deferred_s, r.position_asked, l.position_to,
               l.position_to - r.position_asked AS records_deferred, r.because
           FROM requests r JOIN latest l
               ON l.pipeline = r.pipeline AND l.request_id = r.request_id
           WHERE r.deferrals > 0),
       ranges AS (
           SELECT *, position_to - position_from AS n FROM score_rows
           WHERE member = 'served' AND metric IN ('accuracy', 'mae') AND "value" IS NOT NULL),
       served AS (
           SELECT w.pipeline, w.request_id, s.metric,
               sum(s."value" * s.n) FILTER (s.position_to <= w.position_asked)
                   / sum(s.n) FILTER (s.position_to <= w.position_asked) AS served_before,
               sum(s."value" * s.n) FILTER (
                   s.position_from >= w.position_asked AND s.position_to <= w.position_to)
                   / sum(s.n) FILTER (
                   s.position_from >= w.position_asked AND s.position_to <= w.position_to)
                   AS served_during,
               sum(s."value" * s.n) FILTER (
                   s.position_from >= w.position_to AND w.settled_at IS NOT NULL)
                   / sum(s.n) FILTER (
                   s.position_from >= w.position_to AND w.settled_at IS NOT NULL) AS served_after
           FROM waits w JOIN ranges s ON s.pipeline = w.pipeline
               AND s.position_to > w.position_asked - w.records_deferred
               AND s.position_from < w.position_to + w.records_deferred
           GROUP BY w.pipeline, w.request_id, s.metric),
       compared AS (
           SELECT w.pipeline, w.request_id, s.metric,
               any_value(s."value") FILTER (s.member = 'holdout:champion') AS champion_score,
               any_value(s."value") FILTER (s.member = 'holdout:challenger') AS challenger_score
           FROM waits w JOIN score_rows s
               ON s.pipeline = w.pipeline AND s.run_id = w.run_id
               AND s.position_to = w.position_to AND s.metric IN ('accuracy', 'mae')
               AND s.member IN ('holdout:champion', 'holdout:challenger')
           WHERE w.state IN ('promoted', 'kept')
           GROUP BY w.pipeline, w.request_id, s.metric),
       gained AS (
           SELECT *, CASE metric WHEN 'accuracy' THEN challenger_score - champion_score
               WHEN 'mae' THEN champion_score - challenger_score END AS lost_per_record
           FROM compared)
       SELECT w.pipeline, w.request_id, w.asked_at, w.settled_at, w.state, w.deferrals,
           w.deferred_s, w.records_deferred, coalesce(g.metric, s.metric) AS metric,
           s.served_before, s.served_during, s.served_after,
           g.champion_score, g.challenger_score, g.lost_per_record,
           CASE w.state WHEN 'promoted' THEN g.lost_per_record * w.records_deferred
               WHEN 'kept' THEN 0.0 END AS lost,
           w.because
       FROM waits w
       LEFT JOIN served s ON s.pipeline = w.pipeline AND s.request_id = w.request_id
       LEFT JOIN gained g ON g.pipeline = w.pipeline AND g.request_id = w.request_id
           AND g.metric = coalesce(s.metric, g.metric)""",
)

_RUNGS = (
    """ALTER TABLE gpu_reading_rows ADD COLUMN rung VARCHAR""",
    """ALTER TABLE gpu_reading_rows ADD COLUMN clock_mhz DOUBLE""",
    """ALTER TABLE gpu_reading_rows ADD COLUMN memory_clock_mhz DOUBLE""",
    """ALTER TABLE gpu_reading_rows ADD COLUMN memory_used_bytes BIGINT""",
    """ALTER TABLE gpu_reading_rows ADD COLUMN memory_total_bytes BIGINT""",
    """ALTER TABLE gpu_reading_rows ADD COLUMN discarded BIGINT""",
    """ALTER TABLE gpu_reading_rows ADD COLUMN unreadable VARCHAR""",
    """CREATE OR REPLACE VIEW gpu_readings AS
       SELECT "at" AS read_at, pipeline, run_id, source, uuid, elapsed_s, temperature_c,
           memory_temperature_c, margin_c, power_w, power_limit_w, utilization, throttle_reasons,
           energy_j, rung, clock_mhz, memory_clock_mhz, memory_used_bytes, memory_total_bytes,
           discarded, unreadable
       FROM gpu_reading_rows""",
)

# A price in two currencies is no sum. What energy costs is written with the row: rates change.
_BILLS = (
    """ALTER TABLE cost_rows ADD COLUMN uuid VARCHAR""",
    """ALTER TABLE cost_rows ADD COLUMN mean_power_w DOUBLE""",
    """ALTER TABLE cost_rows ADD COLUMN peak_power_w DOUBLE""",
    """ALTER TABLE cost_rows ADD COLUMN peak_temperature_c DOUBLE""",
    """ALTER TABLE cost_rows ADD COLUMN lowest_margin_c DOUBLE""",
    """ALTER TABLE cost_rows ADD COLUMN throttled_s DOUBLE""",
    """ALTER TABLE cost_rows ADD COLUMN unread_s DOUBLE""",
    """ALTER TABLE cost_rows ADD COLUMN deferred_s DOUBLE""",
    """ALTER TABLE cost_rows ADD COLUMN paused_s DOUBLE""",
    """ALTER TABLE cost_rows ADD COLUMN cap_w DOUBLE""",
    """ALTER TABLE cost_rows ADD COLUMN guarded VARCHAR""",
    """ALTER TABLE cost_rows ADD COLUMN work_rows BIGINT""",
    """ALTER TABLE cost_rows ADD COLUMN price DOUBLE""",
    """ALTER TABLE cost_rows ADD COLUMN currency VARCHAR""",
    """ALTER TABLE cost_rows ADD COLUMN carbon_g DOUBLE""",
    """ALTER TABLE cost_rows ADD COLUMN pue DOUBLE""",
    """CREATE TABLE forecast_rows (
        "at" TIMESTAMPTZ, pipeline VARCHAR, run_id VARCHAR, "position" BIGINT, uuid VARCHAR,
        kind VARCHAR, horizon_s DOUBLE, foretold_c DOUBLE, standard_error_c DOUBLE,
        came_c DOUBLE)""",
    """CREATE OR REPLACE VIEW costs AS
       SELECT "at" AS began_at, pipeline, run_id, request_id, "position", work, version, seconds,
           cpu_s, joules, coalesce(mean_power_w, joules / nullif(seconds, 0)) AS mean_power_w,
           energy_source, uuid, peak_power_w, peak_temperature_c, lowest_margin_c, throttled_s,
           unread_s, deferred_s, paused_s, cap_w, guarded, work_rows, price, currency, carbon_g, pue
       FROM cost_rows""",
    """CREATE VIEW forecasts AS
       SELECT "at" AS checked_at, pipeline, run_id, "position", uuid, kind, horizon_s, foretold_c,
           standard_error_c, came_c, foretold_c - came_c AS error_c
       FROM forecast_rows""",
    """CREATE OR REPLACE VIEW runs AS
       WITH ordered AS (
           SELECT *, row_number() OVER (PARTITION BY pipeline ORDER BY "at", rowid) AS nth
           FROM run_rows),
       told AS (
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
               sum(seconds) AS seconds,
               sum(cpu_s) AS cpu_s,
               arg_max(host, nth) AS host
           FROM ordered GROUP BY pipeline, run_id),
       heavy AS (
           SELECT pipeline, run_id, sum(seconds) AS fit_s,
               CASE WHEN count(joules) = count(*) THEN sum(joules) END AS fit_joules,
               CASE WHEN count(price) = count(*) AND count(DISTINCT currency) = 1
                    THEN sum(price) END AS fit_price,
               CASE WHEN count(price) = count(*) AND count(DISTINCT currency) = 1
                    THEN min(currency) END AS currency,
               CASE WHEN count(carbon_g) = count(*) THEN sum(carbon_g) END AS fit_carbon_g
           FROM cost_rows GROUP BY pipeline, run_id),
       followed AS (
           SELECT *, last_start < max(last_start) OVER (PARTITION BY pipeline) AS outlived
           FROM told)
       SELECT f.pipeline, f.run_id, f.started_at,
           CASE WHEN f.ended THEN f.last_end END AS ended_at,
           CASE WHEN f.ended THEN f.outcome
                WHEN f.outlived THEN 'killed' ELSE 'running' END AS outcome,
           f.because, f.position_from, f.position_to, f.records, f.learned, f.rejected,
           f.seconds, f.cpu_s, h.fit_s, h.fit_joules, f.host,
           h.fit_price, h.currency, h.fit_carbon_g
       FROM followed f
       LEFT JOIN heavy h ON h.pipeline = f.pipeline AND h.run_id = f.run_id""",
)

# A position may be rejected once in every life of a pipeline: what was replayed is the newest
# reject of its position by then.
_REPLAYS = (
    """CREATE TABLE replay_rows (
        "at" TIMESTAMPTZ, pipeline VARCHAR, run_id VARCHAR, "position" BIGINT, labelled BOOLEAN)""",
    """CREATE OR REPLACE VIEW rejects AS
       WITH told AS (
           SELECT *, lead("at") OVER (
               PARTITION BY pipeline, "position" ORDER BY "at", rowid) AS next_at
           FROM reject_rows)
       SELECT t.pipeline, t."position", t.reason, t.kind, t.raw, t."at" AS rejected_at, t.run_id,
           r."at" AS replayed_at
       FROM told t
       LEFT JOIN replay_rows r ON r.pipeline = t.pipeline AND r."position" = t."position"
           AND r."at" >= t."at" AND (t.next_at IS NULL OR r."at" < t.next_at)""",
)

# A score of a range counts for the records that it was taken over: others had no label, or were
# rejected. Rows from before `scored` was kept count for their whole range, as ever.
_LABELS = (
    """ALTER TABLE run_rows ADD COLUMN unlabelled BIGINT""",
    """ALTER TABLE run_rows ADD COLUMN replayed BIGINT""",
    """ALTER TABLE score_rows ADD COLUMN scored BIGINT""",
    """CREATE OR REPLACE VIEW scores AS
       SELECT pipeline, run_id, "at" AS scored_at, position_from, position_to, member, metric,
           "value", scored
       FROM score_rows""",
    _COST_VIEWS[3].replace(
        "position_to - position_from AS n", "coalesce(scored, position_to - position_from) AS n"
    ),
    _BILLS[-1]
    .replace(
        "sum(rejected)::BIGINT AS rejected,",
        "sum(rejected)::BIGINT AS rejected,\n"
        "               sum(unlabelled)::BIGINT AS unlabelled,\n"
        "               sum(replayed)::BIGINT AS replayed,",
    )
    .replace("h.fit_carbon_g\n", "h.fit_carbon_g, f.unlabelled, f.replayed\n"),
)

MIGRATIONS = (
    Migration(1, "rows of each kind, appended only", _ROWS),
    Migration(2, "public views over the rows", _VIEWS),
    Migration(3, "what runs and fits cost, and how many commits were folded", _COSTS),
    Migration(4, "costs, killed runs, and what waiting cost, as views", _COST_VIEWS),
    Migration(5, "what a margin rests on, clocks, memory, and what could not be read", _RUNGS),
    Migration(6, "power, heat, money and grams of each job, and what forecasts came to", _BILLS),
    Migration(7, "records without a label, and those that a score was taken over", _LABELS),
    Migration(8, "rejects that were read again and fit", _REPLAYS),
)

PUBLIC_VIEWS = (
    "decisions",
    "runs",
    "requests",
    "models",
    "reigns",
    "scores",
    "predictions",
    "rejects",
    "gpu_readings",
    "costs",
    "deferrals",
    "forecasts",
)
"""What users may build on; docs/history.md describes every column."""


def pending(steps: Sequence[Migration], version: int) -> list[Migration]:
    """The steps that a history at `version` has not had yet, in order."""
    return [step for step in steps if step.number > version]


def widest(kinds: Iterable[str]) -> LabelType:
    """The one type that holds the labels of every pipeline: numbers, or else text.

    Whole numbers are BIGINT, with any fraction among them DOUBLE, with anything else VARCHAR.
    Nothing known is BIGINT, the narrowest.
    """
    seen = set(kinds)
    if seen - _WHOLE - _FRACTIONS:
        return "VARCHAR"
    return "DOUBLE" if seen & _FRACTIONS else "BIGINT"


_WHOLE = frozenset({"TINYINT", "SMALLINT", "INTEGER", "BIGINT"})
_FRACTIONS = frozenset({"FLOAT", "DOUBLE"})

LABEL_COLUMNS = ("label", "online", "batch", "baseline", "served")
_PROBABILITY_COLUMNS = ("online_probability", "batch_probability", "served_probability")
LOGGED_COLUMNS = ("position", *LABEL_COLUMNS, *_PROBABILITY_COLUMNS, "model_version")
"""What the prediction log says of a record, in order."""


def predictions_query(pattern: str | None, kind: LabelType, replaced: Sequence[str] = ()) -> str:
    """The query of the view `predictions` over the Parquet files that match `pattern`.

    Files in `replaced` are left out: others hold their rows.

    Not a step, because DuckDB freezes a view's types, and these follow the files: `kind` is the
    type of labels. The types are named here, so that DuckDB need not open every file to find them,
    and a column that a file lacks reads as NULL. Without a pattern the view is empty and typed.
    """
    kinds = {"position": "BIGINT"}
    kinds |= dict.fromkeys(LABEL_COLUMNS, kind)
    kinds |= dict.fromkeys(_PROBABILITY_COLUMNS, "DOUBLE")
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
    """The query of the view `predictions` in a lake, where it has rows, and labels as text."""
    columns = ", ".join(
        f'CAST("{name}" AS {kind}) AS "{name}"' if name in LABEL_COLUMNS else f'"{name}"'
        for name in LOGGED_COLUMNS
    )
    return f"SELECT pipeline, {columns} FROM prediction_rows"


def quoted(text: str) -> str:
    """`text` as an SQL string."""
    return "'" + text.replace("'", "''") + "'"
