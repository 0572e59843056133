"""`atom-hf train --accelerate_config NAME`: the same run over processes, by `accelerate launch`."""

import importlib.util
import os
from collections.abc import Collection
from dataclasses import fields
from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple

from .errors import AtomError, first_line
from .utils.files import read_yaml

FLAG = "--accelerate_config"
NAMES = ("ddp", "fsdp2", "zero2", "zero3")
HELP = (
    f"Train over processes: one of {', '.join(NAMES)}, or the path of a YAML file of accelerate. The run is started anew by "
    "accelerate launch, whose own flags (--num_processes, --main_process_port, ...) may be given too; by default there is one "
    "process for each GPU."
)
# Flags of accelerate launch that would start something else than this run.
OTHERS = ("config_file", "cpu", "module", "m", "no_python", "help", "h", "quiet")


class Launch(NamedTuple):
    """What the command line asks for."""

    config: str | None
    """A name or path; None where this process is to train itself."""
    flags: list[str]
    """Of `accelerate launch`."""
    arguments: list[str]
    """Of `atom-hf train`."""


def split(arguments: list[str]) -> Launch:
    """Takes `--accelerate_config` and, if it is there, the flags of `accelerate launch` out of the arguments of `train`.

    A flag that both know is train's. Raises `AtomError`.
    """
    config, rest = None, []
    given = iter(arguments)
    for word in given:
        name, equals, value = word.partition("=")
        if name.replace("-", "_") == FLAG.replace("-", "_"):
            config = value if equals else next(given, None)
            if not config or config.startswith("--"):
                raise AtomError(f"{FLAG}: give {_choices()}")
        else:
            rest.append(word)
    if config is None or {"-h", "--help"} & set(rest):
        return Launch(None, [], rest)
    return Launch(config, *_split_flags(rest))


def launch(asked: Launch) -> int:
    """Starts the processes and waits for them. Returns the exit status of the first that failed, or 0.

    Raises:
        AtomError: whatever is wrong with the configuration or the flags of `accelerate launch`.
    """
    import torch
    import yaml
    from accelerate.commands.launch import launch_command
    from torch.distributed.elastic.multiprocessing import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    if "LOCAL_RANK" in os.environ:
        raise AtomError(f"{FLAG} starts processes, and this is one of several already; leave it out")
    file, flags = _file(asked.config), list(asked.flags)
    try:
        kind = yaml.safe_load(file.read_text(encoding="utf-8"))["distributed_type"]
    except (OSError, UnicodeDecodeError, yaml.YAMLError, TypeError, KeyError) as error:
        raise AtomError(f"{FLAG} {asked.config!r} is no configuration of accelerate: {first_line(error)}") from error
    if kind == "DEEPSPEED":
        if importlib.util.find_spec("deepspeed") is None:
            raise AtomError(f"{FLAG} {asked.config!r} needs DeepSpeed: pip install 'atom-hf[deepspeed]'")
        if _uses_cpu(asked.arguments):
            os.environ.setdefault("DS_ACCELERATOR", "cpu")
    if asked.config in NAMES:
        known = _names(flags)
        if not known & {"num_processes", "num_machines"}:
            devices = torch.accelerator.device_count() if torch.accelerator.is_available() else 0
            chosen = _value(flags, "gpu_ids")
            if chosen not in (None, "all"):
                devices = min(devices, len(chosen.split(",")))
            if not devices:
                raise AtomError(f"{FLAG} {asked.config}: there is no GPU; give --use_cpu and --num_processes")
            flags += ["--num_processes", str(devices)]
        if not known & {"main_process_port", "num_machines"}:
            flags += ["--main_process_port", "0"]  # any free one, so that two runs do not meet

    command = ["--config_file", str(file), *flags, "-m", "atom_hf", "train", *asked.arguments]
    try:
        launch_command(_parser().parse_args(command))
    except ChildFailedError as error:
        _, failure = error.get_first_failure()
        return failure.exitcode if failure.exitcode > 0 else 128 - failure.exitcode
    except SignalException as error:
        return 128 + int(error.sigval)
    except AtomError:
        raise
    except (ValueError, ImportError, ConnectionError) as error:
        raise AtomError(f"accelerate launch: {first_line(error)}") from error
    return 0


def _file(config: str) -> Path:
    if config in NAMES:
        return Path(str(files(__package__) / "assets" / "accelerate" / f"{config}.yaml"))
    if not Path(config).is_file():
        raise AtomError(f"{FLAG} {config!r}: no such configuration or file; give {_choices()}")
    return Path(config)


def _choices() -> str:
    return f"one of {', '.join(NAMES)}, or the path of a YAML file of accelerate"


def _value(words: list[str], name: str) -> str | None:
    """The value of a flag, "" if it stands alone, None if it is not there."""
    for position, word in enumerate(words):
        if name in _names([word]):
            _, equals, value = word.partition("=")
            following = words[position + 1 : position + 2]
            return value if equals else "".join(v for v in following if not v.startswith("--"))
    return None


def _uses_cpu(arguments: list[str]) -> bool:
    value = _value(arguments, "use_cpu")
    if value is None and (file := _value(arguments, "config")):
        settings = read_yaml(file, "--config")
        value = str(settings.get("use_cpu", False)) if isinstance(settings, dict) else None
    return value is not None and value.lower() not in ("false", "0", "no")


def _names(words: Collection[str]) -> set[str]:
    return {word[2:].partition("=")[0].replace("-", "_") for word in words if word.startswith("--")}


def _parser() -> Any:
    from accelerate.commands.launch import launch_command_parser

    def refuse(message: str) -> None:
        raise AtomError(f"accelerate launch: {message}")

    parser = launch_command_parser()
    parser.error = refuse
    return parser


def _split_flags(arguments: list[str]) -> tuple[list[str], list[str]]:
    from .arguments import AtomTrainingArguments
    from .run import RunArguments

    ours = {f.name for kind in (RunArguments, AtomTrainingArguments) for f in fields(kind)} | {"config"}
    takes_value = {
        name: action.nargs != 0
        for action in _parser()._actions
        for name in _names(action.option_strings)
        if name not in ours and name not in OTHERS
    }
    flags, rest = [], []
    given = iter(arguments)
    for word in given:
        name = next(iter(_names([word])), None)
        if name not in takes_value:
            rest.append(word)
            continue
        flags.append(word)
        if takes_value[name] and "=" not in word:
            value = next(given, None)
            if value is None:
                raise AtomError(f"{word}: give its value")
            flags.append(value)
    return flags, rest
