"""Texts of unknown origin stay texts: in prompts, tables and pages."""

import pandas as pd
import pytest

from zo_runner.errors import UserError
from zo_runner.reporting.tables import formats
from zo_runner.tasks.base import Template
from zo_runner.tasks.family import Fragment


@pytest.mark.parametrize(
    "text",
    [
        *(
            "{text.__class__}",
            "{text.__class__.__mro__[1]}",
            "{text[0]}",
            "{text!r}",
            "{text:>9999999999}",
            "{text:{text}}",
        ),
        *("{0}", "{}", "{0.__init__.__globals__}", "{text.__init__.__globals__[os].system}", "{ text }", "{text\0}"),
        "{a} {text.format}",
    ],
)
@pytest.mark.parametrize("kind", [Template, Fragment])
def test_a_template_takes_fields_by_name_and_nothing_from_them(text, kind):
    with pytest.raises(UserError, match=r"\AInvalid task\.template: "):
        kind(text, "task.template")


def test_what_a_row_says_is_not_a_template():
    row = {"text": "{text} {text.__class__} {{7*7}} {% x %} ${oc.env:HOME} %s", "other": "no"}
    assert Template("{text}!").render(row) == row["text"] + "!"


HOSTILE = [
    "a|b",
    "a\\|b",
    "a\\",
    "a\n| x |\n# b",
    "<script>alert(1)</script>",
    "<img src=x onerror=y>",
    "</td>",
    "<!-- x",
    "{{ 7*7 }}",
    r"\input{/etc/passwd}",
    r"\\[1in]\write18{x}",
    "%comment",
]


@pytest.mark.parametrize("text", HOSTILE)
def test_a_markdown_cell_stays_one_cell_of_text(text):
    table = formats.markdown(pd.DataFrame({text: [text, "x"], "other": ["1", "2"]}))
    lines = table.split("\n")
    assert len(lines) == 4
    for line in lines:
        # What a renderer does: an escaped character is a character, and every other bar ends a cell.
        bare = line.replace("\\\\", "").replace("\\|", "")
        assert bare.count("|") == 3


@pytest.mark.parametrize("text", HOSTILE)
def test_a_latex_cell_has_no_command_but_those_of_an_escape(text):
    known = ("textbackslash", "textbar", "textless", "textgreater", "textasciicircum", "textasciitilde")
    left = formats.escape(text)
    for command in known:
        left = left.replace(f"\\{command}{{}}", "")
    for char in "&%$#_{}":
        left = left.replace(f"\\{char}", "")
    assert not set(left) & set("\\&%$#_{}\n")
