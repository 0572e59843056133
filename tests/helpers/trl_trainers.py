"""Trainers of TRL with the flag, for tiny language models, and what their gradients are compared by."""

import copy

import pytest
import torch
from peft import LoraConfig
from tokenizers.processors import TemplateProcessing
from trl import DPOConfig, DPOTrainer, SFTConfig, SFTTrainer

from atom_hf import AtomArguments, AtomConfig, Atoms, AtomTrainerMixin, attach_atoms
from atom_hf.atoms.loss import atom_loss
from helpers.models import make_tokenizer, tiny, verse
from helpers.training import LOGGED, SUM, arguments, history

WEIGHT = 30.0
ONE_STEP = {**SUM, "atom_weight": WEIGHT, "max_steps": 1, "max_grad_norm": 0.0, "optim": "sgd"}


class SFTArguments(AtomArguments, SFTConfig):
    pass


class DPOArguments(AtomArguments, DPOConfig):
    pass


class AtomSFTTrainer(AtomTrainerMixin, SFTTrainer):
    pass


class AtomDPOTrainer(AtomTrainerMixin, DPOTrainer):
    pass


def with_atoms(model, seed=42, **options):
    torch.manual_seed(seed)  # 42 as the trainer does
    return attach_atoms(model, AtomConfig(weighting="absolute", **options), tokenizer())


def tokenizer():
    """As a language model's: nothing in front of a text, and an end."""
    made = copy.deepcopy(make_tokenizer())
    made.eos_token = "[SEP]"
    made.backend_tokenizer.post_processor = TemplateProcessing(single="$A", pair="$A $B")
    return made


def lines(count=16):
    return [row["text"] for row in verse(60)[:count]]


def halves(count=16):
    """Each line of verse in two: (first, second)."""
    words = [line.split() for line in lines(count)]
    return [(" ".join(line[: len(line) // 2]), " ".join(line[len(line) // 2 :])) for line in words]


def atom_term(packed):
    options = {"softening": 0.1, "neutrality": 1.0, "charge_floor": 0.5, "charge_floor_weight": 10.0}
    return atom_loss(Atoms.unpack(packed), **options).loss


def gradients_of(model):
    return {name: value.grad for name, value in model.named_parameters() if value.grad is not None}


def check_log(trainer, steps=3):
    logged = [entry for entry in history(trainer) if "loss" in entry]
    assert len(logged) == steps and all(set(entry) >= LOGGED for entry in logged)
    for entry in logged:
        weight = trainer.args.atom_config().weight
        assert entry["loss"] == pytest.approx(entry["task_loss"] + weight * entry["atom_loss"], rel=1e-4)


def sft_rows(count=16):
    from datasets import Dataset

    return Dataset.from_list([{"text": line} for line in lines(count)])


def preferences(count=8):
    """The end of a line is preferred to the same words in reverse."""
    from datasets import Dataset

    rows = [(first + " ", second) for first, second in halves(count)]
    return Dataset.from_list(
        [{"prompt": first, "chosen": end, "rejected": " ".join(end.split()[::-1])} for first, end in rows]
    )


def make_trl(kind, folder, model=None, cls=None, **options):
    cls = cls or {"sft": AtomSFTTrainer, "dpo": AtomDPOTrainer}[kind]
    kept = {
        name: options.pop(name) for name in ("callbacks", "ref_model", "eval_dataset", "peft_config") if name in options
    }
    config = {"sft": SFTArguments, "dpo": DPOArguments}[kind]
    return cls(
        model=tiny("gpt2") if model is None else model,
        args=arguments(folder, config, **{"bf16": False, "max_length": 48, **options}),
        train_dataset=sft_rows() if kind == "sft" else preferences(),
        processing_class=tokenizer(),
        **kept,
    )


def lora():
    return LoraConfig(r=4, target_modules="all-linear", fan_in_fan_out=True, task_type="CAUSAL_LM")
