"""The upper reference of `steps.py`: a copy of the model, fine-tuned by LoRA to explain, in place of frozen hidden states.

ViT-Shapley (Covert et al., arXiv 2206.05282) fine-tunes such a copy. It costs a second model, and a second forward pass.
"""

from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor
from torch.nn import functional as F

from atom_hf.data.encoding import encode_rows
from atom_hf.explainer.descent import HELD_OUT, HeadOptions, descend
from atom_hf.explainer.masked_samples import MaskedSamples
from atom_hf.explainer.objective import Objective
from atom_hf.modeling.attach import add_explainer

RANK, BATCH = 16, 64


class LiveTokens:
    """In place of `MaskedSamples.tokens`: what a model that is being trained makes of the inputs, whenever it is asked.

    Args:
        model: with LoRA.
        inputs: of every item.
        layers: whose hidden states are read.
    """

    def __init__(self, model: Any, inputs: dict[str, Tensor], layers: list[int]):
        self.model, self.inputs, self.layers = model, inputs, layers

    def __getitem__(self, rows: Tensor) -> Tensor:
        """[b, L, N, h], layer-normalised, as far as gradients are on with the gradient of the model."""
        batch = {name: value[rows].to(self.model.device) for name, value in self.inputs.items()}
        states = self.model(**batch, output_hidden_states=True).hidden_states
        return torch.stack([F.layer_norm(states[layer], states[layer].shape[-1:]) for layer in self.layers], 1)


def inputs_of(rows: Any, masked: MaskedSamples, model: Any, processor: Any, max_length: int) -> dict[str, Tensor]:
    """The inputs of items that are the samples themselves, padded as their tokens are."""
    parts = encode_rows([rows[number] for number in masked.sample.tolist()], model, processor, max_length)
    if "input_ids" not in parts:
        return parts
    length = masked.mask.shape[1]
    return {name: F.pad(value, (0, length - value.shape[1]))[:, :length] for name, value in parts.items()}


def fit_copy(
    model: Any,
    masked: MaskedSamples,
    inputs: dict[str, Tensor],
    layers: list[int],
    strategies: list[str],
    options: HeadOptions,
    seed: int,
) -> LiveTokens:
    """Fits an explainer as `fit_head` does, and the LoRA under it. The model gets the explainer; returns what it reads.

    Args:
        model: the model with atoms, which becomes the copy.
        masked: the samples, without copies.
        inputs: of each.
        layers: whose hidden states are read.
        strategies: the masking strategies.
        options: of the explainer.
        seed: of the LoRA, the explainer, the batches and the samples that are held out.
    """
    generator = torch.Generator().manual_seed(seed)
    samples = masked.sample.unique()
    held_out = torch.isin(
        masked.sample, samples[torch.randperm(len(samples), generator=generator)][: len(samples) // HELD_OUT]
    )
    train, test = (~held_out).nonzero()[:, 0], held_out.nonzero()[:, 0]
    sizes = {"classes": model.config.num_labels, "width": options.width, "blocks": options.blocks, "layers": layers}
    sizes |= {"strategies": strategies, "context": options.context or None}
    with torch.enable_grad(), torch.random.fork_rng():
        torch.manual_seed(seed)
        head = add_explainer(model, **{f"explainer_{name}": value for name, value in sizes.items()})
        copy = get_peft_model(model, LoraConfig(r=RANK, lora_alpha=RANK, target_modules="all-linear"))
        live = LiveTokens(copy, inputs, layers)
        objective = Objective(head.requires_grad_(True), masked, train)
        objective.masked.tokens, objective.copy = live, copy
        _, kept = descend(objective, train, test, options.dropout, generator, float("inf"))
    objective.load_state_dict(kept)
    head.requires_grad_(False)
    head.scale.copy_(objective.scale.detach())
    return live
