"""Published numbers: whole, each with its paper, and as their papers have them."""

import math
import re
from dataclasses import replace

import pytest

from zo_runner.errors import UserError
from zo_runner.reporting.tables import published

EXPECTED = {
    "mezo_opt_13b",
    "lozo_opt_13b",
    "subzero_opt_13b",
    "bszo_opt_1.3b",
    "aim_zo_opt_2.7b",
    "aim_zo_opt_13b",
    "aim_zo_qwen3_0.6b",
    "aim_zo_qwen3_8b",
}


def test_every_block_can_be_named_and_read():
    assert set(published.names()) == EXPECTED
    assert [block.name for block in published.blocks(published.names())] == published.names()


@pytest.mark.parametrize("name", sorted(EXPECTED))
def test_every_block_says_where_it_is_from_and_what_is_different(name):
    (block,) = published.blocks([name])
    assert len(block.difference) > 40
    assert len(block.protocol) > 40
    assert block.paper
    assert block.model
    assert block.arxiv is None or re.fullmatch(r"\d{4}\.\d{5}", block.arxiv)
    assert block.arxiv is None or f"arXiv:{block.arxiv}" in block.source
    assert len(set(block.columns)) == len(block.columns)
    for values in block.rows.values():
        assert len(values) == len(block.columns)
        assert all(math.isnan(value) or 0 <= value <= 100 for value in values)
    text = published.markdown(block)
    for told in (block.source, block.protocol, block.difference, block.model, *block.rows, *block.columns):
        assert told in text
    assert published.frame(block).shape == (len(block.rows), 1 + len(block.columns))
    assert published.latex(block).isascii()
    assert published.latex(block).count(r"\toprule") == 1


def test_a_source_that_was_not_read_itself_says_so():
    (block,) = published.blocks(["subzero_opt_13b"])
    assert block.secondary
    assert block.source.endswith("read in a summary of the paper")
    assert [each.name for each in published.blocks(published.names()) if each.secondary] == ["subzero_opt_13b"]


@pytest.mark.parametrize(
    ("name", "row", "task", "number"),
    [
        ("mezo_opt_13b", "MeZO (LoRA)", "RTE", 67.9),
        ("mezo_opt_13b", "MeZO", "SQuAD", 84.7),
        ("mezo_opt_13b", "zero-shot", "SST2", 58.8),
        ("lozo_opt_13b", "LOZO", "CB", 69.6),
        ("subzero_opt_13b", "MeZO (LoRA)", "RTE", 74.4),
        ("bszo_opt_1.3b", "BSZO", "TREC", 87.0),
        ("aim_zo_opt_2.7b", "LOZO", "SQuAD", 43.52),
        ("aim_zo_opt_13b", "MeZO", "SQuAD", 58.64),
        ("aim_zo_qwen3_0.6b", "MeZO", "RTE", 77.62),
        ("aim_zo_qwen3_8b", "zero-shot", "MultiRC", 72.77),
    ],
)
def test_numbers_stand_under_their_task(name, row, task, number):
    (block,) = published.blocks([name])
    frame = published.frame(block).set_index("method")
    assert frame[task][row] == number


def test_a_gap_is_a_dash():
    (block,) = published.blocks(["bszo_opt_1.3b"])
    gap = replace(block, columns=("A", "B"), rows={"x": (1.5, math.nan), "y": (0.0, 100.0)})
    assert published.markdown(gap).splitlines()[-2:] == ["| x        | 1.5 | -   |", "| y        | 0.0 | 100 |"]


def test_columns_have_the_decimals_of_their_paper():
    (block,) = published.blocks(["bszo_opt_1.3b"])
    assert "| BSZO     | 92.43  | 66.79 | 79     | 59.88 | 64.42 | 87.0   |" in published.markdown(block)


def test_blocks_come_in_the_order_they_are_asked_for():
    names = ["lozo_opt_13b", "bszo_opt_1.3b"]
    assert [block.name for block in published.blocks(names[::-1])] == names[::-1]
    assert published.blocks([]) == []


def test_an_unknown_name_is_answered_with_the_known_ones():
    with pytest.raises(UserError) as error:
        published.blocks(["mezo_opt_13b", "mezo"])
    assert str(error.value).startswith("Invalid sweep.published: 'mezo'. Must be one of ")
    assert all(name in str(error.value) for name in EXPECTED)
