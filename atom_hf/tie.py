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

import logging
import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from typing import Any

import torch
from accelerate.utils import broadcast_object_list, gather_object
from torch import Tensor
from torch.nn import functional as F
from tqdm.auto import tqdm

from .attaching import add_tied
from .distributed import is_first_process, processes
from .erasing import IMAGE_HOWS, TEXT_HOWS, Eraser
from .errors import AtomError
from .modeling import AtomMixin, evaluating
from .wrapped import inside

logger = logging.getLogger(__name__)

MAX_BYTES = 2**30
"""No more than this is kept of hidden states."""
WIDTH, DROPOUT, SIGN = 64, 0.3, 0.01
STEPS, BATCH, LEARNING_RATE, WEIGHT_DECAY = 2000, 64, 3e-3, 1e-2
HELD_OUT = 8
"""One sample of so many is held out, to stop by."""
LOOK = 50
"""Steps between two looks at those."""
MOST_LOST = 0.6
"""The largest share of its tokens that a copy has lost."""
FEWEST = 16
"""Samples that importance can be tied by."""
ROWS = 128
"""How many erased samples go through the model at once."""

SAMPLES, COPIES, SETS = 500, 8, 8

Inputs = dict[str, Tensor]


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


@dataclass
class _Pool:
    """Samples and copies of them, with what the model says of their parts. n items, N tokens, K sets each."""

    tokens: Tensor  # [n, N, h] float16, layer-normalised
    mask: Tensor  # bool [n, N]
    classes: Tensor  # [n]
    keep: Tensor  # bool [n, K, N]: the sets
    change: Tensor  # [n, K]: v(S) - v(none)
    whole: Tensor  # [n, K]: v(all) - v(none), where "none" depends on the way that a set is erased
    sample: Tensor  # [n]: which sample it is, or is a copy of
    copy: Tensor  # [n]: 0 for the sample itself

    def __len__(self) -> int:
        return len(self.mask)


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
        AtomError: no atoms, no classes, a model whose tokens cannot be taken away, fewer than 16 samples, probabilities that are
            not finite. What had been tied before then stays so.
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
        pool, passes = _collect(model, erasers, batches, math.ceil(samples / processes()), copies, sets, seed)
    pool, passes = _gathered(pool, passes)
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
    is_image = getattr(model, "main_input_name", "input_ids") == "pixel_values"
    if not is_image and processing_class is None:
        raise AtomError("processing_class: give the tokenizer, which knows what stands for a token that is taken away")
    return [Eraser(model, processing_class, how) for how in (IMAGE_HOWS if is_image else TEXT_HOWS)]


def _collect(
    model: Any, erasers: list[Eraser], batches: Iterable[Inputs], samples: int, copies: int, sets: int, seed: int
) -> tuple[_Pool | None, int]:
    """The pool of the first samples of `batches`, None if there are none, and how many erased samples it took."""
    generator = torch.Generator().manual_seed(seed)
    parts: list[_Pool] = []
    taken = passes = rows = longest = 0
    with tqdm(total=samples, desc="tying importance", unit="sample", disable=not is_first_process()) as bar:
        for batch in batches:
            inputs = _first({n: v for n, v in batch.items() if torch.is_tensor(v) and n != "labels"}, samples - taken)
            inputs = {name: value.to(model.device) for name, value in inputs.items()}
            count = len(next(iter(inputs.values())))
            for copy in range(copies):
                part, erased = _explain(model, erasers, inputs, copy, sets, generator)
                part.sample += taken
                parts.append(part)
                passes += erased
                rows, longest = rows + len(part), max(longest, part.mask.shape[1])
            # They are padded to the longest text of all.
            size = rows * longest * parts[-1].tokens.shape[2] * 2
            taken += count
            bar.update(count)
            if size > MAX_BYTES // processes():
                logger.info("importance is tied by %d samples: their hidden states fill %d MiB", taken, size >> 20)
                break
            if taken >= samples:
                break
    return _joined(parts) if parts else None, passes


def _explain(
    model: Any, erasers: list[Eraser], inputs: Inputs, copy: int, sets: int, generator: torch.Generator
) -> tuple[_Pool, int]:
    """What a model makes of a batch of samples and of sets of their tokens; of a copy, that has lost some of them already."""
    hidden, logits = _hidden(model, inputs)
    tokens = erasers[0].tokens(inputs, hidden.shape[1])
    passes = len(tokens)
    if copy:
        eraser = erasers[copy % len(erasers)]
        lost = MOST_LOST * torch.rand(len(tokens), 1, generator=generator)
        keep = (torch.rand(tokens.shape, generator=generator) >= lost).to(tokens.device)
        keep |= (keep & tokens).sum(1, keepdim=True) < 2
        inputs = eraser(inputs, keep)
        hidden, logits = _hidden(model, inputs)
        passes += len(tokens)
        tokens = eraser.tokens(inputs, inputs["input_ids"].shape[1]) if eraser.how == "drop" else tokens & keep
    classes = logits.argmax(-1)
    keep = draw_sets(tokens.cpu(), sets, generator).to(tokens.device)
    whole = of_class(logits, classes)
    # What a copy has lost already stays as it is.
    lost = erasers[0].tokens(inputs, tokens.shape[1]) & ~tokens
    change, span = torch.zeros(keep.shape[:2]), torch.zeros(keep.shape[:2])
    for number, eraser in enumerate(erasers):
        # A set and its complement go the same way.
        mine = torch.arange(sets) // 2 % len(erasers) == number
        none = torch.zeros_like(tokens)[:, None]
        found = _values(model, eraser, inputs, torch.cat([none, keep[:, mine]], 1) | lost[:, None], classes).cpu()
        change[:, mine] = found[:, 1:] - found[:, :1]
        span[:, mine] = (whole.cpu() - found[:, 0])[:, None].expand(-1, int(mine.sum()))
        passes += found.numel()
    fits = (tokens.sum(1) > 1).cpu()
    normal = F.layer_norm(hidden.float(), hidden.shape[-1:]).half().cpu()
    number = torch.arange(len(tokens))
    values = (normal, tokens.cpu(), classes.cpu(), keep.cpu(), change, span, number, torch.full_like(number, copy))
    return _Pool(*(value[fits] for value in values)), passes


def draw_sets(tokens: Tensor, sets: int, generator: torch.Generator) -> Tensor:
    """Sets of tokens by the Shapley kernel, each followed by its complement: bool [B, N] -> bool [B, sets, N].

    A size s of n tokens is drawn with p(s) in proportion to 1 / (s (n - s)), and then any set of that size (FastSHAP, Eq. 2,
    after Lundberg and Lee, arXiv 1705.07874, Theorem 2).
    """
    count = tokens.sum(1, keepdim=True)
    size = torch.arange(1, max(2, int(count.max())))
    # A sample of one token or none has no such set; whatever is drawn for it is left out.
    weights = torch.where(size < count, 1.0 / (size * (count - size)).clamp(min=1), (size == 1) & (count < 2))
    sizes = size[torch.multinomial(weights, sets // 2, replacement=True, generator=generator)]
    order = torch.rand(len(tokens), sets // 2, tokens.shape[1], generator=generator)
    rank = order.masked_fill(~tokens[:, None], 2.0).argsort(-1).argsort(-1)
    left = (rank < sizes[..., None]) & tokens[:, None]
    return torch.stack([left, tokens[:, None] & ~left], dim=2).flatten(1, 2)


def of_class(logits: Tensor, classes: Tensor) -> Tensor:
    """The probability of a class [B] of each row of logits [B, C]: [B]."""
    return logits.float().softmax(-1).gather(1, classes[:, None])[:, 0]


@contextmanager
def reading_tokens(model: Any) -> Iterator[list[Tensor]]:
    """Within it, the tokens [B, N, h] that the heads of a model read in each forward pass, as they come."""
    seen: list[Tensor] = []
    hook = inside(model).atom_heads.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    try:
        yield seen
    finally:
        hook.remove()


def _hidden(model: Any, inputs: Inputs) -> tuple[Tensor, Tensor]:
    """The hidden states [B, N, h] that the heads read, and the logits [B, C]."""
    with reading_tokens(model) as tokens:
        logits = model(**inputs, return_atoms=True).logits
    return tokens[-1], logits


def _values(model: Any, eraser: Eraser, inputs: Inputs, keep: Tensor, classes: Tensor) -> Tensor:
    """The probabilities [B, K] of a class of each sample with the sets bool [B, K, N] of its tokens alone."""
    flat, found = keep.flatten(0, 1), torch.zeros(keep.shape[0] * keep.shape[1], device=keep.device)
    # Deleted tokens shorten a text: alike ones go together.
    for rows in flat.sum(1).argsort().split(ROWS):
        row = rows // keep.shape[1]
        erased = eraser({name: value[row] for name, value in inputs.items()}, flat[rows])
        found[rows] = of_class(model(**erased).logits, classes[row])
    return found.view(keep.shape[:2])


def _first(inputs: Inputs, count: int) -> Inputs:
    return {name: value[:count] for name, value in inputs.items()}


def _joined(parts: list[_Pool]) -> _Pool:
    """Pools one below the other, their tokens padded to the longest."""
    longest = max(part.mask.shape[1] for part in parts)

    def column(name: str) -> Tensor:
        values = [getattr(part, name) for part in parts]
        room = {"tokens": (0, 0), "mask": (), "keep": ()}.get(name)
        if room is not None:
            values = [F.pad(v, (*room, 0, longest - part.mask.shape[1])) for v, part in zip(values, parts, strict=True)]
        return torch.cat(values)

    return _Pool(**{field.name: column(field.name) for field in fields(_Pool)})


def _gathered(pool: _Pool | None, passes: int) -> tuple[_Pool | None, int]:
    """The pools of all processes, in the order of ranks, and the sum of their passes."""
    if processes() == 1:
        return pool, passes
    found = gather_object([(pool, passes)])
    parts = [part for part, _ in found if part is not None and len(part)]
    offset = 0
    for part in parts:
        part.sample += offset
        offset = int(part.sample.max()) + 1
    return _joined(parts) if parts else None, sum(rows for _, rows in found)


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


def _fit(model: Any, pool: _Pool, seed: int) -> float:
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
