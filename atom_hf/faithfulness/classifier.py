"""A classifier for attribution methods and metrics: samples of tokens, and the probability of a class."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..atoms.config import AtomConfig
from ..data.encoding import encode_rows
from ..errors import AtomError
from ..explainer.masking import ROWS, Masker, class_probability, masked_logits, of_patches
from ..modeling.inference import evaluating
from ..modeling.tokens import patch_grid

Inputs = dict[str, Tensor]


class Classifier:
    """A classifier of texts or images, with atoms or without, whose tokens can be masked.

    Args:
        model: the classifier.
        processor: its tokenizer or image processor.
        strategy: how tokens are masked, one of `explainer.masking.TEXT_MASKING` or `IMAGE_MASKING`.
        max_length: texts are cut after this many tokens.
        seed: of the numbers that the random attribution draws.

    Raises:
        AtomError: a model that is not a classifier, or whose tokens cannot be masked.
    """

    def __init__(self, model: Any, processor: Any, strategy: str, max_length: int = 128, seed: int = 0):
        if "Classification" not in type(model).__name__ or "TokenClassification" in type(model).__name__:
            raise AtomError(
                f"{type(model).__name__} predicts no class of a whole sample: faithfulness is measured on text or image "
                "classification"
            )
        self.model, self.processor, self.max_length, self.seed = model, processor, max_length, seed
        self.masker = Masker(model, processor, strategy)
        self.is_image = self.masker.is_image
        self.generator = torch.Generator().manual_seed(seed)
        self._reads: str | None = None

    @property
    def has_heads(self) -> bool:
        """Whether the model has atoms, and so an importance of its own."""
        return hasattr(self.model, "atom_config")

    @property
    def layer(self) -> int:
        """The layer whose hidden states the atoms are made of; without atoms, that of the defaults."""
        return getattr(self.model, "atom_config", AtomConfig()).layer

    def encode(self, rows: list[dict[str, Any]]) -> Inputs:
        """Rows of a data set ("text" and perhaps "text_pair", or "image") as the model's inputs."""
        return encode_rows(rows, self.model, self.processor, self.max_length)

    def tokens(self, inputs: Inputs) -> Tensor:
        """Which of the model's tokens stand for a part of the input: bool [B, N]."""
        return self.masker.tokens(inputs, self.length(inputs))

    def length(self, inputs: Inputs) -> int:
        """N, the length of the model's hidden states."""
        if not self.is_image:
            return inputs["input_ids"].shape[1]
        if not hasattr(self, "_length"):
            with torch.no_grad(), evaluating(self.model):
                one = {name: value[:1] for name, value in inputs.items()}
                self._length = self.hidden(self.model(**one, output_hidden_states=True)).shape[1]
        return self._length

    def hidden(self, outputs: Any) -> Tensor:
        """The hidden states [B, N, h] of the layer of the atoms.

        Raises:
            AtomError: a model that gives none, or a feature map.
        """
        states = getattr(outputs, "hidden_states", None)
        if not states or states[self.layer].dim() != 3:
            raise AtomError(
                f"{type(self.model).__name__} has no hidden states in a sequence: give a model such as a BERT or a ViT"
            )
        return states[self.layer]

    @torch.no_grad()
    def predict(self, inputs: Inputs) -> tuple[Tensor, Tensor]:
        """The class that the model predicts [B], and its probability [B]."""
        with evaluating(self.model):
            probabilities = self.model(**inputs).logits.float().softmax(-1)
        probability, target = probabilities.max(-1)
        return target, probability

    def points(self, inputs: Inputs) -> Tensor:
        """Where gradients are taken: word embeddings [B, N, h] (before positions are added), or pixels [B, C, H, W]."""
        if self.is_image:
            return inputs["pixel_values"].detach()
        with torch.no_grad(), evaluating(self.model):
            return self.model.get_input_embeddings()(inputs["input_ids"])

    def baseline(self, inputs: Inputs) -> Tensor:
        """The points of the inputs with all tokens masked. For a text by its mask token: deleted tokens have no embedding."""
        masker = self.masker
        if not self.is_image and masker.strategy != "mask":
            masker = Masker(self.model, self.processor, "mask")
        nothing = torch.zeros_like(self.tokens(inputs))
        return self.points(masker(inputs, nothing))

    @contextmanager
    def at(self, points: Tensor | None) -> Iterator[Callable[[Inputs], Inputs]]:
        """Context manager: the model takes `points` in place of a text's embeddings; yields a function that puts them into an
        image's inputs.

        A hook rather than `inputs_embeds`: positions and the token that a classifier reads are found by the ids.
        """
        if points is None or self.is_image:
            yield lambda inputs: inputs if points is None else {**inputs, "pixel_values": points}
            return
        handle = self.model.get_input_embeddings().register_forward_hook(lambda module, args, output: points)
        try:
            yield lambda inputs: inputs
        finally:
            handle.remove()

    def run(self, inputs: Inputs, points: Tensor | None = None, **options: Any) -> Any:
        """The model's outputs in evaluation, with their gradient if it is on."""
        with evaluating(self.model), self.at(points) as placed:
            return self.model(**placed(inputs), **options)

    def probability(self, inputs: Inputs, target: Tensor, points: Tensor | None = None) -> Tensor:
        """The probability of a class [B] of each sample: [B]."""
        return class_probability(self.run(inputs, points).logits, target)

    def per_token(self, values: Tensor, inputs: Inputs) -> Tensor:
        """Values of points, summed over the width of each token or the pixels of each patch: [B, N], 0 before the patches."""
        if not self.is_image:
            return values.sum(-1)
        patches = of_patches(values, patch_grid(values, self.model.config))
        return torch.nn.functional.pad(patches, (self.length(inputs) - patches.shape[1], 0))

    def reads(self, inputs: Inputs) -> Tensor:
        """How much each token of the last layer counts for the classifier: weights [B, N] that sum to 1.

        Found once, by the gradient: one token ([CLS], or the last of a text), or all tokens alike.
        """
        length = self.length(inputs)
        if self._reads is None:
            one = {name: value[:1] for name, value in inputs.items()}
            with torch.enable_grad():
                outputs = self.run(one, self.points(one).clone().requires_grad_(), output_hidden_states=True)
                last = outputs.hidden_states[-1]
                (slope,) = torch.autograd.grad(outputs.logits.float().square().sum(), last, allow_unused=True)
            read = torch.ones(length, dtype=torch.bool) if slope is None else slope[0].abs().sum(-1).cpu() > 0
            place = int(read.nonzero()[0]) if read.sum() == 1 else None
            self._reads = "all" if place is None else "first" if place == 0 else "last"
        attention = inputs.get("attention_mask")
        sample = next(iter(inputs.values()))
        real = torch.ones(len(sample), length, device=sample.device) if attention is None else attention.float()
        if self._reads == "all":
            return real / real.sum(1, keepdim=True)
        places = real.argmax(1) if self._reads == "first" else length - 1 - real.flip(1).argmax(1)
        return torch.nn.functional.one_hot(places, length).float()

    @torch.no_grad()
    def masked(self, inputs: Inputs, target: Tensor, sample: Tensor, keep: Tensor, rows: int = ROWS) -> Tensor:
        """The probability of a sample's class with some of its tokens alone, for any number of sets of any of the samples.

        Args:
            inputs: B samples.
            target: [B], the class of each.
            sample: int [R], which of them each set is of.
            keep: bool [R, N], the tokens that are left.
            rows: how many go through the model at once.

        Returns:
            [R].
        """
        with evaluating(self.model):
            return class_probability(masked_logits(self.model, self.masker, inputs, sample, keep, rows), target[sample])

    def values(self, inputs: Inputs, target: int, batch_size: int = ROWS) -> Callable[[np.ndarray], np.ndarray]:
        """The probability of a class of one sample with some of its tokens alone: keep-vectors bool [K, n] -> [K].

        n is the number of the sample's tokens, without padding, special and prefix tokens. Values are cached: methods that rank
        alike ask alike.
        """
        found = Values()
        tokens = self.tokens(inputs)[:1]

        def values(keep: np.ndarray) -> np.ndarray:
            prepare(self, inputs, torch.tensor([target], device=tokens.device), tokens, [found], [keep], batch_size)
            return found(keep)

        return values


class Values:
    """The values of one sample that are known: keep-vectors bool [K, n] -> [K]."""

    def __init__(self) -> None:
        self.known: dict[bytes, float] = {}

    def __call__(self, keep: np.ndarray) -> np.ndarray:
        """[K]. Raises `KeyError` for a set that has not been prepared."""
        return np.array([self.known[row.tobytes()] for row in keep])

    def missing(self, keep: np.ndarray) -> list[np.ndarray]:
        """The sets that are not known, each once."""
        return list({key: row for row in keep if (key := row.tobytes()) not in self.known}.values())


def prepare(
    classifier: Classifier,
    inputs: Inputs,
    target: Tensor,
    tokens: Tensor,
    values: Sequence[Values],
    asked: Sequence[np.ndarray],
    rows: int = ROWS,
) -> None:
    """Finds what is asked for and not known yet, of several samples together.

    Args:
        classifier: the model.
        inputs: B samples.
        target: [B], the class of each.
        tokens: bool [B, N], their tokens that can be masked.
        values: of each sample, which get what is found.
        asked: of each, keep-vectors bool [K, n].
        rows: how many masked samples go through the model at once.
    """
    new = [(number, row) for number, keep in enumerate(asked) for row in values[number].missing(keep)]
    if not new:
        return
    sample = torch.tensor([number for number, _ in new], device=tokens.device)
    keep = torch.ones(len(new), tokens.shape[1], dtype=torch.bool, device=tokens.device)
    keep[tokens[sample]] = torch.from_numpy(np.concatenate([row for _, row in new])).to(tokens.device)
    found = classifier.masked(inputs, target, sample, keep, rows).double().tolist()
    for (number, row), value in zip(new, found, strict=True):
        values[number].known[row.tobytes()] = value


def repeated(inputs: Inputs, times: int) -> Inputs:
    """One sample, repeated `times` times."""
    return {name: value.expand(times, *value.shape[1:]) for name, value in inputs.items()}
