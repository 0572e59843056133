"""`TextManipulator`: an editor of texts, with the classifier that it was trained against, as a Transformers model."""

import copy
import os
import tempfile
from collections.abc import Sequence
from typing import Any

import torch
import transformers
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import AutoConfig, AutoModel, AutoTokenizer, PreTrainedModel

from ....atoms.config import AtomConfig
from ....atoms.explainer_sizes import explainer_sizes
from ....errors import AtomError, first_line
from ....hub.upload import push_model
from ....modeling.attach import add_explainer, attach_atoms
from ....modeling.bounds import check_counts, check_memory
from ...boxes import TextModel
from ...wires import Filled, Simplex, Tokens
from ..card import write_card
from ..manipulator import class_id_of
from .config import TextManipulatorConfig
from .fill import Filler, Hide
from .rows import BATCH, padded, token_ids


class TextManipulator(PreTrainedModel):
    """Writes a class into a text: `put(x, a) = fill(hide(x), a)`, trained against a frozen classifier, `get`.

        model = TextManipulator.from_pretrained("runs/sst2-manipulator")
        model.edit(["a dull film"], to="positive")          # ["a fine film"], or what it has learned

    The words that `get` leans on most are hidden, and a masked language model that is told the class fills the gaps; all other
    words stay.
    """

    config_class = TextManipulatorConfig
    base_model_prefix = "manipulator"
    main_input_name = "input_ids"

    def __init__(self, config: TextManipulatorConfig):
        super().__init__(config)
        vocabulary = torch.zeros(config.vocabulary, dtype=torch.long)
        encoder = _made(config.filler, AutoModel)
        self.put = Filler(encoder, config.num_labels, config.mask_id, vocabulary)
        self.get = TextModel(_made(config.classifier, transformers.AutoModelForSequenceClassification))
        self.get.requires_grad_(False).eval()
        self.explained = _explained(config) if config.heads else None
        # What each token is in a word.
        size = encoder.get_input_embeddings().num_embeddings
        self.register_buffer("roles", torch.zeros(size, dtype=torch.int8))
        self.tokenizer: Any = None
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        """Every module begins as its own class makes it."""

    @classmethod
    def from_pretrained(cls, name_or_folder: Any, *args: Any, **kwargs: Any) -> "TextManipulator":
        """Load the model, with its tokenizer, from a folder or the Hub."""
        model = super().from_pretrained(name_or_folder, *args, **kwargs)
        model.train(False)
        options = {name: kwargs[name] for name in ("revision", "token", "cache_dir") if name in kwargs}
        model.tokenizer = AutoTokenizer.from_pretrained(name_or_folder, **options)
        return model

    def train(self, mode: bool = True) -> "TextManipulator":
        super().train(mode)
        for fixed in (self.get, self.explained):
            if fixed is not None:
                fixed.eval().requires_grad_(False)  # which loading gives parameters of their own
        return self

    @property
    def hide(self) -> Hide:
        """What puts gaps into a text."""
        config = self.config
        return Hide(self.get, self.roles, list(config.special_ids), config.mask_id, config.share, self.explained)

    def read(self, texts: Sequence[str]) -> list[Tokens]:
        """The texts in batches, as `put` and `get` take them. Raises `AtomError` for one that is no string."""
        if isinstance(texts, str) or not all(isinstance(text, str) for text in texts):
            raise AtomError("texts must be a list of strings; give [text]")
        ids = token_ids(texts, self.tokenizer, self.config.max_length)
        return [padded(ids[start : start + BATCH], self.device) for start in range(0, len(ids), BATCH)]

    @torch.no_grad()
    def classify(self, texts: Sequence[str]) -> Tensor:
        """The logits [N, n] of `get`."""
        found = [self.get(batch)["logits"].float().cpu() for batch in self.read(texts)]
        return torch.cat(found) if found else torch.zeros(0, self.config.num_labels)

    def forward(self, input_ids: Tensor, attention_mask: Tensor, target: Tensor) -> Filled:
        """Texts [B, N] edited to points [B, n] of the simplex of classes, with a gradient."""
        text = Tokens(input_ids, attention_mask)
        return self.put(self.hide(text), Simplex(probabilities=target))

    @torch.no_grad()
    def edit(
        self, texts: Sequence[str], to: int | str | Tensor, strength: float = 1.0, own: Tensor | None = None
    ) -> list[str]:
        """Texts turned into a class.

        Args:
            texts: strings.
            to: the class, by name or id, or the id [N] of each text's.
            strength: from 0, the class that is read from the text, to 1, the class `to`.
            own: the ids [N] of the texts' classes, if they are not to be read.

        Raises:
            AtomError: what is no text, an unknown class, a strength outside of 0 to 1.
        """
        if not 0 <= strength <= 1:
            raise AtomError(f"strength must be from 0 to 1, got {strength}")
        ids = to if torch.is_tensor(to) else torch.full((len(texts),), class_id_of(self.config, to))
        target = F.one_hot(ids.long(), self.config.num_labels).float()
        if strength < 1:
            own = self.classify(texts).argmax(1) if own is None else own
            target = strength * target + (1 - strength) * F.one_hot(own.long(), self.config.num_labels).float()
        found: list[str] = []
        for batch in self.read(texts):
            points = target[len(found) : len(found) + len(batch)].to(self.device)
            written = self(batch.ids, batch.mask, points)
            found += self._texts(texts[len(found) : len(found) + len(batch)], batch, written)
        return found

    def class_id(self, name: int | str) -> int:
        """The id of a class. Raises `AtomError` if there is none."""
        return class_id_of(self.config, name)

    def _texts(self, texts: Sequence[str], before: Tokens, written: Filled) -> list[str]:
        """The texts with the written tokens in the place of those that were hidden, all else as it stands."""
        encoded = self.tokenizer(list(texts), truncation=True, max_length=self.config.max_length)
        found = []
        for row, text in enumerate(texts):
            kept = written.mask[row].bool().tolist()
            after = [token if here else None for token, here in zip(written.ids[row].tolist(), kept, strict=True)]
            offsets = encoded.encodings[row].offsets
            found.append(rewritten(text, offsets, before.ids[row].tolist(), after, self.tokenizer))
        return found

    def save_pretrained(self, save_directory: str | os.PathLike, **kwargs: Any) -> None:
        """Write the configuration, one safetensors file and the tokenizer, with a card, unless somebody wrote one there."""
        if kwargs.pop("push_to_hub", False):
            raise AtomError("push_to_hub: save first, and push by push_to_hub")
        super().save_pretrained(save_directory, **kwargs)
        if self.tokenizer is not None:
            self.tokenizer.save_pretrained(save_directory)
        write_card(self.config, save_directory)

    def push_to_hub(self, repo_id: str, **options: Any) -> Any:
        """Push the model with its tokenizer and card, as one commit; see `Manipulator.push_to_hub`."""
        with tempfile.TemporaryDirectory() as folder:
            self.save_pretrained(folder)
            write_card(self.config, folder, repo_id)
            return push_model(folder, repo_id, **options)


def rewritten(
    text: str, offsets: Sequence[tuple[int, int]], before: Sequence[int], after: Sequence[int | None], tokenizer: Any
) -> str:
    """A text with some of its tokens replaced, and every other character as it was.

    Args:
        offsets: (first, last) character of each token.
        before, after: the ids of the tokens; None of one that is left out.
    """
    parts, end = [], 0
    for (start, stop), old, new in zip(offsets, before, after, strict=False):
        if old == new or stop <= start:
            continue
        parts += [text[end:start], "" if new is None else tokenizer.decode([new]).strip()]
        end = stop
    found = ""
    # What is written is a word by itself, also where it stands for a part of one.
    for part in [*parts, text[end:]]:
        found += " " * (found[-1:].isalnum() and part[:1].isalnum()) + part
    return found


def _explained(config: TextManipulatorConfig) -> nn.Module:
    """The classifier with its atoms and explainer, with new weights."""
    heads = AtomConfig.from_dict(config.heads)
    model = attach_atoms(_made(config.classifier, transformers.AutoModelForSequenceClassification), heads)
    add_explainer(model, **explainer_sizes(heads))
    return model.requires_grad_(False).eval()


def _made(config: dict[str, Any], auto_class: Any) -> nn.Module:
    """A model as its configuration describes it, with new weights. Raises `AtomError` for one that describes none."""
    if not isinstance(config.get("model_type"), str):
        raise AtomError("the configuration of the manipulator does not say what its models are; make it anew")
    check_counts(config, "a model in the manipulator's configuration")
    try:
        given = {name: value for name, value in config.items() if name != "model_type"}
        made = AutoConfig.for_model(config["model_type"], **given)
        check_memory(lambda: auto_class.from_config(copy.deepcopy(made)), "a model of the manipulator")
        return auto_class.from_config(made)
    except AtomError:
        raise
    except Exception as error:  # a configuration that fits no model raises many kinds of errors
        raise AtomError(f"a model of the manipulator cannot be made: {first_line(error)}") from error


AutoModel.register(TextManipulatorConfig, TextManipulator)
