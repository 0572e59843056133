"""Facts for a model card from a run's arguments and data."""

from pathlib import Path
from typing import Any

from ..builtin import BUILT_IN_DATASETS
from ..data.load import TaskData
from ..data.sources import short_name
from ..hub.card_facts import base_facts
from .arguments import RunArguments

GPT2 = "GPT2LMHeadModel"

GPT2_LOSS = (
    "Loss and perplexity are Trainer's, which divides a GPT-2's by one token too many per text (Transformers 5.23)."
)


def run_facts(run: RunArguments, data: TaskData, model_class: str) -> dict[str, Any]:
    """Facts from the arguments and the data that a trainer does not know, by the names of `CardFacts`."""
    found = {"from_scratch": True} if run.model is None else base_facts(run.model)
    if _is_named_by_id(run.dataset):
        found |= {"dataset_id": run.dataset, "dataset_config": run.dataset_config or None}
    if run.eval_dataset:
        found["eval_dataset"] = short_name(run.eval_dataset, None)
        found["eval_dataset_id"] = run.eval_dataset if _is_named_by_id(run.eval_dataset) else None
    notes = []
    if run.max_train_samples or run.max_eval_samples or data.splits[1] is None:
        how = "in proportion to the classes, " if data.labels else ""
        notes.append(f"Samples were drawn {how}with seed {run.sample_seed}.")
    if data.splits[1] is None:
        notes.append("The evaluation samples were held out of the same split.")
    if not data.is_image:
        notes.append(f"Texts were cut after {run.max_length} tokens.")
    if run.horizontal_flip:
        notes.append("Training images were mirrored at random.")
    is_lm = data.task == "causal-lm"
    return {
        **found,
        "dataset": data.name,
        "train_split": data.splits[0],
        "eval_split": data.splits[1],
        # As many as were asked for: whether the split has more is not known here.
        "eval_is_part": run.max_eval_samples is not None and len(data.eval) >= run.max_eval_samples,
        "train_samples": len(data.train),
        "eval_samples": len(data.eval),
        "labels": data.labels,
        "data_notes": notes,
        "metric_names": {} if is_lm else {"f1": "F1 (mean over classes)", "mcc": "Matthews correlation"},
        "limits": [GPT2_LOSS] if model_class == GPT2 else [],
    }


def _is_named_by_id(dataset: str) -> bool:
    return dataset not in BUILT_IN_DATASETS and not Path(dataset).expanduser().exists()
