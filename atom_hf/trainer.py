"""Trainer with the atom loss: `AtomTrainingArguments`, `AtomTrainerMixin`, `AtomTrainer`."""

import functools
import inspect
import json
import os
import random
from contextlib import contextmanager
from dataclasses import dataclass, field, fields, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import Trainer, TrainerCallback, TrainingArguments
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR, HubStrategy, get_last_checkpoint, has_length
from transformers.utils import logging

from .config import AtomConfig
from .distributed import gather_rows
from .energy import Atoms, atom_loss
from .errors import AtomError
from .gate import GradientGate
from .modeling import OUTPUT_KEYS, AtomMixin, attach_atoms, evaluating
from .sharding import prepare_precision

logger = logging.get_logger(__name__)

STATE_NAME = "atom_state.json"
PREFIX = "atom_"


def _from_config(name: str) -> Any:
    """The field of `AtomConfig` as an argument: same default, same help text."""
    source = next(f for f in fields(AtomConfig) if f.name == name)
    return field(default=source.default, metadata=dict(source.metadata))


@dataclass
class AtomTrainingArguments(TrainingArguments):
    """`TrainingArguments`, and the fields of `AtomConfig` as `atom_` + name. With `atom=False` none of them does anything."""

    atom: bool = field(
        default=False,
        metadata={
            "help": "Train with the atom loss: the one difference between a plain fine-tune and an atom fine-tune."
        },
    )
    atom_weight: float = _from_config("weight")
    atom_weighting: str = _from_config("weighting")
    atom_layer: int = _from_config("layer")
    atom_tokens: str = _from_config("tokens")
    atom_token_reduction: str = _from_config("token_reduction")
    atom_softening: float = _from_config("softening")
    atom_energy_weight: float = _from_config("energy_weight")
    atom_neutrality: float = _from_config("neutrality")
    atom_charge_floor: float = _from_config("charge_floor")
    atom_charge_floor_weight: float = _from_config("charge_floor_weight")
    atom_warmup_ratio: float = _from_config("warmup_ratio")
    atom_schedule: str = _from_config("schedule")
    atom_head_learning_rate: float = _from_config("head_learning_rate")
    atom_importance_std: float = _from_config("importance_std")
    atom_position_init: str = _from_config("position_init")

    def atom_config(self) -> AtomConfig:
        """The `AtomConfig` that these arguments describe. Raises `AtomError`, naming the argument."""
        values = {f.name: getattr(self, PREFIX + f.name) for f in fields(AtomConfig) if hasattr(self, PREFIX + f.name)}
        try:
            return AtomConfig(**values)
        except AtomError as error:
            raise AtomError(PREFIX + str(error)) from error


class AtomTrainerMixin:
    """Adds the atom loss to any Trainer: `class MyTrainer(AtomTrainerMixin, Seq2SeqTrainer): ...`

    With `args.atom` off, or with arguments that have no such field, nothing is changed: the run is the Trainer's own, bit for
    bit. With it on, atoms are attached to the model (unless it has them already: then its own layer, tokens and charges
    stay, and the arguments say how it trains), and each training loss is `task + atom_weight * atom loss`. `eval_loss` is
    the task's alone.
    """

    def __init__(self, *positional: Any, **named: Any):
        named.update(zip(_init_names(type(self)), positional, strict=False))
        args = named.get("args")
        self._atom_on = bool(getattr(args, "atom", False))
        if self._atom_on:
            _check_arguments(args)
            tokenizer, make = named.get("processing_class"), named.get("model_init")
            if make is not None:
                # A search changes `self.args` between its trials.
                @functools.wraps(make)
                def make_with_atoms(*trial: Any) -> Any:
                    return _prepare(make(*trial), getattr(self, "args", args).atom_config(), tokenizer)

                named["model_init"] = make_with_atoms
            else:
                named["model"] = _prepare(named.get("model"), args.atom_config(), tokenizer)
        super().__init__(**named)
        if self._atom_on:
            self._atom_sums: dict[str, Tensor] = {}
            self._atom_count = 0
            self._atom_checked = False
            self.add_callback(_AtomCallback(self))

    @property
    def _atom_model(self) -> AtomMixin:
        return self.accelerator.unwrap_model(self.model)

    def train(self, resume_from_checkpoint: str | bool | None = None, *args: Any, **kwargs: Any):
        last = get_last_checkpoint(self.args.output_dir) if resume_from_checkpoint is True else resume_from_checkpoint
        if last:
            self._check_checkpoint(last)
        if self._atom_on and not self._atom_checked:
            self.check_atoms()
        return super().train(resume_from_checkpoint, *args, **kwargs)

    def check_atoms(self) -> None:
        """One forward pass of two samples, so that a model or data that cannot be used is refused before training.

        `train` begins with it. Raises `AtomError`.
        """
        if not has_length(self.train_dataset) or len(self.train_dataset) < 2:
            return  # data can be read but once; the first step says the same
        if (self.is_fsdp_enabled or self.is_deepspeed_enabled) and not self.is_in_train:
            return  # a model that is to be sharded runs only once it is: `train` comes back then
        loader = self.get_train_dataloader()
        with evaluating(self.model), keeping_random_state(self.args.device), torch.no_grad():
            inputs = self._prepare_inputs(loader.collate_fn([loader.dataset[0], loader.dataset[1]]))
            outputs = self.model_wrapped(**inputs, return_atoms=True)
        self._atom_checked = True
        if torch.isnan(outputs["atom_importance"]).all():
            raise AtomError(
                f"atom_tokens={self._atom_model.atom_config.tokens!r} leaves no token in the first two samples; "
                "use atom_tokens='all'"
            )

    def _wrap_model(self, model: Any, *args: Any, **kwargs: Any):
        if self._atom_on:
            prepare_precision(self.accelerator, self._atom_model)
        return super()._wrap_model(model, *args, **kwargs)

    def create_optimizer(self, model: Any = None):
        fresh = self.optimizer is None
        optimizer = super().create_optimizer(model) if model is not None else super().create_optimizer()
        if not self._atom_on:
            return optimizer
        heads = {
            p: n for n, p in (model or self.model).named_parameters() if ".atom_heads." in f".{n}" and p.requires_grad
        }
        held = {p for group in optimizer.param_groups for p in group["params"]}
        if not set(heads) <= held:
            raise AtomError(
                "optimizers: the optimizer that was given does not hold the parameters of the atom heads; "
                "make it after attach_atoms(model), or leave it to the trainer"
            )
        if fresh:
            # Groups of their own, at their own learning rate, behind the model's: the first is what Trainer reports.
            learning_rate = self._atom_model.atom_config.head_learning_rate
            for group in list(optimizer.param_groups):
                mine = [p for p in group["params"] if p in heads]
                group["params"] = [p for p in group["params"] if p not in heads]
                if mine:
                    optimizer.add_param_group({**group, "params": mine, "lr": learning_rate})
        return optimizer

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        if not (self._atom_on and model.training):
            return super().compute_loss(
                model, inputs, return_outputs=return_outputs, num_items_in_batch=num_items_in_batch
            )
        loss, outputs = super().compute_loss(model, inputs, return_outputs=True, num_items_in_batch=num_items_in_batch)
        packed, importance = (outputs[key] for key in OUTPUT_KEYS)
        config = self._atom_model.atom_config
        atoms = Atoms.unpack(gather_rows(packed))
        parts = atom_loss(
            atoms,
            softening=config.softening,
            neutrality=config.neutrality,
            charge_floor=config.charge_floor,
            charge_floor_weight=config.charge_floor_weight,
            energy_weight=config.energy_weight,
        )
        divisor = self._atom_divisor(num_items_in_batch)
        self._atom_record(loss * divisor, parts, atoms, importance)
        loss = loss + config.weight * parts.loss / divisor
        return (loss, outputs) if return_outputs else loss

    def _atom_divisor(self, num_items_in_batch: Any) -> int:
        """What the atom term is divided by here so that, after what Trainer does, it is a mean over accumulation steps."""
        scaled = self.loss_is_scaled_for_ga
        if scaled is None:
            scaled = (self.model_accepts_loss_kwargs and num_items_in_batch is not None) or bool(self.compute_loss_func)
        return getattr(self, "current_gradient_accumulation_steps", 1) if scaled else 1

    @torch.no_grad()
    def _atom_record(self, task: Tensor, parts: Any, atoms: Atoms, importance: Tensor) -> None:
        # Sums and counts rather than indexing by masks, which would make an accelerator wait at every step.
        tokens = (~importance.isnan()).sum().clamp(min=1)
        exists = atoms.exists
        count = exists.sum().clamp(min=1)
        values = {
            "task_loss": task,
            "atom_loss": parts.loss,
            "atom_energy": parts.energy,
            "atom_constraint": parts.constraint,
            "atom_importance": importance.abs().nansum() / tokens,
            "atom_positive_share": (importance > 0).sum() / tokens,
            "atom_negative_share": (importance < 0).sum() / tokens,
            "atom_distance": parts.distance,
            "atom_radius": (atoms.radius * exists).sum() / count,
            "atom_net_charge": (atoms.positive - atoms.negative).sum() / count,
        }
        for name, value in values.items():
            self._atom_sums[name] = self._atom_sums.get(name, 0) + value.detach().float()
        self._atom_count += 1

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        if self._atom_on and self._atom_count and "loss" in logs:
            means = torch.stack(list(self._atom_sums.values())) / self._atom_count
            logs.update(zip(self._atom_sums, self.accelerator.reduce(means, "mean").tolist(), strict=True))
            logs["atom_gate"] = self._atom_model.atom_gate.scale
            self._atom_sums, self._atom_count = {}, 0
        super().log(logs, *args, **kwargs)

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        is_checkpoint = os.path.basename(output_dir or "").startswith(PREFIX_CHECKPOINT_DIR)
        if not (self._atom_on and _internal_call and is_checkpoint):
            return super().save_model(output_dir, _internal_call)
        with self._atom_model._atom_checkpoint():
            super().save_model(output_dir, _internal_call)
        if self.args.should_save:
            os.makedirs(output_dir, exist_ok=True)  # where FSDP saves shards, Trainer has not made it yet
            with open(os.path.join(output_dir, STATE_NAME), "w", encoding="utf-8") as file:
                json.dump(self._atom_model.atom_gate.state(), file)

    def _check_checkpoint(self, resume_from_checkpoint: str) -> None:
        with_atoms = os.path.isfile(os.path.join(resume_from_checkpoint, STATE_NAME))
        if with_atoms and not self._atom_on:
            raise AtomError(
                f"resume_from_checkpoint: {resume_from_checkpoint} was written by a run with --atom; resume with --atom"
            )
        if self._atom_on and not with_atoms:
            raise AtomError(
                f"resume_from_checkpoint: {resume_from_checkpoint} was not written by a run with --atom, "
                "and resuming from it would start new heads; resume without --atom, or start a new run from it"
            )

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        super()._load_optimizer_and_scheduler(checkpoint)
        if self._atom_on and checkpoint is not None:
            with open(os.path.join(checkpoint, STATE_NAME), encoding="utf-8") as file:
                self._atom_model.atom_gate.load(json.load(file))


class AtomTrainer(AtomTrainerMixin, Trainer):
    """`transformers.Trainer` with the atom loss. Everything else is Trainer."""


class _AtomCallback(TrainerCallback):
    """Opens the gradient gate by the schedule, and moves it on after each optimizer step."""

    def __init__(self, trainer: AtomTrainerMixin):
        self.trainer = trainer

    def on_train_begin(self, args, state, control, **kwargs):
        if not self.trainer._atom_checked:
            self.trainer.check_atoms()

    def on_step_begin(self, args, state, control, **kwargs):
        model = self.trainer._atom_model
        model.atom_gate.strength = model.atom_config.strength(state.global_step / max(1, state.max_steps))

    def on_step_end(self, args, state, control, **kwargs):
        self.trainer._atom_model.atom_gate.update(lambda sums: self.trainer.accelerator.reduce(sums, "sum"))


def _init_names(cls: type) -> list[str]:
    """The names of the positional arguments of the Trainer that `cls` is made of."""
    for base in cls.__mro__[cls.__mro__.index(AtomTrainerMixin) + 1 :]:
        parameters = inspect.signature(base.__init__).parameters if "__init__" in vars(base) else {}
        if "args" in parameters and parameters["args"].kind is inspect.Parameter.POSITIONAL_OR_KEYWORD:
            return list(parameters)[1:]
    return ["model", "args"]


@contextmanager
def keeping_random_state(device: torch.device):
    """What runs within it leaves no trace in any generator that augmentation or dropout draws from."""
    python, numpy = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)


def _prepare(model: Any, config: AtomConfig, processing_class: Any) -> Any:
    if not isinstance(model, AtomMixin):
        return attach_atoms(model, config, processing_class)
    own = model.atom_config
    for name in ("layer", "tokens"):
        asked, kept = getattr(config, name), getattr(own, name)
        if asked != kept:
            logger.warning_once(
                f"atom_{name}: the model's heads were made for {kept!r}, and go on with it, not {asked!r}"
            )
    model.atom_heads.requires_grad_(True)  # heads are never frozen, even where the model is
    kept = (
        "layer",
        "tokens",
        "importance_std",
        "position_init",
        "hidden_size",
        "special_token_ids",
        "base_model_class",
    )
    model.atom_config = replace(config, **{name: getattr(own, name) for name in kept})
    model.atom_gate = GradientGate.of(config)
    return model


def _check_arguments(args: Any) -> None:
    if args.n_gpu > 1:
        raise AtomError(
            f"{args.n_gpu} GPUs in one process (DataParallel) are not supported with atom; "
            "start one process for each: accelerate launch -m atom_hf train ..."
        )
    if args.per_device_train_batch_size * args.world_size < 2:
        raise AtomError(
            "per_device_train_batch_size is 1 on one process: the atom loss compares the samples of a batch and needs at "
            "least 2; gradient accumulation does not help"
        )
    if args.push_to_hub and args.hub_strategy != HubStrategy.END:
        raise AtomError(
            f"hub_strategy {str(args.hub_strategy.value)!r} would push checkpoints without their heads; use hub_strategy 'end'"
        )
