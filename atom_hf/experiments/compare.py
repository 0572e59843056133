"""Compare runs of two or more settings, seed by seed: with and without the atom loss, or any other flags."""

import gc
import re
import statistics
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from tqdm.auto import tqdm
from transformers.trainer_utils import IntervalStrategy

from ..data.load import TaskData
from ..errors import AtomError
from ..finetune.arguments import CARD_SAMPLES_BOUND, RunArguments, card_samples_flag
from ..finetune.metrics import IMPORTANCE_KEYS
from ..finetune.run import (
    DEFAULT_FOLDER,
    default_output_dir,
    fine_tune,
    prepare_run,
    unlogged_run,
)
from ..hub.card import Comparison
from ..training.arguments import AtomTrainingArguments
from ..utils.bounds import COUNT, Bound
from ..utils.files import check_output_folder, check_page
from ..utils.jsonl import RESULTS_NAME, append_line, hashed, read_lines, start_lines
from ..utils.lock import lock_folder
from ..utils.quiet import quiet
from ..utils.terminal import get_logger
from ..visualization.files import write_files
from ..visualization.page import Table
from .arms import ARMS, Arm, ArmArguments, Arms, read_arms, shown_value
from .comparability import (
    check_starts,
    hashed_rows,
    in_common,
    load_arms,
    look_at,
    may_start_otherwise,
    not_compared,
)
from .kept_model import KeptModel, keep_model, page_samples, write_kept_card
from .paired_runs import fingerprint, training_fingerprint, warn_of_accumulation
from .paired_table import paired_differences, paired_table, verdict

logger = get_logger(__name__)

EXPLAINER_SAMPLES, LEAST_LOGS = 200, 10  # of the model that the page shows, and that is kept

LONGEST_NAME = 60  # letters of what differs in the name of a folder


@dataclass
class CompareArguments(ArmArguments):
    """The arms and seeds of the paired runs, and the page."""

    bounds: ClassVar[dict[str, Bound]] = {"page_samples": COUNT, "card_samples": CARD_SAMPLES_BOUND}

    seeds: int = field(default=3, metadata={"help": "Number of seeds: --seed, --seed + 1, ... Each arm runs with all."})
    page: str | None = field(
        default=None,
        metadata={
            "help": "Path of an HTML page: the result, and samples with their importance in the first arm with --atom "
            "(first seed)."
        },
    )
    keep_model: bool = field(
        default=False,
        metadata={
            "help": "Keep the model of the first arm with --atom (first seed), with its card, in the folder model within "
            "--output_dir; ready-made commands that try it are printed."
        },
    )
    card_samples: int = card_samples_flag()
    page_samples: int = field(default=24, metadata={"help": "Number of evaluation samples on the page."})


@dataclass(frozen=True)
class Report:
    """The result of `compare_runs`."""

    table: Table
    verdict: list[str]
    """A sentence for each arm but the first: in what it differs from the first by more than noise."""
    folder: str
    page: str | None
    pictures: list[str]
    kept: KeptModel | None = None


def compare_runs(
    run: RunArguments, args: AtomTrainingArguments, options: CompareArguments, second: Arm | None = None
) -> Report:
    """Trains every arm with every seed, and compares each arm with the first.

    Paired: runs of the same seed have the same data, and wherever the flags that they depend on are equal the same initial
    weights, order of data and number of steps. The samples are drawn by the seed too, so that the seeds differ in their data.
    Each run's metrics are appended to `results.jsonl` in the output folder as it ends; a comparison that was interrupted goes
    on where it stopped.

    Args:
        run, args: the flags that `options` says the changes of; those of the first recipe where there are two.
        options: which arms, how many seeds, and the page.
        second: the flags of the second recipe.

    Raises:
        AtomError: fewer than 2 seeds, arms that cannot be read or compared, an output folder with results of other settings.
    """
    if options.seeds < 2:
        raise AtomError(f"--seeds must be at least 2 for a comparison, got {options.seeds}")
    if options.page:
        check_page(options.page)
    arms = read_arms(run, args, options, second)
    if options.keep_model and arms.with_atom is None:
        raise AtomError("--keep_model keeps the model of a run with --atom, and no arm has it; leave it out")
    _warn(arms)
    if args.output_dir != DEFAULT_FOLDER:
        check_output_folder(args.output_dir)
    data = load_arms(arms)
    folder = Path(args.output_dir)
    if args.output_dir == DEFAULT_FOLDER:
        folder = _default_folder(run, next(iter(data.values())), arms)
    check_output_folder(folder)
    with lock_folder(folder):
        return _compare(arms, args.seed, options, data, folder)


def _warn(arms: Arms) -> None:
    """Logs a warning where Trainer's own scaling of the task loss would be mistaken for what differs."""
    args = [arm.args for arm in arms.runs.values()]
    if "atom" in arms.differences:
        warn_of_accumulation(max(args, key=lambda each: each.gradient_accumulation_steps))
    elif "gradient_accumulation_steps" in arms.differences and not all(each.atom for each in args):
        logger.warning(
            "over accumulation steps Trainer scales the task loss of some classifiers (BERT, RoBERTa, ...) wrongly without "
            "--atom: of such a model, these runs differ by that too"
        )


def _compare(arms: Arms, seed: int, options: CompareArguments, data: dict[str, TaskData], folder: Path) -> Report:
    first, *_ = data.values()
    about = {"data": first.name, "task": first.task, "train_samples": len(first.train), "eval_samples": len(first.eval)}
    about |= {"training": training_fingerprint(*arms.base, arms=arms.changes), "rows": _hashed_data(data)}
    about["arms"] = {
        name: {setting: values[place] for setting, values in arms.differences.items()}
        for place, name in enumerate(arms.runs)
    }
    head = {"settings": fingerprint(*arms.base, arms=arms.changes), **about}
    done = _read_results(folder / RESULTS_NAME, head)
    starts = {}
    with quiet():
        for name, arm in arms.runs.items():
            # An arm that cannot run, or not be compared, is rejected before any other has run.
            with unlogged_run(*arm, seed) as arguments:
                prepared = prepare_run(*arguments, save=False)
                starts[name] = look_at(prepared, may_start_otherwise(arms))
                del prepared
        check_starts(arms, starts)
    says = in_common(arms, data, starts)
    logger.info("%s", says)
    shows = bool(options.page) or options.keep_model
    shown, kept = {}, None
    with quiet():
        start_lines(folder / RESULTS_NAME, head)
        plan = [(seed + i, name) for i in range(options.seeds) for name in arms.runs]
        for number, name in (bar := tqdm(plan, desc="paired runs", unit="run")):
            is_shown = shows and number == seed and name == arms.with_atom
            if (number, name) in done and not is_shown:
                continue
            bar.set_postfix_str(f"{name}, seed {number}")
            with unlogged_run(*arms.runs[name], number) as arguments:
                more = {"explainer_samples": EXPLAINER_SAMPLES, "least_logs": LEAST_LOGS} if is_shown else {}
                if is_shown and options.keep_model:
                    arguments[1].logging_strategy = IntervalStrategy.STEPS  # for the losses on its card
                result = fine_tune(*arguments, save=False, **more)
            if (number, name) not in done:
                done[number, name] = result.metrics
                append_line(folder / RESULTS_NAME, {"arm": name, "seed": number, **result.metrics, **result.importance})
            if is_shown and options.page:
                shown = page_samples(result, options.page_samples)
            if is_shown and options.keep_model:
                kept = keep_model(result, folder, _model_name(arms.runs[name].run, result.data), options.card_samples)
            del result
            gc.collect()

    seeds = [seed + i for i in range(options.seeds)]
    left_out = not_compared(arms)
    sizes = " and ".join(str(size) for size in dict.fromkeys(len(each.train) for each in data.values()))
    caption = f"{first.name}: {first.task}, {sizes} training samples"
    table = paired_table(caption, arms.runs, seeds, done, left_out)
    differences = paired_differences(arms.runs, seeds, done, left_out)
    sentences = verdict(differences)
    if kept is not None:
        write_kept_card(kept, read_comparison(folder)[1] if list(arms.differences) == ["atom"] else None)
    page, pictures = None, []
    if options.page:
        intro = "\n\n".join([*sentences, says])
        if arms.with_atom:
            intro += f"\n\nThe samples are evaluation rows, with their importance in the run of {arms.with_atom}, seed {seed}."
        shown |= {"title": _title(arms, first), "intro": intro, "tables": [table], "differences": differences}
        page, *pictures = map(str, write_files(options.page, **shown))
    return Report(table, sentences, str(folder), page, pictures, kept)


def _title(arms: Arms, data: TaskData) -> str:
    if arms.changes is ARMS:
        return f"{data.name}, with and without --atom"
    return f"{data.name}: {' vs '.join(arms.runs)}"


def read_comparison(folder: str | Path) -> tuple[dict[str, Any], Comparison]:
    """The results of `compare_runs` in a folder: (their first line, the table over the seeds that every arm has run with).

    Raises `AtomError` if there is no such comparison, or one of fewer than two seeds.
    """
    lines = read_lines(Path(folder, RESULTS_NAME))
    try:
        about, *rest = lines
        done = {(line.pop("seed"), line.pop("arm")): line for line in rest}
        counts = about["train_samples"], about["eval_samples"]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise AtomError(f"{Path(folder, RESULTS_NAME)} holds no results of atom-hf compare") from error
    arms = list(dict.fromkeys(arm for _, arm in done))
    seeds = sorted(seed for seed in {s for s, _ in done} if all((seed, arm) in done for arm in arms))
    if len(seeds) < 2 or len(arms) < 2:
        raise AtomError(f"{Path(folder, RESULTS_NAME)} holds fewer than two seeds that every arm has run with")
    table = paired_table("", arms, seeds, done)
    means = {
        arm: {name: statistics.mean(done[seed, arm][name] for seed in seeds) for name in done[seeds[0], arm]}
        for arm in arms
    }
    return about, Comparison(table.header, table.rows, seeds, *counts, means)


def find_comparison(run: RunArguments, args: AtomTrainingArguments) -> Callable[[TaskData], Comparison | None]:
    """A function that finds an earlier comparison with the very settings of this run, in `compare`'s default folder.

    Ask before the run: it fills in what its arguments leave open.
    """
    training = training_fingerprint(run, args, arms=ARMS)
    # Paired runs end with their last weights, whatever their flags.
    comparable = not args.load_best_model_at_end

    def find(data: TaskData) -> Comparison | None:
        try:
            about, found = read_comparison(_default_folder(run, data))
        except AtomError:
            return None
        # Results from before these two were kept do not tell what they are of.
        same = comparable and about.get("training") == training and about.get("rows") == hashed_rows(data)
        return found if same else None

    return find


def _hashed_data(data: dict[str, TaskData]) -> str:
    hashes = {id(each): hashed_rows(each) for each in data.values()}
    first, *others = dict.fromkeys(hashes.values())
    return hashed({"rows": [first, *others]}) if others else first


def _model_name(run: RunArguments, data: TaskData) -> str:
    return re.sub(r"[^\w.-]+", "-", Path(default_output_dir(run, data, True)).name)  # as the name of a repository


def _default_folder(run: RunArguments, data: TaskData, arms: Arms | None = None) -> Path:
    """`runs/<data>-<model>-compare`; behind it what differs, where it is not given by a file of arms and is not --atom."""
    folder = default_output_dir(run, data, True).removesuffix("-atom") + "-compare"
    if arms is not None and arms.is_pair:
        differs = "-".join(f"{name}-{shown_value(values[1])}" for name, values in arms.differences.items())
        name = re.sub(r"[^\w.=+-]+", "_", differs)
        folder += f"-{name if len(name) <= LONGEST_NAME else hashed(arms.changes)}"
    return Path(folder)


def _read_results(path: Path, head: dict[str, Any]) -> dict[tuple[int, str], dict[str, float]]:
    lines = read_lines(path)
    if len(lines) < 2:
        return {}
    if not isinstance(lines[0], dict) or lines[0].get("settings") != head["settings"]:
        raise AtomError(f"--output_dir {str(path.parent)!r} holds a comparison with other settings; give another")
    if lines[0].get("rows", head["rows"]) != head["rows"]:
        raise AtomError(
            f"--output_dir {str(path.parent)!r} holds a comparison on other rows; the data changed, give another"
        )
    done = {}
    for line in lines[1:]:
        key = line.pop("seed"), line.pop("arm")
        done[key] = {name: value for name, value in line.items() if name not in IMPORTANCE_KEYS}
    return done
