"""Read the tokens of some layers of any model, with atoms or without: found in the way in which atoms get theirs."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers.utils import ModelOutput

from ..atoms.config import AtomConfig
from ..errors import AtomError
from .inference import without_labels
from .layers import hidden_size_of, layer_states
from .own_outputs import as_model_output, run_for_states, takes
from .tokens import find_tokens, special_token_ids
from .unwrap import inner_model


@dataclass(frozen=True)
class LayerTokens:
    """The hidden states of one layer as tokens [B, N, h], and the mask bool [B, N] of those that are content."""

    tokens: Tensor
    mask: Tensor


class StateReader:
    """Reads layers of a model, one batch at a time.

    Args:
        model: a Transformers model, one with adapters (PEFT), or a SentenceTransformer.
        layers: indices into its hidden states (0 is the embeddings, -1 the last layer), or "all".
        side: of an encoder-decoder, "encoder" or "decoder".
        processing_class: the tokenizer, which knows the special tokens that are left out.
        tokens: "content" or "all", as `AtomConfig.tokens`.
    """

    def __init__(
        self,
        model: Any,
        layers: Sequence[int] | str,
        *,
        side: str = "encoder",
        processing_class: Any = None,
        tokens: str = "content",
    ):
        self.model, self.base, self.layers, self.side = model, inner_model(model), layers, side
        special = special_token_ids(self.base.config, processing_class)
        self.config = AtomConfig(side=side, tokens=tokens, special_token_ids=special)
        self.count = 0
        """Hidden states that the model has, the embeddings among them; known after a forward pass."""

    def __call__(self, inputs: dict[str, Any]) -> tuple[dict[int, LayerTokens], ModelOutput]:
        """(tokens by layer, the model's outputs) of one forward pass, in the mode that the model is in, without gradients.

        Of `layers` "all" the keys are 0, 1, ... Labels are left out, unless a decoder's input is made from them.

        Raises:
            AtomError: no hidden states, no such layer, or hidden states that cannot be read as tokens.
        """
        inputs = without_labels(self.base, inputs, self.side)
        outputs, shown, inputs = self._run(inputs)
        states = layer_states(shown, self.base, self.side)
        self.count = count = len(states)
        found = {}
        for layer in range(count) if self.layers == "all" else self.layers:
            if not -count <= layer < count:
                raise AtomError(
                    f"layer {layer} does not exist: {type(self.base).__name__} has {count} hidden states, {-count} to "
                    f"{count - 1}"
                )
            state = states[layer][0] if isinstance(states[layer], tuple) else states[layer]  # beside it, global tokens
            self.config.hidden_size = hidden_size_of(self.base, layer, self.side)
            found[layer] = LayerTokens(*find_tokens(state, inputs, self.config, self.base.config, self.base))
        return found, outputs

    @torch.no_grad()
    def _run(self, inputs: dict[str, Any]) -> tuple[ModelOutput, ModelOutput, dict[str, Any]]:
        """The outputs, an output that holds the hidden states, and the inputs that these belong to."""
        base, forward = self.base, type(self.base).forward
        outputs = None
        if takes(forward, "output_hidden_states"):
            options = {"output_hidden_states": True}
            if takes(forward, "return_dict"):
                options["return_dict"] = True
            # A SentenceTransformer takes its features in one dictionary; the model inside it is what has layers.
            model = self.model if base is not self.model and hasattr(self.model, "get_base_model") else base
            outputs = model(**inputs, **options)
            if isinstance(outputs, ModelOutput):
                return outputs, outputs, inputs
        width = hidden_size_of(base, -1, self.side)
        outputs, states, given = run_for_states(base, forward, (), inputs, width)
        return as_model_output(outputs), states, {**inputs, **given}
