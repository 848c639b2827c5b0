"""The service without HTTP: bundles that follow their pipelines, predictions, labels, readiness.

All predictions of a process are made in one worker thread, and all labels are joined in another
one, so that a prediction never waits for a label's commit.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from flows.api.bodies import Asked, LabelEntry
from flows.api.errors import Busy, Conflict, NotFound, NotKept, NotReady, Unprocessable
from flows.api.following import Follower, FollowerThread
from flows.api.gathering import Gatherer, QueueFull
from flows.api.label_file import label_follower
from flows.api.metrics import BundleFigures, ServiceMetrics
from flows.api.shadow.shadowing import Shadows
from flows.config.pipeline import PipelineFile
from flows.metrics import home_metrics
from models.core.record_schema import Label
from models.inbox.errors import RecordConflict
from models.inbox.records import Answered, LabelResult
from models.online.learner import SERVED
from models.serving import outcomes, request_rows
from models.serving.bundle import Bundle, Predicted, Refused, RowAnswer
from models.serving.outcomes import PredictionInbox
from models.stream.parsing.cells import InvalidCell
from observability.core.errors import BadConfiguration
from observability.core.paths import PipelinePlaces, Places
from observability.core.serve_config import ServeConfig
from observability.metrics import definitions
from observability.metrics.samples import Sample, sample

MOST_TOGETHER = 1_000
"""Records of several requests that are predicted in one call."""
MOST_FAULTS = 100
"""Faults that one answer lists."""


@dataclass(frozen=True)
class Answers:
    """The predictions of one request, all by one bundle."""

    bundle: Bundle
    """What serves now: the schema, and the pipeline's name."""
    ids: Sequence[str]
    predicted: Sequence[Predicted]
    versions: Mapping[str, Any]
    """Of the bundle that made them: an earlier one where the request was answered before."""


class ServedPipeline:
    """One pipeline that is served."""

    def __init__(
        self,
        follower: Follower,
        inbox: PredictionInbox,
        metrics: ServiceMetrics,
        config: ServeConfig,
        workers: tuple[ThreadPoolExecutor, ThreadPoolExecutor],
        say: Callable[[str], None],
        shadows: Shadows,
    ) -> None:
        predicting, labelling = workers
        self.shadows = shadows
        self._say = say
        self._said = ""
        self.follower = follower
        self._inbox = inbox
        self._metrics = metrics
        self.label_file = label_follower(follower, inbox, metrics, shadows.label)
        """What follows a file of labels; None: there is none."""
        self.predictions: Gatherer[Asked, Answers] = Gatherer(
            self._predict, predicting, config.most_waiting, MOST_TOGETHER
        )
        self.labels: Gatherer[Sequence[tuple[str, Label]], Sequence[LabelResult]] = Gatherer(
            self._label, labelling, config.most_waiting, MOST_TOGETHER
        )

    @property
    def name(self) -> str:
        """The pipeline's name."""
        return self.follower.name

    @property
    def figures(self) -> BundleFigures:
        """What is told of it at a scrape."""
        bundle = self.follower.bundle
        return BundleFigures(
            self.name,
            bundle is not None,
            None if bundle is None else self.follower.age_s,
            None if bundle is None else bundle.position,
            self.predictions.waiting,
        )

    def bundle(self) -> Bundle:
        """What serves now. Raises NotReady."""
        bundle = self.follower.bundle
        if bundle is None:
            raise NotReady(self.follower.public_trouble)
        return bundle

    async def predict(self, asked: Asked) -> Answers:
        """Predict; the predictions are durable when it returns.

        Raises NotReady, NotFound, Unprocessable, Conflict, NotKept and Busy.
        """
        self.bundle()
        try:
            return await self.predictions.ask(asked, len(asked.records))
        except QueueFull as error:
            raise Busy(str(error)) from error

    async def label(self, entries: Sequence[LabelEntry]) -> Sequence[LabelResult]:
        """Join labels with their predictions; they are durable when it returns.

        Raises NotReady, Unprocessable, NotKept and Busy.
        """
        plan, truths = self.bundle().plan, []
        for index, entry in enumerate(entries):
            try:
                truths.append((entry.id, request_rows.label(plan, entry.label)))
            except InvalidCell as error:
                fault = {"label": index, "id": entry.id, "reason": str(error)}
                raise Unprocessable(f"label {index}: {error}", {"faults": [fault]}) from error
        try:
            results = await self.labels.ask(truths, len(truths))
        except QueueFull as error:
            raise Busy(str(error)) from error
        self._metrics.labelled(self.name, results)
        return results

    def _predict(self, asked: Sequence[Asked]) -> list[Answers | Exception]:
        """Answer gathered requests: those that come again as before, the others with one bundle."""
        bundle = self.bundle()
        before = self._answered_before(bundle, asked)
        new = [each for index, each in enumerate(asked) if index not in before]
        made = iter(self._predict_new(bundle, new) if new else [])
        return [before[index] if index in before else next(made) for index in range(len(asked))]

    def _answered_before(
        self, bundle: Bundle, asked: Sequence[Asked]
    ) -> dict[int, Answers | Exception]:
        """The answers of requests that repeat an earlier one, by their index."""
        named = {index: each for index, each in enumerate(asked) if each.is_named}
        if not named:
            return {}
        try:
            known = self._inbox.find([id_ for each in named.values() for id_ in each.ids])
        except OSError as error:
            return dict.fromkeys(named, self._not_kept(error))
        found: dict[int, Answers | Exception] = {}
        for index, each in named.items() if known else ():
            try:
                again = outcomes.again(bundle.schema.sources, each.ids, each.records, known)
            except RecordConflict as error:
                found[index] = Conflict(str(error))
                continue
            if again is not None:
                self._metrics.repeated(self.name)
                found[index] = _repeated(bundle, each, again)
        return found

    def _predict_new(self, bundle: Bundle, asked: Sequence[Asked]) -> list[Answers | Exception]:
        """Predict gathered requests with one bundle: versions never mix."""
        records = [record for each in asked for record in each.records]
        self._metrics.gathered(self.name, len(asked), len(records))
        coming = iter(bundle.predict(records))
        found = [_answers(bundle, each, [next(coming) for _ in each.records]) for each in asked]
        now_s = time.time()
        kept = [
            _kept(bundle, each, answers, now_s) if isinstance(answers, Answers) else []
            for each, answers in zip(asked, found, strict=True)
        ]
        refusals = self._keep(kept)
        told = [refusals.get(index, answers) for index, answers in enumerate(found)]
        for each, answers in zip(asked, told, strict=True):
            if isinstance(answers, Answers):
                self.shadows.offer(bundle, each, answers.predicted)
        return told

    def _keep(self, kept: Sequence[Sequence[Answered]]) -> dict[int, Exception]:
        """Keep the predictions of gathered requests; why those of some are not, by their index."""
        try:
            self._inbox.record([each for one in kept for each in one])
        except OSError as error:
            return dict.fromkeys(range(len(kept)), self._not_kept(error))
        except ValueError as error:
            if len(kept) == 1:
                return {0: Conflict(str(error)) if isinstance(error, RecordConflict) else error}
            # An id that was used before must not fail those who were gathered with it by chance.
            alone = {index: self._keep([one]) for index, one in enumerate(kept)}
            return {index: refusal[0] for index, refusal in alone.items() if refusal}
        return {}

    def _label(
        self, asked: Sequence[Sequence[tuple[str, Label]]]
    ) -> list[Sequence[LabelResult] | Exception]:
        """Join gathered labels with one commit. Raises NotKept."""
        every = [each for truths in asked for each in truths]
        try:
            results = self._inbox.label(every, time.time())
        except OSError as error:
            raise self._not_kept(error) from error
        pairs = zip(every, results, strict=True)
        self.shadows.label([truth for truth, result in pairs if result.outcome == "joined"])
        coming = iter(results)
        return [[next(coming) for _ in truths] for truths in asked]

    def _not_kept(self, error: OSError) -> NotKept:
        """What the caller is told; the log has the file, once for each reason."""
        told = f"{self.name}: the inbox took nothing of a request: {type(error).__name__}: {error}"
        if told != self._said:
            self._say(told)
        self._said = told
        return NotKept(
            f"nothing of this request was kept, so that it must be repeated: the inbox cannot take "
            f"it ({error.strerror or type(error).__name__}); the service's log says where and why"
        )

    def close(self) -> None:
        """Close the inbox, and the log of the shadows."""
        self.shadows.close()
        self._inbox.close()


def _answers(bundle: Bundle, asked: Asked, rows: Sequence[RowAnswer]) -> Answers | Exception:
    """The answers of one request, or why it has none: then none of its records is recorded."""
    if asked.version is not None and asked.version not in bundle.names:
        return no_version(bundle, asked.version)
    refused = {index: row for index, row in enumerate(rows) if isinstance(row, Refused)}
    if refused:
        return _refusal(refused)
    predicted = [row for row in rows if isinstance(row, Predicted)]
    return Answers(bundle, asked.ids, predicted, bundle.versions)


def no_version(bundle: Bundle, version: str) -> NotFound:
    """The error for a version that does not serve."""
    return NotFound(
        f"version {version!r} of pipeline {bundle.pipeline} does not serve; what serves now is "
        f"{' or '.join(bundle.names)} (champion, position)",
        {"versions": list(bundle.names)},
    )


def _refusal(refused: Mapping[int, Refused]) -> Unprocessable:
    faults = [
        {"record": index, "field": fault.field, "reason": fault.reason}
        for index, row in refused.items()
        for fault in row.faults
    ]
    first = faults[0]
    field = "" if first["field"] is None else f", field {first['field']!r}"
    more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
    return Unprocessable(
        f"record {first['record']}{field}: {first['reason']}{more}; nothing of this request was "
        "predicted",
        {"faults": faults[:MOST_FAULTS]},
    )


def _repeated(bundle: Bundle, asked: Asked, before: Sequence[Answered]) -> Answers:
    """The answers of a request that was answered before, with the versions of then."""
    predicted = [
        Predicted(
            each.answers[SERVED]["value"],
            each.answers[SERVED]["probabilities"],
            each.answers,
            request_rows.unknown_keys(bundle.plan, record),
        )
        for each, record in zip(before, asked.records, strict=True)
    ]
    return Answers(bundle, asked.ids, predicted, before[0].versions)


def _kept(bundle: Bundle, asked: Asked, answers: Answers, now_s: float) -> list[Answered]:
    """What the inbox keeps of a request."""
    sources = bundle.schema.sources
    return [
        Answered(id_, now_s, outcomes.features(sources, record), row.members, bundle.versions)
        for id_, record, row in zip(asked.ids, asked.records, answers.predicted, strict=True)
    ]


class Service:
    """All pipelines of one process; `start` and `close` frame its use."""

    def __init__(
        self,
        files: Sequence[PipelineFile],
        home: Places,
        config: ServeConfig,
        open_inbox: Callable[[PipelinePlaces], PredictionInbox],
        say: Callable[[str], None],
    ) -> None:
        """Opens the inboxes. Raises BadConfiguration for two pipelines of one name."""
        names = [file.name for file in files]
        for name in names:
            if names.count(name) > 1:
                raise BadConfiguration(f"pipeline {name} is named twice; name each file once")
        self.config = config
        self.say = say
        self.metrics = ServiceMetrics()
        self._workers = (
            ThreadPoolExecutor(1, thread_name_prefix="predict"),
            ThreadPoolExecutor(1, thread_name_prefix="label"),
        )
        versions = _shadows(config, names, say)
        followers = [Follower(file, home, self.metrics, say, self._warm) for file in files]
        self.pipelines = {
            follower.name: ServedPipeline(
                follower,
                open_inbox(follower.places),
                self.metrics,
                config,
                self._workers,
                say,
                Shadows(follower.file, home, versions.get(follower.name, ()), self.metrics, say),
            )
            for follower in followers
        }
        shadows = [each.shadows for each in self.pipelines.values()]
        self._following = FollowerThread([*followers, *shadows], config.follow_s)
        self._label_files = FollowerThread(
            [each.label_file for each in self.pipelines.values() if each.label_file is not None],
            config.follow_s,
        )
        for name in self.pipelines:
            self.metrics.begin(name)
        self.metrics.show(lambda: [*home_metrics.collect(home), *self._bundle_samples()])

    def start(self) -> None:
        """Load what is there, then follow it."""
        self.look()
        self._following.start()
        self._label_files.start()

    def look(self) -> None:
        """Load what is newer, now; not after `start`, which does this in a thread."""
        for each in self.pipelines.values():
            each.follower.look()
            each.shadows.look()
            if each.label_file is not None:
                each.label_file.look()

    def close(self) -> None:
        """Stop to follow, and close the inboxes; no request may be in flight."""
        self._following.stop()
        self._label_files.stop()
        for worker in self._workers:
            worker.shutdown(wait=True)
        for each in self.pipelines.values():
            each.close()

    def find(self, name: str | None) -> ServedPipeline:
        """The pipeline of that name, or the only one. Raises NotFound."""
        served = ", ".join(self.pipelines)
        if name is None:
            if len(self.pipelines) > 1:
                raise NotFound(f"several pipelines are served; name one of them: {served}")
            return next(iter(self.pipelines.values()))
        if name not in self.pipelines:
            raise NotFound(f"pipeline {name!r} is not served; served are: {served}")
        return self.pipelines[name]

    @property
    def is_ready(self) -> bool:
        """Whether every pipeline has a bundle."""
        return all(each.follower.bundle is not None for each in self.pipelines.values())

    def readiness(self) -> dict[str, Any]:
        """Of each pipeline, whether it is served, by what, and what is wrong with newer files."""
        return {
            "ready": self.is_ready,
            "pipelines": {name: _readiness(each) for name, each in self.pipelines.items()},
        }

    def figures(self) -> bytes:
        """All metrics of the service and of its home as text. It reads files."""
        return self.metrics.page()

    def _bundle_samples(self) -> Iterator[Sample]:
        for each in self.pipelines.values():
            yield from each.figures.samples()
            for shadow in each.shadows.brief:
                ready, version = shadow["ready"], shadow["version"]
                yield from sample(definitions.SHADOW_READY, ready, each.name, version)

    def _warm(self, bundle: Bundle) -> None:
        self._workers[0].submit(bundle.warm).result()


def _shadows(
    config: ServeConfig, served: Sequence[str], say: Callable[[str], None]
) -> dict[str, list[str]]:
    """The versions that answer in the shadow, by pipeline."""
    found: dict[str, list[str]] = {}
    for each in config.shadow:
        name, _, version = each.partition("=")
        if name not in served:
            say(f"shadow {each}: pipeline {name!r} is not served here; served: {', '.join(served)}")
        found.setdefault(name, []).append(version)
    return found


def _readiness(served: ServedPipeline) -> dict[str, Any]:
    follower = served.follower
    bundle = follower.bundle
    label_file = {} if served.label_file is None else {"labels": served.label_file.status()}
    return {
        "ready": bundle is not None,
        "versions": None if bundle is None else bundle.versions,
        "age_s": None if bundle is None else round(follower.age_s, 3),
        "trouble": follower.public_trouble or None,
        "shadows": served.shadows.brief,
        **label_file,
    }
