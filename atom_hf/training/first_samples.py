"""Check the first samples, so that data without usable atoms are rejected with the cause."""

from typing import Any

import torch
from torch import Tensor

from ..errors import AtomError

MOST_PAIRS = 16

BLANK_BATCHES = 10


class FirstSamplesMixin:
    """Part of `LossMixin`."""

    args: Any
    _atom_model: Any
    _atom_checked: bool
    _atom_blank: int = 0
    """Batches without a token at the start of a stream."""

    def _atom_check_rows(self, count: int) -> None:
        if count < 2:
            rows = "1 row" if count == 1 else f"{count} rows"
            raise AtomError(
                f"train_dataset: it has {rows}, and the atom loss compares samples; give two or more, or leave atom out"
            )

    def _atom_check(self, packed: Tensor, importance: Tensor) -> bool:
        """Reject two samples that share a row. Returns whether any of them has a token."""
        if len(packed) < 2:
            raise AtomError(
                "data_collator: it puts several samples into one row (packing, padding-free), and each row becomes an atom; "
                "use one that pads"
            )
        return not bool(torch.isnan(importance).all())

    def _atom_check_streamed(self, packed: Tensor, importance: Tensor) -> None:
        """The same checks for a stream, which can be read only once, in its first steps."""
        samples = self.args.per_device_train_batch_size
        if len(packed) < min(2, samples):
            raise AtomError(
                f"train_dataset: its first batch of {samples} is one row: either it has one sample, and the atom loss compares "
                "two or more, or data_collator puts several samples into one row (packing, padding-free); use one that pads"
            )
        if not torch.isnan(importance).all():
            self._atom_checked = True
            return
        self._atom_blank += 1
        if self._atom_blank >= BLANK_BATCHES:
            raise self._atom_no_token(f"the first {BLANK_BATCHES} batches")

    def _atom_no_token(self, where: str) -> AtomError:
        tokens = self._atom_model.atom_config.tokens
        return AtomError(
            f"train_dataset: atom_tokens={tokens!r} leaves no token in {where}; look whether their "
            "texts are blank, or use atom_tokens='all'"
        )


def pairs_to_try(count: int) -> list[list[int]]:
    """The first two of `count` rows, then pairs spread over all of them."""
    apart = max(2, count // MOST_PAIRS)
    return [[start, start + 1] for start in range(0, count - 1, apart)][:MOST_PAIRS]
