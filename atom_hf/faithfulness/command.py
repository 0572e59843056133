"""`atom-hf faithfulness`: measure methods x models x masking strategies, resumable."""

import importlib.util
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

from ..atoms.config import CONFIG_NAME
from ..data.load import TaskData
from ..errors import AtomError
from ..explainer.collect import in_words
from ..explainer.masking import IMAGE_MASKING, TEXT_MASKING
from ..finetune.arguments import DATA_FIELDS, RunArguments, load_run_data
from ..finetune.pretrained import find_model, load_network, load_processor
from ..hub.files import find_file
from ..modeling.inference import default_device
from ..modeling.layers import is_image_model
from ..modeling.load import load_atom_model
from ..utils.files import check_output_folder
from ..utils.jsonl import RESULTS_NAME, append_line, hashed, read_lines, start_lines
from ..utils.lock import lock_folder
from ..utils.quiet import quiet
from ..utils.terminal import get_logger
from .classifier import Classifier
from .estimate import Estimate, estimate
from .measure import check_samples, measure_cost, measure_samples, weights_of
from .methods import DEFAULT_METHODS, METHODS
from .report import write_report
from .samples import Samples

logger = get_logger(__name__)


@dataclass
class FaithfulnessArguments(RunArguments):
    """The models, the data and the methods to measure."""

    model: list[str] = field(
        default_factory=list,
        metadata={
            "help": "Models to measure, with heads or without: Hub ids or folders. Several count as seeds of one run."
        },
    )
    plain: list[str] = field(
        default_factory=list,
        metadata={"help": "Models fine-tuned on the same data without --atom, measured by the same methods."},
    )
    samples: int = field(default=200, metadata={"help": "Number of evaluation samples to measure on."})
    masking: str | None = field(
        default=None,
        metadata={
            "help": "Masking strategies, separated by commas: mask, drop (text) or mean, blur (images); both if not given."
        },
    )
    methods: str = field(
        default=",".join(DEFAULT_METHODS),
        metadata={"help": "The methods, separated by commas: " + ", ".join(METHODS).replace("%", "%%") + "."},
    )
    curve_steps: int = field(
        default=20, metadata={"help": "Maximum number of points of a deletion or insertion curve."}
    )
    perturbations: int = field(default=30, metadata={"help": "Number of random sets of tokens that infidelity masks."})
    check_samples: int = field(
        default=20,
        metadata={"help": "Number of samples for sensitivity and parameter randomization; 0 for none."},
    )
    output_dir: str | None = field(
        default=None,
        metadata={
            "help": "Folder of results.jsonl, report.md and faithfulness.png; runs/<data>-faithfulness by default."
        },
    )


def check_packages() -> None:
    """Raises `AtomError` for a missing package that measuring or plotting needs."""
    for package in ("captum", "matplotlib"):
        if importlib.util.find_spec(package) is None:
            raise AtomError(f"faithfulness needs {package}: pip install 'atom-hf[faithfulness]'")


def measure_faithfulness(run: FaithfulnessArguments) -> list[Path]:
    """Measures what is not measured yet, and writes the report. Returns the files that it wrote.

    Each measurement is a line in `results.jsonl` of the output folder; the same command resumes from there.

    Raises:
        AtomError: no model, an unknown method or masking strategy, a task without classes, a folder with results of other
            settings.
    """
    check_packages()
    methods = _check(run)
    data = load_run_data(run)
    if data.task == "causal-lm":
        raise AtomError("--task causal-lm: a language model predicts no class of a text; give data with labels")
    strategies = _strategies(run.masking, data)
    folder = Path(run.output_dir or os.path.join("runs", f"{data.name}-faithfulness"))
    check_output_folder(folder)
    with lock_folder(folder):
        return [_measure_all(run, methods, data, strategies, folder), *write_report(folder)]


def _measure_all(
    run: FaithfulnessArguments, methods: list[str], data: TaskData, strategies: list[str], folder: Path
) -> Path:
    """Measures what is not measured yet. Returns the file of the results."""
    rows = data.eval.shuffle(seed=0).select(range(min(run.samples, len(data.eval))))
    settings = {name: getattr(run, name) for name in ("dataset", *DATA_FIELDS, "max_length", *_SIZES)}
    head = {"kind": "head", "settings": hashed(settings), "data": data.name, "task": data.task, "samples": len(rows)}
    path = folder / RESULTS_NAME
    done = _done(path, head)
    models = [(name, arm) for arm, names in (("model", run.model), ("plain", run.plain)) for name in names]
    with quiet():
        # Each is loaded twice: one that cannot be measured is rejected before any other has been, and only one is in memory.
        used, takes = [], []
        for name, arm in models:
            classifier = _load(name, arm, data, run, strategies[0])
            used.append(len(_usable(methods, classifier)))
            _try(_usable(methods, classifier), classifier, data)
            takes.append(_estimate(classifier, _left(done, (name, arm), strategies, methods, classifier), rows, run))
    if passes := sum(part.passes for part in takes):
        told = f"{passes:,.0f}", in_words(sum(part.seconds for part in takes))
        logger.info("measuring takes about %s forward passes, about %s; a backward pass counts as two", *told)
    start_lines(path, head)
    with quiet(), tqdm(total=len(rows) * len(strategies) * sum(used), desc="faithfulness", unit="attribution") as bar:
        for seed, (name, arm) in enumerate(models):
            about = {"model": name, "arm": arm}
            classifier = _load(name, arm, data, run, strategies[0])
            _keep_weights(path, done, about, weights_of(classifier.model))
            before = None
            for strategy in strategies:
                classifier = Classifier(classifier.model, classifier.processor, strategy, run.max_length, seed)
                whole = {**about, "how": strategy}
                before = _measure_model(path, done, whole, classifier, rows, run, methods, strategies, bar, before)
    return path


_SIZES = ("samples", "curve_steps", "perturbations", "check_samples")


def _measure_model(
    path: Path,
    done: dict[tuple, set[int]],
    about: dict[str, str],
    classifier: Classifier,
    rows: Any,
    run: FaithfulnessArguments,
    methods: list[str],
    strategies: list[str],
    bar: tqdm,
    before: Samples | None,
) -> Samples | None:
    """Measures a model under one strategy. Returns its samples, for the next one, if anything was left to do."""
    samples = None
    for name in _usable(methods, classifier):
        method, line = METHODS[name], {**about, "method": name}
        block = (about["model"], about["arm"], about["how"], name)
        finished = done.get((*block, "sample"), set())
        if (*block, "end") in done:
            bar.update(len(rows))
            continue
        samples = samples or Samples(classifier, rows, like=before)
        classifier.generator.manual_seed(classifier.seed)
        bar.set_postfix_str(f"{os.path.basename(about['model'].rstrip('/'))}, {about['how']}, {name}")
        bar.update(len(rows) - len(samples.rows) + len(finished))
        left = [number for number in samples.rows if number not in finished]
        for found in measure_samples(method, samples, left, steps=run.curve_steps, perturbations=run.perturbations):
            append_line(path, {**line, **found})
            bar.update()
        # These hardly depend on the masking strategy.
        if about["how"] == strategies[0] and run.check_samples and not method.is_sampled:
            for found in check_samples(method, samples, run.check_samples):
                append_line(path, {**line, **found})
        append_line(path, {**line, **measure_cost(method, samples)})
    return samples or before


def _left(
    done: dict[tuple, Any], model: tuple[str, str], strategies: list[str], methods: list[str], classifier: Classifier
) -> dict[str, int]:
    """Under how many masking strategies each method is still to be measured."""
    return {
        name: sum((*model, how, name, "end") not in done for how in strategies) for name in _usable(methods, classifier)
    }


def _estimate(classifier: Classifier, left: dict[str, int], rows: Any, run: FaithfulnessArguments) -> Estimate:
    sizes = {"steps": run.curve_steps, "perturbations": run.perturbations, "checks": run.check_samples}
    return estimate(classifier, {METHODS[name]: times for name, times in left.items() if times}, rows, **sizes)


def _usable(methods: list[str], classifier: Classifier) -> list[str]:
    return [name for name in methods if classifier.has_heads or not METHODS[name].needs_heads]


def _check(run: FaithfulnessArguments) -> list[str]:
    if not run.model and not run.plain:
        raise AtomError("give --model: one or more folders or Hub ids of classifiers, with heads or without")
    for name in ("samples", "curve_steps", "perturbations"):
        if getattr(run, name) < 1:
            raise AtomError(f"--{name} must be at least 1, got {getattr(run, name)}")
    if run.check_samples < 0:
        raise AtomError(f"--check_samples must be at least 0, got {run.check_samples}")
    repeated = {name for names in (run.model, run.plain) for name in names if names.count(name) > 1}
    if repeated:
        raise AtomError(f"--model and --plain name each model once; {sorted(repeated)[0]!r} is there twice")
    methods = list(dict.fromkeys(part.strip() for part in run.methods.split(",") if part.strip()))
    unknown = [name for name in methods if name not in METHODS]
    if unknown or not methods:
        raise AtomError(f"--methods must be of {', '.join(METHODS)}; got {run.methods!r}")
    return methods


def _strategies(given: str | None, data: TaskData) -> list[str]:
    known = list(IMAGE_MASKING if data.is_image else TEXT_MASKING)
    strategies = (
        known if given is None else list(dict.fromkeys(part.strip() for part in given.split(",") if part.strip()))
    )
    if not strategies or set(strategies) - set(known):
        raise AtomError(f"--masking must be of {', '.join(known)} for {data.task}; got {given!r}")
    return strategies


def _load(name: str, arm: str, data: TaskData, run: FaithfulnessArguments, strategy: str) -> Classifier:
    source = find_model(name)
    revision = {"revision": run.model_revision} if run.model_revision else {}
    if arm == "model" and find_file(source, CONFIG_NAME, optional=True, **revision) is not None:
        model = load_atom_model(source, **revision)
    else:
        try:
            model = load_network(source, data.task, {}, None, revision)
        except AtomError as error:
            raise AtomError(str(error).replace(f"--model {source!r}", f"--{arm} {name!r}")) from error
        if type(model).__name__ not in (model.config.architectures or []):
            raise AtomError(
                f"--{arm} {name!r} has no trained classifier: fine-tune it first, and give the folder it went to"
            )
    if is_image_model(model) != data.is_image:
        raise AtomError(
            f"--{arm} {name!r} is a {type(model).__name__}, and --dataset {run.dataset!r} is for {data.task}"
        )
    model.to(default_device()).eval()
    flag = f"--{arm}"
    processor = load_processor(source if run.tokenizer is None else run.tokenizer, data.is_image, flag, **revision)
    return Classifier(model, processor, strategy, run.max_length)


def _try(methods: list[str], classifier: Classifier, data: TaskData) -> None:
    """Raises `AtomError` for a model whose tokens are not those of its input, or that lacks what a method needs."""
    inputs = classifier.encode([data.eval[0]])
    classifier.tokens(inputs)
    target, _ = classifier.predict(inputs)
    for name in methods:
        if not METHODS[name].is_sampled:
            METHODS[name](classifier, inputs, target)


def _done(path: Path, head: dict[str, Any]) -> dict[tuple, Any]:
    """Finished measurements: (model, arm, strategy, method, "sample") -> samples, (..., "end") of a whole block;
    (model, arm) -> weights."""
    lines = read_lines(path)
    if lines and lines[0].get("settings") != head["settings"]:
        raise AtomError(f"--output_dir {str(path.parent)!r} holds results of other settings; give another")
    done: dict[tuple, Any] = {}
    for line in lines[1:]:
        if line["kind"] == "weights":
            done[line["model"], line["arm"]] = line["weights"]
            continue
        block = line["model"], line["arm"], line["how"], line["method"]
        if line["kind"] == "sample":
            done.setdefault((*block, "sample"), set()).add(line["sample"])
        elif line["kind"] == "cost":  # the last line of a block
            done[*block, "end"] = True
    return done


def _keep_weights(path: Path, done: dict[tuple, Any], about: dict[str, str], weights: str) -> None:
    known = done.get((about["model"], about["arm"]))
    if known is None:
        append_line(path, {"kind": "weights", **about, "weights": weights})
    elif known != weights:
        raise AtomError(
            f"--output_dir {str(path.parent)!r} holds results of {about['model']!r} with other weights: it was trained again; "
            "give another folder"
        )
