"""The work of each process of a run, under accelerate launch or on its own: `python -m helpers.launched KIND FOLDER`.

KIND is a configuration of atom_hf/cli/accelerate_configs, for which each process writes what it found into FOLDER/rankN.pt, or
`killed`: a run that saves, until one of its processes is killed.
"""

import gc
import os
import signal
import sys
from pathlib import Path

import torch
import torch.distributed as dist
from transformers import TrainerCallback

from atom_hf import AtomError, AtomTrainer
from atom_hf.training.arguments import check_processes
from helpers.models import TEXT, collator_for, make_tokenizer, rows_for, tiny
from helpers.training import SUM, Gradients, arguments

# Thirteen rows in batches of eight over all processes: a whole batch, and one of five. At learning rates of 0 both meet the
# same weights.
ROWS = 13
STILL = {"learning_rate": 0.0, "atom_head_learning_rate": 0.0, "weight_decay": 0.0, "max_grad_norm": 0.0}
STEPS = {**SUM, **STILL, "atom_weight": 3.0, "max_steps": 2}
RELATIVE = {"atom_weighting": "relative"}  # where the balancer measures
SEPARATION = {"atom_form": "separation", "atom_weight": 0.5}  # as by default
MODELS = ("bert", "vit", "gpt2")
# Where the accelerator splits a last batch as it comes, rather than filling it up with rows of the first.
UNFILLED = {"accelerator_config": {"even_batches": False}}
# The order of rows, dropout and the relative weight all have a state that is to be restored.
SAVED = {"atom": True, "atom_weight": 0.5, "atom_warmup_ratio": 0.2, "atom_head_learning_rate": 1e-2, "max_steps": 6}
SAVED |= {"save_strategy": "steps", "save_steps": 2, "train_sampling_strategy": "random", "learning_rate": 1e-3}


def rows_of(name):
    """Numbered rows. Texts are short and long by turns of four, so that processes differ in their number of tokens."""
    rows = rows_for(name, 40)

    def lines(number, key):
        parts = [rows[other][key] for other in range(number, number + 24, 8)]
        return [token for part in (parts if number % 8 > 3 else parts[:1]) for token in part][:48]

    def columns(number):
        return {key: lines(number, key) if isinstance(value, list) else value for key, value in rows[number].items()}

    return [{"number": number, **columns(number)} for number in range(ROWS)]


def trainer_of(name, folder, *, rows=None, callbacks=(), seed=0, dropout=0.0, dtype=None, **options):
    """A trainer, and the list of the numbers of the rows of each batch that this process was given."""
    collate, seen = collator_for(name), []

    def collator(rows):
        seen.append([row["number"] for row in rows])
        return collate([{key: value for key, value in row.items() if key != "number"} for row in rows])

    fixed = {"per_device_train_batch_size": 8 // world_size(), "remove_unused_columns": False}
    args = arguments(folder, **{**fixed, **options})
    check_processes(args)
    trainer = AtomTrainer(
        model=tiny(name, seed=seed, dropout=dropout).to(dtype or torch.float32),
        args=args,
        train_dataset=rows_of(name) if rows is None else rows,
        data_collator=collator,
        processing_class=make_tokenizer() if name in TEXT else None,
        callbacks=list(callbacks),
    )
    return trainer, seen


def world_size():
    return int(os.environ.get("WORLD_SIZE", 1))


def one_process(name, numbers, folder, **more):
    """The gradients of a step of one process that holds just these rows, and its balancer."""
    gradients, rows = Gradients(), rows_of(name)
    options = {**STEPS, "max_steps": 1, "per_device_train_batch_size": len(numbers), **more}
    trainer, _ = trainer_of(name, folder, rows=[rows[n] for n in numbers], callbacks=[gradients], **options)
    trainer.train()
    return gradients.steps[0], trainer.model.atom_balancer.state()


class WholeGradients(TrainerCallback):
    """Keeps the gradients of each step, put together from what each process holds of them."""

    def __init__(self):
        self.steps, self.trainer = [], None

    def on_train_begin(self, args, state, control, **kwargs):
        if self.trainer.is_deepspeed_enabled:  # it takes its step at the end of the backward pass
            from deepspeed.utils import safe_get_full_grad

            engine, step = self.trainer.model_wrapped, self.trainer.model_wrapped.step

            def read_and_step(*args, **kwargs):
                self.keep({name: safe_get_full_grad(p) for name, p in engine.module.named_parameters()})
                return step(*args, **kwargs)

            engine.step = read_and_step

    def on_pre_optimizer_step(self, args, state, control, model, **kwargs):
        if not self.trainer.is_deepspeed_enabled:
            self.keep({name: p.grad for name, p in model.named_parameters()})

    def keep(self, gradients):
        found = {name: gradient for name, gradient in gradients.items() if gradient is not None}
        self.steps.append({n: g.full_tensor() if hasattr(g, "full_tensor") else g.clone() for n, g in found.items()})


class Traffic:
    """Keeps what this package sends to other processes: (the function that does, what it calls, numbers sent, their type).

    Calls by others (DDP's buckets, Trainer's bookkeeping) are left out, those that Accelerate makes for us are not.
    """

    SENT = {"all_gather": 1, "all_gather_into_tensor": 1, "all_reduce": 0, "reduce_scatter_tensor": 1, "broadcast": 0}

    def __init__(self):
        self.calls = []
        for name, position in self.SENT.items():
            setattr(dist, name, self.watched(name, getattr(dist, name), position))

    def watched(self, name, function, position):
        def call(*args, **kwargs):
            frame = sys._getframe(1)
            while frame.f_globals["__name__"].partition(".")[0] in ("torch", "accelerate"):
                frame = frame.f_back
            module = frame.f_globals["__name__"]
            if module.startswith("atom_hf"):
                where = f"{module.removeprefix('atom_hf.')}.{frame.f_code.co_name}"
                sent = args[position] if len(args) > position else kwargs.get("tensor", kwargs.get("input_tensor"))
                self.calls.append((where, name, sent.numel(), str(sent.dtype)))
            return function(*args, **kwargs)

        return call


def gradients_of(name, folder, traffic, **options):
    traffic.calls.clear()
    gradients = WholeGradients()
    trainer, seen = trainer_of(name, folder, callbacks=[gradients], **{**STEPS, **options})
    gradients.trainer = trainer
    trainer.train()
    sharded = any(hasattr(p, "full_tensor") or hasattr(p, "ds_id") for p in trainer.model.parameters())
    balancer = trainer.accelerator.unwrap_model(trainer.model).atom_balancer.state()
    found = {"steps": gradients.steps, "seen": seen[-2:], "balancer": balancer, "sharded": sharded}
    return {**found, "calls": list(traffic.calls)}


def buffers_of(name, folder, **options):
    """The running statistics after two steps of two batches, on processes with other rows."""
    sizes = {"per_device_train_batch_size": 4 // world_size(), "gradient_accumulation_steps": 2}
    trainer, _ = trainer_of(name, folder, rows=rows_of(name)[:8], **{**STEPS, **sizes, **options})
    trainer.train()
    return {name: buffer.clone() for name, buffer in trainer.model.named_buffers()}


def save_and_resume(folder, **options):
    """Two runs that must end alike, alone/ and resumed/: each writes its final model and what its balancer measured."""
    options = {**SAVED, "dropout": 0.1, **options}
    alone, _ = trainer_of("bert", folder / "alone", **options)
    alone.train()
    alone.save_model(folder / "alone" / "final")
    resumed, _ = trainer_of("bert", folder / "resumed", seed=9, **options)
    resumed.train(resume_from_checkpoint=str(folder / "alone" / "checkpoint-2"))
    resumed.save_model(folder / "resumed" / "final")
    return [run.accelerator.unwrap_model(run.model).atom_balancer.state() for run in (alone, resumed)]


class Killed(TrainerCallback):
    """The machine of the second process goes down: no handler runs and no file is closed."""

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == 5 and args.process_index == 1:
            os.kill(os.getpid(), signal.SIGKILL)


def killed(folder):
    trainer, _ = trainer_of("bert", folder, callbacks=[Killed()], dropout=0.1, **SAVED)
    trainer.train()


def main(kind, folder):
    if kind == "killed":
        return killed(folder)
    gc.freeze()  # each training looks for garbage, which is not in the libraries
    traffic, found = Traffic(), {}
    for name in MODELS:
        found[name] = gradients_of(name, folder, traffic)
        # The first eight rows in two batches, and pairs among all of them.
        sizes = {"per_device_train_batch_size": 4 // world_size(), "gradient_accumulation_steps": 2, "max_steps": 1}
        options = {"rows": rows_of(name)[:8], "atom_pair_batch": 8, **sizes}
        found[f"{name}, cached pairs"] = gradients_of(name, folder, traffic, **options)
        separation = [gradients_of(name, folder, traffic, **SEPARATION, **more) for more in ({}, options)]
        found[f"{name}, separation"] = [part["steps"] for part in separation]
        found[f"{name}, relative"] = gradients_of(name, folder, traffic, **RELATIVE)["balancer"]
    if kind == "ddp":
        found["buffers"] = [buffers_of("resnet", folder, **more) for more in ({}, {"atom_pair_batch": 8})]
        # Nothing is skipped where the weight is 0: DDP that looks for unused parameters no more would wait for them.
        options = {"ddp_find_unused_parameters": False, "atom_weight": 0.0}
        found["weight 0"] = gradients_of("bert", folder, traffic, **options)["steps"]
        found["gpt2, not filled up"] = gradients_of("gpt2", folder, traffic, **UNFILLED)
        if (folder / "killed").exists():
            found["weights"] = []
            for where, options in (("killed", {"resume_from_checkpoint": True}), ("whole", {})):
                trainer, _ = trainer_of("bert", folder / where, seed=9 * bool(options), dropout=0.1, **SAVED)
                trainer.train(**options)
                found["weights"].append(trainer.model.state_dict())
    else:
        found["gates"] = save_and_resume(folder / "float32")
        found["gates, bf16"] = save_and_resume(folder / "bf16", bf16=True)
        plain, _ = trainer_of("bert", folder / "plain", **{**SAVED, "atom": False})
        try:
            plain.train(resume_from_checkpoint=str(folder / "float32" / "alone" / "checkpoint-2"))
        except AtomError as error:
            found["error"] = str(error)
    if kind == "fsdp2":
        trainer, _ = trainer_of("bert", folder, dtype=torch.bfloat16, **SAVED)
        trainer.train()
        found["bfloat16"] = {str(p.dtype): bool(p.to_local().isfinite().all()) for p in trainer.model.parameters()}
    torch.save(found, folder / f"rank{dist.get_rank()}.pt")
    dist.destroy_process_group()


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
