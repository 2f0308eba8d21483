"""Estimated floating-point operations of a model's forwards and backwards, from its weights and the shapes it is given.

A forward that reads T positions in each of B rows, where K keys are seen (T, and what the cache holds), and computes
the logits of P positions in all, takes

    2 W B T  +  4 L H D B T K  +  2 V P

symbol   what it is
W        weights of every matrix that a position meets on its way, adapters included
L H D    layers, attention heads, width of a head: the scores and the weighted sum of the values take 2 H D each
V        weights of the output layer: hidden size times vocabulary

A forward that builds a graph is taken to be walked back. Each matrix that P positions meet then takes 2 P times its
entries for the gradient of its input, where that is wanted, and as much for its own, where it is trained; attention
takes twice what its forward does. With frozen weights and LoRA a backward is thus little more than one forward, and not
two.

A multiplication and an addition are two operations. Looking up an embedding is none; normalisations, activations,
softmax and the method's own arithmetic are left out. The attention is counted in full and not halved for the triangle
that a causal mask leaves. So does `torch.utils.flop_counter`, with which the sum agrees to a thousandth for forwards
and to a hundredth with backwards (the first layer's attention may need fewer gradients). Padding is counted, since it
is computed; a prompt that several options share is counted once. Two kinds of model are overrated: mixtures, where a
token meets a part of the experts only, and models whose attention has a window.
"""

from typing import Any

import torch
from transformers import PreTrainedModel


class FlopMeter:
    """Adds up the operations of every forward of a model from now on, and of the backward that follows a graph.

    It listens at the body and the output layer, and for graphs at every matrix, so that it sees each forward whoever
    asks for it: a loss, a generated answer, an adapter around the model.

    Args:
        model: the base model, after adapters were attached.

    Attributes:
        total: floating-point operations so far.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        head = model.get_output_embeddings()
        config: Any = model.config.get_text_config()
        self.total = 0.0
        self.per_position = 2 * _weights(model, outside=head)
        self.per_logits = 2 * _weights(head)
        self.per_pair = 4 * config.num_hidden_layers * _attention_width(config)
        self._hooks = [
            model.get_decoder().register_forward_hook(self._body),
            head.register_forward_hook(self._head),
            *(part.register_forward_hook(self._graph) for part in model.modules() if _matrices(part)),
        ]

    def close(self) -> None:
        """Listen no longer."""
        for hook in self._hooks:
            hook.remove()

    def _body(self, module: torch.nn.Module, args: Any, out: Any) -> None:
        rows, read = out.last_hidden_state.shape[:2]
        cache = getattr(out, "past_key_values", None)
        seen = read if cache is None else max(read, int(cache.get_seq_length()))
        attention = self.per_pair * seen
        self.total += rows * read * (self.per_position + attention)
        if out.last_hidden_state.requires_grad:
            self.total += rows * read * 2 * attention

    def _head(self, module: torch.nn.Module, args: tuple[torch.Tensor, ...], out: torch.Tensor) -> None:
        self.total += self.per_logits * (args[0].numel() // args[0].shape[-1])

    def _graph(self, module: torch.nn.Module, args: tuple[torch.Tensor, ...], out: Any) -> None:
        if not (args and isinstance(out, torch.Tensor) and out.requires_grad):
            return
        positions = args[0].numel() // args[0].shape[-1]
        for weight in _matrices(module):
            self.total += 2 * weight.numel() * positions * (args[0].requires_grad + weight.requires_grad)


def _weights(module: torch.nn.Module, outside: torch.nn.Module | None = None) -> int:
    """Entries of all matrices, but for embeddings and what lies in `outside`. Vectors multiply no matrix."""
    left_out = set() if outside is None else set(outside.modules())
    return sum(p.numel() for part in module.modules() if part not in left_out for p in _matrices(part))


def _matrices(module: torch.nn.Module) -> list[torch.nn.Parameter]:
    """The matrices of a module itself, none of an embedding."""
    if isinstance(module, torch.nn.Embedding):
        return []
    return [p for p in module.parameters(recurse=False) if p.ndim >= 2]


def _attention_width(config: Any) -> int:
    """Heads times the width of one; 0 for a model without attention."""
    heads = getattr(config, "num_attention_heads", None) or 0
    width = getattr(config, "head_dim", None) or (config.hidden_size // heads if heads else 0)
    return int(heads * width)
