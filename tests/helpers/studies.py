"""Tiny studies."""

import yaml

from atom_hf.experiments.study import StudyArguments, run_study
from atom_hf.utils.jsonl import read_lines

SIZES = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
DIGITS = {
    "model_type": "vit",
    "config_overrides": {"image_size": 8, "patch_size": 4, "num_channels": 1, **SIZES},
    "dataset": "digits",
    "max_eval_samples": 40,
    "per_device_train_batch_size": 8,
    "learning_rate": 5e-3,
    "sizes": {24: {"max_steps": 4}, 48: {"max_steps": 3}},
}
VERSE = {
    "model_type": "gpt2",
    "config_overrides": {"n_embd": 16, "n_layer": 1, "n_head": 2, "n_positions": 32},
    "vocabulary_size": 300,
    "dataset": "verse",
    "task": "causal-lm",
    "metric": "perplexity",
    "max_eval_samples": 12,
    "max_length": 32,
    "sizes": {16: {"max_steps": 2}},
}
ARMS = {"plain": {"atom": False}, "atom": {"atom": True}}
STUDY = {"title": "Two digits", "seeds": 2, "arms": ARMS, "settings": {"digits": DIGITS}}
SHORT = {**STUDY, "settings": {"digits": {**DIGITS, "sizes": {24: {"max_steps": 1}}}}}


def write(folder, content, name="study.yaml"):
    path = folder / name
    path.write_text(content if isinstance(content, str) else yaml.safe_dump(content, sort_keys=False))
    return str(path)


def with_setting(base=SHORT, **flags):
    """The study with its setting changed; a flag of None is taken out."""
    changed = {name: value for name, value in {**base["settings"]["digits"], **flags}.items() if value is not None}
    return {**base, "settings": {"digits": changed}}


def run(folder, content, **options):
    """The results of a study, in the order of its runs."""
    return run_study(write(folder, content), StudyArguments(**options))[1]


def keys(lines):
    return [(line["setting"], line["size"], line["arm"], line["seed"]) for line in lines]


def values(lines):
    """Without what a clock measures."""
    return [{name: value for name, value in line.items() if name != "seconds"} for line in lines]


def kept(folder):
    return read_lines(folder / "study" / "results.jsonl")
