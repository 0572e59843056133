"""Trainers of other kinds with the flag: arguments, trainers that anyone may write, and encoder-decoders."""

import dataclasses

import numpy as np
import pytest
import torch
from transformers import (
    BartConfig,
    BartForConditionalGeneration,
    Seq2SeqTrainer,
    Seq2SeqTrainingArguments,
    T5Config,
    T5ForConditionalGeneration,
    Trainer,
)
from trl import SFTConfig

from atom_hf import (
    AtomArguments,
    AtomConfig,
    AtomError,
    AtomMixin,
    AtomTrainer,
    AtomTrainerMixin,
    AtomTrainingArguments,
    attach_atoms,
)
from helpers.exactness import compare, relative_difference
from helpers.models import collator_for, make_tokenizer, rows_for, tiny
from helpers.training import LOGGED, SUM, Gradients, arguments, equal, history, train
from helpers.trl_trainers import ONE_STEP, AtomSFTTrainer, SFTArguments, sft_rows, tokenizer

# TRL 1.16 goes by names that Transformers 5.23 calls old.
pytestmark = pytest.mark.filterwarnings("ignore:.*gradient_checkpointing.*:FutureWarning")


# Arguments


def test_arguments_join_those_of_any_trainer(tmp_path):
    args = SFTArguments(str(tmp_path), use_cpu=True, atom=True, atom_weight=0.5, max_length=48)
    assert isinstance(args, SFTConfig) and args.output_dir == str(tmp_path)
    assert args.atom_config() == AtomConfig(weight=0.5) and args.max_length == 48
    assert args.loss_type == SFTConfig(str(tmp_path), use_cpu=True).loss_type

    @dataclasses.dataclass
    class Own(AtomArguments, Seq2SeqTrainingArguments):
        margin: float = dataclasses.field(default=2.0, metadata={"help": "of mine"})

    own = Own(str(tmp_path), atom=True, margin=3.0, predict_with_generate=True, hub_token="secret")
    assert (own.margin, own.predict_with_generate, own.atom) == (3.0, True, True)
    assert [f.metadata for f in dataclasses.fields(Own) if f.name == "margin"] == [{"help": "of mine"}]
    joined = SFTArguments(str(tmp_path), use_cpu=True, hub_token="secret")
    assert "secret" not in repr(joined) and "secret" not in repr(AtomTrainingArguments("out", hub_token="secret"))


def test_arguments_of_another_trainer_are_rejected(tmp_path):
    rows = sft_rows()
    with pytest.raises(AtomError, match=r"args: SFTTrainer takes SFTConfig.*AtomArguments, SFTConfig"):
        AtomSFTTrainer(tiny("gpt2"), arguments(tmp_path, atom=True), train_dataset=rows, processing_class=tokenizer())


# Trainers that anyone may write


class ByHalves(Trainer):
    """Passes each batch in two halves, and gives back nothing but the loss."""

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        assert not return_outputs or not model.training
        with torch.no_grad():
            model(**inputs)  # as a reference would be
        parts = [{name: value[part] for name, value in inputs.items()} for part in (slice(0, 2), slice(2, None))]
        return sum(model(**part).loss * len(part["labels"]) for part in parts) / len(inputs["labels"])


class AtomByHalves(AtomTrainerMixin, ByHalves):
    pass


class Blind(Trainer):
    """Never runs the model with a gradient."""

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        with torch.no_grad():
            loss = model(**inputs).loss
        return loss.clone().requires_grad_()


class AtomBlind(AtomTrainerMixin, Blind):
    pass


def make_own(cls, folder, **options):
    pieces = {"callbacks": options.pop("callbacks", [])}
    args = arguments(folder, **options)
    rows, tools = rows_for("bert"), {"data_collator": collator_for("bert"), "processing_class": make_tokenizer()}
    return cls(model=tiny("bert"), args=args, train_dataset=rows, **tools, **pieces)


@pytest.mark.exactness
@pytest.mark.parametrize("options", [{}, {"atom_weighting": "relative", "max_steps": 2, "learning_rate": 0.01}])
def test_the_rows_of_several_passes_are_one_batch(options, tmp_path):
    runs, gates = [], []
    for cls in (AtomTrainer, AtomByHalves):
        runs.append(Gradients())
        trainer = make_own(cls, tmp_path, callbacks=[runs[-1]], **{**ONE_STEP, **options})
        trainer.train()
        gates.append(trainer.model.atom_balancer.state())
        assert trainer.model._atom_forward_state.collector is None
    what = f"a batch in two passes, {options.get('atom_weighting', 'absolute')} weight"
    compare(what, "in one", runs[1].steps[-1], runs[0].steps[-1])
    assert gates[1] == pytest.approx(gates[0], rel=1e-4) and (gates[0]["atom_norm"] > 0) == bool(options)
    without = Gradients()
    make_own(AtomByHalves, tmp_path, callbacks=[without], **{**ONE_STEP, **options, "atom_weight": 0.0}).train()
    assert relative_difference(without.steps[-1], runs[1].steps[-1]) > 1e-2


def test_a_loss_without_a_forward_pass_is_rejected(tmp_path):
    with pytest.raises(AtomError, match="compute_loss of Blind runs no forward pass"):
        make_own(AtomBlind, tmp_path, atom=True).train()


# Other trainers


@dataclasses.dataclass
class BothArguments(AtomTrainingArguments, Seq2SeqTrainingArguments):
    pass


class BothTrainer(AtomTrainerMixin, Seq2SeqTrainer):
    pass


def test_the_mixin_joins_another_trainer(tmp_path):
    options = arguments(tmp_path, **SUM).to_dict()
    args = BothArguments(**{key: value for key, value in options.items() if value is not None})
    rows, seen = rows_for("gpt2")[:4], []
    pieces = {"args": args, "eval_dataset": rows, "compute_metrics": lambda found: seen.append(found.predictions) or {}}
    trainer = train("gpt2", tmp_path, cls=BothTrainer, pieces=pieces)
    assert [set(entry) >= LOGGED for entry in history(trainer)] == [True, True, True, False]
    same = train("gpt2", tmp_path, **SUM)
    assert equal(trainer.model.state_dict(), same.model.state_dict())
    trainer.args.predict_with_generate = True
    trainer.evaluate(max_new_tokens=3)
    assert seen[0].dtype == np.int64 and seen[0].shape[0] == 4


class Timid(Trainer):
    """A trainer as many projects have one: it passes on whatever it is given."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)


class TimidAtomTrainer(AtomTrainerMixin, Timid):
    pass


@pytest.mark.parametrize("positional", [False, True])
def test_the_mixin_joins_a_trainer_that_passes_its_arguments_on(positional, tmp_path):
    model, args = tiny("bert"), arguments(tmp_path, atom=True)
    trainer = TimidAtomTrainer(model, args) if positional else TimidAtomTrainer(model=model, args=args)
    assert isinstance(trainer.model, AtomMixin)


@pytest.mark.parametrize("kind", ["t5", "bart"])
def test_an_encoder_decoder_makes_atoms_of_what_its_encoder_reads(kind, tmp_path):
    sizes = {"vocab_size": 400, "d_model": 16, "pad_token_id": 0, "decoder_start_token_id": 0, "num_layers": 1}
    if kind == "t5":
        model = T5ForConditionalGeneration(T5Config(**sizes, d_kv=8, d_ff=16, num_heads=2))
    else:
        layers = {"encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 2, "decoder_attention_heads": 2}
        widths = {"encoder_ffn_dim": 16, "decoder_ffn_dim": 16, "max_position_embeddings": 48}
        model = BartForConditionalGeneration(BartConfig(**sizes, **layers, **widths))
    attach_atoms(model, AtomConfig(weighting="absolute"))
    ids = torch.randint(3, 400, (2, 7))
    labels = torch.randint(3, 400, (2, 4))
    outputs = model(input_ids=ids, labels=labels)
    assert outputs.atom_importance.shape == (2, 7) and not outputs.atom_importance.isnan().any()
    assert not {"encoder_hidden_states", "decoder_hidden_states"} & set(outputs)
    outputs.atoms.sum().backward()
    embedding = model.get_encoder().get_input_embeddings().weight
    assert embedding.grad is not None and embedding.grad.abs().sum() > 0
