"""Trainers fit an explainer to what they have trained: on which samples, what stays, what further training does."""

import random

import numpy as np
import pytest
import torch
from torch.utils.data import IterableDataset

from atom_hf import AtomConfig, AtomError, AtomTrainer, attach_atoms, load_atom_model
from atom_hf.explainer import descent, fit
from helpers.models import collator_for, make_tokenizer, rows_for, tiny
from helpers.training import arguments

FEW = {"copies": 1, "sets": 4}


def trainer_of(folder, name="bert", *, model=None, rows=None, **options):
    return AtomTrainer(
        model=tiny(name, dropout=0.1) if model is None else model,
        args=arguments(folder, **{"atom": True, "max_steps": 2, **options}),
        train_dataset=rows_for(name, 20) if rows is None else rows,
        eval_dataset=rows_for(name, 4),
        data_collator=collator_for(name),
        processing_class=make_tokenizer() if name != "vit" else None,
    )


def test_after_training_it_is_tied_by_training_samples_and_nothing_else_moves(tmp_path, few_steps):
    # A last batch that is not whole, and workers that wait for the evaluation data, must not keep samples away.
    options = {"per_device_eval_batch_size": 16, "dataloader_drop_last": True, "remove_unused_columns": False}
    workers = {"dataloader_num_workers": 1, "dataloader_persistent_workers": True}
    trainer = trainer_of(tmp_path, **options, **workers)
    trainer.train()
    assert trainer.model.atom_heads.explainer is None
    trainer.evaluate(rows_for("bert", 16))
    before = {key: value.clone() for key, value in trainer.model.state_dict().items()}
    generators = random.getstate(), np.random.get_state()[1].copy(), torch.get_rng_state()
    found = trainer.fit_explainer(**FEW)
    assert found.samples == 20 and trainer.args.dataloader_drop_last
    assert random.getstate() == generators[0] and (np.random.get_state()[1] == generators[1]).all()
    assert torch.equal(torch.get_rng_state(), generators[2])
    after = trainer.model.state_dict()
    assert all(torch.equal(value, after[key]) for key, value in before.items()) and len(after) > len(before)
    trainer.save_model(tmp_path / "final")
    batch = {key: value for key, value in collator_for("bert")(rows_for("bert", 4)).items() if key != "labels"}
    loaded = load_atom_model(tmp_path / "final").atom_importance(**batch)
    assert torch.equal(trainer.model.atom_importance(**batch).nan_to_num(), loaded.nan_to_num())


def test_training_further_takes_it_away_and_resumes(tmp_path, few_steps):
    trainer = trainer_of(tmp_path / "run", save_strategy="steps", save_steps=1)
    trainer.train()
    trainer.fit_explainer(16, **FEW)
    trainer.save_model(tmp_path / "final")
    # A trainer that only evaluates and saves leaves it.
    again = trainer_of(tmp_path / "run", model=load_atom_model(tmp_path / "final"), save_strategy="no")
    assert again.model.atom_config.has_explainer
    assert not any(p.requires_grad for p in again.model.atom_heads.explainer.parameters())
    again.evaluate()
    again.save_model(tmp_path / "kept")
    assert load_atom_model(tmp_path / "kept").atom_heads.explainer is not None
    again.train(resume_from_checkpoint=str(tmp_path / "run" / "checkpoint-1"))
    assert again.model.atom_heads.explainer is None and not again.model.atom_config.has_explainer
    mine, theirs = trainer.model.state_dict(), again.model.state_dict()
    assert all(torch.equal(value, mine[key]) for key, value in theirs.items())
    trainer.train()
    assert trainer.model.atom_heads.explainer is None


class Stream(IterableDataset):
    def __iter__(self):
        return iter(rows_for("bert", 20))


def test_what_cannot_be_explained_is_rejected_in_words(tmp_path):
    for given, words in (
        (trainer_of(tmp_path, rows=Stream()), "this one is a stream"),
        (trainer_of(tmp_path, atom=False), "with the flag off"),
        (trainer_of(tmp_path, rows=rows_for("bert", 10)), "batches: 10 samples"),
        (trainer_of(tmp_path, "gpt2"), "GPT2LMHeadModel predicts no class"),
    ):
        with pytest.raises(AtomError, match=words):
            given.fit_explainer(**FEW)
    nothing = trainer_of(tmp_path)
    nothing.train_dataset = None
    with pytest.raises(AtomError, match="train_dataset: none was given"):
        nothing.fit_explainer()


def on_each_process(folder):
    """Two processes with their halves of 36 samples; in the end one more call in which the second has none."""
    descent.STEPS, descent.LOOK = 20, 10  # of the processes that stay: every test here wants few
    trainer = trainer_of(folder, "vit", rows=rows_for("vit", 36), per_device_eval_batch_size=4)
    trainer.train()
    found = trainer.fit_explainer(36, **FEW)
    model = trainer.accelerator.unwrap_model(trainer.model)
    kept = {key: value.clone() for key, value in model.atom_heads.explainer.state_dict().items()}
    rank = trainer.args.process_index
    batches = [{"pixel_values": torch.stack([row["pixel_values"] for row in rows_for("vit", 20)])}][: 1 - rank]
    again = fit.fit_explainer(model, None, batches, samples=40, **FEW)
    return {"explainer": kept, "found": (found.samples, found.explained), "again": again.samples}


@pytest.mark.slow
def test_two_processes_end_with_the_same_and_all_samples_count(two_processes, tmp_path):
    one, two = two_processes(on_each_process, tmp_path)
    assert one["found"] == two["found"] and one["found"][0] == 36 and one["again"] == two["again"] == 20
    assert all(torch.equal(value, two["explainer"][key]) for key, value in one["explainer"].items())


def test_an_explainer_is_no_part_of_what_is_trained(few_steps):
    model = attach_atoms(tiny("bert"), AtomConfig(), make_tokenizer())
    batches = [{k: v for k, v in collator_for("bert")(rows_for("bert", 16)).items() if k != "labels"}]
    fit.fit_explainer(model, make_tokenizer(), batches, **FEW)
    fitted = set(model.atom_heads.explainer.parameters())
    assert fitted.isdisjoint(model.atom_heads.trained_parameters()) and not any(p.requires_grad for p in fitted)
