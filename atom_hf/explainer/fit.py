"""Ties importance to the prediction: fits it to what the model's probability loses without each token (ours).

The energy alone promises nothing about a prediction. Here the model stands still, and a small head learns from its hidden
states the change that each token makes, as FastSHAP does (Jethani et al., arXiv 2107.07436, Eq. 5 and section 3.2):

    v(S)    probability of the class that is predicted of a sample, with only the tokens in S left
    q_i     importance of token i for that class, in [-1, 1]
    phi_i = a q_i + (v(all) - v(none) - sum_j a q_j) / n                        (what the parts miss is shared out)
    minimise  mean over samples and sets S of  (v(S) - v(none) - sum over i in S of phi_i)^2
              + SIGN * mean over samples of  (v(all) - v(none) - sum_j a q_j)^2

Sets are drawn by the Shapley kernel, in pairs of a set and its complement, so that the minimum of the first term is at the
Shapley values. The second settles the sign, which the first leaves open. Tokens are taken away in each way that there is
(`erasing.py`), so that the importance does not learn one. What is explained are samples, and copies of them that have lost some
tokens already: a model knows many more of these than there are samples.
"""

from dataclasses import dataclass
from typing import Any
from ..errors import AtomError
from ..modeling.mixin import AtomMixin
from .masked_samples import Inputs
from collections.abc import Iterable
from .masked_samples import collect
from ..modeling.inference import evaluating
from .masked_samples import gathered
from ..modeling.unwrap import inside
import math
from ..utils.distributed import processes
import torch
from .masking import Eraser
from .masking import IMAGE_HOWS
from .masking import TEXT_HOWS
from ..modeling.layers import is_image_model
from collections.abc import Iterator
from contextlib import contextmanager
from .masked_samples import Pool
from torch import Tensor
from ..modeling.attach import add_tied
from accelerate.utils import broadcast_object_list
from ..utils.distributed import is_first_process
from tqdm.auto import tqdm
import logging

logger = logging.getLogger(__name__)

WIDTH, DROPOUT, SIGN = 64, 0.3, 0.01

STEPS, BATCH, LEARNING_RATE, WEIGHT_DECAY = 2000, 64, 3e-3, 1e-2

HELD_OUT = 8
"""One sample of so many is held out, to stop by."""

LOOK = 50
"""Steps between two looks at those."""

FEWEST = 16
"""Samples that importance can be tied by."""

SAMPLES, COPIES, SETS = 500, 8, 8



@dataclass(frozen=True)
class Tie:
    """What a fit came to."""

    samples: int
    """How many samples were erased from."""
    passes: int
    """How many erased samples went through the model."""
    explained: float
    """Of what erasing tokens of held-out samples changes, beyond the same change for each, the share that the sum of their
    importances tells: at most 1."""



def tie_importance(
    model: Any,
    processing_class: Any,
    batches: Iterable[Inputs],
    *,
    samples: int = SAMPLES,
    copies: int = COPIES,
    sets: int = SETS,
    seed: int = 0,
) -> Tie:
    """Fits the importance of a trained model's tokens to its prediction. The model itself and its charges stay as they are.

    From then on `atom_importance` gives, in evaluation, the tied importance for the class that is predicted: positive for a
    token that the prediction leans on, negative for one that speaks against it, 0 for one that it does not need. It is saved
    and pushed with the heads. Training the model further takes it away again.

    Args:
        model: a classifier of texts, or of images by a grid of patches, with atoms; an adapter on one will do.
        processing_class: its tokenizer or image processor.
        batches: inputs of the model, such as a DataLoader of training data; no labels are needed. On several processes, each
            one's share.
        samples: how many of them are used, over all processes.
        copies: how many times each is explained: as it is, and with some tokens taken away.
        sets: how many sets of tokens are left of each of these, a multiple of 4. About `samples * copies * sets` erased samples
            go through the model.
        seed: of the sets.

    Raises:
        AtomError: no atoms, no classes, a model whose tokens cannot be taken away, fewer than 16 samples, numbers that are not
            finite. What had been tied before then stays so.
    """
    atoms = inside(model)
    if not isinstance(atoms, AtomMixin):
        raise AtomError("model has no atoms: attach_atoms(model), or load_atom_model of one that was saved with them")
    if sets < 4 or sets % 4 or samples < FEWEST or copies < 1:
        raise AtomError(
            f"samples must be at least {FEWEST}, copies at least 1 and sets a multiple of 4; got {samples}, {copies}, {sets}"
        )
    erasers = make_erasers(atoms, processing_class)
    with evaluating(model), torch.no_grad():
        pool, passes = collect(model, erasers, batches, math.ceil(samples / processes()), copies, sets, seed)
    pool, passes = gathered(pool, passes)
    held = 0 if pool is None else len(pool.sample.unique())
    if held < FEWEST:
        raise AtomError(f"batches: {held} samples of two tokens or more; importance is tied by at least {FEWEST}")
    if not all(values.isfinite().all() for values in (pool.tokens, pool.change, pool.whole)):
        raise AtomError(
            f"this {type(atoms).__name__} gives numbers that are not finite ({atoms.dtype}), and importance cannot be tied to "
            "them; load it with dtype=torch.float32, or train it anew"
        )
    with _put_back_on_error(atoms), _one_thread(atoms.device):
        explained = _fit(atoms, pool, seed)
    if explained <= 0:
        logger.warning("the tied importance tells nothing of the prediction on held-out samples: give more samples")
    return Tie(held, passes, explained)



def make_erasers(model: Any, processing_class: Any) -> list[Eraser]:
    """Every way to take tokens of a model away. Raises `AtomError` for a model that is no classifier or has no such way."""
    classes = getattr(model.config, "num_labels", 0)
    kind, problem = type(model).__name__, getattr(model.config, "problem_type", None)
    if not kind.endswith(("ForSequenceClassification", "ForImageClassification")):
        raise AtomError(f"{kind} predicts no class of a whole sample, which importance could be tied to")
    if classes < 2 or problem in ("regression", "multi_label_classification"):
        raise AtomError(
            f"this {kind} does not choose one of several classes, and importance is tied to the chosen one's"
        )
    is_image = is_image_model(model)
    if not is_image and processing_class is None:
        raise AtomError("processing_class: give the tokenizer, which knows what stands for a token that is taken away")
    return [Eraser(model, processing_class, how) for how in (IMAGE_HOWS if is_image else TEXT_HOWS)]



@contextmanager
def _put_back_on_error(model: Any) -> Iterator[None]:
    """A fit that is broken off leaves what was tied before it."""
    config, tied = model.atom_config, model.atom_heads.tied
    sizes = config.tied_classes, config.tied_width
    try:
        yield
    except BaseException:
        model.atom_heads.tied = tied
        config.tied_classes, config.tied_width = sizes
        raise



@contextmanager
def _one_thread(device: torch.device) -> Iterator[None]:
    """Thousands of small steps on a CPU that others use wait for threads most of the time."""
    threads = torch.get_num_threads()
    if device.type == "cpu":
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)



def _fit(model: Any, pool: Pool, seed: int) -> float:
    """Fits the tied importance. Returns the share of the changes of held-out samples that it explains."""
    device = model.atom_heads.importance.weight.device
    generator = torch.Generator().manual_seed(seed)
    samples = pool.sample.unique()
    held_out = samples[torch.randperm(len(samples), generator=generator)[: len(samples) // HELD_OUT]]
    is_held = torch.isin(pool.sample, held_out)
    train, test = (~is_held).nonzero()[:, 0], (is_held & (pool.copy == 0)).nonzero()[:, 0]
    count = pool.mask.sum(1, keepdim=True)
    unit = float((pool.whole.abs() / count).mean().clamp(min=1e-6))
    flat = float(((pool.change - pool.whole * pool.keep.sum(-1) / count)[test] ** 2).mean())
    with torch.enable_grad(), torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        tied = add_tied(model, model.config.num_labels, WIDTH).requires_grad_(True)
        log_scale = torch.zeros((), device=device, requires_grad=True)
        optimizer = torch.optim.AdamW([*tied.parameters(), log_scale], lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, STEPS, pct_start=0.1)

        def errors(rows: Tensor, dropout: float = 0.0) -> tuple[Tensor, Tensor]:
            parts = (pool.tokens, pool.mask, pool.classes, pool.keep, pool.change, pool.whole)
            tokens, mask, classes, keep, change, whole = (part[rows].to(device) for part in parts)
            phi = tied(tokens.float(), classes, dropout) * mask * unit * log_scale.exp()
            missing = whole - phi.sum(1, keepdim=True)
            kept = keep.float()
            told = torch.einsum("bkn,bn->bk", kept, phi) + missing * kept.sum(-1) / mask.sum(1, keepdim=True)
            return (change - told).square().mean(), missing.square().mean()

        best, kept = math.inf, tied.state_dict()
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
                    kept = {name: value.clone() for name, value in tied.state_dict().items()}
    tied.load_state_dict(kept)
    tied.requires_grad_(False)
    if processes() > 1:
        # The same numbers to each, whatever the order of their sums.
        state = broadcast_object_list([{name: value.cpu() for name, value in kept.items()}, best])
        tied.load_state_dict(state[0])
        best = state[1]
    return 1 - best / flat if flat > 1e-12 else 0.0  # a model whose answer never changes

