"""Compare runs of two or more settings, seed by seed: with and without the atom loss, or any other flags."""

import gc
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from tqdm.auto import tqdm
from transformers.trainer_utils import IntervalStrategy

from ..data.load import TaskData
from ..errors import AtomError
from ..finetune.arguments import CARD_SAMPLES_BOUND, RunArguments, card_samples_flag
from ..finetune.run import (
    DEFAULT_FOLDER,
    Prepared,
    default_output_dir,
    fine_tune,
    prepare_run,
    unlogged_run,
)
from ..training.arguments import AtomTrainingArguments
from ..utils.bounds import COUNT, Bound
from ..utils.files import check_output_folder, check_page
from ..utils.jsonl import RESULTS_NAME, append_line, hashed, start_lines
from ..utils.lock import lock_folder
from ..utils.quiet import quiet
from ..utils.terminal import get_logger
from ..visualization.files import write_files
from ..visualization.page import Figure, Table
from .arms import ARMS, Arm, ArmArguments, Arms, read_arms
from .comparability import (
    check_starts,
    hashed_rows,
    in_common,
    load_arms,
    look_at,
    may_start_otherwise,
    not_compared,
)
from .comparison_results import default_folder, read_comparison, read_results
from .kept_model import KeptModel, keep_model, page_samples, write_kept_card
from .other_labels import OtherLabels
from .paired_runs import fingerprint, training_fingerprint, warn_of_accumulation
from .paired_table import paired_differences, paired_table, verdict

logger = get_logger(__name__)

EXPLAINER_SAMPLES, LEAST_LOGS = 200, 10  # of the model that the page shows, and that is kept


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
    probe_column: str | None = field(
        default=None,
        metadata={
            "help": "A column of other labels of a classification data set, such as finer ones: a linear probe then says how "
            "much of them the features of each run still know, the table has the loss after temperature scaling and the "
            "calibration error too, and --page a picture of the relations between samples."
        },
    )


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
    other = None
    if options.probe_column is not None:
        other = OtherLabels(options.probe_column, run, next(iter(data.values())), bool(options.page))
    folder = Path(args.output_dir)
    if args.output_dir == DEFAULT_FOLDER:
        folder = default_folder(run, next(iter(data.values())), arms)
    check_output_folder(folder)
    with lock_folder(folder):
        return _compare(arms, args.seed, options, data, folder, other)


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


def _compare(
    arms: Arms,
    seed: int,
    options: CompareArguments,
    data: dict[str, TaskData],
    folder: Path,
    other: OtherLabels | None,
) -> Report:
    first, *_ = data.values()
    about = {"data": first.name, "task": first.task, "train_samples": len(first.train), "eval_samples": len(first.eval)}
    about |= {"training": training_fingerprint(*arms.base, arms=arms.changes), "rows": _hashed_data(data)}
    about["arms"] = {
        name: {setting: values[place] for setting, values in arms.differences.items()}
        for place, name in enumerate(arms.runs)
    }
    probed = {"probe_column": other.column} if other else {}
    head = {"settings": fingerprint(*arms.base, arms=arms.changes, **probed), **about}
    done = read_results(folder / RESULTS_NAME, head)
    starts = {}
    with quiet():
        for name, arm in arms.runs.items():
            # An arm that cannot run, or not be compared, is rejected before any other has run.
            with unlogged_run(*arm, seed) as arguments:
                prepared = prepare_run(*arguments, save=False)
                starts[name] = look_at(prepared, may_start_otherwise(arms))
                if other and options.page and len(starts) == 1:
                    other.read(prepared, "before training", keep=True)
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
            is_drawn = bool(options.page) and number == seed and other is not None
            if (number, name) in done and not (is_shown or is_drawn):
                continue
            bar.set_postfix_str(f"{name}, seed {number}")
            with unlogged_run(*arms.runs[name], number) as arguments:
                more = {"explainer_samples": EXPLAINER_SAMPLES, "least_logs": LEAST_LOGS} if is_shown else {}
                if is_shown and options.keep_model:
                    arguments[1].logging_strategy = IntervalStrategy.STEPS  # for the losses on its card
                result = fine_tune(*arguments, save=False, **more)
            measures = result.metrics
            if other:
                measures = measures | other.read(Prepared(result.trainer, result.data, result.task), name, is_drawn)
            if (number, name) not in done:
                done[number, name] = measures
                append_line(folder / RESULTS_NAME, {"arm": name, "seed": number, **measures, **result.importance})
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
        if other and (drawn := other.draw(Path(options.page).with_suffix(".relations.png"), first)):
            says = f"{other.caption(first)}, before training and after each arm's first run"
            shown["figures"] = [Figure("How far apart samples lie", drawn.read_bytes(), says)]
            pictures.append(str(drawn))
        page, *more = map(str, write_files(options.page, **shown))
        pictures += more
    return Report(table, sentences, str(folder), page, pictures, kept)


def _title(arms: Arms, data: TaskData) -> str:
    if arms.changes is ARMS:
        return f"{data.name}, with and without --atom"
    return f"{data.name}: {' vs '.join(arms.runs)}"


def _hashed_data(data: dict[str, TaskData]) -> str:
    hashes = {id(each): hashed_rows(each) for each in data.values()}
    first, *others = dict.fromkeys(hashes.values())
    return hashed({"rows": [first, *others]}) if others else first


def _model_name(run: RunArguments, data: TaskData) -> str:
    return re.sub(r"[^\w.-]+", "-", Path(default_output_dir(run, data, True)).name)  # as the name of a repository
