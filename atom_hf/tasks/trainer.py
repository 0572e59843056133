"""`TaskTrainer`: Trainer for a task."""

import os
from collections.abc import Mapping
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import Trainer
from transformers.trainer import TRAINING_ARGS_NAME
from transformers.trainer_pt_utils import LengthGroupedSampler
from transformers.utils import SAFE_WEIGHTS_NAME

from ..errors import AtomError, first_line
from ..training.players import PlayersMixin
from ..utils.files import write_atomically
from .arguments import TaskArguments
from .model import TaskModel, TaskOutput
from .saved_boxes import TASK_NAME

_NOT_FOR_TASKS = {
    "label_smoothing_factor": "the divergences of a task have none",
    "torch_compile": "a task is not compiled as a whole; compile a module and bind it",
    "gradient_checkpointing": "a task does not recompute its boxes",
    "activation_checkpointing": "a task does not recompute its boxes",
    "neftune_noise_alpha": "a task has no embeddings of its own",
    "use_liger_kernel": "a task is no model of Transformers",
    "push_to_hub": "what a task learns is saved to its folder, and not pushed",
}


class TaskTrainer(PlayersMixin, Trainer):
    """Trains a `TaskModel`: every learner is a player with parameter groups of its own.

    The value of each atom is logged as `loss_<atom>`, the mean over the steps since the last log, over accumulation and over
    processes; an evaluation gives `eval_loss_<atom>`. Checkpoints hold all learners, with their optimizer states, and not the
    fixed boxes. Everything else is Trainer's.

    Raises:
        AtomError: a model that is no TaskModel, or players that are no learners of its task.
    """

    def __init__(self, model: TaskModel, args: TaskArguments | None = None, **named: Any):
        if not isinstance(model, TaskModel):
            raise AtomError(f"model: TaskTrainer trains a TaskModel, got a {type(model).__name__}")
        args = args or TaskArguments("tmp_trainer")
        if not isinstance(args, TaskArguments):
            raise AtomError(f"args: TaskTrainer takes TaskArguments, got {type(args).__name__}")
        unknown = [name for name in args.players or {} if name not in model.spec.learners]
        if unknown:
            raise AtomError(
                f"players: {unknown[0]} is no learner of the task; there are {', '.join(model.spec.learners)}"
            )
        for name, why in _NOT_FOR_TASKS.items():
            if getattr(args, name, None):
                raise AtomError(f"{name}: {why}; leave it out")
        self._task = model
        self._sums: dict[str, Tensor] = {}
        self._count = 0
        super().__init__(model=model, args=args, **named)
        if self.is_fsdp_enabled or self.is_deepspeed_enabled:
            raise AtomError("tasks train in one process, or in several by DDP; leave out FSDP and DeepSpeed")

    def players(self) -> dict[str, dict[str, torch.nn.Parameter]]:
        return self._task.learner_parameters()

    def _get_train_sampler(self, train_dataset: Any = None) -> Any:
        rows = self.train_dataset if train_dataset is None else train_dataset
        lengths = getattr(rows, "lengths", None)
        if self.args.train_sampling_strategy != "group_by_length" or lengths is None:
            return super()._get_train_sampler(train_dataset)
        # Transformers looks for them in a column "input_ids", and a task's columns have names of their own.
        batch = self.args.train_batch_size * self.args.gradient_accumulation_steps
        return LengthGroupedSampler(batch, lengths=lengths)

    def compute_loss(self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None):
        outputs: TaskOutput = model(**inputs)
        if model.training:
            for name, value in outputs.atoms.items():
                self._sums[name] = self._sums.get(name, 0) + value.float()
            self._count += 1
        return (outputs.loss, outputs) if return_outputs else outputs.loss

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        if "loss" in logs and self._count:
            means = torch.stack([value / self._count for value in self._sums.values()])
            means = self.accelerator.reduce(means, "mean").tolist()
            logs.update({f"loss_{name}": mean for name, mean in zip(self._sums, means, strict=True)})
            self._sums, self._count = {}, 0
        super().log(logs, *args, **kwargs)

    def prediction_step(self, model: Any, inputs: Any, prediction_loss_only: bool, ignore_keys: Any = None):
        inputs = self._prepare_inputs(inputs)
        with torch.no_grad(), self.compute_loss_context_manager():
            loss, outputs = self.compute_loss(model, inputs, return_outputs=True)
        rows = next(len(value) for value in inputs.values() if torch.is_tensor(value) and value.dim())
        for name, value in outputs.atoms.items():
            self._seen[name] = self._seen.get(name, 0) + rows * value.float()
        self._rows += rows
        return loss.detach(), None, None

    def evaluation_loop(self, *args: Any, **kwargs: Any):
        self._seen: dict[str, Tensor] = {}
        self._rows = 0
        output = super().evaluation_loop(*args, **kwargs)
        prefix = kwargs.get("metric_key_prefix", "eval")
        if self._rows:
            first = next(iter(self._seen.values()))
            sums = torch.stack([*self._seen.values(), torch.as_tensor(float(self._rows), device=first.device)])
            *sums, rows = self.accelerator.reduce(sums, "sum").tolist()
            means = {f"{prefix}_loss_{name}": total / rows for name, total in zip(self._seen, sums, strict=True)}
            output.metrics.update(means)
        return output

    def _save(self, output_dir: str | None = None, state_dict: Mapping[str, Tensor] | None = None) -> None:
        folder = output_dir if output_dir is not None else self.args.output_dir
        if not self.args.should_save:
            return
        os.makedirs(folder, exist_ok=True)
        state = {name: value.cpu() for name, value in self._task.learned_state().items()}
        path = os.path.join(folder, SAFE_WEIGHTS_NAME)
        write_atomically(path, lambda part: save_file(state, part, metadata={"format": "pt"}))
        write_atomically(os.path.join(folder, TASK_NAME), str(self._task.spec))
        torch.save(self.args, os.path.join(folder, TRAINING_ARGS_NAME))

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        path = os.path.join(resume_from_checkpoint, SAFE_WEIGHTS_NAME)
        try:
            state = load_file(path)
        except (OSError, SafetensorError) as error:
            raise AtomError(f"resume_from_checkpoint: {path} cannot be read: {first_line(error)}") from error
        self._task.load_learned_state(state, f"resume_from_checkpoint: {resume_from_checkpoint}")

    def _load_best_model(self) -> None:
        self._load_from_checkpoint(self.state.best_model_checkpoint)
