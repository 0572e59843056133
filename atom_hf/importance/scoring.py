"""Parts that the scorers of texts and images share: one forward pass, the prediction, checks of the model."""

import inspect
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..atoms.loss import StepAtoms
from ..errors import AtomError
from ..modeling.inference import check_numbers, evaluating, without_labels
from ..modeling.mixin import AtomMixin
from ..modeling.own_outputs import logits_of
from ..modeling.unwrap import inner_model
from .results import SampleAtom

CLASSIFIERS = ("ForSequenceClassification", "ForImageClassification")
"""How the names of classes end that predict one class, several labels or a number of a whole sample."""


@dataclass(frozen=True)
class Scores:
    """The outputs of one forward pass for one sample."""

    importance: np.ndarray
    """[N], nan for no token of the atom; empty where importance is not read."""
    logits: np.ndarray | None
    """[classes], where the model gives one row for each sample."""
    atom: SampleAtom | None


def probabilities(logits: np.ndarray | None, model_config: Any) -> np.ndarray | None:
    """The probability of each class from logits [classes]: softmax's, or the sigmoid's where several classes may hold.

    None where there are no logits, and of a regression.
    """
    if logits is None or len(logits) == 1 or model_config.problem_type == "regression":
        return None
    if model_config.problem_type == "multi_label_classification":
        return 1 / (1 + np.exp(-logits))
    powers = np.exp(logits - logits.max())
    return powers / powers.sum()


def predict(logits: np.ndarray | None, model_config: Any) -> tuple[str | None, float | None]:
    """The prediction and its confidence, its probability, from logits [classes]; (None, None) where there are none.

    Of a regression the number is what is predicted, and it has no confidence.
    """
    if logits is None:
        return None, None
    confidence = probabilities(logits, model_config)
    if confidence is None:
        return ", ".join(f"{value:.3g}" for value in logits), None
    chosen = int(logits.argmax())
    return model_config.id2label[chosen], float(confidence[chosen])


@torch.no_grad()
def forward_scores(model: Any, inputs: dict[str, Tensor], importance: bool = True) -> list[Scores]:
    """One forward pass. Without `importance` any model will do, and only its logits are read."""
    inputs = {name: tensor.to(model.device) for name, tensor in inputs.items()}
    if not importance:
        with evaluating(model):
            logits = logits_of(model(**inputs)).float().cpu()
        if not logits.isfinite().all():
            raise AtomError(f"model: {type(model).__name__} gives logits that are not finite numbers (NaN or infinity)")
        return [Scores(np.empty(0, np.float32), row, None) for row in logits.numpy()]
    if "logits_to_keep" in inspect.signature(inner_model(model).forward).parameters:
        inputs["logits_to_keep"] = 1  # a language model's are not looked at, and are large
    with evaluating(model):
        outputs = model(**without_labels(model, inputs), return_atoms=True)
    check_numbers(inner_model(model), outputs["atoms"], inputs)
    importance = outputs["atom_importance"].float().cpu().numpy()
    packed = outputs["atoms"].float().cpu()
    atoms = StepAtoms.unpack(packed, inner_model(model).atom_config).shown
    logits = outputs.get("logits")
    logits = logits.float().cpu().numpy() if logits is not None and logits.dim() == 2 else None
    found = []
    for row, exists in enumerate(atoms.exists.tolist()):
        charges = (float(part[row]) for part in (atoms.positive, atoms.negative))
        atom = SampleAtom(*charges, atoms.center[row].numpy(), float(atoms.radius[row])) if exists else None
        found.append(Scores(importance[row], None if logits is None else logits[row], atom))
    return found


def check_model(model: Any, takes: str, what: str, importance: bool = True) -> None:
    """Raises `AtomError` for a model that does not take this input, or has no heads for its importance."""
    if importance and not isinstance(inner_model(model), AtomMixin):  # an adapter's base has them
        raise AtomError(
            f"model: {type(model).__name__} has no heads; load it with load_atom_model, or attach_atoms and train"
        )
    if not importance and not type(inner_model(model)).__name__.endswith(CLASSIFIERS):
        raise AtomError(f"model: {type(model).__name__} predicts no class or number of a whole sample")
    main = getattr(model, "main_input_name", None)
    if main != takes:
        raise AtomError(f"model: {type(model).__name__} takes {main}, not {what}")
    if importance and model.atom_config.side == "decoder":
        raise AtomError(
            "model: its heads are on the decoder's output (side 'decoder'), not on a given text; "
            "use model.atom_importance(..., labels=...)"
        )
