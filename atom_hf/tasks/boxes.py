"""Bind boxes to modules: given ones, networks by name, and models of Transformers by folder or Hub id."""

import contextlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import transformers
from torch import Tensor, nn
from torch.nn import functional as F

from ..data.pictures import picture_mode
from ..errors import AtomError
from ..finetune.pretrained import find_model, load_processor, read_config
from ..hub.messages import reason
from .architectures import is_architecture, make_network
from .function_modules import function_of
from .kinds import BATCH, Kind
from .saved_boxes import is_saved_box, load_saved_box
from .spec import Box, TaskSpec
from .wires import Filled, Tokens

Bound = nn.Module | Callable[..., Any]


def bind(spec: TaskSpec, boxes: Mapping[str, nn.Module | Callable[..., Any] | str]) -> dict[str, Bound]:
    """What each box of a task is, by name. Fixed modules are frozen.

    Args:
        boxes: a module for each learner and fixed box, or a text: a network (`mlp(64)`), the folder or Hub id
            of a model, or a learner of a trained task (`runs/task-supervised:f`).
            Fixed boxes whose model the task names, and built-in functions, may be left out.

    Raises:
        AtomError: a box that is not there, or that is missing; a module that cannot be it.
    """
    wanted = {name: box for name, box in spec.boxes.items() if name not in spec.lets}
    for name in boxes:
        if name not in wanted:
            what = "a let, made of other boxes" if name in spec.lets else "no box of the task"
            raise AtomError(f"boxes: {name} is {what}; there are {', '.join(wanted)}")
    found = {name: _bound(box, boxes.get(name, box.path)) for name, box in wanted.items()}
    owners: dict[int, str] = {}
    for name in spec.learners:
        for parameter in found[name].parameters():
            other = owners.setdefault(id(parameter), name)
            if other != name:
                raise AtomError(
                    f"boxes: {other} and {name} share parameters, and each learner has its own; make them one box"
                )
        if not any(parameter.requires_grad for parameter in found[name].parameters()):
            raise AtomError(
                f"boxes: {name} is a learner, and its module has no parameter that can be trained; declare it fixed"
            )
    for name in spec.fixed:
        shared = [owners[id(p)] for p in found[name].parameters() if id(p) in owners]
        if shared:
            raise AtomError(
                f"boxes: {name} is fixed, and shares parameters with the learner {shared[0]}; copy the module"
            )
        found[name].requires_grad_(False).eval()
    return found


def _bound(box: Box, given: nn.Module | Callable[..., Any] | str | None) -> Bound:
    if box.role == "function":
        if given is None and box.maker is not None:
            return function_of(box.maker)
        if not callable(given):
            says = "nothing" if given is None else f"a {type(given).__name__}"
            raise AtomError(
                f"function {box.name}: it is no built-in one; give it as boxes={{'{box.name}': ...}}, got {says}"
            )
        if isinstance(given, nn.Module) and any(True for _ in given.parameters()):
            raise AtomError(f"function {box.name}: its module has parameters; declare it a learner, or fixed")
        return given
    if isinstance(given, str):
        if is_architecture(given):
            if box.role == "fixed":
                raise AtomError(f"fixed {box.name}: {given} would be a new network, which is not trained; give a model")
            return make_network(box, given)
        return load_saved_box(box, given, _network) if is_saved_box(given) else load_model(box, given)
    if given is None:
        raise AtomError(
            f"{box.role} {box.name}: no module is bound to it; give --bind {box.name}=MODEL, a folder or Hub id, or in Python "
            f"boxes={{'{box.name}': ...}}, a module for {box.signature}"
        )
    if not isinstance(given, nn.Module):
        raise AtomError(f"{box.role} {box.name}: it must be a torch.nn.Module or a text, got a {type(given).__name__}")
    return given


def _network(box: Box, text: str) -> nn.Module:
    """What a learner was made of when it was trained."""
    return make_network(box, text) if is_architecture(text) else load_model(box, text)


def load_model(box: Box, source: str) -> nn.Module:
    """A model of Transformers as a box: of an image or a text, to a class or a vector.

    Raises:
        AtomError: there is no such model; it has other classes than the wire; or it cannot be the box.
    """
    where = f"{box.role} {box.name}"
    kinds = [[wire.kind for wire in wires] for wires in (box.inputs, box.outputs)]
    if len(kinds[0]) != 1 or len(kinds[1]) != 1 or kinds[0][0].name not in ("pixels", "tokens"):
        raise AtomError(
            f"{where}: a model of Transformers takes one image or text and gives one wire; it cannot be {box.signature}"
        )
    takes, gives = kinds[0][0], kinds[1][0]
    is_image = takes.name == "pixels"
    if gives.name == "class" and gives.sizes != (BATCH,):
        auto_class = (
            transformers.AutoModelForImageClassification
            if is_image
            else transformers.AutoModelForSequenceClassification
        )
    elif gives.name == "vector":
        auto_class = transformers.AutoModel
    else:
        raise AtomError(f"{where}: a model of Transformers gives a class or a vector, not {gives}")
    folder = find_model(source)
    try:
        config = read_config(folder, {})
    except AtomError as error:
        raise AtomError(f"{where}: {str(error).removeprefix('--model ')}") from error
    if gives.name == "class" and config.num_labels != gives.sizes[0]:
        raise AtomError(f"{where}: {source} has {config.num_labels} classes, and {box.outputs[0]} is {gives}")
    try:
        model = auto_class.from_pretrained(folder, trust_remote_code=False)
    except Exception as error:  # a damaged or foreign model raises many kinds of errors
        raise AtomError(f"{where}: {source} cannot be loaded: {reason(error, folder, None)}") from error
    processor = None
    if is_image:
        with contextlib.suppress(AtomError):  # without one, pixels go to the model as they are
            processor = load_processor(folder, True)
    return ImageModel(model, **preparation(processor)) if is_image else TextModel(model)


class ImageModel(nn.Module):
    """A vision model for pixels [B, c, h, w] from 0 to 1: resized and normalized with a gradient.

    Args:
        model: takes `pixel_values`.
        size: height and width that it takes; None for any.
        mean, std: of each of its channels, or one for all.
    """

    def __init__(
        self,
        model: nn.Module,
        size: Sequence[int] | None = None,
        mean: Sequence[float] = (0.0,),
        std: Sequence[float] = (1.0,),
    ):
        super().__init__()
        self.model, self.size = model, None if size is None else tuple(size)
        self.mean, self.std = tuple(mean), tuple(std)
        self.channels = {"L": 1, "RGB": 3}[picture_mode(model.config)]

    def forward(self, pixels: Tensor) -> Any:
        if pixels.shape[1] == 1 and self.channels == 3:
            pixels = pixels.expand(-1, 3, -1, -1)
        if self.size is not None and tuple(pixels.shape[2:]) != self.size:
            pixels = F.interpolate(pixels, self.size, mode="bilinear", antialias=True)
        mean, std = (pixels.new_tensor(values).reshape(1, -1, 1, 1) for values in (self.mean, self.std))
        return self.model(pixel_values=(pixels - mean) / std)


def preparation(processor: Any) -> dict[str, Any]:
    """How an image processor prepares pixels from 0 to 1: `size`, `mean` and `std` of an `ImageModel`."""
    size = getattr(processor, "size", None) if getattr(processor, "do_resize", False) else None
    size = vars(size) if hasattr(size, "__dict__") else size
    sides = [size["height"], size["width"]] if isinstance(size, Mapping) and size.get("height") else None
    normalizes = getattr(processor, "do_normalize", False)
    found = {"size": sides}
    for name, default in (("mean", 0.0), ("std", 1.0)):
        values = getattr(processor, f"image_{name}", None) if normalizes else None
        values = default if values is None else values
        found[name] = [float(value) for value in (values if isinstance(values, Sequence) else [values])]
    return found


class TextModel(nn.Module):
    """A text model for the ids of a text, or for rows of probabilities over its vocabulary, by their mean embedding.

    Of a text that was filled in, the likeliest tokens are read, with the gradient of the mean.
    """

    takes_wires = True

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def forward(self, text: Tokens) -> Any:
        if isinstance(text, Filled):
            embeddings = text.embedded(self.model.get_input_embeddings())
            return self.model(inputs_embeds=embeddings, attention_mask=text.mask)
        if text.logits is None:
            return self.model(input_ids=text.ids, attention_mask=text.mask)
        embeddings = text.logits.softmax(-1) @ self.model.get_input_embeddings().weight
        return self.model(inputs_embeds=embeddings, attention_mask=text.mask)


def from_output(kind: Kind, output: Any, mask: Tensor | None) -> Any:
    """What a wire of this kind is in the output of a model of Transformers; any other output as it is.

    A vector is the pooled output, else the mean of the last hidden states over the real tokens.
    """
    if not isinstance(output, transformers.utils.ModelOutput):
        return output
    if kind.name in ("class", "tokens", "logit", "scalar") and output.get("logits") is not None:
        return output["logits"]
    if kind.name == "vector" and output.get("pooler_output") is not None:
        return output["pooler_output"].flatten(1)
    if kind.name == "vector" and output.get("last_hidden_state") is not None:
        states = output["last_hidden_state"]
        if mask is None or states.dim() != 3 or mask.shape != states.shape[:2]:
            return states.mean(1) if states.dim() == 3 else states.flatten(2).mean(2)
        weights = mask.to(states.dtype).unsqueeze(-1)
        return (states * weights).sum(1) / weights.sum(1).clamp(min=1)
    return output
