"""Prefect's server: told of what happened, asked about other runs, and about its own scheduler.

Briefly: each word to it is tried for seconds, because a run must not hang on a server that
is dead, slow or refusing. Nothing here is needed for what is learned or recorded: events are hints,
and what is not heard is made up for by the next look.

A deployed run speaks by Prefect's client. `up`, `status` and `doctor` ask a `Server` by its
address: they do not import Prefect, which takes seconds.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import UUID

import httpx

from observability.core.errors import TryAgainLater
from observability.scheduler_health import Evidence, Schedule

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient
    from prefect.client.schemas.objects import FlowRun, State


class Unheard(TryAgainLater, ConnectionError):
    """Prefect's server did not answer, or refused."""


PATIENCE_S = 5.0
"""Seconds that one word to the server may take, each time that it is said."""
RETRIES = 2
"""Times that it is said again, after 2 s and 4 s: SQLite is locked now and then."""
RUN_PREFIX = "thermodrift.pipeline."
"""What a pipeline is called among the resources of Prefect's events."""
_MOST_RUNS = 200
_PAGE = 200
"""Of anything, the most that the server answers at once."""
_FLOWS = "thermodrift-"
"""How the names of our flows begin."""
_SAID = re.compile(r"^(?=\d{2}:\d{2}:\d{2}\.\d+ \| )", re.MULTILINE)
"""Where something that a server says begins: ``06:43:07.772 | ERROR   | logger - message``."""
_WRONG = re.compile(r"\S+ \| (ERROR|CRITICAL) .*schedul", re.IGNORECASE)
_LOG_BYTES = 1_000_000
"""Of a server's log, the newest part that is read; it grows for as long as the server runs."""
_NEWEST = 50
"""Due runs of a deployment that are looked at; those that an event started are among them."""


@dataclass(frozen=True)
class Server:
    """Where a server is, and the word that it answers to."""

    url: str
    """Of its API: ``http://127.0.0.1:4200/api``."""
    password: str
    """``USER:WORD``; empty where it asks for none."""
    ours: bool
    log: Path | None = None
    """What it says of itself; None: it does so elsewhere."""

    @property
    def page(self) -> str:
        """What a person opens."""
        return self.url.removesuffix("/api")

    def ask(self, method: str, path: str, document: object = None, wait_s: float = 20.0) -> Any:
        """What its API answers. Raises httpx.HTTPError."""
        user, _, word = self.password.partition(":")
        auth = (user, word) if self.password else None
        answer = httpx.request(
            method, self.url + path, json=document, auth=auth, timeout=wait_s, trust_env=False
        )
        answer.raise_for_status()
        return answer.json() if answer.content else None

    def seen(self, now: datetime) -> Evidence:
        """What shows whether its scheduler schedules our flows. Raises Unheard."""
        try:
            schedules = [
                _schedule(
                    deployment, f"{flow}/{deployment['name']}", self._runs(deployment, now), now
                )
                for flow, deployment in self._scheduled()
            ]
        except (httpx.HTTPError, httpx.InvalidURL, ValueError, KeyError, TypeError) as error:
            raise Unheard(
                f"the Prefect server at {self.url} did not answer, or not as one does: "
                f"{(str(error).splitlines() or [type(error).__name__])[0]}; "
                f"see whether it runs, and whether PREFECT_API_AUTH_STRING is its password"
            ) from error
        errors = _errors(self.log)
        return Evidence(
            schedules=schedules,
            log_errors=None if errors is None else len(errors),
            last_error=errors[-1] if errors else "",
        )

    def _scheduled(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """Our deployments that have an active schedule, each after its flow's name."""
        ours = {"flows": {"name": {"like_": _FLOWS}}}
        flows = {each["id"]: each["name"] for each in self._all("/flows/filter", ours)}
        for each in self._all("/deployments/filter", ours):
            if not each["paused"] and any(one["active"] for one in each["schedules"]):
                yield flows[each["flow_id"]], each

    def _all(self, path: str, asked: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        offset = 0
        while True:
            page = self.ask("POST", path, {**asked, "limit": _PAGE, "offset": offset}, PATIENCE_S)
            yield from page
            if len(page) < _PAGE:
                return
            offset += _PAGE

    def _runs(self, deployment: Mapping[str, Any], now: datetime) -> list[dict[str, Any]]:
        """Runs of it that the scheduler made: all that are coming, and the newest that were due."""
        mine = {"deployments": {"id": {"any_": [deployment["id"]]}}}
        after = {
            "expected_start_time": {"after_": now.isoformat()},
            "state": {"type": {"any_": ["SCHEDULED"]}},
        }
        before = {"expected_start_time": {"before_": now.isoformat()}}
        newest = {"sort": "EXPECTED_START_TIME_DESC", "limit": _NEWEST}
        path = "/flow_runs/filter"
        found = [
            *self.ask("POST", path, {**mine, "flow_runs": after}, PATIENCE_S),
            *self.ask("POST", path, {**mine, "flow_runs": before, **newest}, PATIENCE_S),
        ]
        return [each for each in found if each["auto_scheduled"]]


def _schedule(
    deployment: Mapping[str, Any], name: str, runs: Sequence[Mapping[str, Any]], now: datetime
) -> Schedule:
    active = [each for each in deployment["schedules"] if each["active"]]
    intervals = [each["schedule"].get("interval") for each in active]
    every_s = min((float(each) for each in intervals if each), default=None)
    crons = any(each["schedule"].get("cron") for each in active)
    starts = [datetime.fromisoformat(each["expected_start_time"]) for each in runs]
    heard = [each for each in starts if each <= now]
    heard += [datetime.fromisoformat(each["updated"]) for each in active]
    return Schedule(
        name=name,
        kind="interval" if every_s is not None else "cron" if crons else "rrule",
        every_s=every_s,
        silent_s=(now - max(heard)).total_seconds(),
        coming=sum(each > now for each in starts),
    )


def _errors(log: Path | None) -> list[str] | None:
    """The errors that a server's scheduler told, oldest first; None where its log cannot be read.

    Other errors stand in it, too: SQLite is locked, and a worker that was not heard asks again.
    """
    if log is None:
        return None
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - _LOG_BYTES))
            newest = file.read().decode(errors="replace")
    except OSError:
        return None
    return [_told(each) for each in _SAID.split(newest)[1:] if _WRONG.match(each)]


def _told(said: str) -> str:
    """When, and the cause: of a traceback its last line."""
    first, *trace = said.splitlines()
    causes = [line for line in trace if line and not line[0].isspace()]
    time, _, message = (each.strip() for each in first.split("|", 2))
    return f"{time} {causes[-1] if causes else message}"


def emit(event: str, pipeline: str, labels: Mapping[str, str], payload: Mapping[str, Any]) -> bool:
    """Tell the server that `event` happened to `pipeline`; False where it did not hear."""
    from prefect.events import Event, Resource

    resource = {
        "prefect.resource.id": RUN_PREFIX + pipeline,
        "prefect.resource.name": pipeline,
        **labels,
    }
    happened = Event(
        event=event,
        resource=Resource.model_validate(resource),
        payload={key: value for key, value in payload.items() if value is not None},
    )
    with _heard(f"the event {event}") as client:
        client.request("POST", "/events", json=[happened.model_dump(mode="json")])
        return True
    return False


def state_of(run_id: str) -> State | None:
    """How a run stands; None where there is no such run. Raises Unheard where unknown."""
    from prefect.exceptions import ObjectNotFound

    with _client() as client:
        try:
            return client.read_flow_run(UUID(run_id)).state
        except ObjectNotFound:
            return None


def coming(flow_name: str) -> list[FlowRun]:
    """Runs of a flow that are to come, or under way. Raises Unheard where unknown."""
    from prefect.client.schemas.filters import (
        FlowFilter,
        FlowFilterName,
        FlowRunFilter,
        FlowRunFilterState,
        FlowRunFilterStateType,
    )
    from prefect.client.schemas.objects import StateType

    states = [StateType.SCHEDULED, StateType.PENDING, StateType.RUNNING, StateType.PAUSED]
    with _client() as client:
        return client.read_flow_runs(
            flow_filter=FlowFilter(name=FlowFilterName(any_=[flow_name])),
            flow_run_filter=FlowRunFilter(
                state=FlowRunFilterState(type=FlowRunFilterStateType(any_=states))
            ),
            limit=_MOST_RUNS,
        )


def mark(run_id: str, state: State) -> None:
    """Say how a run ended that cannot say it itself. Raises Unheard where it was not heard."""
    with _client() as client:
        client.set_flow_run_state(UUID(run_id), state, force=True)


def put_off(run_id: str, name: str, until: datetime, because: str) -> State:
    """Hand a run back to its worker until then. Raises Unheard where it was not heard."""
    from prefect.states import Scheduled

    state: State = Scheduled(scheduled_time=until, name=name, message=because)
    with _client() as client:
        client.set_flow_run_state(UUID(run_id), state, force=True)
    return state


def show(run_id: str, key: str, kind: str, data: str, told: str) -> None:
    """Put an artifact beside a run, which its page shows; `kind` is table or markdown."""
    with _heard(f"the artifact {key}") as client:
        client.request(
            "POST",
            "/artifacts/",
            json={
                "key": key,
                "type": kind,
                "data": data,
                "description": told,
                "flow_run_id": run_id,
            },
        )


def in_seconds(seconds: float) -> datetime:
    """That many seconds from now."""
    return datetime.fromtimestamp(datetime.now(UTC).timestamp() + seconds, UTC)


@contextmanager
def _client() -> Iterator[SyncPrefectClient]:
    from prefect.client.orchestration import get_client
    from prefect.settings import (
        PREFECT_API_REQUEST_TIMEOUT,
        PREFECT_CLIENT_MAX_RETRIES,
        temporary_settings,
    )

    brief = {PREFECT_CLIENT_MAX_RETRIES: RETRIES, PREFECT_API_REQUEST_TIMEOUT: PATIENCE_S}
    try:
        with temporary_settings(brief), get_client(sync_client=True) as client:
            yield client
    except httpx.HTTPError as error:
        raise Unheard(
            f"Prefect's server did not answer within seconds, or refused: {error}; look "
            "after it. What was learned and recorded needs no server"
        ) from error


@contextmanager
def _heard(what: str) -> Iterator[SyncPrefectClient]:
    """A client for what need not be heard: where it is not, the run's log says so."""
    try:
        with _client() as client:
            yield client
    except Unheard as error:
        from prefect.logging import get_logger

        get_logger("thermodrift").warning("%s was not heard: %s", what, error)


def rows(columns: Sequence[str], cells: Sequence[Sequence[object]]) -> list[dict[str, object]]:
    """A table as Prefect's page wants it; what is unknown shows as a dash."""
    return [
        {
            name: "-" if cell is None else round(cell, 4) if isinstance(cell, float) else cell
            for name, cell in zip(columns, row, strict=True)
        }
        for row in cells
    ]
