"""Trainers of tiny models, and what is compared of their runs."""

import torch
from transformers import TrainerCallback

from atom_hf import AtomTrainer
from helpers.models import collator_for, make_tokenizer, rows_for, tiny
from helpers.naive import naive_constraint, naive_energy


def arguments(folder, cls=None, **options):
    """Arguments of a run of three steps of four samples, in the order of the rows, that prints and saves nothing.

    The form is the paper's, where the heads and the model learn from each other; test_separation.py has the other's tests.
    """
    from atom_hf import AtomArguments, AtomTrainingArguments

    quiet = {"report_to": [], "disable_tqdm": True, "dataloader_pin_memory": False, "save_strategy": "no"}
    short = {"max_steps": 3, "per_device_train_batch_size": 4, "logging_steps": 1, "learning_rate": 1e-3}
    fixed = {"use_cpu": True, "train_sampling_strategy": "sequential"}
    cls = cls or AtomTrainingArguments
    if issubclass(cls, AtomArguments):
        fixed["atom_form"] = "paper"
    return cls(output_dir=str(folder), **{**quiet, **short, **fixed, **options})


# The atom term as a plain weighted sum, felt by the model from the first step to the last.
SUM = {"atom": True, "atom_weighting": "absolute", "atom_warmup_ratio": 0.0, "atom_schedule": "constant"}
LOGGED = {
    *("task_loss", "atom_loss", "atom_energy", "atom_constraint", "atom_importance", "atom_positive_share"),
    *("atom_negative_share", "atom_distance", "atom_radius", "atom_net_charge", "atom_gradient_scale"),
}
NOT_THE_SAME_TWICE = ("runtime", "per_second")


def make(name, folder, *, model=None, rows=None, cls=AtomTrainer, dropout=0.0, pieces=(), **options):
    """A trainer of the tiny model `name`; `pieces` are arguments of the trainer, `options` of its arguments."""
    pieces = dict(pieces)
    if "model_init" not in pieces:
        pieces["model"] = model or tiny(name, dropout=dropout)
    if name != "vit":
        pieces.setdefault("processing_class", make_tokenizer())
    rows = rows_for(name) if rows is None else rows
    args = pieces.pop("args", None) or arguments(folder, **options)
    return cls(args=args, train_dataset=rows, data_collator=collator_for(name), **pieces)


def train(*args, **options):
    trainer = make(*args, **options)
    trainer.train()
    return trainer


def backbone(trainer):
    return {key: value for key, value in trainer.model.state_dict().items() if "atom_heads" not in key}


def heads(trainer):
    return {key: value.clone() for key, value in trainer.model.state_dict().items() if "atom_heads" in key}


def equal(a, b):
    return list(a) == list(b) and all(torch.equal(a[key], b[key]) for key in a)


def close(a, b):
    """Whether two trainers hold the same weights but for rounding, by whatever names."""
    pairs = zip(a.model.state_dict().values(), b.model.state_dict().values(), strict=True)
    return all(torch.allclose(one, other, rtol=0, atol=1e-6) for one, other in pairs)


def history(trainer):
    """The log, without what a clock measures."""
    return [
        {k: v for k, v in entry.items() if not k.endswith(NOT_THE_SAME_TWICE)} for entry in trainer.state.log_history
    ]


class Gradients(TrainerCallback):
    """Keeps the gradients of each optimizer step."""

    def __init__(self):
        self.steps = []

    def on_pre_optimizer_step(self, args, state, control, model, **kwargs):
        self.steps.append({n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None})


def naive_atom_loss(model, batch):
    """Energy and constraint by the loops of naive.py, from hidden states and head weights, in float64."""
    config = model.atom_config
    with torch.no_grad():
        states = model(**batch, output_hidden_states=True).hidden_states[config.layer].double()
        tokens = states - states.mean(-1, keepdim=True)
        tokens = tokens / (tokens.square().mean(-1, keepdim=True) + 1e-5).sqrt()
        weights = {name: tensor.double() for name, tensor in model.atom_heads.state_dict().items()}
        charge = tokens @ weights["importance.weight"].T + weights["importance.bias"]
        importance = (2 * torch.sigmoid(charge.squeeze(-1)) - 1).tolist()
        position = (tokens @ weights["position.weight"].T + weights["position.bias"]).tolist()
    mask = (~model.atom_importance(**batch).isnan()).tolist()
    reduction = config.token_reduction
    energy, _ = naive_energy(importance, position, mask, softening=config.softening, token_reduction=reduction)
    limits = {name: getattr(config, name) for name in ("neutrality", "charge_floor", "charge_floor_weight")}
    return energy, naive_constraint(importance, mask, token_reduction=reduction, **limits)


def mean_loss(outputs, labels, num_items_in_batch=None):
    loss = torch.nn.functional.cross_entropy(outputs["logits"], labels, reduction="sum")
    return loss / (len(labels) if num_items_in_batch is None else num_items_in_batch)
