"""What is saved and loaded: plain models beside their heads, and error messages for folders that are none."""

import json
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file

from atom_hf import AtomConfig, AtomHeads, AtomMixin, AtomTrainer, load_atom_model
from helpers.error_messages import error_message
from helpers.models import AUTO, TINY, attached, batch_for, collator_for, rows_for, same_outputs, tiny
from helpers.training import arguments

WITHOUT_THE_PACKAGE = """
import logging, sys
sys.modules["atom_hf"] = None  # importing it is now an ImportError
import torch, transformers
transformers.utils.logging.disable_progress_bar()
logging.basicConfig(level=logging.WARNING)
transformers.utils.logging.enable_propagation()
for folder, auto in zip(sys.argv[1::2], sys.argv[2::2]):
    model = getattr(transformers, auto).from_pretrained(folder)
    torch.save(model(**torch.load(folder + "/batch.pt")).logits, folder + "/logits.pt")
assert not any(name.startswith("atom_hf.") for name in sys.modules)
"""


@pytest.mark.promise(
    "What is saved is the plain base model and its heads: it loads without this package, and with it as it was."
)
def test_a_saved_folder_loads_without_this_package(tmp_path):
    words, expected = [], {}
    for name, auto in AUTO.items():
        model, batch = attached(name).eval(), batch_for(name)
        folder = tmp_path / name
        model.save_pretrained(folder)
        torch.save(batch, folder / "batch.pt")
        expected[folder] = model(**batch).logits
        words += [str(folder), auto.__name__]
    run = subprocess.run(
        [sys.executable, "-W", "error", "-c", WITHOUT_THE_PACKAGE, *words], capture_output=True, text=True, cwd=tmp_path
    )
    # Nothing at all is printed or logged: no warning, no report of keys that were not expected or are missing.
    assert (run.returncode, run.stdout, run.stderr) == (0, "", "")
    for folder, logits in expected.items():
        assert torch.equal(torch.load(folder / "logits.pt"), logits)


@pytest.mark.promise(
    "What is saved is the plain base model and its heads: it loads without this package, and with it as it was."
)
@pytest.mark.parametrize("name", TINY)
def test_the_base_is_saved_as_if_nothing_were_attached(name, tmp_path):
    tiny(name).save_pretrained(tmp_path / "plain")
    attached(name).save_pretrained(tmp_path / "atoms")
    plain = {file.name: file.read_bytes() for file in (tmp_path / "plain").iterdir()}
    atoms = {file.name: file.read_bytes() for file in (tmp_path / "atoms").iterdir()}
    assert set(atoms) - set(plain) == {"atom_config.json", "atom_heads.safetensors", "README.md"}
    assert {key: atoms[key] for key in plain} == plain
    config = json.loads(plain["config.json"])
    assert config["architectures"] == [TINY[name][0]] and not [key for key in config if "atom" in key]


@pytest.mark.promise(
    "What is saved is the plain base model and its heads: it loads without this package, and with it as it was."
)
@pytest.mark.parametrize("name", AUTO)
def test_load_atom_model_gives_the_same_model(name, tmp_path, library_log):
    model, batch = attached(name, AtomConfig(layer=1, tokens="all", importance_std=0.7)), batch_for(name)
    model.save_pretrained(tmp_path)
    importance = model.atom_importance(**batch)
    for options in ({}, {"auto_class": AUTO[name]}):
        loaded = load_atom_model(tmp_path, **options)
        assert type(loaded) is type(model) and not loaded.training and loaded.atom_config == model.atom_config
        assert same_outputs(loaded.atom_importance(**batch), importance)
        assert same_outputs(loaded(**batch), model.eval()(**batch))
    assert library_log == []


@pytest.mark.promise(
    "What is saved is the plain base model and its heads: it loads without this package, and with it as it was."
)
def test_shards(tmp_path, library_log):
    model, batch = attached("bert"), batch_for("bert")
    model.save_pretrained(tmp_path, max_shard_size="40KB")
    assert len(list(tmp_path.glob("model-*.safetensors"))) > 2
    loaded, base = load_atom_model(tmp_path), AUTO["bert"].from_pretrained(tmp_path)
    assert same_outputs(loaded.atom_importance(**batch), model.atom_importance(**batch))
    assert same_outputs(base(**batch), model.eval()(**batch)) and library_log == []


@pytest.mark.promise(
    "What is saved is the plain base model and its heads: it loads without this package, and with it as it was."
)
@pytest.mark.parametrize("name", AUTO)
def test_a_checkpoint_of_a_run_loads_with_its_heads(name, tmp_path, library_log):
    args = arguments(tmp_path, atom=True, max_steps=1, save_strategy="steps", save_steps=1)
    trainer = AtomTrainer(model=tiny(name), args=args, train_dataset=rows_for(name), data_collator=collator_for(name))
    trainer.train()
    checkpoint = tmp_path / "checkpoint-1"
    assert not (checkpoint / "atom_heads.safetensors").exists()  # resuming takes them from the model's own file
    library_log.clear()
    loaded, batch = load_atom_model(checkpoint), batch_for(name)
    importance = trainer.model.atom_importance(**batch)
    assert same_outputs(loaded.atom_importance(**batch), importance)
    assert same_outputs(loaded(**batch), trainer.model.eval()(**batch)) and library_log == []


@pytest.mark.promise(
    "What is saved is the plain base model and its heads: it loads without this package, and with it as it was."
)
def test_loading_in_bfloat16_leaves_the_heads_as_saved(tmp_path):
    model = attached("bert")
    model.save_pretrained(tmp_path)
    loaded = load_atom_model(tmp_path, dtype=torch.bfloat16)
    assert loaded.classifier.weight.dtype == torch.bfloat16
    saved = model.atom_heads.state_dict()
    assert all(torch.equal(tensor, saved[key]) for key, tensor in loaded.atom_heads.state_dict().items())
    assert {tensor.dtype for tensor in loaded.atom_heads.state_dict().values()} == {torch.float32}


@pytest.mark.promise(
    "What is saved is the plain base model and its heads: it loads without this package, and with it as it was."
)
def test_a_half_precision_model_is_saved_with_whole_heads(tmp_path):
    model = attached("bert").to(torch.bfloat16)
    model.save_pretrained(tmp_path)
    assert {t.dtype for t in load_file(tmp_path / "atom_heads.safetensors").values()} == {torch.float32}
    assert {t.dtype for t in load_file(tmp_path / "model.safetensors").values()} == {torch.bfloat16}


@pytest.mark.promise(
    "What is saved is the plain base model and its heads: it loads without this package, and with it as it was."
)
def test_saving_on_another_process_writes_nothing(tmp_path):
    attached("bert").save_pretrained(tmp_path / "rank1", is_main_process=False)
    assert not list(tmp_path.glob("rank1/*.safetensors")) and not list(tmp_path.glob("rank1/atom*"))


# What is rejected


@pytest.fixture
def saved(tmp_path):
    attached("bert").save_pretrained(tmp_path)
    return tmp_path


@pytest.mark.promise("A model whose files are damaged, incomplete or of another version is rejected in one line.")
def test_a_damaged_or_foreign_heads_file(saved):
    file = saved / "atom_heads.safetensors"
    whole = file.read_bytes()
    for damage in (whole[:-100], whole[:5], b"", b"no safetensors file"):
        file.write_bytes(damage)
        error_message(lambda: load_atom_model(saved), file)
    heads = load_file(saved / "model.safetensors")
    save_file(heads, file)
    error_message(lambda: load_atom_model(saved), file, "do not fit", "position.weight")
    heads = AtomHeads(16).state_dict()
    save_file(heads, file)
    error_message(lambda: load_atom_model(saved), file, "do not fit", "(16, 16)", "(32, 32)")


@pytest.mark.promise("A model whose files are damaged, incomplete or of another version is rejected in one line.")
def test_a_configuration_of_another_version(saved):
    file = saved / "atom_config.json"
    data = json.loads(file.read_text())
    for change, word in (
        ({"format_version": data["format_version"] + 1}, "format_version"),
        ({"format_version": None}, "format_version"),
        ({"chirality": 1}, "chirality"),
        ({"layer": "last"}, "layer"),
    ):
        file.write_text(json.dumps({**data, **change}))
        error_message(lambda: load_atom_model(saved), word)
    file.write_text("[1]")
    error_message(lambda: load_atom_model(saved), "JSON object")


@pytest.mark.promise("A model whose files are damaged, incomplete or of another version is rejected in one line.")
def test_a_folder_without_atoms_or_without_heads(saved):
    (saved / "atom_heads.safetensors").unlink()
    error_message(lambda: load_atom_model(saved), saved)
    (saved / "atom_config.json").unlink()
    error_message(lambda: load_atom_model(saved), saved, "atom_config.json")


@pytest.mark.promise(
    "An untrusted model runs no code and unpickles nothing, and is rejected in one line before it fills the memory."
)
def test_remote_code_is_never_run(saved):
    error_message(lambda: load_atom_model(saved, trust_remote_code=True), "trust_remote_code")


@pytest.mark.promise("A model whose files are damaged, incomplete or of another version is rejected in one line.")
def test_a_folder_that_names_no_class(saved):
    config = json.loads((saved / "config.json").read_text())
    (saved / "config.json").write_text(json.dumps({**config, "architectures": ["NoSuchModel"]}))
    error_message(lambda: load_atom_model(saved), "auto_class")
    assert isinstance(load_atom_model(saved, AUTO["bert"]), AtomMixin)
