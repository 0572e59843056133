"""What one forward pass says of each kind of channel, as tokens [B, N, h] with a mask, or one of each sample [B, 1, h]."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from transformers.utils import ModelOutput

from ..atoms.loss import StepAtoms
from ..errors import AtomError
from ..modeling.collector import reading_tokens
from ..modeling.inference import without_labels
from ..modeling.mixin import AtomMixin
from ..modeling.own_outputs import as_model_output
from ..modeling.states import LayerTokens, StateReader
from ..modeling.unwrap import inner_model

KINDS = {
    "units": "each dimension of a layer's hidden states",
    "subspaces": "blocks of dimensions, or of principal components, of a layer",
    "space": "a whole layer",
    "heads": "what each attention head hands to the output projection",
    "posterior": "each latent dimension of a model that gives mean and log variance",
    "classes": "the probabilities of a classifier",
    "importance": "the importance of tokens, of a model with atoms",
    "position": "the centres of atoms, or the positions of tokens, of a model with atoms",
}

OF_LAYERS = ("units", "subspaces", "space", "heads")
"""Those read from a layer."""

NOISED = (*OF_LAYERS, "position")
"""Those that are deterministic, and become a channel by noise, dropout or augmentation."""

OF_SAMPLES = ("posterior",)
"""Those that have no tokens."""

POSTERIORS = (
    ("posterior_mean", "posterior_log_variance"),
    ("mean", "log_variance"),
    ("mean", "logvar"),
    ("mu", "log_var"),
    ("mu", "logvar"),
    ("z_mean", "z_log_var"),
    ("latent_mean", "latent_logvar"),
)
"""Names that outputs have for mean and log variance [B, d]."""

Tokens = dict[Any, LayerTokens]


def check_atoms(model: Any, kind: str) -> None:
    """Raise `AtomError` for a model without atoms, or with atoms on a decoder's side, of a kind that reads them."""
    base = inner_model(model)
    if not isinstance(base, AtomMixin):
        raise AtomError(
            f"kind {kind!r}: {type(base).__name__} has no atom heads; give a model that was trained with --atom"
        )
    if base.atom_config.side == "decoder":
        raise AtomError(
            f"kind {kind!r}: the heads of this {type(base).__name__} are on the decoder's output (side 'decoder')"
        )


def read_importance(model: Any) -> Any:
    """A `Read` of the importance [B, N, 1] of each token."""

    def read(inputs: dict[str, Any]) -> Tokens:
        importance = inner_model(model).atom_importance(**inputs)
        return {"importance": LayerTokens(importance.nan_to_num(0).unsqueeze(-1), ~importance.isnan())}

    return read


def read_position(model: Any, of: str) -> Any:
    """A `Read` of the centres of atoms [B, 1, h], or of the positions of their tokens [B, N, h]."""
    base = inner_model(model)

    def read(inputs: dict[str, Any]) -> Tokens:
        with reading_tokens(model) as seen:
            outputs = base(**without_labels(base, inputs), return_atoms=True)
        if of == "tokens":
            importance = outputs["atom_importance"]
            return {"position": LayerTokens(base.atom_heads(seen[-1])[1], ~importance.isnan())}
        atoms = StepAtoms.unpack(outputs["atoms"], base.atom_config).shown
        return {"position": LayerTokens(atoms.center.unsqueeze(1), atoms.exists.unsqueeze(1))}

    return read


def read_posterior(model: Any) -> Any:
    """A `Read` of mean and log variance side by side [B, 1, 2 d]."""

    def read(inputs: dict[str, Any]) -> Tokens:
        outputs = _outputs(model, inputs)
        names = next((pair for pair in POSTERIORS if all(torch.is_tensor(outputs.get(name)) for name in pair)), None)
        if names is None:
            raise AtomError(
                f"kind 'posterior': {type(model).__name__} gives no mean and log variance (it gives {', '.join(outputs)}); "
                f"they are looked for by the names {' or '.join('/'.join(pair) for pair in POSTERIORS)}"
            )
        mean, log_variance = (outputs[name] for name in names)
        if mean.dim() != 2 or mean.shape != log_variance.shape:
            raise AtomError(
                f"kind 'posterior': {names[0]} and {names[1]} must be [B, d], got {list(mean.shape)} and "
                f"{list(log_variance.shape)}"
            )
        return {"posterior": _of_samples(torch.cat([mean, log_variance], 1))}

    return read


def check_classifier(model: Any) -> None:
    """Raise `AtomError` for a model that predicts no classes, as far as can be told without a forward pass."""
    base = inner_model(model)
    if base.config.problem_type == "regression" or getattr(base.config, "num_labels", 2) < 2:
        raise AtomError(f"kind 'classes': this {type(base).__name__} predicts a number, not classes; give kind 'space'")
    if base.can_generate():
        raise AtomError(f"kind 'classes': {type(base).__name__} writes text and predicts no classes; give kind 'space'")


def read_logits(model: Any, reader: StateReader, of: str) -> Any:
    """A `Read` of the logits of a classifier: [B, 1, K] of samples, [B, N, K] of tokens."""
    base = inner_model(model)
    classes = base.config.num_labels

    def read(inputs: dict[str, Any]) -> Tokens:
        if of == "tokens":
            found, outputs = reader(inputs)
            (layer,) = found.values()
            mask = layer.mask
        else:
            outputs, mask = _outputs(model, inputs), None
        logits = outputs.get("logits")
        shape = (*mask.shape, classes) if mask is not None else (None, classes)
        if (
            logits is None
            or logits.dim() != len(shape)
            or logits.shape[-1] != classes
            or (mask is not None and logits.shape[:-1] != mask.shape)
        ):
            got = "none" if logits is None else str(list(logits.shape))
            raise AtomError(
                f"kind 'classes': {type(base).__name__} must give logits [{'B, N' if of == 'tokens' else 'B'}, {classes}] of "
                f"{of}, and gives {got}; give a classifier of {of}, or kind 'space'"
            )
        return {"classes": _of_samples(logits) if mask is None else LayerTokens(logits, mask)}

    return read


def _of_samples(values: Tensor) -> LayerTokens:
    return LayerTokens(values.unsqueeze(1), torch.ones(len(values), 1, dtype=torch.bool, device=values.device))


def _outputs(model: Any, inputs: dict[str, Any]) -> Mapping[str, Any]:
    outputs = model(**without_labels(inner_model(model), inputs, "encoder"))
    return outputs if isinstance(outputs, ModelOutput) else as_model_output(outputs)
