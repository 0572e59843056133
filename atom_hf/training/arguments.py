"""`AtomArguments`: the fields of `AtomConfig` for any trainer's arguments, and their checks."""

import inspect
import os
import sys
import typing
from dataclasses import dataclass, field, fields
from typing import Any

from accelerate import DistributedType, PartialState
from transformers import TrainingArguments

from ..atoms.config import AtomConfig
from ..errors import AtomError
from ..utils.bounds import check_bounds
from .bounds import TRAINING_BOUNDS

PREFIX = "atom_"


def _from_config(name: str) -> Any:
    """A field of `AtomConfig` as an argument, with the same default and help text."""
    source = next(f for f in fields(AtomConfig) if f.name == name)
    return field(default=source.default, metadata=dict(source.metadata))


@dataclass
class AtomArguments:
    """The flag `atom`, and the fields of `AtomConfig` as `atom_` + name. With `atom=False` none of them has an effect.

    To use them with another trainer, put them first among the bases of its arguments:

        class MyArguments(AtomArguments, SFTConfig): ...
        class MyTrainer(AtomTrainerMixin, SFTTrainer): ...
    """

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if not inspect.get_annotations(cls):
            # A subclass without fields need not be declared a dataclass: by Python's rules its __init__ would take these
            # arguments alone. (The bases' own repr leaves tokens out.)
            dataclass(repr=False)(cls)

    atom: bool = field(
        default=False,
        metadata={
            "help": "Train with the atom loss. Without it the run is an ordinary fine-tune. (With it, task losses that Trainer "
            "scales wrongly over accumulation steps or processes are scaled correctly.)"
        },
    )
    atom_form: str | None = _from_config("form")
    atom_weight: float | None = _from_config("weight")
    atom_weighting: str | None = _from_config("weighting")
    atom_layer: int = _from_config("layer")
    atom_block: str | None = _from_config("block")
    atom_tokens: str | None = _from_config("tokens")
    atom_distance: str | None = _from_config("distance")
    atom_charges: str | None = _from_config("charges")
    atom_positions: str | None = _from_config("positions")
    atom_side: str = _from_config("side")
    atom_token_reduction: str = _from_config("token_reduction")
    atom_softening: float = _from_config("softening")
    atom_energy_weight: float = _from_config("energy_weight")
    atom_neutrality: float = _from_config("neutrality")
    atom_net_charge: float = _from_config("net_charge")
    atom_charge_floor: float = _from_config("charge_floor")
    atom_charge_floor_weight: float = _from_config("charge_floor_weight")
    atom_warmup_ratio: float = _from_config("warmup_ratio")
    atom_schedule: str = _from_config("schedule")
    atom_head_learning_rate: float = _from_config("head_learning_rate")
    atom_importance_std: float = _from_config("importance_std")
    atom_position_init: str = _from_config("position_init")

    atom_pair_batch: int | None = field(
        default=None,
        metadata={
            "help": "Number of samples that pairs are drawn from, over all processes and accumulation steps: a multiple of "
            "per_device_train_batch_size times the number of processes. Each batch then takes a second forward pass, and "
            "memory grows only by the atoms (gradient caching). Default: the samples of one forward pass on all processes."
        },
    )

    def atom_config(self) -> AtomConfig:
        """The `AtomConfig` of these arguments. Raises `AtomError`, naming the argument."""
        values = {f.name: getattr(self, PREFIX + f.name) for f in fields(AtomConfig) if hasattr(self, PREFIX + f.name)}
        try:
            return AtomConfig(**values)
        except AtomError as error:
            raise AtomError(PREFIX + str(error)) from error


class AtomTrainingArguments(AtomArguments, TrainingArguments):
    """`TrainingArguments` with `AtomArguments`."""


def check_class(args: Any, trainer: type) -> None:
    """Reject arguments of another class than a trainer's own: TRL, for one, would convert them and drop the flag.

    Args:
        args: the arguments given.
        trainer: the trainer's class, whose `__init__` annotates what it takes.
    """
    asked = inspect.signature(trainer.__init__).parameters["args"].annotation
    if isinstance(asked, str):
        names = vars(sys.modules[trainer.__module__])
        asked = [names.get(name.strip()) for name in asked.split("|")]
    else:
        asked = typing.get_args(asked) or [asked]
    kinds = [kind for kind in asked if isinstance(kind, type) and issubclass(kind, TrainingArguments)]
    own = next((kind for kind in kinds if kind is not TrainingArguments), None)
    if own is not None and not isinstance(args, own):
        raise AtomError(
            f"args: {trainer.__name__} takes {own.__name__}, got {type(args).__name__}; "
            f"give it a class Args(AtomArguments, {own.__name__})"
        )


def check_arguments(args: TrainingArguments) -> None:
    """Reject arguments that cannot work with `atom` on. Raises `AtomError`, naming the argument."""
    check_bounds(vars(args), TRAINING_BOUNDS)
    packed = getattr(args, "packing", False) and getattr(args, "packing_strategy", None) != "wrapped"
    if packed or getattr(args, "padding_free", False):
        raise AtomError(
            f"{'packing' if packed else 'padding_free'}: several samples share a row, and each row becomes an atom; leave it "
            "out, or use packing_strategy 'wrapped' with padding_free off, where each row is a sample"
        )
    if getattr(args, "sync_ref_model", False):
        raise AtomError(
            "sync_ref_model: TRL pairs the parameters of the model and its reference one by one, and only the model has atom "
            "heads; leave it out"
        )
    if args.n_gpu > 1:
        raise AtomError(
            f"{args.n_gpu} GPUs in one process (DataParallel) are not supported with atom; "
            "start one process for each: accelerate launch -m atom_hf train ..."
        )
    parallel = getattr(args, "parallelism_config", None)
    if any(getattr(parallel, f"{kind}_size", 1) > 1 for kind in ("tp", "cp", "sp")):
        raise AtomError(
            "parallelism_config: with tensor, context or sequence parallelism several processes hold the same samples, and "
            "the atom loss would separate samples from their own copies; use data parallelism (DDP, FSDP, ZeRO)"
        )
    if args.accelerator_config.split_batches:
        raise AtomError(
            "accelerator_config: split_batches makes per_device_train_batch_size the batch of all processes, and the atom loss "
            "counts samples by it; leave it out"
        )
    if args.per_device_train_batch_size < 1:
        raise AtomError(
            f"per_device_train_batch_size is {args.per_device_train_batch_size}: it must be at least 1, and the atom loss "
            "compares the samples of a batch; give 2 or more"
        )
    batch = args.per_device_train_batch_size * args.world_size
    pairs = args.atom_pair_batch
    if pairs is None:
        if batch < 2:
            raise AtomError(
                "per_device_train_batch_size is 1 on one process: the atom loss compares the samples of a batch and needs "
                "at least 2; gradient accumulation helps if atom_pair_batch draws pairs over its steps"
            )
    else:
        steps = args.gradient_accumulation_steps
        possible = [n * batch for n in range(1, steps + 1) if steps % n == 0 and n * batch > 1]
        if pairs not in possible:
            one_of = ", ".join(map(str, possible)) or "none"
            raise AtomError(
                f"atom_pair_batch is {pairs}: pairs can be drawn from whole batches of {batch} samples (over all processes), "
                f"as many as divide gradient_accumulation_steps ({steps}); so here it may be {one_of}"
            )
        if args.auto_find_batch_size:
            raise AtomError(
                "auto_find_batch_size changes the batch size that atom_pair_batch is a multiple of; leave one of them out"
            )


def check_processes(args: Any) -> None:
    """Reject processes that are not connected, and let FSDP run on CPUs.

    Args:
        args: the TrainingArguments, just made: the process group is initialized, and there is no Accelerator yet.
    """
    started = int(os.environ.get("WORLD_SIZE", 1)) if "LOCAL_RANK" in os.environ else 1
    if started > 1 and args.world_size == 1:
        raise AtomError(f"{started} processes were started, and there is no GPU to train on; give --use_cpu")
    asked = os.environ.get("ACCELERATE_USE_FSDP") == "true"
    if asked and args.use_cpu and PartialState().distributed_type == DistributedType.MULTI_CPU:
        # Accelerate silently ignores FSDP on CPUs. The device is the CPU and the backend gloo by now; from here on only the
        # choice of FSDP depends on this type.
        PartialState._shared_state["distributed_type"] = DistributedType.MULTI_GPU
