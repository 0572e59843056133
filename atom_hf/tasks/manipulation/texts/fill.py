"""Networks that write a class into a text: `hide` covers what a classifier leans on, `Filler` writes into the gaps."""

import inspect
from typing import Any

import torch
from torch import Tensor, nn

from ....errors import AtomError
from ....importance.scoring import forward_scores
from ...boxes import TextModel
from ...wires import Filled, Simplex, Tokens
from ..put import SHARE

BEGINS, GOES_ON, JOINS, NO_WORD = range(4)
"""What a token is in a word."""

JOINTS = ("'", "\u2019", "-")
"""Marks that make one word of the two beside them, as in "isn't"."""

POINTS = 2
"""At which the gradient is taken, for the importance of tokens."""


class Filler(nn.Module):
    """`fill(text, a)`: a masked language model that is told the class, which it finds at each gap.

    Args:
        encoder: a model of Transformers that takes `inputs_embeds` and gives hidden states, both ways along the text.
        classes: n.
        mask_id: of the token that stands in a gap.
        vocabulary: [v] ids of the tokens that can be written.
    """

    takes_wires = True

    def __init__(self, encoder: nn.Module, classes: int, mask_id: int, vocabulary: Tensor):
        super().__init__()
        check_embeds(encoder, "the filler")
        self.encoder, self.mask_id = encoder, mask_id
        size, hidden = encoder.get_input_embeddings().embedding_dim, encoder.config.hidden_size
        self.w = nn.Linear(classes, size, bias=False)
        self.transform = nn.Sequential(nn.Linear(hidden, size), nn.GELU(), nn.LayerNorm(size))
        self.bias = nn.Parameter(torch.zeros(len(vocabulary)))
        self.register_buffer("vocabulary", vocabulary)
        nn.init.normal_(self.w.weight, std=0.02)  # about the scale of an embedding

    def forward(self, text: Tokens, target: Simplex) -> Filled:
        """A text with gaps, filled in for points [B, n] of the simplex of classes."""
        table = self.encoder.get_input_embeddings()
        places = (text.ids == self.mask_id) & text.mask.bool()
        rows = table(text.ids) + places.unsqueeze(-1) * self.w(target.point.to(self.w.weight.dtype)).unsqueeze(1)
        states = self.encoder(inputs_embeds=rows, attention_mask=text.mask)[0]
        scores = self.transform(states[places]) @ table.weight[self.vocabulary].T + self.bias
        ids = text.ids.masked_scatter(places, self.vocabulary[scores.argmax(-1)])
        return Filled(ids, text.mask, None, places, scores, self.vocabulary)


class Hide:
    """`hide(text)`: puts gaps in the place of the words that a classifier leans on most.

    A word is hidden with all its tokens, and has one gap. How much it counts is the sum of what they contribute
    (`token_importance`).

    Args:
        get: the classifier.
        roles: of each token in a word, see `token_roles`.
        special: ids that are no words.
        mask_id: of the token that stands in a gap.
        share: of the tokens that are hidden, at least one word.
        explained: the classifier with atoms and an explainer, whose fitted importance is taken instead.
        keeps: whether to keep what was found for a text, for a classifier that stands still.
    """

    takes_wires = True

    def __init__(
        self,
        get: TextModel,
        roles: Tensor,
        special: list[int],
        mask_id: int,
        share: float = SHARE,
        explained: Any = None,
        keeps: bool = False,
    ):
        self.get, self.roles, self.special, self.explained = get, roles, special, explained
        self.mask_id, self.share = mask_id, share
        self.kept: dict[bytes, Tensor] | None = {} if keeps else None

    def __call__(self, text: Tokens) -> Tokens:
        return with_gaps(text, self.places(text), self.words(text), self.mask_id)

    def places(self, text: Tokens) -> Tensor:
        """bool [B, N], the tokens that are hidden."""
        if self.kept is None:
            return self._places(text)
        lengths = text.mask.sum(1).tolist()
        names = [row[:length].cpu().numpy().tobytes() for row, length in zip(text.ids, lengths, strict=True)]
        new = [row for row, name in enumerate(names) if name not in self.kept]
        if new:
            found = self._places(Tokens(text.ids[new], text.mask[new])).cpu()
            self.kept.update({names[row]: found[place, : lengths[row]] for place, row in enumerate(new)})
        places = torch.zeros(text.ids.shape, dtype=torch.bool)
        for row, (name, length) in enumerate(zip(names, lengths, strict=True)):
            places[row, :length] = self.kept[name]
        return places.to(text.ids.device)

    def _places(self, text: Tokens) -> Tensor:
        words = self.words(text)
        return hidden_words(self.importance(text, words), words, self.share)

    def importance(self, text: Tokens, words: Tensor | None = None) -> Tensor:
        """What each token [B, N] contributes to the class that is read."""
        if self.explained is not None:
            return fitted_importance(self.explained, text)
        words = self.words(text) if words is None else words
        return token_importance(self.get, text, self.mask_id, words >= 0)

    def words(self, text: Tokens) -> Tensor:
        """The number [B, N] of each token's word, counted from 0; -1 of what is no word."""
        device = text.ids.device
        real = text.mask.bool() & ~torch.isin(text.ids, torch.tensor(self.special, device=device))
        roles = self.roles.to(device)[text.ids].masked_fill(~real, NO_WORD)
        in_word = (roles == BEGINS) | (roles == GOES_ON)
        joint = (roles == JOINS) & _before(in_word) & _after(in_word)
        starts = in_word & ~_before(joint) & ((roles == BEGINS) | ~_before(in_word))
        return torch.where(in_word | joint, starts.cumsum(1) - 1, -1)


def _before(values: Tensor) -> Tensor:
    """What the token before each one has."""
    return torch.nn.functional.pad(values[:, :-1], (1, 0))


def _after(values: Tensor) -> Tensor:
    return torch.nn.functional.pad(values[:, 1:], (0, 1))


class Cover:
    """`cover(text)`: puts gaps in the place of words by chance, drawn by PyTorch's generator of the process."""

    takes_wires = True

    def __init__(self, hide: Hide, share: float):
        self.hide, self.share = hide, share

    def __call__(self, text: Tokens) -> Tokens:
        words = self.hide.words(text)
        chances = torch.rand(words.shape, device=words.device)
        places = hidden_words(chances, words, self.share)
        return with_gaps(text, places, words, self.hide.mask_id)


def with_gaps(text: Tokens, places: Tensor, words: Tensor, gap: int) -> Tokens:
    """A text with one gap for each hidden word: at its first token, and its other tokens are no longer part of the text.

    Args:
        places, words: [B, N], which tokens are hidden, and the number of each token's word.
        gap: the id of the token that stands in a gap.
    """
    first = places & (words != torch.nn.functional.pad(words[:, :-1], (1, 0), value=-1))
    return Tokens(text.ids.masked_fill(first, gap), text.mask * ~(places & ~first))


def token_importance(get: TextModel, text: Tokens, gap: int, real: Tensor, points: int = POINTS) -> Tensor:
    """What each token [B, N] contributes to the log-odds of the class that a classifier reads, beside a gap in its place.

    Integrated gradients (Sundararajan et al., 2017) on the way from a text of gaps alone, by the midpoint rule.

    Args:
        gap: the id of the token that stands in a gap.
        real: bool [B, N], the tokens that are words; the others are never gaps, and contribute nothing.
        points: on the way.
    """
    table = get.model.get_input_embeddings()
    with torch.enable_grad():
        rows = table(text.ids).detach()
        empty = torch.where(real.unsqueeze(-1), table(text.ids.new_tensor([gap])).detach(), rows)
        with torch.no_grad():
            own = get.model(inputs_embeds=rows, attention_mask=text.mask)["logits"].argmax(1, keepdim=True)
        total = torch.zeros_like(rows)
        for point in range(points):
            between = torch.lerp(empty, rows, (point + 0.5) / points).requires_grad_(True)
            logits = get.model(inputs_embeds=between, attention_mask=text.mask)["logits"]
            others = logits.scatter(1, own, -torch.inf).logsumexp(1)
            total += torch.autograd.grad((logits.gather(1, own)[:, 0] - others).sum(), between)[0]
    return ((rows - empty) * total / points).sum(-1).detach()


def fitted_importance(model: Any, text: Tokens) -> Tensor:
    """The importance [B, N] that was fitted to the prediction of a model with an explainer; 0 of what has none."""
    found = forward_scores(model, {"input_ids": text.ids, "attention_mask": text.mask})
    length = text.ids.shape[1]
    rows = torch.stack([torch.as_tensor(row.importance[len(row.importance) - length :]) for row in found])
    return rows.nan_to_num(0.0).to(text.ids.device)


def hidden_words(importance: Tensor, words: Tensor, share: float) -> Tensor:
    """bool [B, N]: the words with the largest sums of importance, at most a share of a text's tokens, but at least one word.

    Args:
        importance: [B, N] of each token.
        words: [B, N] the number of each token's word; -1 of what cannot be hidden.
    """
    real = words >= 0
    slots = words.clamp(min=0)
    sums = torch.zeros_like(importance).scatter_add(1, slots, importance.masked_fill(~real, 0.0))
    sizes = torch.zeros_like(words).scatter_add(1, slots, real.long())
    order = sums.masked_fill(sizes == 0, -torch.inf).argsort(dim=1, descending=True, stable=True)
    ordered = sizes.gather(1, order)
    chosen = (ordered.cumsum(1) <= share * real.sum(1, keepdim=True)) & (ordered > 0)
    chosen[:, 0] = ordered[:, 0] > 0
    hidden = torch.zeros_like(real).scatter(1, order, chosen)
    return hidden.gather(1, slots) & real


def token_roles(tokenizer: Any) -> Tensor:
    """int8 [V]: what each token of a tokenizer is in a word: `BEGINS`, `GOES_ON`, `JOINS` two parts of one, or `NO_WORD`."""
    tokens = tokenizer.convert_ids_to_tokens(list(range(len(tokenizer))))
    first = tokenizer.tokenize("a")[-1]
    roles = []
    for token in tokens:
        joined = tokenizer.convert_tokens_to_string([first, token])[1:]
        if joined.strip() in JOINTS:
            roles.append(JOINS)
        elif not any(map(str.isalnum, joined)):
            roles.append(NO_WORD)
        else:
            roles.append(BEGINS if " " in joined else GOES_ON)
    return torch.tensor(roles, dtype=torch.int8)


def check_embeds(model: nn.Module, who: str) -> None:
    """Raises `AtomError` for a model that takes no rows of embeddings."""
    if "inputs_embeds" not in inspect.signature(model.forward).parameters:
        raise AtomError(
            f"{who}: {type(model).__name__} takes no inputs_embeds, through which a written text has a gradient; give a model "
            "that does, such as a BERT"
        )
