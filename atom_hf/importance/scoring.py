"""Parts that the scorers of texts and images share: one forward pass, the prediction, checks of the model."""

import inspect
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..atoms.loss import StepAtoms
from ..errors import AtomError
from ..modeling.inference import check_numbers, evaluating, explaining_target, without_labels
from ..modeling.mixin import AtomMixin
from ..modeling.own_outputs import logits_of
from ..modeling.targets import target_classes
from ..modeling.unwrap import inner_model
from .by_masking import masked_importance
from .results import Explained, SampleAtom
from .targets import is_classifier

METHODS = ("explainer", "masking")


@dataclass(frozen=True)
class Scores:
    """The outputs of one forward pass for one sample."""

    importance: np.ndarray
    """[N], nan for no token of the atom; empty where importance is not read."""
    logits: np.ndarray | None
    """[classes], where the model gives one row for each sample."""
    atom: SampleAtom | None
    explained: Explained | None = None


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


def prediction(found: Scores, model_config: Any) -> tuple[str | None, float | None]:
    """The prediction and its confidence; of a model without classes what it predicts otherwise, where that was explained."""
    if found.logits is None and found.explained is not None and found.explained.is_predicted:
        return found.explained.target, found.explained.everything
    return predict(found.logits, model_config)


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
def forward_scores(model: Any, inputs: dict[str, Tensor], target: Any = None) -> list[Scores]:
    """One forward pass of a model with heads, whose importance is for a target (`AtomMixin.atom_importance`)."""
    inputs = {name: tensor.to(model.device) for name, tensor in inputs.items()}
    if "logits_to_keep" in inspect.signature(inner_model(model).forward).parameters:
        inputs["logits_to_keep"] = 1  # a language model's are not looked at, and are large
    samples = len(next(value for value in inputs.values() if torch.is_tensor(value)))
    with evaluating(model), explaining_target(model, target, samples) as explanations:
        outputs = model(**without_labels(model, inputs), return_atoms=True)
    check_numbers(inner_model(model), outputs["atoms"], inputs)
    importance = outputs["atom_importance"].float().cpu().numpy()
    packed = outputs["atoms"].float().cpu()
    atoms = StepAtoms.unpack(packed, inner_model(model).atom_config).shown
    logits = outputs.get("logits")
    logits = logits.float().cpu().numpy() if logits is not None and logits.dim() == 2 else None
    nothing_known = [None] * len(importance)
    explained = _explained(explanations, logits, target, model.config) if explanations else nothing_known
    found = []
    for row, exists in enumerate(atoms.exists.tolist()):
        charges = (float(part[row]) for part in (atoms.positive, atoms.negative))
        atom = SampleAtom(*charges, atoms.center[row].numpy(), float(atoms.radius[row])) if exists else None
        found.append(Scores(importance[row], None if logits is None else logits[row], atom, explained[row]))
    return found


def _explained(explanations: list[Any], logits: np.ndarray, target: Any, model_config: Any) -> list[Explained]:
    """What the explainer says of each sample of the last pass."""
    predicted = logits.argmax(-1)
    classes = predicted if target is None else target_classes(target, model_config, len(logits)).numpy()
    values = [getattr(explanations[-1], name).tolist() for name in ("everything", "nothing", "parts", "novelty")]
    return [
        Explained(str(model_config.id2label[int(number)]), int(number) == int(own), *each)
        for number, own, *each in zip(classes, predicted, *values, strict=True)
    ]


@torch.no_grad()
def forward_logits(model: Any, inputs: dict[str, Tensor]) -> list[Scores]:
    """One forward pass of any model, of which the logits alone are read, where it gives one row of them for each sample."""
    inputs = {name: tensor.to(model.device) for name, tensor in inputs.items()}
    samples, nothing = len(next(iter(inputs.values()))), np.empty(0, np.float32)
    if not is_classifier(inner_model(model)):
        return [Scores(nothing, None, None)] * samples
    with evaluating(model):
        logits = logits_of(model(**inputs)).float().cpu()
    if not logits.isfinite().all():
        raise AtomError(f"model: {type(model).__name__} gives logits that are not finite numbers (NaN or infinity)")
    return [Scores(nothing, row, None) for row in logits.numpy()]


def scores_by_masking(
    model: Any, processor: Any, inputs: dict[str, Tensor], target: Any, found: list[Scores]
) -> list[Scores]:
    """`found`, with the importance of each token by masking it. Raises `AtomError` as `masked_importance` does."""
    read = masked_importance(model, processor, inputs, target)
    importance = read.importance.cpu().numpy()
    parts = np.nansum(importance, 1)
    if len(importance) and getattr(model.config, "num_labels", 2) == 1:  # numbers, whose changes may have been scaled
        parts = np.full(len(importance), np.nan)
    values = (read.everything.tolist(), read.nothing.tolist(), parts.tolist())
    explained = map(Explained, read.names, read.is_predicted, *values)
    return [
        replace(one, importance=row, explained=of) for one, row, of in zip(found, importance, explained, strict=True)
    ]


def check_model(model: Any, takes: str, what: str, importance: bool = True, method: str = "explainer") -> None:
    """Raises `AtomError` for a model that does not take this input, or of which this cannot be read."""
    if method not in METHODS:
        raise AtomError(f"method must be one of {', '.join(METHODS)}; got {method!r}")
    by_heads = importance and method == "explainer"
    if by_heads and not isinstance(inner_model(model), AtomMixin):  # an adapter's base has them
        raise AtomError(
            f"model: {type(model).__name__} has no heads; load it with load_atom_model, or attach_atoms and train"
        )
    if not importance and not is_classifier(inner_model(model)):
        raise AtomError(f"model: {type(model).__name__} predicts no class or number of a whole sample")
    main = getattr(model, "main_input_name", None)
    if main != takes:
        raise AtomError(f"model: {type(model).__name__} takes {main}, not {what}")
    if by_heads and model.atom_config.side == "decoder":
        raise AtomError(
            "model: its heads are on the decoder's output (side 'decoder'), not on a given text; "
            "use model.atom_importance(..., labels=...)"
        )


def check_target(target: Any, model: Any, method: str) -> None:
    """Raises `AtomError` for a target that can be seen to be wrong before any sample is read."""
    inner = inner_model(model)
    if target is None or not is_classifier(inner):
        return
    if method == "explainer" and isinstance(inner, AtomMixin):
        explaining_target(inner, target, 1)
    target_classes(target, inner.config, 1)
