"""Denoisers of diffusers with atoms: outputs, gradients, saving, loading, and pipelines without this package."""

import copy
import json
import pickle
import subprocess
import sys

import diffusers
import pytest
import torch
from diffusers import DDPMPipeline, DDPMScheduler

from atom_hf import AtomConfig, AtomMixin, Atoms, attach_atoms, detach_atoms, load_atom_model
from atom_hf.atoms.loss import loss_of
from atom_hf.training.custom_loop import atom_term, start_step
from helpers.denoisers import DENOISERS, denoiser, inputs_for
from helpers.error_messages import error_message
from helpers.models import tiny


@pytest.mark.parametrize("name", DENOISERS)
def test_the_model_stays_what_it_is(name):
    plain, model, inputs = denoiser(name), attach_atoms(denoiser(name)), inputs_for(name)
    assert (
        isinstance(model, AtomMixin) and isinstance(model, type(plain)) and type(model).__name__ == type(plain).__name__
    )
    assert torch.equal(model.eval()(**inputs).sample, plain.eval()(**inputs).sample)
    assert type(model(**inputs)) is type(plain(**inputs))
    read = model(**inputs, return_atoms=True)
    assert torch.equal(read.sample, plain(**inputs).sample) and isinstance(read, type(plain(**inputs)))
    importance = model.atom_importance(**inputs)
    assert torch.equal(importance, read.atom_importance) and importance.abs().max() <= 1 and importance.std() > 0.1
    detach_atoms(model)
    assert type(model) is type(plain) and set(model.state_dict()) == set(plain.state_dict())


@pytest.mark.parametrize("form", ["paper", "separation"])
@pytest.mark.parametrize("name", ["unet", "sd3"])
def test_the_gradient_is_that_of_the_loss_written_out(name, form):
    config = AtomConfig(form=form, weighting="absolute", weight=0.3, schedule="constant")
    model, inputs = attach_atoms(denoiser(name), config), inputs_for(name)
    start_step(model, 0.0)
    outputs = model(**inputs)
    (outputs.sample.square().mean() + atom_term(model, outputs)).backward()
    found = {key: value.grad for key, value in model.named_parameters() if value.grad is not None}

    plain, seen = denoiser(name), []
    block = plain.get_submodule(model.atom_config.block)
    block.register_forward_hook(lambda module, given, result: seen.append(result))
    loss = plain(**inputs).sample.square().mean()
    result = seen[0]
    tokens = result[0].flatten(2).transpose(1, 2) if name == "unet" else result[1]
    mask, heads = torch.ones(tokens.shape[:2], dtype=torch.bool), copy.deepcopy(model.atom_heads)
    normed = torch.nn.functional.layer_norm(tokens, tokens.shape[-1:])
    if form == "paper":
        importance, position = torch.tanh(heads.importance(normed).squeeze(-1) / 2), heads.position(normed)
    else:
        importance, position = torch.ones(tokens.shape[:2]), normed / tokens.shape[-1] ** 0.5
    atoms = Atoms.from_tokens(importance, position, mask, token_reduction="mean")
    (loss + 0.3 * loss_of(atoms, model.atom_config).loss).backward()
    expected = {key: value.grad for key, value in plain.named_parameters() if value.grad is not None}
    assert expected and all(torch.allclose(found[key], value, rtol=1e-4, atol=1e-7) for key, value in expected.items())
    assert any(key.startswith("atom_heads.") for key in found)


def test_the_energy_reaches_the_block_and_those_before_it_alone():
    config = AtomConfig(form="paper", weighting="absolute", block="mid_block")
    model = attach_atoms(denoiser("unet"), config)
    atom_term(model, model(**inputs_for("unet"))).backward()
    reached = {
        key.split(".")[0] for key, value in model.named_parameters() if value.grad is not None and value.grad.any()
    }
    assert {"conv_in", "down_blocks", "mid_block", "atom_heads"} <= reached
    assert not {"up_blocks", "conv_out", "conv_norm_out"} & reached


def test_the_relative_weight_is_a_share_of_the_tasks_gradient_at_the_cells():
    config = AtomConfig(form="paper", weighting="relative", weight=0.2, schedule="constant")
    model, inputs = attach_atoms(denoiser("unet"), config), inputs_for("unet")
    for _ in range(2):
        start_step(model, 0.0)
        outputs = model(**inputs)
        (outputs.sample.square().mean() + atom_term(model, outputs)).backward()
    start_step(model, 0.0)
    state = model.atom_balancer.state()
    seen, kept = [], []
    plain = denoiser("unet")
    plain.down_blocks[0].register_forward_hook(lambda module, given, result: kept.append(result[0]))
    loss = plain(**inputs).sample.square().mean()
    kept[0].register_hook(lambda gradient: seen.append(gradient.norm().item()))
    loss.backward()
    assert state["task_norm"] == pytest.approx(seen[0], rel=1e-4)
    assert state["scale"] * state["atom_norm"] == pytest.approx(0.2 * seen[0], rel=1e-4)


def test_a_tuple_ends_with_the_atoms():
    model, inputs = attach_atoms(denoiser("unet")), inputs_for("unet")
    sample, atoms, importance = model(**inputs, return_dict=False)
    named = model(**inputs)
    assert torch.equal(sample, named.sample) and torch.equal(atoms, named.atoms)
    assert torch.equal(importance, named.atom_importance)
    assert torch.equal(atom_term(model, (sample, atoms, importance)), atom_term(model, named))


def test_gradient_checkpointing_gives_the_same_gradients():
    gradients = []
    for checkpointing in (False, True):
        model = attach_atoms(denoiser("unet"), AtomConfig(form="paper", weighting="absolute"))
        if checkpointing:
            model.enable_gradient_checkpointing()
        outputs = model(**inputs_for("unet"))
        (outputs.sample.square().mean() + atom_term(model, outputs)).backward()
        gradients.append([value.grad for value in model.parameters() if value.grad is not None])
    assert len(gradients[0]) == len(gradients[1])
    assert all(torch.allclose(*pair, rtol=1e-5, atol=1e-7) for pair in zip(*gradients, strict=True))


def test_heads_stay_in_float32_and_copies_are_whole():
    model = attach_atoms(denoiser("unet")).to(torch.bfloat16)
    assert model.dtype == torch.bfloat16 and model.atom_heads.importance.weight.dtype == torch.float32
    for again in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert type(again) is type(model) and again.atom_config == model.atom_config
        assert all(torch.equal(value, again.state_dict()[name]) for name, value in model.state_dict().items())


WITHOUT_THE_PACKAGE = """
import sys
sys.modules["atom_hf"] = None  # importing it is now an ImportError
import torch
from diffusers import DDPMPipeline
pipeline = DDPMPipeline.from_pretrained(sys.argv[1])
pipeline.set_progress_bar_config(disable=True)
images = pipeline(4, torch.Generator().manual_seed(7), num_inference_steps=5, output_type="pt").images
torch.save(images, sys.argv[2])
assert not any(name.startswith("atom_hf.") for name in sys.modules)
"""


@pytest.mark.promise(
    "What is saved is the plain base model and its heads: it loads without this package, and with it as it was."
)
def test_a_saved_denoiser_samples_in_a_plain_pipeline_without_this_package(tmp_path):
    model = attach_atoms(denoiser("unet")).eval()
    pipeline = DDPMPipeline(model, DDPMScheduler())
    pipeline.set_progress_bar_config(disable=True)
    pipeline.save_pretrained(tmp_path / "pipeline")
    expected = pipeline(4, torch.Generator().manual_seed(7), num_inference_steps=5, output_type="pt").images
    command = [
        sys.executable,
        "-W",
        "error",
        "-c",
        WITHOUT_THE_PACKAGE,
        str(tmp_path / "pipeline"),
        str(tmp_path / "images"),
    ]
    run = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert run.returncode == 0, run.stderr
    assert torch.equal(torch.load(tmp_path / "images"), expected)


@pytest.mark.promise(
    "What is saved is the plain base model and its heads: it loads without this package, and with it as it was."
)
@pytest.mark.parametrize("name", DENOISERS)
def test_what_is_saved_is_the_plain_model_and_its_heads(name, tmp_path):
    plain, model = denoiser(name), attach_atoms(denoiser(name), AtomConfig(importance_std=0.7)).eval()
    plain.save_pretrained(tmp_path / "plain")
    model.save_pretrained(tmp_path / "atoms")
    files = {file.name: file.read_bytes() for file in (tmp_path / "plain").iterdir()}
    others = {file.name: file.read_bytes() for file in (tmp_path / "atoms").iterdir()}
    assert set(others) - set(files) == {"atom_config.json", "atom_heads.safetensors"}
    assert {key: others[key] for key in files} == files
    loaded, inputs = load_atom_model(tmp_path / "atoms"), inputs_for(name)
    assert type(loaded) is type(model) and loaded.atom_config == model.atom_config and not loaded.training
    assert torch.equal(loaded(**inputs).sample, model(**inputs).sample)
    assert torch.equal(loaded.atom_importance(**inputs), model.atom_importance(**inputs))
    # The plain class loads the plain model, called on either class.
    again = type(model).from_pretrained(tmp_path / "atoms")
    assert type(again) is type(plain) and set(again.state_dict()) == set(plain.state_dict())


def test_folders_that_are_not_what_they_say(tmp_path):
    attach_atoms(denoiser("unet")).save_pretrained(tmp_path / "a")
    config = json.loads((tmp_path / "a" / "config.json").read_text())
    for name in ("NoSuchModel", "DDPMScheduler", "os"):
        (tmp_path / "a" / "config.json").write_text(json.dumps({**config, "_class_name": name}))
        error_message(lambda: load_atom_model(tmp_path / "a"), repr(name), "no model of diffusers")
    (tmp_path / "a" / "config.json").write_text(json.dumps({**config, "block_out_channels": [12, 24]}))
    error_message(lambda: load_atom_model(tmp_path / "a"), "cannot be loaded")
    attach_atoms(denoiser("unet")).save_pretrained(tmp_path / "b")
    heads = tmp_path / "b" / "atom_heads.safetensors"
    heads.write_bytes(heads.read_bytes()[:-10])
    error_message(lambda: load_atom_model(tmp_path / "b"), str(heads), "truncated")
    config = AtomConfig.load(tmp_path / "b" / "atom_config.json").to_dict()
    (tmp_path / "b" / "atom_config.json").write_text(json.dumps({**config, "hidden_size": 10**6}))
    error_message(lambda: load_atom_model(tmp_path / "b"), "1000000 wide", "do not fit")
    denoiser("unet").save_pretrained(tmp_path / "plain")
    error_message(lambda: load_atom_model(tmp_path / "plain"), "is not an atom model")
    (tmp_path / "file").write_text("")
    error_message(lambda: attach_atoms(denoiser("unet")).save_pretrained(tmp_path / "file"), "is a file")


def test_models_that_have_no_place_for_atoms():
    error_message(lambda: attach_atoms(diffusers.models.embeddings.Timesteps(8, True, 0.0)), "got Timesteps")
    error_message(lambda: attach_atoms(attach_atoms(denoiser("unet"))), "already has atoms")
    error_message(lambda: attach_atoms(tiny("bert"), AtomConfig(block="encoder")), "block 'encoder'", "give layer")
    wrong = attach_atoms(denoiser("unet"), AtomConfig(hidden_size=5))
    error_message(lambda: wrong(**inputs_for("unet")), "block down_blocks.0", "8 wide", "made for 5")


def test_without_the_library_one_line_says_what_to_install(tmp_path):
    attach_atoms(denoiser("unet")).save_pretrained(tmp_path)
    code = (
        "import sys; sys.modules['diffusers'] = None\n"
        "import atom_hf\n"
        "try: atom_hf.load_atom_model(sys.argv[1])\n"
        "except atom_hf.AtomError as error: print(error)"
    )
    run = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True)
    assert run.stdout.strip() == "diffusers is not installed: pip install 'atom-hf[generation]'"
    code = (
        "import sys, atom_hf; from atom_hf import attach_atoms, load_atom_model; assert 'diffusers' not in sys.modules"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
