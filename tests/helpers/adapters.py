"""Adapters of all kinds on tiny models, with heads."""

import torch
from peft import IA3Config, LoraConfig, PromptTuningConfig, TaskType, get_peft_model

from atom_hf import AtomConfig, attach_atoms
from helpers.models import AUTO, tiny

TARGETS = {"bert": ["query", "value"], "gpt2": ["c_attn"]}
FEED_FORWARD = {"bert": ["intermediate.dense"], "gpt2": ["c_fc"]}


def adapter(kind, name):
    task = {"task_type": TaskType.SEQ_CLS if name == "bert" else TaskType.CAUSAL_LM}
    if kind == "lora":
        return LoraConfig(**task, r=4, target_modules=TARGETS[name], fan_in_fan_out=name == "gpt2")
    if kind == "all-linear":
        return LoraConfig(**task, r=4, target_modules="all-linear", fan_in_fan_out=name == "gpt2")
    if kind == "ia3":
        both = [*TARGETS[name], *FEED_FORWARD[name]]
        return IA3Config(
            **task, target_modules=both, feedforward_modules=FEED_FORWARD[name], fan_in_fan_out=name == "gpt2"
        )
    return PromptTuningConfig(**task, num_virtual_tokens=3)


def base(name, folder, seed=0):
    """A tiny model that has been saved, so that an adapter can name its base."""
    if not (folder / "base").exists():
        tiny(name, seed=seed).save_pretrained(folder / "base")
    return AUTO[name].from_pretrained(folder / "base")


def adapted(kind, name, folder, order="adapter first", seed=1, **config):
    """A PeftModel with its heads of the paper's form, and everything that was made at random made from `seed`."""
    model = base(name, folder)
    torch.manual_seed(seed)
    if order == "heads first":
        attach_atoms(model, AtomConfig(form="paper", **config))
        torch.manual_seed(seed)
        return attach_atoms(get_peft_model(model, adapter(kind, name)))
    model = get_peft_model(model, adapter(kind, name))
    torch.manual_seed(seed)
    return model if order == "by the trainer" else attach_atoms(model, AtomConfig(form="paper", **config))


def heads_of(model):
    return {name: value.clone() for name, value in model.get_base_model().atom_heads.state_dict().items()}
