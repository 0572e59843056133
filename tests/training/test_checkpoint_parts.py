"""Checkpoints with a damaged or foreign part: rejected before the run resumes, and nothing in them is run."""

import json
import os
import pickle
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from atom_hf import AtomError
from atom_hf.training.checkpoint_parts import check_fits, check_parts
from helpers.models import tiny
from helpers.training import SUM, make

pytestmark = pytest.mark.promise(
    "A checkpoint of another run, or one that is incomplete, is not resumed from.",
    "parts that are cut, missing, foreign or pickled, with the flag and without",
)


class Payload:
    """What would make a folder when it is unpickled."""

    def __init__(self, folder):
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (str(self.folder),)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    make("bert", folder, save_strategy="steps", save_steps=2, max_steps=2, **SUM).train()
    return folder


@pytest.fixture
def checkpoint(run, tmp_path):
    return shutil.copytree(run / "checkpoint-2", tmp_path / "checkpoint-2")


def cut(file):
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def replace(content):
    return lambda file: file.write_bytes(content)


def saved(content):
    return lambda file: torch.save(content, file)


def change(**values):
    return lambda file: file.write_text(json.dumps({**json.loads(file.read_text()), **values}))


DAMAGES = [
    ("optimizer.pt", cut),
    ("optimizer.pt", replace(b"")),
    ("optimizer.pt", saved({"step": torch.ones(1)})),
    ("optimizer.pt", saved([1])),
    ("scheduler.pt", cut),
    ("scheduler.pt", replace(b"PK\x05\x06" + bytes(18))),
    ("rng_state.pth", cut),
    ("rng_state.pth", saved({"python": 1})),
    ("model.safetensors", cut),
    ("model.safetensors", replace(b"<html>404</html>")),
    ("trainer_state.json", cut),
    ("trainer_state.json", replace(b"[" * 5000)),
    ("trainer_state.json", change(global_step="two")),
    ("trainer_state.json", change(unheard_of=1)),
    ("atom_state.json", cut),
    ("atom_state.json", change(scale="wide")),
    ("atom_state.json", replace(b"{}")),
]


@pytest.mark.parametrize(("name", "damage"), DAMAGES, ids=[f"{name}-{i}" for i, (name, _) in enumerate(DAMAGES)])
def test_a_damaged_part_is_named(name, damage, checkpoint, tmp_path):
    damage(checkpoint / name)
    trainer = make("bert", tmp_path, max_steps=3, **SUM)
    with pytest.raises(AtomError) as caught:
        trainer.train(resume_from_checkpoint=str(checkpoint))
    text = str(caught.value)
    assert name in text and str(checkpoint) in text and "\n" not in text
    assert trainer.state.global_step in (0, 2)  # none of its own


@pytest.mark.parametrize("wrapped", [False, True], ids=["a pickle", "a pickle within torch.save"])
@pytest.mark.parametrize("name", ["optimizer.pt", "scheduler.pt", "rng_state.pth", "scaler.pt", "pytorch_model.bin"])
def test_a_pickle_is_never_run(name, wrapped, checkpoint, tmp_path):
    made = tmp_path / "made by the payload"
    content = {"state": Payload(made)}
    if wrapped:
        torch.save(content, checkpoint / name)
    else:
        (checkpoint / name).write_bytes(pickle.dumps(content))
    with pytest.raises(AtomError, match=f"{name} cannot be read: it is .*; resume from another checkpoint, or start"):
        check_parts(str(checkpoint))
    assert not made.exists()
    pickle.loads(pickle.dumps(content))  # it would have
    assert made.exists()


def test_a_whole_checkpoint_passes(checkpoint, tmp_path):
    check_parts(str(checkpoint))
    trainer = make("bert", tmp_path, max_steps=3, **SUM)
    check_fits(str(checkpoint), trainer.model)
    trainer.train(resume_from_checkpoint=str(checkpoint))
    assert trainer.state.global_step == 3


def test_a_checkpoint_of_another_model_is_named(checkpoint):
    weights = load_file(checkpoint / "model.safetensors")
    name = "bert.embeddings.word_embeddings.weight"
    weights[name] = weights[name][:-1].contiguous()
    save_file(weights, checkpoint / "model.safetensors")
    with pytest.raises(AtomError, match=f"holds another model: {name} is .* there, and .* in this run; give the flags"):
        check_fits(str(checkpoint), tiny("bert"))
