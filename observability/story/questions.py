"""The SQL of the story, in one place; the page shows the very text that was asked. Pure.

Each text has the name of its pipeline in it as an SQL string, so that a reader can copy it into
`thermodrift history sql`.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import NamedTuple

from observability.history.schema import quoted

NEWEST_RECORDS = 2_000
NEWEST_RANGES = 5
"""What counts as now: the newest scored ranges, so many and of so many records at least."""
NEWEST_MINUTES = 10
"""Over the newest readings of so many minutes a device's margin is said to rise or fall."""
LISTED = 60
"""Decisions that are listed."""

LANES: Mapping[str, tuple[str, ...]] = {
    "drift": ("drift",),
    "retrain": ("worth", "retrain"),
    "gate": ("admission", "guard", "power_cap"),
    "champion": ("promotion", "candidate", "champion", "threshold"),
    "people": ("override",),
    "trouble": ("intake", "answers", "revive", "history", "warnings"),
}
"""Which questions are marks of one lane of the picture, from top to bottom."""

_OFTEN_NO = ("drift", "worth", "power_cap")
"""Questions whose "no" is the usual answer: those are counted, and no marks."""


class Axis(NamedTuple):
    """The time that is drawn, in seconds since 1970, and the number of its equal steps."""

    since_s: float
    until_s: float
    steps: int

    @property
    def step_s(self) -> float:
        """Seconds of a step."""
        return max(self.until_s - self.since_s, 1e-6) / self.steps


def span(pipeline: str) -> str:
    """The first and the last moment that the history has of a pipeline; NULL: none.

    People override the gate of the whole home, which is drawn too.
    """
    where = f"WHERE pipeline = {quoted(pipeline)}"
    return f"""
SELECT min(since) AS since, max(until) AS until
FROM (
    SELECT min(scored_at) AS since, max(scored_at) AS until FROM scores {where}
    UNION ALL
    SELECT min(decided_at), max(decided_at) FROM decisions {where} OR question = 'override'
    UNION ALL
    SELECT min(read_at), max(read_at) FROM gpu_readings {where})"""


def single(pipeline: str, metric: str) -> Mapping[str, str]:
    """The questions of the ten answers, by the name of each."""
    name, judged = quoted(pipeline), quoted(metric)
    return {
        "now": f"""
WITH ranges AS (
    SELECT *, coalesce(scored, position_to - position_from) AS n
    FROM scores
    WHERE pipeline = {name} AND metric = {judged} AND "value" IS NOT NULL
        AND NOT contains(member, ':')),
served AS (
    SELECT run_id, position_from, n, "value",
        row_number() OVER (ORDER BY scored_at DESC, position_from DESC) AS nth,
        sum(n) OVER (ORDER BY scored_at DESC, position_from DESC) - n AS later
    FROM ranges
    WHERE member = 'served'),
newest AS (
    SELECT *, true AS is_newest FROM served
    WHERE later < {NEWEST_RECORDS} OR nth <= {NEWEST_RANGES})
SELECT r.member,
    sum(r."value" * r.n) FILTER (is_newest) / nullif(sum(r.n) FILTER (is_newest), 0) AS newest,
    (sum(r.n) FILTER (is_newest))::BIGINT AS newest_records,
    stddev_samp(r."value" - s."value") FILTER (is_newest)
        / sqrt(count(*) FILTER (is_newest)) AS standard_error,
    sum(r."value" * r.n) / nullif(sum(r.n), 0) AS overall,
    sum(r.n)::BIGINT AS records,
    min(r.position_from) FILTER (is_newest) AS position_from,
    max(r.position_to) FILTER (is_newest) AS position_to,
    max(r.scored_at) AS scored_at
FROM ranges r
LEFT JOIN newest s ON s.run_id = r.run_id AND s.position_from = r.position_from
GROUP BY r.member
ORDER BY r.member""",
        "champion": f"""
SELECT p.version, p.event, p.started_at, p.serves_from, p.because, m.recipe, m."rows",
    m.train_from, m.train_to, m.stored_at, m.fit_s, m.size_bytes, m.sha256
FROM champion_periods p
LEFT JOIN models m ON m.pipeline = p.pipeline AND m.version = p.version
WHERE p.pipeline = {name} AND p.ended_at IS NULL""",
        "before": f"""
SELECT version, started_at, ended_at
FROM champion_periods
WHERE pipeline = {name} AND ended_at IS NOT NULL
ORDER BY period DESC
LIMIT 1""",
        "models": f"""
SELECT version, champion, state, recipe, "rows", train_from, train_to, stored_at, serves_from,
    size_bytes, because
FROM models
WHERE pipeline = {name}
ORDER BY stored_at DESC
LIMIT 20""",
        "request": f"""
SELECT request_id, requested_at, state, deferrals, waited_s, deadline_s, position_requested,
    requested_because, because
FROM requests
WHERE pipeline = {name} AND closed_at IS NULL
ORDER BY requested_at DESC
LIMIT 1""",
        "admission": f"""
SELECT decided_at, yes, because, facts
FROM decisions
WHERE pipeline = {name} AND question = 'admission'
ORDER BY decided_at DESC
LIMIT 1""",
        "devices": f"""
WITH newest AS (
    SELECT uuid, max(read_at) AS newest_at, arg_max(run_id, read_at) AS run_id,
        arg_max(elapsed_s, read_at) AS newest_s
    FROM gpu_readings
    WHERE pipeline = {name}
    GROUP BY uuid),
late AS (
    SELECT r.*, n.newest_s
    FROM gpu_readings r
    JOIN newest n ON n.uuid = r.uuid AND n.run_id = r.run_id
    WHERE r.pipeline = {name} AND r.elapsed_s > n.newest_s - {60 * NEWEST_MINUTES}),
slopes AS (
    SELECT uuid, regr_slope(margin_c, elapsed_s) * 60 AS margin_c_per_minute,
        count(margin_c) AS readings
    FROM late
    GROUP BY uuid),
last AS (
    SELECT uuid, read_at, source, margin_c, temperature_c, power_w, power_limit_w, unreadable
    FROM gpu_readings
    WHERE pipeline = {name}
    QUALIFY row_number() OVER (PARTITION BY uuid ORDER BY read_at DESC) = 1)
SELECT l.*, s.margin_c_per_minute, s.readings
FROM last l
LEFT JOIN slopes s ON s.uuid = l.uuid
ORDER BY l.uuid""",
        "check": f"""
SELECT decided_at, yes, because, facts, "position"
FROM decisions
WHERE pipeline = {name} AND question = 'drift'
ORDER BY decided_at DESC
LIMIT 1""",
        "alarms": f"""
WITH checks AS (
    SELECT *, max(decided_at) FILTER (NOT yes) OVER () AS calm_at
    FROM decisions
    WHERE pipeline = {name} AND question = 'drift')
SELECT count(*) AS alarms, min(decided_at) AS since, min("position") AS since_position
FROM checks
WHERE yes AND (calm_at IS NULL OR decided_at > calm_at)""",
        "change": f"""
WITH change AS (
    SELECT (facts->>'change_estimate')::BIGINT AS "position"
    FROM decisions
    WHERE pipeline = {name} AND question = 'drift'
    ORDER BY decided_at DESC
    LIMIT 1)
SELECT c."position", min(s.scored_at) AS at
FROM change c
LEFT JOIN scores s ON s.pipeline = {name} AND s.member = 'served' AND s.position_to > c."position"
GROUP BY c."position\"""",
        "retrain": f"""
WITH last AS (
    SELECT * FROM requests
    WHERE pipeline = {name} AND closed_at IS NOT NULL
    ORDER BY closed_at DESC
    LIMIT 1),
spent AS (
    SELECT request_id, sum(seconds) AS seconds, sum(cpu_s) AS cpu_s,
        CASE WHEN count(joules) = count(*) THEN sum(joules) END AS joules,
        CASE WHEN count(price) = count(*) AND count(DISTINCT currency) = 1
            THEN sum(price) END AS price,
        min(currency) AS currency,
        CASE WHEN count(carbon_g) = count(*) THEN sum(carbon_g) END AS carbon_g
    FROM costs
    WHERE pipeline = {name}
    GROUP BY request_id)
SELECT l.request_id, l.state, l.closed_at, l.requested_because, l.because, c.seconds, c.cpu_s,
    c.joules, c.price, c.currency, c.carbon_g, e.version, e.replaced, e.metric, e.expected_gain,
    e.compared_gain, e.followed_gain, e.followed_records, e.realised_gain
FROM last l
LEFT JOIN spent c ON c.request_id = l.request_id
LEFT JOIN expectations e ON e.pipeline = l.pipeline AND e.request_id = l.request_id""",
        "retrains": f"""
SELECT r.state, count(DISTINCT r.request_id) AS requests, sum(c.seconds) AS seconds,
    sum(c.joules) AS known_joules,
    count(c.seconds) - count(c.joules) AS unknown_energy, sum(c.price) AS known_price,
    any_value(c.currency) AS currency
FROM requests r
LEFT JOIN costs c ON c.pipeline = r.pipeline AND c.request_id = r.request_id
WHERE r.pipeline = {name}
GROUP BY r.state
ORDER BY r.state""",
        "waits": f"""
SELECT count(*) AS waits, sum(deferrals)::BIGINT AS deferrals, sum(deferred_s) AS deferred_s,
    max(deferred_s) AS longest_s, sum(records_deferred)::BIGINT AS records,
    any_value(metric) AS metric, sum(lost) AS lost,
    count(*) FILTER (lost IS NULL) AS unknown
FROM deferrals
WHERE pipeline = {name}""",
        "fresh": f"""
SELECT (SELECT max(scored_at) FROM scores WHERE pipeline = {name}) AS scored_at,
    (SELECT max(read_at) FROM gpu_readings WHERE pipeline = {name}) AS read_at,
    (SELECT max(decided_at) FROM decisions WHERE pipeline = {name}) AS decided_at""",
        "run": f"""
SELECT run_id, host, started_at, ended_at, outcome, because, records, unlabelled, rejected,
    records / nullif(seconds, 0) AS records_per_s
FROM runs
WHERE pipeline = {name}
ORDER BY started_at DESC
LIMIT 1""",
        "people": f"""
SELECT decided_at, question, yes, because
FROM decisions
WHERE question = 'override' OR (pipeline = {name} AND question = 'champion')
UNION ALL
SELECT started_at, 'model', true, version || ': ' || because
FROM champion_periods
WHERE pipeline = {name} AND contains(because, 'by hand')
ORDER BY decided_at DESC
LIMIT 10""",
        "trouble": f"""
SELECT question, count(*) AS times, max(decided_at) AS last_at,
    arg_max(because, decided_at) AS because, arg_max(yes, decided_at) AS yes
FROM decisions
WHERE pipeline IN ({name}, '') AND question IN ('intake', 'answers', 'history', 'retrain', 'guard')
    AND NOT yes
GROUP BY question
ORDER BY last_at DESC""",
        "counts": f"""
SELECT question, count(*) FILTER (yes) AS yes, count(*) FILTER (NOT yes) AS "no",
    max(decided_at) AS last_at, arg_max(because, decided_at) AS because
FROM decisions
WHERE pipeline = {name}
GROUP BY question
ORDER BY question""",
        "holdout": f"""
WITH last AS (
    SELECT arg_max(run_id, scored_at) AS run_id, arg_max(position_to, scored_at) AS position_to
    FROM scores
    WHERE pipeline = {name} AND member = 'holdout:challenger')
SELECT s.metric,
    any_value(s."value") FILTER (s.member = 'holdout:challenger') AS challenger,
    any_value(s."value") FILTER (s.member = 'holdout:champion') AS champion,
    any_value(s."value") FILTER (s.member = 'holdout:baseline') AS baseline
FROM scores s
JOIN last l ON s.run_id = l.run_id AND s.position_to = l.position_to
WHERE s.pipeline = {name} AND starts_with(s.member, 'holdout:')
GROUP BY s.metric
ORDER BY s.metric""",
    }


def score_line(pipeline: str, metric: str, axis: Axis) -> str:
    """Of each member the least, the mean and the greatest score of every step of the axis."""
    return f"""
SELECT member AS line, count(*) AS "values", avg(epoch(scored_at)) AS at_s,
    min("value") AS low, sum("value" * n) / sum(n) AS mean, max("value") AS high
FROM (
    SELECT *, greatest(coalesce(scored, position_to - position_from), 1) AS n
    FROM scores
    WHERE pipeline = {quoted(pipeline)} AND metric = {quoted(metric)} AND "value" IS NOT NULL
        AND member IN ('served', 'online', 'batch', 'baseline'))
WHERE {_within("scored_at", axis)}
GROUP BY member, {_step("scored_at", axis)}
ORDER BY member, at_s"""


def margin_line(pipeline: str, axis: Axis) -> str:
    """Of each device the least, the mean and the greatest margin of every step of the axis."""
    return f"""
SELECT uuid AS line, count(*) AS "values", avg(epoch(read_at)) AS at_s,
    min(margin_c) AS low, avg(margin_c) AS mean, max(margin_c) AS high
FROM gpu_readings
WHERE pipeline = {quoted(pipeline)} AND margin_c IS NOT NULL AND {_within("read_at", axis)}
GROUP BY uuid, {_step("read_at", axis)}
ORDER BY uuid, at_s"""


def marks(pipeline: str, axis: Axis) -> str:
    """The decisions of every step of the axis: of each question and answer the newest, counted."""
    return f"""
SELECT question, yes, count(*) AS times, max(decided_at) AS decided_at,
    arg_max(because, decided_at) AS because, arg_max("position", decided_at) AS "position"
FROM decisions
WHERE {_marked(pipeline)} AND {_within("decided_at", axis)}
GROUP BY question, yes, {_step("decided_at", axis)}
ORDER BY decided_at"""


def newest(pipeline: str) -> str:
    """The newest decisions that are marks."""
    return f"""
SELECT decided_at, question, yes, because, "position"
FROM decisions
WHERE {_marked(pipeline)}
ORDER BY decided_at DESC
LIMIT {LISTED}"""


def decision(pipeline: str, question: str, decided_at: datetime) -> str:
    """One decision with its facts; two of one moment are two rows."""
    return f"""
SELECT decided_at, pipeline, run_id, question, yes, because, facts, "position"
FROM decisions
WHERE pipeline IN ({quoted(pipeline)}, '') AND question = {quoted(question)}
    AND decided_at = TIMESTAMPTZ {quoted(decided_at.isoformat())}"""


def _marked(pipeline: str) -> str:
    """The condition that a decision is a mark of the pipeline, or of the whole home."""
    every = ", ".join(quoted(each) for lane in LANES.values() for each in lane)
    often = ", ".join(map(quoted, _OFTEN_NO))
    return (
        f"pipeline IN ({quoted(pipeline)}, '') AND question IN ({every})\n"
        f"    AND (yes OR question NOT IN ({often}))"
    )


def _within(column: str, axis: Axis) -> str:
    """The condition that a moment is drawn; the axis ends with the last moment itself."""
    return f"epoch({column}) BETWEEN {axis.since_s!r} AND {axis.until_s!r}"


def _step(column: str, axis: Axis) -> str:
    """The number of the step that a moment lies in."""
    return f"least(floor((epoch({column}) - {axis.since_s!r}) / {axis.step_s!r}), {axis.steps - 1})"
