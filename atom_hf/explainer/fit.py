"""Fit importance to the prediction: to what masking each token does to the predicted probability (ours).

The energy alone says nothing about a prediction. Here the model is frozen, and a small head predicts from its hidden
states the change that each token makes, as FastSHAP does (Jethani et al., arXiv 2107.07436, Eq. 5 and section 3.2):

    v(S)    probability of the class that is predicted of a sample, with only the tokens in S left; that of a label, or the
            number of a regression (`modeling.targets.output_values`)
    q_i     importance of token i for that class, in [-1, 1]
    phi_i = a q_i + (v(all) - v(none) - sum_j a q_j) / n                        (the remainder is shared equally)
    minimise  mean over samples and sets S of  (v(S) - v(none) - sum over i in S of phi_i)^2
              + SIGN * mean over samples of  (v(all) - v(none) - sum_j a q_j)^2

Sets are drawn by the Shapley kernel, in pairs of a set and its complement, so that the minimum of the first term is at the
Shapley values. The second settles the sign, which the first leaves open. Tokens are masked by every
strategy that fits the model (`masking.py`), so that the importance does not depend on one. The fit uses samples, and copies of
them with some tokens masked already, of which there can be many more than samples.
"""

import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from accelerate.utils import broadcast_object_list
from torch import Tensor
from tqdm.auto import tqdm

from ..errors import AtomError
from ..modeling.attach import add_explainer
from ..modeling.inference import evaluating
from ..modeling.layers import is_image_model
from ..modeling.mixin import AtomMixin
from ..modeling.unwrap import inner_model
from ..utils.distributed import is_first_process, processes
from ..utils.terminal import get_logger
from .masked_samples import Inputs, MaskedSamples, collect, gathered
from .masking import IMAGE_MASKING, TEXT_MASKING, Masker

logger = get_logger(__name__)

WIDTH, DROPOUT, SIGN = 64, 0.3, 0.01

STEPS, BATCH, LEARNING_RATE, WEIGHT_DECAY = 2000, 64, 3e-3, 1e-2

HELD_OUT = 8
"""One sample in this many is held out, for early stopping."""

LOOK = 50
"""Steps between two evaluations on the held-out samples."""

FEWEST = 16
"""The fewest samples that an explainer can be fitted on."""

SAMPLES, COPIES, SETS = 500, 8, 8


@dataclass(frozen=True)
class ExplainerFit:
    """The size and quality of a fit."""

    samples: int
    """How many samples it was fitted on."""
    passes: int
    """How many samples went through the model for it, masked copies included."""
    explained: float
    """The share of the changes of held-out samples, beyond an equal change for each token, that the summed importances
    explain (like R²): at most 1."""


def fit_explainer(
    model: Any,
    processing_class: Any,
    batches: Iterable[Inputs],
    *,
    samples: int = SAMPLES,
    copies: int = COPIES,
    sets: int = SETS,
    seed: int = 0,
) -> ExplainerFit:
    """Fits the importance of a trained model's tokens to its prediction. The model itself and its charges do not change.

    From then on `atom_importance` gives, in evaluation, the fitted importance for the class that is predicted: positive for a
    token that the prediction leans on, negative for one that speaks against it, 0 for one that it does not need. It is saved
    and pushed with the heads. Training the model further removes it.

    Args:
        model: a classifier of texts, or of images by a grid of patches, with atoms; an adapter on one will do.
        processing_class: its tokenizer or image processor.
        batches: inputs of the model, such as a DataLoader of training data; no labels are needed. On several processes, each
            one's share.
        samples: how many of them are used, over all processes.
        copies: how many times each is explained: as it is, and with some tokens masked.
        sets: how many sets of tokens are left of each of these, a multiple of 4. About `samples * copies * sets` masked copies
            go through the model.
        seed: of the sets.

    Raises:
        AtomError: no atoms, no classes, a model whose tokens cannot be masked, fewer than 16 samples, numbers that are not
            finite. An explainer fitted before then stays.
    """
    atoms = inner_model(model)
    if not isinstance(atoms, AtomMixin):
        raise AtomError("model has no atoms: attach_atoms(model), or load_atom_model of one that was saved with them")
    if sets < 4 or sets % 4 or samples < FEWEST or copies < 1:
        raise AtomError(
            f"samples must be at least {FEWEST}, copies at least 1 and sets a multiple of 4; got {samples}, {copies}, {sets}"
        )
    maskers = make_maskers(atoms, processing_class)
    with evaluating(model), torch.no_grad():
        masked, passes = collect(model, maskers, batches, math.ceil(samples / processes()), copies, sets, seed)
    masked, passes = gathered(masked, passes)
    held = 0 if masked is None else len(masked.sample.unique())
    if held < FEWEST:
        raise AtomError(f"batches: {held} samples of two tokens or more; an explainer is fitted on at least {FEWEST}")
    if not all(values.isfinite().all() for values in (masked.tokens, masked.change, masked.whole)):
        raise AtomError(
            f"this {type(atoms).__name__} gives numbers that are not finite ({atoms.dtype}), and no explainer can be fitted to "
            "them; load it with dtype=torch.float32, or train it again"
        )
    with _put_back_on_error(atoms), _one_thread(atoms.device):
        explained = _fit(atoms, masked, seed)
    if explained <= 0:
        logger.warning("the explainer explains nothing on held-out samples: give more samples")
    return ExplainerFit(held, passes, explained)


def make_maskers(model: Any, processing_class: Any) -> list[Masker]:
    """A masker for every strategy that fits a model.

    Raises:
        AtomError: a model that predicts no class, labels or number of a whole sample, or whose tokens cannot be masked.
    """
    kind = type(model).__name__
    if not kind.endswith(("ForSequenceClassification", "ForImageClassification")):
        raise AtomError(f"{kind} predicts no class of a whole sample, which an explainer could be fitted to")
    if model.config.problem_type == "regression" and model.config.num_labels > 1:
        raise AtomError(f"this {kind} predicts several numbers at once, and an explainer is fitted to one")
    is_image = is_image_model(model)
    if not is_image and processing_class is None:
        raise AtomError("processing_class: give the tokenizer, which knows what stands for a masked token")
    return [Masker(model, processing_class, strategy) for strategy in (IMAGE_MASKING if is_image else TEXT_MASKING)]


@contextmanager
def _put_back_on_error(model: Any) -> Iterator[None]:
    """Context manager: on an error, restores the explainer that there was before."""
    config, head = model.atom_config, model.atom_heads.explainer
    sizes = config.explainer_classes, config.explainer_width
    try:
        yield
    except BaseException:
        model.atom_heads.explainer = head
        config.explainer_classes, config.explainer_width = sizes
        raise


@contextmanager
def _one_thread(device: torch.device) -> Iterator[None]:
    """Context manager: one thread on a CPU. Thousands of small steps on a busy CPU would mostly wait for threads."""
    threads = torch.get_num_threads()
    if device.type == "cpu":
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _fit(model: Any, masked: MaskedSamples, seed: int) -> float:
    """Fits the explainer. Returns the share of the changes of held-out samples that it explains."""
    device = model.atom_heads.importance.weight.device
    generator = torch.Generator().manual_seed(seed)
    samples = masked.sample.unique()
    held_out = samples[torch.randperm(len(samples), generator=generator)[: len(samples) // HELD_OUT]]
    is_held = torch.isin(masked.sample, held_out)
    train, test = (~is_held).nonzero()[:, 0], (is_held & (masked.copy == 0)).nonzero()[:, 0]
    count = masked.mask.sum(1, keepdim=True)
    unit = float((masked.whole.abs() / count).mean().clamp(min=1e-6))
    flat = float(((masked.change - masked.whole * masked.keep.sum(-1) / count)[test] ** 2).mean())
    with torch.enable_grad(), torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        head = add_explainer(model, model.config.num_labels, WIDTH).requires_grad_(True)
        log_scale = torch.zeros((), device=device, requires_grad=True)
        optimizer = torch.optim.AdamW([*head.parameters(), log_scale], lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, STEPS, pct_start=0.1)

        def errors(rows: Tensor, dropout: float = 0.0) -> tuple[Tensor, Tensor]:
            parts = (masked.tokens, masked.mask, masked.classes, masked.keep, masked.change, masked.whole)
            tokens, mask, classes, keep, change, whole = (part[rows].to(device) for part in parts)
            phi = head(tokens.float(), classes, dropout) * mask * unit * log_scale.exp()
            missing = whole - phi.sum(1, keepdim=True)
            kept = keep.float()
            told = torch.einsum("bkn,bn->bk", kept, phi) + missing * kept.sum(-1) / mask.sum(1, keepdim=True)
            return (change - told).square().mean(), missing.square().mean()

        best, kept = math.inf, head.state_dict()
        for step in tqdm(range(STEPS), desc="fitting importance", leave=False, disable=not is_first_process()):
            rows = train[torch.randint(len(train), (BATCH,), generator=generator)]
            error, gap = errors(rows, DROPOUT)
            optimizer.zero_grad()
            ((error + SIGN * gap) / unit**2).backward()
            optimizer.step()
            schedule.step()
            if step % LOOK == LOOK - 1:
                with torch.no_grad():
                    found = [float(errors(part)[0]) * len(part) for part in test.split(BATCH)]
                if sum(found) / len(test) < best:
                    best = sum(found) / len(test)
                    kept = {name: value.clone() for name, value in head.state_dict().items()}
    head.load_state_dict(kept)
    head.requires_grad_(False)
    if processes() > 1:
        # The same numbers to each, whatever the order of their sums.
        state = broadcast_object_list([{name: value.cpu() for name, value in kept.items()}, best])
        head.load_state_dict(state[0])
        best = state[1]
    return 1 - best / flat if flat > 1e-12 else 0.0  # a model whose answer never changes
