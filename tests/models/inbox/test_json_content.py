"""JSON values come back exactly, or are refused."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.inbox import json_content
from models.inbox.errors import InvalidContent
from tests.models.inbox.makers import FILE, make_answered, new

PLAIN = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters())
    | st.sampled_from(["01", "1.0", "nan", "null", "\0", "\ud800"])
)
JSON = st.recursive(
    PLAIN, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=6
)
CONTENT = st.dictionaries(st.text(), JSON, max_size=6)


@given(CONTENT)
def test_content_comes_back_as_it_was(content: dict[str, Any]) -> None:
    """In value, type, sign of zero and order: repr tells 1 from 1.0 and True, and 0.0 from -0.0."""
    text = json_content.encode(content, "features")
    assert text.isascii()
    assert repr(content) == repr(json_content.decode(text))


@given(st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text())
def test_a_label_comes_back_as_it_was(label: int | float | str) -> None:
    """An int stays an int, "01" stays text, and a float keeps every bit."""
    assert repr(label) == repr(json_content.decode(json_content.encode_label(label, "a")))


@settings(max_examples=20)
@given(st.lists(st.tuples(CONTENT, st.text() | st.integers()), min_size=1, max_size=5))
def test_what_was_stored_comes_back_as_it_was(
    tmp_path_factory: pytest.TempPathFactory, given_: list[tuple[dict[str, Any], Any]]
) -> None:
    """Through the file, closed and opened again."""
    folder = tmp_path_factory.mktemp("inbox")
    answered = [
        make_answered(f"p{index}")._replace(features=content, answers=content, versions=content)
        for index, (content, _) in enumerate(given_)
    ]
    with new(folder) as inbox:
        inbox.record(answered)
    with new(folder) as inbox:
        inbox.record(answered)
        inbox.label([(f"p{index}", label) for index, (_, label) in enumerate(given_)], 200.0)
    with new(folder) as inbox:
        joined = inbox.joined(0, 100)
    assert (folder / FILE).exists()
    expected = [(content, content, content, label) for content, label in given_]
    assert repr(expected) == repr([(*each[5:], each.label) for each in joined])


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=256))
def test_an_id_is_any_text_that_utf8_can_write(id_: str) -> None:
    """What is accepted is found again, also with a zero in it."""
    json_content.check_id(id_)
    id_.encode()


@given(CONTENT, CONTENT, st.floats(0, 1e10), st.floats(0, 1e10))
def test_a_digest_is_equal_for_equal_content_alone(
    one: dict[str, Any], other: dict[str, Any], first_at: float, second_at: float
) -> None:
    """The order of keys does not count, and types do."""

    def canonical(content: dict[str, Any]) -> str:
        return json_content.encode(dict(sorted(content.items())), "features")

    def digest(at: float, content: dict[str, Any]) -> bytes:
        return json_content.digest(at, json_content.encode(content, "features"))

    assert digest(first_at, one) == digest(first_at, dict(reversed(one.items())))
    if canonical(one) != canonical(other) and repr(one) != repr(other) and one != other:
        assert digest(first_at, one) != digest(first_at, other)
    if first_at != second_at:
        assert digest(first_at, one) != digest(second_at, one)


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        (1, 1, True),
        (1, 1.0, True),
        ("1", "1", True),
        (1, "1", False),
        (1, True, False),
        (0, False, False),
        (0.0, -0.0, True),
        (2**53, 2**53 + 1, False),
        ("a", "A", False),
    ],
)
def test_labels_are_one_by_value(first: Any, second: Any, expected: bool) -> None:
    """A client that writes 1 for 1.0 has not changed its mind; one that writes "1" has."""
    texts = [json_content.encode_label(each, "a") for each in (first, second)]
    assert expected == json_content.is_same_label(*texts)


def nested(depth: int) -> dict[str, Any]:
    """Dicts within dicts."""
    value: dict[str, Any] = {}
    for _ in range(depth):
        value = {"a": value}
    return value


@pytest.mark.parametrize(
    ("content", "named"),
    [
        ({"price": math.nan}, r"features\['price'\] is nan.*Send null"),
        ({"a": [1, {"b": -math.inf}]}, r"features\['a'\]\[1\]\['b'\] is -inf"),
        ({"a": {1, 2}}, r"features\['a'\] is of type set"),
        ({"a": b"1"}, "of type bytes"),
        ({1: "a"}, "features has the key 1"),
        (nested(200), "nested deeper than 64 levels"),
        (nested(100_000), "nested deeper than 64 levels"),
        ({"a": 10**5_000}, "cannot be written as JSON"),
    ],
)
def test_what_would_not_come_back_is_refused_by_name(content: Any, named: str) -> None:
    """The message says where, what came, and what to do."""
    with pytest.raises(InvalidContent, match=named):
        json_content.encode(content, "features")


def test_what_is_just_deep_enough_comes_back() -> None:
    """The bound leaves room for what people send."""
    assert nested(63) == json_content.decode(json_content.encode(nested(63), "features"))


@pytest.mark.parametrize("moment", [math.nan, math.inf, "now", None, True])
def test_a_moment_is_a_finite_number(moment: Any) -> None:
    """A clock that failed is noticed at the door."""
    with pytest.raises(InvalidContent, match="seconds since 1970"):
        json_content.check_moment(moment, "the moment")
