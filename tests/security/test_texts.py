"""Texts of unknown origin stay texts: in prompts, tables and pages."""

import io

import pandas as pd
import pytest

from zo_runner.errors import UserError
from zo_runner.reporting.tables import formats, tables
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
    "=1+1",
    "@SUM(A1)",
    "+cmd|' /C calc'!A0",
    "-x",
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
        assert "<s" not in line
        assert "<i" not in line
        assert "</" not in line
        assert "<!" not in line


def test_a_number_below_a_limit_is_no_element():
    assert "<0.001" in formats.markdown(pd.DataFrame({"p": ["<0.001"]}))


@pytest.mark.parametrize("text", HOSTILE)
def test_a_latex_cell_has_no_command_but_those_of_an_escape(text):
    known = ("textbackslash", "textbar", "textless", "textgreater", "textasciicircum", "textasciitilde")
    left = formats.escape(text)
    for command in known:
        left = left.replace(f"\\{command}{{}}", "")
    for char in "&%$#_{}":
        left = left.replace(f"\\{char}", "")
    assert not set(left) & set("\\&%$#_{}\n")


@pytest.mark.parametrize("text", ["=1+1", "@SUM(A1)", "+cmd", "-x", "\t=1", "\r=1", "=HYPERLINK(1)"])
def test_a_spreadsheet_computes_no_text(text):
    assert formats.inert(text) == f"'{text}"


@pytest.mark.parametrize("value", ["a", "a=1", "-1.5", "-inf", "-.5", "-", "", -1.5, 3, None, True])
def test_other_cells_are_left(value):
    assert formats.inert(value) is value


def test_the_csv_of_results_with_hostile_names_reads_back_as_text(monkeypatch):
    frame = pd.DataFrame({"method": ["=1+1"], "score": [-0.5]})
    table = tables.Table("@task", "+model", "", "accuracy", frame, frame, "", (), (), "")
    back = pd.read_csv(io.StringIO(tables._csv([table], "scores")))
    assert back.iloc[0].tolist() == ["'@task", "'+model", "'=1+1", -0.5]
