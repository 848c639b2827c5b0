"""Labels that leave what was known are noticed at once; what is seldom is not."""

from __future__ import annotations

import random
from collections.abc import Iterable

import pytest

from models.core.record_schema import Label
from models.online import novelty
from models.online.novelty import Novelty


def news(seen: Novelty, labels: Iterable[Label]) -> list[int]:
    """The places at which a change was sure."""
    return [place for place, label in enumerate(labels) if seen.learn(label)]


def test_a_class_that_is_new_and_comes_often_is_a_change_since_its_first_record() -> None:
    """It is sure with the tenth, and told once."""
    labels: list[Label] = [*["a", "b"] * 500, *["a", "new"] * 100]
    seen = Novelty("classification")
    assert [1_019] == news(seen, labels)
    assert 1_001 == seen.changed_at
    assert "the class 'new' is new: it came 10 times in 19 records" in seen.because


def test_classes_of_the_beginning_and_seldom_ones_are_no_change() -> None:
    """At first everything is new; and a class of one record in a hundred is no other world."""
    labels: list[Label] = [*"abcdefgh"] * 50
    labels += ["rare" if place % 100 == 0 else "a" for place in range(3_000)]
    assert [] == news(Novelty("classification"), labels)


@pytest.mark.parametrize("scale", [1_000.0, -1_000.0])
def test_a_target_that_leaves_its_range_is_a_change_since_the_first_value_out(
    scale: float,
) -> None:
    """Upwards and downwards; and the new range is known from then on."""
    chance = random.Random(1)
    labels: list[Label] = [chance.uniform(5, 15) for _ in range(1_000)]
    labels += [scale * chance.uniform(5, 15) for _ in range(500)]
    seen = Novelty("regression")
    assert [1_009] == news(seen, labels)
    assert 1_000 == seen.changed_at
    assert "10 of 10 values" in seen.because


def test_outliers_are_no_change() -> None:
    """One in a hundred is far out, and never ten within fifty records."""
    chance = random.Random(2)
    labels: list[Label] = [
        1e6 * place if place % 100 == 0 else chance.gauss(0, 1) for place in range(1, 5_000)
    ]
    assert [] == news(Novelty("regression"), labels)


def test_a_target_that_grows_slowly_is_no_change() -> None:
    """A trend widens the range as it goes."""
    assert [] == news(Novelty("regression"), [0.01 * place for place in range(20_000)])


def test_a_heavy_tail_is_no_change() -> None:
    """Values of a log-normal target, the largest a thousand times the median."""
    chance = random.Random(3)
    assert [] == news(Novelty("regression"), [chance.lognormvariate(0, 2) for _ in range(20_000)])


def test_nothing_is_kept_of_labels_but_counts() -> None:
    """However long a stream is, ten values are remembered."""
    seen = Novelty("regression")
    news(seen, [1e9 * (place % 60 == 0) * place for place in range(5_000)])
    assert len(seen._outside) <= novelty.CONFIRMED
