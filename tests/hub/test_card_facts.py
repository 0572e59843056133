"""What a card knows of a model, and that it says nothing else: no training, no base, no guess."""

import re
from dataclasses import replace

import pytest
from huggingface_hub import ModelCard
from huggingface_hub.repocard import metadata_load
from transformers import AutoConfig, AutoModelForSequenceClassification

from atom_hf import AtomConfig, attach_atoms, load_atom_model
from atom_hf.hub.card import MARK, CardFacts, model_card
from atom_hf.hub.card_facts import base_facts, facts_of_model, pipeline_tag
from atom_hf.hub.card_update import saved_again
from atom_hf.hub.licenses import LICENSES
from atom_hf.modeling.attach import add_explainer, remove_explainer
from helpers import card_rules
from helpers.cards import check, make_trainer, section
from helpers.models import TINY, make_tokenizer, tiny


def test_a_model_alone_claims_no_training(tmp_path):
    model = attach_atoms(tiny("bert"), AtomConfig(layer=1), make_tokenizer())
    model.save_pretrained(tmp_path)
    card = (tmp_path / "README.md").read_text()
    check(card)
    assert MARK in card and "with the atom heads" in card and "| **layer** | 1 | -2 |" in card
    assert not re.search(r"fine-tuned|\n## (Results|Data|Training|With)", card)
    assert "has not been measured, as far as this card knows" in section(card, "Limits")
    assert set(metadata_load(tmp_path / "README.md")) == {"library_name", "pipeline_tag", "tags"}


def test_weights_that_were_never_loaded_have_no_base(tmp_path):
    tiny("bert").save_pretrained(tmp_path / "base")
    (tmp_path / "base" / "README.md").write_text("---\nlicense: bsd\n---\n")
    config = AutoConfig.from_pretrained(tmp_path / "base")
    assert config._name_or_path == str(tmp_path / "base")
    made = AutoModelForSequenceClassification.from_config(config)
    assert facts_of_model(made).base_name is None
    loaded = AutoModelForSequenceClassification.from_pretrained(tmp_path / "base")
    facts = facts_of_model(loaded)
    assert (facts.base_model, facts.base_name, facts.license) == (None, "base", "bsd")


def test_only_a_licence_that_the_hub_takes_is_passed_on(tmp_path):
    assert set(LICENSES) == set(card_rules.LICENSES) - {"other", "unknown"}
    for name in ("proprietary", "other", "mit", "llama2"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "README.md").write_text(f"---\nlicense: {name}\n---\n")
        facts = base_facts(str(tmp_path / name))
        assert facts["license"] == (name if name in ("mit", "llama2") else None)
        check(str(model_card(CardFacts(**facts))))


def test_a_folder_that_is_gone_or_elsewhere_is_no_id_on_the_hub(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("runs/b1", "runs/b2"):
        attach_atoms(tiny("bert"), AtomConfig(layer=1), make_tokenizer()).save_pretrained(name)
    (tmp_path / "runs" / "b2" / "README.md").write_text("---\nlicense: bsd\n---\n")
    late = AutoModelForSequenceClassification.from_pretrained("runs/b1")
    model = load_atom_model("runs/b2")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    model.save_pretrained("again")
    card = ModelCard.load("again/README.md")
    assert (card.data.base_model, card.data.license) == (None, "bsd") and "`b2` (a local checkpoint)" in card.text
    # Here nobody asked while the folder was there to be seen: it has a name, and nothing else is known.
    facts = facts_of_model(attach_atoms(late, AtomConfig(layer=1)))
    assert (facts.base_model, facts.base_name, facts.base_note) == (None, "b1", None)


def test_the_card_of_a_run_outlives_loading_and_saving(tmp_path):
    trainer = make_trainer(tmp_path / "run")
    trainer.train()
    trainer.save_model()
    card = (tmp_path / "run" / "README.md").read_text()
    model = load_atom_model(tmp_path / "run")
    for _ in range(2):
        model.save_pretrained(tmp_path / "run")
        assert (tmp_path / "run" / "README.md").read_text() == saved_again(card, card) != card
    model.save_pretrained(tmp_path / "other")
    other = (tmp_path / "other" / "README.md").read_text()
    assert "the weights of `run` (a local checkpoint)" in other and "## Training" not in other


def test_a_card_says_whether_importance_is_fitted_to_the_prediction(tmp_path):
    trainer = make_trainer(tmp_path / "run")
    trainer.train()
    trainer.save_model()
    run = section((tmp_path / "run" / "README.md").read_text(), "Reading importances")
    model = load_atom_model(tmp_path / "run")
    sizes = {"explainer_classes": 2, "explainer_width": 8, "explainer_blocks": 0, "explainer_layers": [-1]}
    sizes |= {"explainer_strategies": ["mask"], "explainer_explained": [0.04]}
    add_explainer(model, **sizes)
    for place in ("run", "other"):
        model.save_pretrained(tmp_path / place)
    kept, alone = (
        section(card := (tmp_path / place / "README.md").read_text(), "Reading importances")
        for place in ("run", "other")
    )
    assert kept == alone and "## Training" in (tmp_path / "run" / "README.md").read_text()
    check(card)
    # The numbers that the run logged are of the charges.
    assert "mean |importance|" in run and "mean |importance|" not in kept
    for told, says in ((run, "tells the sample apart"), (kept, "the prediction leans on the token")):
        assert says in told and "this very model has not been measured" in told
    assert (
        "The importance explains 4% (mask) of what masking" in kept
        and "beyond equal parts; take it for a rough guide." in kept
    )
    assert "leans on" not in run and "tells the sample apart" not in kept
    assert "| explainer_classes | 2 |" in section(card, "Atom settings")
    remove_explainer(model)
    model.save_pretrained(tmp_path / "run")
    # The section of a run without its numbers.
    assert run.endswith(back := section((tmp_path / "run" / "README.md").read_text(), "Reading importances")[1:])
    assert "It does not come from the prediction" in back
    add_explainer(trainer.model, **sizes)
    trainer.save_model()
    told = section((tmp_path / "run" / "README.md").read_text(), "Reading importances")
    assert told == kept and "seed" in (tmp_path / "run" / "README.md").read_text()


def test_built_in_models_are_known_by_folder_and_by_name(tmp_path):
    from atom_hf.builtin import BUILT_IN_MODELS
    from atom_hf.finetune.pretrained import find_model

    for name in BUILT_IN_MODELS:
        assert base_facts(name) == base_facts(find_model(name)) and base_facts(name)["license"] == "apache-2.0"
    assert base_facts("minilm")["base_model"] == "sentence-transformers/all-MiniLM-L6-v2"
    # A folder of the user's may bear the name of a built-in model's.
    own = tmp_path / "vit_fashion_mnist"
    own.mkdir()
    assert base_facts(str(own))["base_note"] == "a local checkpoint"


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")  # PEFT 0.21.2 on Transformers 5.23
def test_an_adapter_is_called_one():
    from peft import LoraConfig, get_peft_model

    model = get_peft_model(tiny("bert"), LoraConfig(target_modules=["query"], task_type="SEQ_CLS"))
    facts = replace(facts_of_model(model), base_model="org/base")
    card = str(model_card(facts))
    check(card)
    data = ModelCard(card).data
    assert (data.library_name, data.base_model_relation, data.pipeline_tag) == (
        "peft",
        "adapter",
        "text-classification",
    )
    lines = section(card, "How to use it")
    assert 'base = BertForSequenceClassification.from_pretrained("org/base")  # the base\'s\n' in lines
    assert 'model = PeftModel.from_pretrained(base, "path/to/model")\n' in lines
    assert "An adapter of [org/base]" in card and "peft" in section(card, "Versions")


def test_the_task_of_a_model_is_found_by_its_class():
    tasks = {name: pipeline_tag(TINY[name][0]) for name in ("bert", "gpt2", "vit")}
    assert tasks == {"bert": "text-classification", "gpt2": "text-generation", "vit": "image-classification"}
    assert pipeline_tag("BertForMultipleChoice") == "multiple-choice"
    assert pipeline_tag("WhisperForConditionalGeneration") == "automatic-speech-recognition"
    assert pipeline_tag("MyOwnModel") is None
