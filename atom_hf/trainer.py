"""Trainer with the atom loss: `AtomTrainerMixin`, `AtomTrainer`."""

import functools
import inspect
import json
import os
from dataclasses import replace
from typing import Any

import torch
from accelerate.utils import is_compiled_module
from torch import Tensor
from transformers import Trainer, TrainerCallback
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR, get_last_checkpoint, has_length
from transformers.utils import logging

from .arguments import check_arguments
from .config import AtomConfig
from .distributed import gather_rows
from .energy import AtomLoss, Atoms, atom_loss
from .errors import AtomError
from .gate import GradientGate
from .modeling import OUTPUT_KEYS, AtomMixin, WidthError, attach_atoms, evaluating, refit_heads
from .pairs import PairCache
from .random_state import keeping_random_state
from .sharding import prepare_precision

logger = logging.get_logger(__name__)

STATE_NAME = "atom_state.json"
LOGGED = (
    *("task_loss", "atom_loss", "atom_energy", "atom_constraint", "atom_importance", "atom_positive_share"),
    *("atom_negative_share", "atom_distance", "atom_radius", "atom_net_charge"),
)


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
            check_arguments(args)
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
            self._atom_sums: Tensor | None = None
            self._atom_count = 0
            self._atom_checked = False
            self._atom_ignores_items: bool | None = None
            self._atom_pairs: PairCache | None = None
            self.add_callback(_AtomCallback(self))

    @property
    def _atom_model(self) -> AtomMixin:
        return self.accelerator.unwrap_model(self.model)

    def train(self, resume_from_checkpoint: str | bool | None = None, *args: Any, **kwargs: Any):
        last = get_last_checkpoint(self.args.output_dir) if resume_from_checkpoint is True else resume_from_checkpoint
        if last:
            self._check_checkpoint(last)
        if not self._atom_on:
            return super().train(resume_from_checkpoint, *args, **kwargs)
        if not self._atom_checked:
            self.check_atoms()
        # Compiled as a whole, a model's gradients at its hidden states would be out of the gate's sight. The plugin is one for
        # all trainers of the process.
        compiler = self.accelerator.state.dynamo_plugin
        before = compiler.use_regional_compilation
        compiler.use_regional_compilation = True
        try:
            return super().train(resume_from_checkpoint, *args, **kwargs)
        finally:
            compiler.use_regional_compilation = before

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
            inputs = self._atom_inputs(loader.collate_fn([loader.dataset[0], loader.dataset[1]]))
            try:
                outputs = self.model_wrapped(**inputs, return_atoms=True)
            except WidthError as error:
                # Some configurations name another width than their layers have. Heads that nothing holds yet can be made anew.
                if self._atom_model._atom_width_given or self.optimizer is not None:
                    raise
                refit_heads(self._atom_model, error.width)
                outputs = self.model_wrapped(**inputs, return_atoms=True)
        self._atom_checked = True
        if torch.isnan(outputs["atom_importance"]).all():
            raise AtomError(
                f"atom_tokens={self._atom_model.atom_config.tokens!r} leaves no token in the first two samples; "
                "use atom_tokens='all'"
            )

    def _atom_begin(self) -> None:
        """A run begins: the first, the next of a search, or anew in the middle of a step, where memory was too small."""
        check_arguments(self.args)
        batches = (self.args.atom_pair_batch or 0) // (self.args.per_device_train_batch_size * self.args.world_size)
        self._atom_pairs = PairCache(batches) if batches > 1 else None
        self._atom_sums, self._atom_count = None, 0
        self._atom_model.atom_gate.drop()
        compiled = (module._orig_mod for module in self.model_wrapped.modules() if is_compiled_module(module))
        if self._atom_model.atom_gate.ratio and any(isinstance(module, AtomMixin) for module in compiled):
            raise AtomError(
                "torch_compile: this model has no repeated blocks, and compiled as a whole it hides its gradients from the "
                "relative weight; use atom_weighting 'absolute', or leave torch_compile out"
            )
        if self._atom_pairs is None and self._train_batch_size * self.args.world_size < 2:
            raise AtomError(
                "auto_find_batch_size went down to a batch of 1, and the atom loss compares the samples of a batch: "
                "give per_device_train_batch_size 1 with atom_pair_batch and gradient_accumulation_steps"
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

    def get_batch_samples(self, *args: Any, **kwargs: Any):
        batches, num_items_in_batch = super().get_batch_samples(*args, **kwargs)
        if self._atom_on and self._atom_pairs is not None:
            self._atom_pairs.start(batches)
        return batches, num_items_in_batch

    def training_step(self, model, inputs, num_items_in_batch=None):
        if self._atom_on and self._atom_pairs is not None:
            model.train()
            # A schedule-free optimizer has weights of its own to train at.
            if callable(getattr(self.optimizer, "train", None)):
                self.optimizer.train()
            self._atom_pairs.enter(model, self.args.device, functools.partial(self._atom_read, model), self._atom_loss)
        return super().training_step(model, inputs, num_items_in_batch)

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        if not (self._atom_on and model.training):
            return super().compute_loss(
                model, inputs, return_outputs=return_outputs, num_items_in_batch=num_items_in_batch
            )
        share = self._atom_share_of_items(inputs, num_items_in_batch)
        loss, outputs = super().compute_loss(model, inputs, return_outputs=True, num_items_in_batch=num_items_in_batch)
        loss = loss if share is None else loss * share
        packed, importance = (outputs[key] for key in OUTPUT_KEYS)
        if self._atom_pairs is not None:
            cached = self._atom_pairs.of(packed)
            parts, atoms, term = cached.loss, cached.atoms, cached.term(packed)
        else:
            atoms = Atoms.unpack(gather_rows(packed))
            parts = self._atom_loss(atoms)
            term = parts.loss
        divisor = self._atom_divisor(num_items_in_batch)
        self._atom_record(loss * divisor, parts, atoms, importance)
        loss = loss + self._atom_model.atom_config.weight * term / divisor
        return (loss, outputs) if return_outputs else loss

    def _atom_loss(self, atoms: Atoms) -> AtomLoss:
        config = self._atom_model.atom_config
        return atom_loss(
            atoms,
            softening=config.softening,
            neutrality=config.neutrality,
            charge_floor=config.charge_floor,
            charge_floor_weight=config.charge_floor_weight,
            energy_weight=config.energy_weight,
        )

    @property
    def _atom_models_own_loss(self) -> bool:
        return self.label_smoother is None and self.compute_loss_func is None

    def _atom_read(self, model: Any, inputs: Any) -> Tensor:
        """The packed atoms of a batch, as `compute_loss` will see them again."""
        with self.compute_loss_context_manager():
            return model(**self._atom_inputs(inputs), return_atoms=True)["atoms"].float()

    def _atom_inputs(self, inputs: Any) -> dict[str, Any]:
        """What the model is given of a batch: Trainer keeps the labels from it where the loss is not its own."""
        inputs = self._prepare_inputs(inputs)
        return (
            inputs
            if self._atom_models_own_loss
            else {name: value for name, value in inputs.items() if name != "labels"}
        )

    def _atom_divisor(self, num_items_in_batch: Any) -> int:
        """What the atom term is divided by here so that, after what Trainer does, it is a mean over accumulation steps."""
        scaled = self.loss_is_scaled_for_ga
        if scaled is None:
            scaled = (self.model_accepts_loss_kwargs and num_items_in_batch is not None) or bool(self.compute_loss_func)
        return getattr(self, "current_gradient_accumulation_steps", 1) if scaled else 1

    def _atom_share_of_items(self, inputs: Any, num_items_in_batch: Any) -> Tensor | None:
        """The factor that makes the task loss of a model that ignores `num_items_in_batch` what Trainer takes it for.

        Trainer hands the number of labels of the whole step to every model that takes further arguments, and then counts on
        it that the loss is a sum over that number. BERT, DistilBERT, RoBERTa and GPT-2 classifiers, among others, go on
        to return the mean over their own batch (transformers issue 47688), and the step becomes larger with every
        accumulation step and process. Whether a model does so is tried out, once. None where there is nothing to mend.
        """
        # Another trainer's loss, or one that it says how it is scaled, is its own affair.
        computes = next(base for base in _bases(type(self)) if "compute_loss" in vars(base))
        own_loss = self._atom_models_own_loss and computes is Trainer and self.loss_is_scaled_for_ga is None
        alone = self.args.world_size == 1 and getattr(self, "current_gradient_accumulation_steps", 1) == 1
        if alone or num_items_in_batch is None or not (own_loss and self.model_accepts_loss_kwargs):
            return None
        if self._atom_ignores_items is None:
            self._atom_ignores_items = self._atom_tries_items(inputs, num_items_in_batch)
        if not self._atom_ignores_items:
            return None
        if "shift_labels" in inputs:
            labels = inputs["shift_labels"]
        else:
            labels = inputs["labels"][..., 1:] if self._loss_shifts_labels else inputs["labels"]
        return labels.ne(-100).sum() / num_items_in_batch

    def _atom_tries_items(self, inputs: Any, num_items_in_batch: Any) -> bool:
        model = self._atom_model
        losses = []
        with evaluating(model), keeping_random_state(self.args.device), torch.no_grad():
            for factor in (1, 2):
                outputs = model(**inputs, num_items_in_batch=factor * num_items_in_batch)
                losses.append(abs(float(outputs["loss"] if isinstance(outputs, dict) else outputs[0])))
        return losses[1] > 0.75 * losses[0]  # a sum over the number would be half as large

    @torch.no_grad()
    def _atom_record(self, task: Tensor, parts: AtomLoss, atoms: Atoms, importance: Tensor) -> None:
        # Sums and counts rather than indexing by masks, which would make an accelerator wait at every step.
        charge = importance.nan_to_num(0.0)
        tokens = (importance.numel() - importance.isnan().sum()).clamp(min=1)
        exists = atoms.exists
        count = exists.sum().clamp(min=1)
        values = (
            task,
            *(parts.loss, parts.energy, parts.constraint),
            *((value / tokens) for value in (charge.abs().sum(), (charge > 0).sum(), (charge < 0).sum())),
            *(parts.distance, (atoms.radius * exists).sum() / count, (atoms.positive - atoms.negative).sum() / count),
        )
        values = torch.stack([value.detach().float() for value in values])
        self._atom_sums = values if self._atom_sums is None else self._atom_sums + values
        self._atom_count += 1

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        if self._atom_on and self._atom_count and "loss" in logs:
            means = self.accelerator.reduce(self._atom_sums / self._atom_count, "mean")
            logs.update(zip(LOGGED, means.tolist(), strict=True))
            logs["atom_gate"] = self._atom_model.atom_gate.scale
            self._atom_sums, self._atom_count = None, 0
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
        self.trainer._atom_begin()
        if not self.trainer._atom_checked:
            self.trainer.check_atoms()

    def on_step_begin(self, args, state, control, **kwargs):
        model = self.trainer._atom_model
        model.atom_gate.strength = model.atom_config.strength(state.global_step / max(1, state.max_steps))

    def on_step_end(self, args, state, control, **kwargs):
        gate = self.trainer._atom_model.atom_gate
        gate.update(lambda sums: self.trainer.accelerator.reduce(sums, "sum"))
        if state.global_step == 1 and gate.ratio and gate.state()["task_norm"] == 0:
            logger.warning(
                f"atom_layer {self.trainer._atom_model.atom_config.layer}: the task's loss does not depend on this layer, and "
                "the relative weight passes nothing of the atom loss to the model; choose another layer"
            )


def _bases(cls: type) -> tuple[type, ...]:
    """What the mixin was added to."""
    return cls.__mro__[cls.__mro__.index(AtomTrainerMixin) + 1 :]


def _init_names(cls: type) -> list[str]:
    """The names of the positional arguments of the Trainer that `cls` is made of."""
    for base in _bases(cls):
        parameters = inspect.signature(base.__init__).parameters if "__init__" in vars(base) else {}
        if "args" in parameters and parameters["args"].kind is inspect.Parameter.POSITIONAL_OR_KEYWORD:
            return list(parameters)[1:]
    return ["model", "args"]


def _prepare(model: Any, config: AtomConfig, processing_class: Any) -> Any:
    if not isinstance(model, AtomMixin):
        return attach_atoms(model, config, processing_class)
    own = model.atom_config
    for name in ("layer", "tokens", "side"):
        asked, kept = getattr(config, name), getattr(own, name)
        if asked != kept:
            logger.warning_once(
                f"atom_{name}: the model's heads were made for {kept!r}, and go on with it, not {asked!r}"
            )
    model.atom_heads.requires_grad_(True)  # heads are never frozen, even where the model is
    kept = (
        "layer",
        "tokens",
        "side",
        "importance_std",
        "position_init",
        "hidden_size",
        "special_token_ids",
        "base_model_class",
    )
    model.atom_config = replace(config, **{name: getattr(own, name) for name in kept})
    model.atom_gate = GradientGate.of(config)
    return model
