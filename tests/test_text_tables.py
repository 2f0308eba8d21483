"""Texts in tables: one line each, and never a command of the format they stand in."""

import math

import pytest

from zo_runner.reporting.tables import formats


@pytest.mark.parametrize(
    ("value", "form", "text"),
    [
        (1.25, ".1f", "1.2"),
        (math.nan, ".1f", "-"),
        (math.inf, ".1f", "∞"),
        (-math.inf, "+.1f", "-∞"),
        (-0.04, "z.1f", "0.0"),
        (3.0, "#.3g", "3.00"),
        (300.0, "#.3g", "300"),
        ("word", "", "word"),
    ],
)
def test_a_number_is_shown_in_its_form_and_without_nan(value, form, text):
    assert formats.number(value, form) == text


@pytest.mark.parametrize(
    ("text", "escaped"),
    [
        ("50% of a_b & #c", r"50\% of a\_b \& \#c"),
        (r"\input{x}", r"\textbackslash{}input\{x\}"),
        ("-∞ ± 3", r"$-\infty$ $\pm$ 3"),
        ("-0.5, a-1, 2-3", "$-$0.5, a-1, 2-3"),
        ("x < 1 > 0 | y", r"x \textless{} 1 \textgreater{} 0 \textbar{} y"),
        ("3 × 2", r"3 $\times$ 2"),
        ("two\nlines\tand  more", "two lines and more"),
        ("~^$", r"\textasciitilde{}\textasciicircum{}\$"),
    ],
)
def test_latex_takes_no_text_for_a_command(text, escaped):
    assert formats.escape(text) == escaped
