"""The classifier that a manipulator is made of: loaded, checked, and described so that it can be made again without it."""

import copy
import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import transformers
from torch import Tensor, nn
from transformers import AutoConfig

from ...errors import AtomError, first_line
from ...finetune.pretrained import find_model, load_network, load_processor, read_config
from ...modeling.bounds import check_counts, check_memory
from ..architectures import is_architecture, make_network
from ..boxes import ImageModel, preparation
from ..kinds import Kind
from ..saved_boxes import is_saved_box, load_saved_box, saved_network
from .equations import judge_task


@dataclass(frozen=True)
class Classifier:
    """A classifier of rows of a kind, as a module from rows to logits [B, n]."""

    module: nn.Module
    form: dict[str, Any]
    """What `make_classifier` makes such a module of."""
    labels: list[str]
    name: str = ""
    revision: str | None = None

    @property
    def weights_hash(self) -> str:
        """The sha256 of its parameters and buffers, by their names."""
        digest = hashlib.sha256()
        for name, value in sorted(self.module.state_dict().items()):
            digest.update(name.encode() + value.detach().cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()


class Standardized(nn.Module):
    """A classifier of vectors for the same vectors, shifted and scaled: what it takes is `z * scale + center`."""

    def __init__(self, module: nn.Module, size: int):
        super().__init__()
        self.module = module
        self.register_buffer("center", torch.zeros(size))
        self.register_buffer("scale", torch.ones(()))

    def forward(self, vectors: Tensor) -> Tensor:
        return self.module(vectors * self.scale + self.center)


def make_classifier(form: Mapping[str, Any], kind: Kind, classes: int) -> nn.Module:
    """A module as a `Classifier.form` describes it, with new weights. Raises `AtomError` for one that describes none."""
    architecture = form.get("architecture")
    if isinstance(architecture, str):
        return make_network(judge_task(kind, classes).boxes["f"], architecture)
    config = form.get("config")
    if not isinstance(config, Mapping) or not isinstance(config.get("model_type"), str):
        raise AtomError("the configuration of the manipulator does not say what its classifier is; make it anew")
    check_counts(config, "the classifier in the manipulator's configuration")
    try:
        given = {name: value for name, value in config.items() if name != "model_type"}
        made = AutoConfig.for_model(config["model_type"], **given)
        auto_class = transformers.AutoModelForImageClassification
        check_memory(lambda: auto_class.from_config(copy.deepcopy(made)), "the manipulator's classifier")
        model = auto_class.from_config(made)
        return ImageModel(model, form.get("size"), form.get("mean", [0.0]), form.get("std", [1.0]))
    except AtomError:
        raise
    except Exception as error:  # a configuration that fits no model raises many kinds of errors
        raise AtomError(f"the classifier of the manipulator cannot be made: {first_line(error)}") from error


def load_classifier(source: str, kind: Kind, labels: Sequence[str], revision: str | None = None) -> Classifier:
    """A classifier for rows of a kind and of named classes.

    Args:
        source: the folder or Hub id of an image classifier, a built-in model, or a learner of a trained task
            (`runs/task-supervised:f`).
        labels: the names of the data's classes. Those of the result are in the order of the classifier's ids.

    Raises:
        AtomError: there is none; it is no classifier of one class each; it has other classes.
    """
    where = f"--classifier {source!r}"
    if is_architecture(source):
        raise AtomError(f"{where} would be a new network, which knows nothing; give a trained classifier")
    if is_saved_box(source):
        box = judge_task(kind, len(labels)).boxes["f"]
        return Classifier(
            load_saved_box(box, source, make_network), {"architecture": saved_network(source)}, [*labels], source
        )
    if kind.name != "pixels":
        raise AtomError(
            f"{where}: of vectors, give a learner of a trained task, such as runs/task-supervised:f, or in Python a network"
        )
    folder = find_model(source)
    options = {"revision": revision} if revision else {}
    try:
        config = read_config(folder, options)
        labels = ordered_labels(config, labels, where)
        model = load_network(folder, "image-classification", {}, None, options)
    except AtomError as error:
        raise AtomError(str(error).replace(f"--model {folder!r}", where, 1)) from error
    prepared = preparation(load_processor(folder, True, "--classifier", **options))
    form = {"config": config.to_diff_dict() | {"model_type": config.model_type}, **prepared}
    revision = getattr(config, "_commit_hash", None) or revision
    return Classifier(ImageModel(model.float(), **prepared), form, [*labels], source, revision)


def ordered_labels(config: Any, labels: Sequence[str], where: str) -> list[str]:
    """The names of the data's classes in the order of the classifier's; as they are where that has no names.

    Raises:
        AtomError: a classifier of one class, of numbers, of several classes at once, or of others than the data.
    """
    if config.problem_type in ("regression", "multi_label_classification"):
        what = "gives numbers" if config.problem_type == "regression" else "gives several classes at once"
        raise AtomError(f"{where} {what} ({config.problem_type}); give a classifier of one class each")
    names = [str(config.id2label[key]) for key in sorted(config.id2label)]
    if len(names) < 2:
        raise AtomError(
            f"{where} has one class, and there is nothing to turn it into; give a classifier of two or more"
        )
    own = {_plain(label): label for label in labels}
    if len(names) == len(labels) and names == [f"LABEL_{number}" for number in range(len(names))]:
        return list(labels)
    if len(names) != len(labels) or {*map(_plain, names)} != {*own}:
        shown = [", ".join(some[:5]) + (", ..." if len(some) > 5 else "") for some in (names, list(labels))]
        raise AtomError(
            f"{where} has {len(names)} classes ({shown[0]}), and --dataset has {len(labels)} ({shown[1]}); give data of the "
            "classifier's classes"
        )
    return [own[_plain(name)] for name in names]


def _plain(name: str) -> str:
    """A class's name without case, blanks and marks: "T-shirt/top" and "T - shirt / top" are the same."""
    return re.sub(r"[\W_]+", "", name.casefold()) or name
