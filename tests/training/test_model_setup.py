"""A trainer's model with the flag on: heads are attached or kept, trainable and float32, whatever the trainer did to it."""

import pytest
import torch
from transformers import Trainer

from atom_hf import AtomConfig, AtomError, AtomTrainer, attach_atoms
from atom_hf.training.custom_loop import start_step
from atom_hf.training.model_setup import init_class, parameter_names, prepare_model, reclaim_heads
from helpers.models import batch_for, make_tokenizer, tiny
from helpers.training import arguments, equal, make


def test_new_heads_are_those_of_the_seed():
    def heads(ambient, seed):
        model = tiny("bert")
        torch.manual_seed(ambient)
        before = torch.get_rng_state()
        prepare_model(model, AtomConfig(), make_tokenizer(), seed)
        assert torch.equal(torch.get_rng_state(), before)
        return model.atom_heads.state_dict()

    assert equal(heads(1, seed=3), heads(2, seed=3))
    assert not equal(heads(1, seed=3), heads(1, seed=4))
    assert equal(heads(1, seed=None), heads(1, seed=1))


def test_heads_that_are_there_stay_and_train_as_the_arguments_say():
    model = attach_atoms(tiny("bert"), AtomConfig(form="paper", layer=1, weight=0.5), make_tokenizer())
    before, special = (
        {k: v.clone() for k, v in model.atom_heads.state_dict().items()},
        model.atom_config.special_token_ids,
    )
    assert prepare_model(model, AtomConfig(layer=1, weight=0.2, warmup_ratio=0.1), None) is model
    assert equal(before, model.atom_heads.state_dict())
    config = model.atom_config
    assert (config.layer, config.weight, config.warmup_ratio) == (1, 0.2, 0.1)
    assert (config.special_token_ids, config.hidden_size) == (special, 32) and model.atom_balancer.ratio == 0.2


def test_a_name_is_left_to_the_trainer():
    assert prepare_model("org/model", AtomConfig(), None) == "org/model"


def test_heads_that_were_frozen_or_cast_are_reclaimed():
    model = attach_atoms(tiny("bert"), AtomConfig(), make_tokenizer())
    kept = {name: value.clone() for name, value in model.atom_heads.state_dict().items()}
    for parameter in model.atom_heads.parameters():
        parameter.requires_grad_(False)
        parameter.data = parameter.data.bfloat16()
    reclaim_heads(model, kept)
    assert equal(kept, model.atom_heads.state_dict())
    assert all(parameter.requires_grad for parameter in model.atom_heads.trained_parameters())


def test_atoms_are_read_around_a_forward_on_the_instance():
    model = attach_atoms(tiny("bert"), AtomConfig(form="paper"), make_tokenizer())
    own = model.forward

    def replaced(*args, **kwargs):
        outputs = own(*args, **kwargs)
        outputs.logits = outputs.logits + 1
        return outputs

    model.forward = replaced
    reclaim_heads(model)
    reclaim_heads(model)  # wraps it once
    assert model.forward.__wrapped__ is replaced
    batch = batch_for("bert")
    outputs = model.train()(**batch)
    assert outputs.atoms.shape == (4, 35) and outputs.atoms.requires_grad
    torch.testing.assert_close(outputs.logits, own(**batch).logits + 1)
    assert "atoms" not in model.eval()(**batch)


def test_the_class_that_names_a_trainers_arguments():
    class PassesOn(Trainer):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)

    class Names(Trainer):
        def __init__(self, model, args, extra):
            pass

    assert init_class(PassesOn.__mro__) is Trainer and init_class(Names.__mro__) is Names
    assert parameter_names(Names.__init__) == ["model", "args", "extra"]


def test_flags_that_the_heads_overrule_are_said(tmp_path, caplog):
    model = attach_atoms(tiny("bert"), AtomConfig(layer=1))
    with caplog.at_level("WARNING", "atom_hf"):
        make("bert", tmp_path, model=model, atom=True, atom_layer=-1)
    assert model.atom_config.layer == 1 and "atom_layer" in caplog.text


def test_a_wrapped_model_is_rejected(tmp_path):
    with pytest.raises(AtomError, match=r"Sequential.*wrapped"):
        make("bert", tmp_path, model=torch.nn.Sequential(attach_atoms(tiny("bert"))), atom=True)


def test_no_model_is_rejected(tmp_path):
    with pytest.raises(AtomError, match=r"model must be .*PeftModel.*got NoneType"):
        AtomTrainer(args=arguments(tmp_path, atom=True))


@pytest.mark.parametrize("how", ["wrapped", "in place"])
def test_compiled_as_a_whole_is_rejected(how):
    """The graph would hide the model's gradients from the balancer, and nothing of the atom loss would reach the model."""
    model = attach_atoms(tiny("bert"), AtomConfig(form="paper"))
    if how == "wrapped":
        model = torch.compile(model, backend="eager")
    else:
        model.compile(backend="eager")
    with pytest.raises(AtomError, match=r"torch.compile of the whole model: .* use atom_weighting 'absolute'"):
        start_step(model, 0.0)
    absolute = AtomConfig(form="paper", weighting="absolute")
    start_step(torch.compile(attach_atoms(tiny("bert"), absolute), backend="eager"), 0.0)
    with pytest.raises(AtomError, match=r"torch.compile of the whole model: .* use atom_form 'paper'"):
        start_step(torch.compile(attach_atoms(tiny("bert")), backend="eager"), 0.0)
