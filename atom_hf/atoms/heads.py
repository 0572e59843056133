"""Heads on a model's tokens: importance Q (Eq. 6), position P (Eq. 12), and the explainer, if one is fitted."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .closed_form import constant
from .energy import pack_atoms
from .linear import Float32Linear

POSITION_INITS = ("random", "identity")


class AtomHeads(nn.Module):
    """Importance and position of each token of width `hidden_size`.

        e_i = LayerNorm(token_i), without learned parameters                  (ours)
        q_i = 2 sigmoid(Q(e_i)) - 1 = tanh(Q(e_i) / 2),   Q: R^h -> R linear  (Eq. 6)
        p_i = P(e_i),                                     P: R^h -> R^h linear (Eq. 12)

    The heads are, and stay, float32: they run with autocast off, and `model.half()` or `model.to(torch.bfloat16)` moves them
    to the model's device but leaves their precision. (Under DeepSpeed in bfloat16 they are bfloat16, with its float32 copies.)

    Args:
        hidden_size: h, the width of the tokens.
        importance_std: initial standard deviation of Q's output. At 1.5 the mean |importance| starts at about 0.5, with as
            many charges of either sign.
        position_init: initialization of P: "random" like any linear layer, or "identity", so that positions are the tokens.
    """

    def __init__(self, hidden_size: int, *, importance_std: float = 1.5, position_init: str = "random"):
        super().__init__()
        self.hidden_size = hidden_size
        self.importance = Float32Linear(hidden_size, 1)
        self.position = Float32Linear(hidden_size, hidden_size)
        # A layer-normalised token has squared norm h, so this weight gives Q(e) the standard deviation asked for.
        nn.init.normal_(self.importance.weight, std=importance_std / hidden_size**0.5)
        nn.init.zeros_(self.importance.bias)
        if position_init == "identity":
            nn.init.eye_(self.position.weight)
            nn.init.zeros_(self.position.bias)
        self.register_module("explainer", None)

    def forward(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """[B, N, h] -> importance [B, N] in [-1, 1] and position [B, N, h], both float32."""
        with torch.autocast(tokens.device.type, enabled=False):
            tokens = F.layer_norm(tokens.float(), (self.hidden_size,))
            return torch.tanh(self.importance(tokens).squeeze(-1) / 2), self.position(tokens)

    def atoms_of(
        self, tokens: Tensor, mask: Tensor | None, *, charges: str, positions: str, token_reduction: str
    ) -> Tensor:
        """The packed atoms [B, d + 3] of tokens [B, N, d] as the energy sees them: d is the heads' own width, unless nothing of
        them is learned.

        Args:
            tokens: [B, N, d].
            mask: bool [B, N]; all if None.
            charges: "learned" by the importance head, or "fixed" at 1.
            positions: "learned" by the position head, or the layer-normalised "tokens" divided by the square root of d.
            token_reduction: see `Atoms.from_tokens`.
        """
        with torch.autocast(tokens.device.type, enabled=False):
            width = tokens.shape[-1]
            tokens = F.layer_norm(tokens.float(), (width,))
            position = self.position(tokens) if positions == "learned" else tokens / width**0.5
            if charges == "fixed" and mask is None and tokens.shape[1] == 1:
                alone = constant(((1.0, 0.0, 0.0),), position.dtype, position.device)  # Z+, Z- and r of one such token
                return torch.cat([alone.expand(len(position), -1, -1), position], dim=2).squeeze(1)
            learned = torch.tanh(self.importance(tokens).squeeze(-1) / 2) if charges == "learned" else None
            importance = tokens.new_ones(tokens.shape[:2]) if learned is None else learned
            return pack_atoms(importance, position, mask, token_reduction=token_reduction)

    def trained_parameters(self) -> list[nn.Parameter]:
        """The parameters of the training run: all but the explainer's, which is fitted after it."""
        return [*self.importance.parameters(), *self.position.parameters()]

    def extra_repr(self) -> str:
        return f"hidden_size={self.hidden_size}"

    def _apply(self, fn, recurse=True):
        def keep_precision(tensor: Tensor) -> Tensor:
            moved = fn(tensor)
            return moved if moved.dtype == tensor.dtype else tensor.to(moved.device)

        return super()._apply(keep_precision, recurse)
