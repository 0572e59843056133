"""Read and check the YAML file of a study:

title: Digits
seeds: 10                   # 0 to 9, or from first_seed on
arms:                       # flags in place of the setting's; the first arm is what the others are compared with
  plain: {atom: false}
  atom: {atom: true}
settings:
  digits, from scratch:     # any flags of `atom-hf train`, and
    model_type: vit
    dataset: digits
    metric: accuracy        # the main measure; mcc, or perplexity for a causal-lm
    sizes:                  # training samples, each with the flags that go with that size
      100: {num_train_epochs: 60}
      300: {num_train_epochs: 30}
    shifts:                 # further test data by name, as flags
      out of domain: {eval_dataset: other.csv}
    probes:                 # labels that training does not have, as flags of a data set: rows to fit on, and rows to score on
      digit: {dataset: more.parquet, eval_dataset: test.parquet, label_column: digit}
    latents: true           # keep latents over training of the first seed, for a picture
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from ..atoms.explainer_sizes import NO_EXPLAINER
from ..atoms.format_1 import FORM
from ..errors import AtomError
from ..finetune.arguments import RunArguments
from ..utils.files import read_yaml
from ..utils.jsonl import hashed
from .paired_runs import as_hashed, hashed_config, with_flags
from .regularizers import StudyTrainingArguments

OWN_KEYS = ("sizes", "metric", "shifts", "probes", "latents")

# What --local may say: the result is the same wherever the same data and model lie.
WHERE = (
    *("dataset", "eval_dataset", "dataset_config", "train_split", "eval_split", "model", "model_revision", "tokenizer"),
    *("text_column", "text_pair_column", "image_column", "label_column"),
)


class Setting(NamedTuple):
    """One data set, model and way to train, at one or more sizes."""

    name: str
    flags: dict[str, Any]
    sizes: dict[int, dict[str, Any]]
    metric: str
    shifts: dict[str, dict[str, Any]]
    latents: bool
    probes: dict[str, dict[str, Any]] = {}


class Study(NamedTuple):
    """The content of a study's file."""

    title: str
    seeds: int
    arms: dict[str, dict[str, Any]]
    settings: list[Setting]
    first_seed: int = 0


# Fields of AtomConfig that came after the first studies, with the values that these had.
LATER = {**FORM, "block": None, **NO_EXPLAINER}


@dataclass(frozen=True, eq=False)
class Job:
    """One run of a study."""

    setting: Setting
    size: int
    arm: str
    seed: int
    is_first: bool
    """Whether the seed is the study's first, whose latents are kept."""

    @property
    def key(self) -> tuple[str, int, str, int]:
        return self.setting.name, self.size, self.arm, self.seed

    @property
    def title(self) -> str:
        return f"{self.setting.name}, {self.size}, {self.arm}, seed {self.seed}"


def read_study(path: str) -> Study:
    """Reads a study's file. Raises `AtomError`, saying what is wrong in it."""
    raw = read_yaml(path, "study")

    def check(condition: bool, what: str) -> None:
        if not condition:
            raise AtomError(f"study {path!r}: {what}")

    check(isinstance(raw, dict), "must hold title, seeds, arms and settings")
    known = ("title", "seeds", "first_seed", "arms", "settings")
    unknown = sorted(set(map(str, raw)) - set(known))
    check(not unknown, f"unknown keys {', '.join(unknown)}; there are {', '.join(known)}")
    first_seed = raw.get("first_seed", 0)
    check(_is_whole(first_seed) and first_seed >= 0, f"first_seed must be a whole number, got {first_seed!r}")
    seeds, arms, settings = raw.get("seeds"), raw.get("arms"), raw.get("settings")
    check(_is_whole(seeds) and seeds >= 2, f"seeds must be a whole number of at least 2, got {seeds!r}")
    check(is_map_of_maps(arms) and len(arms) >= 2, "arms must hold at least two arms, each as 'name: {flag: value}'")
    check(is_map_of_maps(settings) and bool(settings), "settings must hold 'name: {flag: value}'")
    found = []
    for name, flags in settings.items():
        sizes, shifts, probes = flags.get("sizes"), flags.get("shifts", {}), flags.get("probes", {})
        check(
            is_map_of_maps(sizes) and bool(sizes) and all(isinstance(n, int) and n > 1 for n in sizes),
            f"setting {name!r}: sizes must hold 'training samples: {{flag: value}}'",
        )
        check(is_map_of_maps(shifts), f"setting {name!r}: shifts must hold 'name: {{flag: value}}'")
        check(is_map_of_maps(probes), f"setting {name!r}: probes must hold 'name: {{flag: value}}'")
        own = {key: value for key, value in flags.items() if key not in OWN_KEYS}
        metric = flags.get("metric", "accuracy")
        check(
            metric in ("accuracy", "mcc", "perplexity"),
            f"setting {name!r}: metric must be accuracy, mcc or perplexity, got {metric!r}",
        )
        found.append(Setting(str(name), own, sizes, metric, shifts, bool(flags.get("latents")), probes))
    named = {str(name): flags for name, flags in arms.items()}
    return Study(str(raw.get("title", Path(path).stem)), seeds, named, found, first_seed)


def study_jobs(study: Study) -> Iterator[Job]:
    """All runs of a study, in the order in which they run."""
    # Seeds outermost: a study that is cut short is a whole study of fewer seeds. Arms innermost: costs are compared
    # between runs that follow each other.
    for seed in range(study.first_seed, study.first_seed + study.seeds):
        for setting in study.settings:
            for size in setting.sizes:
                for arm in study.arms:
                    yield Job(setting, size, arm, seed, seed == study.first_seed)


def job_flags(study: Study, job: Job) -> tuple[RunArguments, StudyTrainingArguments]:
    """The arguments of a job: those of its setting, size and arm. Raises `AtomError`, naming which of them is wrong."""
    given = f"study: setting {job.setting.name!r}"
    run_names = set(RunArguments.__dataclass_fields__)
    run, args = RunArguments(max_train_samples=job.size), StudyTrainingArguments(per_device_eval_batch_size=32)
    for changes, where in (
        (job.setting.flags, given),
        (job.setting.sizes[job.size], f"{given}, size {job.size}"),
        (study.arms[job.arm], f"study: arm {job.arm!r}"),
    ):
        run = with_flags(run, {k: v for k, v in changes.items() if k in run_names}, where)
        args = with_flags(args, {k: v for k, v in changes.items() if k not in run_names}, where)
    if args.atom:
        args.atom_config()
    return run, args


def job_fingerprint(job: Job, run: RunArguments, args: StudyTrainingArguments) -> str:
    """A hash of the given flags and of all that the atom loss depends on."""
    # Committed results are known by these hashes, in which a run without the flag has the one form that there was then.
    first = {"atom_form": FORM["form"]}
    before = {**as_hashed(StudyTrainingArguments(per_device_eval_batch_size=32, **first)), **vars(RunArguments())}
    is_open = not args.atom and args.atom_form is None
    now = {**as_hashed(with_flags(args, first, "") if is_open else args), **vars(run)}
    given = {k: v for k, v in now.items() if (k not in before or v != before[k]) and k != "logging_dir"}
    atom = None
    if args.atom:
        # Of the fields that there were then; what came later counts only where it is not the default.
        atom = {"format_version": 1, **hashed_config(args)}
        for name, value in {**LATER, "side": "encoder"}.items():
            if atom[name] == value:
                del atom[name]
    probes = {"probes": job.setting.probes} if job.setting.probes else {}
    return hashed({"given": given, "atom": atom, "shifts": job.setting.shifts, **probes})


def locate(flags: tuple[RunArguments, Any], local: dict[str, Any], given: str | None) -> tuple[RunArguments, Any]:
    """The arguments of a job with the data and model where `--local` says they lie."""
    run, args = flags
    changes = {key: value for key, value in local.items() if key not in ("shifts", "probes")}
    if others := sorted(map(str, set(changes) - set(WHERE))):
        raise AtomError(
            f"--local {given!r} sets {', '.join(others)}; it says where data lies: {', '.join(WHERE)}, shifts"
        )
    return with_flags(run, changes, f"--local {given!r}"), args


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def is_map_of_maps(value: Any) -> bool:
    """Whether a YAML value is a mapping of mappings."""
    return isinstance(value, dict) and all(isinstance(inner, dict) for inner in value.values())
