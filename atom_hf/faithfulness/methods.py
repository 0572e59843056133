"""Attributions to tokens: the model's own importance, and the methods that it is compared with.

Each takes a `Classifier`, the inputs of B samples and the class [B] that is explained, and gives [B, N], NaN where there is
no token. All explain the same thing: the probability of the class that the model predicts. Rollout, the hidden norm and the
charges do not depend on the class; they are read as support for it all the same.
"""

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from ..errors import AtomError
from ..explainer.masking import class_probability
from ..modeling.collector import reading_tokens
from ..modeling.explaining import explaining
from .classifier import Classifier, Inputs, repeated

STEPS = 50

PERMUTATIONS = 25

KERNEL_SAMPLES = 200

BATCH = 64

Attribute = Callable[[Classifier, Inputs, Tensor, Tensor | None], Tensor]


@dataclass(frozen=True)
class Method:
    """One way to attribute.

    Attributes:
        name: as the command line and the tables have it.
        attribute: (classifier, inputs, class [B], points or None) -> [B, N]. Points stand in place of the inputs' own.
        about: a description for the report.
        needs_heads: only a model with atoms has it.
        has_scale: its numbers are changes of the probability, so that infidelity without normalisation says something.
        is_sampled: it masks whole tokens, at hundreds of passes. It knows no points, and is left out of the checks.
        masks: the kinds of input, "text" and "image", for which it depends on the masking strategy.
    """

    name: str
    attribute: Attribute
    about: str
    needs_heads: bool = False
    has_scale: bool = False
    is_sampled: bool = False
    masks: tuple[str, ...] = ()

    def depends_on_masking(self, classifier: Classifier) -> bool:
        """Whether it gives something else under another masking strategy."""
        return ("image" if classifier.is_image else "text") in self.masks

    def __call__(self, classifier: Classifier, inputs: Inputs, target: Tensor, points: Tensor | None = None) -> Tensor:
        """[B, N], float32, NaN where there is no token."""
        found = self.attribute(classifier, inputs, target, points)
        return found.detach().float().masked_fill(~classifier.tokens(inputs), float("nan"))


@torch.no_grad()
def importance(classifier: Classifier, inputs: Inputs, target: Tensor, points: Tensor | None) -> Tensor:
    """The model's `atom_importance`: the explainer's importance for the class and masking strategy, or else the charges."""
    model, strategy = classifier.model, classifier.masker.strategy
    explained = explaining(model, target, strategy) if model.atom_config.has_explainer else nullcontext()
    with explained:
        return classifier.run(inputs, points, return_atoms=True).atom_importance


@torch.no_grad()
def charge(classifier: Classifier, inputs: Inputs, target: Tensor, points: Tensor | None, *, read: Callable) -> Tensor:
    """The charges that the energy knows (Eq. 6), whether there is an explainer or not."""
    heads = classifier.model.atom_heads
    with reading_tokens(classifier.model) as tokens:
        classifier.run(inputs, points, return_atoms=True)
    return read(heads(tokens[-1])[0])


def random(classifier: Classifier, inputs: Inputs, target: Tensor, points: Tensor | None) -> Tensor:
    """Normal numbers, others in each call; the classifier's seed gives the same ones again."""
    shape = classifier.tokens(inputs).shape
    return torch.randn(shape, generator=classifier.generator).to(target.device)


@torch.no_grad()
def attention_rollout(classifier: Classifier, inputs: Inputs, target: Tensor, points: Tensor | None) -> Tensor:
    """Abnar and Zuidema (arXiv 2005.00928), section 3: the product over the layers of (mean over heads of A + I) / 2.

    The row of the token that the classifier reads; the mean of the rows where it reads all of them.

    Raises:
        AtomError: a model that gives no attention over its whole sequence.
    """
    model = classifier.model
    # Fused attention gives no weights.
    before = getattr(model.config, "_attn_implementation", "eager")
    reads = classifier.reads(inputs)
    if before != "eager":
        model.set_attn_implementation("eager")
    try:
        layers = getattr(classifier.run(inputs, points, output_attentions=True), "attentions", None)
    finally:
        if before != "eager":
            model.set_attn_implementation(before)
    length = classifier.length(inputs)
    if not layers or any(layer is None or layer.shape[-2:] != (length, length) for layer in layers):
        raise AtomError(
            f"attention_rollout: {type(model).__name__} gives no attention over its whole sequence; leave it out"
        )
    return rollout([layer.float() for layer in layers], reads)


def rollout(layers: list[Tensor], reads: Tensor) -> Tensor:
    """Attention [B, heads, N, N] of each layer, the first first, and the rows that count [B, N] -> [B, N]."""
    row = reads[:, None].to(layers[0])
    for attention in reversed(layers):
        row = (row @ attention.mean(1) + row) / 2
    return row[:, 0]


@torch.no_grad()
def hidden_norm(classifier: Classifier, inputs: Inputs, target: Tensor, points: Tensor | None) -> Tensor:
    """The Euclidean norm of each hidden state of the atoms' layer: what any model shows for one forward pass."""
    return classifier.hidden(classifier.run(inputs, points, output_hidden_states=True)).float().norm(dim=-1)


def input_x_gradient(classifier: Classifier, inputs: Inputs, target: Tensor, points: Tensor | None) -> Tensor:
    """Captum's InputXGradient at the word embeddings or pixels, summed over the width of a token or the pixels of a patch."""
    from captum.attr import InputXGradient

    points = classifier.points(inputs) if points is None else points
    found = InputXGradient(_forward(classifier, inputs)).attribute(
        points.detach().clone().requires_grad_(), additional_forward_args=(target, *inputs.values())
    )
    return classifier.per_token(found, inputs)


def integrated_gradients(
    classifier: Classifier, inputs: Inputs, target: Tensor, points: Tensor | None, *, steps: int = STEPS
) -> Tensor:
    """Captum's IntegratedGradients (arXiv 1703.01365), likewise, from the inputs with all their tokens masked.

    For a text that is mask tokens between its special tokens, for an image the mean colour or the blurred image.
    """
    from captum.attr import IntegratedGradients

    points = classifier.points(inputs) if points is None else points
    found = IntegratedGradients(_forward(classifier, inputs)).attribute(
        points.detach().clone(),
        baselines=classifier.baseline(inputs),
        additional_forward_args=(target, *inputs.values()),
        n_steps=steps,
        internal_batch_size=max(BATCH, len(target)),
    )
    return classifier.per_token(found, inputs)


def shapley_sampling(
    classifier: Classifier, inputs: Inputs, target: Tensor, points: Tensor | None, *, permutations: int = PERMUTATIONS
) -> Tensor:
    """Shapley values by sampling: the mean change of the probability as a token joins, over random orders of the tokens.

    Tokens that have not joined are masked by the `Classifier`'s strategy. The orders are those of Captum's
    `ShapleyValueSampling` and the same in each call; unlike there, the sets of all samples and orders share batches.
    """
    _check_points(points)
    tokens = classifier.tokens(inputs)
    with torch.random.fork_rng(devices=[]):
        orders = []
        for count in tokens.sum(1).tolist():
            torch.manual_seed(0)
            orders.append(torch.stack([torch.randperm(count) for _ in range(permutations)]))
    sample, keep = [], []
    for row, (real, its) in enumerate(zip(tokens, orders, strict=True)):
        count = its.shape[1]
        if not count:
            continue
        # Nothing, and then each order's first token, first two, and so on.
        joined = its.argsort(1)[:, None] < torch.arange(1, count + 1)[:, None]
        joined = torch.cat([torch.zeros(1, count, dtype=torch.bool), joined.flatten(0, 1)]).to(tokens.device)
        part = torch.ones(len(joined), len(real), dtype=torch.bool, device=tokens.device)
        part[:, real] = joined
        keep.append(part)
        sample.append(torch.full((len(part),), row, device=tokens.device))
    found = torch.zeros(tokens.shape, device=tokens.device)
    if not keep:
        return found
    values = classifier.masked(inputs, target, torch.cat(sample), torch.cat(keep)).split([len(part) for part in keep])
    for row, each in zip((its[0] for its in sample), values, strict=True):
        order = orders[row].to(tokens.device)
        curves = torch.cat([each[:1].expand(permutations, 1), each[1:].view(order.shape)], 1)
        found[row, tokens[row]] = curves.diff(dim=1).gather(1, order.argsort(1)).mean(0)
    return found


def kernel_shap(
    classifier: Classifier, inputs: Inputs, target: Tensor, points: Tensor | None, *, samples: int = KERNEL_SAMPLES
) -> Tensor:
    """Captum's KernelShap (arXiv 1705.07874), with so many random sets of tokens."""
    from captum.attr import KernelShap

    _check_points(points)
    tokens = classifier.tokens(inputs)
    found = torch.zeros(tokens.shape, device=tokens.device)
    for row, real in enumerate(tokens):
        if not real.any():
            continue
        one = {name: value[row : row + 1] for name, value in inputs.items()}

        def value(joined: Tensor, one: Inputs = one, real: Tensor = real, row: int = row) -> Tensor:
            keep = torch.ones(len(joined), len(real), dtype=torch.bool, device=real.device)
            keep[:, real] = joined > 0.5
            masked = classifier.masker(repeated(one, len(joined)), keep)
            return classifier.probability(masked, target[row].expand(len(joined)))

        whole = torch.ones(1, int(real.sum()), device=real.device)
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            found[row, real] = KernelShap(value).attribute(whole, n_samples=samples, perturbations_per_eval=BATCH)[0]
    return found


def _check_points(points: Tensor | None) -> None:
    if points is not None:
        raise AtomError("Shapley values are of tokens, not of embeddings or pixels: they have no sensitivity to these")


def _forward(classifier: Classifier, inputs: Inputs) -> Callable[..., Tensor]:
    # Captum repeats additional arguments, not those by name.
    names = list(inputs)

    def forward(points: Tensor, target: Tensor, *values: Tensor) -> Tensor:
        return class_probability(classifier.run(dict(zip(names, values, strict=True)), points).logits, target)

    return forward


_BOTH = ("text", "image")

_ALL = [
    Method(
        "importance",
        importance,
        "the model's importance: fitted to the prediction, or its charges",
        needs_heads=True,
        masks=_BOTH,
    ),
    Method("charge", partial(charge, read=lambda q: q), "the charges that the energy knows, with their sign", True),
    Method("-charge", partial(charge, read=lambda q: -q), "the charges with the other sign", True),
    Method("|charge|", partial(charge, read=torch.abs), "the charges without their sign", True),
    Method("random", random, "normal numbers", masks=_BOTH),  # nothing is gained by sharing it
    Method("attention_rollout", attention_rollout, "attention rollout (Abnar and Zuidema, arXiv 2005.00928)"),
    Method("hidden_norm", hidden_norm, "norm of the hidden state that the importance is read from"),
    Method("input_x_gradient", input_x_gradient, "gradient times input (Captum)", has_scale=True),
    Method(
        "integrated_gradients",
        integrated_gradients,
        f"integrated gradients, {STEPS} steps (Captum)",
        has_scale=True,
        masks=("image",),  # of a text they start from its mask tokens
    ),
    Method(
        "shapley_sampling",
        shapley_sampling,
        f"Shapley values, {PERMUTATIONS} random orders (Captum)",
        has_scale=True,
        is_sampled=True,
        masks=_BOTH,
    ),
    Method(
        "kernel_shap",
        kernel_shap,
        f"KernelSHAP, {KERNEL_SAMPLES} random sets (Captum)",
        has_scale=True,
        is_sampled=True,
        masks=_BOTH,
    ),
]

METHODS = {method.name: method for method in _ALL}

DEFAULT_METHODS = [name for name in METHODS if name != "kernel_shap"]
