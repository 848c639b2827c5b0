"""Let an archived version serve again, without a fit and without the gate.

`worth.judge` has decided it when the request was made, or while it waited.
"""

from __future__ import annotations

from flows.retraining import expectations, retrain_request
from flows.retraining.retrain_request import RequestOutcome
from flows.run.state import OpenRequest, Reuse
from flows.run.unit_of_work import UnitOfWork
from models.batch import promotion
from observability.core.errors import ThermodriftError
from observability.history.records import ModelRecord, Record


def promote(work: UnitOfWork, request: OpenRequest, reuse: Reuse) -> RequestOutcome:
    """Promote the archived version, or make it a candidate where a person's word is wanted.

    A version that is not valid any more closes the request without a model.
    """
    work.sync_champion()
    state = work.state
    try:
        manifest = work.run.registry.verify(reuse.version)
    except (ThermodriftError, OSError) as error:
        refused = promotion.no_model(f"the archived version cannot serve: {error}")
        rows: list[Record] = [
            work.decision_row(refused),
            *expectations.without_model(work, request),
        ]
        return retrain_request.close(work, request, RequestOutcome("NoModel", refused), rows)
    served = promotion.reused(reuse.version, state.champion, reuse.gain)
    asks = promotion.asks(served, work.run.file.pipeline.promotion)
    rows = [
        work.decision_row(served),
        *([work.decision_row(asks)] if asks else []),
        *([] if asks else expectations.reused(work, request, reuse, served)),
        work.run.row(
            ModelRecord,
            event="candidate" if asks else "promoted",
            position=state.position,
            because=served.because,
            **manifest.recorded,
        ),
    ]
    if asks:
        expectations.candidate(work, reuse.version, served.because, reuse.gain)
        return retrain_request.close(work, request, RequestOutcome("Candidate", asks), rows)
    state.champion = reuse.version
    state.totals.promotions += 1
    state.totals.reused += 1
    ending = RequestOutcome("Reused", served)
    return retrain_request.close(work, request, ending, rows, reuse.version)
