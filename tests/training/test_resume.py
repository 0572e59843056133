"""Runs that are killed and resumed, checkpoints that must not be resumed from, and the best model of a run.

Run as a program, this file is the run that is killed: `python tests/training/test_resume.py MODEL FOLDER`.
"""

import json
import os
import signal
import subprocess
import sys

import pytest
import torch
from transformers import EarlyStoppingCallback, PreTrainedModel, TrainerCallback

from atom_hf import AtomError, load_atom_model
from helpers.models import batch_for, rows_for, tiny
from helpers.paths import environment
from helpers.training import equal, history, make

# The second checkpoint stands in the middle of an epoch of four steps; dropout needs the random numbers to be restored,
# and the relative weight what the balancer has measured.
RUN = {"save_strategy": "steps", "save_steps": 3, "max_steps": 9, "train_sampling_strategy": "random", "dropout": 0.1}
ATOM = {"atom": True, "atom_weighting": "relative", "atom_weight": 0.5, "atom_warmup_ratio": 0.2}


class Killed(TrainerCallback):
    """A machine that goes down: no handler runs and no file is closed."""

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == 8:
            os.kill(os.getpid(), signal.SIGKILL)


@pytest.fixture(scope="module")
def killed(tmp_path_factory):
    """The folders of a run of each model that was killed at its eighth step, by the model's name."""
    folders = {name: tmp_path_factory.mktemp(name) for name in ("bert", "vit")}
    runs = [
        subprocess.Popen([sys.executable, __file__, name, str(folder)], stdout=subprocess.DEVNULL, env=environment())
        for name, folder in folders.items()
    ]
    assert [run.wait(timeout=180) for run in runs] == [-signal.SIGKILL] * 2
    return folders


def same(a, b):
    """Whether two nested states are equal to the bit."""
    if isinstance(a, dict):
        return list(a) == list(b) and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    return torch.equal(a, b) if torch.is_tensor(a) else a == b


@pytest.mark.promise("A killed run resumes as if it had not been interrupted.")
@pytest.mark.parametrize("name", ["bert", "vit"])
def test_a_killed_run_goes_on_as_if_left_alone(name, killed, tmp_path):
    folder = killed[name]
    assert sorted(path.name for path in folder.iterdir()) == ["checkpoint-3", "checkpoint-6"]
    # Made from other weights, so that whatever is not restored shows.
    resumed = make(name, folder, model=tiny(name, seed=9, dropout=0.1), **RUN, **ATOM)
    for parameter in resumed.model.atom_heads.parameters():
        parameter.data.add_(1)
    resumed.train(resume_from_checkpoint=True)

    alone = make(name, tmp_path, **RUN, **ATOM)
    alone.train()
    assert equal(resumed.model.state_dict(), alone.model.state_dict())
    assert resumed.model.atom_balancer.state() == alone.model.atom_balancer.state()
    assert resumed.model.atom_balancer.state()["steps"] == 9

    ours, expected = (trainer.optimizer.state_dict() for trainer in (resumed, alone))
    assert same(ours, expected) and len(expected["state"]) == len(list(alone.model.parameters()))
    assert [entry for entry in history(resumed) if "loss" in entry] == [e for e in history(alone) if "loss" in e]


def test_a_checkpoint_holds_heads_and_balancer(killed):
    checkpoint = killed["bert"] / "checkpoint-6"
    model = load_atom_model(checkpoint)
    assert not model.atom_importance(**batch_for("bert")).isnan().all()
    state = json.loads((checkpoint / "atom_state.json").read_text())
    assert state["steps"] == 6 and state["task_norm"] > 0 and state["atom_norm"] > 0


@pytest.mark.promise("A killed run resumes as if it had not been interrupted.")
def test_a_checkpoint_in_shards_is_loaded_and_resumed(tmp_path, monkeypatch):
    # As one of a model of more than 50 GB is.
    whole = PreTrainedModel.save_pretrained
    monkeypatch.setattr(
        PreTrainedModel, "save_pretrained", lambda self, folder, **k: whole(self, folder, **k, max_shard_size="20KB")
    )
    alone = make("bert", tmp_path, **RUN, **ATOM)
    alone.train()
    checkpoint = tmp_path / "checkpoint-6"
    assert len(list(checkpoint.glob("model-*.safetensors"))) > 3
    resumed = make("bert", tmp_path / "resumed", model=tiny("bert", seed=9, dropout=0.1), **RUN, **ATOM)
    resumed.train(resume_from_checkpoint=str(checkpoint))
    assert equal(resumed.model.state_dict(), alone.model.state_dict())
    last = load_atom_model(tmp_path / "checkpoint-9")
    assert equal(last.state_dict(), alone.model.state_dict())


@pytest.mark.promise("A checkpoint of another run, or one that is incomplete, is not resumed from.")
def test_a_checkpoint_of_a_plain_run_is_rejected(tmp_path):
    make("bert", tmp_path, max_steps=2, save_strategy="steps", save_steps=1).train()
    trainer = make("bert", tmp_path, max_steps=3, **ATOM)
    before = {key: value.clone() for key, value in trainer.model.state_dict().items()}
    for given in (True, str(tmp_path / "checkpoint-1")):
        with pytest.raises(AtomError, match=r"resume_from_checkpoint: .*checkpoint-.*without --atom"):
            trainer.train(resume_from_checkpoint=given)
    assert equal(before, trainer.model.state_dict()) and trainer.state.global_step == 0


@pytest.mark.promise(
    "What is saved is the plain base model and its heads: it loads without this package, and with it as it was."
)
@pytest.mark.parametrize("name", ["bert", "vit"])
def test_the_best_model_comes_back_with_its_heads(name, tmp_path):
    scores = iter([0.1, 0.9, 0.2, 0.3])
    pieces = {"eval_dataset": rows_for(name)[:4], "compute_metrics": lambda found: {"score": next(scores)}}
    best = {"load_best_model_at_end": True, "metric_for_best_model": "score", "eval_strategy": "steps", "eval_steps": 1}
    trainer = make(name, tmp_path, pieces=pieces, **best, **{**RUN, "save_steps": 1, "max_steps": 4}, **ATOM)
    trainer.train()
    second, last = (load_atom_model(tmp_path / f"checkpoint-{step}") for step in (2, 4))
    assert not equal(second.atom_heads.state_dict(), last.atom_heads.state_dict())
    assert equal(trainer.model.state_dict(), second.state_dict())

    trainer.save_model(tmp_path / "final")
    assert (tmp_path / "final" / "atom_heads.safetensors").exists()
    assert equal(load_atom_model(tmp_path / "final").state_dict(), second.state_dict())


@pytest.mark.parametrize("atom", [{}, ATOM])
def test_early_stopping_goes_by_the_task_alone(atom, tmp_path):
    # The task's loss on other rows rises from the first step on, at a rate this large; the atom loss is not in it.
    pieces = {"eval_dataset": rows_for("bert")[8:], "callbacks": [EarlyStoppingCallback(2)]}
    stop = {"load_best_model_at_end": True, "metric_for_best_model": "loss", "eval_strategy": "steps", "eval_steps": 1}
    options = {**RUN, "save_steps": 1, "max_steps": 8, "learning_rate": 0.3}
    trainer = make("bert", tmp_path, rows=rows_for("bert")[:8], pieces=pieces, **stop, **options, **atom)
    trainer.train()
    losses = [entry["eval_loss"] for entry in history(trainer) if "eval_loss" in entry]
    best = losses.index(min(losses))
    assert trainer.state.global_step == len(losses) == best + 3 < 8
    assert trainer.evaluate()["eval_loss"] == pytest.approx(min(losses), rel=1e-5)
    plain = trainer.model if not atom else load_atom_model(tmp_path / f"checkpoint-{best + 1}")
    assert equal(trainer.model.state_dict(), plain.state_dict())


if __name__ == "__main__":
    make(sys.argv[1], sys.argv[2], pieces={"callbacks": [Killed()]}, **RUN, **ATOM).train()


@pytest.mark.parametrize("name", ["bert", "vit"])
def test_a_finished_model_is_called_that_and_not_a_checkpoint_of_a_plain_run(name, tmp_path):
    trainer = make(name, tmp_path / "run", max_steps=1, **ATOM)
    trainer.train()
    trainer.save_model(str(tmp_path / "final"))
    with pytest.raises(
        AtomError, match=r"resume_from_checkpoint: .*final holds a finished model, without the state of a run"
    ):
        make(name, tmp_path / "again", **ATOM).train(resume_from_checkpoint=str(tmp_path / "final"))


def test_the_state_of_a_checkpoint_is_whole_or_not_there(tmp_path, monkeypatch):
    trainer = make("bert", tmp_path, max_steps=1, save_strategy="steps", save_steps=1, **ATOM)
    real = os.fsync

    def fsync(opened):
        if os.path.basename(os.readlink(f"/proc/self/fd/{opened}")).startswith(".atom_state"):
            raise OSError(28, "No space left on device")
        real(opened)

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(AtomError, match=r"atom_state\.json could not be written: No space left on device"):
        trainer.train()
    names = {path.name for path in (tmp_path / "checkpoint-1").iterdir()}
    assert not [name for name in names if "atom_state" in name] and "trainer_state.json" not in names


def test_a_trainer_that_saves_a_model_of_nans_says_so(tmp_path, caplog):
    trainer = make("bert", tmp_path / "run", **ATOM)
    trainer.model.classifier.bias.data[0] = float("nan")
    with caplog.at_level("WARNING"):
        trainer.save_model(str(tmp_path / "model"))
    assert "model: the saved model holds numbers that are not finite (NaN), in classifier.bias" in caplog.text


@pytest.mark.parametrize("writer", ["torch.save", "transformers.BertTokenizer.save_pretrained"])
def test_a_save_that_fails_after_the_model_leaves_model_and_tokenizer_as_they_were(tmp_path, monkeypatch, writer):
    make("bert", tmp_path / "run", **ATOM).save_model(str(tmp_path / "model"))
    before = {path.name: path.read_bytes() for path in (tmp_path / "model").iterdir()}
    assert {"tokenizer.json", "training_args.bin", "atom_heads.safetensors"} <= before.keys()

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(writer, full)
    other = make("bert", tmp_path / "run", model=tiny("bert", seed=9), **ATOM)
    with pytest.raises(
        AtomError, match=r"model could not be written to: No space left on device; what was there is unchanged"
    ):
        other.save_model(str(tmp_path / "model"))
    assert {path.name: path.read_bytes() for path in (tmp_path / "model").iterdir()} == before


def test_a_push_that_cannot_be_prepared_costs_neither_the_run_nor_room(tmp_path, monkeypatch, caplog):
    trainer = make("bert", tmp_path, hub_strategy="checkpoint", **ATOM)
    trainer.push_in_progress = None

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("torch.save", full)
    with caplog.at_level("ERROR"):
        trainer._push_from_checkpoint(str(tmp_path / "checkpoint-0"))
    assert "is not pushed, for which it could not be copied: No space left on device" in caplog.text
    assert not list(tmp_path.glob("_push-*")) and trainer.push_in_progress is None
