"""The ten answers: each state has its facts, and what is unknown is said."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

import pytest

from observability.story import answers, story
from observability.story.past import Past
from observability.story.values import Answer, Live, State
from tests.observability.history.makers import at

NOW = at(3600)


def make_past(**rows: Mapping[str, Any] | Sequence[Mapping[str, Any]]) -> Past:
    """A past with these rows, by the name of their question."""
    listed = {name: [each] if isinstance(each, Mapping) else each for name, each in rows.items()}
    return Past("elec2", "brier", NOW, "all", None, None, listed, {"now": "SELECT 1"})


def make_live(**changed: Any) -> Live:
    """A pipeline that runs and is up to date."""
    fields: dict[str, Any] = {
        "home": "/srv/home",
        "file": "/srv/elec2.toml",
        "state": "running",
        "metric": "brier",
        "larger_is_better": False,
        "position": 5_000,
        "at": NOW - timedelta(seconds=5),
    }
    return Live(**(fields | changed))


def tell(past: Past, **live: Any) -> dict[str, Answer]:
    """The ten answers by key."""
    return {each.key: each for each in story.tell(past, make_live(**live), NOW).answers}


def scored(member: str, newest: float | None, error: float = 0.01) -> dict[str, Any]:
    """What a member scored."""
    return {
        "member": member,
        "newest": newest,
        "overall": newest,
        "newest_records": 2_000,
        "standard_error": error,
        "position_from": 3_000,
        "position_to": 5_000,
    }


@pytest.mark.parametrize(
    ("served", "larger", "state", "short"),
    [
        (0.10, False, "good", "Yes, better than no change"),
        (0.29, False, "watch", "No better than no change"),
        (0.40, False, "act", "No, worse than no change"),
        (0.40, True, "good", "Yes, better than no change"),
        (None, False, "unknown", "Not known"),
    ],
)
def test_good_is_better_than_the_baseline_by_two_standard_errors(
    served: float | None, larger: bool, state: State, short: str
) -> None:
    """A difference within the noise is none, and a metric has its own direction."""
    past = make_past(now=[scored("served", served), scored("baseline", 0.30)])
    found = tell(past, larger_is_better=larger)["good"]
    assert (state, short, "SELECT 1") == (found.state, found.short, found.sql)


def test_nothing_that_is_unknown_reads_as_good() -> None:
    """An empty home says so in every answer that needs rows, and what to begin with."""
    found = tell(make_past(), state="not begun", at=None, position=None)
    states = {key: each.state for key, each in found.items()}
    assert {"good": "unknown", "devices": "unknown", "world": "unknown", "retrain": "unknown"} == {
        key: state for key, state in states.items() if state == "unknown"
    }
    assert ("act", "watch") == (states["stale"], states["serves"])
    assert ("thermodrift --home /srv/home run /srv/elec2.toml",) == found["advice"].commands


CHAMPION = {
    "version": "v1",
    "recipe": "linear",
    "started_at": at(0),
    "serves_from": 1_000,
    "rows": 800,
    "train_from": 0,
    "train_to": 1_000,
    "stored_at": at(0),
    "fit_s": 1.0,
    "size_bytes": 10,
    "sha256": "ab",
}


def test_what_serves_names_its_rows_and_since_when() -> None:
    """A version, its age, and the positions that it was trained on."""
    found = tell(make_past(champion=CHAMPION))["serves"]
    assert ("good", "v1, for 60 min") == (found.state, found.short)
    assert "Trained on 800 rows, positions 0 to 1,000, as linear" in found.sentence


def test_a_model_that_cannot_be_loaded_wants_something_done() -> None:
    """The service goes on with the old one, and the page says that it does."""
    found = tell(make_past(champion=CHAMPION), serves={"trouble": "key is gone"})
    assert "act" == found["serves"].state
    assert "key is gone" in found["serves"].sentence
    assert "thermodrift --home /srv/home models verify elec2" in found["advice"].commands


REQUEST = {
    "request_id": "one",
    "requested_at": at(3000),
    "state": "deferred",
    "deferrals": 2,
    "waited_s": 500.0,
    "deadline_s": 1200.0,
    "requested_because": "errors rose",
    "because": "GPU-0 is too warm",
}


def test_a_waiting_retrain_says_why_and_until_when() -> None:
    """By the clock of the wall, or that of a recorded trace."""
    live = tell(make_past(request=REQUEST))["waiting"]
    assert ("watch", "Yes, for 10 min", at(4200)) == (
        live.state,
        live.short,
        live.numbers["until"],
    )
    assert "GPU-0 is too warm" in live.sentence
    traced = tell(make_past(request=REQUEST), reads_from="trace")["waiting"]
    assert "20 min after the request on the gate's clock, of which 8 min" in traced.sentence


def test_a_candidate_waits_for_a_person_and_the_command_lets_it_serve() -> None:
    """It is the first thing to do."""
    found = tell(make_past(), candidate={"version": "v2", "since": 4_000, "gain": 0.1})
    assert "act" == found["waiting"].state
    assert "models promote elec2 v2" in found["advice"].commands[0]


def device(**changed: Any) -> dict[str, Any]:
    """A device with headroom that was read a minute ago."""
    fields: dict[str, Any] = {
        "uuid": "GPU-0",
        "read_at": NOW - timedelta(minutes=1),
        "margin_c": 30.0,
        "temperature_c": 60.0,
        "power_w": 300.0,
        "unreadable": None,
        "margin_c_per_minute": 0.0,
    }
    return fields | changed


@pytest.mark.parametrize(
    ("changed", "state", "told"),
    [
        ({}, "good", "30 °C at 60 °C, steady"),
        ({"margin_c_per_minute": -4.0}, "watch", "falling by 4 °C a minute: the pause margin"),
        ({"margin_c_per_minute": -0.1}, "good", "falling"),
        ({"margin_c_per_minute": 1.5}, "good", "rising by 1.5 °C a minute"),
        ({"margin_c_per_minute": None}, "good", "where it goes is unknown"),
        ({"margin_c": 10.0}, "act", "10 °C at"),
        ({"margin_c": None}, "unknown", "its margin is unknown"),
        ({"unreadable": "lost"}, "act", "could not be read: lost"),
    ],
)
def test_a_device_says_its_margin_and_where_it_goes(
    changed: dict[str, Any], state: State, told: str
) -> None:
    """Used up within ten minutes is worth a look; at the pause margin, or unread, is more."""
    admission = {"facts": {"gate_pause_margin_c": 10.0}}
    found = tell(make_past(devices=device(**changed), admission=admission))["devices"]
    assert state == found.state
    assert told in found.sentence


def test_of_several_devices_the_worst_counts() -> None:
    """The least margin is in the short answer."""
    rows = [device(), device(uuid="GPU-1", unreadable="lost"), device(uuid="GPU-2", margin_c=12.0)]
    found = tell(make_past(devices=rows))["devices"]
    assert ("act", "12 °C, steady: the least of 3 devices") == (found.state, found.short)


FACTS = {
    "outcome": "drift_detected",
    "nature": "real",
    "number_method": "wasserstein",
    "category_method": "jensenshannon",
    "feature:price": 0.6,
    "threshold:price": 0.2,
    "feature:load": 0.9,
    "threshold:load": 0.1,
    "feature:calm": 0.05,
    "threshold:calm": 0.1,
    "feature:unknown": None,
    "threshold:unknown": 0.1,
    "features_drifted": 2,
}


def test_drifted_columns_come_the_farthest_first() -> None:
    """A distance is drift from its threshold on, a p-value up to it."""
    assert ["load", "price"] == answers.drifted(FACTS)
    p_values = FACTS | {"number_method": "ks", "category_method": "chisquare"}
    assert ["calm"] == answers.drifted(p_values)


def test_columns_are_not_guessed_where_methods_point_in_two_directions() -> None:
    """The facts do not say which column is a number."""
    assert answers.drifted(FACTS | {"category_method": "chisquare"}) is None
    assert answers.drifted({}) is None


def test_a_changed_world_says_in_which_columns_and_since_when() -> None:
    """The streak of alarms begins after the last check without one."""
    check = {"decided_at": at(3500), "yes": True, "because": "2 of 4", "facts": FACTS}
    found = tell(
        make_past(
            check=check,
            alarms={"alarms": 3, "since": at(3000), "since_position": 2_000},
            change={"position": 1_900, "at": at(2990)},
        )
    )["world"]
    assert ("watch", "Yes, load, price") == (found.state, found.short)
    assert "3 alarms in a row for 10 min (since 2026-03-01 12:50:00 UTC)" in found.sentence
    assert "about position 1,900" in found.sentence


@pytest.mark.parametrize(
    ("outcome", "state"), [("no_drift", "good"), ("not_enough_data", "unknown")]
)
def test_no_alarm_is_not_always_no_drift(outcome: str, state: State) -> None:
    """Too little data is no all-clear."""
    check = {"decided_at": at(9), "yes": False, "because": "x", "facts": {"outcome": outcome}}
    assert state == tell(make_past(check=check))["world"].state


RETRAIN = {
    "state": "promoted",
    "closed_at": at(3000),
    "because": "better",
    "seconds": 2.0,
    "joules": None,
    "price": None,
    "currency": None,
    "carbon_g": None,
    "realised_gain": 0.1,
    "expected_gain": 0.2,
    "followed_gain": None,
    "followed_records": None,
}


@pytest.mark.parametrize(
    ("changed", "state", "told"),
    [
        ({}, "good", "saving 0.1 of the baseline's loss per record on its hold-out (0.2 was"),
        ({}, "good", "its energy is unknown"),
        ({"joules": 3e5, "price": 0.02, "currency": "EUR"}, "good", "300,000 J, 0.02 EUR"),
        ({"followed_gain": 0.1, "followed_records": 400}, "good", "over 400 records since"),
        ({"realised_gain": -0.1}, "watch", "saving -0.1"),
        ({"realised_gain": None}, "unknown", "Promoted"),
        ({"state": "rejected", "realised_gain": 0.0}, "watch", "Rejected"),
        ({"state": "reused", "seconds": None}, "good", "It cost no fit."),
        ({"state": "no_model", "realised_gain": None, "seconds": None}, "watch", "is unknown"),
    ],
)
def test_a_retrain_helped_by_what_came_of_it(
    changed: dict[str, Any], state: State, told: str
) -> None:
    """What it saved, against what was expected, and its cost; unknown is not nothing."""
    found = tell(make_past(retrain=RETRAIN | changed))["retrain"]
    assert state == found.state
    assert told in found.sentence


WAITS = {
    "waits": 2,
    "deferrals": 5,
    "deferred_s": 600.0,
    "records": 3_000,
    "metric": "accuracy",
    "lost": 12.5,
    "unknown": 1,
}


@pytest.mark.parametrize(
    ("changed", "state", "short"),
    [
        ({}, "watch", "12.5 right answers"),
        ({"metric": "mae"}, "watch", "12.5 of absolute error"),
        ({"lost": 0.0}, "good", "0 right answers"),
        ({"lost": None}, "unknown", "Not known"),
        ({"waits": 0}, "good", "Nothing"),
    ],
)
def test_waiting_costs_what_the_comparison_found(
    changed: dict[str, Any], state: State, short: str
) -> None:
    """An unknown part is named."""
    found = tell(make_past(waits=WAITS | changed))["waits"]
    assert (state, short) == (found.state, found.short)


def test_what_is_unknown_of_the_cost_of_waiting_is_named() -> None:
    """A sum over a part must not read as the whole."""
    found = tell(make_past(waits=WAITS))["waits"]
    assert "12.5 right answers (unknown of 1 of them)" in found.sentence


@pytest.mark.parametrize(
    ("live", "run", "state", "told"),
    [
        ({}, {}, "good", "and runs"),
        ({"at": NOW - timedelta(hours=1)}, {}, "watch", "and runs"),
        ({"state": "resting"}, {"outcome": "finished", "because": "the end"}, "watch", "the end"),
        ({"state": "resting"}, {"outcome": "running"}, "act", "was killed"),
        ({"state": "resting"}, {"outcome": "failed", "because": "disk"}, "act", "disk"),
        ({"state": "unreadable", "because": "cut"}, {}, "act", "cut"),
        ({"stale_because": "process 7 has it"}, {}, "watch", "process 7 has it"),
        ({"waiting_commits": 2}, {}, "good", "2 commits came since"),
        ({"labels": {"waiting": 0}}, {}, "good", "No prediction waits"),
        ({"labels": {"waiting": 4, "oldest_at": at(0)}}, {}, "good", "4 predictions wait"),
        ({"labels": {"waiting": 4, "oldest_at": at(-90_000)}}, {}, "watch", "4 predictions"),
        ({"labels": {"problem": "it is locked"}}, {}, "watch", "it is locked"),
    ],
)
def test_what_is_stale_is_said(
    live: dict[str, Any], run: dict[str, Any], state: State, told: str
) -> None:
    """The learner, its run, the labels and the page itself each have an age."""
    found = tell(make_past(run=run), **live)["stale"]
    assert state == found.state
    assert told in found.sentence


def test_an_override_says_until_when_and_why() -> None:
    """And what a person did before it."""
    override = {"answer": "open", "until": at(3600 + 600), "because": "<b>maintenance</b>"}
    before = {"decided_at": at(9), "because": "the gate is closed until noon"}
    found = tell(make_past(people=before), override=override)["people"]
    assert ("watch", "The gate is open, for 10 min more") == (found.state, found.short)
    assert "<b>maintenance</b>" in found.sentence
    rest = tell(make_past(people=before))["people"]
    assert ("good", "Nothing") == (rest.state, rest.short)
    assert "Last: the gate is closed until noon" in rest.sentence


def test_nothing_to_do_is_said_with_the_command_that_shows_the_state() -> None:
    """A page without advice would read as a broken one."""
    found = tell(make_past())["advice"]
    assert ("good", "Nothing") == (found.state, found.short)
    assert ("thermodrift --home /srv/home status",) == found.commands


def test_commands_can_be_pasted_whatever_the_home_is_called() -> None:
    """A space or a quote in its path stays one word."""
    command = make_live(home="/srv/it's a home").command("status")
    assert ["thermodrift", "--home", "/srv/it's a home", "status"] == shlex.split(command)


@pytest.mark.parametrize(("age_s", "is_named"), [(60, True), (2 * 86_400, False)])
def test_a_loss_of_the_history_is_named_for_a_day(age_s: float, is_named: bool) -> None:
    """A loss of last year is in the history, and asks for nothing any more."""
    row = {"question": "history", "last_at": NOW - timedelta(seconds=age_s), "because": "2 lost"}
    found = tell(make_past(trouble=row))["advice"]
    assert is_named == ("2 lost" in found.sentence)


def test_an_ill_intake_comes_with_its_remedy() -> None:
    """It is what `thermodrift status` says."""
    intake = {"state": "stopped", "because": "a column is gone", "remedy": "new_columns = 'drop'"}
    found = tell(make_past(), intake=intake)["advice"]
    assert "a column is gone" in found.sentence
    assert "new_columns = 'drop'" in found.sentence


@pytest.mark.parametrize(
    ("live", "margin_c", "command"),
    [
        ({"override": {"answer": "closed", "until": at(4000), "because": "x"}}, 30.0, "clear"),
        ({"state": "resting"}, 30.0, "run /srv/elec2.toml"),
        ({}, 5.0, "gate show"),
        ({}, 30.0, "status"),
    ],
)
def test_a_retrain_that_waits_asks_for_what_would_let_it_begin(
    live: dict[str, Any], margin_c: float, command: str
) -> None:
    """A person's override, a run, a look at the device, or nothing."""
    past = make_past(
        request=REQUEST,
        devices=device(margin_c=margin_c),
        admission={"facts": {"gate_pause_margin_c": 10.0}},
        run={"outcome": "finished", "because": "the end"},
    )
    assert tell(past, **live)["advice"].commands[0].endswith(command)
