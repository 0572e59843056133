"""Importance of the words and word pieces of a text."""

import re
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..data.encoding import NO_LIMIT, IdLimits, position_limit, readable
from ..errors import AtomError
from ..modeling.layers import text_config
from ..modeling.mixin import AtomMixin
from ..modeling.unwrap import inner_model
from .results import TextImportance
from .scoring import Scores, check_model, forward_logits, forward_scores, prediction, scores_by_masking
from .word_spans import Piece, find_pieces, score_words

SURROGATE = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True)
class EncodedText:
    """A text as the model's inputs, and the source of each token."""

    sources: list[str]
    inputs: dict[str, list[int]]
    pieces: list[Piece]
    truncated: bool


class TextScorer:
    """Scores texts in three steps, which the pipeline calls one by one: `encode`, `forward` over a batch, `result`.

    Args:
        model: with heads, unless it is read by masking, or its logits alone are.
        tokenizer: a fast one.
        importance: whether to read it; else only the logits.
        method: "explainer" reads the heads; "masking" masks token by token (`by_masking.py`).
    """

    def __init__(self, model: Any, tokenizer: Any, importance: bool = True, method: str = "explainer"):
        check_model(model, "input_ids", "texts", importance, method)
        self.importance, self.method = importance, method
        self.reads_heads = importance and isinstance(inner_model(model), AtomMixin)
        if not getattr(tokenizer, "is_fast", False):
            raise AtomError(
                f"tokenizer: {type(tokenizer).__name__} gives no character offsets; "
                "give a fast tokenizer (AutoTokenizer)"
            )
        self.model, self.tokenizer, self.limit = model, tokenizer, _limit(model, tokenizer)
        self.ids = IdLimits(inner_model(model), tokenizer)

    def encode(self, text: str, pair: str | None = None) -> EncodedText:
        """The inputs of one text, cut at the model's maximum length."""
        for name, value in (("text", text), ("text_pair", pair)):
            if not isinstance(value, str) and (name == "text" or value is not None):
                raise AtomError(f"{name} must be a string, got {type(value).__name__}")
            if value is not None and SURROGATE.search(value):
                raise AtomError(f"{name} holds a lone surrogate: it was decoded from bytes that are not UTF-8")
        cut = {"truncation": True, "max_length": self.limit} if self.limit < NO_LIMIT else {}
        sources = [text] if pair is None else [text, pair]
        read = [readable(source, self.tokenizer, self.limit) for source in sources]
        encoded = self.tokenizer(*read, **cut)
        encoding = encoded.encodings[0]
        self.ids.check({name: [encoded[name]] for name in IdLimits.NAMES if name in encoded})
        truncated = bool(encoding.overflowing) or read != sources
        return EncodedText(sources, dict(encoded), find_pieces(encoding, sources), truncated)

    def forward(self, batch: list[EncodedText], target: Any = None) -> list[Scores]:
        """One forward pass, and those of masked copies if asked for. A text of no tokens is not an atom, and has no prediction.

        `target`: what importance is for, as `AtomMixin.atom_importance` takes it; of a token classification (word, label).
        """
        real = [one for one in batch if one.inputs["input_ids"]]
        config = text_config(self.model.config)
        marks = (config.pad_token_id, self.tokenizer.pad_token_id, self.tokenizer.eos_token_id)
        found = []
        # A classifier that reads the last token finds it by the padding, and without any takes one text at a time.
        size = 1 if config.pad_token_id is None and not self.model.can_generate() else max(1, len(real))
        for start in range(0, len(real), size):
            part = real[start : start + size]
            pad = {
                "input_ids": next((mark for mark in marks if mark is not None), 0),
                "token_type_ids": self.tokenizer.pad_token_type_id,
            }
            # On the left only for models that read the last position: others count positions from the first.
            front = getattr(self.model.config, "summary_type", None) == "last"
            inputs = {
                name: nn.utils.rnn.pad_sequence(
                    [torch.tensor(one.inputs[name]) for one in part],
                    batch_first=True,
                    padding_value=pad.get(name, 0),
                    padding_side="left" if front else "right",
                )
                for name in part[0].inputs
            }
            found += self._scores(part, inputs, front, target)
        found = iter(found)
        return [next(found) if one.inputs["input_ids"] else Scores(np.empty(0), None, None) for one in batch]

    def _scores(self, part: list[EncodedText], inputs: dict[str, Tensor], front: bool, target: Any) -> list[Scores]:
        """Of texts of at least one token, padded in `front` or behind."""
        by_heads = self.reads_heads and self.method == "explainer"
        own_target = target if by_heads else None
        found = (
            forward_scores(self.model, inputs, own_target) if self.reads_heads else forward_logits(self.model, inputs)
        )
        if self.importance and not by_heads:
            targets = [self.at_token(one, target) for one in part]
            found = scores_by_masking(self.model, self.tokenizer, inputs, targets, found)
        if not self.importance:
            return found
        length = inputs["input_ids"].shape[1]
        cut = []
        for one, row in zip(part, found, strict=True):
            if len(row.importance) < length:
                raise AtomError(
                    f"{type(self.model).__name__} shortens its sequence: layer {self.model.atom_config.layer} has "
                    f"{len(row.importance)} tokens for {length} of the text; attach heads to another layer to read words"
                )
            own = row.importance[len(row.importance) - length :]  # after the virtual tokens of a prompt
            count = len(one.inputs["input_ids"])
            cut.append(replace(row, importance=own[length - count :] if front else own[:count]))
        return cut

    def at_token(self, encoded: EncodedText, target: Any) -> Any:
        """The target with the first token of a word in the place of its number, for a model that labels tokens."""
        if not isinstance(target, tuple) or len(target) != 2 or not isinstance(target[0], int):
            return target
        tokens = [piece.tokens[0] for piece in encoded.pieces if piece.word == target[0]]
        if not tokens:
            raise AtomError(f"target {target!r}: the text has no word {target[0]}; words are counted from 0")
        return tokens[0], target[1]

    def result(self, encoded: EncodedText, found: Scores) -> TextImportance:
        """The scores on the words and pieces of the text as it was written."""
        words, pieces = score_words(encoded.pieces, encoded.sources, found.importance, encoded.truncated)
        text, pair = (*encoded.sources, None)[:2]
        predicted, confidence = prediction(found, self.model.config)
        return TextImportance(
            text,
            words,
            pieces,
            pair,
            predicted=predicted,
            confidence=confidence,
            atom=found.atom,
            truncated=encoded.truncated,
            explained=found.explained,
        )


def _limit(model: Any, tokenizer: Any) -> int:
    """The maximum number of tokens the model can take."""
    prompt = getattr(getattr(model, "active_peft_config", None), "num_virtual_tokens", None) or 0
    return min(tokenizer.model_max_length, position_limit(model) - prompt)
