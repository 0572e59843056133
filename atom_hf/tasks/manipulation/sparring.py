"""The sparring copy: the classifier, fine-tuned on rows with noise, that an editor is trained against.

A classifier as it is can be satisfied by a pattern that means nothing to anybody else; one that reads through noise asks for
an edit that is as large as the difference between classes.
"""

import copy
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from ...errors import AtomError
from ...utils.files import write_atomically
from ...utils.terminal import get_logger
from ..arguments import TaskArguments
from ..kinds import number
from .equations import sparring_task
from .fitting import fit
from .manipulator import logits_of
from .rows import LabelledRows

logger = get_logger(__name__)

SIGMAS = (0.5, 0.3, 0.2, 0.1)
"""Standard deviations of the noise to try, of the range of the rows."""

COSTS = 0.02  # what the noise may cost in accuracy on held-out rows without noise

STEPS, RATE = 400, 5e-4

FILE_NAME = "sparring.safetensors"  # kept until the manipulator is saved, for a run that is resumed


class Sparring(NamedTuple):
    """A classifier to train against."""

    module: nn.Module
    sigma: float
    """Of its noise, of the range of the rows; 0 for the classifier as it is."""
    accuracies: dict[float, float]
    """On held-out rows, of the classifier (0) and of the copies that were tried."""


def sigmas_to_try(given: str | float) -> tuple[float, ...]:
    """The noises that `--sigma` names: auto, or a number of 0 or more. Raises `AtomError`."""
    if given == "auto":
        return SIGMAS
    try:
        sigma = float(given)
    except ValueError:
        sigma = -1.0
    if not 0 <= sigma <= 10:
        raise AtomError(f"--sigma must be auto, or a number from 0 (no noise) to 10, got {given!r}")
    return (sigma,) if sigma else ()


def sparring_copy(
    module: nn.Module,
    train: LabelledRows,
    held_out: LabelledRows,
    sigmas: Sequence[float],
    args: TaskArguments,
    steps: int = STEPS,
) -> Sparring:
    """Fine-tune copies of a classifier on rows with noise, and choose the first that costs at most two points of accuracy.

    If a single noise is given, its copy is taken whatever it costs. If none of several passes, the classifier itself is.

    Args:
        module: from rows to logits [B, n]; it is not changed.
        train, held_out: rows to tune on, and to measure the accuracy on, without noise.
        sigmas: the noises to try, the largest first, of the range of the rows.
        args: of the run; what was found is kept in its folder, and taken from there by a run with the same settings.
    """
    file = Path(args.output_dir, FILE_NAME)
    settings = _settings(module, train, held_out, sigmas, args.seed, steps)
    kept = _kept(file, settings)
    if kept is not None:
        logger.info("the sparring copy is there already: %s", file)
        accuracies = {float(key): value for key, value in kept["accuracies"].items()}
        module = fresh_copy(module)
        module.load_state_dict(load_file(file))
        return Sparring(module.requires_grad_(False).eval(), kept["sigma"], accuracies)
    spread, device = input_range(train), next(module.parameters()).device
    accuracies = {0.0: accuracy(module, held_out)}
    logger.info("the classifier: accuracy %.4f on %d held-out rows", accuracies[0.0], len(held_out))
    found = Sparring(fresh_copy(module).requires_grad_(False).eval(), 0.0, accuracies)
    for sigma in sigmas:
        logger.info("a sparring copy with noise %s of the range", number(sigma))
        spec = sparring_task(train.kind, _classes(module, train), sigma * spread)
        tuned = fit(spec, {"get": fresh_copy(module)}, train, args, steps, RATE).boxes["get"]
        tuned = tuned.to(device).requires_grad_(False).eval()
        accuracies[sigma] = accuracy(tuned, held_out)
        logger.info("its accuracy: %.4f", accuracies[sigma])
        if len(sigmas) == 1 or accuracies[sigma] >= accuracies[0.0] - COSTS - 1e-9:
            found = Sparring(tuned, sigma, accuracies)
            break
    else:
        if sigmas:
            logger.warning("every noise costs more than two points; the classifier is trained against as it is")
    metadata = {
        "format": "pt",
        "settings": settings,
        "found": json.dumps({"sigma": found.sigma, "accuracies": accuracies}),
    }
    state = {name: value.cpu().contiguous() for name, value in found.module.state_dict().items()}
    write_atomically(file, lambda part: save_file(state, part, metadata=metadata))
    return found


def fresh_copy(module: nn.Module) -> nn.Module:
    """A module of its own with the same weights, whose parameters can be trained."""
    return copy.deepcopy(module).requires_grad_(True)


def input_range(rows: LabelledRows) -> float:
    """1 for pixels; of vectors the difference of the largest and the least value, the mean over coordinates."""
    if rows.kind.name == "pixels":
        return 1.0
    values = rows.floats
    return float((values.amax(0) - values.amin(0)).mean())


@torch.no_grad()
def read_classes(module: nn.Module, values: Tensor, batch: int = 512) -> Tensor:
    """The ids [N] of the classes that a classifier reads from rows, on the rows' device."""
    device = next(module.parameters()).device
    parts = [logits_of(module, part.to(device)).argmax(1).to(values.device) for part in values.split(batch)]
    return torch.cat(parts)


def accuracy(module: nn.Module, rows: LabelledRows) -> float:
    """The share of rows whose class a classifier reads."""
    return float((read_classes(module.eval(), rows.floats) == rows.labels).float().mean())


def _classes(module: nn.Module, rows: LabelledRows) -> int:
    device = next(module.parameters()).device
    with torch.no_grad():
        return logits_of(module, rows.take([0]).floats.to(device)).shape[1]


def _settings(
    module: nn.Module, train: LabelledRows, held_out: LabelledRows, sigmas: Sequence[float], seed: int, steps: int
) -> str:
    digest = hashlib.sha256(json.dumps([list(sigmas), seed, steps]).encode())
    tensors = [*module.state_dict().values(), train.values, train.labels, held_out.values, held_out.labels]
    for value in tensors:
        digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _kept(file: Path, settings: str) -> dict | None:
    try:
        with safe_open(file, "pt") as opened:
            metadata = opened.metadata() or {}
        return json.loads(metadata["found"]) if metadata.get("settings") == settings else None
    except (OSError, SafetensorError, KeyError, ValueError):
        return None
