"""Reject a model that sees the words it is to predict: an encoder trained as a language model learns to copy."""

from typing import Any

from transformers import (
    AutoModelForCausalLM,
    AutoModelForImageClassification,
    AutoModelForSequenceClassification,
    PreTrainedModel,
)
from transformers.models.auto.modeling_auto import MODEL_FOR_MASKED_LM_MAPPING_NAMES

from ..errors import AtomError


def check_config(config: Any, given: str) -> None:
    """Raises `AtomError` for a configuration of which Transformers has no causal language model."""
    if type(config) not in AutoModelForCausalLM._model_mapping:
        raise AtomError(
            f"{given} cannot be trained for causal-lm: Transformers has no causal language model of type {config.model_type!r}"
            + _what_fits(type(config))
        )


def check_causal(model: PreTrainedModel, given: str) -> None:
    """Raises `AtomError` for an encoder: each of its positions sees the later ones, which it would be trained to predict."""
    config = model.config.get_text_config()
    if config.model_type not in MODEL_FOR_MASKED_LM_MAPPING_NAMES:
        return
    # XLM has another name for it; of a decoder made for the task, as BART's, the class itself sets it.
    one_way = getattr(config, "is_decoder", None)
    if one_way is None:
        one_way = getattr(config, "causal", True)
    if not one_way:
        raise AtomError(
            f"{given} cannot be trained for causal-lm: {type(model).__name__} is an encoder here, each of whose positions sees "
            f"the words that it is to predict{_what_fits(type(model.config))}; --config_overrides is_decoder=true makes it one"
        )


def _what_fits(config_class: type) -> str:
    if config_class in AutoModelForSequenceClassification._model_mapping:
        return "; it fits --task text-classification (with --label_column), and a decoder such as gpt2 fits causal-lm"
    if config_class in AutoModelForImageClassification._model_mapping:
        return "; it fits --task image-classification, and a decoder such as gpt2 fits causal-lm"
    return "; give a decoder, such as gpt2"
