"""A model with importance fitted to its prediction that was saved in format 2 before explainers had more than one output.

`tests/data/format_2` holds it as it was written, a ViT of width 8 trained on digits, with the pixels of four digits and the
outputs that the version that wrote it gave for these.
"""

import json

import pytest
import torch

from atom_hf import load_atom_model
from atom_hf.modeling.explaining import explaining
from helpers.paths import ROOT

FOLDER = ROOT / "tests" / "data" / "format_2" / "fitted"


@pytest.mark.promise("A model that an older version saved loads.")
def test_its_explainer_loads_with_equal_importances_and_stays_what_it_is(tmp_path):
    expected = json.loads((FOLDER / "expected.json").read_text(encoding="utf-8"))
    assert "explainer_layers" not in json.loads((FOLDER / "atom_config.json").read_text(encoding="utf-8"))
    given = {"pixel_values": torch.tensor(expected["pixel_values"])}
    model = load_atom_model(FOLDER)
    wanted = torch.tensor([[float("nan") if q is None else q for q in row] for row in expected["importance"]])
    torch.testing.assert_close(model.atom_importance(**given), wanted, rtol=0, atol=1e-5, equal_nan=True)
    with torch.no_grad(), explaining(model.eval(), strategy="blur") as found:
        outputs = model(**given, return_atoms=True)
    torch.testing.assert_close(outputs.logits, torch.tensor(expected["logits"]), rtol=0, atol=1e-5)
    # It has one importance for all strategies, and does not know what it was fitted on.
    torch.testing.assert_close(found[0].importance[:, 1:], wanted[:, 1:], rtol=0, atol=1e-5)
    assert found[0].novelty.isnan().all() and found[0].parts.isnan().all()
    model.save_pretrained(tmp_path)
    again = load_atom_model(tmp_path)
    assert again.atom_config == model.atom_config and again.atom_config.explainer_strategies is None
    assert torch.equal(again.atom_importance(**given).nan_to_num(9), model.atom_importance(**given).nan_to_num(9))
