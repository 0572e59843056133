"""`DenoisingTrainer`: Trainer of a denoiser, with the moving average of its weights."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn
from transformers import TrainerCallback
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from ..errors import AtomError, first_line
from ..finetune.saving import RunTrainer
from ..utils.files import write_atomically
from .objective import DenoisingObjective

AVERAGE_NAME = "ema.safetensors"

_PREFIX = "ema."


class DenoisingTrainer(RunTrainer):
    """Trains the denoiser of a `DenoisingObjective`, with the atom loss if the flag is on.

    With `ema_decay` above 0 a moving average of the denoiser's weights (diffusers' EMAModel) is kept over the steps. It is what
    is evaluated and saved in the end; checkpoints hold both. What is saved is a `DDPMPipeline`, whatever the scheduler, and
    beside the denoiser's weights the heads.

    Args:
        *args, **kwargs: of Trainer; the model is a `DenoisingObjective`.
        ema_decay: of the moving average; 0 for none.

    Raises:
        AtomError: sharding (FSDP, DeepSpeed).
    """

    def __init__(self, *args: Any, ema_decay: float = 0.0, **kwargs: Any):
        super().__init__(*args, **kwargs)
        if self.is_fsdp_enabled or self.is_deepspeed_enabled:
            raise AtomError("a denoiser trains in one process, or in several by DDP; leave out FSDP and DeepSpeed")
        self.average: Any = None
        if ema_decay > 0:
            from diffusers.training_utils import EMAModel

            self.average = EMAModel([value for _, value in self._averaged_parameters()], decay=ema_decay)
        self.add_callback(_Steps(self))

    @property
    def objective(self) -> DenoisingObjective:
        """The model without what wraps it."""
        return self.accelerator.unwrap_model(self.model)

    def _averaged_parameters(self) -> list[tuple[str, nn.Parameter]]:
        named = self.objective.denoiser.named_parameters()
        return [(name, value) for name, value in named if not name.startswith("atom_heads.")]

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Context manager: the denoiser has the averaged weights, if there are any; restores its own."""
        if self.average is None:
            yield
            return
        parameters = [value for _, value in self._averaged_parameters()]
        self.average.store(parameters)
        self.average.copy_to(parameters)
        try:
            yield
        finally:
            self.average.restore(parameters)

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        with self.averaged():
            return super().evaluate(*args, **kwargs)

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        folder = output_dir or self.args.output_dir
        if os.path.basename(folder).startswith(PREFIX_CHECKPOINT_DIR):
            return super().save_model(output_dir, _internal_call)
        if self.args.should_save:
            self.save_pipeline(folder)

    def save_pipeline(self, folder: str | Path) -> None:
        """Save the denoiser and its scheduler as a pipeline of diffusers."""
        from diffusers import DDPMPipeline

        with self.averaged():
            DDPMPipeline(self.objective.denoiser, self.objective.scheduler).save_pretrained(folder)

    def _save(self, output_dir: str | None = None, state_dict: dict | None = None) -> None:
        super()._save(output_dir, state_dict=state_dict)
        if self.average is None or not self.args.should_save:
            return
        names = [name for name, _ in self._averaged_parameters()]
        shadow = zip(names, self.average.shadow_params, strict=True)
        tensors = {f"{_PREFIX}{name}": value.detach().cpu().contiguous() for name, value in shadow}
        metadata = {"format": "pt", "step": json.dumps(self.average.optimization_step)}
        path = Path(output_dir or self.args.output_dir, AVERAGE_NAME)
        write_atomically(path, lambda part: save_file(tensors, part, metadata=metadata))

    def _load_from_checkpoint(self, resume_from_checkpoint: str, *args: Any, **kwargs: Any) -> None:
        super()._load_from_checkpoint(resume_from_checkpoint, *args, **kwargs)
        self._load_average(resume_from_checkpoint)

    def _load_best_model(self) -> None:
        super()._load_best_model()
        self._load_average(self.state.best_model_checkpoint)

    def _load_average(self, checkpoint: str) -> None:
        if self.average is None:
            return
        file = Path(checkpoint, AVERAGE_NAME)
        own = self._averaged_parameters()
        try:
            with safe_open(file, framework="pt") as tensors:
                found = [tensors.get_tensor(f"{_PREFIX}{name}") for name, _ in own]
                step = int(tensors.metadata()["step"])
        except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
            raise AtomError(
                f"resume_from_checkpoint: {file} holds no averaged weights of this model ({first_line(error)}); give the "
                "ema_decay of the run that wrote the checkpoint (0 if it had none)"
            ) from error
        self.average.shadow_params = [
            value.to(old) for value, old in zip(found, self.average.shadow_params, strict=True)
        ]
        self.average.optimization_step = step


class _Steps(TrainerCallback):
    """Updates the moving average after each step, and lets every process draw noise of its own."""

    def __init__(self, trainer: DenoisingTrainer):
        self.trainer = trainer

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self.trainer.average is not None:
            self.trainer.average.to(device=args.device)
        if args.world_size > 1:  # Trainer seeds all alike; a resumed run then restores the state of each
            torch.manual_seed(args.seed + args.process_index)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self.trainer.average is not None:
            self.trainer.average.step([value for _, value in self.trainer._averaged_parameters()])
