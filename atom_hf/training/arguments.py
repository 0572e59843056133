"""`AtomArguments`, the fields of `AtomConfig` for the arguments of any trainer, and what is refused of them."""

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

PREFIX = "atom_"


def _from_config(name: str) -> Any:
    """The field of `AtomConfig` as an argument: same default, same help text."""
    source = next(f for f in fields(AtomConfig) if f.name == name)
    return field(default=source.default, metadata=dict(source.metadata))


@dataclass
class AtomArguments:
    """The flag, and the fields of `AtomConfig` as `atom_` + name. With `atom=False` none of them does anything.

    They join the arguments of any trainer, in front of them:

        class MyArguments(AtomArguments, SFTConfig): ...
        class MyTrainer(AtomTrainerMixin, SFTTrainer): ...
    """

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if not inspect.get_annotations(cls):
            # Without fields of its own the class need not be declared a dataclass: by Python's rules its __init__ would be
            # that of these arguments alone. (The bases' own repr leaves tokens out.)
            dataclass(repr=False)(cls)

    atom: bool = field(
        default=False,
        metadata={
            "help": "Train with the atom loss: the one difference between a plain fine-tune and an atom fine-tune. (Over "
            "accumulation steps or processes, task losses that Trainer scales wrongly are scaled rightly with it.)"
        },
    )
    atom_weight: float = _from_config("weight")
    atom_weighting: str = _from_config("weighting")
    atom_layer: int = _from_config("layer")
    atom_tokens: str = _from_config("tokens")
    atom_side: str = _from_config("side")
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

    atom_pair_batch: int | None = field(
        default=None,
        metadata={
            "help": "How many samples pairs are drawn from, over all processes and gradient accumulation steps: a multiple of "
            "per_device_train_batch_size times the processes. Each batch is then passed forward twice, and memory "
            "grows by the atoms alone (gradient caching). By default the samples of one forward pass on all processes."
        },
    )

    def atom_config(self) -> AtomConfig:
        """The `AtomConfig` that these arguments describe. Raises `AtomError`, naming the argument."""
        values = {f.name: getattr(self, PREFIX + f.name) for f in fields(AtomConfig) if hasattr(self, PREFIX + f.name)}
        try:
            return AtomConfig(**values)
        except AtomError as error:
            raise AtomError(PREFIX + str(error)) from error


class AtomTrainingArguments(AtomArguments, TrainingArguments):
    """`TrainingArguments` with `AtomArguments`."""


def check_class(args: Any, trainer: type) -> None:
    """Refuses arguments that are not those of a trainer: TRL, for one, would make its own of them and not know the flag.

    Args:
        args: the arguments given.
        trainer: the class that takes them, whose `__init__` says what they should be.
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
    """Refuses arguments of a run with the flag on that cannot work. Raises `AtomError`, naming the argument."""
    packed = getattr(args, "packing", False) and getattr(args, "packing_strategy", None) != "wrapped"
    if packed or getattr(args, "padding_free", False):
        raise AtomError(
            f"{'packing' if packed else 'padding_free'}: several samples share a row, and atoms are made of rows; leave it "
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
            "the atom loss would push them from themselves; use data parallelism (DDP, FSDP, ZeRO)"
        )
    if args.accelerator_config.split_batches:
        raise AtomError(
            "accelerator_config: split_batches makes per_device_train_batch_size the batch of all processes, and the atom loss "
            "counts samples by it; leave it out"
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
                "auto_find_batch_size changes the batch size that atom_pair_batch is made of; leave one of them out"
            )


def check_processes(args: Any) -> None:
    """Refuses processes that know nothing of each other, and makes FSDP work over CPUs.

    Args:
        args: the TrainingArguments, just made: the processes have met, and the Accelerator is not there yet.
    """
    started = int(os.environ.get("WORLD_SIZE", 1)) if "LOCAL_RANK" in os.environ else 1
    if started > 1 and args.world_size == 1:
        raise AtomError(f"{started} processes were started, and there is no GPU to train on; give --use_cpu")
    asked = os.environ.get("ACCELERATE_USE_FSDP") == "true"
    if asked and args.use_cpu and PartialState().distributed_type == DistributedType.MULTI_CPU:
        # Accelerate leaves FSDP out over CPUs without a word. The device is the CPU and the backend gloo by now; of what is
        # left only the choice of FSDP goes by this type.
        PartialState._shared_state["distributed_type"] = DistributedType.MULTI_GPU
