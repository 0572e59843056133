"""Random inputs of full length, for a measurement in which the data do not matter; reproducible by the seed."""

from typing import Any

import torch
from torch import Tensor
from transformers import default_data_collator
from transformers.models.auto import modeling_auto

from ..data.columns import TASKS
from ..errors import AtomError, first_line
from ..finetune.arguments import RunArguments
from ..finetune.inputs import TrainingInputs
from ..finetune.pretrained import check_model_given, find_model, load_network, make_config, make_network, read_config
from ..modeling.inference import evaluating
from ..modeling.tokens import special_token_ids

DEFAULT_TOKENS = 128


def random_task(run: RunArguments, tokens: int | None, samples: int) -> TrainingInputs:
    """A model and `samples` random rows for it: no tokenizer, image processor or data set is needed.

    Args:
        run: `model` or `model_type`, `config_overrides`, `model_revision` and `task` count; the task is found from the
            model if not given.
        tokens: the length of each text, `DEFAULT_TOKENS` if None; an image model has its own.
        samples: how many rows.

    Raises:
        AtomError: a model that is not there, or that takes other inputs than texts or images.
    """
    check_model_given(run.model, run.model_type)
    if run.task not in (None, *TASKS):
        raise AtomError(f"--task must be one of {', '.join(TASKS)}; got {run.task!r}")
    options = {"revision": run.model_revision} if run.model_revision else {}
    if run.model is not None:
        source = find_model(run.model)
        task = run.task or _task_of(read_config(source, options), "--model", run.model)
        network = load_network(source, task, {}, run.config_overrides, options)
    else:
        config = make_config(run.model_type, run.config_overrides, {})
        task = run.task or _task_of(config, "--model_type", run.model_type)
        network = make_network(config, task, run.config_overrides)

    config = network.config
    if task == "image-classification":
        if tokens is not None:
            raise AtomError(f"--tokens is the length of random texts, and {config.model_type} takes images")
        size = getattr(config, "image_size", 224)  # convolutional models name none, and take any
        height, width = (size, size) if isinstance(size, int) else size
        inputs: dict[str, Tensor] = {"pixel_values": torch.randn(samples, config.num_channels, height, width)}
    else:
        inputs = _texts(config.get_text_config(), DEFAULT_TOKENS if tokens is None else tokens, samples)
    labels = inputs["input_ids"] if task == "causal-lm" else torch.randint(config.num_labels, (samples,))
    rows = [{name: column[i] for name, column in {**inputs, "labels": labels}.items()} for i in range(samples)]
    try:
        with evaluating(network), torch.no_grad():
            network(**default_data_collator(rows[:2]))
    except Exception as error:  # what a model says of inputs that do not fit shows in many ways
        raise AtomError(
            f"random inputs do not fit {type(network).__name__} ({first_line(error)}); give --dataset"
        ) from error
    return TrainingInputs(network, None, rows, rows, default_data_collator, None, True, lambda chosen: chosen)


def _task_of(config: Any, flag: str, name: str) -> str:
    kind = config.model_type
    if kind in modeling_auto.MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES:
        return "image-classification"
    # A BERT can be a decoder too; what can only continue a text is a language model.
    is_encoder = kind in modeling_auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES
    if kind in modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES and not is_encoder:
        return "causal-lm"
    if kind in modeling_auto.MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES:
        return "text-classification"
    raise AtomError(f"{flag} {name!r}: random inputs can be made for models of texts or images, not for {kind}")


def _texts(config: Any, tokens: int, samples: int) -> dict[str, Tensor]:
    longest = getattr(config, "max_position_embeddings", None)
    if tokens < 1 or (isinstance(longest, int) and tokens > longest):
        raise AtomError(f"--tokens must be between 1 and the {longest} that {config.model_type} takes, got {tokens}")
    if config.pad_token_id is None:
        config.pad_token_id = 0  # classifiers ask for one; no row has it
    special = {*special_token_ids(config), config.pad_token_id}
    ordinary = torch.tensor([i for i in range(config.vocab_size) if i not in special])
    ids = ordinary[torch.randint(len(ordinary), (samples, tokens))]
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
