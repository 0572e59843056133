"""Trainers of other libraries, and adapters, on two processes: they end as one process with the whole batch.

Run as a program under torchrun, this file is what each process does: `tests/test_other_trainers_distributed.py FOLDER`.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from conftest import make_tokenizer
from peft import get_peft_model
from test_adapters import adapter
from test_other_trainers import ONE_STEP, lora, make_trl
from test_sentence_transformers import Arguments as SentenceArguments
from test_sentence_transformers import AtomSentenceTransformerTrainer, Dataset, halves, losses, sentences
from test_trainer import arguments, make, tiny
from transformers import AutoModelForSequenceClassification

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore:.*gradient_checkpointing.*:FutureWarning")]

RUNS = ("sft", "dpo", "sft, LoRA", "BERT, prompt tuning", "sentences")
STEPS = {**ONE_STEP, "atom_weight": 3.0, "atom_weighting": "relative", "max_steps": 2, "learning_rate": 0.05}


class InOrder(AtomSentenceTransformerTrainer):
    """Takes rows as they come: sentence-transformers draws their order."""

    def get_batch_sampler(self, dataset, batch_size, drop_last, **kwargs):
        return torch.utils.data.BatchSampler(torch.utils.data.SequentialSampler(dataset), batch_size, drop_last)


def make_run(key, folder, processes):
    size = {"per_device_train_batch_size": 8 // processes}
    if key == "sft":
        return make_trl(key, folder, **STEPS, **size)
    if key == "dpo":
        return make_trl(key, folder, ref_model=tiny("gpt2", seed=5), **STEPS, **size)
    if key == "sft, LoRA":
        return make_trl("sft", folder, peft_config=lora(), **STEPS, **size)
    if key == "sentences":
        # Every sentence has its own score, so that the loss of a process does not depend on the samples of another.
        rows = [{"first": a, "second": b, "score": n / 16} for n, (a, b) in enumerate(halves())]
        model = sentences(folder / "bert")
        torch.manual_seed(1)
        args = arguments(folder, SentenceArguments, **STEPS, **size)
        loss = losses.CosineSimilarityLoss(model)
        return InOrder(model=model, args=args, train_dataset=Dataset.from_list(rows), loss=loss)
    torch.manual_seed(2)
    model = get_peft_model(
        AutoModelForSequenceClassification.from_pretrained(folder / "classifier"), adapter("prompt", "bert")
    )
    return make("bert", folder, model=model, **STEPS, **size)


def result(trainer):
    return {"weights": trainer.model.state_dict(), "gate": trainer._atom_model.atom_gate.state()}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    tiny("bert").save_pretrained(folder / "classifier")
    tiny("bert").bert.save_pretrained(folder / "bert")
    make_tokenizer().save_pretrained(folder / "bert")
    return folder


@pytest.fixture(scope="module")
def two_processes(folder):
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    run = subprocess.run([*launch, __file__, str(folder)], capture_output=True, text=True, timeout=300)
    assert run.returncode == 0, run.stderr[-3000:]
    return [torch.load(folder / f"rank{rank}.pt") for rank in (0, 1)]


@pytest.mark.parametrize("key", RUNS)
def test_two_processes_end_as_one_with_the_whole_batch(key, two_processes, folder):
    first, second = (found[key] for found in two_processes)
    trainer = make_run(key, folder, processes=1)
    before = {name: value.clone() for name, value in trainer.model.state_dict().items()}
    trainer.train()
    alone = result(trainer)
    for name, value in alone["weights"].items():
        assert torch.equal(first["weights"][name], second["weights"][name])
        torch.testing.assert_close(first["weights"][name], value, rtol=0, atol=1e-5, msg=name)
    moved = {name for name, value in alone["weights"].items() if not torch.equal(value, before[name])}
    assert {name.rpartition("atom_heads.")[2] for name in moved if "atom_heads." in name} == {
        *("importance.weight", "importance.bias", "position.weight", "position.bias")
    }
    assert first["gate"]["scale"] == pytest.approx(alone["gate"]["scale"], rel=1e-3) and first["gate"]["atom_norm"] > 0


if __name__ == "__main__":
    found = {}
    for key in RUNS:
        trainer = make_run(key, Path(sys.argv[1]), processes=2)
        trainer.train()
        found[key] = result(trainer)
    torch.save(found, Path(sys.argv[1], f"rank{os.environ['RANK']}.pt"))
    torch.distributed.destroy_process_group()
