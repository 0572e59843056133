"""The form of the energy that a model gets where none is asked for: the same from Python and from the command line."""

import pytest
import transformers
from torch import nn
from transformers import BertConfig, BertModel, BertPreTrainedModel
from transformers.modeling_outputs import SequenceClassifierOutput

from atom_hf import AtomConfig, AtomTrainer, AtomTrainingArguments, attach_atoms, detach_atoms, load_atom_model
from atom_hf.atoms.forms import FORMS
from atom_hf.modeling.form import default_form
from helpers.models import TEXT, make_tokenizer, tiny

SIZES = dict(vocab_size=50, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16)


class Rater(BertPreTrainedModel):
    """A classifier of one's own class, which Transformers knows no loss for."""

    def __init__(self, config):
        super().__init__(config)
        self.bert, self.out = BertModel(config), nn.Linear(config.hidden_size, 2)

    def forward(self, input_ids=None, labels=None, output_hidden_states=None):
        outputs = self.bert(input_ids, output_hidden_states=output_hidden_states)
        return SequenceClassifierOutput(logits=self.out(outputs.pooler_output), hidden_states=outputs.hidden_states)


def of_bert(kind):
    return getattr(transformers, f"BertFor{kind}")(BertConfig(**SIZES))


@pytest.mark.parametrize("name", ["bert", "distilbert", "roberta", "gpt2-classifier", "vit", "resnet", "swin"])
def test_classifiers_of_samples_are_separated(name):
    model = attach_atoms(tiny(name), processing_class=make_tokenizer() if name in TEXT else None)
    assert {name: getattr(model.atom_config, name) for name in FORMS["separation"]} == FORMS["separation"]
    assert attach_atoms(tiny(name), AtomConfig(form="paper")).atom_config.weight == FORMS["paper"]["weight"]


@pytest.mark.parametrize("kind", ["TokenClassification", "QuestionAnswering", "MaskedLM"])
def test_other_models_have_the_papers_form(kind):
    assert default_form(of_bert(kind)) == "paper"


def test_writers_and_models_without_a_head_have_the_papers_form():
    assert default_form(tiny("gpt2")) == default_form(BertModel(BertConfig(**SIZES))) == "paper"
    assert attach_atoms(tiny("gpt2"), AtomConfig(layer=-1)).atom_config.form == "paper"


def test_a_classifier_of_ones_own_class_is_known_by_its_labels():
    assert default_form(Rater(BertConfig(**SIZES))) == "separation"


def test_the_trainer_decides_alike_and_a_saved_model_keeps_its_form(tmp_path):
    def train_with(model, **options):
        args = AtomTrainingArguments(str(tmp_path / "run"), atom=True, report_to="none", use_cpu=True, **options)
        return AtomTrainer(model, args, train_dataset=[{"input_ids": [1]}], processing_class=make_tokenizer()).model

    assert train_with(tiny("bert")).atom_config.form == "separation"
    model = train_with(tiny("bert"), atom_form="paper", atom_weight=0.3)
    assert (model.atom_config.form, model.atom_config.weight) == ("paper", 0.3)
    model.save_pretrained(tmp_path / "model")
    loaded = load_atom_model(str(tmp_path / "model"))
    assert loaded.atom_config.form == "paper"
    again = train_with(loaded)
    assert (again.atom_config.form, again.atom_config.weighting) == ("paper", "relative")
    detach_atoms(again)
    assert train_with(again).atom_config.form == "separation"
