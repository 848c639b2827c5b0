"""What a person may decide on the page, by the same functions as the commands of that name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Literal

from models.persistence.signing import SigningKey
from models.registry import by_hand
from models.registry.registry import Registry
from observability.core.errors import BadConfiguration
from observability.core.paths import Places
from power.policy import override_by_hand

Form = Mapping[str, str]
"""The fields of a form, as they came."""


def promote(home: Places, pipeline: str, form: Form, now: datetime) -> str:
    """`thermodrift models promote`. Raises what `by_hand.promote` raises."""
    changed = by_hand.promote(home, _registry(home, pipeline), form.get("version", "").strip())
    return f"{changed.version} serves from now on; before: {changed.before or 'none'}."


def rollback(home: Places, pipeline: str, form: Form, now: datetime) -> str:
    """`thermodrift models rollback`. Raises what `by_hand.rollback` raises."""
    changed = by_hand.rollback(home, _registry(home, pipeline))
    return f"{changed.version} serves from now on; before: {changed.before or 'none'}."


def override(home: Places, pipeline: str, form: Form, now: datetime) -> str:
    """`thermodrift gate override set`. Raises BadConfiguration for a form that does not fit."""
    words: Mapping[str, Literal["open", "closed"]] = {"open": "open", "closed": "closed"}
    word = words.get(form.get("answer", ""))
    if word is None:
        raise BadConfiguration(f"the gate is kept open or closed; came: {form.get('answer')!r}")
    try:
        for_s = 60 * float(form.get("minutes", ""))
    except ValueError as error:
        raise BadConfiguration(
            f"minutes is a number, such as 60; came: {form.get('minutes')!r}"
        ) from error
    found = override_by_hand.answer(home, word, form.get("because", ""), for_s, now)
    return f"The gate is {found.answer} until {found.until_text}: {found.because}"


def take_back(home: Places, pipeline: str, form: Form, now: datetime) -> str:
    """`thermodrift gate override clear`."""
    if override_by_hand.take_back(home, now):
        return "The override was taken back: the gate answers by itself."
    return "There was no override: the gate answers by itself."


ACTIONS: Mapping[str, Callable[[Places, str, Form, datetime], str]] = {
    "promote": promote,
    "rollback": rollback,
    "override": override,
    "take-back": take_back,
}
"""By the last part of the address: what is done; each returns a sentence about it."""


def _registry(home: Places, pipeline: str) -> Registry:
    return Registry(home.pipeline(pipeline), SigningKey.open(home.key))
