"""`ManipulatorConfig`: what a manipulator edits, by which classifier, and how it was trained."""

from dataclasses import field
from typing import Any

from huggingface_hub.dataclasses import strict
from transformers import AutoConfig, PreTrainedConfig

from ...errors import AtomError
from ..kinds import Kind
from .put import PUTS, WIDTHS


@strict
class ManipulatorConfig(PreTrainedConfig):
    """Configuration of a `Manipulator`. The names of its classes are `id2label`.

    Args:
        put: the network that edits: "steer" for images, "residual" for vectors.
        data_sizes: of a row: channels, height and width of an image, or the length of a vector.
        hidden_sizes: widths of the network; its own by default.
        classifier: how the classifier is made: {"config": ..., "size": ..., "mean": ..., "std": ...} of a model of
            Transformers, or {"architecture": "mlp(64)"}.
        classifier_name: the folder's name or Hub id of the one that was given.
        classifier_revision: its commit on the Hub.
        classifier_hash: the sha256 of its weights.
        noise_std: of the noise that the sparring copy was tuned on; 0 where it is the classifier itself.
        weights: of each of the equations.
        dataset: the name of the data.
        evaluation: what was measured (`evaluate_manipulator`), for the card.

    Raises:
        AtomError: an unknown network, or sizes that do not fit it.
    """

    model_type = "manipulator"

    put: str = "steer"
    data_sizes: list[int] | tuple[int, ...] = field(default_factory=lambda: [1, 28, 28])
    hidden_sizes: list[int] | tuple[int, ...] | None = None
    classifier: dict[str, Any] = field(default_factory=lambda: {"architecture": "conv(16, 32)"})
    classifier_name: str | None = None
    classifier_revision: str | None = None
    classifier_hash: str | None = None
    noise_std: float | int = 0.0
    weights: dict[str, Any] = field(default_factory=dict)
    dataset: str | None = None
    evaluation: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self, **kwargs: Any):
        super().__post_init__(**kwargs)
        if self.put not in PUTS:
            raise AtomError(f"put must be one of {', '.join(PUTS)}, got {self.put!r}")
        self.data_sizes = list(self.data_sizes)
        self.hidden_sizes = list(WIDTHS[self.put] if self.hidden_sizes is None else self.hidden_sizes)
        if not self.hidden_sizes or not all(
            isinstance(width, int) and 1 <= width <= 2**16 for width in self.hidden_sizes
        ):
            raise AtomError(f"hidden_sizes must be one or more widths from 1 to {2**16}, got {self.hidden_sizes}")
        _ = self.kind

    @property
    def kind(self) -> Kind:
        """Of a row."""
        return Kind(PUTS[self.put], tuple(self.data_sizes))

    @property
    def labels(self) -> list[str]:
        """The names of the classes, in the order of their ids."""
        return [str(self.id2label[key]) for key in sorted(self.id2label)]


AutoConfig.register(ManipulatorConfig.model_type, ManipulatorConfig)
