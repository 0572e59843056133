"""Facts for model cards, gathered from a model, a trainer and a run.

Arguments are chosen one by one, and of a path only its last part is used: no local folder and no token gets into a card.
"""

import functools
import platform
import re
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from huggingface_hub import constants
from huggingface_hub.file_download import repo_folder_name
from huggingface_hub.repocard import metadata_load
from transformers import PreTrainedModel
from transformers.modelcard import TASK_MAPPING
from transformers.models.auto.modeling_auto import MODEL_FOR_MULTIPLE_CHOICE_MAPPING_NAMES
from transformers.trainer_utils import has_length
from transformers.utils import hf_api

from ..builtin import BUILT_IN_MODELS
from ..utils.files import write_atomically
from ..version import __version__
from .card import CARD_NAME, CardFacts, check_facts, hub_id, is_own, model_card, write_card
from .card_run import facts_of_log, time_facts, training_facts
from .card_update import keeps_card, saved_again
from .licenses import LICENSES

MOST_LAYERS = 80  # lines: a longer list of modules tells nothing at a glance

PROCESSORS = ("tokenizer_config.json", "preprocessor_config.json", "processor_config.json")


class Base(NamedTuple):
    """Where the weights of a model were loaded from."""

    name: str
    """The name given to `from_pretrained`."""
    folder: str | None
    """The absolute path, if it is a folder."""
    on_hub: bool
    """Whether `name` is an id on the Hub; False if unknown."""


def base_of_weights(model: Any) -> Base | None:
    """Where the weights of a model were loaded from; None if they were not loaded.

    Call it soon after loading: a relative folder may not be found from another working directory, or may be gone.
    """
    # A model whose weights were not loaded has no base, though its configuration may name its own source.
    name = getattr(model.config, "_name_or_path", "") if hasattr(model, "_weight_conversions") else ""
    if not name:
        return None
    if Path(name).exists():
        return Base(name, str(Path(name).resolve()), False)
    cached = hub_id(name) and Path(constants.HF_HUB_CACHE, repo_folder_name(repo_id=name, repo_type="model")).is_dir()
    return Base(name, None, bool(cached))


def describes(model: Any) -> bool:
    """Whether a card can be written for a model: it is from Transformers, or an adapter of such a model."""
    return isinstance(_base_of(model), PreTrainedModel)


def facts_of_model(model: Any) -> CardFacts:
    """Facts from a model alone: its class, its base, its heads' settings; not how or on what it was trained."""
    base = _base_of(model)
    name = type(base).__name__
    labels = list((getattr(base.config, "id2label", None) or {}).values())
    facts = CardFacts(
        model_class=name,
        pipeline_tag=pipeline_tag(name),
        library="transformers" if base is model else "peft",
        atoms=getattr(base, "atom_config", None),
        versions=_versions("peft" if base is not model else ""),
        # Transformers' default names of classes are no names.
        labels=None if labels == [f"LABEL_{i}" for i in range(len(labels))] else labels,
    )
    takes = getattr(base, "main_input_name", None)
    facts.inputs = {"input_ids": "text", "pixel_values": "image"}.get(takes)
    layers = str(base)
    facts.architecture = layers if layers.count("\n") < MOST_LAYERS else None
    facts.channels = getattr(base.config, "num_channels", None) if facts.inputs == "image" else None
    source = getattr(base, "_atom_base", None) or base_of_weights(base)
    return replace(facts, **(base_facts(source) if source else {}))


def write_model_card(model: Any, folder: str | Path, beside: str | Path | None = None) -> None:
    """Write the card of a model without a run to a folder, or `beside` it, where what is saved is to be moved from.

    If the model was loaded from the folder, the card of its run stays; a card that somebody wrote stays as it is.
    """
    if is_own(folder):
        return
    facts = facts_of_model(model)
    facts.has_processor = any(
        Path(place, name).is_file() for place in (folder, beside or folder) for name in PROCESSORS
    )
    base = getattr(_base_of(model), "_atom_base", None)
    if base and base.folder == str(Path(folder).resolve()) and keeps_card(folder):
        text = Path(folder, CARD_NAME).read_text(encoding="utf-8")
        new = str(model_card(facts))
        write_atomically(Path(beside or folder, CARD_NAME), saved_again(text, new))
    else:
        write_card(facts, beside or folder)


def facts_of_trainer(trainer: Any, given: Mapping[str, Any] | None = None) -> CardFacts:
    """Facts from a trainer: its model and the run so far.

    Args:
        trainer: a Trainer with the flag on. Its `card_facts`, by the names of `CardFacts`, override what is found.
        given: the arguments of `create_model_card` (language, license, tags, model_name, finetuned_from, tasks,
            dataset_tags, dataset, dataset_args, dataset_name), which override both.
    """
    check_facts(trainer.card_facts, "card_facts")
    args, state = trainer.args, trainer.state
    model = trainer.accelerator.unwrap_model(trainer.model)
    repo = getattr(trainer, "hub_model_id", None) or args.hub_model_id
    tags = ["generated_from_trainer", *getattr(trainer, "_tag_names", ()), *(getattr(model, "model_tags", None) or ())]
    paper = getattr(trainer, "_paper", None) or {}
    found = {
        "name": (repo or "").split("/")[-1] or Path(args.output_dir).name or None,
        "repo_id": repo,
        "tags": [tag for tag in tags if isinstance(tag, str)],
        "has_processor": getattr(trainer, "processing_class", None) is not None,
        "training": {
            **training_facts(args, state.global_step, model.dtype),
            "parameters": _parameters(_base_of(model)),
            **time_facts(args, state),
        },
        "citations": [paper["citation"].strip()] if paper.get("citation") else [],
        **_facts_of_rows(trainer.train_dataset, trainer.eval_dataset),
        **facts_of_log(args, state),
        **trainer.card_facts,
    }
    return replace(facts_of_model(model), **{**found, **_facts_given(given or {}, found["tags"])})


def base_facts(source: str | Base) -> dict[str, Any]:
    """Facts about the checkpoint that training started from.

    Args:
        source: the name given to `from_pretrained` or `--model`; or what `base_of_weights` returned after loading.
    """
    if isinstance(source, str):
        if source in BUILT_IN_MODELS:
            return dict(BUILT_IN_MODELS[source].card)
        folder = str(Path(source).resolve()) if Path(source).exists() else None
        source = Base(source, folder, folder is None and hub_id(source) is not None)
    for model in BUILT_IN_MODELS.values():
        if model.is_in(source.name) or model.is_in(source.folder or ""):
            return dict(model.card)
    if source.on_hub:
        return {"base_model": source.name, "license": _license_of(source.name)}
    note = "a local checkpoint" if source.folder else None
    found = {"base_name": Path(source.folder or source.name).name or None, "base_note": note}
    return {**found, "license": _license_of(source.folder) if source.folder else None}


def pipeline_tag(class_name: str) -> str | None:
    """The task of a model class, by Trainer's own tables, plus multiple choice, which they lack."""
    tables = {**TASK_MAPPING, "multiple-choice": MODEL_FOR_MULTIPLE_CHOICE_MAPPING_NAMES}
    found = None
    for task, table in tables.items():
        for names in table.values():
            if class_name == names or (isinstance(names, tuple | list) and class_name in names):
                found = task
    return found


def _base_of(model: Any) -> Any:
    """The Transformers model within an adapter, else the model itself."""
    inner = getattr(model, "get_base_model", None)
    return inner() if inner is not None and not isinstance(model, PreTrainedModel) else model


def _parameters(model: Any) -> str:
    count = sum(value.numel() for name, value in model.named_parameters() if not name.startswith("atom_heads."))
    return f"{count / 1e6:,.3g} million"


def _versions(*more: str) -> dict[str, str]:
    names = ("transformers", "torch", "accelerate", "datasets", "tokenizers", *more)
    others = (sys.modules.get(name) for name in names)
    return {
        "atom-hf": __version__,
        "Python": platform.python_version(),
        **{m.__name__: m.__version__ for m in others if hasattr(m, "__version__")},
    }


@functools.cache
def _license_of(source: str) -> str | None:
    """The licence in the base's own card, if it is one that the Hub accepts without further text."""
    try:
        if Path(source).is_dir():
            found = (metadata_load(Path(source, CARD_NAME)) or {}).get("license")
        elif hub_id(source):
            # One request, as for Trainer's own card; none with HF_HUB_OFFLINE.
            tags = hf_api().model_info(source, timeout=5).tags or []
            found = next((tag.removeprefix("license:") for tag in tags if tag.startswith("license:")), None)
        else:
            return None
    except Exception:  # a base whose card cannot be read: its licence is unknown
        return None
    return found if isinstance(found, str) and found in LICENSES else None


def _facts_of_rows(train: Any, evaluation: Any) -> dict[str, Any]:
    """The numbers of samples, and the data set's id if the rows came from the Hub."""
    found = {
        "train_samples": len(train) if train is not None and has_length(train) else None,
        "eval_samples": len(evaluation) if not isinstance(evaluation, dict | None) and has_length(evaluation) else None,
    }
    if name := _data_id(train):
        splits = [str(rows.split) if getattr(rows, "split", None) else None for rows in (train, evaluation)]
        config = train.info.config_name
        found |= {"dataset": name.split("/")[-1], "dataset_id": name, "train_split": splits[0]}
        # Held-out rows still have the name of the split that they were taken from.
        found["eval_split"] = splits[1] if splits[1] != splits[0] else None
        found["dataset_config"] = config if config != "default" else None
        whole = (getattr(getattr(evaluation, "info", None), "splits", None) or {}).get(splits[1])
        found["eval_is_part"] = whole is not None and whole.num_examples != found["eval_samples"]
        if (other := _data_id(evaluation)) and other != name:
            found |= {"eval_dataset": other.split("/")[-1], "eval_dataset_id": other, "eval_split": splits[1]}
    return found


def _data_id(rows: Any) -> str | None:
    """The Hub id of the data set that rows came from, if known."""
    files = getattr(getattr(rows, "info", None), "download_checksums", None) or {}
    ids = {match[1] for match in (re.match(r"hf://datasets/([^@]+)@", str(file)) for file in files) if match}
    return hub_id(ids.pop()) if len(ids) == 1 else None


def _facts_given(given: Mapping[str, Any], tags: list[str]) -> dict[str, Any]:
    """The arguments of `create_model_card`, of Transformers or of another library, as facts."""

    def listed(name: str) -> list[str]:
        value = given.get(name)
        return [value] if isinstance(value, str) else list(value or ())

    found = {"name": given.get("model_name"), "language": given.get("language"), "license": given.get("license")}
    found["tags"] = [*tags, *listed("tags")]
    found["pipeline_tag"] = next(iter(listed("tasks")), None)
    found["dataset_id"], found["datasets"] = next(iter(listed("dataset_tags")), None), listed("dataset_tags")
    name = listed("dataset") or listed("dataset_name") or listed("dataset_tags")
    found["dataset"] = name[0] if name else None
    found["dataset_config"] = next(iter(listed("dataset_args")), None)
    base = base_facts(given["finetuned_from"]) if given.get("finetuned_from") else {}
    return {key: value for key, value in {**base, **found}.items() if value}
