"""The arms of a comparison: with and without --atom, two recipes, one recipe and changed flags, or a file of arms.

An arm is a training run without its seed. With and without --atom is the case of one recipe and one changed flag that
`atom-hf compare` takes when nothing else is given.
"""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from ..errors import AtomError
from ..finetune.arguments import RunArguments
from ..training.arguments import PREFIX, AtomArguments, AtomTrainingArguments
from ..utils.files import read_yaml
from .paired_runs import OVERRIDES, SHARED, read_overrides, settings_of, typed, with_flags

ARMS = {"plain": {"atom": False}, "atom": {"atom": True}}

LONGEST_NAME = 40  # letters: longer names make the columns of the table too wide

MOST_IN_A_NAME = 2  # settings that an arm can be named by

# What one process cannot have in two ways: PyTorch, Accelerate or DeepSpeed keep it for the whole process.
_OF_THE_PROCESS = (
    *("use_cpu", "tf32", "torch_compile", "torch_compile_backend", "torch_compile_mode", "full_determinism"),
    *("deepspeed", "fsdp", "fsdp_config", "parallelism_config", "accelerator_config", "ddp_backend", "local_rank"),
)


@dataclass
class ArmArguments:
    """The arms of the paired runs."""

    a: str | None = field(
        default=None,
        metadata={
            "help": "A YAML file with the flags of one run, to compare with that of --b. Flags on the command line count for "
            "both."
        },
    )
    b: str | None = field(default=None, metadata={"help": "The YAML file to compare with --a."})
    change: list[str] | None = field(
        default=None,
        metadata={
            "help": "Compare the run as given with the same run and these flags changed: name=value, such as "
            "learning_rate=1e-4. May be repeated. Without --change, --a and --arms, runs with and without --atom are compared.",
            "action": "extend",
        },
    )
    name_a: str | None = field(
        default=None,
        metadata={"help": "Name of the run as given, or of --a, in the table; by default what sets it apart."},
    )
    name_b: str | None = field(default=None, metadata={"help": "Name of the changed run, or of --b."})
    arms: str | None = field(
        default=None,
        metadata={"help": "A YAML file {arm: {flag: value}}, for more than two. The first is the reference."},
    )


class Arm(NamedTuple):
    """The flags of one arm's runs; the seed is not among what sets it apart."""

    run: RunArguments
    args: AtomTrainingArguments


class Arms(NamedTuple):
    """The arms of a comparison by name, the first of which is the reference."""

    base: Arm
    """The flags that the arms are changes of: those of the first arm where there are two recipes or changed flags."""
    runs: dict[str, Arm]
    changes: dict[str, dict[str, Any]]
    """Each arm's changes: with the base, results are known by them."""
    differences: dict[str, list[Any]]
    """The settings that are not the same in all arms, each with its value in every arm; None where it has none."""
    given: str
    """The flags that gave the arms, for error messages."""
    is_pair: bool
    """Whether there are two recipes or changed flags, and so two arms that are known by what differs."""

    @property
    def with_atom(self) -> str | None:
        """The name of the first arm with --atom, if there is one."""
        return next((name for name, arm in self.runs.items() if arm.args.atom), None)

    def says(self) -> str:
        """What differs, such as 'learning_rate (5e-5, 1e-4)'."""
        return ", ".join(
            f"{name} ({', '.join(shown_value(value) for value in values)})" for name, values in self.differences.items()
        )


def read_arms(run: RunArguments, args: AtomTrainingArguments, options: ArmArguments, second: Arm | None = None) -> Arms:
    """The arms that the flags give, the first of which has `run` and `args` where there are two recipes or changed flags.

    Raises:
        AtomError: flags that exclude each other, an arm that cannot be, arms that share nothing or do not differ.
    """
    ways = {"--a and --b": second is not None, "--change": bool(options.change), "--arms": options.arms is not None}
    given = [way for way, is_given in ways.items() if is_given]
    if len(given) > 1:
        raise AtomError(f"{' with '.join(given)}: give one of them, which says what is compared")
    pair = second is not None or bool(options.change)
    if (options.name_a or options.name_b) and not pair:
        raise AtomError("--name_a and --name_b name the two arms of --a and --b, or of --change; give those too")
    base = Arm(run, args)
    if not pair:
        changes = ARMS if options.arms is None else _read_file(options.arms)
        runs = {name: _changed(base, flags, "--arms") for name, flags in changes.items()}
        given = ["--arms" if options.arms else "--atom"]
        arms = Arms(base, runs, changes, _differences(list(runs.values())), given[0], False)
    else:
        other = second or _changed(base, _read_changes(options.change), "--change")
        differences = _differences([base, other])
        files = (options.a, options.b) if second else None
        names = _names(differences, (options.name_a, options.name_b), files)
        changed = {name: values[1] for name, values in differences.items()}
        runs = dict(zip(names, (base, other), strict=True))
        arms = Arms(base, runs, {names[0]: {}, names[1]: changed}, differences, given[0], True)
    _check(arms)
    return arms


def shown_value(value: Any) -> str:
    """A setting's value as a user would write it: 5e-05 as 5e-5, a path by its last part."""
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, float):
        text = f"{value:g}" if value == float(f"{value:g}") else repr(value)
        if 0 < abs(value) < 0.01:
            exact = next(text for digits in range(17) if float(text := f"{value:.{digits}e}") == value)
            text = exact.replace("e-0", "e-")
        return text
    if isinstance(value, Mapping | list):
        return json.dumps(value)
    if value is None:
        return "none"
    return Path(value).name if isinstance(value, str) and Path(value).is_absolute() else str(value)


def _changed(arm: Arm, changes: Mapping[str, Any], given: str) -> Arm:
    """An arm with flags changed; 'config_overrides.FIELD' changes one field of the model's configuration."""
    fields = {name: value for name, value in changes.items() if name.startswith(OVERRIDES)}
    of_run = {name: value for name, value in changes.items() if name in RunArguments.__dataclass_fields__}
    run = dict(of_run)
    if fields:
        if "config_overrides" in run:
            raise AtomError(f"{given} sets config_overrides, and a field of it too; give one of them")
        overrides = read_overrides(arm.run.config_overrides)
        for name, value in fields.items():
            overrides[name.removeprefix(OVERRIDES)] = typed(value) if isinstance(value, str) else value
        run["config_overrides"] = json.dumps(overrides)
    args = {name: value for name, value in changes.items() if name not in of_run and name not in fields}
    return Arm(with_flags(arm.run, run, given), with_flags(arm.args, args, given))


def _read_changes(words: Iterable[str]) -> dict[str, str]:
    """`--change`: words 'name=value', or one JSON object, as a mapping in a YAML file becomes."""
    changes: dict[str, Any] = {}
    for word in words:
        name, equals, value = word.removeprefix("--").partition("=")
        if word.lstrip().startswith("{"):
            try:
                found = json.loads(word)
            except ValueError as error:
                raise AtomError(f"--change {word!r} is no JSON object: {error}") from error
        elif equals and name:
            found = {name: value}
        else:
            raise AtomError(f"--change {word!r} must be name=value, such as learning_rate=1e-4")
        if twice := sorted(changes.keys() & found.keys()):
            raise AtomError(f"--change sets {twice[0]} twice; give each flag once")
        changes |= found
    return changes


def _read_file(path: str) -> dict[str, dict[str, Any]]:
    arms = read_yaml(path, "--arms")
    if not isinstance(arms, dict) or len(arms) < 2 or not all(isinstance(changes, dict) for changes in arms.values()):
        raise AtomError(f"--arms {path!r} must hold at least two arms, each as 'name: {{flag: value}}'")
    return arms


def _differences(arms: list[Arm]) -> dict[str, list[Any]]:
    """The settings that are not the same in all arms, with their values."""
    settings = [settings_of(*arm) for arm in arms]
    found = {}
    for name in dict.fromkeys(name for its in settings for name in its):
        values = [its.get(name) for its in settings]
        if any(value != values[0] for value in values) and not _goes_without_saying(name, arms):
            found[name] = values
    return {"atom": found.pop("atom"), **found} if "atom" in found else found


def _goes_without_saying(name: str, arms: list[Arm]) -> bool:
    """Whether a flag of the atom loss has its default, or what its form sets, in each arm that has the atom loss."""
    given = [getattr(arm.args, name) for arm in arms if arm.args.atom and name.startswith(PREFIX)]
    default = AtomArguments.__dataclass_fields__[name].default if given else None
    return bool(given) and all(value == default for value in given)


def _check(arms: Arms) -> None:
    """Reject arms that cannot be compared, as far as their flags tell."""
    for name in SHARED:
        values = [getattr(arm.run if hasattr(arm.run, name) else arm.args, name) for arm in arms.runs.values()]
        if len(set(values)) > 1:
            raise AtomError(
                f"{arms.given} gives {name} {' and '.join(map(str, values))}: paired runs share their seeds; "
                f"give --{name} for all"
            )
    for number, (name, arm) in enumerate(arms.runs.items()):
        same = next((earlier for earlier in list(arms.runs)[:number] if _is_same(arms, earlier, name)), None)
        if same is not None:
            what = f"{same!r} and {name!r} train alike" if len(arms.runs) > 2 else "the two runs train alike"
            raise AtomError(f"{arms.given}: {what}: no setting differs that a result depends on; change one")
        if arm.args.atom:
            arm.args.atom_config()
    if kept := [name for name in arms.differences if name in _OF_THE_PROCESS]:
        raise AtomError(
            f"{arms.given}: {kept[0]} holds for a whole process, and paired runs share one; give --{kept[0]} for all, or run "
            "atom-hf train once with each"
        )


def _is_same(arms: Arms, one: str, other: str) -> bool:
    places = [list(arms.runs).index(name) for name in (one, other)]
    return all(values[places[0]] == values[places[1]] for values in arms.differences.values())


def _names(
    differences: dict[str, list[Any]], given: tuple[str | None, str | None], files: tuple[str, str] | None
) -> tuple[str, str]:
    """Names of two arms: those given, else what sets them apart, else their files."""
    found = [_named_by(differences, place) for place in (0, 1)]
    if len(differences) > MOST_IN_A_NAME or max(map(len, found)) > LONGEST_NAME or found[0] == found[1]:
        found = ["as given", "changed"]
        if files is not None:
            stems = [Path(file).stem for file in files]
            longer = [f"{Path(file).resolve().parent.name}/{stem}" for file, stem in zip(files, stems, strict=True)]
            found = next((pair for pair in (stems, longer) if pair[0] != pair[1]), ["a", "b"])
    first, second = (name or other for name, other in zip(given, found, strict=True))
    if first == second:
        raise AtomError(f"--name_a and --name_b are both {first!r}; give two names")
    return first, second


def _named_by(differences: dict[str, list[Any]], place: int) -> str:
    parts = []
    for name, values in differences.items():
        value = values[place]
        if name == "atom":
            parts.append("atom" if value else "plain")
        elif value is None and name.startswith(PREFIX):  # without --atom
            continue
        elif isinstance(value, bool) or value is None:
            parts.append(name if value else f"no {name}")
        else:
            parts.append(f"{name} {shown_value(value)}")
    return re.sub(r"\s+", " ", ", ".join(parts))
