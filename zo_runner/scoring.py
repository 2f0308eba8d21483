"""Log-probabilities of options, from as few and as small forwards as they need. Shapes as in `batches`."""

import copy
from typing import Any

import torch
from peft import PeftModel
from transformers import PreTrainedModel

from zo_runner.batches import AnswerBatch, ChoiceBatch, Continuations

Model = PreTrainedModel | PeftModel

# How much a second forward may hold at once in copies of the prompts' keys and values, and in logits.
WORKSPACE_BYTES = 1 << 30


def option_log_probs(model: Model, batch: ChoiceBatch, points: int = 1) -> torch.Tensor:
    """Summed log p(option | prompt) in nats, [B, O] float32; -inf where there is no option.

    All options of an example share the forward of its prompt. The first token of each is read off its last position;
    what is left of longer options is read with the prompt's keys and values. Rows that are repeated for several points
    stay ordered by point in every forward.
    """
    last_B1 = batch.length_B[:, None] - 1
    out = model(input_ids=batch.ids_BT, use_cache=batch.rest is not None, logits_to_keep=last_B1)
    sums_BO = _log_softmax(out.logits)[:, 0].gather(1, batch.first_BO)
    if batch.rest is not None:
        rest_R = _continued(model, batch, batch.rest, out.past_key_values, points)
        sums_BO = sums_BO.index_put((batch.rest.row_R, batch.rest.option_R), rest_R, accumulate=True)
    return sums_BO.masked_fill(~batch.real_BO, -torch.inf)


def answer_log_probs(model: Model, batch: AnswerBatch) -> torch.Tensor:
    """log p(token | what precedes it) of every token of the answers in nats, [B, K] float32; 0 where there is none."""
    out = model(input_ids=batch.ids_BT, use_cache=False, logits_to_keep=batch.at_BK)
    return _of_targets(out.logits, batch.targets_BK, batch.real_BK)


def _continued(model: Model, batch: ChoiceBatch, rest: Continuations, cache: Any, points: int) -> torch.Tensor:
    """Summed log-probabilities of the options' tokens after the first, [R]."""
    rows, width = rest.ids_RS.shape
    examples, prompt_width = batch.ids_BT.shape
    cached = sum(layer.keys.nbytes + layer.values.nbytes for layer in cache.layers) // examples
    vocabulary = model.get_output_embeddings().weight.shape[0]
    at_once = max(1, WORKSPACE_BYTES // (cached + 4 * width * vocabulary) // points)
    by_point = torch.arange(rows, device=rest.row_R.device).view(points, -1)
    sums = []
    for index in by_point.split(at_once, dim=1):
        part = rest.rows(index.flatten())
        length_R1 = batch.length_B[part.row_R][:, None]
        seen = torch.arange(prompt_width, device=length_R1.device)[None, :] < length_R1
        out = model(
            input_ids=part.ids_RS,
            attention_mask=torch.cat([seen, part.real_RS], dim=1).long(),
            # Padding repeats a position, since one past the last that the model knows would be an error.
            position_ids=length_R1 + torch.arange(width, device=length_R1.device)[None, :] * part.real_RS,
            past_key_values=_selected(cache, part.row_R),
            use_cache=True,
        )
        sums.append(_of_targets(out.logits, part.targets_RS, part.real_RS).sum(dim=1).view(points, -1))
    return torch.cat(sums, dim=1).flatten()


def _selected(cache: Any, rows: torch.Tensor) -> Any:
    """A cache of some rows, which may repeat; the given one stays as it is."""
    chosen = copy.copy(cache)
    chosen.layers = [copy.copy(layer) for layer in cache.layers]
    for layer in chosen.layers:
        layer.batch_select_indices(rows.to(layer.keys.device))  # layers may be on several devices
    return chosen


def _of_targets(logits: torch.Tensor, targets: torch.Tensor, real: torch.Tensor) -> torch.Tensor:
    return _log_softmax(logits).gather(-1, targets[..., None])[..., 0].masked_fill(~real, 0.0)


def _log_softmax(logits: torch.Tensor) -> torch.Tensor:
    return logits.float().log_softmax(dim=-1)
