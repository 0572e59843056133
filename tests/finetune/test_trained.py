"""Models to predict with: with heads, without, and those that would predict at random."""

import json

import pytest
import torch

from atom_hf import AtomConfig, AtomError, AtomMixin, attach_atoms
from atom_hf.finetune.trained import load_trained
from helpers.models import batch_for, make_tokenizer, tiny


def test_it_comes_with_its_heads_or_as_it_is(tmp_path):
    model = tiny("bert").eval()
    model.save_pretrained(tmp_path / "plain")
    attach_atoms(model, AtomConfig(), make_tokenizer()).save_pretrained(tmp_path / "atoms")
    with torch.no_grad():
        expected = model(**batch_for("bert")).logits
    for name, has_atoms in (("plain", False), ("atoms", True)):
        loaded = load_trained(str(tmp_path / name))
        assert isinstance(loaded, AtomMixin) == has_atoms and not loaded.training
        with torch.no_grad():
            torch.testing.assert_close(loaded(**batch_for("bert")).logits, expected)


def test_what_is_not_trained_for_a_task_is_rejected(tmp_path):
    tiny("bert").bert.save_pretrained(tmp_path / "base")
    config = json.loads((tmp_path / "base" / "config.json").read_text())
    for architectures, says in (
        (["BertForSequenceClassification"], "holds no trained BertForSequenceClassification: it lacks"),
        (["NoSuchModel"], "names no model class of Transformers"),
        (None, "names no model class of Transformers"),
    ):
        (tmp_path / "base" / "config.json").write_text(json.dumps({**config, "architectures": architectures}))
        with pytest.raises(AtomError, match=says) as error:
            load_trained(str(tmp_path / "base"))
        assert "\n" not in str(error.value)
    (tmp_path / "adapter").mkdir()
    (tmp_path / "adapter" / "adapter_config.json").write_text("{}")
    with pytest.raises(AtomError, match="is an adapter without heads"):
        load_trained(str(tmp_path / "adapter"))
