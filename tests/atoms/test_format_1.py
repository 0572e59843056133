"""Models that were saved in format 1, one with importance fitted to its prediction and one without.

`tests/data/format_1` holds them as they were written, a ViT of width 8 trained on digits, with the pixels of four digits and
the outputs that the version that wrote them gave for these.
"""

import dataclasses
import json

import pytest
import torch

from atom_hf import AtomConfig, AtomError, load_atom_model
from atom_hf.atoms import config, format_1
from helpers.paths import ROOT

pytestmark = pytest.mark.promise("A model that an older version saved loads.")

FOLDER = ROOT / "tests" / "data" / "format_1"


@pytest.mark.parametrize("kind", ["charges", "tied"])
def test_a_model_of_format_1_loads_with_equal_importances(kind):
    expected = json.loads((FOLDER / kind / "expected.json").read_text(encoding="utf-8"))
    pixels = torch.tensor(expected["pixel_values"])
    model = load_atom_model(FOLDER / kind)
    importance = model.atom_importance(pixel_values=pixels)
    wanted = torch.tensor([[float("nan") if q is None else q for q in row] for row in expected["importance"]])
    torch.testing.assert_close(importance, wanted, rtol=0, atol=1e-5, equal_nan=True)
    with torch.no_grad():
        torch.testing.assert_close(model.eval()(pixels).logits, torch.tensor(expected["logits"]), rtol=0, atol=1e-5)
    assert model.atom_config.has_explainer == (kind == "tied")


@pytest.mark.parametrize("kind", ["charges", "tied"])
def test_saved_again_it_is_of_the_format_of_today(kind, tmp_path):
    model = load_atom_model(FOLDER / kind)
    model.save_pretrained(tmp_path)
    saved = json.loads((tmp_path / "atom_config.json").read_text(encoding="utf-8"))
    assert saved["format_version"] == config.FORMAT_VERSION == 2
    assert not {*format_1.FIELDS} & set(saved)
    again = load_atom_model(tmp_path)
    assert again.atom_config == model.atom_config
    pixels = torch.tensor(json.loads((FOLDER / kind / "expected.json").read_text(encoding="utf-8"))["pixel_values"])
    given = {"pixel_values": pixels}
    assert torch.equal(again.atom_importance(**given).nan_to_num(9), model.atom_importance(**given).nan_to_num(9))


def test_what_a_file_of_format_1_leaves_out_has_the_default_of_then(monkeypatch):
    given = {"format_version": 1, "hidden_size": 8, "tied_classes": 3, "tied_width": 16}
    found = AtomConfig.from_dict(given)
    assert (found.explainer_classes, found.explainer_width, found.hidden_size) == (3, 16, 8)
    assert {name: getattr(found, name) for name in format_1.DEFAULTS} == format_1.DEFAULTS

    # A default that changes changes nothing for a model of format 1.
    @dataclasses.dataclass
    class Later(AtomConfig):
        weight: float = 7.0

    assert Later().weight == 7.0 and Later.from_dict(given).weight == 0.1


def test_the_names_of_one_format_are_unknown_to_the_other():
    with pytest.raises(AtomError, match="unknown fields explainer_classes"):
        AtomConfig.from_dict({"format_version": 1, "explainer_classes": 3, "explainer_width": 16})
    with pytest.raises(AtomError, match="unknown fields tied_classes"):
        AtomConfig.from_dict({"format_version": 2, "tied_classes": 3, "tied_width": 16})
    for version in (0, 3, "1", 1.0, True, None):
        with pytest.raises(AtomError, match="this atom-hf reads 1 and 2; install the version"):
            AtomConfig.from_dict({"format_version": version})


def test_tensors_of_format_1():
    assert format_1.upgrade_tensor("tied.inner.weight") == "explainer.inner.weight"
    assert format_1.upgrade_tensor("position.bias") == "position.bias"
