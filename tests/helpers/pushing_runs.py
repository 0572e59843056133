"""Runs that push while they train, step by step."""

from helpers.hub_server import READER, TOKEN

WRITER = {"HF_TOKEN": TOKEN}
PLAIN = {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"}
ATOMS = {"atom_config.json", "atom_heads.safetensors"}
STATE = {"atom_state.json", "optimizer.pt", "rng_state.pth", "scheduler.pt", "trainer_state.json"}


def train(output_dir, *arguments, steps=4, **environment):
    fixed = ["--model", "org/base", "--dataset", "org/data", "--atom", "--per_device_train_batch_size", "4"]
    saving = ["--no_explainer", "--max_steps", str(steps), "--save_steps", "2", "--save_strategy", "steps"]
    return {"arguments": ["train", *fixed, *saving, "--output_dir", output_dir, *arguments], "environment": environment}


def strategy(strategy, name=None):
    return (
        "--push_to_hub",
        "--hub_model_id",
        f"org/{name or strategy}",
        "--hub_strategy",
        strategy,
        "--hub_always_push",
    )


def python(code, **environment):
    return {"python": code, "environment": environment}


BEST = ("--eval_strategy", "steps", "--eval_steps", "2", "--load_best_model_at_end", "true")
FETCH = """
import huggingface_hub
first = next(commit for name, _, _, commit in tell_hub("log", None)["log"] if name == "org/NAME")
huggingface_hub.snapshot_download("org/NAME", revision=first, local_dir="fetched-NAME")
"""
# Pushes in the background wait until training is over.
BUSY = """
import threading
from transformers.utils.hub import hf_api
from atom_hf import AtomTrainer
over, finish = threading.Event(), AtomTrainer._finish_current_push
hf_api().run_as_future(over.wait)
AtomTrainer._finish_current_push = lambda self: (over.set(), finish(self))
found = main(ARGUMENTS)
AtomTrainer._finish_current_push = finish
"""


def steps():
    """What is done, one after the other, by its name."""
    commit_cut = [{"pattern": "POST .*/commit/", "times": 1, "cut_after": 50}]
    named = {
        "alone": train("alone"),
        **{
            name: train(name, *strategy(name), **WRITER)
            for name in ("end", "every_save", "checkpoint", "all_checkpoints")
        },
        "given token": train("given", "--push_to_hub", "--hub_model_id", "org/given", "--hub_token", TOKEN, steps=2),
        "cut": {
            **train("cut", *strategy("every_save")[:2], "org/cut", *strategy("every_save")[3:], **WRITER),
            "faults": commit_cut,
        },
        "private": train("private", *strategy("end", "private"), "--hub_private_repo", "true", steps=2, **WRITER),
        "no token": train("none", "--push_to_hub", "--hub_model_id", "org/none"),
        "reader": train("none", "--push_to_hub", "--hub_model_id", "org/open", HF_TOKEN=READER),
        "bad name": train("none", "--push_to_hub", "--hub_model_id", "a/b/c", **WRITER),
        "plain, reader": train(
            "none", "--push_to_hub", "--hub_model_id", "org/none", "--atom", "false", HF_TOKEN=READER
        ),
        "plain": train(
            *("plain", "--push_to_hub", "--hub_model_id", "org/plain", "--atom", "false", f"--hub_token={TOKEN}"),
            steps=2,
        ),
        "private token": train("none", "--hub_private_repo", TOKEN),
        "two tokens": train("none", "--hub_token", "--push_to_hub"),
        "cut, all": {
            **train("cut-all", *strategy("all_checkpoints", "cut-all"), *BEST, "--save_total_limit", "1", **WRITER),
            "faults": commit_cut,
        },
    }
    end_cut = [{"pattern": "POST .*/commit/", "times": 99, "cut_after": 50}]
    named["end cut"] = {**train("end-cut", *strategy("end", "end-cut"), steps=2, **WRITER), "faults": end_cut}
    named["end again"] = {"arguments": [], "environment": WRITER, "faults": []}
    named["end again"]["arguments"] = ["push", "end-cut", "--repo", "org/end-cut"]
    # Both kinds of checkpoint, fetched as they were after two steps of four, and trained on to the fourth.
    for name, checkpoint in (("checkpoint", "last-checkpoint"), ("all_checkpoints", "checkpoint-2")):
        named[f"fetch {name}"] = python(FETCH.replace("NAME", name))
        named[f"resume {name}"] = train(f"resumed-{name}", "--resume_from_checkpoint", f"fetched-{name}/{checkpoint}")
    # On in the folder that was pulled, whose own last-checkpoint is the older one.
    named["copy"] = python("import shutil; shutil.copytree('fetched-checkpoint', 'on')")
    on = ("--resume_from_checkpoint", "on/last-checkpoint")
    named["on"] = train("on", *strategy("checkpoint", "on"), *on, **WRITER)
    half = ["push", "fetched-all_checkpoints/checkpoint-2", "--repo", "org/half"]
    named["half"] = {"arguments": half, "environment": WRITER}
    for name in ("optimizer.pt", "scheduler.pt", "rng_state.pth"):
        spoil = f"shutil.copytree('fetched-checkpoint/last-checkpoint', 'no-{name}'); os.remove('no-{name}/{name}')"
        named[f"spoil {name}"] = python(f"import shutil; {spoil}")
        named[f"no {name}"] = train("again", "--resume_from_checkpoint", f"no-{name}")
    spoil = "[p.unlink() for n in ('optimizer.pt', 'scheduler.pt', 'rng_state.pth') for p in Path('stripped').glob(n)]"
    copy = "shutil.copytree('fetched-checkpoint/last-checkpoint', 'stripped')"
    named["strip"] = python(f"import shutil; from pathlib import Path; {copy}; {spoil}")
    named["stripped"] = train("again", "--resume_from_checkpoint", "stripped")
    named["busy"] = python(
        BUSY.replace("ARGUMENTS", repr(train("busy", *strategy("every_save", "busy")[:-1])["arguments"])), **WRITER
    )
    rotated = (*strategy("all_checkpoints", "rotated"), "--save_total_limit", "1")
    named["rotated"] = python(BUSY.replace("ARGUMENTS", repr(train("rotated", *rotated)["arguments"])), **WRITER)
    return named
