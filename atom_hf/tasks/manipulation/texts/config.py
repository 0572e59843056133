"""`TextManipulatorConfig`: which filler edits texts, by which classifier, and how it was trained."""

from dataclasses import field
from typing import Any

from huggingface_hub.dataclasses import strict
from transformers import AutoConfig, PreTrainedConfig

from ....errors import AtomError
from ..put import SHARE


@strict
class TextManipulatorConfig(PreTrainedConfig):
    """Configuration of a `TextManipulator`. The names of its classes are `id2label`.

    Args:
        filler: the configuration of the encoder that fills gaps, with its `model_type`.
        classifier: that of the classifier.
        heads: the options of the classifier's atoms, where it has an explainer, whose importance tells what is hidden.
        vocabulary: how many tokens can be written.
        mask_id, special_ids: of the tokenizer.
        max_length: tokens of a text that are read; the others are left as they are.
        share: of the tokens that are hidden.
        classifier_name: the folder's name or Hub id of the one that was given.
        classifier_revision: its commit on the Hub.
        classifier_hash: the sha256 of its weights.
        hidden_share: of the words that were hidden when the sparring copy was tuned; 0 where it is the classifier itself.
        weights: of each of the equations.
        dataset: the name of the data.
        evaluation: what was measured, for the card.

    Raises:
        AtomError: numbers that cannot be.
    """

    model_type = "text-manipulator"

    filler: dict[str, Any] = field(default_factory=lambda: {"model_type": "bert"})
    classifier: dict[str, Any] = field(default_factory=lambda: {"model_type": "bert"})
    heads: dict[str, Any] = field(default_factory=dict)
    vocabulary: int = 1
    mask_id: int = 0
    special_ids: list[int] | tuple[int, ...] = field(default_factory=list)
    max_length: int = 128
    share: float = SHARE
    classifier_name: str | None = None
    classifier_revision: str | None = None
    classifier_hash: str | None = None
    hidden_share: float | int = 0.0
    weights: dict[str, Any] = field(default_factory=dict)
    dataset: str | None = None
    evaluation: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self, **kwargs: Any):
        super().__post_init__(**kwargs)
        if not 0 < self.share <= 1:
            raise AtomError(f"share must be above 0 and at most 1, got {self.share}")
        for name, most in (("vocabulary", 2**24), ("max_length", 2**20)):
            if not 1 <= getattr(self, name) <= most:
                raise AtomError(f"{name} must be from 1 to {most}, got {getattr(self, name)}")

    @property
    def labels(self) -> list[str]:
        """The names of the classes, in the order of their ids."""
        return [str(self.id2label[key]) for key in sorted(self.id2label)]


AutoConfig.register(TextManipulatorConfig.model_type, TextManipulatorConfig)
