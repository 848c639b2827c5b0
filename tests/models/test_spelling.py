"""How numbers are written for people, and that a sample tells which way."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models import spelling
from models.spelling import PLAIN, Decimal, Spelling, Thousands

GERMAN = Spelling(decimal=",", thousands=".")
PERCENT = Spelling(decimal=",", sign="%")
DOLLARS = Spelling(thousands=",", sign="$")


@pytest.mark.parametrize(
    ("spelt", "text", "expected"),
    [
        (PLAIN, "-12.5", "-12.5"),
        (PLAIN, "\u22125", "-5"),
        (PLAIN, "12-", "-12"),
        (PLAIN, "(12)", "-12"),
        (PLAIN, "1,5", None),
        (PLAIN, "5 %", None),
        (PLAIN, "--5", None),
        (PLAIN, "", None),
        (PLAIN, "abc", None),
        (GERMAN, "1.234,5", "1234.5"),
        (GERMAN, "-0,189", "-0.189"),
        (GERMAN, "1.5", None),
        (GERMAN, "1,5E+03", "1.5E+03"),
        (PERCENT, "12,5 %", "12.5"),
        (PERCENT, "12,5%", "12.5"),
        (PERCENT, "12,5", None),
        (DOLLARS, "$1,234.50", "1234.50"),
        (DOLLARS, "-$1,234", "-1234"),
        (DOLLARS, "$-5", "-5"),
        (DOLLARS, "($5.00)", "-5.00"),
        (DOLLARS, "1,234", "1234"),
        (DOLLARS, "€5", None),
        (Spelling(thousands="'", sign="CHF"), "CHF 1\u2019234.50", "1234.50"),
        (Spelling(decimal=",", thousands=" ", sign="€"), "1\u202f234,5\u00a0€", "1234.5"),
        (Spelling(sign="kr."), "5 kr.", "5"),
        (Spelling(sign="Fr."), "Fr. 12", "12"),
        (Spelling(thousands=","), "12,34", None),
        (Spelling(thousands=","), "0,123", None),
    ],
)
def test_a_text_is_a_number_in_its_columns_spelling_or_it_is_none(
    spelt: Spelling, text: str, expected: str | None
) -> None:
    """Another way of writing is never guessed at: 12 is not 12 %."""
    assert expected == spelt.plain(text)


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        (["12,5", "1.234,5", "0,123"], {",": 3}),
        (["12.5", "1,234.5", "1,234,567"], {".": 3}),
        (["1,234", "12", "-5", "x"], {}),
    ],
)
def test_cells_that_can_be_read_one_way_decide(texts: list[str], expected: dict[str, int]) -> None:
    """1,234 alone decides nothing."""
    assert expected == dict(spelling.decisive(texts))


def test_what_can_be_read_two_ways_is_found() -> None:
    """For the question to a person."""
    assert "1,234" == spelling.ambiguous(["12", "1,234"])
    assert spelling.ambiguous(["12,5", "1.234"]) is None


@pytest.mark.parametrize(
    ("texts", "decimal", "expected"),
    [
        (["1,234.50", "12"], ".", Spelling(thousands=",")),
        (["1.234,50", "12"], ",", GERMAN),
        (["12,5 %", "3 %"], ",", PERCENT),
        (["$1,234.50", "$2"], ".", DOLLARS),
        (["1 234 567", "2"], ".", Spelling(thousands=" ")),
        (["1.5", "2"], ".", PLAIN),
    ],
)
def test_the_spelling_of_a_sample_is_found(
    texts: list[str], decimal: Decimal, expected: Spelling
) -> None:
    """Groups and signs that most of the cells have."""
    assert expected == spelling.infer(texts, decimal)


def test_a_persons_word_on_groups_is_kept() -> None:
    """stream.thousands is not found out anew."""
    assert Spelling(decimal=",") == spelling.infer(["1.234,5"], ",", "")


def test_a_spelling_says_what_is_special() -> None:
    """For the table of columns; plain numbers need no word."""
    assert "" == PLAIN.told
    assert (
        "decimal comma, thousands '.', in €" == Spelling(decimal=",", thousands=".", sign="€").told
    )


def written(value: float, spelt: Spelling) -> str:
    """The number as a spreadsheet of that spelling writes it, to four decimals."""
    text = f"{abs(value):,.4f}".replace(",", "T").replace(".", spelt.decimal)
    text = text.replace("T", spelt.thousands)
    sign = "-" if value < 0 else ""
    return f"{sign}{text} {spelt.sign}".rstrip()


@given(
    st.floats(-1e9, 1e9),
    st.sampled_from([".", ","]),
    st.sampled_from(["", ",", ".", " ", "'"]),
    st.sampled_from(["", "%", "€", "CHF"]),
)
def test_what_a_spreadsheet_writes_is_read_back(
    value: float, decimal: Decimal, thousands: Thousands, sign: str
) -> None:
    """Whatever the marks are, as long as they differ."""
    if decimal == thousands:
        return
    spelt = Spelling(decimal=decimal, thousands=thousands, sign=sign)
    plain = spelt.plain(written(value, spelt))
    assert plain is not None
    assert math.isclose(float(plain), value, abs_tol=1e-4)


@given(st.text(max_size=12), st.sampled_from([PLAIN, GERMAN, PERCENT, DOLLARS]))
def test_whatever_comes_is_a_number_or_none(text: str, spelt: Spelling) -> None:
    """What is answered, `float` reads; nothing raises."""
    plain = spelt.plain(text)
    assert plain is None or math.isfinite(float(plain)) or "e" in plain.lower()
