"""The classifier of texts that an editor is made of, and the encoder that its filler starts from: loaded and checked."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import transformers
from torch import nn

from ....errors import AtomError
from ....finetune.pretrained import find_model, load_network, load_processor, read_config
from ....hub.messages import reason
from ....modeling.heads_file import read_heads_config
from ....modeling.load import load_atom_model
from ....utils.quiet import quiet
from ..classifier import ordered_labels
from ..sparring import fresh_copy
from .fill import check_embeds


class TextClassifier(NamedTuple):
    """A classifier of texts, and its tokenizer."""

    model: nn.Module
    tokenizer: Any
    labels: list[str]
    name: str = ""
    revision: str | None = None
    explained: Any = None
    """The same with atoms and an explainer, if it has one: the importance fitted to it then tells what is hidden."""


def load_text_classifier(source: str, labels: Sequence[str], revision: str | None = None) -> TextClassifier:
    """A classifier of texts of named classes; the labels are in the order of its ids.

    Args:
        source: its folder, Hub id or built-in name.

    Raises:
        AtomError: there is none, or it is no classifier of one class each, or has other classes.
    """
    where, folder, options = f"--classifier {source!r}", find_model(source), {"revision": revision} if revision else {}
    try:
        config = read_config(folder, options)
        labels = ordered_labels(config, labels, where)
        model = load_network(folder, "text-classification", {}, None, options).float()
        heads = read_heads_config(folder, **options)
        has_explainer = heads is not None and heads.has_explainer
        explained = load_atom_model(folder, **options).float() if has_explainer else None
    except AtomError as error:
        raise AtomError(str(error).replace(f"--model {folder!r}", where, 1)) from error
    tokenizer = load_processor(folder, False, "--classifier", **options)
    return TextClassifier(
        model, tokenizer, labels, source, getattr(config, "_commit_hash", None) or revision, explained
    )


def load_filler(source: str | None, classifier: TextClassifier) -> nn.Module:
    """The encoder that a filler starts from: of a model by its folder, Hub id or name, or else the classifier's own.

    Raises:
        AtomError: no such model, one with another tokenizer, or one that takes no embeddings.
    """
    if source is None:
        encoder = fresh_copy(classifier.model.base_model)
    else:
        folder = find_model(source)
        try:
            tokenizer = load_processor(folder, False, "--filler")
            with quiet():
                encoder = transformers.AutoModel.from_pretrained(folder, trust_remote_code=False).float()
        except AtomError:
            raise
        except Exception as error:  # a damaged or foreign model raises many kinds of errors
            raise AtomError(f"--filler {source!r} cannot be loaded: {reason(error, folder, None)}") from error
        if tokenizer.get_vocab() != classifier.tokenizer.get_vocab():
            raise AtomError(
                f"--filler {source!r} has another tokenizer than the classifier, and what it writes could not be read; give "
                "one with the classifier's, or leave it out"
            )
    check_embeds(encoder, "--filler" if source else "--classifier")
    encoder.requires_grad_(True)
    # What a word is stays: half of a small encoder are these rows, of which a text has few.
    encoder.get_input_embeddings().requires_grad_(False)
    return encoder


def check_tokenizer(tokenizer: Any) -> None:
    """Raises `AtomError` for a tokenizer that has no token for a gap, or does not say where its tokens stand."""
    if tokenizer.mask_token_id is None:
        raise AtomError(
            f"--classifier: its tokenizer ({type(tokenizer).__name__}) has no mask token, which stands for a hidden word; give "
            "a classifier that was made of a masked language model, such as a BERT"
        )
    if not getattr(tokenizer, "is_fast", False):
        raise AtomError(f"--classifier: {type(tokenizer).__name__} gives no character offsets; give a fast tokenizer")


def form_of(model: nn.Module) -> dict[str, Any]:
    """The configuration of a model, of which it can be made again."""
    return model.config.to_diff_dict() | {"model_type": model.config.model_type}
