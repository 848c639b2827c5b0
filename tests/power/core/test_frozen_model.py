"""The base class of values: a copy changes fields that are there, and no others."""

from __future__ import annotations

import pytest

from tests.power.makers import make_reading


def test_a_copy_with_an_unknown_field_is_an_error() -> None:
    """Pydantic would take the name in silence, and the field would keep its old value."""
    reading = make_reading(margin_c=8.0)
    assert 9.0 == reading.model_copy(update={"margin_c": 9.0}).margin_c
    with pytest.raises(TypeError, match="'margin'"):
        reading.model_copy(update={"margin": 9.0})
