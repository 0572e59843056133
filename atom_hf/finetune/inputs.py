"""A Trainer's inputs from a model's name and a data set: text, image and causal-LM tasks."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from transformers import DataCollatorForSeq2Seq, DataCollatorWithPadding, PreTrainedModel, default_data_collator

from ..data.cache import writing_cache
from ..data.encoding import IdLimits, image_inputs, know_padding, longest_length, readable
from ..data.load import TaskData
from ..data.pictures import check_pictures
from ..errors import AtomError
from .arguments import RunArguments
from .causal import check_causal, check_config
from .metrics import classification_metrics
from .pretrained import (
    check_model_given,
    find_model,
    load_network,
    load_processor,
    make_config,
    make_image_processor,
    make_network,
    read_config,
    train_tokenizer,
)


@dataclass(frozen=True)
class TrainingInputs:
    """The arguments of `AtomTrainer`."""

    model: PreTrainedModel
    processing_class: Any
    train: Any
    eval: Any
    collator: Callable
    compute_metrics: Callable | None
    remove_unused_columns: bool
    encode: Callable
    """Rows as the model's inputs, without augmentation: `encode(data.eval)` is `eval`."""


def prepare_inputs(
    data: TaskData,
    *,
    model: str | None,
    model_type: str | None = None,
    config_overrides: str | Mapping[str, Any] | None = None,
    tokenizer: str | None = None,
    vocabulary_size: int = 4000,
    max_length: int = 128,
    horizontal_flip: bool = False,
    **load_options: Any,
) -> TrainingInputs:
    """Loads or makes the model and turns the data into its inputs.

    Args:
        data: from `load_data`.
        model: a Hub id, a folder, or a name in `BUILT_IN_MODELS`; None to start from scratch with `model_type`.
        model_type: a model type of Transformers, such as "vit" or "gpt2", to start from scratch.
        config_overrides: fields of the model's configuration, as a mapping, as "name=value,name=value" or as JSON.
        tokenizer: a Hub id or folder; by default the model's own. For text from scratch, a byte-level BPE of
            `vocabulary_size` is trained on the training texts.
        max_length: texts are cut after this many tokens.
        horizontal_flip: training images are mirrored at random.
        **load_options: passed on to `from_pretrained` (revision, token, dtype, ...).

    Raises:
        AtomError: a model that is not there, or that does not do the task.
    """
    check_model_given(model, model_type)
    if max_length < 2:
        raise AtomError(f"--max_length must be at least 2, got {max_length}")
    labels = _label_options(data)
    is_lm = data.task == "causal-lm"
    given = f"--model {model!r}" if model is not None else f"--model_type {model_type!r}"
    if model is not None:
        source = find_model(model)
        if is_lm:
            check_config(read_config(source, load_options), given)
        network = load_network(source, data.task, labels, config_overrides, load_options)
        flag = "--model" if tokenizer is None else "--tokenizer"
        processor = load_processor(
            source if tokenizer is None else find_model(tokenizer), data.is_image, flag, **load_options
        )
    else:
        config = make_config(model_type, config_overrides, labels)
        if is_lm:
            check_config(config, given)
        if data.is_image:
            processor = make_image_processor(config)
        elif tokenizer is not None:
            processor = load_processor(find_model(tokenizer), False, "--tokenizer", **load_options)
        else:
            processor = train_tokenizer(data.train["text"], vocabulary_size, max_length)
        if not data.is_image:
            config.vocab_size = len(processor)
            for name in ("bos_token_id", "eos_token_id", "pad_token_id"):
                setattr(config, name, getattr(processor, name))
        network = make_network(config, data.task, config_overrides)
    if is_lm:
        check_causal(network, given)
    if data.is_image:
        return _image_task(network, processor, data, horizontal_flip)
    return _text_task(network, processor, data, max_length)


def prepare_run_inputs(run: RunArguments, data: TaskData) -> TrainingInputs:
    """`prepare_inputs` as a run's arguments say. Raises `AtomError`."""
    return prepare_inputs(
        data,
        model=run.model,
        model_type=run.model_type,
        config_overrides=run.config_overrides,
        tokenizer=run.tokenizer,
        vocabulary_size=run.vocabulary_size,
        max_length=run.max_length,
        horizontal_flip=run.horizontal_flip,
        **({"revision": run.model_revision} if run.model_revision else {}),
    )


def _label_options(data: TaskData) -> dict[str, Any]:
    if data.labels is None:
        return {}
    return {"id2label": dict(enumerate(data.labels)), "label2id": {name: i for i, name in enumerate(data.labels)}}


def _text_task(model: PreTrainedModel, tokenizer: Any, data: TaskData, max_length: int) -> TrainingInputs:
    know_padding(model, tokenizer)
    length = longest_length(model, tokenizer, max_length)
    is_lm = data.task == "causal-lm"
    limits = IdLimits(model, tokenizer)

    def cut(texts: list[str]) -> list[str]:
        return [readable(text, tokenizer, length) for text in texts]

    def encode(rows: dict[str, list]) -> dict[str, list]:
        pair = [rows["text_pair"]] if "text_pair" in rows else []
        if not is_lm:
            encoded = tokenizer(*map(cut, (rows["text"], *pair)), truncation=True, max_length=length)
            limits.check(encoded)
            return {**encoded, "labels": rows["label"]}
        texts = [text + (tokenizer.eos_token or "") for text in rows["text"]]
        encoded = tokenizer(cut(texts), truncation=True, max_length=length)
        limits.check(encoded)
        # Labels are made here, not by the collator, which masks every pad token: where pad is the end-of-text token, as
        # for GPT-2, the model would never learn to end.
        return {**encoded, "labels": [list(ids) for ids in encoded["input_ids"]]}

    def encoded(rows: Any) -> Any:
        with writing_cache():
            return rows.map(encode, batched=True, remove_columns=rows.column_names, desc="Tokenizing")

    collator = DataCollatorForSeq2Seq(tokenizer) if is_lm else DataCollatorWithPadding(tokenizer)
    metrics = None if is_lm else classification_metrics
    return TrainingInputs(model, tokenizer, encoded(data.train), encoded(data.eval), collator, metrics, True, encoded)


def _image_task(model: PreTrainedModel, processor: Any, data: TaskData, horizontal_flip: bool) -> TrainingInputs:
    check_pictures([data.train, data.eval], model.config)
    config = model.config  # `transform` must not hold the model: Datasets pickles it, with all that it refers to

    def transform(rows: dict[str, list]) -> dict[str, Any]:
        return {"pixel_values": image_inputs(rows["image"], processor, config), "labels": rows["label"]}

    def augment(rows: dict[str, list]) -> dict[str, Any]:
        inputs = transform(rows)
        mirrored = torch.rand(len(rows["image"])) < 0.5
        inputs["pixel_values"][mirrored] = inputs["pixel_values"][mirrored].flip(-1)
        return inputs

    # Images are read when they are needed: the column must live until then, and a data set may be larger than memory.
    train = data.train.with_transform(augment if horizontal_flip else transform)

    def encoded(rows: Any) -> Any:
        return rows.with_transform(transform)

    return TrainingInputs(
        model, processor, train, encoded(data.eval), default_data_collator, classification_metrics, False, encoded
    )
