"""Parse flags and YAML files into dataclasses, in one way for both, so that both get the same types and checks."""

import argparse
import dataclasses
import functools
import json
import re
from collections.abc import Mapping
from typing import Any

from transformers import HfArgumentParser

from ..errors import AtomError
from ..training.arguments import PREFIX
from ..training.bounds import TRAINING_BOUNDS
from ..utils.bounds import Bound, check_bounds
from ..utils.files import read_yaml
from .help import HelpAll, format_help, trains


class _Parser(HfArgumentParser):
    def error(self, message: str) -> Any:
        raise AtomError(message)

    def format_help(self, everything: bool = False) -> str:
        return format_help(self, list(self.dataclass_types), everything)

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> tuple[argparse.Namespace, list[str]]:
        """Parses, and rejects numbers that cannot be, before a dataclass is made of them."""
        found, rest = super().parse_known_args(args, namespace)
        bounds = {name: bound for kind in self.dataclass_types for name, bound in _bounds_of(kind).items()}
        # Those of the atom loss have checks of their own, in AtomConfig, which say more.
        values = {name: value for name, value in vars(found).items() if not name.startswith(PREFIX)}
        check_bounds(values, bounds, prefix="--")
        return found, rest


def _bounds_of(kind: type) -> Mapping[str, Bound]:
    return TRAINING_BOUNDS if trains([kind]) else getattr(kind, "bounds", {})


def parse_flags(command: str, arguments: list[str], kinds: list[type], words: list[str] | None = None) -> list[Any]:
    """One instance of each dataclass in `kinds`, from flags and, below them, the file given by `--config`.

    Words that belong to no flag are an error; if `words` is given, they are added to it instead.

    Raises:
        AtomError: a file that cannot be read, a key or flag that does not exist, a value that does not fit.
    """
    return parse_kinds(command, _with_config(arguments, kinds), kinds, words)


def parse_kinds(command: str, arguments: list[str], kinds: list[type], words: list[str] | None = None) -> list[Any]:
    """One instance of each dataclass in `kinds`, from flags; `words` as in `parse_flags`. Raises `AtomError`."""
    parser = _parser(command, kinds)
    try:
        *parsed, _config, unknown = parser.parse_args_into_dataclasses(arguments, return_remaining_strings=True)
    except (ValueError, TypeError, ImportError) as error:
        raise AtomError(" ".join(str(error).split())) from error
    # What begins with a hyphen is a word only if it is one alone, or a text with spaces.
    strange = unknown if words is None else [word for word in unknown if re.match(r"-\S+$", word)]
    if words is not None:
        words += unknown
    if strange:
        asks = "--help_all" if trains(kinds) else "--help"
        raise AtomError(f"no such flag: {strange[0]}; atom-hf {command} {asks} lists them")
    return parsed


def scan_flags(command: str, arguments: list[str], kinds: list[type]) -> tuple[argparse.Namespace, list[str]]:
    """The values of flags and `--config`, and the words that belong to no flag. Raises `AtomError`.

    No dataclass is built, for a process that only starts others: `TrainingArguments` would initialize the device, and
    write to the environment that they inherit.
    """
    return _parser(command, kinds).parse_known_args(_with_config(arguments, kinds))


def given_flags(command: str, arguments: list[str], kinds: list[type]) -> dict[str, Any]:
    """The values of only those flags that are given, on the command line or by `--config`. Raises `AtomError`."""
    # A value that is there already is not overwritten by a default. A list, since flags that may be repeated extend a copy.
    parser, absent = _parser_of(command, tuple(kinds)), list[Any]()
    found = argparse.Namespace(**{action.dest: absent for action in parser._actions})
    parser.parse_known_args(_with_config(arguments, kinds), found)
    return {name: value for name, value in vars(found).items() if value is not absent}


def take_flags(arguments: list[str], kinds: list[type]) -> list[Any]:
    """One instance of each dataclass in `kinds`, and last the arguments without their flags. Raises `AtomError`."""
    parser = _Parser(kinds, add_help=False, allow_abbrev=False)
    return list(parser.parse_args_into_dataclasses(arguments, return_remaining_strings=True, look_for_args_file=False))


def as_flags(values: Mapping[str, Any]) -> list[str]:
    """A mapping as the flags that say the same; what is None is left out."""
    flags = []
    for name, value in values.items():
        if isinstance(value, Mapping):
            value = json.dumps(value)
        if value is not None:
            flags += [f"--{name}", *(map(str, value) if isinstance(value, list) else [str(value)])]
    return flags


def _parser(command: str, kinds: list[type]) -> _Parser:
    parser = _Parser(kinds, prog=f"atom-hf {command}", allow_abbrev=False)
    parser.add_argument("--config", help="A YAML file with any of these flags as keys; flags win over it.")
    if trains(kinds):
        parser.add_argument("--help_all", action=HelpAll, help="List all flags, those of Transformers' Trainer too.")
        # Where these defaults differ from TrainingArguments': small runs show a log, and evaluate in fewer batches.
        parser.set_defaults(logging_steps=50, per_device_eval_batch_size=32)
    return parser


@functools.lru_cache(maxsize=16)
def _parser_of(command: str, kinds: tuple[type, ...]) -> _Parser:
    """A parser that is used again and again, as for each arm and setting of a study: its hundreds of flags take long to add."""
    return _parser(command, list(kinds))


def _with_config(arguments: list[str], kinds: list[type]) -> list[str]:
    """The arguments, and before them what the file given by `--config` says as flags."""
    file = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    file.add_argument("--config")
    try:
        known, _ = file.parse_known_args(arguments)
    except argparse.ArgumentError as error:
        raise AtomError(str(error)) from error
    return [*file_flags(known.config, kinds), *arguments] if known.config else arguments


def file_flags(path: str, kinds: list[type], given: str = "--config") -> list[str]:
    """What a YAML file says, as flags of `kinds`. Raises `AtomError`, naming the argument that gave it."""
    values = read_yaml(path, given)
    if not isinstance(values, dict):
        raise AtomError(f"{given} {path!r} must hold flags as keys, such as 'learning_rate: 1e-4'")
    allowed = [kind for kind in kinds if getattr(kind, "in_config_file", True)]
    unknown = sorted(set(map(str, values)) - {f.name for kind in allowed for f in dataclasses.fields(kind)})
    if unknown:
        raise AtomError(f"{given} {path!r} has keys that are not flags: {', '.join(unknown)}")
    return as_flags(values)
