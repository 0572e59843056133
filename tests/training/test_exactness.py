"""Parameter gradients of a training step against the definition, whatever the step is split into and computed with."""

import warnings

import pytest
import torch
from transformers import Trainer, TrainerCallback

from atom_hf import AtomError, Atoms, AtomTrainer, AtomTrainerMixin, load_atom_model
from atom_hf.atoms.loss import atom_loss
from atom_hf.training.pair_cache import PairCache
from helpers.exactness import compare, relative_difference
from helpers.models import batch_for, rows_for, tiny
from helpers.training import SUM, Gradients, make

pytestmark = pytest.mark.exactness

ROWS = 16
WEIGHT = 30.0
ONE_STEP = {**SUM, "atom_weight": WEIGHT, "max_steps": 1, "max_grad_norm": 0.0, "optim": "sgd"}
CLASSIFIERS = ["bert", "distilbert", "roberta", "gpt2-classifier"]
MODELS = [*CLASSIFIERS, "vit", "gpt2"]


def first_step(name, folder, batches=1, rows=ROWS, pieces=(), cls=AtomTrainer, **options):
    """The gradients of the first optimizer step of a run on `rows` rows in `batches` batches."""
    gradients = Gradients()
    options = {**ONE_STEP, "gradient_accumulation_steps": batches, **options}
    pieces = {**dict(pieces), "callbacks": [gradients, *dict(pieces).get("callbacks", [])]}
    batch = options.pop("per_device_train_batch_size", -(-rows // batches))
    train_rows = rows_for(name)[:rows]
    trainer = make(name, folder, cls=cls, pieces=pieces, rows=train_rows, per_device_train_batch_size=batch, **options)
    trainer.train()
    return {key.replace("_orig_mod.", ""): value for key, value in gradients.steps[0].items()}


def definition(name, starts, rows=ROWS, dtype=torch.float32):
    """task + WEIGHT * mean of the atom losses of the batches that begin at `starts`, by autograd, without a trainer."""
    trainer = make(name, "unused", **ONE_STEP)
    model, config = trainer.model.train(), trainer.model.atom_config
    batch = batch_for(name, rows, labels=True)
    # A language model's loss is over the number of labels that Trainer counts; a classifier's own mean is the right one.
    items = (
        {"num_items_in_batch": trainer._get_num_items_in_batch([batch], trainer.args.device)} if name == "gpt2" else {}
    )
    with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
        outputs = model(**batch, **items)
    task = outputs.loss
    options = {key: getattr(config, key) for key in ("softening", "neutrality", "charge_floor", "charge_floor_weight")}
    ends = [*starts[1:], rows]
    packed = [outputs.atoms]
    if len(starts) > 1:
        packed = [
            model(**batch_for(name, end - start, start=start)).atoms for start, end in zip(starts, ends, strict=True)
        ]
    atoms = [atom_loss(Atoms.unpack(rows), **options).loss for rows in packed]
    (task + WEIGHT * torch.stack(atoms).mean()).backward()
    return {key: value.grad for key, value in model.named_parameters() if value.grad is not None}


def check_alive(gradients):
    """Both terms have a say in what is compared."""
    assert gradients["atom_heads.position.weight"].abs().max() > 1e-2
    assert max(value.abs().max() for key, value in gradients.items() if "atom_heads" not in key) > 1e-2


# Accumulation


@pytest.mark.parametrize("batches", [1, 2, 4])
@pytest.mark.parametrize("name", MODELS)
def test_accumulation(name, batches, tmp_path):
    starts = list(range(0, ROWS, ROWS // batches))
    expected = definition(name, starts)
    check_alive(expected)
    what, against = (
        f"accumulation, {name}, {batches} of {ROWS // batches}",
        "the mean of the batches' atom losses, by autograd",
    )
    compare(what, against, first_step(name, tmp_path, batches), expected)


@pytest.mark.parametrize("batches", [2, 4])
@pytest.mark.parametrize("name", MODELS)
def test_pairs_over_all_batches_of_a_step(name, batches, tmp_path):
    expected = definition(name, [0])
    found = first_step(name, tmp_path, batches, atom_pair_batch=ROWS)
    compare(f"cached pairs, {name}, {batches} of {ROWS // batches}", "one batch of 16, by autograd", found, expected)
    without = first_step(name, tmp_path, batches)
    assert relative_difference(without, expected) > 1e-2, "pairs over fewer samples are another loss"


def test_pairs_over_groups_of_batches(tmp_path):
    found = first_step("bert", tmp_path, 4, atom_pair_batch=8)
    compare(
        "cached pairs, bert, 2 groups of 2 of 4", "two batches of 8, by autograd", found, definition("bert", [0, 8])
    )


@pytest.mark.parametrize("name", MODELS)
def test_an_uneven_last_batch(name, tmp_path):
    # Batches of 6, 6 and 2: the task's mean is over samples (or tokens), whichever batch they came in.
    expected = definition(name, [0, 6, 12], rows=14)
    found = first_step(name, tmp_path, 3, rows=14, per_device_train_batch_size=6)
    compare(f"accumulation, {name}, 6 + 6 + 2", "the mean of the batches' atom losses, by autograd", found, expected)


def test_a_last_group_of_fewer_batches(tmp_path):
    # Three batches of six where four would make two groups: pairs among 12 samples, then among 2.
    expected = first_step("bert", tmp_path, 3, rows=14, per_device_train_batch_size=6, atom_weight=0.0)
    expected = {key: value for key, value in expected.items() if "atom_heads" not in key}
    model = make("bert", tmp_path, **ONE_STEP).model.train()
    options = {"softening": 0.1, "neutrality": 1.0, "charge_floor": 0.5, "charge_floor_weight": 10.0}
    parts = [batch_for("bert", 12), batch_for("bert", 2, start=12)]
    first, second = (atom_loss(Atoms.unpack(model(**part).atoms), **options).loss for part in parts)
    (WEIGHT * (2 * first + second) / 3).backward()
    for key, value in model.named_parameters():
        if value.grad is not None:
            expected[key] = expected.get(key, 0) + value.grad
    options = {"per_device_train_batch_size": 6, "atom_pair_batch": 12, "gradient_accumulation_steps": 4}
    found = first_step("bert", tmp_path, 4, rows=14, **options)
    against = "the groups' atom losses, each by its number of batches"
    compare("cached pairs, bert, 6 + 6, 2", against, found, expected)


@pytest.mark.parametrize("name", ["bert", "vit", "gpt2"])
def test_a_second_step_with_the_relative_weight(name, tmp_path):
    found = []
    for batches in (1, 4):
        gradients = Gradients()
        options = {**ONE_STEP, "atom_weighting": "relative", "atom_weight": 1.0, "max_steps": 2, "learning_rate": 0.01}
        sizes = {
            "per_device_train_batch_size": 8 // batches,
            "gradient_accumulation_steps": batches,
            "atom_pair_batch": 8,
        }
        make(name, tmp_path, pieces={"callbacks": [gradients]}, **options, **sizes).train()
        found.append(gradients.steps)
    compare(f"cached pairs, {name}, 4 of 2, relative weight, second step", "one batch of 8", found[1][1], found[0][1])


@pytest.mark.parametrize("name", ["bert", "vit"])
def test_dropout_is_the_same_in_both_passes(name, tmp_path, monkeypatch):
    # Of one batch the cached pairs are the plain ones: with dropout, only if both passes draw the same numbers.
    runs = []
    monkeypatch.setattr("atom_hf.training.trainer.PairCache", lambda size: PairCache(1))
    for options in ({}, {"atom_pair_batch": 8}):
        gradients = Gradients()
        model = tiny(name, dropout=0.3)
        sizes = {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 2}
        trainer = make(name, tmp_path, model=model, pieces={"callbacks": [gradients]}, **ONE_STEP, **sizes, **options)
        trainer.train()
        runs.append(gradients.steps[0])
    compare(f"cached pairs, {name}, groups of one, dropout", "the same without a cache", runs[1], runs[0])


# Precision, activation checkpointing, compilation


@pytest.mark.parametrize("name", ["bert", "vit", "gpt2"])
@pytest.mark.parametrize("reentrant", [False, True])
def test_activation_checkpointing(name, reentrant, tmp_path):
    options = {"activation_checkpointing": True, "activation_checkpointing_kwargs": {"use_reentrant": reentrant}}
    kind = "reentrant" if reentrant else "not reentrant"
    found = first_step(name, tmp_path, **options)
    compare(f"activation checkpointing, {kind}, {name}", "without, by autograd", found, definition(name, [0]))
    found = first_step(name, tmp_path, 4, atom_pair_batch=ROWS, **options)
    compare(f"cached pairs, activation checkpointing, {kind}, {name}", "one batch of 16", found, definition(name, [0]))


@pytest.mark.parametrize("name", ["bert", "vit", "gpt2"])
def test_bf16(name, tmp_path):
    expected = definition(name, [0], dtype=torch.bfloat16)
    found = first_step(name, tmp_path, bf16=True)
    compare(f"bf16 autocast, {name}", "the same, by autograd", found, expected)
    # In batches of other shapes, bf16 rounds otherwise.
    found = first_step(name, tmp_path, 4, bf16=True, atom_pair_batch=ROWS)
    compare(f"cached pairs, bf16 autocast, {name}", "one batch of 16 in bf16", found, expected, bound=0.05)


@pytest.mark.parametrize("name", ["bert", "vit", "gpt2"])
def test_fp16_with_a_scaled_loss(name, tmp_path):
    # Accelerate has no fp16 on a CPU: what it would do, by hand.
    trainer = make(name, tmp_path, **ONE_STEP)
    model, batch = trainer.model.train(), batch_for(name, ROWS, labels=True)
    items = trainer._get_num_items_in_batch([batch], trainer.args.device)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**8)
    with torch.autocast("cpu", torch.float16):
        loss = trainer.compute_loss(model, dict(batch), num_items_in_batch=items)
    scaler.scale(loss).backward()
    scaler.unscale_(torch.optim.SGD(model.parameters()))
    found = {key: value.grad for key, value in model.named_parameters() if value.grad is not None}
    expected = definition(name, [0], dtype=torch.float16)
    # What the scale is for: some of the unscaled gradients are too small for fp16.
    compare(f"fp16 autocast, loss scaled by 256, {name}", "not scaled, by autograd", found, expected, bound=0.01)


# What ends a run early, or changes it on the way


@pytest.mark.parametrize("name", ["bert", "vit", "gpt2"])
def test_compiled(name, tmp_path):
    options = {**ONE_STEP, "atom_weighting": "relative", "atom_weight": 1.0, "max_steps": 2, "learning_rate": 0.01}
    steps, outputs = [], []
    for more in ({}, {"torch_compile": True, "torch_compile_backend": "aot_eager"}):
        gradients = Gradients()
        with warnings.catch_warnings():
            warnings.simplefilter("default")  # torch's own, of its compiler
            trainer = make(name, tmp_path, pieces={"callbacks": [gradients]}, **options, **more)
            trainer.train()
        steps.append(
            [{key.replace("_orig_mod.", ""): value for key, value in step.items()} for step in gradients.steps]
        )
        assert trainer.model.atom_balancer.scale > 0
        trainer.save_model(tmp_path / "final")
        model = load_atom_model(tmp_path / "final")
        outputs.append(model.atom_importance(**batch_for(name)))
    compare(f"torch.compile, {name}, relative weight, second step", "eager", steps[1][1], steps[0][1])
    torch.testing.assert_close(*outputs, equal_nan=True)


@pytest.mark.parametrize("how", ["argument", "environment"])
def test_compilation_is_by_region_and_for_the_run_alone(how, tmp_path, monkeypatch):
    options = {"atom": True, "atom_weighting": "relative", "atom_schedule": "constant", "max_steps": 2}
    if how == "argument":
        options |= {"torch_compile": True, "torch_compile_backend": "aot_eager"}
    else:  # as `accelerate launch --dynamo_backend` does
        monkeypatch.setenv("ACCELERATE_DYNAMO_BACKEND", "aot_eager")
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        trainer = make("vit", tmp_path, **options)
        trainer.train()
    plugin = trainer.accelerator.state.dynamo_plugin
    assert plugin.backend.value.lower() == "aot_eager" and not plugin.use_regional_compilation
    assert any(hasattr(module, "_orig_mod") for module in trainer.model_wrapped.modules())
    assert trainer.model.atom_balancer.scale > 0


def test_a_model_compiled_as_a_whole_is_rejected_the_relative_weight(tmp_path, monkeypatch):
    monkeypatch.setattr("accelerate.accelerator.compile_regions", torch.compile)
    options = {"atom": True, "torch_compile": True, "torch_compile_backend": "aot_eager", "max_steps": 1}
    with pytest.raises(AtomError, match=r"torch_compile: .*atom_weighting 'absolute'"):
        make("vit", tmp_path, **options).train()


class Weighted(Trainer):
    """A trainer with a loss of its own, and its own idea of how it is scaled."""

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        outputs = model(**inputs)
        loss = torch.nn.functional.cross_entropy(outputs["logits"], inputs["labels"])
        return (loss, outputs) if return_outputs else loss


class WeightedAtomTrainer(AtomTrainerMixin, Weighted):
    pass


@pytest.mark.parametrize("scaled", [None, False, True])
def test_another_trainers_loss_is_its_own_affair(scaled, tmp_path, monkeypatch):
    monkeypatch.setattr(Weighted, "loss_is_scaled_for_ga", scaled)
    plain = first_step("bert", tmp_path, 4, cls=Weighted, atom=False)
    atom = first_step("bert", tmp_path, 4, cls=WeightedAtomTrainer, atom_weight=0.0)
    assert relative_difference({key: atom[key] for key in plain}, plain) == 0


def test_gradient_clipping(tmp_path):
    # Of the whole gradient, heads and backbone, as Trainer clips a model without heads.
    expected = definition("bert", [0])
    norm = torch.stack([value.norm() for value in expected.values()]).norm()
    expected = {key: value * 0.5 / norm for key, value in expected.items()}
    found = first_step("bert", tmp_path, 4, atom_pair_batch=ROWS, max_grad_norm=0.5)
    compare("gradient clipping, bert", "the whole gradient scaled to the norm, by autograd", found, expected)


class OutOfMemory(TrainerCallback):
    """What a GPU says of a batch that is too large."""

    def __init__(self, fits):
        self.fits = fits

    def on_step_begin(self, args, state, control, train_dataloader=None, **kwargs):
        if train_dataloader.total_batch_size > self.fits:
            raise RuntimeError("CUDA out of memory. Tried to allocate more than there is")


def test_a_batch_size_that_is_found(tmp_path):
    # 16 and 14 samples do not fit; accelerate lowers a batch size by a tenth each time.
    memory = OutOfMemory(fits=13)
    found = first_step("bert", tmp_path, auto_find_batch_size=True, pieces={"callbacks": [memory]})
    compare(
        "auto_find_batch_size, bert, 12 of 16", "a batch of 12, by autograd", found, definition("bert", [0], rows=12)
    )


def test_a_batch_size_of_one_that_is_found_is_rejected(tmp_path):
    with pytest.raises(AtomError, match="auto_find_batch_size"):
        first_step("bert", tmp_path, auto_find_batch_size=True, pieces={"callbacks": [OutOfMemory(fits=1)]})
