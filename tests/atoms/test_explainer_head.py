"""The explainer's network: against its formulas written out, its size beside BERT's, and what it says of a sample."""

import math

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import BertConfig, BertForSequenceClassification

from atom_hf.atoms.explainer_head import HEADS, AttentionBlock, ExplainerHead
from atom_hf.atoms.explainer_sizes import MAX_BLOCKS
from atom_hf.explainer.descent import HeadOptions

B, L, N, H, C, S, WIDTH = 3, 2, 5, 8, 4, 2, 12


def random_head(blocks=1, strategies=S, layers=L, context=False):
    torch.manual_seed(0)
    head = ExplainerHead(H, C, WIDTH, layers=layers, blocks=blocks, strategies=strategies, context=context)
    for parameter in head.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return head


def normed(values):
    return (values - values.mean(-1, keepdim=True)) / (values.var(-1, keepdim=True, correction=0) + 1e-5).sqrt()


def attended(block, tokens, real):
    """One block, a token, a head and a pair of tokens at a time."""
    found, width = tokens.clone(), tokens.shape[1]
    normal = normed(tokens) * block.attention_norm.weight + block.attention_norm.bias
    query, key, value = (normal @ block.qkv.weight.T + block.qkv.bias).split(width, dim=1)
    size = width // HEADS
    for i in range(len(tokens)):
        heads = []
        for h in range(HEADS):
            part = slice(h * size, (h + 1) * size)
            weights = [
                math.exp(float(query[i, part] @ key[j, part]) / math.sqrt(size)) * bool(real[j])
                for j in range(len(tokens))
            ]
            heads.append(sum(w * value[j, part] for j, w in enumerate(weights)) / sum(weights))
        found[i] = tokens[i] + torch.cat(heads) @ block.out.weight.T + block.out.bias
    normal = normed(found) * block.feed_norm.weight + block.feed_norm.bias
    up = torch.nn.functional.gelu(normal @ block.up.weight.T + block.up.bias)
    return found + up @ block.down.weight.T + block.down.bias


@torch.no_grad()
@pytest.mark.parametrize(("blocks", "context"), [(0, False), (2, False), (0, True), (1, True)])
def test_it_is_what_its_formulas_say(blocks, context):
    head = random_head(blocks, context=context)
    states, classes = torch.randn(B, L, N, H), torch.tensor([[0, 3], [2, 1], [1, 1]])
    real = torch.ones(B, N, dtype=torch.bool)
    real[1, 3:] = False
    found = head(states, real, classes)
    assert found.shape == (B, N, S, 2)
    for row in range(B):
        if context:
            tokens = torch.stack([torch.cat([layer[token] for layer in states[row]]) for token in range(N)])
            around = head.around.weight @ tokens[real[row]].mean(0) + head.around.bias
            inner = tokens @ head.inner.weight.T + head.inner.bias + around
        else:
            share = head.mix.exp() / head.mix.exp().sum()
            inner = (share[0] * states[row, 0] + share[1] * states[row, 1]) @ head.inner.weight.T + head.inner.bias
        for block in head.blocks:
            inner = attended(block, inner, real[row])
        inner = torch.nn.functional.gelu(inner)
        for strategy in range(S):
            for place, number in enumerate(classes[row].tolist()):
                output = strategy * C + number
                expected = (inner @ head.outer.weight[output] + head.outer.bias[output]).div(2).tanh()
                torch.testing.assert_close(found[row, :, strategy, place], expected, atol=1e-5, rtol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("context", [False, True])
def test_padding_changes_nothing(context):
    head, states, classes = random_head(context=context), torch.randn(1, L, N, H), torch.tensor([[2]])
    real = torch.ones(1, N, dtype=torch.bool)
    padded = torch.cat([states, torch.randn(1, L, 3, H)], 2)
    there = torch.cat([real, torch.zeros(1, 3, dtype=torch.bool)], 1)
    torch.testing.assert_close(head(padded, there, classes)[:, :N], head(states, real, classes))
    read = head._read(padded, there, packed=True)
    torch.testing.assert_close(read[:, :N], head._read(states, real, packed=False))


@torch.no_grad()
def test_it_tells_what_it_explains():
    head = random_head()
    head.scale.copy_(torch.tensor([0.1, 0.2]))
    head.nothing.copy_(torch.tensor([[0.4, 0.3, 0.2, 0.1], [0.1, 0.2, 0.3, 0.4]]))
    states, values = [torch.randn(B, N, H) * 3 for _ in range(L)], torch.randn(B, C).softmax(-1)
    mask = torch.ones(B, N, dtype=torch.bool)
    mask[:, 0] = False
    classes = torch.tensor([3, 0, 2])
    told = head.explain(states, mask, torch.ones_like(mask), values, classes, 1)
    expected = head(torch.stack([normed(s) for s in states], 1), torch.ones_like(mask), classes[:, None])[:, :, 1, 0]
    torch.testing.assert_close(told.importance, expected, atol=1e-4, rtol=1e-4)
    for row, number in enumerate(classes.tolist()):
        everything = float(values[row, number])
        parts = 0.2 * float(told.importance[row, 1:].sum())
        assert float(told.everything[row]) == pytest.approx(everything, abs=1e-6)
        assert float(told.nothing[row]) == pytest.approx([0.1, 0.2, 0.3, 0.4][number])
        assert float(told.parts[row]) == pytest.approx(parts, abs=1e-6)
        assert float(told.gap[row]) == pytest.approx(everything - [0.1, 0.2, 0.3, 0.4][number] - parts, abs=1e-5)
    assert ((told.novelty >= 0) & (told.novelty <= 1)).all()


@torch.no_grad()
def test_heads_of_old_have_an_importance_alone():
    head = random_head(blocks=0, strategies=0, layers=1)
    assert {name.split(".")[0] for name in head.state_dict()} == {"inner", "outer"}
    mask = torch.ones(B, N, dtype=torch.bool)
    told = head.explain([torch.randn(B, N, H)], mask, mask, torch.randn(B, C), torch.tensor([3, 0, 2]))
    assert told.importance.isfinite().all() and told.everything.isfinite().all()
    assert all(part.isnan().all() for part in (told.nothing, told.parts, told.gap, told.novelty))


@pytest.mark.promise("The explainer of a BERT-base has at most 5 % of its parameters and of its arithmetic.")
@pytest.mark.parametrize(
    ("blocks", "share", "context"), [(0, 0.01, False), (1, 0.05, False), (MAX_BLOCKS, 0.05, False), (0, 0.02, True)]
)
def test_beside_bert_base_it_is_small(blocks, share, context):
    with torch.device("meta"):
        bert = BertForSequenceClassification(BertConfig())
        head = ExplainerHead(768, 2, HeadOptions().width, layers=5, blocks=blocks, strategies=2, context=context)
        ids, states = torch.zeros(1, 128, dtype=torch.long), torch.zeros(1, 5, 128, 768)
        real, classes = torch.ones(1, 128, dtype=torch.bool), torch.zeros(1, 1, dtype=torch.long)
    numbers = [sum(t.numel() for t in part.state_dict().values()) for part in (bert, head)]
    assert numbers[1] < share * numbers[0]
    with FlopCounterMode(display=False) as whole:
        bert(ids)
    with FlopCounterMode(display=False) as own:
        head(states, real, classes)
    assert 0 < own.get_total_flops() < share * whole.get_total_flops()


def test_a_block_is_as_wide_as_its_bottleneck():
    block = AttentionBlock(WIDTH)
    assert block.up.weight.shape == (2 * WIDTH, WIDTH) and block.qkv.weight.shape == (3 * WIDTH, WIDTH)
