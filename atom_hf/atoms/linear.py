"""Layers of the heads: float32 whatever the model runs in, and not found by what replaces a model's own layers."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Float32Linear(nn.Module):
    """A linear layer that is not an `nn.Linear`: PEFT's `target_modules="all-linear"` and quantizers replace each of those."""

    def __init__(self, in_features: int, out_features: int):
        super().__init__()
        linear = nn.Linear(in_features, out_features, dtype=torch.float32)
        self.weight, self.bias = linear.weight, linear.bias
        self.in_features, self.out_features = in_features, out_features  # ZeRO-3 leaves the weight without its shape

    # FSDP's mixed precision hands a forward pass bfloat16 copies of float32 weights; the tokens are float32.
    def forward(self, tokens: Tensor) -> Tensor:
        return F.linear(tokens, self.weight.float(), self.bias.float())

    def extra_repr(self) -> str:
        return f"in_features={self.in_features}, out_features={self.out_features}"


class Float32Norm(nn.Module):
    """A layer norm that is not an `nn.LayerNorm`: PEFT and mixed precision find those by their class."""

    def __init__(self, width: int):
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(width)), nn.Parameter(torch.zeros(width))

    def forward(self, tokens: Tensor) -> Tensor:
        return F.layer_norm(tokens, self.weight.shape, self.weight.float(), self.bias.float())
