"""How numbers are written for people, and that a sample tells which way."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.core import number_format
from models.core.number_format import PLAIN, Decimal, NumberFormat, Thousands

GERMAN = NumberFormat(decimal=",", thousands=".")
PERCENT = NumberFormat(decimal=",", sign="%")
DOLLARS = NumberFormat(thousands=",", sign="$")


@pytest.mark.parametrize(
    ("spelt", "text", "expected"),
    [
        (PLAIN, "-12.5", "-12.5"),
        (PLAIN, "\u22125", "-5"),
        (PLAIN, "120-", "-120"),
        (PLAIN, "(1.2)", "-1.2"),
        (PLAIN, "1,5", None),
        (PLAIN, "5 %", None),
        (PLAIN, "--5", None),
        (PLAIN, "", None),
        (PLAIN, "abc", None),
        (PLAIN, "1,234.50", "1234.50"),
        (PLAIN, "1,234", None),
        (PLAIN, "1.234,50", None),
        (NumberFormat(decimal=","), "1.234,50", "1234.50"),
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
        (NumberFormat(thousands="'", sign="CHF"), "CHF 1\u2019234.50", "1234.50"),
        (NumberFormat(decimal=",", thousands=" ", sign="€"), "1\u202f234,5\u00a0€", "1234.5"),
        (NumberFormat(sign="kr."), "5 kr.", "5"),
        (NumberFormat(sign="Fr."), "Fr. 12", "12"),
        (NumberFormat(thousands=","), "12,34", None),
        (NumberFormat(thousands=","), "0,123", None),
    ],
)
def test_a_text_is_a_number_in_its_columns_spelling_or_it_is_none(
    spelt: NumberFormat, text: str, expected: str | None
) -> None:
    """Another way of writing is never guessed at: 12 is not 12 %."""
    assert expected == spelt.plain(text)


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        (["12,5", "1.234,5", "0,123"], {",": 3}),
        (["12.5", "1,234.5", "1,234,567", "12.5"], {".": 4}),
        (["1,234", "12", "-5", "x"], {}),
    ],
)
def test_cells_that_can_be_read_one_way_decide(texts: list[str], expected: dict[str, int]) -> None:
    """1,234 alone decides nothing."""
    assert expected == dict(number_format.NumberSample(texts).votes())


def test_what_can_be_read_two_ways_is_found() -> None:
    """For the question to a person."""
    assert "1,234" == number_format.NumberSample(["12", "1,234"]).unclear(",")
    assert number_format.NumberSample(["12,5", "1.234"]).unclear(",") is None
    assert "1.234" == number_format.NumberSample(["12,5", "1.234"]).unclear(".")


@pytest.mark.parametrize(
    ("texts", "decimal", "expected"),
    [
        (["1,234.50", "12"], ".", NumberFormat(thousands=",")),
        (["1.234,50", "12"], ",", GERMAN),
        (["12,5 %", "3 %"], ",", PERCENT),
        (["$1,234.50", "2", "2", "2"], ".", DOLLARS),
        (["$2", "€2"], ".", PLAIN),
        (["1 234 567", "2"], ".", NumberFormat(thousands=" ")),
        (["1.5", "2"], ".", PLAIN),
    ],
)
def test_the_spelling_of_a_sample_is_found(
    texts: list[str], decimal: Decimal, expected: NumberFormat
) -> None:
    """Groups that some of the cells have, and one sign; of two signs nobody knows the rate."""
    assert expected == number_format.NumberSample(texts).spelling(decimal)


def test_a_persons_word_on_groups_is_kept() -> None:
    """stream.thousands is not found out anew."""
    assert NumberFormat(decimal=",") == number_format.NumberSample(["1.234,5"]).spelling(",", "")


def test_cells_are_counted_that_are_finite_numbers() -> None:
    """As often as they came; 1e999 is no number to calculate with."""
    sample = number_format.NumberSample(["1.5", "1.5", "1e999", "x", "1,5"])
    assert (5, 2) == (sample.total, sample.count(PLAIN))


def test_short_whole_numbers_with_a_minus_behind_are_no_numbers() -> None:
    """2- is a grade and (1) a footnote; 1,200- and (3.5) are amounts below zero."""
    assert [None, None] == [PLAIN.plain(text) for text in ("2-", "(1)")]
    assert ["-3.5", "-120"] == [PLAIN.plain(text) for text in ("(3.5)", "120-")]
    assert "120-" == number_format.NumberSample(["5", "120-"]).negative_behind()
    assert number_format.NumberSample(["5", "-120"]).negative_behind() is None


def test_a_long_text_is_looked_at_for_no_number() -> None:
    """The time for it would grow by the square of its length."""
    assert PLAIN.plain("1" * 64) == "1" * 64
    for text in ("'" + "x" * 200_000 + "'", "1" + " " * 200_000 + "(", "1" * 65):
        assert PLAIN.plain(text) is None


def test_a_spelling_says_what_is_special() -> None:
    """For the table of columns; plain numbers need no word."""
    assert "" == PLAIN.description
    assert (
        "decimal comma, thousands '.', in €"
        == NumberFormat(decimal=",", thousands=".", sign="€").description
    )


def written(value: float, spelt: NumberFormat) -> str:
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
    spelt = NumberFormat(decimal=decimal, thousands=thousands, sign=sign)
    plain = spelt.plain(written(value, spelt))
    assert plain is not None
    assert math.isclose(float(plain), value, abs_tol=1e-4)


@given(st.text(max_size=12), st.sampled_from([PLAIN, GERMAN, PERCENT, DOLLARS]))
def test_whatever_comes_is_a_number_or_none(text: str, spelt: NumberFormat) -> None:
    """What is answered, `float` reads; nothing raises."""
    plain = spelt.plain(text)
    assert plain is None or math.isfinite(float(plain)) or "e" in plain.lower()
