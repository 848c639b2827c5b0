"""Prefect's server as a deployed run sees it: told of what happened, asked about other runs.

Briefly: each word to it is tried for seconds, because a run must not hang on a server that
is dead, slow or refusing. Nothing here is needed for what is learned or recorded: events are hints,
and what is not heard is made up for by the next look.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import httpx
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import (
    FlowFilter,
    FlowFilterName,
    FlowRunFilter,
    FlowRunFilterState,
    FlowRunFilterStateType,
)
from prefect.client.schemas.objects import FlowRun, State, StateType
from prefect.events import Event, Resource
from prefect.exceptions import ObjectNotFound
from prefect.logging import get_logger
from prefect.settings import (
    PREFECT_API_REQUEST_TIMEOUT,
    PREFECT_CLIENT_MAX_RETRIES,
    temporary_settings,
)
from prefect.states import Scheduled

from observability.errors import TryAgainLater


class Unheard(TryAgainLater, ConnectionError):
    """Prefect's server did not answer, or refused."""


PATIENCE_S = 5.0
"""Seconds that one word to the server may take, each time that it is said."""
RETRIES = 2
"""Times that it is said again, after 2 s and 4 s: SQLite is locked now and then."""
RUN_PREFIX = "thermodrift.pipeline."
"""What a pipeline is called among the resources of Prefect's events."""
_COMING = [StateType.SCHEDULED, StateType.PENDING, StateType.RUNNING, StateType.PAUSED]
_MOST_RUNS = 200


def emit(event: str, pipeline: str, labels: Mapping[str, str], payload: Mapping[str, Any]) -> bool:
    """Tell the server that `event` happened to `pipeline`; False where it did not hear."""
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
    with _client() as client:
        try:
            return client.read_flow_run(UUID(run_id)).state
        except ObjectNotFound:
            return None


def coming(flow_name: str) -> list[FlowRun]:
    """Runs of a flow that are to come, or under way. Raises Unheard where unknown."""
    with _client() as client:
        return client.read_flow_runs(
            flow_filter=FlowFilter(name=FlowFilterName(any_=[flow_name])),
            flow_run_filter=FlowRunFilter(
                state=FlowRunFilterState(type=FlowRunFilterStateType(any_=_COMING))
            ),
            limit=_MOST_RUNS,
        )


def mark(run_id: str, state: State) -> None:
    """Say how a run ended that cannot say it itself. Raises Unheard where it was not heard."""
    with _client() as client:
        client.set_flow_run_state(UUID(run_id), state, force=True)


def put_off(run_id: str, name: str, until: datetime, because: str) -> State:
    """Hand a run back to its worker until then. Raises Unheard where it was not heard."""
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
