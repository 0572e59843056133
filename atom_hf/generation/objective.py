"""The loss of a denoiser: DDPM or flow matching, with the schedulers of diffusers."""

from contextlib import nullcontext
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from ..errors import AtomError
from ..modeling.own_outputs import takes
from ..modeling.unwrap import Objective
from ..training.random_state import noise_of_batch


class DenoisingObjective(Objective):
    """A denoiser with its scheduler, whose forward gives the loss of a batch of images: a model for Trainer.

    With a scheduler that adds noise in steps (`DDPMScheduler`), times are uniform over them, and the target is the noise, the
    image or the velocity, as `prediction_type` says (Ho et al., 2020, Eq. 14). With one of flow matching
    (`FlowMatchEulerDiscreteScheduler`) the input is `(1 - sigma) x + sigma noise` and the target `noise - x` (Lipman et al.,
    2023, with the noise at sigma = 1).

    In evaluation the noise and the times of a batch depend on the batch alone.

    Args:
        denoiser: a model of diffusers that takes a noisy sample and its time, and `class_labels` if it is conditional.
        scheduler: of diffusers.
    """

    inner: ClassVar[str] = "denoiser"

    accepts_loss_kwargs = False  # Trainer divides the loss by its accumulation steps

    def __init__(self, denoiser: Any, scheduler: Any):
        super().__init__()
        self.denoiser, self.scheduler = denoiser, scheduler
        self.is_flow = hasattr(scheduler, "scale_noise")
        if not (self.is_flow or hasattr(scheduler, "add_noise")):
            raise AtomError(f"scheduler: a {type(scheduler).__name__} adds no noise, and none can be trained with it")

    def forward(
        self, pixel_values: Tensor, labels: Tensor | None = None, return_loss: bool = True
    ) -> dict[str, Tensor]:
        """The mean squared error of the prediction.

        Args:
            pixel_values: [B, C, H, W] in [-1, 1].
            labels: classes [B] of a conditional denoiser.
            return_loss: tells Trainer that there is a loss without labels; it is always returned.

        Returns:
            "loss", a scalar, and with atoms in training "atoms" [B, K] (`StepAtoms.pack`).
        """
        with nullcontext() if self.training else noise_of_batch(pixel_values):
            noise = torch.randn_like(pixel_values)
            steps = torch.randint(
                self.scheduler.config.num_train_timesteps, (len(pixel_values),), device=pixel_values.device
            )
        noisy, times, target = self._noisy(pixel_values, noise, steps)
        more = (
            {"class_labels": labels}
            if labels is not None and takes(type(self.denoiser).forward, "class_labels")
            else {}
        )
        outputs = self.denoiser(noisy, times, **more)
        # Some denoisers predict a variance too, in further channels.
        found = {"loss": F.mse_loss(outputs.sample[:, : target.shape[1]].float(), target.float())}
        if "atoms" in outputs:  # DDP looks among the outputs for the parameters that are used
            found["atoms"] = outputs["atoms"]
        return found

    def _noisy(self, images: Tensor, noise: Tensor, steps: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(noisy images, the times that the denoiser is given, what it is to predict)."""
        scheduler = self.scheduler
        if self.is_flow:
            sigmas = scheduler.sigmas.to(images)[steps].view(-1, *[1] * (images.dim() - 1))
            times = scheduler.timesteps.to(images.device)[steps]
            return (1 - sigmas) * images + sigmas * noise, times, noise - images
        kind = scheduler.config.prediction_type
        noisy = scheduler.add_noise(images, noise, steps)
        if kind == "v_prediction":
            return noisy, steps, scheduler.get_velocity(images, noise, steps)
        return noisy, steps, noise if kind == "epsilon" else images
