"""A loop of one's own, with Accelerate alone: the same steps as AtomTrainer's."""

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from transformers import AutoModelForSequenceClassification

from atom_hf import AtomConfig, AtomError, attach_atoms, load_atom_model
from atom_hf.training.custom_loop import atom_term, start_step
from helpers.documents import python_with, run_python
from helpers.models import batch_for, collator_for, make_tokenizer, rows_for, tiny
from helpers.training import backbone, equal, make

EXAMPLE = python_with("docs/trainers.md", "Accelerator")


def loader(name, count=12):
    return torch.utils.data.DataLoader(rows_for(name)[:count], batch_size=4, collate_fn=collator_for(name))


@pytest.mark.parametrize(
    "options", [{}, {"weighting": "absolute", "weight": 3.0}, {"warmup_ratio": 0.5, "weight": 1.0}]
)
@pytest.mark.parametrize("name", ["bert", "vit"])
def test_the_steps_are_those_of_the_trainer(name, options, tmp_path):
    rate = {"optim": "sgd", "learning_rate": 0.05, "lr_scheduler_type": "constant", "max_grad_norm": 0.0}
    flags = {"atom_" + key: value for key, value in {"head_learning_rate": 0.05, **options}.items()}
    trainer = make(name, tmp_path, atom=True, **rate, **flags)
    trainer.train()

    accelerator = Accelerator(cpu=True)
    torch.manual_seed(42)  # as the trainer does
    model = attach_atoms(tiny(name), AtomConfig(form="paper", **options), None if name == "vit" else make_tokenizer())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    model, optimizer, batches = accelerator.prepare(model, optimizer, loader(name))
    for step, batch in enumerate(batches):
        start_step(model, step / len(batches))
        outputs = model(**batch)
        accelerator.backward(outputs.loss + atom_term(model, outputs))
        optimizer.step()
        optimizer.zero_grad()
    for key, value in trainer.model.state_dict().items():
        torch.testing.assert_close(model.state_dict()[key], value, rtol=0, atol=1e-6, msg=key)
    assert not equal(backbone(trainer), tiny(name).state_dict())
    start_step(model, 1.0)
    assert model.atom_balancer.state() == pytest.approx(trainer.model.atom_balancer.state(), rel=1e-4)


def test_the_example_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    names = run_python(EXAMPLE, model=tiny("bert"), tokenizer=make_tokenizer(), loader=loader("bert"))
    batch = batch_for("bert")
    trained = names["model"].eval()
    assert not equal(tiny("bert").classifier.state_dict(), trained.classifier.state_dict())
    plain = AutoModelForSequenceClassification.from_pretrained("out").eval()
    assert torch.equal(plain(**batch).logits, trained(**batch).logits)
    assert torch.equal(
        load_atom_model("out").atom_importance(**batch).nan_to_num(9), trained.atom_importance(**batch).nan_to_num(9)
    )


def test_what_has_no_atoms_is_rejected():
    model, batch = tiny("bert"), batch_for("bert", labels=True)
    with pytest.raises(AtomError, match=r"outputs have no atoms"):
        atom_term(model, model(**batch))
    with pytest.raises(AtomError, match=r"no atoms attached; attach_atoms\(model\)"):
        start_step(model, 0.0)
    attach_atoms(model)
    with pytest.raises(AtomError, match=r"outputs have no atoms: in eval mode"):
        atom_term(model, model.eval()(**batch))


@pytest.fixture
def fresh_accelerate():
    """Accelerate's state is one for the process, and has one precision."""
    AcceleratorState._reset_state(reset_partial_state=True)
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


def test_accelerate_takes_its_own_wrapping_off_and_not_ours(fresh_accelerate):
    accelerator = Accelerator(cpu=True, mixed_precision="bf16")
    model = accelerator.prepare(attach_atoms(tiny("bert"), AtomConfig(), make_tokenizer()))
    assert "atoms" in model.train()(**batch_for("bert", labels=True))
    unwrapped = accelerator.unwrap_model(model, keep_fp32_wrapper=False)
    assert "atoms" in unwrapped.train()(**batch_for("bert", labels=True))
    assert unwrapped.atom_importance(**batch_for("bert")).shape == batch_for("bert")["input_ids"].shape
