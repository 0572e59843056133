"""Models, tokenizers and image processors: pretrained, or from scratch."""

import copy
import importlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import transformers
from huggingface_hub.errors import StrictDataclassError
from torch import nn
from transformers import AutoConfig, AutoImageProcessor, AutoTokenizer, PreTrainedConfig, PreTrainedModel
from transformers.integrations import is_deepspeed_zero3_enabled
from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

from ..builtin import BUILT_IN_MODELS
from ..errors import AtomError, first_line
from ..hub.files import NotInCache
from ..hub.messages import reason
from ..modeling.bounds import check_counts, check_memory
from ..modeling.load import check_size
from ..modeling.sharding import gathered_parameters
from ..utils.files import complete
from ..utils.terminal import get_logger

IMAGE_SIZE = 224  # pixels of a side, where the model's configuration names none

logger = get_logger(__name__)

AUTO_CLASSES = {
    "text-classification": "AutoModelForSequenceClassification",
    "image-classification": "AutoModelForImageClassification",
    "causal-lm": "AutoModelForCausalLM",
}


def find_model(name: str) -> str:
    """The folder of a built-in model, or `name` itself: a folder or a Hub id."""
    model = BUILT_IN_MODELS.get(name)
    if model is None:
        complete(name)
        return name
    try:
        package = importlib.import_module(model.package)
    except ImportError as error:
        raise AtomError(f"--model {name} needs an extra: pip install 'atom-hf[{model.extra}]'") from error
    return str(Path(package.__file__).parent / model.folder)


def _auto_class(task: str) -> Any:
    return getattr(transformers, AUTO_CLASSES[task])


def check_model_given(model: str | None, model_type: str | None) -> None:
    """Raises `AtomError` unless exactly one of them is given."""
    if (model is None) == (model_type is None):
        raise AtomError(
            "give --model (a Hub id, a folder, or " + ", ".join(BUILT_IN_MODELS) + ") or --model_type, not both"
        )


def read_config(source: str, options: Mapping[str, Any]) -> Any:
    """The configuration of a checkpoint. Raises `AtomError` if there is none."""
    try:
        known = {k: v for k, v in options.items() if k != "dtype"}
        # As it stands in the file: some configurations count up to their numbers when they are made.
        raw, _ = PreTrainedConfig.get_config_dict(source, **known)
        check_counts(raw, f"--model {source!r}")
        return AutoConfig.from_pretrained(source, trust_remote_code=False, **known)
    except AtomError:
        raise
    except Exception as error:  # a foreign or damaged configuration raises many kinds of errors
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
    config = copy.deepcopy(before)
    changed = _override(config, overrides)
    _check_size(source, task, config, options, bool(changed))
    try:
        model = _auto_class(task).from_pretrained(
            source, ignore_mismatched_sizes=True, trust_remote_code=False, **labels, **changed, **options
        )
    except Exception as error:  # and so do a configuration that fits no model, and damaged weights
        why = reason(error, source, options.get("revision"))
        raise AtomError(f"--model {source!r} cannot be loaded for {task}: {why}") from error
    if labels and (before.architectures or [""])[0] == type(model).__name__:
        _reset_classifier(model, {int(k): v for k, v in before.id2label.items()}, labels["id2label"])
    return model


def _check_size(source: str, task: str, config: Any, options: Mapping[str, Any], overridden: bool) -> None:
    """Raises `AtomError` for a model far larger than its files, or, of a configuration that was changed, than memory."""
    auto_class = _auto_class(task)
    if overridden:
        # An eighth of float32: whatever it is loaded in takes more.
        check_memory(lambda: auto_class.from_config(copy.deepcopy(config)), f"--model {source!r}", share=1 / 8)
        return
    hub = {k: v for k, v in options.items() if k in ("revision", "token", "cache_dir")}
    if commit := getattr(config, "_commit_hash", None):
        hub["revision"] = commit
    try:
        check_size(auto_class, config, source, pickled=True, **hub)
    except NotInCache:
        return
    except AtomError as error:
        raise AtomError(f"--model {source!r} cannot be loaded for {task}: {error}") from error
    except Exception:  # damaged weights, or a model that cannot be made without them: `from_pretrained` says why
        return


def _reset_classifier(model: PreTrainedModel, before: dict[int, str], after: dict[int, str]) -> None:
    # A head trained for other classes would load silently where their number happens to be the same.
    if before == after or len(before) != len(after):
        return
    for name, module in model.named_modules():
        outside = not name.startswith(model.base_model_prefix + ".")
        if outside and isinstance(module, nn.Linear) and module.out_features == len(after):
            with gathered_parameters(module.parameters()):
                nn.init.normal_(module.weight, std=getattr(model.config, "initializer_range", 0.02))
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
            logger.info(
                "%s is newly initialized: the checkpoint has other classes (%s)", name, ", ".join(before.values())
            )


def load_processor(source: str, is_image: bool, flag: str = "--model", **options: Any) -> Any:
    """The image processor or tokenizer of a model. Raises `AtomError`, naming `flag`, if there is none."""
    options = {k: v for k, v in options.items() if k in ("revision", "token", "cache_dir")}
    kind, loader = ("image processor", AutoImageProcessor) if is_image else ("tokenizer", AutoTokenizer)
    try:
        processor = loader.from_pretrained(source, trust_remote_code=False, **options)
    except Exception as error:  # a broken folder raises many kinds of errors
        why = reason(error, source, options.get("revision"))
        hint = "a text model takes no images" if is_image else "an image model takes no texts"
        raise AtomError(f"{flag} {source!r} has no {kind} that can be loaded ({why}); {hint}") from error
    for name in ("size", "crop_size", "pad_size"):
        size = getattr(processor, name, None)
        sides = vars(size) if hasattr(size, "__dict__") else size if isinstance(size, Mapping) else {"height": size}
        check_counts(sides, f"{flag} {source!r}, {name}")
    return processor


def make_network(config: Any, task: str, overrides: str | Mapping[str, Any] | None) -> PreTrainedModel:
    """A model from scratch. Raises `AtomError` for a configuration that fits no model, or none that memory holds."""
    where = f"--model_type {config.model_type!r} with --config_overrides {overrides!r}"
    check_counts(config.to_dict(), where)
    if not is_deepspeed_zero3_enabled():  # which spreads it over processes as it is made
        check_memory(lambda: _auto_class(task).from_config(copy.deepcopy(config)), where)
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
            f"--model_type {model_type!r} is not a model type of Transformers, such as vit, bert or gpt2"
        ) from error
    changed = _override(config, overrides)
    try:
        # Made anew, since some fields follow from others, such as the names of stages from their number.
        return AutoConfig.for_model(model_type, **labels, **changed)
    except Exception as error:  # a configuration's constructor raises what it likes
        raise AtomError(f"--config_overrides {overrides!r} does not fit {model_type}: {first_line(error)}") from error


def _override(config: Any, overrides: str | Mapping[str, Any] | None) -> dict[str, Any]:
    """Sets fields of `config`. Returns those that were set, with their new values."""
    if not overrides:
        return {}
    if "image_size" in overrides and hasattr(config, "num_channels") and not hasattr(config, "image_size"):
        config.image_size = (
            IMAGE_SIZE  # of a convolutional model, which takes images of any size: that of its image processor
        )
    try:
        if isinstance(overrides, str) and overrides.lstrip().startswith("{"):
            overrides = json.loads(overrides)
        if isinstance(overrides, Mapping):
            names = list(overrides)
            check_counts(overrides, "--config_overrides")
            if unknown := [name for name in names if not hasattr(config, name)]:
                raise ValueError(f"it has no {', '.join(unknown)}")
            config.update(dict(overrides))
        else:
            names = [part.split("=")[0] for part in overrides.split(",")]
            numbers = re.findall(r"(?:^|,)(\w+)=(-?\d{1,400})(?=,|$)", overrides)
            check_counts({name: int(number) for name, number in numbers}, "--config_overrides")
            config.update_from_string(overrides)
    except AtomError:
        raise
    except (ValueError, AttributeError, TypeError, RecursionError, StrictDataclassError) as error:
        why = " ".join(str(error).split())
        raise AtomError(f"--config_overrides {overrides!r} does not fit {config.model_type}: {why}") from error
    return {name: getattr(config, name) for name in names}


def make_image_processor(config: Any) -> Any:
    size = getattr(config, "image_size", IMAGE_SIZE)
    height, width = (size, size) if isinstance(size, int) else size
    channels = [0.5] * getattr(config, "num_channels", 3)
    return ViTImageProcessorPil(size={"height": height, "width": width}, image_mean=channels, image_std=channels)


def train_tokenizer(texts: Any, vocabulary_size: int, max_length: int) -> Any:
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
