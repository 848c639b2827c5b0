"""What waits becomes one prediction: counted, and never timed."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest

from flows.api.gathering import Gatherer, QueueFull
from tests.flows.api.makers import Learned, Running, held, running
from tests.pace import until

RECORD = {"record": {"load": 0.3, "site": "a"}}


class Recorder:
    """Doubles numbers, and remembers what came together; a negative one is an error."""

    def __init__(self) -> None:
        self.calls: list[list[int]] = []

    def __call__(self, asked: Sequence[int]) -> list[int | Exception]:
        self.calls.append([*asked])
        return [ValueError(str(each)) if each < 0 else 2 * each for each in asked]


def gathering(
    use: Callable[[Gatherer[int, int]], Awaitable[Any]],
    work: Callable[[Sequence[int]], Sequence[int | Exception]],
    most_waiting: int = 100,
    most_together: int = 10,
) -> Any:
    """Run `use` with a gatherer, in an event loop with a worker."""

    async def run() -> Any:
        with ThreadPoolExecutor(1) as worker:
            return await use(Gatherer(work, worker, most_waiting, most_together))

    return asyncio.run(run())


async def ask_all(gatherer: Gatherer[int, int], *asked: int) -> list[Any]:
    """Ask all in one turn of the event loop."""
    return await asyncio.gather(*(gatherer.ask(each, 1) for each in asked), return_exceptions=True)


def test_what_comes_in_one_turn_is_one_call() -> None:
    """Each has its own answer."""
    work = Recorder()
    assert [2, 4, 6] == gathering(lambda gatherer: ask_all(gatherer, 1, 2, 3), work)
    assert [[1, 2, 3]] == work.calls


def test_a_call_has_a_greatest_size() -> None:
    """What does not fit is the next call; what is larger alone goes alone."""
    work = Recorder()

    async def use(gatherer: Gatherer[int, int]) -> list[int]:
        sizes = {1: 6, 2: 4, 3: 1, 4: 30}
        return await asyncio.gather(*(gatherer.ask(*each) for each in sizes.items()))

    assert [2, 4, 6, 8] == gathering(use, work)
    assert [[1, 2], [3], [4]] == work.calls


def test_one_that_fails_fails_alone() -> None:
    """Its neighbours in the same call have their answers."""
    first, second, third = gathering(lambda gatherer: ask_all(gatherer, 1, -2, 3), Recorder())
    assert (2, 6) == (first, third)
    assert isinstance(second, ValueError)


def test_a_call_that_fails_fails_for_all_and_the_next_one_goes_on() -> None:
    """Nobody waits for ever."""

    def work(asked: Sequence[int]) -> list[int | Exception]:
        if 0 in asked:
            raise OSError("full")
        return [*asked]

    async def use(gatherer: Gatherer[int, int]) -> tuple[list[Any], int, int]:
        failed = await ask_all(gatherer, 0, 1)
        return failed, await gatherer.ask(5, 1), gatherer.waiting

    failed, later, waiting = gathering(use, work)
    assert [OSError, OSError] == [type(each) for each in failed]
    assert (5, 0) == (later, waiting)


def test_too_much_is_refused_at_once() -> None:
    """What waits already is answered; one request larger than the queue is not refused for ever."""

    async def use(gatherer: Gatherer[int, int]) -> tuple[list[Any], int]:
        return await ask_all(gatherer, 1, 2, 3), await gatherer.ask(4, 50)

    (first, second, third), large = gathering(use, Recorder(), most_waiting=2)
    assert (2, 4, 8) == (first, second, large)
    assert isinstance(third, QueueFull)


def test_who_goes_away_changes_nothing_for_the_others() -> None:
    """A client that hangs up while it waits."""

    async def use(gatherer: Gatherer[int, int]) -> tuple[int, int]:
        gone = asyncio.ensure_future(gatherer.ask(1, 1))
        stays = asyncio.ensure_future(gatherer.ask(2, 1))
        await asyncio.sleep(0)
        gone.cancel()
        return await stays, gatherer.waiting

    assert (4, 0) == gathering(use, Recorder())


def figure(served: Running, name: str) -> float:
    """One of the figures of the pipeline."""
    found = served.service.metrics.registry.get_sample_value(name, {"pipeline": "small"})
    return found or 0.0


def waiting(served: Running) -> int:
    """How many records wait."""
    return served.service.pipelines["small"].predictions.waiting


def test_requests_that_wait_become_one_prediction(learned: Learned) -> None:
    """While the worker is busy twelve requests come: it is called for them twice at most."""
    with running(learned) as served, ThreadPoolExecutor(12) as callers:
        with served.client() as client:
            with held(served.service._workers[0]):
                asking: list[Future[Any]] = [
                    callers.submit(client.post, "/predict", json=RECORD) for _ in range(12)
                ]
                until(lambda: waiting(served) == 12, "twelve that wait")
            answers = [each.result() for each in asking]
        assert {200} == {each.status_code for each in answers}
        assert 12 == len({each.json()["id"] for each in answers})
        assert 12 == figure(served, "thermodrift_gathered_requests_sum")
        assert 12 == figure(served, "thermodrift_gathered_records_sum")
        assert figure(served, "thermodrift_gathered_requests_count") <= 2


def test_beyond_the_queue_a_request_is_told_to_come_later(learned: Learned) -> None:
    """429 with Retry-After; those that wait are answered."""
    with running(learned, most_waiting=4) as served, ThreadPoolExecutor(4) as callers:
        with served.client() as client:
            with held(served.service._workers[0]):
                asking = [callers.submit(client.post, "/predict", json=RECORD) for _ in range(4)]
                until(lambda: waiting(served) == 4, "four that wait")
                refused = client.post("/predict", json=RECORD)
                scraped = client.get("/metrics").text
            codes = {each.result().status_code for each in asking}
        assert (429, "1") == (refused.status_code, refused.headers["retry-after"])
        assert "4 records wait for their turn, and at most 4 may" in refused.json()["error"]
        assert 'thermodrift_waiting_records{pipeline="small"} 4.0' in scraped
        assert {200} == codes


@pytest.mark.parametrize("bad", [{"load": "x"}, {"laod": 1}])
def test_who_sends_nonsense_fails_alone(learned: Learned, bad: dict[str, Any]) -> None:
    """Gathered with it, the others have the answers that they would have alone."""
    with running(learned) as served, ThreadPoolExecutor(6) as callers, served.client() as client:
        alone = client.post("/predict", json=RECORD).json()["probabilities"]
        with held(served.service._workers[0]):
            asking = [
                callers.submit(client.post, "/predict", json={"record": bad} if each else RECORD)
                for each in (0, 1, 0, 1, 0)
            ]
            until(lambda: waiting(served) == 5, "five that wait")
        answers = [each.result() for each in asking]
        assert [200, 422, 200, 422, 200] == [each.status_code for each in answers]
        assert [alone] * 3 == [answers[each].json()["probabilities"] for each in (0, 2, 4)]


def test_an_id_that_was_used_fails_alone(learned: Learned) -> None:
    """Those who were gathered with it by chance are kept and answered, and so is the same again.

    One id was used for other features before; another one comes twice in what is gathered.
    """
    other = {"record": {"load": 0.9}}
    asks = [
        ({**RECORD, "id": "new"}, 200),
        ({**other, "id": "used"}, 409),
        ({**RECORD, "id": "used"}, 200),
        ({**RECORD, "id": "twice"}, 200),
        ({**other, "id": "twice"}, 409),
        ({**RECORD, "id": "newer"}, 200),
    ]
    with running(learned) as served, ThreadPoolExecutor(6) as callers, served.client() as client:
        assert 200 == client.post("/predict", json={**RECORD, "id": "used"}).status_code
        with held(served.service._workers[0]):
            asking = []
            for body, _ in asks:
                asking.append(callers.submit(client.post, "/predict", json=body))
                until(lambda: waiting(served) == len(asking), "one more that waits")
        assert [code for _, code in asks] == [each.result().status_code for each in asking]
        assert {"new", "used", "twice", "newer"} == set(served.inbox().given)
        assert RECORD["record"] == served.inbox().given["twice"].features
