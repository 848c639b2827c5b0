"""Requests to Prefect's server: events and artifacts, states of runs, and its scheduler's health.

Each request has a timeout of seconds, because a run must not hang on a server that is dead, slow or
refusing. Learning and recording need nothing of this: events are hints, and a later run corrects
what the server does not know.

A deployed run uses Prefect's client. `up`, `status` and `doctor` use a `Server` with its address:
they do not import Prefect, which takes seconds.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import UUID

import httpx

from flows.config import settings
from observability.core.errors import TryAgainLater
from observability.scheduler_health import Schedule, SchedulerFacts

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient
    from prefect.client.schemas.objects import FlowRun, State


class ServerUnavailable(TryAgainLater, ConnectionError):
    """Prefect's server did not answer, or refused."""


RETRIES = 2
"""Times that a request is repeated, after 2 s and 4 s: SQLite is locked now and then."""
RUN_PREFIX = "thermodrift.pipeline."
"""The resource of an event is this, and the pipeline's name."""
_PAGE = 200
"""Most items that the server returns at once."""
_RECORD = re.compile(r"^(?=\d{2}:\d{2}:\d{2}\.\d+ \| )", re.MULTILINE)
"""Where a record of a server's log begins: ``06:43:07.772 | ERROR   | logger - message``."""
_WRONG = re.compile(r"\S+ \| (ERROR|CRITICAL) .*schedul", re.IGNORECASE)
_LOG_BYTES = 1_000_000
"""Only the newest part of a server's log is read: the log grows as long as the server runs."""
_NEWEST = 50
"""Due runs of a deployment that are checked; runs that an event started are among them."""


@dataclass(frozen=True)
class Server:
    """Where a server is, and its password."""

    url: str
    """Of its API: ``http://127.0.0.1:4200/api``."""
    password: str
    """``USER:PASSWORD``; empty where it needs none."""
    log: Path | None = None
    """Its log; None of a server that `up` did not start."""

    @property
    def page(self) -> str:
        """The address of its page."""
        return self.url.removesuffix("/api")

    def ask(self, method: str, path: str, document: object = None, wait_s: float = 20.0) -> Any:
        """Send one request to its API. Raises httpx.HTTPError."""
        user, _, password = self.password.partition(":")
        auth = (user, password) if self.password else None
        answer = httpx.request(
            method, self.url + path, json=document, auth=auth, timeout=wait_s, trust_env=False
        )
        answer.raise_for_status()
        return answer.json() if answer.content else None

    def seen(self, now: datetime) -> SchedulerFacts:
        """The facts about whether its scheduler works for our flows. Raises ServerUnavailable."""
        ours = {"flows": {"name": {"like_": "thermodrift-"}}}
        try:
            flows = {each["id"]: each["name"] for each in self._all("/flows/filter", ours)}
            schedules = [
                self._schedule(each, f"{flows[each['flow_id']]}/{each['name']}", now)
                for each in self._all("/deployments/filter", ours)
                if not each["paused"] and any(one["active"] for one in each["schedules"])
            ]
        except (httpx.HTTPError, httpx.InvalidURL, ValueError, KeyError, TypeError) as error:
            raise ServerUnavailable(
                f"the Prefect server at {self.url} did not answer, or not as expected: "
                f"{(str(error).splitlines() or [type(error).__name__])[0]}; "
                "check that it runs, and that PREFECT_API_AUTH_STRING is its password"
            ) from error
        errors = None if self.log is None else _scheduler_errors(self.log)
        return SchedulerFacts(
            schedules=schedules,
            log_errors=None if errors is None else len(errors),
            last_error=errors[-1] if errors else "",
        )

    def _filter(self, path: str, asked: Mapping[str, Any]) -> list[dict[str, Any]]:
        wait_s = settings.Settings().server_timeout_s
        found: list[dict[str, Any]] = self.ask("POST", path, asked, wait_s)
        return found

    def _all(self, path: str, asked: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        for offset in itertools.count(0, _PAGE):
            page = self._filter(path, {**asked, "limit": _PAGE, "offset": offset})
            yield from page
            if len(page) < _PAGE:
                return

    def _schedule(self, deployment: Mapping[str, Any], name: str, now: datetime) -> Schedule:
        """From the runs that the scheduler created: all future ones, and the newest due ones."""
        mine = {"deployments": {"id": {"any_": [deployment["id"]]}}}
        after = {
            "expected_start_time": {"after_": now.isoformat()},
            "state": {"type": {"any_": ["SCHEDULED"]}},
        }
        before = {"expected_start_time": {"before_": now.isoformat()}}
        newest = {"sort": "EXPECTED_START_TIME_DESC", "limit": _NEWEST}
        runs = [
            *self._filter("/flow_runs/filter", {**mine, "flow_runs": after}),
            *self._filter("/flow_runs/filter", {**mine, "flow_runs": before, **newest}),
        ]
        starts = [
            datetime.fromisoformat(each["expected_start_time"])
            for each in runs
            if each["auto_scheduled"]
        ]
        active = [each for each in deployment["schedules"] if each["active"]]
        intervals = [each["schedule"].get("interval") for each in active]
        every_s = min((float(each) for each in intervals if each), default=None)
        crons = any(each["schedule"].get("cron") for each in active)
        heard = [each for each in starts if each <= now]
        heard += [datetime.fromisoformat(each["updated"]) for each in active]
        return Schedule(
            name=name,
            kind="interval" if every_s is not None else "cron" if crons else "rrule",
            every_s=every_s,
            silent_s=(now - max(heard)).total_seconds(),
            coming=sum(each > now for each in starts),
        )


def _scheduler_errors(log: Path) -> list[str] | None:
    """Time and cause of the scheduler's errors, oldest first; None where the log cannot be read.

    The log also has other errors, such as a locked SQLite or a repeated request of a worker.
    """
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - _LOG_BYTES))
            newest = file.read().decode(errors="replace")
    except OSError:
        return None
    found = []
    for record in _RECORD.split(newest)[1:]:
        if _WRONG.match(record):
            first, *trace = record.splitlines()
            time, _, message = (each.strip() for each in first.split("|", 2))
            # The cause is the last line of a traceback.
            causes = [line for line in trace if line and not line[0].isspace()]
            found.append(f"{time} {causes[-1] if causes else message}")
    return found


def emit(event: str, pipeline: str, labels: Mapping[str, str], payload: Mapping[str, Any]) -> None:
    """Report to the server that `event` happened to `pipeline`."""
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
    _post("/events", [happened.model_dump(mode="json")], f"the event {event}")


def show(run_id: str, key: str, kind: str, data: str, told: str) -> None:
    """Put an artifact beside a run, which its page shows; `kind` is table or markdown."""
    shown = {"key": key, "type": kind, "data": data, "description": told, "flow_run_id": run_id}
    _post("/artifacts/", shown, f"the artifact {key}")


def state_of(run_id: str) -> State | None:
    """The state of a run; None where there is no such run. Raises ServerUnavailable."""
    from prefect.exceptions import ObjectNotFound

    with _client() as client:
        try:
            return client.read_flow_run(UUID(run_id)).state
        except ObjectNotFound:
            return None


def coming(flow_name: str) -> list[FlowRun]:
    """Runs of a flow that are scheduled, or under way. Raises ServerUnavailable."""
    from prefect.client.schemas import filters, objects

    states = [objects.StateType[each] for each in ("SCHEDULED", "PENDING", "RUNNING", "PAUSED")]
    under_way = filters.FlowRunFilterState(type=filters.FlowRunFilterStateType(any_=states))
    with _client() as client:
        return client.read_flow_runs(
            flow_filter=filters.FlowFilter(name=filters.FlowFilterName(any_=[flow_name])),
            flow_run_filter=filters.FlowRunFilter(state=under_way),
            limit=_PAGE,
        )


def mark(run_id: str, state: State) -> None:
    """Set the state of a run, whatever it was. Raises ServerUnavailable."""
    with _client() as client:
        client.set_flow_run_state(UUID(run_id), state, force=True)


def put_off(run_id: str, name: str, until: datetime, because: str) -> State:
    """Hand a run back to its worker until then. Raises ServerUnavailable."""
    from prefect.states import Scheduled

    state: State = Scheduled(scheduled_time=until, name=name, message=because)
    mark(run_id, state)
    return state


def in_seconds(seconds: float) -> datetime:
    """That many seconds from now."""
    return datetime.now(UTC) + timedelta(seconds=seconds)


@contextmanager
def _client() -> Iterator[SyncPrefectClient]:
    from prefect.client.orchestration import get_client
    from prefect.settings import (
        PREFECT_API_REQUEST_TIMEOUT,
        PREFECT_CLIENT_MAX_RETRIES,
        temporary_settings,
    )

    brief = {
        PREFECT_CLIENT_MAX_RETRIES: RETRIES,
        PREFECT_API_REQUEST_TIMEOUT: settings.Settings().server_timeout_s,
    }
    try:
        with temporary_settings(brief), get_client(sync_client=True) as client:
            yield client
    except httpx.HTTPError as error:
        raise ServerUnavailable(
            f"Prefect's server did not answer within seconds, or refused: {error}; "
            "check it. What was learned and recorded needs no server"
        ) from error


def _post(path: str, document: object, what: str) -> None:
    """Report something that may get lost: then the run's log has a warning."""
    from prefect.logging import get_logger

    try:
        with _client() as client:
            client.request("POST", path, json=document)  # type: ignore[arg-type]
    except ServerUnavailable as error:
        get_logger("thermodrift").warning("%s was not reported: %s", what, error)


def rows(columns: Sequence[str], cells: Sequence[Sequence[object]]) -> list[dict[str, object]]:
    """A table in the format of Prefect's page; an unknown value is a dash."""
    return [
        {
            name: "-" if cell is None else round(cell, 4) if isinstance(cell, float) else cell
            for name, cell in zip(columns, row, strict=True)
        }
        for row in cells
    ]
