"""Fit importance to the prediction: to what masking each token does to the predicted probability (ours).

The energy alone says nothing about a prediction. Here the model is frozen, and a small head predicts from its hidden
states the change that each token makes, as FastSHAP and ViT-Shapley do (Jethani et al., arXiv 2107.07436, Eq. 5 and section
3.2; Covert et al., arXiv 2206.05282):

    v(S)    probability of a class, with only the tokens in S left; that of a label, or the number of a regression
            (`modeling.targets.output_values`)
    q_i     importance of token i for that class under a masking strategy, in [-1, 1]
    phi_i = a q_i + (v(all) - v(none) - sum_j a q_j) / n                        (the remainder is shared equally)
    minimise  mean over samples and sets S of  (v(S) - v(none) - sum over i in S of phi_i)^2
              + SIGN * mean over samples of  (v(all) - v(none) - sum_j a q_j)^2

Sets are drawn by the Shapley kernel, in pairs of a set and its complement, so that the minimum of the first term is at the
Shapley values. The second settles the sign, which the first leaves open. Every pass tells of all classes at once, and the most
probable ones are all fitted. Each strategy that fits the model (`masking.py`) has an output, and a scale a, of its own. The fit
uses samples, and copies of them with some tokens masked already, of which there can be many more than samples. It ends early
where it no longer explains more of held-out samples.
"""

import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from time import perf_counter
from typing import Any

import torch

from ..atoms.explainer_sizes import MAX_BLOCKS, ROUGH
from ..errors import AtomError
from ..modeling.attach import set_explainer_sizes
from ..modeling.inference import evaluating
from ..modeling.layers import is_image_model
from ..modeling.mixin import AtomMixin
from ..modeling.unwrap import inner_model
from ..utils.distributed import processes
from ..utils.terminal import get_logger
from .collect import FEWEST, collect
from .descent import HeadOptions, fit_head
from .masked_samples import Inputs, gathered
from .masking import IMAGE_MASKING, TEXT_MASKING, Masker

logger = get_logger(__name__)

FIT_SHARE = 0.3
"""The share of a budget of seconds that is left for the fit itself."""

SAMPLES, COPIES, SETS = 500, 2, 16


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
    seconds: float | None = None,
    strategy: str | None = None,
    blocks: int = HeadOptions.blocks,
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
        seconds: a budget of time for masking and fitting together, unlimited if not given: fewer samples are used where it
            would not do for all, and at least 16. It is looked at after each batch.
        strategy: the masking strategy whose importance is given by default; the first of those that fit the model if not given.
        blocks: attention blocks of the explainer. Without any it reads each token beside the mean of all, in the context that
            its hidden states have.
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
    if seconds is not None and not seconds > 0:
        raise AtomError(f"seconds must be above 0, got {seconds}")
    seconds = math.inf if seconds is None else seconds
    if not 0 <= blocks <= MAX_BLOCKS:
        raise AtomError(f"blocks must be from 0 to {MAX_BLOCKS}, got {blocks}")
    start = perf_counter()
    maskers = make_maskers(atoms, processing_class, strategy)
    with evaluating(model), torch.no_grad():
        each, part = math.ceil(samples / processes()), (1 - FIT_SHARE) * seconds
        masked, passes, layers = collect(model, maskers, batches, each, copies, sets, seed, part)
    masked, passes, layers = gathered(masked, passes, layers)
    held = 0 if masked is None else len(masked.sample.unique())
    if held < FEWEST:
        raise AtomError(f"batches: {held} samples of two tokens or more; an explainer is fitted on at least {FEWEST}")
    if not all(values.isfinite().all() for values in (masked.tokens, masked.change, masked.whole)):
        raise AtomError(
            f"this {type(atoms).__name__} gives numbers that are not finite ({atoms.dtype}), and no explainer can be fitted to "
            "them; load it with dtype=torch.float32, or train it again"
        )
    strategies, left = [masker.strategy for masker in maskers], seconds - (perf_counter() - start)
    with _put_back_on_error(atoms), _one_thread(atoms.device):
        explained = fit_head(atoms, masked, layers, strategies, HeadOptions(blocks=blocks), seed=seed, seconds=left)
    if explained < ROUGH:
        logger.warning(
            "the explainer explains %.0f %% of what masking changes on held-out samples: take its importance for a rough "
            "guide, check it by atom-hf explain --verify, or fit it on more samples",
            100 * max(0.0, explained),
        )
    return ExplainerFit(held, passes, explained)


def make_maskers(model: Any, processing_class: Any, first: str | None = None) -> list[Masker]:
    """A masker for every strategy that fits a model, `first` among them before the others.

    Raises:
        AtomError: a model that predicts no class, labels or number of a whole sample, or whose tokens cannot be masked, or a
            strategy that does not fit it.
    """
    kind = type(model).__name__
    if not kind.endswith(("ForSequenceClassification", "ForImageClassification")):
        raise AtomError(f"{kind} predicts no class of a whole sample, which an explainer could be fitted to")
    if model.config.problem_type == "regression" and model.config.num_labels > 1:
        raise AtomError(f"this {kind} predicts several numbers at once, and an explainer is fitted to one")
    is_image = is_image_model(model)
    if not is_image and processing_class is None:
        raise AtomError("processing_class: give the tokenizer, which knows what stands for a masked token")
    known = list(IMAGE_MASKING if is_image else TEXT_MASKING)
    if first is not None and first not in known:
        raise AtomError(f"strategy must be {' or '.join(known)} for this {kind}; got {first!r}")
    order = sorted(known, key=lambda strategy: strategy != first)
    return [Masker(model, processing_class, strategy) for strategy in order]


@contextmanager
def _put_back_on_error(model: Any) -> Iterator[None]:
    """Context manager: on an error, restores the explainer that there was before."""
    config, head = replace(model.atom_config), model.atom_heads.explainer
    try:
        yield
    except BaseException:
        model.atom_heads.explainer = head
        set_explainer_sizes(model, config)
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
