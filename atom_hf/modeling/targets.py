"""What a model gives of a whole sample, which importance can be for: a class, a label, a number."""

from typing import Any

import torch
from torch import Tensor

from ..errors import AtomError

MOST_NAMES = 20


def output_values(logits: Tensor, model_config: Any) -> Tensor:
    """What masking changes, from logits [B, C]: the probability of each class or label, or each number of a regression.

    Probabilities are softmax's, and the sigmoid's where several labels may hold.
    """
    if logits.shape[-1] == 1 or model_config.problem_type == "regression":
        return logits.float()
    return logits.float().sigmoid() if has_labels(model_config) else logits.float().softmax(-1)


def has_labels(model_config: Any) -> bool:
    """Whether several labels of a model may hold at once."""
    return model_config.problem_type == "multi_label_classification"


def target_index(target: Any, model_config: Any) -> int:
    """The place of a class or label among a model's, by its name or its index.

    A name comes first, where the index of one class is the name of another.

    Raises:
        AtomError: no such class.
    """
    names = model_config.id2label
    if isinstance(target, str):
        found = [number for number, name in names.items() if str(name) == target]
        if not found and target.isdecimal():
            found = [int(target)]
        if found and int(found[0]) in names:
            return int(found[0])
    elif isinstance(target, int) and not isinstance(target, bool) and target in names:
        return target
    shown = ", ".join(map(str, list(names.values())[:MOST_NAMES]))
    more = f" and {len(names) - MOST_NAMES} more" if len(names) > MOST_NAMES else ""
    raise AtomError(
        f"target {target!r} is no class of the model; give one of {shown}{more}, or an index below {len(names)}"
    )


def target_classes(target: Any, model_config: Any, samples: int) -> Tensor:
    """The class of each sample, int [B]: the same one for all, or one each from a list or tensor [B].

    Raises:
        AtomError: no such class, or a list of another length.
    """
    if torch.is_tensor(target):
        target = target.tolist()
    if not isinstance(target, list | tuple):
        return torch.full((samples,), target_index(target, model_config))
    if len(target) != samples:
        raise AtomError(f"target: {len(target)} for {samples} samples; give one, or one each")
    return torch.tensor([target_index(one, model_config) for one in target])
