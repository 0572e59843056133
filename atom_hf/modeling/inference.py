"""Forward passes for inference: eval mode, no labels, the device to use."""

from contextlib import contextmanager
from typing import Any

import torch


@contextmanager
def evaluating(model: Any):
    """Context manager: eval mode; restores each module's mode."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


def default_device() -> str:
    """The device for a model that was not placed on one: "cuda" if available, else "cpu"."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def without_labels(model: Any, inputs: dict[str, Any]) -> dict[str, Any]:
    """`inputs` without labels, unless the decoder's input is made from them.

    A generating encoder-decoder needs decoder input even if only its encoder is read: its start token is added then.
    """
    writes = getattr(model.config, "is_encoder_decoder", False) and model.can_generate()
    if not writes or not {"decoder_input_ids", "decoder_inputs_embeds"}.isdisjoint(inputs):
        return {name: value for name, value in inputs.items() if name != "labels"}
    if "labels" in inputs or model.atom_config.side == "decoder":
        return inputs
    start = getattr(model.config, "decoder_start_token_id", None) or getattr(model.config, "bos_token_id", None) or 0
    samples = len(next(value for value in inputs.values() if torch.is_tensor(value)))
    return {**inputs, "decoder_input_ids": torch.full((samples, 1), start, device=model.device)}
