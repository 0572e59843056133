"""Trainer with the atom loss: `AtomTrainerMixin`, `AtomTrainer`."""

import functools
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from transformers import Trainer
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR, get_last_checkpoint, has_length

from ..atoms.config import CONFIG_NAME as ATOM_CONFIG_NAME
from ..atoms.config import MAX_BYTES
from ..errors import AtomError, first_line
from ..modeling.attach import refit_heads, remove_explainer
from ..modeling.forward import WidthError
from ..modeling.heads_file import HEADS_NAME, read_heads
from ..modeling.mixin import AtomMixin
from ..modeling.model_folder import check_folder
from ..modeling.sharding import prepare_precision
from ..modeling.unwrap import adapter_bases, inner_model, is_sentence_transformer
from ..utils.files import read_json, write_atomically
from ..utils.terminal import get_logger
from .arguments import check_arguments, check_class
from .callback import AtomCallback
from .checkpoint_parts import check_parts
from .explainer import ExplainerMixin
from .first_samples import pairs_to_try
from .loss import LossMixin, wrap_own_methods
from .loss_log import LossLog
from .loss_scale import TaskLossScale, trying_out
from .model_card import CardMixin
from .model_init import ModelInitMixin, Unwrapped
from .model_setup import check_compiled, check_wrapped, init_class, parameter_names, prepare_model, reclaim_heads
from .pair_cache import PairCache
from .push import PushMixin, check_whole
from .random_state import keeping_generators

logger = get_logger(__name__)

STATE_NAME = "atom_state.json"


class AtomTrainerMixin(ModelInitMixin, CardMixin, PushMixin, ExplainerMixin, LossMixin):
    """Adds the atom loss to any Trainer: `class MyTrainer(AtomTrainerMixin, Seq2SeqTrainer): ...`

    With `args.atom` off, or with arguments that have no such field, nothing changes: the run is the Trainer's own, bit for
    bit. With it on, atoms are attached to the model (a model that has them keeps its layer, tokens and charges, and the
    arguments say how it trains), and each training loss is `task + atom_weight * atom loss`. `eval_loss` is that of the task
    alone. The saved model has a model card of the run, which includes `card_facts`.

    The arguments derive from `AtomArguments` and the Trainer's own. Samples are the rows of the forward passes that the
    Trainer's `compute_loss` runs with a gradient; for a `SentenceTransformer` only those of the first column (the anchors),
    because positive pairs must stay close.
    """

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        before = cls.__mro__[: cls.__mro__.index(AtomTrainerMixin)]
        if Trainer in before:
            raise AtomError(f"class {cls.__name__}: AtomTrainerMixin must come before the trainer among the bases")
        wrap_own_methods(cls, before)

    def __init__(self, *positional: Any, **named: Any):
        bases = type(self).__mro__[type(self).__mro__.index(LossMixin) + 1 :]  # the trainer that the mixin was added to
        places = parameter_names(init_class(bases).__init__)
        if len(positional) > len(places) or (twice := set(places[: len(positional)]) & set(named)):
            what = (
                f"got {', '.join(sorted(twice))} twice" if len(positional) <= len(places) else "got too many arguments"
            )
            raise TypeError(f"{type(self).__name__}.__init__() {what}")
        named.update(zip(places, positional, strict=False))
        args = named.get("args")
        self._atom_on = bool(getattr(args, "atom", False))
        self._atom_found = Unwrapped()
        kept = None
        if self._atom_on:
            check_class(args, init_class(bases))
            check_arguments(args)
            tokenizer, make = named.get("processing_class"), named.get("model_init")
            if make is not None:
                # Between runs `self.args` may be changed, which is not there yet when the first model is made.
                named["model_init"] = self._atom_making(
                    make, lambda: getattr(self, "args", args).atom_config(), tokenizer
                )
            else:
                model = named["model"] = prepare_model(named.get("model"), args.atom_config(), tokenizer, args.seed)
                if not isinstance(model, str):
                    kept = {name: value.clone() for name, value in inner_model(model).atom_heads.state_dict().items()}
        super().__init__(**named)
        if self._atom_on:
            if isinstance(inner_model(self.model), AtomMixin):
                reclaim_heads(self.model, kept)
            else:  # a model that the trainer loaded itself
                prepare_model(self.model, args.atom_config(), self.processing_class, args.seed)
            check_wrapped(self)
            self._atom_one_column = is_sentence_transformer(self.model)
            self._atom_log = LossLog()
            self._atom_checked = False
            self._atom_loss_scale = TaskLossScale(self, next(base for base in bases if "compute_loss" in vars(base)))
            self._atom_pairs: PairCache | None = None
            self.add_callback(AtomCallback(self))

    def train(self, resume_from_checkpoint: str | bool | None = None, *args: Any, **kwargs: Any):
        last = get_last_checkpoint(self.args.output_dir) if resume_from_checkpoint is True else resume_from_checkpoint
        if last:
            self._check_checkpoint(last)
        if not self._atom_on:
            return super().train(resume_from_checkpoint, *args, **kwargs)
        if self.model_init is None:  # else the model is made again, and checked then
            self._atom_before_training()
        # Compiled as a whole, a model would hide the gradients at its hidden states from the balancer. All trainers of the
        # process share this plugin.
        compiler = self.accelerator.state.dynamo_plugin
        before = compiler.use_regional_compilation
        compiler.use_regional_compilation = True
        try:
            return super().train(resume_from_checkpoint, *args, **kwargs)
        finally:
            compiler.use_regional_compilation = before

    def _atom_before_training(self) -> None:
        output_dir = Path(self._get_output_dir(getattr(self, "_trial", None)))
        bases = adapter_bases(self._atom_unwrapped)
        for folder in (output_dir, *output_dir.glob(f"{PREFIX_CHECKPOINT_DIR}-*")):
            check_folder(folder, bases, "output_dir")  # before hours of work that could not be saved
        remove_explainer(self._atom_model)
        # A model cannot run before it is sharded: `on_train_begin` checks it.
        if not (self._atom_checked or self.is_fsdp_enabled or self.is_deepspeed_enabled):
            self.check_atoms()

    def check_atoms(self) -> None:
        """Run a forward pass of two samples, so that an unusable model or data set is rejected before training.

        If neither has a token, as blank texts have none, other pairs are tried.

        Called by `train`. Raises `AtomError`.
        """
        given = self.train_dataset
        if not has_length(given) or (isinstance(given, dict) and len(given) < 2):
            return  # a stream; its first steps make the same checks
        if type(self)._prepare_inputs is not Trainer._prepare_inputs:
            return  # a trainer that generates its batches from prompts, such as GRPO
        self._atom_check_rows(len(given))
        if (self.is_fsdp_enabled or self.is_deepspeed_enabled) and not self.is_in_train:
            return  # not sharded yet
        loader = self.get_train_dataloader()
        with trying_out(self._atom_model, self.args.device), keeping_generators(loader.collate_fn):
            first, *others = pairs_to_try(len(loader.dataset))
            inputs = loader.collate_fn([loader.dataset[row] for row in first])
            try:
                packed, importance = self._atom_read(self.model_wrapped, inputs)
            except WidthError as error:
                # Some configurations name another width than their layers have. Heads can be replaced while nothing holds them.
                if self._atom_model._atom_width_given or self.optimizer is not None:
                    raise
                refit_heads(self._atom_model, error.width)
                packed, importance = self._atom_read(self.model_wrapped, inputs)
            found = self._atom_check(packed, importance)
            while not found and others:
                inputs = loader.collate_fn([loader.dataset[row] for row in others.pop(0)])
                found = self._atom_check(*self._atom_read(self.model_wrapped, inputs))
        self._atom_checked = True
        if not found:
            raise self._atom_no_token("any of the samples that were tried")

    def _atom_begin(self) -> None:
        """Set up a run: the first, the next of a search, or a restart in the middle of a step (auto_find_batch_size)."""
        check_arguments(self.args)
        batches = (self.args.atom_pair_batch or 0) // (self.args.per_device_train_batch_size * self.args.world_size)
        self._atom_pairs = PairCache(batches) if batches > 1 else None
        self._atom_log = LossLog()
        self._atom_model.atom_balancer.drop()
        check_compiled(self.model_wrapped, "torch_compile: this model has no repeated blocks")
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
            # Separate groups with their own learning rate, after the model's: Trainer reports that of the first.
            learning_rate = self._atom_model.atom_config.head_learning_rate
            for group in list(optimizer.param_groups):
                mine = [p for p in group["params"] if p in heads]
                group["params"] = [p for p in group["params"] if p not in heads]
                if mine:
                    optimizer.add_param_group({**group, "params": mine, "lr": learning_rate})
        return optimizer

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        if self._atom_on and self._atom_log and "loss" in logs:
            logs.update(self._atom_log.take(lambda means: self.accelerator.reduce(means, "mean")))
            logs["atom_gradient_scale"] = self._atom_model.atom_balancer.scale
        super().log(logs, *args, **kwargs)

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        if self._atom_on:
            check_folder(output_dir or self.args.output_dir, adapter_bases(self._atom_unwrapped), "output_dir")
        is_checkpoint = os.path.basename(output_dir or "").startswith(PREFIX_CHECKPOINT_DIR)
        if not (self._atom_on and _internal_call and is_checkpoint):
            return super().save_model(output_dir, _internal_call)
        if self._atom_model is self.accelerator.unwrap_model(self.model):
            with self._atom_model._atom_checkpoint():
                super().save_model(output_dir, _internal_call)
        else:
            super().save_model(output_dir, _internal_call)
        if self.args.should_save:
            # When FSDP saves shards, Trainer has not made the folder yet.
            state = {**self._atom_model.atom_balancer.state(), "save_only_model": bool(self.args.save_only_model)}
            write_atomically(os.path.join(output_dir, STATE_NAME), json.dumps(state))

    def _check_checkpoint(self, resume_from_checkpoint: str) -> None:
        with_atoms = os.path.isfile(os.path.join(resume_from_checkpoint, STATE_NAME))
        if with_atoms and not self._atom_on:
            raise AtomError(
                f"resume_from_checkpoint: {resume_from_checkpoint} was written by a run with --atom; resume with --atom"
            )
        if self._atom_on and not with_atoms and os.path.isfile(os.path.join(resume_from_checkpoint, ATOM_CONFIG_NAME)):
            raise AtomError(
                f"resume_from_checkpoint: {resume_from_checkpoint} holds a finished model, without the state of a run; give a "
                "checkpoint-* of its run, or start a new run from this model"
            )
        if self._atom_on and not with_atoms:
            raise AtomError(
                f"resume_from_checkpoint: {resume_from_checkpoint} was not written by a run with --atom, "
                "and resuming from it would start new heads; resume without --atom, or start a new run from it"
            )
        if self._atom_on:
            state = read_json(os.path.join(resume_from_checkpoint, STATE_NAME), MAX_BYTES, "atom state")
            check_whole(resume_from_checkpoint, state.get("save_only_model"))
            check_parts(resume_from_checkpoint)

    def _load_from_checkpoint(self, checkpoint: str, *args: Any, **kwargs: Any) -> None:
        load = functools.partial(super()._load_from_checkpoint, checkpoint, *args, **kwargs)
        self._atom_load_beside(checkpoint, load)

    def _load_best_model(self) -> None:
        self._atom_load_beside(self.state.best_model_checkpoint, super()._load_best_model)

    def _atom_load_beside(self, checkpoint: str, load: Callable[[], None]) -> None:
        """Load a checkpoint without the heads, and then the heads, if these are a file of their own there, as with an adapter
        or a SentenceTransformer; else load it as it is."""
        if not self._atom_on or not os.path.isfile(os.path.join(checkpoint, HEADS_NAME)):
            return load()
        model = self._atom_model
        heads = model._modules.pop("atom_heads")
        try:
            load()
        finally:
            model.atom_heads = heads
        expected = {name: tuple(value.shape) for name, value in heads.state_dict().items()}
        heads.load_state_dict(read_heads(checkpoint, expected, type(model).__name__)[0])

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        super()._load_optimizer_and_scheduler(checkpoint)
        if self._atom_on and checkpoint is not None:
            file = os.path.join(checkpoint, STATE_NAME)
            state = read_json(file, MAX_BYTES, "atom state")
            try:
                self._atom_model.atom_balancer.load(state)
            except (KeyError, TypeError, ValueError, OverflowError) as error:
                raise AtomError(f"resume_from_checkpoint: {file} is not an atom state: {first_line(error)}") from error


class AtomTrainer(AtomTrainerMixin, Trainer):
    """`transformers.Trainer` with the atom loss. Everything else is Trainer's."""
