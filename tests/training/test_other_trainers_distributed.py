"""Trainers of other libraries, and adapters, on two processes: they end as one process with the whole batch."""

import pytest
import torch
from accelerate import Accelerator
from datasets import Dataset
from peft import get_peft_model
from sentence_transformers.sentence_transformer import losses
from transformers import AutoModelForSequenceClassification

from atom_hf import AtomConfig, attach_atoms
from atom_hf.training.custom_loop import atom_term, start_step
from helpers.adapters import adapter
from helpers.models import collator_for, make_tokenizer, rows_for, tiny
from helpers.sentence_trainers import Arguments as SentenceArguments
from helpers.sentence_trainers import AtomSentenceTransformerTrainer, sentences
from helpers.training import arguments, make
from helpers.trl_trainers import ONE_STEP, halves, lora, make_trl

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore:.*gradient_checkpointing.*:FutureWarning")]

TRAINERS = ("sft", "dpo", "sft, LoRA", "BERT, prompt tuning", "sentences")
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


def run(key, folder, processes):
    """What a run ends with, and what it began with."""
    if key == "loop":
        return run_loop(processes)
    trainer = make_run(key, folder, processes)
    before = {name: value.clone() for name, value in trainer.model.state_dict().items()}
    trainer.train()
    return {
        "before": before,
        "weights": trainer.model.state_dict(),
        "balancer": trainer._atom_model.atom_balancer.state(),
    }


def run_loop(processes):
    """A loop with Accelerate alone."""
    accelerator = Accelerator(cpu=True)
    torch.manual_seed(1)
    model = attach_atoms(tiny("bert"), AtomConfig(weight=3.0), make_tokenizer())
    before = {name: value.clone() for name, value in model.state_dict().items()}
    rows = torch.utils.data.DataLoader(rows_for("bert"), batch_size=8 // processes, collate_fn=collator_for("bert"))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    model, optimizer, rows = accelerator.prepare(model, optimizer, rows)
    for step, batch in enumerate(rows):
        start_step(model, step / len(rows))
        outputs = model(**batch)
        accelerator.backward(outputs.loss + atom_term(model, outputs))
        optimizer.step()
        optimizer.zero_grad()
    start_step(model, 1.0)
    model = accelerator.unwrap_model(model)
    return {"before": before, "weights": model.state_dict(), "balancer": model.atom_balancer.state()}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    tiny("bert").save_pretrained(folder / "classifier")
    tiny("bert").bert.save_pretrained(folder / "bert")
    make_tokenizer().save_pretrained(folder / "bert")
    return folder


@pytest.mark.parametrize("key", [*TRAINERS, "loop"])
def test_two_processes_end_as_one_with_the_whole_batch(key, two_processes, folder):
    first, second = two_processes(run, key, folder, 2)
    alone = run(key, folder, processes=1)
    for name, value in alone["weights"].items():
        assert torch.equal(first["weights"][name], second["weights"][name])
        torch.testing.assert_close(first["weights"][name], value, rtol=0, atol=1e-5, msg=name)
    moved = {name for name, value in alone["weights"].items() if not torch.equal(value, alone["before"][name])}
    assert {name.rpartition("atom_heads.")[2] for name in moved if "atom_heads." in name} == {
        *("importance.weight", "importance.bias", "position.weight", "position.bias")
    }
    assert (
        first["balancer"]["scale"] == pytest.approx(alone["balancer"]["scale"], rel=1e-3)
        and first["balancer"]["atom_norm"] > 0
    )
