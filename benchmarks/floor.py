"""(b) The floor: two bare forwards of the frozen model, which compute no logits but those of the options' positions.

No adapter, no method, no ledger; the tensors are made before the clock starts. There are several ways to compute a
batch of mixed lengths; which is the fastest depends on the model and the machine, so each is tried and the fastest is
the floor:

    alone          every example in a forward of its own: no padding, little to do at once
    equal lengths  examples of one length in one forward: no padding
    packed         all examples in one row, their positions counted anew, a mask that keeps them apart: no padding, but
                   every token is compared with those of all examples
    padded         one forward over rows that are filled up to the longest
    halves         two such forwards, of the shorter and of the longer half of the examples
"""

import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch.nn.functional import cross_entropy

from benchmarks.rounds import TimedSteps, Variant
from benchmarks.settings import Work
from zo_runner.models.encoding import Encoded

TRIALS = 2

# Above it the packed row's mask alone is larger than a pocket model.
LONGEST_ROW = 2048


class Forward(NamedTuple):
    """Arguments of one forward, and the examples that its logits belong to, in order."""

    inputs: dict[str, Any]
    examples: Sequence[Encoded]


Way = Callable[[Sequence[Encoded]], list[Forward]]


def alone(batch: Sequence[Encoded]) -> list[Forward]:
    """Every example in a forward of its own."""
    return [Forward({"input_ids": torch.tensor([example.prefix]), "logits_to_keep": 1}, [example]) for example in batch]


def equal_lengths(batch: Sequence[Encoded]) -> list[Forward]:
    """Examples of one length in one forward."""
    groups: dict[int, list[Encoded]] = {}
    for example in batch:
        groups.setdefault(example.length, []).append(example)
    return [
        Forward({"input_ids": torch.tensor([example.prefix for example in group]), "logits_to_keep": 1}, group)
        for group in groups.values()
    ]


def packed(batch: Sequence[Encoded]) -> list[Forward]:
    """All examples in one row."""
    lengths = torch.tensor([example.length for example in batch])
    owner = torch.repeat_interleave(lengths)
    positions = torch.cat([torch.arange(example.length) for example in batch])
    inputs = {
        "input_ids": torch.tensor([[token for example in batch for token in example.prefix]]),
        "position_ids": positions[None],
        "attention_mask": torch.tril(owner[:, None] == owner[None, :])[None, None],
        "logits_to_keep": lengths.cumsum(0) - 1,
    }
    return [Forward(inputs, batch)]


def padded(batch: Sequence[Encoded]) -> list[Forward]:
    """One forward over rows that are filled up on the right, where nothing sees it."""
    width = max(example.length for example in batch)
    ids = [[*example.prefix, *[0] * (width - example.length)] for example in batch]
    last = torch.tensor([[example.length - 1] for example in batch])
    return [Forward({"input_ids": torch.tensor(ids), "logits_to_keep": last}, batch)]


def halves(batch: Sequence[Encoded]) -> list[Forward]:
    """Two forwards over rows that are filled up on the right."""
    by_length = sorted(batch, key=lambda example: example.length)
    middle = len(batch) // 2
    return [*padded(by_length[:middle]), *padded(by_length[middle:])]


WAYS: dict[str, Way] = {
    "alone": alone,
    "equal lengths": equal_lengths,
    "packed": packed,
    "padded": padded,
    "halves": halves,
}


def fastest(work: Work, trial: range) -> str:
    """The name of the way that is fastest over the steps of `trial`."""
    if work.size == 1:
        return "alone"
    total = max(sum(example.length for example in batch) for batch in work.batches(trial))
    ways = {name: pairs(work, way) for name, way in WAYS.items() if way is not packed or total <= LONGEST_ROW}
    best = {name: min(take(trial).seconds for _ in range(TRIALS)) for name, take in ways.items()}
    return min(best, key=best.__getitem__)


def pairs(work: Work, way: Way) -> Variant:
    """Pairs of bare forwards in one way."""
    model: Any = work.setting.bare()

    @torch.inference_mode()
    def take(steps: range) -> TimedSteps:
        batches, read = [way(batch) for batch in work.batches(steps)], []
        start = time.perf_counter()
        for forwards in batches:
            for _ in range(2):
                logits = [model(**forward.inputs, use_cache=False).logits for forward in forwards]
            read.append(logits)
        seconds = (time.perf_counter() - start) / len(steps)
        return TimedSteps(seconds, list(map(_loss, batches, read)))

    return take


def copies(work: Work, count: int) -> Variant:
    """One bare forward of `count` copies of each batch: the least that so many points of it can take."""
    model: Any = work.setting.bare()

    @torch.inference_mode()
    def take(steps: range) -> TimedSteps:
        forwards, read = [equal_lengths([*batch] * count) for batch in work.batches(steps)], []
        start = time.perf_counter()
        for parts in forwards:
            read.append([model(**part.inputs, use_cache=False).logits for part in parts])
        seconds = (time.perf_counter() - start) / len(steps)
        return TimedSteps(seconds, list(map(_loss, forwards, read)))

    return take


def _loss(forwards: Sequence[Forward], logits: Sequence[torch.Tensor]) -> float:
    """Mean cross-entropy over options of one token each, whose shared normaliser cancels."""
    total = count = 0
    for forward, values in zip(forwards, logits, strict=True):
        options = torch.tensor([[token for (token,) in example.options] for example in forward.examples])
        labels = torch.tensor([example.correct[0] for example in forward.examples])
        rows = values.reshape(len(forward.examples), -1)
        total += float(cross_entropy(rows.gather(1, options), labels, reduction="sum"))
        count += len(labels)
    return total / count
