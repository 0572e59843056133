"""Writes the model cards of the recipes into model_cards/: python recipes/cards.py

Each is made from the recipe's `atom.yaml` and its committed results, by the code that writes the card of a model that is
trained or pushed. Nothing is trained, and nothing is asked of the Hub.
"""

from pathlib import Path

import transformers

from atom_hf.builtin import BUILT_IN_DATASETS
from atom_hf.data.load import TaskData
from atom_hf.experiments.comparison_results import read_comparison
from atom_hf.finetune.arguments import RunArguments, load_run_data
from atom_hf.finetune.card_facts import run_facts
from atom_hf.finetune.flags import parse_flags
from atom_hf.finetune.metrics import IMPORTANCE_KEYS
from atom_hf.finetune.pretrained import AUTO_CLASSES, find_model, make_config, read_config
from atom_hf.finetune.run import IMPORTANCE_BATCHES
from atom_hf.hub.card import CardFacts, model_card, span
from atom_hf.hub.card_facts import pipeline_tag
from atom_hf.hub.card_run import training_facts
from atom_hf.training.arguments import AtomTrainingArguments
from atom_hf.utils.jsonl import RESULTS_NAME

HERE = Path(__file__).parent
CARDS = HERE.parent / "model_cards"
PREFACE = (
    "*The card of the recipe `recipes/{name}/atom.yaml`, made of its committed results. The weights of those runs were not "
    "kept: there is no model to load here, and the path below stands for one that you train or push yourself.*"
)
SHOWN_VERSIONS = ("transformers", "torch", "datasets", "accelerate")


def recipes() -> list[str]:
    """The names of the recipes that have results."""
    return sorted(file.parent.parent.name for file in HERE.glob(f"*/results/{RESULTS_NAME}"))


def recipe_facts(name: str) -> CardFacts:
    """What the card of a recipe says."""
    run, args = parse_flags(
        "train", ["--config", str(HERE / name / "atom.yaml")], [RunArguments, AtomTrainingArguments]
    )
    about, compared = read_comparison(HERE / name / "results")
    built_in = run.dataset in BUILT_IN_DATASETS
    rows = range(compared.train_samples), range(compared.eval_samples)
    data = load_run_data(run) if built_in else TaskData(about["data"], about["task"], *rows, labels=None)
    config = (
        make_config(run.model_type, run.config_overrides, {})
        if run.model is None
        else read_config(find_model(run.model), {})
    )
    model_class = getattr(transformers, AUTO_CLASSES[data.task])._model_mapping[type(config)].__name__
    found = run_facts(run, data, model_class)
    seeds = f"over {len(compared.seeds)} seeds"
    drawn = "The samples of each run were drawn by its seed." if run.max_train_samples or run.max_eval_samples else None
    found["data_notes"] = [note for note in (_origin(run), drawn) if note]
    if not built_in:
        # What was measured was measured on a local copy, and is no result on the Hub's own split.
        found |= {"datasets": [run.dataset], "dataset_id": None, "dataset_config": None, "eval_dataset_id": None}
    atom = compared.means["atom"]
    metrics = {key: value for key, value in atom.items() if key not in (*IMPORTANCE_KEYS, "epoch")}
    names = {key: found["metric_names"].get(key, key) for key in metrics}
    found["metric_names"] = {key: f"{shown}, mean {seeds}" for key, shown in names.items()}
    return CardFacts(
        **found,
        name=f"{name}-atom",
        model_class=model_class,
        pipeline_tag=pipeline_tag(model_class),
        inputs="image" if data.is_image else "text",
        channels=config.num_channels if data.is_image else None,
        has_processor=True,
        tags=["generated_from_trainer"],
        metrics=metrics,
        comparison=compared,
        importance={key: atom[key] for key in IMPORTANCE_KEYS},
        importance_of=f"On up to {IMPORTANCE_BATCHES} batches of the evaluation data, mean {seeds}",
        training={**training_facts(args), "seed": span(compared.seeds)},
        atoms=args.atom_config(),
        versions=_versions(),
        preface=PREFACE.format(name=name),
    )


def cards() -> dict[str, str]:
    """The text of each recipe's card, by the name of its file."""
    return {f"{name}.md": str(model_card(recipe_facts(name))) for name in recipes()}


def _origin(run: RunArguments) -> str | None:
    if run.dataset in BUILT_IN_DATASETS:
        return None
    config = f" (`{run.dataset_config}`)" if run.dataset_config else ""
    link = f"[{run.dataset}](https://huggingface.co/datasets/{run.dataset})"
    return f"It was a local copy of {link}{config}, or of a part of it: these are no results on a split of the Hub's."


def _versions() -> dict[str, str]:
    lines = (HERE.parent / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pinned = dict(line.split("==") for line in lines if "==" in line)
    return {name: pinned[name] for name in SHOWN_VERSIONS}


def main() -> None:
    for name, text in cards().items():
        (CARDS / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
