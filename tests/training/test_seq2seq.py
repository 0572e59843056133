"""Seq2SeqTrainer with the flag: gradients by the definition, and generation."""

import pytest
import torch
from torch.nn import functional as F
from transformers import (
    AutoModelForSeq2SeqLM,
    BartConfig,
    BartForConditionalGeneration,
    DataCollatorForSeq2Seq,
    Seq2SeqTrainer,
    Seq2SeqTrainingArguments,
    T5Config,
    T5ForConditionalGeneration,
)

from atom_hf import AtomArguments, AtomTrainerMixin, load_atom_model
from helpers.exactness import compare
from helpers.models import make_tokenizer
from helpers.training import Gradients, arguments, heads
from helpers.trl_trainers import ONE_STEP, WEIGHT, atom_term, check_log, gradients_of, halves, tokenizer, with_atoms


class Seq2SeqArguments(AtomArguments, Seq2SeqTrainingArguments):
    pass


class AtomSeq2SeqTrainer(AtomTrainerMixin, Seq2SeqTrainer):
    pass


def seq2seq_rows():
    rows = []
    for first, second in halves():
        row = tokenizer()(first)
        rows.append({"input_ids": row["input_ids"], "attention_mask": row["attention_mask"]})
        rows[-1]["labels"] = tokenizer()(second)["input_ids"][1:]
    return rows


def seq2seq(kind, seed=0):
    sizes = {"vocab_size": len(make_tokenizer()), "d_model": 32, "pad_token_id": 0, "eos_token_id": 3}
    torch.manual_seed(seed)
    if kind == "t5":
        layers = {"num_layers": 2, "num_heads": 2, "d_kv": 8, "d_ff": 48, "dropout_rate": 0.0}
        return T5ForConditionalGeneration(T5Config(**sizes, **layers, decoder_start_token_id=0)).train()
    layers = {"encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 2, "decoder_attention_heads": 2}
    widths = {"encoder_ffn_dim": 48, "decoder_ffn_dim": 48, "max_position_embeddings": 48, "dropout": 0.0}
    config = BartConfig(**sizes, **layers, **widths, bos_token_id=2, decoder_start_token_id=3, init_std=0.2)
    return BartForConditionalGeneration(config).train()


def make_seq2seq(kind, folder, **options):
    pieces = {name: options.pop(name) for name in ("callbacks", "eval_dataset", "compute_metrics") if name in options}
    model = seq2seq(kind)
    return AtomSeq2SeqTrainer(
        model=model,
        args=arguments(folder, Seq2SeqArguments, **options),
        train_dataset=seq2seq_rows(),
        data_collator=DataCollatorForSeq2Seq(tokenizer()),
        processing_class=tokenizer(),
        **pieces,
    )


@pytest.mark.exactness
@pytest.mark.parametrize("batches", [1, 4])
@pytest.mark.parametrize("kind", ["t5", "bart"])
def test_gradients_of_seq2seq(kind, batches, tmp_path):
    found = Gradients()
    options = {"per_device_train_batch_size": 16 // batches, "gradient_accumulation_steps": batches}
    trainer = make_seq2seq(kind, tmp_path, callbacks=[found], **ONE_STEP, **options)
    trainer.train()

    model, rows, collate = with_atoms(seq2seq(kind)), seq2seq_rows(), DataCollatorForSeq2Seq(tokenizer())
    parts = [collate(rows[start : start + 16 // batches]) for start in range(0, 16, 16 // batches)]
    labels = sum(int(part["labels"].ne(-100).sum()) for part in parts)
    total = 0
    for part in parts:
        outputs = model(**part)
        task = F.cross_entropy(outputs.logits.flatten(0, 1), part["labels"].flatten(), reduction="sum") / labels
        total = total + task + WEIGHT * atom_term(outputs.atoms) / batches
    total.backward()
    compare(f"Seq2SeqTrainer, {kind}, {batches} of {16 // batches}", "by autograd", found.steps[0], gradients_of(model))


@pytest.mark.parametrize("kind", ["t5", "bart"])
def test_seq2seq_learns_generates_and_saves(kind, tmp_path):
    seen = []
    options = {"predict_with_generate": True, "generation_max_length": 6, "max_steps": 3}
    metrics = {"compute_metrics": lambda found: seen.append(found.predictions) or {}}
    trainer = make_seq2seq(kind, tmp_path, atom=True, **options, **metrics, eval_dataset=seq2seq_rows()[:4])
    before = heads(trainer)
    trainer.train()
    check_log(trainer)
    assert not any(torch.equal(value, before[name]) for name, value in heads(trainer).items())
    trainer.evaluate()
    assert len(seen[0]) == 4 and seen[0].dtype.kind == "i"
    trainer.save_model(tmp_path / "final")
    plain = AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "final")
    batch = DataCollatorForSeq2Seq(tokenizer())(seq2seq_rows()[:4])
    trainer.model.eval()
    torch.testing.assert_close(plain.eval()(**batch).logits, trainer.model(**batch).logits)
    batch["decoder_input_ids"] = torch.zeros(4, 1, dtype=torch.long)
    importance = load_atom_model(tmp_path / "final").atom_importance(**batch)
    assert torch.equal(importance.isnan(), batch["attention_mask"] == 0)
