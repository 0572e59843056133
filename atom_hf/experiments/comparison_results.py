"""The results of a comparison in its folder: which folder, reading them, and those that a run's own card may show."""

import re
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..data.load import TaskData
from ..errors import AtomError
from ..finetune.arguments import RunArguments
from ..finetune.metrics import IMPORTANCE_KEYS
from ..finetune.run import default_output_dir
from ..hub.card import Comparison
from ..training.arguments import AtomTrainingArguments
from ..utils.jsonl import RESULTS_NAME, hashed, read_lines
from .arms import ARMS, Arms, shown_value
from .comparability import hashed_rows
from .paired_runs import training_fingerprint
from .paired_table import paired_table

LONGEST_NAME = 60  # letters of what differs in the name of a folder


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
            about, found = read_comparison(default_folder(run, data))
        except AtomError:
            return None
        # Results from before these two were kept do not tell what they are of.
        same = comparable and about.get("training") == training and about.get("rows") == hashed_rows(data)
        return found if same else None

    return find


def read_results(path: Path, head: dict[str, Any]) -> dict[tuple[int, str], dict[str, float]]:
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


def default_folder(run: RunArguments, data: TaskData, arms: Arms | None = None) -> Path:
    """`runs/<data>-<model>-compare`; behind it what differs, where it is not given by a file of arms and is not --atom."""
    folder = default_output_dir(run, data, True).removesuffix("-atom") + "-compare"
    if arms is not None and arms.is_pair:
        differs = "-".join(f"{name}-{shown_value(values[1])}" for name, values in arms.differences.items())
        name = re.sub(r"[^\w.=+-]+", "_", differs)
        folder += f"-{name if len(name) <= LONGEST_NAME else hashed(arms.changes)}"
    return Path(folder)
