"""Trainers of other kinds and libraries with the flag: gradients by the definition, logs, refusals, and what they save."""

import copy
import dataclasses

import pytest
import torch
from conftest import _verse, arguments, collator_for, make_tokenizer, rows_for, tiny
from exactness import compare, relative_difference
from peft import LoraConfig, PeftModel, get_peft_model
from test_trainer import LOGGED, SUM, Gradients, backbone, equal, heads, history
from tokenizers.processors import TemplateProcessing
from torch.nn import functional as F
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    BartConfig,
    BartForConditionalGeneration,
    DataCollatorForSeq2Seq,
    Seq2SeqTrainer,
    Seq2SeqTrainingArguments,
    T5Config,
    T5ForConditionalGeneration,
    Trainer,
)
from trl import DPOConfig, DPOTrainer, SFTConfig, SFTTrainer

from atom_hf import (
    AtomArguments,
    AtomConfig,
    AtomError,
    Atoms,
    AtomTrainer,
    AtomTrainerMixin,
    AtomTrainingArguments,
    attach_atoms,
    detach_atoms,
    load_atom_model,
)
from atom_hf.energy import atom_loss

# TRL 1.16 goes by names that Transformers 5.23 calls old.
pytestmark = pytest.mark.filterwarnings("ignore:.*gradient_checkpointing.*:FutureWarning")

WEIGHT = 30.0
ONE_STEP = {**SUM, "atom_weight": WEIGHT, "max_steps": 1, "max_grad_norm": 0.0, "optim": "sgd"}


class Seq2SeqArguments(AtomArguments, Seq2SeqTrainingArguments):
    pass


class SFTArguments(AtomArguments, SFTConfig):
    pass


class DPOArguments(AtomArguments, DPOConfig):
    pass


class AtomSeq2SeqTrainer(AtomTrainerMixin, Seq2SeqTrainer):
    pass


class AtomSFTTrainer(AtomTrainerMixin, SFTTrainer):
    pass


class AtomDPOTrainer(AtomTrainerMixin, DPOTrainer):
    pass


def attached(model, seed=42, **options):
    torch.manual_seed(seed)  # 42 as the trainer does
    return attach_atoms(model, AtomConfig(weighting="absolute", **options), tokenizer())


def tokenizer():
    """As a language model's: nothing in front of a text, and an end."""
    made = copy.deepcopy(make_tokenizer())
    made.eos_token = "[SEP]"
    made.backend_tokenizer.post_processor = TemplateProcessing(single="$A", pair="$A $B")
    return made


def lines(count=16):
    return [row["text"] for row in _verse(60)[:count]]


def halves(count=16):
    """Each line of verse in two: (first, second)."""
    words = [line.split() for line in lines(count)]
    return [(" ".join(line[: len(line) // 2]), " ".join(line[len(line) // 2 :])) for line in words]


def atom_term(packed):
    options = {"softening": 0.1, "neutrality": 1.0, "charge_floor": 0.5, "charge_floor_weight": 10.0}
    return atom_loss(Atoms.unpack(packed), **options).loss


def gradients_of(model):
    return {name: value.grad for name, value in model.named_parameters() if value.grad is not None}


def check_log(trainer, steps=3):
    logged = [entry for entry in history(trainer) if "loss" in entry]
    assert len(logged) == steps and all(set(entry) >= LOGGED for entry in logged)
    for entry in logged:
        weight = trainer.args.atom_weight
        assert entry["loss"] == pytest.approx(entry["task_loss"] + weight * entry["atom_loss"], rel=1e-4)


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


def test_arguments_of_another_trainer_are_refused(tmp_path):
    rows = sft_rows()
    with pytest.raises(AtomError, match=r"args: SFTTrainer takes SFTConfig.*AtomArguments, SFTConfig"):
        AtomSFTTrainer(tiny("gpt2"), arguments(tmp_path, atom=True), train_dataset=rows, processing_class=tokenizer())


# Seq2SeqTrainer


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

    model, rows, collate = attached(seq2seq(kind)), seq2seq_rows(), DataCollatorForSeq2Seq(tokenizer())
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


# TRL


def sft_rows(count=16):
    from datasets import Dataset

    return Dataset.from_list([{"text": line} for line in lines(count)])


def preferences(count=8):
    """The end of a line is preferred to the same words in reverse."""
    from datasets import Dataset

    rows = [(first + " ", second) for first, second in halves(count)]
    return Dataset.from_list(
        [{"prompt": first, "chosen": end, "rejected": " ".join(end.split()[::-1])} for first, end in rows]
    )


def make_trl(kind, folder, model=None, cls=None, **options):
    cls = cls or {"sft": AtomSFTTrainer, "dpo": AtomDPOTrainer}[kind]
    kept = {
        name: options.pop(name) for name in ("callbacks", "ref_model", "eval_dataset", "peft_config") if name in options
    }
    config = {"sft": SFTArguments, "dpo": DPOArguments}[kind]
    return cls(
        model=tiny("gpt2") if model is None else model,
        args=arguments(folder, config, **{"bf16": False, "max_length": 48, **options}),
        train_dataset=sft_rows() if kind == "sft" else preferences(),
        processing_class=tokenizer(),
        **kept,
    )


def log_probabilities(model, rows, starts):
    """Sum of the log-probabilities of the tokens of each row from its start on, one row at a time."""
    sums = []
    for row, start in zip(rows, starts, strict=True):
        found = model(input_ids=torch.tensor([row])).logits[0, start - 1 : -1].log_softmax(-1)
        sums.append(found[range(len(row) - start), row[start:]].sum())
    return torch.stack(sums)


@pytest.mark.exactness
@pytest.mark.parametrize("batches", [1, 4])
def test_gradients_of_sft(batches, tmp_path):
    found = Gradients()
    options = {"per_device_train_batch_size": 16 // batches, "gradient_accumulation_steps": batches}
    trainer = make_trl("sft", tmp_path, callbacks=[found], **ONE_STEP, **options)
    rows = [row["input_ids"] for row in trainer.train_dataset]
    trainer.train()

    model = attached(tiny("gpt2"))
    # Trainer 5.23 counts the first token of each row too, which is predicted from nothing.
    task = -log_probabilities(model, rows, [1] * 16).sum() / sum(map(len, rows))
    collate, term = collator_for("bert"), 0
    for start in range(0, 16, 16 // batches):
        part = collate([{"input_ids": row} for row in rows[start : start + 16 // batches]])
        term = term + atom_term(model(**part).atoms) / batches
    (task + WEIGHT * term).backward()
    compare(f"SFTTrainer, {batches} of {16 // batches}", "row by row, by autograd", found.steps[0], gradients_of(model))


@pytest.mark.exactness
@pytest.mark.parametrize("batches", [1, 2])
@pytest.mark.parametrize("reference", ["given", "with atoms"])
def test_gradients_of_dpo(batches, reference, tmp_path):
    found, other = Gradients(), tiny("gpt2", seed=5)
    if reference == "with atoms":
        attached(other, seed=7)
    options = {"per_device_train_batch_size": 8 // batches, "gradient_accumulation_steps": batches, "beta": 0.5}
    trainer = make_trl("dpo", tmp_path, callbacks=[found], ref_model=other, **ONE_STEP, **options)
    trainer.train()

    rows = list(trainer.train_dataset)
    prompts = [len(row["prompt_ids"]) for row in rows]
    chosen, rejected = ([row["prompt_ids"] + row[name] for row in rows] for name in ("chosen_ids", "rejected_ids"))
    model, plain = attached(tiny("gpt2")), tiny("gpt2", seed=5).eval()
    with torch.no_grad():
        before = [log_probabilities(plain, side, prompts) for side in (chosen, rejected)]
    now = [log_probabilities(model, side, prompts) for side in (chosen, rejected)]
    task = -F.logsigmoid(0.5 * ((now[0] - before[0]) - (now[1] - before[1]))).mean()
    term = 0
    for start in range(0, 8, 8 // batches):
        part = [{"input_ids": row} for side in (chosen, rejected) for row in side[start : start + 8 // batches]]
        term = term + atom_term(model(**collator_for("bert")(part)).atoms) / batches
    (task + WEIGHT * term).backward()
    what = f"DPOTrainer, reference {reference}, {batches} of {8 // batches} pairs"
    compare(what, "row by row, by autograd", found.steps[0], gradients_of(model))
    assert all(parameter.grad is None for parameter in other.parameters())


@pytest.mark.parametrize("kind", ["sft", "dpo"])
def test_trl_with_the_flag_off_is_trl_to_the_bit(kind, tmp_path):
    plain = {"sft": SFTTrainer, "dpo": DPOTrainer}[kind]
    runs = []
    for cls in (plain, None):
        other = {"ref_model": tiny("gpt2", seed=5)} if kind == "dpo" else {}
        runs.append(make_trl(kind, tmp_path, cls=cls, **other))
        runs[-1].train()
    assert equal(*(run.model.state_dict() for run in runs)) and history(runs[0]) == history(runs[1])


@pytest.mark.parametrize("kind", ["sft", "dpo"])
def test_trl_at_its_own_defaults(kind, tmp_path):
    # bfloat16, activation checkpointing, a reference made of the model's folder.
    tiny("gpt2").save_pretrained(tmp_path / "base")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "base")
    trainer = make_trl(
        kind, tmp_path, model, atom=True, bf16=None, eval_dataset=sft_rows(4) if kind == "sft" else preferences(4)
    )
    before = heads(trainer)
    trainer.train()
    check_log(trainer)
    assert not any(torch.equal(value, before[name]) for name, value in heads(trainer).items())
    assert {value.dtype for value in heads(trainer).values()} == {torch.float32}
    state = trainer.model.atom_gate.state()
    assert state["steps"] == 3 and state["task_norm"] > 0 and state["atom_norm"] > 0
    assert not any(name.startswith("eval_atom") for name in trainer.evaluate())
    trainer.save_model(tmp_path / "final")
    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "final")
    assert equal(plain.state_dict(), backbone(trainer))
    loaded = load_atom_model(tmp_path / "final")
    assert equal(loaded.atom_heads.state_dict(), trainer.model.atom_heads.state_dict())
    assert not loaded.atom_importance(input_ids=torch.tensor([rows_for("gpt2")[0]["input_ids"]])).isnan().all()


@pytest.mark.parametrize("kind", ["sft", "dpo"])
def test_trl_loads_the_model_itself(kind, tmp_path):
    tiny("gpt2").save_pretrained(tmp_path / "base")
    runs = []
    for model in (str(tmp_path / "base"), AutoModelForCausalLM.from_pretrained(tmp_path / "base")):
        runs.append(make_trl(kind, tmp_path, model, **ONE_STEP, seed=1))
        twin = attached(tiny("gpt2"))
        runs[-1].model.atom_heads.load_state_dict(twin.atom_heads.state_dict())
        runs[-1].train()
    assert equal(*(run.model.state_dict() for run in runs))
    assert not equal(heads(runs[0]), {"atom_heads." + name: v for name, v in twin.atom_heads.state_dict().items()})


@pytest.mark.parametrize("kind", ["sft", "dpo"])
def test_trl_loads_the_model_and_makes_the_adapter_itself(kind, tmp_path):
    tiny("gpt2").save_pretrained(tmp_path / "base")
    trainer = make_trl(kind, tmp_path, str(tmp_path / "base"), peft_config=lora(), atom=True)
    before = {name: value.clone() for name, value in trainer.model.state_dict().items()}
    trainer.train()
    check_log(trainer)
    moved = {name for name, value in before.items() if not torch.equal(value, trainer.model.state_dict()[name])}
    assert moved == {name for name, parameter in trainer.model.named_parameters() if parameter.requires_grad}
    assert sum("atom_heads" in name for name in moved) == 4
    trainer.save_model(tmp_path / "final")
    loaded, ids = load_atom_model(tmp_path / "final"), torch.tensor([rows_for("gpt2")[0]["input_ids"]])
    expected = trainer.model.atom_importance(input_ids=ids)
    torch.testing.assert_close(loaded.atom_importance(input_ids=ids), expected, equal_nan=True)


@pytest.mark.parametrize("kind", ["sft", "dpo"])
def test_a_checkpoint_of_trl_goes_on(kind, tmp_path):
    options = {"atom": True, "save_strategy": "steps", "save_steps": 2, "max_steps": 4}
    other = {"ref_model": tiny("gpt2", seed=5)} if kind == "dpo" else {}
    alone = make_trl(kind, tmp_path, **options, **other)
    alone.train()
    again = make_trl(kind, tmp_path, tiny("gpt2", seed=9), **options, **other)
    again.train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))
    assert equal(alone.model.state_dict(), again.model.state_dict())
    assert alone.model.atom_gate.state() == again.model.atom_gate.state()


@pytest.mark.parametrize("kind", ["reward", "kto", "grpo"])
def test_further_trainers_of_trl_train_on(kind, tmp_path):
    import trl
    from datasets import Dataset

    base, config = {
        "reward": (trl.RewardTrainer, trl.RewardConfig),
        "kto": (trl.KTOTrainer, trl.KTOConfig),
        "grpo": (trl.GRPOTrainer, trl.GRPOConfig),
    }[kind]
    cls = type("Joined", (AtomTrainerMixin, base), {})
    options, pieces, rows = {}, {}, preferences()
    if kind == "kto":
        sides = [{"prompt": row["prompt"], "completion": row["chosen"], "label": True} for row in rows]
        sides += [{"prompt": row["prompt"], "completion": row["rejected"], "label": False} for row in rows]
        rows, pieces = Dataset.from_list(sides), {"ref_model": tiny("gpt2", seed=5)}
    elif kind == "grpo":
        rows = Dataset.from_list([{"prompt": first} for first, _ in halves()])
        pieces = {"reward_funcs": lambda completions, **_: [float(len(text) % 5) for text in completions]}
        options = {"num_generations": 4, "max_completion_length": 6}
    trainer = cls(
        model=tiny("gpt2-classifier", num_labels=1) if kind == "reward" else tiny("gpt2"),
        args=arguments(tmp_path, type("Args", (AtomArguments, config), {}), atom=True, bf16=False, **options),
        train_dataset=rows,
        processing_class=tokenizer(),
        **pieces,
    )
    before = heads(trainer)
    trainer.train()
    check_log(trainer)
    assert not any(torch.equal(value, before[name]) for name, value in heads(trainer).items())
    assert trainer.model.atom_gate.state()["atom_norm"] > 0


def lora():
    return LoraConfig(r=4, target_modules="all-linear", fan_in_fan_out=True, task_type="CAUSAL_LM")


@pytest.mark.exactness
@pytest.mark.parametrize("how", ["the trainer makes it", "it was there"])
@pytest.mark.parametrize("kind", ["sft", "dpo"])
def test_gradients_of_trl_with_an_adapter(kind, how, tmp_path):
    found, size = Gradients(), 16 if kind == "sft" else 8
    options = {**ONE_STEP, "per_device_train_batch_size": size, "callbacks": [found]}
    if kind == "dpo":
        options["beta"] = 0.5
    if how == "it was there":
        trainer = make_trl(kind, tmp_path, get_peft_model(tiny("gpt2"), lora()), **options)
    else:
        trainer = make_trl(kind, tmp_path, peft_config=lora(), **options)
    assert ("ref" in trainer.model.peft_config) == (kind == "dpo" and how == "it was there")
    twin = attach_atoms(get_peft_model(tiny("gpt2"), lora()), AtomConfig(weighting="absolute"), tokenizer())
    twin.load_state_dict({k: v.clone() for k, v in trainer.model.state_dict().items() if ".ref." not in k})
    trainer.train()

    rows = list(trainer.train_dataset)
    if kind == "sft":
        rows = [row["input_ids"] for row in rows]
        task = -log_probabilities(twin, rows, [1] * 16).sum() / sum(map(len, rows))
    else:
        prompts = [len(row["prompt_ids"]) for row in rows]
        sides = [[row["prompt_ids"] + row[name] for row in rows] for name in ("chosen_ids", "rejected_ids")]
        # An adapter starts from nothing: the reference, whichever it is, is the base.
        now, before = ([log_probabilities(model, side, prompts) for side in sides] for model in (twin, tiny("gpt2")))
        task = -F.logsigmoid(0.5 * ((now[0] - before[0]) - (now[1] - before[1]))).mean()
        rows = sides[0] + sides[1]
    packed = twin(**collator_for("bert")([{"input_ids": row} for row in rows])).atoms
    (task + WEIGHT * atom_term(packed)).backward()
    compare(f"{kind}, LoRA, {how}", "row by row, by autograd", found.steps[0], gradients_of(twin))
    trainer.save_model(tmp_path / "final")
    assert (tmp_path / "final" / "atom_heads.safetensors").is_file()
    assert PeftModel.from_pretrained(tiny("gpt2"), tmp_path / "final").state_dict().keys() == {
        key for key in trainer.model.state_dict() if "atom" not in key and ".ref." not in key
    }


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"packing": True}, "packing: several samples share a row"),
        ({"padding_free": True, "max_length": None}, "padding_free: several samples share a row"),
    ],
)
def test_samples_that_share_a_row_are_refused(options, words, tmp_path):
    with pytest.raises(AtomError, match=words):
        make_trl("sft", tmp_path, atom=True, **options)


def test_a_collator_that_flattens_is_refused(tmp_path):
    from transformers import DataCollatorWithFlattening

    rows = [{name: row[name] for name in ("input_ids", "labels")} for row in rows_for("gpt2")]
    args = arguments(tmp_path, atom=True)
    trainer = AtomTrainer(tiny("gpt2"), args, train_dataset=rows, data_collator=DataCollatorWithFlattening())
    with pytest.raises(AtomError, match=r"data_collator: .*one row"):
        trainer.train()


@pytest.mark.exactness
def test_pairs_over_the_steps_of_sft(tmp_path):
    runs = []
    for options in ({"per_device_train_batch_size": 16}, {"gradient_accumulation_steps": 4, "atom_pair_batch": 16}):
        runs.append(Gradients())
        make_trl("sft", tmp_path, callbacks=[runs[-1]], **ONE_STEP, **options).train()
    compare("cached pairs, SFTTrainer, 4 of 4", "one batch of 16", runs[1].steps[0], runs[0].steps[0])


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
        gates.append(trainer.model.atom_gate.state())
        assert trainer.model._atom_running.passes is None
    what = f"a batch in two passes, {options.get('atom_weighting', 'absolute')} weight"
    compare(what, "in one", runs[1].steps[-1], runs[0].steps[-1])
    assert gates[1] == pytest.approx(gates[0], rel=1e-4) and gates[0]["atom_norm"] > 0
    without = Gradients()
    make_own(AtomByHalves, tmp_path, callbacks=[without], **{**ONE_STEP, **options, "atom_weight": 0.0}).train()
    assert relative_difference(without.steps[-1], runs[1].steps[-1]) > 1e-2


def test_a_loss_without_a_forward_pass_is_refused(tmp_path):
    with pytest.raises(AtomError, match="compute_loss of Blind runs no forward pass"):
        make_own(AtomBlind, tmp_path, atom=True).train()


def test_detaching_gives_trls_forward_back(tmp_path):
    trainer = make_trl("sft", tmp_path, max_steps=1, atom=True)
    plain = make_trl("sft", tmp_path, max_steps=1)
    detach_atoms(trainer.model)
    ours, theirs = (vars(model).get("forward") for model in (trainer.model, plain.model))
    assert theirs is not None and ours.__func__.__code__ is theirs.__func__.__code__ and ours.__self__ is trainer.model
