"""The first nine questions about a pipeline, answered from its past and its present. Pure.

Each answer is a sentence with its numbers and the SQL that they come from; what is unknown is said.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from observability.drift import drift
from observability.story.past import Past, Row
from observability.story.values import Answer, Live, State, Value, worst
from observability.story.words import ago, counted, length, moment, number, since

STANDARD_ERRORS = 2.0
"""A difference of so many standard errors is one."""
STEADY = 0.05
"""A margin that goes by less, in °C a minute, is steady."""
SOON_MINUTES = 10.0
"""A margin that is used up within so many minutes is worth a look."""
STALE_S = 600.0
"""A learner that runs, and devices that are read while it does, are older than this for a cause."""
OLD_LABELS_S = 86_400.0
"""Predictions that have waited for a label for longer are named."""


def good(past: Past, live: Live) -> Answer:
    """Is what is served better than no change?"""
    question = "Is what we serve good now?"
    rows = {row["member"]: row for row in past.rows.get("now", ())}
    served, baseline = rows.get("served", {}), rows.get("baseline", {})
    numbers: dict[str, Value] = {"metric": past.metric}
    for member in ("served", "baseline", "online", "batch", "median"):
        if member in rows:
            numbers[f"{member}, newest"] = rows[member]["newest"]
            numbers[f"{member}, over all"] = rows[member]["overall"]
    sql = past.sql.get("now", "")
    new, base = served.get("newest"), baseline.get("newest")
    if new is None or base is None:
        told = "Nothing that was served has been scored yet."
        return Answer("good", question, "unknown", "Not known", told, numbers, sql)
    better = (new - base) * (1 if live.larger_is_better else -1)
    error = baseline["standard_error"]
    numbers |= {
        "better than the baseline by": better,
        "standard error": error,
        "newest records": served["newest_records"],
        "position from": served["position_from"],
        "position to": served["position_to"],
    }
    doubt = STANDARD_ERRORS * error if error is not None else 0.0
    state: State = "good" if better > doubt else "act" if better < -doubt else "watch"
    side = "better" if better >= 0 else "worse"
    short = {
        "good": "Yes, better than no change",
        "watch": "No better than no change",
        "act": "No, worse than no change",
    }[state]
    sure = "" if error is None else f" (standard error {number(error)})"
    told = (
        f"{past.metric} {number(new)} over the newest "
        f"{counted(served['newest_records'], 'record')}, the baseline's {number(base)}: "
        f"{side} by {number(abs(better))}{sure}."
    )
    return Answer("good", question, state, short, told, numbers, sql)


def serves(past: Past, live: Live, now: datetime) -> Answer:
    """What serves, since when, and what was it trained on?"""
    question, sql = "What serves, since when, trained on what?", past.sql.get("champion", "")
    champion = past.first("champion")
    numbers: dict[str, Value] = {"position": live.position}
    trouble = "" if live.serves is None else str(live.serves.get("trouble") or "")
    state: State = "good"
    if champion is None:
        short, state = "No batch model yet", "watch"
        told = "The online members and the baseline serve."
    else:
        numbers |= {
            name: champion[name]
            for name in (
                *("version", "recipe", "started_at", "serves_from", "rows", "train_from"),
                *("train_to", "stored_at", "fit_s", "size_bytes", "sha256"),
            )
        }
        told = (
            f"Trained on {number(champion['rows'])} rows, positions "
            f"{number(champion['train_from'])} to {number(champion['train_to'])}, as "
            f"{champion['recipe'] or 'an unknown recipe'}. It serves in a blend with the online "
            f"members {since(champion['started_at'], now)}, from position "
            f"{number(champion['serves_from'])} on."
        )
        since_s = (now - champion["started_at"]).total_seconds()
        short = f"{champion['version']}, for {length(since_s)}"
    if trouble:
        told, state = f"{told} Newer files do not serve: {trouble}", "act"
    return Answer("serves", question, state, short, told, numbers, sql)


def retrain_waits(past: Past, live: Live, now: datetime) -> Answer:
    """Is a retrain waiting, why, and until when?"""
    question, sql = "Is a retrain waiting, why, until when?", past.sql.get("request", "")
    if live.candidate is not None:
        version, position = live.candidate["version"], number(live.candidate["since"])
        short = "A version waits for a person's word"
        told = f"Version {version} has won. It waits since position {position}."
        return Answer("waiting", question, "act", short, told, dict(live.candidate), sql)
    request = past.first("request")
    if request is None:
        return Answer("waiting", question, "good", "No", "No retrain is open.", {}, sql)
    numbers = dict(request)
    until = f"{length(request['deadline_s'])} after the request"
    if live.reads_from == "trace" or request["deadline_s"] is None:
        until += f" on the gate's clock, of which {length(request['waited_s'])} are over"
    else:
        ends = request["requested_at"] + timedelta(seconds=request["deadline_s"])
        numbers["until"] = ends
        until = ago(ends, now)
    short = f"Yes, for {length((now - request['requested_at']).total_seconds())}"
    told = (
        f"It waits {since(request['requested_at'], now)}: {request['requested_because']}. It is "
        f"{request['state']}, after {counted(request['deferrals'], 'deferral')}: "
        f"{request['because']}. Until: {until}."
    )
    return Answer("waiting", question, "watch", short, told, numbers, sql)


def devices(past: Past, now: datetime) -> Answer:
    """What margin has each device, and where does it go?"""
    question, sql = "What margin has each device, where does it go?", past.sql.get("devices", "")
    rows = past.rows.get("devices", ())
    if not rows:
        none = "No device was read for this pipeline."
        return Answer("devices", question, "unknown", "Not known", none, {}, sql)
    admission = past.first("admission")
    pause = None if admission is None else admission["facts"].get("gate_pause_margin_c")
    numbers: dict[str, Value] = {"pause margin, °C": pause}
    told = [_device(row, pause, now) for row in rows]
    for row in rows:
        for name, unit in (("margin_c", "°C"), ("temperature_c", "°C"), ("power_w", "W")):
            numbers[f"{row['uuid']}: {name[: name.rindex('_')]}, {unit}"] = row[name]
        numbers[f"{row['uuid']}: margin, °C per minute"] = row["margin_c_per_minute"]
    state = worst(state for _, state in told)
    known = [row for row in rows if row["margin_c"] is not None]
    short = "Not known"
    if known:
        least = min(known, key=lambda row: row["margin_c"])
        short = f"{number(least['margin_c'])} °C, {_way(least['margin_c_per_minute'])}"
        if len(rows) > 1:
            short += f": the least of {len(rows)} devices"
    sentence = " ".join(each for each, _ in told)
    return Answer("devices", question, state, short, sentence, numbers, sql)


def _device(row: Row, pause: float | None, now: datetime) -> tuple[str, State]:
    """What is said of one device, and how it is."""
    name, when = row["uuid"], ago(row["read_at"], now)
    if row["unreadable"] is not None:
        return f"{name} could not be read: {row['unreadable']}; asked {when}.", "act"
    margin, slope = row["margin_c"], row["margin_c_per_minute"]
    if margin is None:
        return f"{name}: its margin is unknown; read {when}.", "unknown"
    told = f"{number(margin)} °C"
    if row["temperature_c"] is not None:
        told += f" at {number(row['temperature_c'])} °C"
    state: State = "act" if pause is not None and margin <= pause else "good"
    told += f", {_way(slope)}"
    if slope is not None and abs(slope) >= STEADY:
        told += f" by {number(abs(slope))} °C a minute"
        if slope < 0 and pause is not None and margin > pause:
            minutes = (margin - pause) / -slope
            told += f": the pause margin of {number(pause)} °C in {length(60 * minutes)}"
            state = "watch" if minutes <= SOON_MINUTES else state
    return f"{told}; read {when}: {name}.", state


def _way(slope: float | None) -> str:
    """Where a margin goes, by its °C a minute."""
    if slope is None:
        return "where it goes is unknown"
    if abs(slope) < STEADY:
        return "steady"
    return "rising" if slope > 0 else "falling"


def world(past: Past, now: datetime) -> Answer:
    """Has the data changed, in which columns, since when?"""
    question, sql = (
        "Has the world changed, in which columns, since when?",
        past.sql.get("check", ""),
    )
    check = past.first("check")
    if check is None:
        told = "There was no drift check yet."
        return Answer("world", question, "unknown", "Not known", told, {}, sql)
    facts, at = check["facts"], ago(check["decided_at"], now)
    outcome = facts.get("outcome")
    numbers: dict[str, Value] = {
        name: facts.get(name) for name in ("outcome", "nature", "kinds", "change_estimate")
    }
    if not check["yes"]:
        calm = outcome == "no_drift"
        state: State = "good" if calm else "unknown"
        told = f"The last check was {at}: {check['because']}."
        return Answer("world", question, state, "No" if calm else "Not known", told, numbers, sql)
    columns = drifted(facts)
    for name in columns or ():
        numbers[f"{name}: score"] = facts.get(f"feature:{name}")
        numbers[f"{name}: threshold"] = facts.get(f"threshold:{name}")
    streak, change = past.first("alarms") or {}, past.first("change") or {}
    numbers |= {"alarms in a row": streak.get("alarms"), "since": streak.get("since")}
    told = f"{counted(streak.get('alarms') or 1, 'alarm')} in a row "
    told += f"{since(streak.get('since'), now)}, the last {at}."
    short = "Yes" if not columns else f"Yes, {', '.join(columns[:2])}"
    short += f" and {len(columns) - 2} more" if columns and len(columns) > 2 else ""
    if columns:
        told += f" Columns: {', '.join(columns)}."
    elif columns is None or facts.get("features_drifted"):
        told += f" Columns: {check['because']}."
    if change.get("position") is not None:
        began = f"{number(change['position'])}, {moment(change['at'])}"
        told += f" The newest change began about position {began}."
    told += {
        "real": " Errors rose with it.",
        "outgrown": " Only another member is better now.",
        "virtual": " No error rose with it.",
    }.get(str(facts.get("nature")), "")
    state = "act" if outcome == "contract_broken" else "watch"
    return Answer("world", question, state, short, told, numbers, sql)


def drifted(facts: Mapping[str, Any]) -> list[str] | None:
    """The features beyond their thresholds, by the facts of a drift decision; farthest first.

    None where the facts do not tell: numbers and categories were tested in different directions.
    """
    larger = {
        drift.LARGER_IS_DRIFT.get(str(facts.get(f"{kind}_method")))
        for kind in ("number", "category")
    }
    if len(larger) != 1 or None in larger:
        return None
    larger_is_drift = larger.pop()
    found: list[tuple[float, str]] = []
    for key, score in facts.items():
        name = key.removeprefix("feature:")
        threshold = facts.get(f"threshold:{name}")
        if name == key or score is None or threshold is None:
            continue
        over, under = (score, threshold) if larger_is_drift else (threshold, score)
        if over >= under:
            found.append((over / under if under > 0 else float("inf"), name))
    return [name for _, name in sorted(found, key=lambda each: (-each[0], each[1]))]


def last_retrain(past: Past, now: datetime) -> Answer:
    """Did the last retrain help, and what did it cost?"""
    question, sql = "Did the last retrain help, what did it cost?", past.sql.get("retrain", "")
    last = past.first("retrain")
    if last is None:
        return Answer("retrain", question, "unknown", "None yet", "No retrain has ended.", {}, sql)
    gain = last["realised_gain"]
    state: State = "unknown" if gain is None else "good" if gain > 0 else "watch"
    if last["state"] in ("no_model", "skipped", "rejected"):
        state = "watch"
    short = {"unknown": "Not known", "good": "It helped", "watch": "It did not help"}[state]
    if last["seconds"] is not None:
        short += f", for {length(last['seconds'])} of work"
    told = f"{last['state'].replace('_', ' ').capitalize()} {ago(last['closed_at'], now)}"
    if gain is not None:
        over = (
            f"over {counted(last['followed_records'], 'record')} since"
            if last["followed_gain"] is not None
            else "on its hold-out"
        )
        told += f", saving {number(gain)} of the baseline's loss per record {over}"
        if last["expected_gain"] is not None:
            told += f" ({number(last['expected_gain'])} was expected)"
    told += f": {last['because']}. {_cost(last)}"
    return Answer("retrain", question, state, short, told, dict(last), sql)


def _cost(last: Row) -> str:
    """What a retrain cost, in a sentence."""
    if last["seconds"] is None:
        return "It cost no fit." if last["state"] == "reused" else "What it cost is unknown."
    joules = "its energy is unknown" if last["joules"] is None else f"{number(last['joules'])} J"
    told = f"It took {length(last['seconds'])} of work; {joules}"
    if last["price"] is not None:
        told += f", {number(last['price'])} {last['currency'] or ''}".rstrip()
    if last["carbon_g"] is not None:
        told += f", {number(last['carbon_g'])} g of CO2"
    return f"{told}."


def waiting(past: Past) -> Answer:
    """What did waiting for cool devices cost?"""
    question, sql = "What did waiting cost?", past.sql.get("waits", "")
    row = past.first("waits") or {}
    if not row.get("waits"):
        return Answer(
            "waits", question, "good", "Nothing", "No retrain has waited.", dict(row), sql
        )
    what = "right answers" if row["metric"] == "accuracy" else "of absolute error"
    lost = row["lost"]
    deferrals, records = counted(row["deferrals"], "deferral"), counted(row["records"], "record")
    told = (
        f"{counted(row['waits'], 'retrain')} waited, through {deferrals}, "
        f"{length(row['deferred_s'])} and {records} in all. "
    )
    unknown = "" if not row["unknown"] else f" (unknown of {number(row['unknown'])} of them)"
    if lost is None:
        told += "What that cost is unknown: there was no champion to compare with."
        return Answer("waits", question, "unknown", "Not known", told, dict(row), sql)
    told += f"By estimate it cost {number(lost)} {what}{unknown}."
    state: State = "watch" if lost > 0 else "good"
    return Answer("waits", question, state, f"{number(lost)} {what}", told, dict(row), sql)


def stale(past: Past, live: Live, now: datetime) -> Answer:
    """Is anything stale: the learner, readings, labels, this page?"""
    question, sql = "Is anything stale?", past.sql.get("fresh", "")
    fresh, run = past.first("fresh") or {}, past.first("run") or {}
    numbers: dict[str, Value] = {
        "checkpoint": live.at,
        **fresh,
        "history read": past.told_at,
        "commits that wait": live.waiting_commits,
    }
    told = [_learner(live, run, now)]
    if fresh.get("read_at") is not None:
        old = live.state == "running" and (now - fresh["read_at"]).total_seconds() > STALE_S
        told.append(
            (f"Devices were read {ago(fresh['read_at'], now)}.", "watch" if old else "good")
        )
    if live.labels is not None:
        told.append(_labels(live.labels, now))
        numbers |= {f"labels: {name}": value for name, value in live.labels.items()}
    if live.stale_because:
        age = ago(past.told_at, now)
        told.append((f"This page is as of {age}: {live.stale_because}.", "watch"))
    elif live.waiting_commits:
        waits = counted(live.waiting_commits, "commit")
        told.append((f"{waits} came since the history was read.", "good"))
    state = worst(state for _, state in told)
    short = {"good": "No", "watch": "Yes", "act": "Yes"}.get(state, "Not known")
    if live.state == "resting" and state == "watch":
        short = "The learner rests"
    return Answer("stale", question, state, short, " ".join(each for each, _ in told), numbers, sql)


def _learner(live: Live, run: Row, now: datetime) -> tuple[str, State]:
    """How old the learner is, and how its run ended."""
    if live.state == "unreadable":
        return f"The checkpoint cannot be read: {live.because}.", "act"
    if live.state == "not begun" or live.at is None:
        return "The learner has not begun: there is no checkpoint.", "act"
    at = ago(live.at, now)
    told = f"The learner is at position {number(live.position)}, {at}"
    if live.state == "running":
        late = (now - live.at).total_seconds() > STALE_S
        return f"{told}, and runs.", "watch" if late else "good"
    outcome, because = run.get("outcome"), run.get("because")
    if outcome in ("crashed", "running", "failed", "schema_mismatch"):
        ended = "was killed" if outcome in ("crashed", "running") else f"ended: {outcome}"
        return f"{told}, and does not run: its last run {ended} ({because or 'no cause'}).", "act"
    return f"{told}, and rests: its last run {outcome} ({because}).", "watch"


def _labels(labels: Mapping[str, Any], now: datetime) -> tuple[str, State]:
    """How many predictions of the service wait for labels, and since when."""
    oldest = labels.get("oldest_at")
    if labels.get("problem"):
        return f"Labels: {labels['problem']}.", "watch"
    if not labels.get("waiting"):
        return "No prediction waits for a label.", "good"
    old = oldest is not None and (now - oldest).total_seconds() > OLD_LABELS_S
    told = f"{counted(labels['waiting'], 'prediction')} wait for a label, the oldest "
    return f"{told}{since(oldest, now)}.", "watch" if old else "good"


def people(past: Past, live: Live, now: datetime) -> Answer:
    """What did a person override, and until when?"""
    question, sql = "What did a person override, until when?", past.sql.get("people", "")
    rows = past.rows.get("people", ())
    numbers: dict[str, Value] = {f"{moment(row['decided_at'])}": row["because"] for row in rows}
    before = (
        f" Before that: {rows[0]['because']} ({moment(rows[0]['decided_at'])})." if rows else ""
    )
    if live.override_problem:
        return Answer("people", question, "act", "Not known", live.override_problem, numbers, sql)
    if live.override is None:
        told = f"No override is in force.{before.replace('Before that', 'Last')}"
        return Answer("people", question, "good", "Nothing", told, numbers, sql)
    override = live.override
    left_s = (override["until"] - now).total_seconds()
    short = f"The gate is {override['answer']}, for {length(left_s)} more"
    told = (
        f"Because: {override['because']}. The gate is {override['answer']} until "
        f"{moment(override['until'])}."
    )
    numbers = {**override, **numbers}
    return Answer("people", question, "watch", short, told, numbers, sql)
