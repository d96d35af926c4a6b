"""Texts as numbers: only what int() takes everywhere, and at a bounded length."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pluto_dist.serialization.text import parse_digits

NUMBERS = {"0": 0, "7": 7, "007": 7, "9" * 18: 10**18 - 1}
NONE = ("", "-1", "+1", " 1", "1\n", "1_0", "1.5", "x", "²", "①", "\u0663", "\uff11", "9" * 19, "9" * 5000)


@pytest.mark.parametrize(("text", "number"), [*NUMBERS.items(), *((text, None) for text in NONE)], ids=ascii)
def test_digits_are_a_number(text, number):
    """Digits of other scripts, signs and blanks are none, nor is what is longer than any number that is meant."""
    assert parse_digits(text) == number


@given(st.text())
def test_any_text_is_a_number_or_none(text):
    """No text raises."""
    assert parse_digits(text) in (None, int(text) if text.isascii() and text.isdigit() else None)


def test_the_limit_is_the_callers():
    assert (parse_digits("12345", most=5), parse_digits("123456", most=5)) == (12345, None)
