"""Greedy answers, batched, with a cache of keys and values."""

from collections.abc import Sequence

import torch
from transformers import GenerationConfig, PreTrainedTokenizerBase

from zo_runner.models.likelihood import Model


def greedy_answers(
    model: Model,
    tokenizer: PreTrainedTokenizerBase,
    prefixes: Sequence[Sequence[int]],
    *,
    max_new_tokens: int,
    stop: Sequence[str],
) -> list[str]:
    """The most likely continuation of each prompt, token by token, without white space around it.

    Args:
        model: in eval mode.
        tokenizer: of the model.
        prefixes: token ids of the prompts.
        max_new_tokens: largest length of an answer.
        stop: texts that end an answer and do not belong to it; so does the end-of-sequence token.
    """
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else 0
    width = max(map(len, prefixes))
    # On the left, so that every prompt ends where its answer begins.
    ids = torch.tensor([[*[pad] * (width - len(row)), *row] for row in prefixes], device=model.device)
    mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in prefixes], device=model.device)
    # The checkpoint's own generation settings may sample; they are not taken over.
    settings = GenerationConfig(
        do_sample=False,
        max_new_tokens=max_new_tokens,
        pad_token_id=pad,
        eos_token_id=tokenizer.eos_token_id,
        stop_strings=list(stop) or None,
    )
    out: torch.Tensor = model.generate(  # type: ignore[operator]  # PEFT passes it on to the base
        input_ids=ids, attention_mask=mask, generation_config=settings, tokenizer=tokenizer
    )
    texts = tokenizer.batch_decode(out[:, width:], skip_special_tokens=True)
    return [_until(text, stop) for text in texts]


def _until(text: str, stop: Sequence[str]) -> str:
    ends = [position for position in (text.find(mark) for mark in stop) if position >= 0]
    return text[: min(ends, default=len(text))].strip()
