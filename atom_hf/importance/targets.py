"""What the importance of a text's words or an image's patches can be for: a value that a model gives, and that masking changes.

| model | target | value |
| --- | --- | --- |
| classifier | a class, by name or index | its probability |
| of several labels | a label, by name or index | its probability |
| regression | (its only number) | the number |
| token classification | (token, label) | the label's probability at that token |
| causal language model | a continuation, as text | geometric mean of its tokens' probabilities |
| question answering | an answer, as it stands in the text | probability of its start times that of its end |
| encoder-decoder | a text that it could write | geometric mean of its tokens' probabilities |

By default it is what the model predicts: the class, the next token, the most probable answer, the text that greedy decoding
gives. A geometric mean, exp(mean log p), keeps continuations of any length in [0, 1].
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..errors import AtomError
from ..modeling.own_outputs import logits_of
from ..modeling.targets import output_values, target_index

LONGEST_ANSWER = 30
"""Tokens of an answer that is looked for."""

NEW_TOKENS = 64
"""The most tokens that an encoder-decoder writes."""

Inputs = dict[str, Tensor]


@dataclass(frozen=True)
class Target:
    """A value that a model gives of one sample."""

    name: str
    """What it is of, to show."""
    inputs: Inputs
    """[1, M]: the sample's inputs, and behind them what else the model needs, such as a continuation."""
    value: Callable[[Any], Tensor]
    """The model's outputs for K masked copies of these inputs -> [K]."""
    is_predicted: bool
    """Whether it is what the model itself predicts."""


def is_classifier(model: Any) -> bool:
    """Whether a model predicts one class, several labels or a number of a whole text or image, by the name of its class."""
    return re.search("For(Sequence|Image)Classification", type(model).__name__) is not None


@torch.no_grad()
def find_target(model: Any, processor: Any, inputs: Inputs, target: Any = None) -> Target:
    """The target of one sample.

    Args:
        model: in evaluation.
        processor: its tokenizer, to read a target that is a text.
        inputs: [1, N], without padding.
        target: see the module's docstring; None for what is predicted.

    Raises:
        AtomError: a target that the model does not have, or a model that gives none of these values.
    """
    config, kind = model.config, type(model).__name__
    if is_classifier(model):
        return _of_class(model, inputs, target)
    if kind.endswith("ForTokenClassification"):
        return _of_token(model, inputs, target)
    if kind.endswith("ForQuestionAnswering"):
        return _of_answer(model, processor, inputs, target)
    if model.can_generate():
        writes = _of_written if config.is_encoder_decoder else _of_continuation
        return writes(model, processor, inputs, target)
    raise AtomError(
        f"target: {kind} gives no class, label, number, answer or text, which importance could be for; give a model with a head"
    )


def _of_class(model: Any, inputs: Inputs, target: Any) -> Target:
    logits = logits_of(model(**inputs))
    if logits.dim() != 2:
        raise AtomError(f"target: {type(model).__name__} gives logits {list(logits.shape)}; one row of them is needed")
    predicted = int(logits[0].argmax())
    number = predicted if target is None else target_index(target, model.config)

    def value(outputs: Any) -> Tensor:
        return output_values(logits_of(outputs), model.config)[:, number]

    return Target(str(model.config.id2label[number]), inputs, value, number == predicted)


def _of_token(model: Any, inputs: Inputs, target: Any) -> Target:
    length = inputs["input_ids"].shape[1]
    place, label = target if isinstance(target, tuple | list) and len(target) == 2 else (target, None)
    if not isinstance(place, int) or isinstance(place, bool) or not -length <= place < length:
        raise AtomError(
            f"target {target!r}: give (token, label) of a {type(model).__name__}, the token by its place among {length}, or "
            "the token alone for its predicted label"
        )
    predicted = int(logits_of(model(**inputs))[0, place].argmax())
    number = predicted if label is None else target_index(label, model.config)

    def value(outputs: Any) -> Tensor:
        return logits_of(outputs)[:, place].float().softmax(-1)[:, number]

    return Target(str(model.config.id2label[number]), inputs, value, number == predicted)


def _of_answer(model: Any, tokenizer: Any, inputs: Inputs, target: Any) -> Target:
    ids = inputs["input_ids"][0]
    outputs = model(**inputs)
    first, last = (logits[0].float().log_softmax(-1) for logits in (outputs.start_logits, outputs.end_logits))
    # As question answering pipelines choose it: the end does not come before the start, nor long after it.
    spans = (first[:, None] + last[None]).triu().tril(LONGEST_ANSWER - 1)
    spans = spans.masked_fill(torch.ones_like(spans).triu().tril(LONGEST_ANSWER - 1) == 0, -torch.inf)
    best = divmod(int(spans.argmax()), len(ids))
    start, end = best
    if target is not None:
        wanted = _ids(tokenizer, target, ids)
        places = [i for i in range(len(ids) - len(wanted) + 1) if torch.equal(ids[i : i + len(wanted)], wanted)]
        if not places:
            raise AtomError(
                f"target {target!r}: this answer does not stand in the text; give words as they stand there"
            )
        start = max(places, key=lambda place: spans[place, place + len(wanted) - 1])
        end = start + len(wanted) - 1

    def value(outputs: Any) -> Tensor:
        logits = (outputs.start_logits[:, :], outputs.end_logits[:, :])
        chances = [part.float().softmax(-1) for part in logits]
        return chances[0][:, start] * chances[1][:, end]

    return Target(tokenizer.decode(ids[start : end + 1]).strip(), inputs, value, (start, end) == best)


def _of_continuation(model: Any, tokenizer: Any, inputs: Inputs, target: Any) -> Target:
    ids = inputs["input_ids"]
    predicted = logits_of(model(**inputs))[:, -1].argmax(-1)
    wanted = predicted if target is None else _ids(tokenizer, target, ids)
    behind = {"input_ids": wanted, "attention_mask": torch.ones_like(wanted)}
    behind["token_type_ids"] = (
        inputs["token_type_ids"][0, -1:].expand(len(wanted)) if "token_type_ids" in inputs else None
    )
    longer = {name: torch.cat([value, behind[name][None]], 1) for name, value in inputs.items() if name in behind}

    def value(outputs: Any) -> Tensor:
        # The logits at a place are for the token behind it.
        return _mean_probability(logits_of(outputs)[:, ids.shape[1] - 1 : -1], wanted)

    is_predicted = len(wanted) == 1 and bool(wanted == predicted)
    return Target(_shown(tokenizer, wanted), {**inputs, **longer}, value, is_predicted)


def _of_written(model: Any, tokenizer: Any, inputs: Inputs, target: Any) -> Target:
    written = model.generate(**inputs, max_new_tokens=NEW_TOKENS, do_sample=False, num_beams=1)[0, 1:]
    wanted = written
    if target is not None:
        if not isinstance(target, str) or tokenizer is None:
            _ids(tokenizer, target, written)  # says what is wrong
        wanted = torch.tensor(tokenizer(text_target=target)["input_ids"], device=written.device)
    decoder = torch.cat([inputs["input_ids"].new_tensor([model.config.decoder_start_token_id]), wanted[:-1]])[None]

    def value(outputs: Any) -> Tensor:
        return _mean_probability(logits_of(outputs), wanted)

    shown = tokenizer.decode(wanted, skip_special_tokens=True).strip() if tokenizer is not None else "its text"
    return Target(shown, {**inputs, "decoder_input_ids": decoder}, value, torch.equal(wanted, written))


def _ids(tokenizer: Any, text: Any, like: Tensor) -> Tensor:
    """The ids [L] of a text, without special tokens, on the device of `like`."""
    if not isinstance(text, str) or not text:
        raise AtomError(f"target {text!r}: give a text of this model")
    if tokenizer is None:
        raise AtomError("processing_class: give the tokenizer, which reads the text of the target")
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    if not ids:
        raise AtomError(f"target {text!r}: the tokenizer makes no token of it; give a text of this model")
    return torch.tensor(ids, device=like.device)


def _mean_probability(logits: Tensor, ids: Tensor) -> Tensor:
    """The geometric mean [K] of the probabilities of tokens [L], from the logits [K, L, V] at their places."""
    chances = logits.float().log_softmax(-1)
    return chances.gather(-1, ids.expand(len(chances), -1)[..., None])[..., 0].mean(1).exp()


def _shown(tokenizer: Any, ids: Tensor) -> str:
    return (
        tokenizer.decode(ids).strip() or repr(tokenizer.decode(ids))
        if tokenizer is not None
        else f"token {ids.tolist()}"
    )
