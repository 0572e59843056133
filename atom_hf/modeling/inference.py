"""Forward passes for inference: eval mode, no labels, the device to use, the cause of numbers that are not finite."""

from collections.abc import Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor

from ..errors import AtomError
from .explaining import Explanation, explaining
from .finite import not_finite
from .targets import target_classes
from .unwrap import inner_model


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


def without_labels(model: Any, inputs: dict[str, Any], side: str | None = None) -> dict[str, Any]:
    """`inputs` without labels, unless the decoder's input is made from them.

    A generating encoder-decoder needs decoder input even if only its encoder is read: its start token is added then.

    Args:
        side: the one that is read; by default that of the model's atoms.
    """
    writes = getattr(model.config, "is_encoder_decoder", False) and model.can_generate()
    if not writes or not {"decoder_input_ids", "decoder_inputs_embeds"}.isdisjoint(inputs):
        return {name: value for name, value in inputs.items() if name != "labels"}
    if "labels" in inputs or (side or model.atom_config.side) == "decoder":
        return inputs
    start = getattr(model.config, "decoder_start_token_id", None) or getattr(model.config, "bos_token_id", None) or 0
    samples = len(next(value for value in inputs.values() if torch.is_tensor(value)))
    return {**inputs, "decoder_input_ids": torch.full((samples, 1), start, device=model.device)}


def explaining_target(model: Any, target: Any, samples: int) -> AbstractContextManager[list[Explanation]]:
    """Context manager: `explaining` of a target (`targets.target_classes`) of so many samples; without one, of the prediction,
    and of a model without an explainer nothing.

    Raises:
        AtomError: a target of a model without an explainer, or that the model does not have.
    """
    inner = inner_model(model)
    if target is None:
        return explaining(model) if inner.atom_config.has_explainer else nullcontext([])
    if not inner.atom_config.has_explainer:
        raise AtomError(
            f"target {target!r}: the importance of this {type(inner).__name__} is not fitted to what it predicts; fit it "
            "(atom-hf fit-explainer), or read it by masking (method 'masking', at a forward pass for each token)"
        )
    return explaining(model, target_classes(target, inner.config, samples))


def check_numbers(model: Any, atoms: Tensor, inputs: Any, loss: Any = None) -> None:
    """Reject atoms that are not finite numbers, and so would look as if there were no token.

    Args:
        model: the model with atoms.
        atoms: [B, K], packed, as its forward pass gave them.
        inputs: the arguments of that pass, by name.
        loss: the loss of that pass, if known. It alone may be NaN for other causes, such as no labels.

    Raises:
        AtomError: it names the weights or the inputs that are not finite, or the data type that overflows.
    """
    good = bool(atoms.isfinite().all())
    if good and not (torch.is_tensor(loss) and not loss.isfinite().all()):
        return
    kind = type(model).__name__
    if weights := not_finite(model):
        raise AtomError(
            f"model: weights of this {kind} are not finite numbers (NaN or infinity), in {weights[0]}"
            f"{f' and {len(weights) - 1} more' if len(weights) > 1 else ''}; load a checkpoint from before, or train it again"
        )
    if good:
        return
    given = inputs.items() if isinstance(inputs, Mapping) else ()
    floats = {name: value for name, value in given if torch.is_tensor(value) and value.is_floating_point()}
    if broken := [name for name, value in floats.items() if "mask" not in name and not value.isfinite().all()]:
        raise AtomError(f"{', '.join(broken)}: the inputs hold numbers that are not finite (NaN or infinity)")
    raise AtomError(
        f"{model.atom_config.place} of this {kind} gives numbers that are not finite ({model.dtype}); load it with "
        "dtype=torch.float32, or choose another layer"
    )
