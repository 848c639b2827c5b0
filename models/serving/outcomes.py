"""What a service needs of an inbox: a protocol, and when a request is one that comes again. Pure.

The inbox of a pipeline keeps each prediction until its label comes (`models.inbox.inbox`). A
service depends on nothing more of it than this.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from models.core.record_schema import Label
from models.inbox import json_content
from models.inbox.errors import RecordConflict
from models.inbox.records import Answered, LabelResult


class PredictionInbox(Protocol):
    """Keeps predictions until their labels come; safe for use by several threads."""

    def record(self, given: Sequence[Answered]) -> None:
        """Keep these predictions; they are durable when this returns.

        All of them are kept, or none. Raises RecordConflict, another ValueError for what cannot be
        kept, and OSError where the disk refuses.
        """

    def find(self, ids: Sequence[str]) -> Mapping[str, Answered]:
        """The predictions of these ids that are kept, labelled or not; others are left out.

        Raises OSError where the disk refuses.
        """

    def label(self, truths: Sequence[tuple[str, Label]], at: float) -> Sequence[LabelResult]:
        """Join labels by id with their predictions, durably; `at` is in seconds since 1970."""

    def close(self) -> None:
        """Release the inbox's file."""


def features(sources: Sequence[str], record: Mapping[str, Any]) -> dict[str, Any]:
    """What is kept of a record: the columns `sources` of the stream, as they came.

    What the stream takes as missing, and JSON does not have or nests, is null.
    """
    return {name: _plain(record[name]) for name in sources if name in record}


def again(
    sources: Sequence[str],
    ids: Sequence[str],
    records: Sequence[Mapping[str, Any]],
    known: Mapping[str, Answered],
) -> list[Answered] | None:
    """What was answered to a request that comes again, as from a client that lost the answer.

    `known` are the predictions of its ids that are kept; None where there is none of them. Raises
    RecordConflict where an id was used with other features, where only some of the ids were used,
    or where they were used in requests that other versions answered.
    """
    used = [known[id_] for id_ in ids if id_ in known]
    if not used:
        return None
    for id_, record in zip(ids, records, strict=True):
        before = known.get(id_)
        if before is None:
            raise RecordConflict(used[0].id)
        if before.versions != used[0].versions or not _is_same(features(sources, record), before):
            raise RecordConflict(id_)
    return used


def _is_same(given: Mapping[str, Any], before: Answered) -> bool:
    """Whether the features are equal in value and type: 1 is neither 1.0 nor true."""
    texts = [json_content.encode(each, "features") for each in (given, before.features)]
    return texts[0] == texts[1]


def _plain(value: Any) -> Any:
    """A cell as it came; null for NaN, infinity, a list and an object, which no cell can be."""
    is_plain = value is None or isinstance(value, str | int)
    return value if is_plain or (isinstance(value, float) and math.isfinite(value)) else None
