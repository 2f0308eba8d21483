"""Log-probabilities of options, from one forward and few logits. Shapes as in `batching`."""

import torch
from peft import PeftModel
from transformers import PreTrainedModel

from zo_runner.models.batching import OptionBatch

Model = PreTrainedModel | PeftModel

# Families whose attention takes a ready mask and explicit positions, and nothing else from where a token stands: each
# is tested. Texts of any other get a row each.
PACKABLE = frozenset({
    "biogpt", "cohere", "gemma", "gpt2", "gpt_neox", "granite", "llama", "mistral", "olmo", "olmo2", "opt", "phi",
    "qwen2", "qwen3", "smollm3", "stablelm", "starcoder2",
})  # fmt: skip


def break_even(model: Model) -> int | None:
    """Row width at which attention costs as much as all else; None if texts cannot share rows of this model.

    A token takes about 12 H^2 multiplications in a layer of hidden size H, and 2 H for each token of its row. Texts
    cannot share rows if the model's family is not known to be `PACKABLE`, if its code is not the library's, if some
    layer attends to a window only, or if the attention is an implementation that takes no mask of booleans.
    """
    config = model.config.get_text_config()
    base = model.get_base_model() if isinstance(model, PeftModel) else model
    full = set(getattr(config, "layer_types", None) or ["full_attention"]) == {"full_attention"}
    if not (
        config.model_type in PACKABLE
        and type(base).__module__.startswith("transformers.")
        and config._attn_implementation == "sdpa"
        and full
        and getattr(config, "sliding_window", None) is None
    ):
        return None
    return 6 * int(config.hidden_size)


def option_log_probs(model: Model, batch: OptionBatch) -> torch.Tensor:
    """Sum of log p(option | prompt) in nats, [B, O] float32 at least; -inf where there is no option."""
    layout = {} if batch.seen_R1LL is None else {"attention_mask": batch.seen_R1LL, "position_ids": batch.position_RL}
    out = model(input_ids=batch.ids_RL, use_cache=False, logits_to_keep=batch.keep_RK, **layout)
    precision = torch.promote_types(out.logits.dtype, torch.float32)
    log_probs: torch.Tensor = out.logits.to(precision).log_softmax(dim=-1).flatten(0, 1)
    found_BOS = log_probs[batch.at_BOS, batch.target_BOS]
    sums_BO = found_BOS.masked_fill(~batch.real_BOS, 0.0).sum(dim=-1)
    return sums_BO.masked_fill(~batch.real_BOS[..., 0], -torch.inf)
