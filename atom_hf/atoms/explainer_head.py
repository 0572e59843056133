"""The explainer's network (ours): the importance of a classifier's tokens for each class and masking strategy."""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .linear import Float32Linear, Float32Norm
from .novelty import Novelty, pooled

HEADS = 4
"""The heads of the explainer's own attention."""


class Explanation(NamedTuple):
    """What the explainer says of B samples, each for one class and all under one masking strategy.

    With a scale a, `v(all) - v(none)` is `a * sum(importance)` up to a gap, which `gap` names: the efficiency that Shapley
    values have exactly.
    """

    importance: Tensor
    """[B, N] in [-1, 1]."""
    everything: Tensor
    """[B]: v(all), the value of the class with every token: its probability, by the model."""
    nothing: Tensor
    """[B]: v(none), its value with every token masked, as the explainer expects it; NaN for heads saved before that."""
    parts: Tensor
    """[B]: the sum of the tokens' parts, in units of the value; NaN for heads saved before that."""
    novelty: Tensor
    """[B] in [0, 1]: the share of the held-out samples of the fit that are less unusual; NaN for heads saved before that."""

    @property
    def gap(self) -> Tensor:
        """[B]: what the parts leave of the change of probability, `everything - nothing - parts`."""
        return self.everything - self.nothing - self.parts


class ExplainerHead(nn.Module):
    """The importance of each token for each class of a classifier and each masking strategy (explainer/fit.py; ours).

        x_i    = [LayerNorm(h_1i), ..., LayerNorm(h_Li)]        the layers side by side, without learned parameters in the norm
        y_i    = inner(x_i) + around(mean_j x_j)                R^(L h) -> R^width, with the mean of all tokens of the sample
        z      = blocks(y)                                      attention among all tokens of the sample
        q_i(c) = tanh(outer(GELU(z_i))_c / 2)                   in the form of Eq. 6

    Without a context, as it was fitted before, y_i = inner(sum_l softmax(mix)_l LayerNorm(h_li)).

    `scale` times q is the part of a token in units of probability.

    Args:
        hidden_size: h, the width of the tokens.
        classes: C, the number of classes of the model.
        width: of the hidden layer, the bottleneck of the attention.
        layers: how many layers' hidden states are read.
        blocks: how many attention blocks there are.
        strategies: how many masking strategies have outputs of their own. 0 for heads of old, which have one output for all of
            them and neither a scale nor a novelty.
        context: layers side by side and the mean of all tokens, rather than a mix of layers, token by token.
    """

    def __init__(
        self,
        hidden_size: int,
        classes: int,
        width: int,
        layers: int = 1,
        blocks: int = 0,
        strategies: int = 0,
        context: bool = False,
    ):
        super().__init__()
        self.hidden_size, self.classes, self.width = hidden_size, classes, width
        self.layers, self.strategies = layers, strategies
        self.mix = nn.Parameter(torch.zeros(layers)) if layers > 1 and not context else None
        self.inner = Float32Linear(hidden_size * layers if context else hidden_size, width)
        self.around = Float32Linear(hidden_size * layers, width) if context else None
        self.blocks = nn.ModuleList(AttentionBlock(width) for _ in range(blocks))
        self.outer = Float32Linear(width, classes * max(1, strategies))
        nn.init.zeros_(self.outer.weight)
        nn.init.zeros_(self.outer.bias)
        self.novelty = Novelty(hidden_size, classes) if strategies else None
        if strategies:
            self.register_buffer("scale", torch.ones(strategies))
            self.register_buffer("nothing", torch.full((strategies, classes), 1 / classes))

    def forward(self, states: Tensor, real: Tensor, classes: Tensor, dropout: float = 0.0) -> Tensor:
        """The importance of each token under each strategy S for M classes of each sample.

        Args:
            states: [B, L, N, h], layer-normalised.
            real: bool [B, N], all tokens but padding, which the attention sees.
            classes: int [B, M].
            dropout: in training.

        Returns:
            [B, N, S, M] in [-1, 1].
        """
        inner = self._read(states, real, packed=dropout > 0)
        for block in self.blocks:
            inner = block(inner, real, dropout)
        inner = F.dropout(F.gelu(inner), dropout, training=dropout > 0)
        # Of the classes that are asked for alone: there may be thousands.
        weight = self.outer.weight.float().view(-1, self.classes, self.width)[:, classes]
        bias = self.outer.bias.float().view(-1, self.classes)[:, classes]
        return torch.tanh((torch.einsum("bnw,sbmw->bnsm", inner, weight) + bias.permute(1, 0, 2)[:, None]) / 2)

    def _read(self, states: Tensor, real: Tensor, packed: bool) -> Tensor:
        """y [B, N, width] of the layers [B, L, N, h].

        Packed, as it is fitted, padding is left out: texts are padded to the longest of all, and most are much shorter.
        """
        if self.around is None:
            return self.inner(
                states[:, 0] if self.mix is None else torch.einsum("l,blnh->bnh", self.mix.float().softmax(0), states)
            )
        tokens = states.transpose(1, 2).flatten(2)
        around = self.around(pooled(tokens, real))[:, None]
        if not packed:
            return self.inner(tokens) + around
        inner = around.new_zeros(*real.shape, self.width)
        inner[real] = self.inner(tokens[real])
        return inner + around

    def explain(
        self, states: list[Tensor], mask: Tensor, real: Tensor, values: Tensor, classes: Tensor, strategy: int = 0
    ) -> Explanation:
        """What it says of one class of each sample.

        Args:
            states: the hidden states [B, N, h] of each layer that is read, as the model gives them.
            mask: bool [B, N], the tokens that have an importance.
            real: bool [B, N], all tokens but padding.
            values: [B, C], those of the classes with every token: their probabilities.
            classes: int [B], the class that is explained.
            strategy: the place of the masking strategy among those that it was fitted to.
        """
        with torch.autocast(mask.device.type, enabled=False):
            normal = torch.stack([F.layer_norm(part.float(), (self.hidden_size,)) for part in states], 1)
            importance = self(normal, real, classes[:, None])[:, :, strategy, 0]
            everything = values.gather(1, classes[:, None])[:, 0]
            if not self.strategies:
                unknown = torch.full_like(everything, float("nan"))
                return Explanation(importance, everything, unknown, unknown, unknown)
            parts = self.scale[strategy] * (importance * mask).sum(1)
            nothing = self.nothing[strategy].float()[classes]
            return Explanation(importance, everything, nothing, parts, self.novelty(normal[:, -1], real, values))

    def extra_repr(self) -> str:
        return f"hidden_size={self.hidden_size}, classes={self.classes}, width={self.width}"


class AttentionBlock(nn.Module):
    """A transformer block with norms first (Xiong et al., arXiv 2002.04745), whose feed-forward layer is twice as wide."""

    def __init__(self, width: int):
        super().__init__()
        self.attention_norm, self.feed_norm = Float32Norm(width), Float32Norm(width)
        self.qkv, self.out = Float32Linear(width, 3 * width), Float32Linear(width, width)
        self.up, self.down = Float32Linear(width, 2 * width), Float32Linear(2 * width, width)

    def forward(self, tokens: Tensor, real: Tensor, dropout: float = 0.0) -> Tensor:
        """[B, N, width], bool [B, N] -> [B, N, width]."""
        query, key, value = self.qkv(self.attention_norm(tokens)).unflatten(-1, (3, HEADS, -1)).permute(2, 0, 3, 1, 4)
        seen = F.scaled_dot_product_attention(query, key, value, attn_mask=real[:, None, None])
        seen = self.out(seen.transpose(1, 2).flatten(2))
        tokens = tokens + F.dropout(seen, dropout, training=dropout > 0)
        fed = self.down(F.gelu(self.up(self.feed_norm(tokens))))
        return tokens + F.dropout(fed, dropout, training=dropout > 0)
