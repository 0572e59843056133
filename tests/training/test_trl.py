"""Trainers of TRL with the flag: gradients by the definition, logs, errors, and what they save."""

from pathlib import Path

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch.nn import functional as F
from transformers import AutoModelForCausalLM
from trl import DPOTrainer, SFTTrainer

from atom_hf import (
    AtomArguments,
    AtomConfig,
    AtomError,
    AtomTrainer,
    AtomTrainerMixin,
    attach_atoms,
    detach_atoms,
    load_atom_model,
)
from helpers.documents import python_with, run_python, write_table
from helpers.exactness import compare
from helpers.models import collator_for, rows_for, tiny
from helpers.training import Gradients, arguments, backbone, equal, heads, history
from helpers.trl_trainers import (
    ONE_STEP,
    WEIGHT,
    atom_term,
    check_log,
    gradients_of,
    halves,
    lines,
    make_trl,
    preferences,
    sft_rows,
    tokenizer,
    with_atoms,
)

# TRL 1.16 goes by names that Transformers 5.23 calls old.
pytestmark = pytest.mark.filterwarnings("ignore:.*gradient_checkpointing.*:FutureWarning")


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

    model = with_atoms(tiny("gpt2"))
    # Trainer 5.23 counts the first token of each row too, which nothing precedes to predict it from.
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
        with_atoms(other, seed=7)
    options = {"per_device_train_batch_size": 8 // batches, "gradient_accumulation_steps": batches, "beta": 0.5}
    trainer = make_trl("dpo", tmp_path, callbacks=[found], ref_model=other, **ONE_STEP, **options)
    trainer.train()

    rows = list(trainer.train_dataset)
    prompts = [len(row["prompt_ids"]) for row in rows]
    chosen, rejected = ([row["prompt_ids"] + row[name] for row in rows] for name in ("chosen_ids", "rejected_ids"))
    model, plain = with_atoms(tiny("gpt2")), tiny("gpt2", seed=5).eval()
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
    state = trainer.model.atom_balancer.state()
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
        twin = with_atoms(tiny("gpt2"))
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
    assert alone.model.atom_balancer.state() == again.model.atom_balancer.state()


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
    assert trainer.model.atom_balancer.state()["atom_norm"] > 0


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
        # A new adapter changes nothing: the reference, whichever it is, is the base.
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
def test_samples_that_share_a_row_are_rejected(options, words, tmp_path):
    with pytest.raises(AtomError, match=words):
        make_trl("sft", tmp_path, atom=True, **options)


def test_a_collator_that_flattens_is_rejected(tmp_path):
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


def test_detaching_gives_trls_forward_back(tmp_path):
    trainer = make_trl("sft", tmp_path, max_steps=1, atom=True)
    plain = make_trl("sft", tmp_path, max_steps=1)
    detach_atoms(trainer.model)
    ours, theirs = (vars(model).get("forward") for model in (trainer.model, plain.model))
    assert theirs is not None and ours.__func__.__code__ is theirs.__func__.__code__ and ours.__self__ is trainer.model


@pytest.mark.filterwarnings("ignore:.*pin_memory")
@pytest.mark.usefixtures("own_folder")
def test_the_example_runs(monkeypatch):
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    tiny("gpt2").save_pretrained("openai-community/gpt2")
    tokenizer().save_pretrained("openai-community/gpt2")
    write_table(Path("roneneldan/TinyStories/train.csv"), ("text",), [(line,) for line in lines()])
    printed, on_a_cpu = 'AtomSFTConfig("out", atom=True)', 'AtomSFTConfig("out", atom=True, use_cpu=True, bf16=False)'
    example = python_with("docs/trainers.md", "SFTTrainer")
    assert printed in example
    trained = run_python(example.replace(printed, on_a_cpu))["trainer"].model.state_dict()
    before = tiny("gpt2").state_dict()
    changed = {name for name, value in before.items() if not torch.equal(value, trained[name])}
    assert {"transformer.wte.weight", "transformer.h.0.mlp.c_fc.weight"} <= changed
