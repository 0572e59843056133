"""Saving a model with atoms: all its files or none, whatever fails, and what others may read."""

import functools
import json
import os
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError

from atom_hf import AtomConfig, load_atom_model
from atom_hf.modeling.mixin import save_heads
from helpers.error_messages import error_message
from helpers.models import attached


def contents(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def fail(*_, **__):
    raise OSError(28, "No space left on device")


def fail_in_rust(*_, **__):
    raise SafetensorError("I/O error: No space left on device (os error 28)")


@pytest.mark.parametrize(
    ("writer", "failure"),
    [
        ("atom_hf.modeling.heads_file.write_atomically", fail),
        ("atom_hf.modeling.mixin.write_model_card", fail),
        ("atom_hf.atoms.config.write_atomically", fail),
        ("transformers.modeling_utils.safe_save_file", fail_in_rust),
        ("transformers.PreTrainedConfig.save_pretrained", fail),
        ("os.fsync", fail),
    ],
)
@pytest.mark.parametrize("what", ["save_pretrained", "save_heads"])
def test_a_save_that_fails_leaves_the_model_that_was_there(tmp_path, monkeypatch, writer, failure, what):
    attached("bert").save_pretrained(tmp_path)
    before = contents(tmp_path)
    other = attached("bert", AtomConfig(softening=0.5), seed=1)
    other.atom_heads.importance.weight.data.add_(1)
    save = other.save_pretrained if what == "save_pretrained" else functools.partial(save_heads, other)
    with monkeypatch.context() as patch:
        patch.setattr(writer, failure)
        if what == "save_heads" and writer.startswith("transformers"):
            save(tmp_path)  # writes none of these
            assert {name for name, text in contents(tmp_path).items() if before[name] != text} == {
                *("atom_config.json", "atom_heads.safetensors", "README.md"),
            }
            return
        message = error_message(lambda: save(tmp_path), tmp_path, "No space left on device", "unchanged")
        assert "\n" not in message
    assert contents(tmp_path) == before
    save(tmp_path)
    assert contents(tmp_path).keys() == before.keys() and load_atom_model(tmp_path).atom_config.softening == 0.5


@pytest.mark.parametrize("sizes", [("20KB", "50GB"), ("50GB", "20KB"), ("20KB", "30KB")])
def test_weights_of_an_earlier_save_do_not_stay_beside_the_new_ones(tmp_path, sizes):
    (tmp_path / "model-notes.txt").write_text("mine")
    for seed, size in enumerate(sizes):
        attached("bert", seed=seed).save_pretrained(tmp_path, max_shard_size=size)
    index = tmp_path / "model.safetensors.index.json"
    written = set(json.loads(index.read_text())["weight_map"].values()) if index.exists() else {"model.safetensors"}
    assert {path.name for path in tmp_path.glob("model*.safetensors")} == written
    assert (tmp_path / "model-notes.txt").exists()
    expected = attached("bert", seed=1).state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in load_atom_model(tmp_path).state_dict().items())


def test_what_is_saved_can_be_read_by_whoever_reads_other_files(tmp_path):
    before = os.umask(0o022)
    try:
        attached("bert").save_pretrained(tmp_path)
    finally:
        os.umask(before)
    modes = {path.name: path.stat().st_mode & 0o777 for path in tmp_path.iterdir()}
    assert len(modes) == 5 and set(modes.values()) == {0o644}


def test_a_save_that_was_broken_off_while_files_were_renamed_is_completed_by_a_load(tmp_path, monkeypatch, caplog):
    attached("bert").save_pretrained(tmp_path)
    other = attached("bert", AtomConfig(softening=0.5), seed=1)
    moved, real = [], os.replace

    def replace(a, b):
        if Path(b).name == "model.safetensors":  # between the configuration of the model and its weights
            raise KeyboardInterrupt
        moved.append(real(a, b))

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(os, "replace", replace)
        other.save_pretrained(tmp_path)
    assert moved
    with caplog.at_level("WARNING", "atom_hf"):
        found = load_atom_model(tmp_path)
    assert "it has been completed" in caplog.text and found.atom_config.softening == 0.5
    assert all(torch.equal(value, other.state_dict()[name]) for name, value in found.state_dict().items())
