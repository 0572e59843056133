"""`Manipulator`: an editor of images or vectors, with the classifier that it was trained against, as a Transformers model."""

import os
import tempfile
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import AutoModel, PreTrainedModel
from transformers.utils import ModelOutput

from ...errors import AtomError
from ...hub.upload import push_model
from .card import write_card
from .classifier import Standardized, make_classifier
from .config import ManipulatorConfig
from .put import make_put


class Manipulator(PreTrainedModel):
    """Writes a class into a row: `put(x, a)`, trained against a frozen classifier, `get`.

    `get` is the sparring copy: the given classifier, fine-tuned on rows with noise. Vectors are shifted and scaled inside, so
    that their coordinates are about 1.

        model = Manipulator.from_pretrained("runs/digits-manipulator")
        edited = model.edit(pixels, to="7")                       # [B, 1, 8, 8], from 0 to 1
        halfway = model.edit(pixels, to="7", strength=0.5)
    """

    config_class = ManipulatorConfig
    base_model_prefix = "manipulator"
    main_input_name = "values"

    def __init__(self, config: ManipulatorConfig):
        super().__init__(config)
        kind, classes = config.kind, config.num_labels
        self.put = make_put(config.put, kind, classes, config.hidden_sizes)
        get = make_classifier(config.classifier, kind, classes)
        self.get = (Standardized(get, kind.values) if kind.name == "vector" else get).requires_grad_(False).eval()
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        """Every module begins as its own class makes it."""

    def train(self, mode: bool = True) -> "Manipulator":
        super().train(mode)
        self.get.eval().requires_grad_(False)  # which loading gives parameters of its own
        return self

    def to_inner(self, values: Tensor) -> Tensor:
        """Rows as `put` and `get` take them."""
        return (values - self.get.center) / self.get.scale if isinstance(self.get, Standardized) else values

    def from_inner(self, values: Tensor) -> Tensor:
        """Rows as they are given, of what `put` gives."""
        return values * self.get.scale + self.get.center if isinstance(self.get, Standardized) else values

    def classify(self, values: Tensor) -> Tensor:
        """The logits [B, n] of `get` for rows [B, ...]."""
        return logits_of(self.get, self.to_inner(self._checked(values)))

    def forward(self, values: Tensor, target: Tensor) -> Tensor:
        """Rows [B, ...] edited to points [B, n] of the simplex of classes, with a gradient."""
        return self.from_inner(self.put(self.to_inner(self._checked(values)), target))

    @torch.no_grad()
    def edit(self, values: Tensor, to: int | str | Tensor, strength: float = 1.0, own: Tensor | None = None) -> Tensor:
        """Rows turned into a class.

        Args:
            values: [B, c, h, w] with pixels from 0 to 1, or vectors [B, d].
            to: the class, by name or id, or the id [B] of each row's.
            strength: from 0, the class that is read from the row, to 1, the class `to`.
            own: the ids [B] of the rows' classes, if they are not to be read.

        Raises:
            AtomError: rows of another shape, an unknown class, a strength outside of 0 to 1.
        """
        classes = self.config.num_labels
        if not 0 <= strength <= 1:
            raise AtomError(f"strength must be from 0 to 1, got {strength}")
        values = self._checked(values)
        ids = to if torch.is_tensor(to) else torch.full((len(values),), self.class_id(to), device=values.device)
        target = F.one_hot(ids.long(), classes).to(values.dtype)
        if strength < 1:
            own = self.classify(values).argmax(1) if own is None else own
            target = strength * target + (1 - strength) * F.one_hot(own.long(), classes).to(values.dtype)
        return self(values, target)

    def class_id(self, name: int | str) -> int:
        """The id of a class. Raises `AtomError` if there is none."""
        return class_id_of(self.config, name)

    def save_pretrained(self, save_directory: str | os.PathLike, **kwargs: Any) -> None:
        """Write the configuration and one safetensors file, with a card, unless somebody wrote one there."""
        if kwargs.pop("push_to_hub", False):
            raise AtomError("push_to_hub: save first, and push by push_to_hub")
        super().save_pretrained(save_directory, **kwargs)
        write_card(self.config, save_directory)

    def push_to_hub(self, repo_id: str, **options: Any) -> Any:
        """Push the model with its card, as one commit.

        Args:
            repo_id: org/name, or a name within one's own account.
            **options: of `hub.upload.push_model`: commit_message, private, token, revision, create_pr, tags.

        Raises:
            AtomError: any failure, in one line.
        """
        with tempfile.TemporaryDirectory() as folder:
            self.save_pretrained(folder)
            write_card(self.config, folder, repo_id)
            return push_model(folder, repo_id, **options)

    def _checked(self, values: Tensor) -> Tensor:
        sizes = list(self.config.data_sizes)
        if not torch.is_tensor(values) or list(values.shape[1:]) != sizes or not values.is_floating_point():
            got = f"{values.dtype} {list(values.shape)}" if torch.is_tensor(values) else type(values).__name__
            raise AtomError(f"values must be floats [B, {', '.join(map(str, sizes))}], got {got}")
        return values.to(self.device, self.dtype)


def class_id_of(config: Any, name: int | str) -> int:
    """The id of a class of a configuration with `labels`. Raises `AtomError` if there is none."""
    labels = config.labels
    if isinstance(name, str) and name in labels:
        return labels.index(name)
    if isinstance(name, int) and not isinstance(name, bool) and 0 <= name < len(labels):
        return name
    raise AtomError(f"to: there is no class {name!r}; there are {', '.join(labels)}")


def logits_of(get: nn.Module, values: Tensor) -> Tensor:
    """The logits [B, n] of a classifier, of Transformers or not."""
    output = get(values)
    return output["logits"] if isinstance(output, ModelOutput) else output


AutoModel.register(ManipulatorConfig, Manipulator)
