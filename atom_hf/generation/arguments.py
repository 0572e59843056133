"""Command-line arguments of image generation."""

from dataclasses import dataclass, field, fields
from typing import ClassVar

from ..data.columns import GENERATION
from ..utils.bounds import COUNT, Bound

OBJECTIVES = ("ddpm", "flow")


@dataclass
class GenerationArguments:
    """How a denoiser is trained."""

    help_title: ClassVar[str] = f"Image generation (--task {GENERATION})"
    bounds: ClassVar[dict[str, Bound]] = {"image_size": COUNT, "ema_decay": Bound(0, 1, below=True)}

    objective: str = field(
        default="ddpm",
        metadata={
            "help": "What the denoiser learns: 'ddpm' predicts the noise that was added (Ho et al., 2020); 'flow' predicts the "
            "velocity from the image to the noise (flow matching, Lipman et al., 2023)."
        },
    )
    class_conditional: bool = field(
        default=False, metadata={"help": "Give the denoiser the class of each image, from the column of labels."}
    )
    image_size: int | None = field(
        default=None,
        metadata={
            "help": "Pixels of a side that images are scaled to, after their larger side is cut; by default the model's, or of "
            "a new model the smaller side of the first image."
        },
    )
    ema_decay: float = field(
        default=0.999,
        metadata={
            "help": "Decay of the moving average of the weights, which is what is evaluated and saved (diffusers' EMAModel); 0 "
            "for the weights themselves."
        },
    )

    def first_given(self) -> str | None:
        """The first of these flags that has not its default."""
        return next((f.name for f in fields(self) if getattr(self, f.name) != f.default), None)
