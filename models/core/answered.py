"""What a service answered for records of a batch, in the places of what would be answered now.

Pure computation. What was answered then is what the log shows, what is scored, and what the blend,
its stacks and the tests of errors hear. A member that did not answer then sleeps for that record,
and so does one that began anew since: another model had answered in its name.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from models.core.prediction import Answer, GivenAnswers, MemberAnswer

REST = "rest"
"""What would be served without the champion: it is kept with what was, and is no member."""


class Answered:
    """The records of a batch that a service had answered.

    `members` are those of the blend, in its order, and `since` says of some of them from which
    position of a checkpoint on they are the models that they are now. `champion` is the version
    that serves now.
    """

    def __init__(
        self,
        given: Sequence[GivenAnswers | None],
        members: Sequence[str],
        since: Mapping[str, int],
        champion: str | None,
    ) -> None:
        self.places = {place: each for place, each in enumerate(given) if each is not None}
        """What was answered, by the place of the record in the batch."""
        self._members = members
        self._since = since
        self.other_champion = [
            place for place, each in self.places.items() if each.champion != champion
        ]
        """The places at which another version than the one of now had answered, or none."""

    def heard(self, answers: Sequence[Sequence[Answer]]) -> list[Sequence[Answer]]:
        """What the blend hears, a column of answers for each member, as `answers` has them."""
        if not self.places:
            return [*answers]
        return [
            self._column(name, column) for name, column in zip(self._members, answers, strict=True)
        ]

    def by(self, name: str) -> dict[int, MemberAnswer | None]:
        """What was answered in a member's name, by place; None: nothing was."""
        return {place: each.members.get(name) for place, each in self.places.items()}

    def asleep(self) -> dict[str, int]:
        """For how many records each member sleeps, where it does for any."""
        counts = {
            name: sum(self._awake(name, each) is None for each in self.places.values())
            for name in self._members
        }
        return {name: count for name, count in counts.items() if count}

    def _column(self, name: str, answers: Sequence[Answer]) -> list[Answer]:
        column = [*answers]
        for place, each in self.places.items():
            awake = self._awake(name, each)
            column[place] = None if awake is None else awake.answer
        return column

    def _awake(self, name: str, given: GivenAnswers) -> MemberAnswer | None:
        """What counts as the answer of a member; None: it sleeps."""
        if given.position < self._since.get(name, 0):
            return None
        return given.members.get(name)
