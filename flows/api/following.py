"""Follows a pipeline: loads each newer checkpoint and champion beside the bundle that serves.

A new bundle is loaded, verified and warmed before it replaces the old one, which is the change of
one reference. Where anything is wrong with it, the old bundle goes on, and the reason is kept.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

from flows.api.metrics import ServiceMetrics
from flows.config.pipeline import PipelineFile
from flows.run import bootstrap
from flows.run.state import PipelineState
from models.batch.batch_model import BatchModel
from models.persistence.signing import KeyUnusable, SigningKey
from models.registry.registry import POINTER, Registry
from models.serving.bundle import Bundle
from models.stream import source
from observability.core.errors import BadConfiguration
from observability.core.paths import PipelinePlaces, Places

RETRY_S = 30.0
"""Seconds after which what could not be loaded is tried again, though no file has changed."""
SHARE_LOADING = 0.1
"""Most of a follower's time that is spent on loading: after a slow load the next look is later."""

Stamp = tuple[int, int, int] | None
"""Time of change, inode and size of a file; None: it is not there."""


class _Seen(NamedTuple):
    checkpoint: Stamp
    champion: Stamp


class Follower:
    """The bundle of one pipeline, as new as its files were at the last look.

    `bundle` and the other attributes may be read by any thread; only one may call `look`.
    """

    def __init__(
        self,
        file: PipelineFile,
        home: Places,
        metrics: ServiceMetrics,
        say: Callable[[str], None],
        warm: Callable[[Bundle], None] = Bundle.warm,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`warm` lets a bundle predict once, in the thread that predicts: models need not bear two
        threads at once, and a champion may be in two bundles.
        """
        self.file = file
        self.places = home.pipeline(file.name)
        self.bundle: Bundle | None = None
        self.since_s = 0.0
        """When the bundle began to serve, by the clock."""
        self.trouble = self._nothing_yet()
        """Why the newest files do not serve; empty where they do. It names files: for the log."""
        self.public_trouble = self._nothing_yet_in_public()
        """The same for whoever asks, who need not know where this machine keeps its files."""
        self._home = home
        self._metrics = metrics
        self.say = say
        self._warm = warm
        self._clock = clock
        self._seen: _Seen | None = None
        self._tried_s = 0.0

    @property
    def name(self) -> str:
        """The pipeline's name."""
        return self.file.name

    @property
    def age_s(self) -> float:
        """Seconds since the bundle began to serve; 0 where there is none."""
        return self._clock() - self.since_s if self.bundle is not None else 0.0

    def look(self) -> bool:
        """Load what is newer than the bundle. Returns whether a new one serves now."""
        seen = _Seen(_stamp(self.places.checkpoint), _stamp(_pointer(self.places)))
        waits = bool(self.trouble) and self._clock() - self._tried_s >= RETRY_S
        if seen == self._seen and not waits:
            return False
        self._seen, self._tried_s = seen, self._clock()
        if seen.checkpoint is None and self.bundle is None:
            return False
        try:
            bundle = load(self.file, self._home, self.bundle)
            self._warm(bundle)
        except Exception as error:  # noqa: BLE001 - whatever is wrong, the old bundle serves
            self._failed(error)
            return False
        self.bundle, self.since_s = bundle, self._clock()
        self.trouble = self.public_trouble = ""
        self._metrics.swapped(self.name)
        self.say(
            f"{self.name}: serves position {bundle.position}, champion {bundle.champion_version}"
        )
        return True

    def _failed(self, error: Exception) -> None:
        self._metrics.swap_failed(self.name)
        trouble = f"{type(error).__name__}: {error}"
        if trouble != self.trouble:
            serves = "nothing serves yet" if self.bundle is None else "the old bundle goes on"
            self.say(f"{self.name}: {serves}: {trouble}")
        self.trouble = trouble
        self.public_trouble = (
            f"the newest checkpoint or champion cannot be loaded ({type(error).__name__}); the "
            "service's log says why"
        )

    def _nothing_yet_in_public(self) -> str:
        return (
            f"pipeline {self.name} has no checkpoint yet; run its file by `thermodrift run`, with "
            "the home of this service, and it is served from its first batch on"
        )

    def _nothing_yet(self) -> str:
        return (
            f"pipeline {self.name} has no checkpoint at {self.places.checkpoint} yet; run "
            f"`thermodrift run {self.file.path}` with the same home, and it is served from its "
            "first batch on"
        )


def load(file: PipelineFile, home: Places, before: Bundle | None = None) -> Bundle:
    """The bundle of the pipeline's checkpoint and of the champion that its next batch would have.

    The champion of the bundle `before` is kept where it is the same version. Raises
    FileNotFoundError, CheckpointUnusable, KeyUnusable, BadConfiguration, and what the registry
    raises.
    """
    places = home.pipeline(file.name)
    if not home.key.exists():
        raise KeyUnusable(
            f"the key {home.key} is gone, and nothing can be verified without it; restore it from "
            "a backup"
        )
    key = SigningKey.open(home.key)
    bootstrap.find_factories(file)
    state = bootstrap.load(places, key)
    _check(file, state)
    if state.learner.measure != file.pipeline.pipeline.measure:
        # The next run of the loop would do the same before its first record.
        state.learner.judge_by(file.pipeline.pipeline.measure)
    version, champion = _champion(file, state, Registry(places, key), before)
    options = file.pipeline.stream
    return Bundle(
        pipeline=file.name,
        plan=source.plan(file.beside(options.path), state.schema, options),
        learner=state.learner,
        champion=champion,
        champion_version=version,
        position=state.position,
        lineage=state.lineage,
        new_columns=options.new_columns,
    )


def _check(file: PipelineFile, state: PipelineState) -> None:
    asked = (file.pipeline.pipeline.task, file.pipeline.stream.target)
    learned = (state.schema.task, state.schema.target)
    if asked != learned:
        raise BadConfiguration(
            f"{file.path}: {asked[0]} of {asked[1]!r} was asked, but pipeline {file.name} has "
            f"learned {learned[0]} of {learned[1]!r}; name the file that it runs with"
        )


def _champion(
    file: PipelineFile, state: PipelineState, registry: Registry, before: Bundle | None
) -> tuple[str | None, BatchModel | None]:
    """The version that the pointer names, or that the checkpoint is about to promote."""
    version = registry.champion()
    for effects in state.pending_effects:
        if effects.promote is not None and not registry.has_used(effects.name):
            version = effects.promote
    if version is None:
        return None, None
    if before is not None and before.champion_version == version:
        return version, before.champion
    return version, registry.load(version, file.folder)


class Looks(Protocol):
    """Whatever looks after files."""

    def look(self) -> object:
        """Look once."""


class FollowerThread:
    """Looks after several followers in one thread, until it is stopped."""

    def __init__(self, followers: Sequence[Looks], every_s: float) -> None:
        self._followers = followers
        self._every_s = every_s
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="following", daemon=True)

    def start(self) -> None:
        """Begin to follow."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread, if it was started; waits for a load that is going on."""
        self._over.set()
        if self._thread.ident is not None:
            self._thread.join()

    def _run(self) -> None:
        wait_s = self._every_s
        while not self._over.wait(wait_s):
            began_s = time.monotonic()
            for follower in self._followers:
                follower.look()
            took_s = time.monotonic() - began_s
            wait_s = max(self._every_s, took_s / SHARE_LOADING)


def _pointer(places: PipelinePlaces) -> Path:
    return places.models / f"{POINTER}.json"


def _stamp(path: Path) -> Stamp:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_ino, found.st_size
