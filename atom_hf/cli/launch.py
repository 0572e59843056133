"""`atom-hf train --accelerate_config NAME`: the same run on many processes, by `accelerate launch`."""

import importlib.util
import os
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any, ClassVar

from ..errors import AtomError, first_line
from ..utils.bounded_yaml import parse_yaml

FLAG = "--accelerate_config"

NAMES = ("ddp", "fsdp2", "zero2", "zero3")

CHOICES = f"one of {', '.join(NAMES)}, or the path of a YAML file of accelerate"

# Flags of accelerate launch that would start something else than this run.
OTHERS = ("config_file", "cpu", "module", "no_python", "quiet")


@dataclass
class LaunchArguments:
    """Flags that start the run on many processes."""

    help_title: ClassVar[str] = "Many processes"
    in_config_file: ClassVar[bool] = False  # each process reads that file, and would start others
    accelerate_config: str | None = field(
        default=None,
        metadata={
            "help": f"Train on many processes: {CHOICES}. accelerate launch starts the run, and takes its own flags "
            "(--num_processes, --main_process_port, ...) too; by default one process per GPU.",
            "nargs": "?",  # without a value it is "", and the error lists the choices
            "const": "",
        },
    )


def launch(config: str, arguments: list[str], others: list[str], *, use_cpu: bool) -> int:
    """Starts the processes and waits for them. Returns the exit status of the first that failed, or 0.

    Args:
        config: what `--accelerate_config` was given.
        arguments: all others of the command line, in their order.
        others: those of them that train does not know, and accelerate launch must.
        use_cpu: whether the run is to train on the CPU.

    Raises:
        AtomError: whatever is wrong with the configuration or the flags of `accelerate launch`.
    """
    import torch
    import yaml
    from accelerate.commands.config import load_config_from_file
    from accelerate.commands.launch import launch_command
    from accelerate.utils import DistributedType
    from torch.distributed.elastic.multiprocessing import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    if "LOCAL_RANK" in os.environ:
        raise AtomError(f"{FLAG} starts processes, and this is one of several already; leave it out")
    args, file = _parse(others), _file(config)
    try:
        if not file.endswith(".json"):
            parse_yaml(Path(file).read_text(encoding="utf-8"))  # raises for one that expands to more than settings hold
        kind = load_config_from_file(file).distributed_type
    except (OSError, ValueError, TypeError, AttributeError, RecursionError, yaml.YAMLError) as error:
        raise AtomError(f"{FLAG} {config!r} is not a configuration of accelerate: {first_line(error)}") from error
    if kind == DistributedType.DEEPSPEED:
        if importlib.util.find_spec("deepspeed") is None:
            raise AtomError(f"{FLAG} {config!r} needs DeepSpeed: pip install 'atom-hf[deepspeed]'")
        if use_cpu:
            os.environ.setdefault("DS_ACCELERATOR", "cpu")
    if config in NAMES and args.num_machines is None:
        # By hand: where a file is given, accelerate counts no GPUs and takes a fixed port.
        if args.num_processes is None:
            args.num_processes = torch.accelerator.device_count() if torch.accelerator.is_available() else 0
            if args.gpu_ids not in (None, "all"):
                args.num_processes = min(args.num_processes, len(args.gpu_ids.split(",")))
            if not args.num_processes:
                raise AtomError(f"{FLAG} {config}: there is no GPU; give --use_cpu and --num_processes")
        if args.main_process_port is None:
            args.main_process_port = 0  # any free one, so that two runs do not meet

    args.config_file, args.module = file, True
    args.training_script, args.training_script_args = "atom_hf", ["train", *_without(arguments, others)]
    try:
        launch_command(args)
    except ChildFailedError as error:
        _, failure = error.get_first_failure()
        return failure.exitcode if failure.exitcode > 0 else 128 - failure.exitcode
    except SignalException as error:
        return 128 + int(error.sigval)
    except (ValueError, ImportError, ConnectionError) as error:
        raise AtomError(f"accelerate launch: {first_line(error)}") from error
    return 0


def _file(config: str) -> str:
    if config in NAMES:
        return str(files(__package__) / "accelerate_configs" / f"{config}.yaml")
    if not config:
        raise AtomError(f"{FLAG}: give {CHOICES}")
    if not Path(config).is_file():
        raise AtomError(f"{FLAG} {config!r}: no such configuration or file; give {CHOICES}")
    return config


def _parse(others: list[str]) -> Any:
    """The flags that train does not know, parsed by accelerate's own parser."""
    from accelerate.commands.launch import launch_command_parser

    def reject(message: str) -> None:
        raise AtomError(f"accelerate launch: {message}")

    parser = launch_command_parser()
    parser.error = reject
    # A word that belongs to no flag is taken for the script, and all that follows it for the script's arguments.
    args, strange = parser.parse_known_args([*others, "--", "atom_hf"])
    if args.training_script_args:
        strange.append(args.training_script)
    if strange:
        raise AtomError(f"no such flag: {strange[0]}; atom-hf train --help and accelerate launch --help list them")
    for name in OTHERS:
        if getattr(args, name):
            raise AtomError(f"--{name}: accelerate launch would start something else than this run; leave it out")
    return args


def _without(arguments: list[str], others: list[str]) -> list[str]:
    """The arguments but for `others`, which stand among them in this order."""
    # By hand: argparse tells which words it did not know, not those that it did.
    rest, left = [], list(others)
    for word in arguments:
        if left and word == left[0]:
            left.pop(0)
        else:
            rest.append(word)
    return rest
