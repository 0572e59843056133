"""The table of what is built in, and that others say what it says."""

from pathlib import Path

import pytest

import atom_hf
from atom_hf.builtin import BUILT_IN_DATASETS, BUILT_IN_MODELS
from atom_hf.data.load import load_data
from atom_hf.finetune.arguments import RunArguments
from atom_hf.finetune.pretrained import find_model
from atom_hf.hub.card import CardFacts

README = Path(atom_hf.__file__).parents[1] / "README.md"


def test_what_is_built_in():
    assert [*BUILT_IN_DATASETS] == ["digits", "gaussians", "verse"]
    assert [*BUILT_IN_MODELS] == ["vit-fashion-mnist", "minilm"]


@pytest.mark.parametrize("name", BUILT_IN_DATASETS)
def test_a_data_set_loads_by_its_name_and_the_documents_name_its_licence(name):
    dataset = BUILT_IN_DATASETS[name]
    counts = [int(word.replace(",", "")) for word in dataset.about.split() if word.replace(",", "").isdigit()]
    data = load_data(name)
    assert {len(data.train), len(data.eval)} <= set(counts)
    assert name in RunArguments.__dataclass_fields__["dataset"].metadata["help"]
    licences = " ".join(README.read_text(encoding="utf-8").partition("## Licences")[2].split())
    assert dataset.license in licences


@pytest.mark.parametrize("name", BUILT_IN_MODELS)
def test_a_model_is_a_folder_that_is_known_again(name):
    model, folder = BUILT_IN_MODELS[name], find_model(name)
    assert (Path(folder) / "config.json").is_file()
    assert [other for other, one in BUILT_IN_MODELS.items() if one.is_in(folder)] == [name]
    assert model.is_in(Path("/other/site-packages", model.package, model.folder))
    assert not model.is_in(Path(folder).name) and not model.is_in(Path(folder, "checkpoint-1")) and not model.is_in("")
    assert set(model.card) <= set(CardFacts.__dataclass_fields__)
    assert name in RunArguments.__dataclass_fields__["model"].metadata["help"]
