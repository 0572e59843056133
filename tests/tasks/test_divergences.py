"""Divergences of wires, against their formulas in loops."""

import math

import pytest
import torch

from atom_hf.tasks.divergences import Probability, divergence
from atom_hf.tasks.kinds import Divergence, Kind
from atom_hf.tasks.wires import Filled, Gaussian, Simplex, Tokens

PIXELS, VECTOR, CLASS, TOKENS, GAUSSIAN = (
    Kind("pixels", (2, 3, 3)), Kind("vector", (5,)), Kind("class", (4,)), Kind("tokens", (7,)), Kind("gaussian", (3,)),
)  # fmt: skip


def random(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(len(shape) + shape[-1]))


def close(found, expected):
    assert found.dim() == 0 and found.item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("kind", [PIXELS, VECTOR], ids=str)
def test_numbers(kind):
    a, b = random(6, *kind.sizes), random(6, *kind.sizes).flip(0)
    rows = [(x.flatten().tolist(), y.flatten().tolist()) for x, y in zip(a, b, strict=True)]
    squares = [sum((u - v) ** 2 for u, v in zip(x, y, strict=True)) for x, y in rows]
    size = math.prod(kind.sizes)
    close(divergence(kind, a, b, None), sum(squares) / 6 / size)
    close(divergence(kind, a, b, Divergence("sse")), sum(squares) / 6)
    close(
        divergence(kind, a, b, Divergence("l1")),
        sum(abs(u - v) for x, y in rows for u, v in zip(x, y, strict=True)) / 6 / size,
    )
    cosines = [
        sum(u * v for u, v in zip(x, y, strict=True)) / math.dist(x, [0] * size) / math.dist(y, [0] * size)
        for x, y in rows
    ]
    close(divergence(kind, a, b, Divergence("cosine")), sum(1 - c for c in cosines) / 6)


def test_classes():
    a, b, ids = random(6, 4), random(6, 4).flip(0), torch.tensor([0, 1, 2, 3, 0, 1])
    logs = [[v - math.log(sum(map(math.exp, row))) for v in row] for row in a.tolist()]
    system = Simplex(logits=a)
    close(
        divergence(CLASS, system, Simplex(ids=ids, classes=4), None),
        -sum(logs[i][k] for i, k in enumerate(ids.tolist())) / 6,
    )
    for temperature in (1.0, 2.0):
        soft = [[[v / temperature for v in row] for row in side.tolist()] for side in (a, b)]
        p, q = ([[math.exp(v) / sum(map(math.exp, row)) for v in row] for row in side] for side in soft)
        kl = sum(y * math.log(y / x) for xs, ys in zip(p, q, strict=True) for x, y in zip(xs, ys, strict=True)) / 6
        by = Divergence("kl", (("temperature", temperature),))
        close(divergence(CLASS, system, Simplex(logits=b), by), kl * temperature**2)
    # What a box made is compared by KL, whatever the divergence is called.
    same = divergence(CLASS, system, Simplex(logits=b), None)
    assert torch.equal(same, divergence(CLASS, system, Simplex(logits=b), Divergence("kl")))
    close(divergence(CLASS, Simplex(logits=b), Simplex(logits=b), None) + 1, 1)
    close(
        divergence(CLASS, Simplex(probabilities=a.softmax(-1)), Simplex(ids=ids), None),
        -sum(logs[i][k] for i, k in enumerate(ids.tolist())) / 6,
    )


def test_gaussians():
    a, b = Gaussian(random(4, 3), random(4, 3).flip(0)), Gaussian(random(4, 3) + 1, random(4, 3) / 2)
    normal = [torch.distributions.Normal(side.mean, (side.log_variance / 2).exp()) for side in (a, b)]
    expected = torch.distributions.kl_divergence(*normal).sum(1).mean().item()
    close(divergence(GAUSSIAN, a, b, None), expected)


def test_tokens_that_are_no_padding():
    logits, ids = random(2, 5, 7), torch.tensor([[1, 2, 3, 0, 0], [4, 5, 6, 1, 2]])
    mask = torch.tensor([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]])
    system = Tokens(None, torch.ones_like(mask), logits)
    expected = [-logits[i, j].log_softmax(-1)[ids[i, j]].item() for i in range(2) for j in range(5) if mask[i, j]]
    close(divergence(TOKENS, system, Tokens(ids, mask), None), sum(expected) / 8)
    hard = torch.nn.functional.one_hot(ids, 7).float().log().clamp(min=-1e4)
    close(divergence(TOKENS, system, Tokens(None, mask, hard), None), sum(expected) / 8)


def test_truth():
    a = random(5)
    expected = [math.log(1 + math.exp(-v)) for v in a.tolist()]
    close(divergence(Kind("logit"), a, Probability(torch.tensor(1.0)), None), sum(expected) / 5)
    b = a.flip(0)
    p = torch.sigmoid(b)
    expected = (-(p * torch.sigmoid(a).log() + (1 - p) * torch.sigmoid(-a).log())).mean().item()
    close(divergence(Kind("logit"), a, b, None), expected)
    close(
        divergence(Kind("scalar"), a, b, None),
        sum((u - v) ** 2 for u, v in zip(a.tolist(), b.tolist(), strict=True)) / 5,
    )


def test_of_a_text_that_was_filled_in_only_written_tokens_cost():
    ids, real = torch.tensor([[1, 2, 3, 4], [5, 6, 0, 0]]), torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0]])
    places = torch.tensor([[False, True, False, True], [True, False, False, False]])
    vocabulary, scores = torch.tensor([2, 3, 5]), random(3, 3)
    system = Filled(ids, real, None, places, scores, vocabulary)
    logs = scores.log_softmax(-1)
    # The second of the three, 4, cannot be written: it costs nothing.
    close(divergence(TOKENS, system, Tokens(ids, real), None), float(-logs[0, 0] - logs[2, 2]) / 6)
    # Nor does the third, where it stands for 5 and 6.
    system.mask = torch.tensor([[1, 1, 1, 1], [1, 0, 0, 0]])
    close(divergence(TOKENS, system, Tokens(ids, real), None), float(-logs[0, 0]) / 6)
