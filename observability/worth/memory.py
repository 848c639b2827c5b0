"""What is remembered of a pipeline's retrains: what each was expected to bring, and what came.

Pure values, which the checkpoint keeps. Losses and gains are shares of the baseline's loss, so
that they can be compared over the life of a stream.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from observability.worth import calibration, learning_curve, season
from observability.worth.blend_value import BlendValue
from observability.worth.calibration import Calibration, Pair
from observability.worth.learning_curve import LearningCurve, SizeScore
from observability.worth.season import Season

KEPT = 30
"""Newest retrains that are remembered."""
KEPT_SIZES = 30
"""Newest models of challenges that the learning curve is learned from."""
RECENT = 10
"""Newest retrains of a kind that say what the next one will bring."""
PRIOR_SHARE = 0.5
"""Of what is lost or promised, before any retrain has shown another share."""
PRIOR_WEIGHT = 1.0
"""Retrains that the prior counts as."""
FEWEST_FOLLOWED = 200
"""Records after a retrain from which on they say more than its hold-out."""


@dataclass(frozen=True)
class Expectation:
    """One retrain: what was expected of it, and what came."""

    request_id: str
    position: int
    evidence: str
    """What it was for: first, loss, growth, rule, alarm, labels or archive."""
    raw_gain: float | None
    """What was lost or promised, per record; None: it was unknown."""
    gain: float | None
    """Of that, what was expected to come."""
    horizon_records: float | None = None
    chance: float = 0.0
    """That it answers a change of the data."""
    cost_records: float | None = None
    """What it was expected to cost, in records' worth of the baseline's loss."""
    version: str | None = None
    """The challenger, once there is one."""
    replaced: str | None = None
    """The champion that it replaced; None where it was not promoted."""
    compared: float | None = None
    """Its gain on the hold-out; 0 where it was not promoted, since nothing came of it."""
    followed: float | None = None
    """Its mean gain over the records that came after."""
    followed_records: int = 0

    @property
    def realised(self) -> float | None:
        """What came, per record; None: it is not known yet."""
        if self.followed is not None and self.followed_records >= FEWEST_FOLLOWED:
            return self.followed
        return self.compared

    def follow(self, gain: float, records: int) -> Expectation:
        """The same after so many more records with this mean gain."""
        known = (self.followed or 0.0) * self.followed_records
        records_all = self.followed_records + records
        if records_all <= 0:
            return self
        mean = (known + gain * records) / records_all
        return replace(self, followed=mean, followed_records=records_all)


@dataclass(frozen=True)
class Level:
    """What the last comparison showed to be attainable."""

    version: str
    """The champion after it."""
    position: int
    loss: float
    """The champion's on that hold-out, as a share of the baseline's."""
    unit: float
    """The baseline's loss on it, in the pipeline's metric."""
    rows: int
    """Rows of the present concept that the challenger could be fitted on."""
    held: int
    """Rows that were held out."""
    deficit: float = 0.0
    """How far the challenger lost against the champion; 0 where it was promoted."""


@dataclass(frozen=True)
class Change:
    """A change of the data that a retrain, or an archived version, has answered."""

    position: int
    served: str | None
    """The champion before it, which knows the concept that ended."""
    chance: float = 1.0
    """That it was one."""


@dataclass(frozen=True)
class Candidate:
    """A challenger that won, and waits for a person's word."""

    version: str
    since: int
    """Position at which it won."""
    gain: float | None
    """Against the champion, as a share of the baseline's loss; None without a champion."""
    because: str


@dataclass(frozen=True)
class Memory:
    """All that is remembered."""

    expectations: tuple[Expectation, ...] = ()
    """The newest last."""
    sizes: tuple[SizeScore, ...] = ()
    level: Level | None = None
    changes: tuple[Change, ...] = ()
    loss_since: int | None = None
    """Where the loss may have begun: the last check without one; None: there is none now."""
    look_again_at: int | None = None
    """Position at which a retrain was expected to pay."""
    candidate: Candidate | None = None
    blend: BlendValue | None = None
    """What the champion adds to the blend, as it was measured last; None: it never was."""
    unfitted: bool = False
    """Whether the last request ended without a challenger."""

    def curve(self, began: int = 0) -> LearningCurve | None:
        """What more rows of the concept that `began` there would save."""
        return learning_curve.fit(self.sizes, began)

    @property
    def newest(self) -> Expectation | None:
        """The last retrain."""
        return self.expectations[-1] if self.expectations else None

    def served(self, gain: float) -> float:
        """What is served gains where the champion's own loss falls by so much."""
        return gain if self.blend is None else self.blend.gain(gain)

    def ahead_by(self, gain: float | None) -> Memory:
        """With another champion, which loses so much less by itself than the one before."""
        if self.blend is None or gain is None:
            return self
        return replace(self, blend=self.blend._replace(ahead=self.blend.ahead + gain))

    def share_that_comes(self, evidence: str) -> float:
        """The share of what is lost, or promised by growth, that past retrains brought."""
        pairs = [
            Pair(each.raw_gain, each.realised)
            for each in self.expectations
            if each.evidence == evidence and each.raw_gain is not None and each.realised is not None
        ]
        return calibration.share_that_comes(pairs[-RECENT:], PRIOR_SHARE, PRIOR_WEIGHT)

    @property
    def calibration(self) -> Calibration:
        """How well the expectations agree with what came."""
        return calibration.of(
            [
                Pair(each.gain, each.realised)
                for each in self.expectations
                if each.gain is not None and each.realised is not None
            ]
        )

    def expect(self, expectation: Expectation) -> Memory:
        """With one more retrain that was asked for."""
        return replace(self, expectations=(*self.expectations, expectation)[-KEPT:])

    def settle(self, request_id: str, **known: object) -> Memory:
        """With what became known of the retrain of this request; without effect where none is."""
        return replace(
            self,
            expectations=tuple(
                replace(each, **known) if each.request_id == request_id else each  # type: ignore[arg-type]
                for each in self.expectations
            ),
        )

    def by_hand(self, version: str | None, before: str | None) -> Memory:
        """After a person changed the champion: no candidate was compared with this one."""
        waited = self.candidate
        known = replace(self, candidate=None)
        if waited is None or waited.version != version:
            return known
        return replace(
            known,
            expectations=tuple(
                replace(each, replaced=before, compared=waited.gain)
                if each.version == version
                else each
                for each in self.expectations
            ),
        )

    def changed(self, change: Change) -> Memory:
        """With one more change of the data; none is before an earlier one."""
        if change.chance <= 0:
            return self
        if self.changes and change.position <= self.changes[-1].position:
            return replace(self, loss_since=None)
        return replace(self, changes=(*self.changes, change)[-KEPT:], loss_since=None)

    @property
    def season(self) -> Season | None:
        """Whether versions have served again at regular intervals."""
        return season.of(
            (each.version, each.position)
            for each in self.expectations
            if each.version is not None
            and (each.replaced is not None or each.evidence in ("first", "archive"))
        )

    @property
    def last_change(self) -> int | None:
        """Position of the last change that was rather one than noise."""
        sure = (each.position for each in reversed(self.changes) if each.chance >= 0.5)
        return next(sure, None)

    def archive(self, versions: Sequence[str]) -> list[str]:
        """These versions, by age, in the order to score: those that served before a change first.

        They know a concept that may come back. Then come the others, the newest first.
        """
        served = [each.served for each in reversed(self.changes)]
        ranked = dict.fromkeys(
            [*(each for each in served if each in set(versions)), *reversed(versions)]
        )
        return [each for each in ranked if each is not None]

    def scored(self, sizes: Sequence[SizeScore], level: Level) -> Memory:
        """With the models of one more challenge, the challenger last, and what it showed."""
        return replace(self, sizes=(*self.sizes, *sizes)[-KEPT_SIZES:], level=level)
