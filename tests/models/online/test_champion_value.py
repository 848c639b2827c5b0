"""What the champion adds: measured record by record, and forgotten with the champion."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.core.metrics import Measure
from models.online import prediction_rows
from models.online.blend import BlendConfig, ClassBlend, ValueBlend
from models.online.champion_value import BLOCK, BLOCKS, FEWEST, PARTS, ChampionValue
from models.online.prediction_rows import MemberRows
from tests.models.online.test_blend import sure

MAE = Measure("mae")


def values(gaps: Any) -> MemberRows:
    """Values that are so far from zero; NaN: no prediction."""
    return prediction_rows.of_values(np.asarray(gaps, dtype=np.float64))


def heard(count: int, served: float, rest: float, champion: float) -> ChampionValue:
    """After so many records with these errors, of labels that are zero."""
    made = ChampionValue()
    gaps = dict(zip(PARTS, (served, rest, champion), strict=True))
    made.learn([0.0] * count, {part: values([gap] * count) for part, gap in gaps.items()}, MAE)
    return made


def test_what_the_champion_adds_is_the_loss_without_it_less_that_with_it() -> None:
    """Means over the same records, and no error where all records are alike."""
    found = heard(FEWEST * BLOCK, served=1.0, rest=1.5, champion=2.0).value()
    assert found is not None
    assert (1.0, 1.5, 2.0, 0.0, FEWEST * BLOCK) == found
    assert found.adds == 0.5


def test_too_few_records_say_nothing() -> None:
    """A block that is not full yet counts as none."""
    assert heard(FEWEST * BLOCK - 1, 1.0, 1.5, 2.0).value() is None


def test_a_record_counts_where_all_three_predict_and_the_label_is_known() -> None:
    """A champion that is silent, or a label that never came, leaves no trace."""
    made = heard(FEWEST * BLOCK, 1.0, 1.5, 2.0)
    by = {part: values([math.nan if part == "champion" else 9.0] * BLOCK) for part in PARTS}
    made.learn([0.0] * BLOCK, by, MAE)
    made.learn([None] * BLOCK, {part: values([9.0] * BLOCK) for part in PARTS}, MAE)
    assert made.value() == heard(FEWEST * BLOCK, 1.0, 1.5, 2.0).value()


def test_another_champion_begins_anew() -> None:
    """What the one before has added says nothing of it."""
    made = heard(FEWEST * BLOCK, 1.0, 1.5, 2.0)
    made.begin_anew()
    assert made.value() is None


def test_only_the_newest_blocks_count() -> None:
    """A champion that added once, and does no more, adds nothing."""
    made = heard(BLOCKS * BLOCK, 1.0, 1.5, 2.0)
    made.learn(
        [0.0] * BLOCKS * BLOCK, {part: values([3.0] * BLOCKS * BLOCK) for part in PARTS}, MAE
    )
    found = made.value()
    assert found is not None
    assert (0.0, BLOCKS * BLOCK) == (found.adds, found.records)


def test_a_metric_that_is_no_mean_over_records_is_unknown() -> None:
    """There is no loss of one record by R2, so nothing is said instead of something wrong."""
    made = ChampionValue()
    made.learn([0.0] * 500, {part: values([1.0] * 500) for part in PARTS}, Measure("r2"))
    assert made.value() is None


@given(st.lists(st.integers(1, 400), min_size=1, max_size=6), st.integers(0, 10**6))
def test_how_records_were_divided_changes_nothing(sizes: list[int], seed: int) -> None:
    """A run that was stopped within a batch knows the same as one that was not."""
    gaps = np.random.default_rng(seed).random((sum(sizes), len(PARTS)))
    one, many = ChampionValue(), ChampionValue()
    one.learn([0.0] * len(gaps), {p: values(gaps[:, i]) for i, p in enumerate(PARTS)}, MAE)
    for end, size in zip(np.cumsum(sizes).tolist(), sizes, strict=True):
        part = gaps[end - size : end]
        many.learn([0.0] * size, {p: values(part[:, i]) for i, p in enumerate(PARTS)}, MAE)
    assert one.value() == many.value()


@pytest.mark.parametrize("champion", [0, 2])
def test_the_blend_without_the_champion_is_that_of_the_other_members(champion: int) -> None:
    """As if the champion had never been a member: its answers change nothing there."""
    chance = np.random.default_rng(3)
    labels = ["ab"[each] for each in chance.integers(0, 2, 400)]
    others = [
        [sure("ab"[each], share) for each in chance.integers(0, 2, 400)] for share in (0.6, 0.8)
    ]
    alone = ClassBlend(2, BlendConfig()).run(others, labels)
    answers = [*others]
    answers.insert(champion, [sure(label, 0.95) for label in labels])
    both = ClassBlend(3, BlendConfig(), champion).run(answers, labels)
    assert np.allclose(alone.served, both.rest, atol=1e-12)
    assert (alone.voted == both.rest_voted).all()
    assert both.served_losses.mean() < 0.2 < alone.served_losses.mean()
    plain = ClassBlend(3, BlendConfig()).run(answers, labels)
    assert np.allclose(plain.served, both.served, atol=1e-12)


def test_values_without_the_champion_are_those_of_the_other_members() -> None:
    """The same in regression; only the unit of a loss is that of all members."""
    chance = np.random.default_rng(4)
    labels = chance.normal(size=600)
    others = labels[:, None] + chance.normal(size=(600, 2)) * (0.5, 2.0)
    answers = np.concatenate([others, labels[:, None]], axis=1)
    both = ValueBlend(3, BlendConfig(), MAE, champion=2).run(answers, labels)
    alone = ValueBlend(2, BlendConfig(), MAE).run(others, labels)
    served, rest, other = (
        np.abs(each - labels)[300:].mean() for each in (both.served, both.rest, alone.served)
    )
    assert served < 0.05
    assert rest == pytest.approx(other, rel=0.05)
    plain = ValueBlend(3, BlendConfig(), MAE).run(answers, labels)
    assert np.allclose(plain.served, both.served, atol=1e-9)


def test_a_champion_that_predicts_alone_leaves_nothing_without_it() -> None:
    """Where no other member predicts, the blend without the champion predicts nothing."""
    both = ClassBlend(2, BlendConfig(), champion=1).run(
        [[None] * 3, [sure("a")] * 3], ["a", "a", "b"]
    )
    assert np.isnan(both.rest).all()
    assert [-1, -1, -1] == both.rest_voted.tolist()
    assert np.isfinite(both.served).all()
