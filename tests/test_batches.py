"""Batches: texts side by side, what sees what, and where each token of an option is predicted."""

import itertools
import random

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from zo_runner.models.batching import option_batch, side_by_side
from zo_runner.models.encoding import Encoded

BREAK_EVEN = 768  # of the pocket models
BRANCHING = Encoded((5, 6), ((1, 2, 3), (4,), (7, 8)), (1,))


def batch_of(*examples, break_even=BREAK_EVEN, extra_padding=0):
    return option_batch(examples, break_even=break_even, pad_id=0, device="cpu", extra_padding=extra_padding)


def predictors(batch, b, o):
    """(row, column) that predicts each token of an option."""
    kept = batch.keep_RK.shape[1]
    at = batch.at_BOS[b, o][batch.real_BOS[b, o]].tolist()
    return [(i // kept, int(batch.keep_RK[i // kept, i % kept])) for i in at]


def test_rows_of_one_text_are_padded_on_the_right_and_need_no_mask():
    batch = batch_of(
        Encoded((5, 6, 7), ((1,), (2,)), (1,)), Encoded((8,), ((9, 10, 11),)), break_even=None, extra_padding=1
    )
    assert batch.ids_RL.tolist() == [[5, 6, 7, 0], [8, 9, 10, 0]]
    assert batch.position_RL is batch.seen_R1LL is None
    assert [predictors(batch, 0, o) for o in (0, 1)] == [[(0, 2)], [(0, 2)]]
    assert predictors(batch, 1, 0) == [(1, 0), (1, 1), (1, 2)]
    assert batch.target_BOS.tolist() == [[[1, 0, 0], [2, 0, 0]], [[9, 10, 11], [0, 0, 0]]]
    assert batch.real_BOS.sum(-1).tolist() == [[1, 1], [3, 0]]
    assert batch.label_B.tolist() == [1, 0]
    assert (len(batch), batch.predicted, batch.tokens) == (2, 5, 6)


def test_a_text_that_may_not_branch_is_read_once_per_longer_option():
    batch = batch_of(BRANCHING, break_even=None)
    assert batch.ids_RL.tolist() == [[5, 6, 1, 2], [5, 6, 7, 0]]
    assert batch.seen_R1LL is None
    assert [predictors(batch, 0, o) for o in range(3)] == [[(0, 1), (0, 2), (0, 3)], [(0, 1)], [(1, 1), (1, 2)]]
    assert batch.tokens == 7


def test_branches_continue_the_prompt_and_see_it_and_themselves():
    batch = batch_of(Encoded((9,), ((9,),)), BRANCHING, extra_padding=1)
    assert batch.ids_RL.tolist() == [[9, 5, 6, 1, 2, 7, 0]]
    assert batch.position_RL.tolist() == [[0, 0, 1, 2, 3, 2, 0]]
    seen = [[k for k in range(7) if batch.seen_R1LL[0, 0, q, k]] for q in range(7)]
    assert seen == [[0], [1], [1, 2], [1, 2, 3], [1, 2, 3, 4], [1, 2, 5], [6]]
    assert [predictors(batch, 1, o) for o in range(3)] == [[(0, 2), (0, 3), (0, 4)], [(0, 2)], [(0, 2), (0, 5)]]
    assert (batch.tokens, batch.predicted) == (6, 7)


@settings(deadline=None)
@given(lengths=st.lists(st.integers(1, 60), min_size=1, max_size=12), break_even=st.integers(1, 5000))
def test_texts_side_by_side_are_all_there_and_cost_no_more_than_a_row_each_or_one_row(lengths, break_even):
    rows = side_by_side(lengths, break_even)
    assert sorted(itertools.chain(*rows)) == list(range(len(lengths)))
    assert rows == sorted(sorted(row) for row in rows)

    def cost(number, width):
        return number * width * (2 * break_even + width)  # but for what the texts themselves cost

    found = cost(len(rows), max(sum(lengths[i] for i in row) for row in rows))
    assert found <= min(cost(len(lengths), max(lengths)), cost(1, sum(lengths)))


def test_rows_are_wide_where_attention_is_cheap_and_narrow_where_it_is_dear():
    assert side_by_side([30, 29, 30, 28], 10**6) == [[0, 1, 2, 3]]
    assert side_by_side([30, 29, 30, 28], 1) == [[0], [1], [2], [3]]


def test_five_percent_of_tokens_are_padding_at_most_where_lengths_are_mixed():
    draw = random.Random(0)
    lengths = [[draw.randint(1, 60) for _ in range(16)] for _ in range(50)]
    widths = [[sum(batch[i] for i in row) for row in side_by_side(batch, BREAK_EVEN)] for batch in lengths]
    computed = sum(len(row) * max(row) for row in widths)
    assert 0.95 < sum(map(sum, lengths)) / computed < 1


def test_a_repeated_batch_is_all_rows_again_and_predicts_from_its_own_copy():
    batch = batch_of(BRANCHING, Encoded((8, 8, 8), ((9,),)))
    twice = batch.repeated(2)
    rows, examples = len(batch.ids_RL), len(batch)
    for name in ("ids_RL", "position_RL", "seen_R1LL", "keep_RK", "target_BOS", "real_BOS", "label_B"):
        assert torch.equal(getattr(twice, name), torch.cat([getattr(batch, name)] * 2)), name
    for b, o in itertools.product(range(examples), range(3)):
        again = predictors(twice, b + examples, o)
        assert again == [(row + rows, column) for row, column in predictors(batch, b, o)]
    assert (len(twice), twice.predicted, twice.tokens) == (4, 14, 2 * batch.tokens)
    assert batch_of(BRANCHING, break_even=None).repeated(3).seen_R1LL is None
