"""A model with its heads is still the model that it was, and without them it is again exactly that."""

import copy
import io
import pickle

import pytest
import torch
from accelerate.hooks import AlignDevicesHook, ModelHook, add_hook_to_module

from atom_hf import AtomConfig, AtomError, AtomMixin, attach_atoms, detach_atoms, load_atom_model
from helpers.models import TINY, attached, batch_for, make_tokenizer, same_outputs, tiny


def trained_once(model, batch):
    """One step of SGD on the task loss, and on the atoms where there are any."""
    torch.manual_seed(0)
    outputs = model.train()(**batch)
    loss = outputs.loss + (outputs.atoms.square().mean() if "atoms" in outputs else 0)
    loss.backward()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.grad is not None:
                parameter -= 0.01 * parameter.grad
    return model


def anatomy(module):
    """All that a module holds of its own: its class, its attributes, its hooks and its parts."""
    own = {k: v for k, v in vars(module).items() if k not in ("_parameters", "_buffers", "_modules")}
    parts = {name: anatomy(part) for name, part in module._modules.items() if part is not None}
    return type(module), sorted(own), list(module._parameters), list(module._buffers), parts


@pytest.mark.parametrize("name", TINY)
def test_detaching_gives_back_what_was_there(name):
    model = tiny(name)
    before, attributes = anatomy(model), dict(vars(model))
    units, state = getattr(model, "_no_split_modules", None), {k: v.clone() for k, v in model.state_dict().items()}
    attach_atoms(model, AtomConfig(layer=-1))
    assert isinstance(model, AtomMixin) and anatomy(model) != before
    assert detach_atoms(model) is model
    assert anatomy(model) == before and not isinstance(model, AtomMixin)
    assert getattr(model, "_no_split_modules", None) == units
    assert all(vars(model)[key] is value for key, value in attributes.items())
    assert list(model.state_dict()) == list(state) and all(
        torch.equal(model.state_dict()[k], v) for k, v in state.items()
    )
    batch = batch_for(name, labels=True)
    torch.manual_seed(0)
    outputs = model(**batch)
    torch.manual_seed(0)
    assert same_outputs(outputs, tiny(name)(**batch))


def test_detaching_keeps_what_was_learned_and_no_atoms(tmp_path):
    model, batch = trained_once(attached("bert"), batch_for("bert", labels=True)), batch_for("bert")
    expected = model.eval()(**batch)
    detach_atoms(model)
    assert same_outputs(model(**batch), expected)
    model.save_pretrained(tmp_path)
    assert not list(tmp_path.glob("atom_*"))
    again = attach_atoms(model, AtomConfig(layer=0))
    assert again.atom_importance(**batch).shape == batch["input_ids"].shape


def test_detaching_what_has_no_atoms():
    with pytest.raises(AtomError, match="no atoms attached"):
        detach_atoms(tiny("bert"))


def test_a_forward_wrapped_while_attached_goes_on_after_detaching():
    """Accelerate wraps `forward` on the instance for mixed precision, and leaves it so after training."""
    model, batch = attached("bert"), batch_for("bert", labels=True)
    inner = model.forward.__func__
    model.forward = lambda *args, **kwargs: inner(model, *args, **kwargs)
    assert "atoms" in model(**batch)
    detach_atoms(model)
    assert same_outputs(model(**batch), tiny("bert")(**batch))


@pytest.mark.parametrize("hook", [ModelHook, AlignDevicesHook])
def test_under_the_hooks_of_a_device_map(hook):
    """Accelerate's hooks keep the forward that they found; atoms attached later must be read all the same."""
    model, batch = tiny("bert"), batch_for("bert", labels=True)
    add_hook_to_module(model, hook())
    attach_atoms(model, AtomConfig(form="paper", layer=-1), make_tokenizer())
    assert same_outputs(model(**batch), attached("bert")(**batch))
    assert same_outputs(detach_atoms(model)(**batch), tiny("bert")(**batch))


def test_a_replaced_forward_is_rejected():
    model = tiny("bert")
    model.forward = lambda *args, **kwargs: None
    with pytest.raises(AtomError, match=r"replaced on the instance \(model.forward = ...\)"):
        attach_atoms(model)


@pytest.mark.parametrize("name", ["bert", "gpt2", "vit"])
def test_a_pickled_model_is_a_model_of_its_own(name):
    # Not one that has given hidden states before, atoms or not: the hooks of Transformers 5.23 for them cannot be pickled.
    model, batch = attached(name), batch_for(name)
    twin = pickle.loads(pickle.dumps(model))
    assert type(twin) is type(model) and twin.atom_config == model.atom_config
    assert same_outputs(twin.atom_importance(**batch), model.atom_importance(**batch))
    assert twin.atom_heads.importance.weight.data_ptr() != model.atom_heads.importance.weight.data_ptr()
    assert twin.atom_balancer.state() == model.atom_balancer.state() and twin.atom_balancer is not model.atom_balancer


@pytest.mark.parametrize("whole", [True, False])
def test_torch_save(whole, tmp_path):
    model, batch, file = attached("bert"), batch_for("bert"), io.BytesIO()
    torch.save(model if whole else model.state_dict(), file)
    file.seek(0)
    # A state dict holds nothing but tensors; a whole model is code too, and Torch loads it only if told to.
    found = torch.load(file, weights_only=not whole)
    if not whole:
        assert [k for k in found if k.startswith("atom_heads.")] and set(found) > set(tiny("bert").state_dict())
        twin = attached("bert", seed=1)
        twin.load_state_dict(found)
        found = twin
    assert same_outputs(found.atom_importance(**batch), model.atom_importance(**batch))
    # A plain model takes the state without the heads.
    plain = tiny("bert", seed=1)
    missing = plain.load_state_dict(model.state_dict(), strict=False)
    assert not missing.missing_keys and all(k.startswith("atom_heads.") for k in missing.unexpected_keys)
    assert same_outputs(plain.eval()(**batch), model.eval()(**batch))


@pytest.mark.parametrize("name", ["bert", "roberta", "gpt2"])
def test_resizing_token_embeddings(name, tmp_path):
    plain, model, batch = tiny(name), attached(name), batch_for(name)
    before = model.atom_importance(**batch)
    size = plain.config.vocab_size + 5
    for one in (plain, model):
        torch.manual_seed(0)
        one.resize_token_embeddings(size, mean_resizing=False)
    assert model.config.vocab_size == size and model.get_input_embeddings().weight.shape[0] == size
    assert same_outputs(model.atom_importance(**batch), before)
    assert same_outputs(model.eval()(**batch), plain.eval()(**batch))
    new = {name: tensor.clone() for name, tensor in batch.items()}
    new["input_ids"][:, 1] = size - 1
    importance = model.atom_importance(**new)
    assert importance[:, 1].isfinite().all()
    model.save_pretrained(tmp_path)
    assert same_outputs(load_atom_model(tmp_path).atom_importance(**new), importance)


def test_tied_weights_stay_tied(tmp_path):
    model = attached("gpt2")
    model.tie_weights()
    assert model.lm_head.weight is model.transformer.wte.weight
    model.save_pretrained(tmp_path)
    loaded = load_atom_model(tmp_path)
    assert loaded.lm_head.weight is loaded.transformer.wte.weight


def test_the_heads_move_with_the_model():
    model = attached("bert").to("meta")
    assert {p.device.type for p in model.parameters()} == {"meta"}
    model = attached("bert").to(torch.float64)
    batch = batch_for("bert")
    naive = attached("bert").atom_importance(**batch)
    torch.testing.assert_close(model.atom_importance(**batch), naive, rtol=1e-5, atol=1e-5, equal_nan=True)


@pytest.mark.parametrize("reentrant", [True, False])
@pytest.mark.parametrize("name", ["bert", "gpt2", "vit"])
def test_gradient_checkpointing_changes_no_gradient(name, reentrant):
    batch = batch_for(name, labels=True)
    gradients = []
    for checkpointing in (False, True):
        torch.manual_seed(0)
        model = attached(name, AtomConfig(layer=-2, weighting="absolute"))
        if checkpointing:
            model.activation_checkpointing_enable({"use_reentrant": reentrant})
            model.enable_input_require_grads()
            assert model.is_activation_checkpointing
        outputs = model.train()(**batch)
        (outputs.loss + outputs.atoms.square().mean()).backward()
        gradients.append({n: p.grad for n, p in model.named_parameters() if p.grad is not None})
    assert list(gradients[0]) == list(gradients[1]) and any("atom_heads" in n for n in gradients[0])
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("name", [n for n in TINY if n not in ("resnet", "swin")])
def test_copies_train_apart(name):
    model, batch = attached(name), batch_for(name, labels=True)
    before = {key: parameter.clone() for key, parameter in model.named_parameters()}
    twin = trained_once(copy.deepcopy(model), batch)
    assert all(torch.equal(parameter, before[key]) for key, parameter in model.named_parameters())
    heads = {key: parameter for key, parameter in twin.named_parameters() if "atom_heads" in key}
    assert heads and not any(torch.equal(parameter, before[key]) for key, parameter in heads.items())
