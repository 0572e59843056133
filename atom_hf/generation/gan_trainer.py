"""`GANTrainer`: Trainer of a GAN's two players."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import Trainer
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_utils import get_last_checkpoint

from ..errors import AtomError, DivergedError
from ..training.arguments import AtomArguments
from ..training.players import PlayerArguments, PlayersMixin
from ..training.trainer import AtomTrainerMixin
from .gan import PLAYERS, GANModel

LOSSES = ("generator_loss", "discriminator_loss", "penalty")


class GANArguments(AtomArguments, PlayerArguments):
    """`PlayerArguments` of the players "generator" and "discriminator", with `AtomArguments`."""


class GANTrainer(AtomTrainerMixin, PlayersMixin, Trainer):
    """Trains a `GANModel`: generator and discriminator are players with parameter groups of their own in one optimizer.

    Both learn in each step, from the same samples, each its own loss (`GANOutput`); `players` may set their learning rates and
    how often each learns. The losses are logged, as means over the steps since the last log. With `atom` the energy works on
    the hidden states of the generator. Checkpoints, accumulation and processes are Trainer's.

    Raises:
        AtomError: a model that is no GANModel, players that it does not have.
    """

    def __init__(self, model: GANModel, args: GANArguments, **named: Any):
        if not isinstance(model, GANModel):
            raise AtomError(f"model: GANTrainer trains a GANModel, got a {type(model).__name__}")
        if not isinstance(args, GANArguments):
            raise AtomError(f"args: GANTrainer takes GANArguments, got {type(args).__name__}")
        if unknown := sorted(set(args.players or {}) - set(PLAYERS)):
            raise AtomError(f"players: {unknown[0]} is no player of a GAN; there are {', '.join(PLAYERS)}")
        self._sums: dict[str, Tensor] = {}
        self._count = 0
        super().__init__(model=model, args=args, **named)
        if self.is_fsdp_enabled or self.is_deepspeed_enabled:
            raise AtomError("a GAN trains in one process, or in several by DDP; leave out FSDP and DeepSpeed")

    def players(self) -> dict[str, dict[str, nn.Parameter]]:
        found: dict[str, dict[str, nn.Parameter]] = {}
        for name, parameter in self.accelerator.unwrap_model(self.model).named_parameters():
            found.setdefault(name.partition(".")[0], {})[name] = parameter
        return found  # the atom heads are the third: what they learn is no part of what is clipped for the generator

    def train(self, *args: Any, **kwargs: Any) -> Any:
        try:
            return super().train(*args, **kwargs)
        except DivergedError as error:
            good = get_last_checkpoint(self.args.output_dir) if Path(self.args.output_dir).is_dir() else None
            good = good if good and Path(good, TRAINER_STATE_NAME).is_file() else None
            where = f"the last checkpoint is {good}" if good else "there is no checkpoint of it"
            raise DivergedError(f"step {self.state.global_step + 1}: {error}; {where}") from error

    def compute_loss(self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None):
        outputs = model(**inputs)
        if model.training:
            for name in LOSSES:
                self._sums[name] = self._sums.get(name, 0) + outputs[name].float()
            self._count += 1
        return (outputs["loss"], outputs) if return_outputs else outputs["loss"]

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        if "loss" in logs and self._count:
            means = torch.stack([self._sums[name] / self._count for name in LOSSES])
            means = self.accelerator.reduce(means, "mean").tolist()
            logs.update(dict(zip(LOSSES, means, strict=True)))
            self._sums, self._count = {}, 0
        super().log(logs, *args, **kwargs)
