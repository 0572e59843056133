"""The two heads: their formulas, their precision, and how they start."""

import pytest
import torch
from torch import nn

from atom_hf import AtomHeads
from atom_hf.atoms.explainer_head import ExplainerHead


def tokens_of(shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * 3 + 1


def make_heads(width, seed=0, **options):
    torch.manual_seed(seed)
    heads = AtomHeads(width, **options)
    with torch.no_grad():  # a bias of 0 would hide one that is not added
        heads.importance.bias.fill_(0.2)
        heads.position.bias.normal_()
    return heads


def test_the_formulas():
    heads, tokens = make_heads(6), tokens_of((2, 5, 6))
    q, p = heads(tokens)
    e = tokens - tokens.mean(-1, keepdim=True)
    e = e / (e.square().mean(-1, keepdim=True) + 1e-5).sqrt()
    score = (e * heads.importance.weight[0]).sum(-1) + heads.importance.bias
    torch.testing.assert_close(q, 2 * torch.sigmoid(score) - 1)
    torch.testing.assert_close(p, e @ heads.position.weight.T + heads.position.bias)
    assert q.abs().max() > 0.1 and p.abs().max() > 0.1
    assert q.shape == (2, 5) and p.shape == (2, 5, 6)


def test_both_heads_and_the_tokens_learn():
    heads, tokens = make_heads(6), tokens_of((2, 5, 6)).requires_grad_()
    q, p = heads(tokens)
    (q.square().sum() + p.square().sum()).backward()
    for name, parameter in [*heads.named_parameters(), ("tokens", tokens)]:
        assert parameter.grad.abs().max() > 0, name


def test_importance_stays_between_minus_one_and_one():
    q, _ = make_heads(6, importance_std=1e4)(tokens_of((20, 5, 6)))
    assert q.abs().max() == 1 and q.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64], ids=str)
def test_any_tokens_are_read_in_float32(dtype):
    heads, tokens = make_heads(6), tokens_of((2, 5, 6)).to(dtype)
    for ours, expected in zip(heads(tokens), heads(tokens.float()), strict=True):
        assert ours.dtype == torch.float32 and torch.equal(ours, expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_autocast_changes_nothing(dtype):
    heads, tokens = make_heads(6), tokens_of((2, 5, 6)).to(dtype)
    expected = heads(tokens)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert heads.position(tokens.float()).dtype == torch.bfloat16, "autocast is on"
        results = heads(tokens)
    for ours, plain in zip(results, expected, strict=True):
        assert ours.dtype == torch.float32 and torch.equal(ours, plain)


@pytest.mark.parametrize(
    "convert",
    [
        lambda model: model.half(),
        lambda model: model.bfloat16(),
        lambda model: model.double(),
        lambda model: model.to(torch.bfloat16),
        lambda model: model.to("cpu", torch.float16),
    ],
    ids=["half", "bfloat16", "double", "to(bfloat16)", "to(cpu, float16)"],
)
def test_the_heads_keep_their_precision_inside_a_model_that_changes_its_own(convert):
    heads = make_heads(6)
    expected = {name: value.clone() for name, value in heads.state_dict().items()}
    model = convert(nn.ModuleDict({"body": nn.Linear(6, 6), "heads": heads}))
    assert model["body"].weight.dtype != torch.float32
    for name, value in model["heads"].state_dict().items():
        assert value.dtype == torch.float32 and torch.equal(value, expected[name]), name


@pytest.mark.parametrize("target", [("meta",), ("meta", torch.float16)], ids=["device", "device and dtype"])
def test_the_heads_follow_the_model_to_another_device(target):
    # Meta is the one other device that every machine has.
    model = nn.ModuleDict({"body": nn.Linear(6, 6), "heads": make_heads(6)}).to(*target)
    assert all(value.device.type == "meta" for value in model.state_dict().values())
    assert all(value.dtype == torch.float32 for value in model["heads"].state_dict().values())


def test_to_cpu_and_gradients_survive_a_conversion():
    heads = make_heads(6).to("cpu")
    heads(tokens_of((2, 5, 6)))[0].sum().backward()
    gradient = heads.importance.weight.grad.clone()
    heads.half()
    assert torch.equal(heads.importance.weight.grad, gradient)
    assert gradient.abs().max() > 0


def start(width, **options):
    """The charges that fresh heads give to random tokens, over 20 heads: one alone is a draw of `width` numbers."""
    charges = []
    for seed in range(20):
        torch.manual_seed(seed)
        charges.append(AtomHeads(width, **options)(tokens_of((4, 50, width), seed))[0].detach())
    return torch.stack(charges)


@pytest.mark.parametrize("width", [16, 48, 384, 768])
def test_charges_start_alive_and_balanced(width):
    q = start(width)
    assert 0.45 < q.abs().mean() < 0.55
    assert 0.45 < (q > 0).float().mean() < 0.55
    # So does each single head: no seed leaves a model with charges of one sign, or none.
    for head in q:
        assert 0.3 < head.abs().mean() < 0.7
        assert 0.3 < (head > 0).float().mean() < 0.7


def test_positions_may_start_as_the_tokens():
    torch.manual_seed(0)
    heads, tokens = AtomHeads(6, position_init="identity"), tokens_of((2, 5, 6))
    q, p = heads(tokens)
    torch.testing.assert_close(p, torch.nn.functional.layer_norm(tokens, (6,)))
    # Nothing else starts otherwise, and P learns from there.
    torch.manual_seed(0)
    other_q, other_p = AtomHeads(6, position_init="random")(tokens)
    assert torch.equal(q, other_q) and not torch.allclose(p, other_p)
    p.square().sum().backward()
    assert heads.position.weight.grad.abs().max() > 0


def test_importance_std_scales_the_start():
    score = {std: 2 * start(64, importance_std=std).double().atanh() for std in (0.5, 1.0, 2.0)}
    for std, values in score.items():
        assert values.std().item() == pytest.approx(std, rel=0.1)
    torch.testing.assert_close(score[1.0] * 2, score[2.0], rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    ("module", "sizes"),
    [
        (AtomHeads(8), ["hidden_size=8", "in_features=8, out_features=1", "in_features=8, out_features=8"]),
        (AtomHeads(3, position_init="identity"), ["hidden_size=3", "in_features=3, out_features=3"]),
        (ExplainerHead(8, 3, 5), ["hidden_size=8, classes=3, width=5", "in_features=5, out_features=3"]),
        (ExplainerHead(4, 10, 64), ["hidden_size=4, classes=10, width=64", "in_features=4, out_features=64"]),
        (torch.nn.Sequential(AtomHeads(6)), ["hidden_size=6", "in_features=6, out_features=1"]),
    ],
)
def test_the_sizes_of_heads_are_shown(module, sizes):
    assert all(size in repr(module) for size in sizes)
