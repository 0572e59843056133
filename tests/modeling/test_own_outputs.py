"""Models of one's own: what they return, with whatever names, and that they train, are read and are saved as others are."""

from collections import namedtuple

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy
from transformers import BertModel, PreTrainedConfig, PreTrainedModel

from atom_hf import AtomConfig, AtomTrainer, attach_atoms, load_atom_model
from atom_hf.modeling.own_outputs import showing
from atom_hf.training.custom_loop import atom_term, start_step
from helpers.error_messages import error_message
from helpers.models import batch_for, make_tokenizer, tiny
from helpers.own_models import Around, Dict, own
from helpers.training import SUM, close, equal, history, make, train

pytestmark = pytest.mark.promise(
    "A custom model that returns a tuple or a dict trains, is read and is saved like one of Transformers.",
    "tuples, lists, named tuples, dicts, own names, no backbone, custom loops",
)


Named = namedtuple("Named", "loss logits")


class HandsOn(Around):
    """Hands hidden states on where it is asked to."""

    def forward(self, input_ids=None, attention_mask=None, labels=None, output_hidden_states=None, **kwargs):
        found = self.bert(input_ids, attention_mask=attention_mask, output_hidden_states=output_hidden_states)
        given = self.result(self.classifier(found.pooler_output), labels)
        return (*given, found.hidden_states) if output_hidden_states else given


class List(Around):
    give = staticmethod(lambda loss, logits: [logits] if loss is None else [loss, logits])


class NamedTuple(Around):
    give = staticmethod(Named)


class Unnamed(Around):
    """Keeps BERT under a name that the class does not tell, and its own inputs by names of its own."""

    base_model_prefix = ""

    def __init__(self, config):
        PreTrainedModel.__init__(self, config)
        self.reader, self.classifier = BertModel(config), nn.Linear(config.hidden_size, config.num_labels)
        self.post_init()

    def forward(self, text, padding=None, labels=None):
        pooled = self.reader(input_ids=text, attention_mask=padding).pooler_output
        return self.result(self.classifier(pooled), labels)


OWN = [Around, HandsOn, Dict, List, NamedTuple]


@pytest.mark.parametrize("cls", OWN)
@pytest.mark.parametrize(
    "options", [{"atom_layer": 1}, {"atom_weighting": "relative", "per_device_train_batch_size": 2}]
)
def test_it_trains_as_a_model_of_transformers_does(cls, options, tmp_path):
    runs = [train("bert", tmp_path, model=one, **{**SUM, **options}) for one in (tiny("bert"), own(cls))]
    assert close(*runs) and history(runs[1])[-2].keys() == history(runs[0])[-2].keys()
    assert not close(runs[1], train("bert", tmp_path, model=own(cls), **{**SUM, **options, "atom_weight": 0.0}))


@pytest.mark.parametrize("cls", [*OWN, Unnamed])
def test_its_importance_is_that_of_a_model_of_transformers(cls):
    batch, expected = batch_for("bert"), tiny("bert")
    torch.manual_seed(1)
    attach_atoms(expected, AtomConfig(form="paper"), make_tokenizer())
    model = own(cls)
    torch.manual_seed(1)
    attach_atoms(model, AtomConfig(form="paper"), make_tokenizer())
    given = batch if cls is not Unnamed else {"text": batch["input_ids"], "padding": batch["attention_mask"]}
    torch.testing.assert_close(model.atom_importance(**given), expected.atom_importance(**batch), equal_nan=True)
    asked = model.eval()(**given, return_atoms=True)
    assert asked.logits.shape == (4, 2) and asked["atoms"].shape == (4, 35)
    plain = model(**given)
    assert isinstance(plain, type(own(cls).give(None, asked.logits))) and len(plain) <= 2


@pytest.mark.parametrize("cls", OWN)
def test_a_loss_of_ones_own_finds_what_the_model_returns(cls, tmp_path):
    class Counting(AtomTrainer):
        def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
            outputs = model(**inputs)
            loss, logits = outputs.values() if isinstance(outputs, dict) else outputs
            assert type(outputs) is type(own(cls).give(loss, logits)) and logits.shape == (4, 2)
            return (loss, outputs) if return_outputs else loss

    ours = train("bert", tmp_path, model=own(cls), cls=Counting, **SUM)
    assert close(ours, train("bert", tmp_path, model=own(cls), **SUM))


@pytest.mark.parametrize("cls", [Around, HandsOn])
def test_it_is_saved_as_the_plain_model_and_loads(cls, tmp_path):
    trainer = train("bert", tmp_path, model=own(cls), atom=True)
    trainer.save_model(tmp_path / "saved")
    plain, atoms = cls.from_pretrained(tmp_path / "saved"), load_atom_model(tmp_path / "saved", cls)
    state = trainer.model.state_dict()
    assert equal(atoms.state_dict(), state)
    assert equal(plain.state_dict(), {name: value for name, value in state.items() if "atom_heads" not in name})


class AroundForSequenceClassification(Around):
    pass


def test_an_explainer_is_fitted_to_it(tmp_path, few_steps):
    trainer = train("bert", tmp_path, model=own(AroundForSequenceClassification), atom=True)
    fit = trainer.fit_explainer(samples=16, copies=1, sets=4)
    assert fit.samples == 16 and trainer.model.atom_config.explainer_classes == 2
    assert trainer.model.atom_importance(**batch_for("bert")).shape[0] == 4


@pytest.mark.parametrize("cls", [Around, HandsOn, Dict])
def test_a_loop_of_ones_own_finds_the_atoms(cls):
    model, reference, terms = own(cls), tiny("bert"), []
    for one in (reference, model):
        torch.manual_seed(1)
        attach_atoms(one, AtomConfig(form="paper", weighting="absolute"), make_tokenizer())
        start_step(one, 0.5)
        terms.append(atom_term(one, one(**batch_for("bert", labels=True))))
    torch.testing.assert_close(*terms)
    start_step(reference, 0.5)
    as_tuple = reference(**batch_for("bert", labels=True), return_dict=False)
    torch.testing.assert_close(atom_term(reference, as_tuple), terms[0])
    error_message(lambda: atom_term(reference, as_tuple[:2]), "outputs have no atoms")


class Alone(PreTrainedModel):
    """No model of Transformers is inside it."""

    config_class = PreTrainedConfig
    shows = True

    def __init__(self, config):
        super().__init__(config)
        self.embedding, self.layer = nn.Embedding(len(make_tokenizer()), 32), nn.Linear(32, 32)
        self.classifier = nn.Linear(32, 2)
        self.post_init()

    def forward(self, input_ids=None, attention_mask=None, labels=None, output_hidden_states=None):
        first = self.embedding(input_ids)
        second = self.layer(first).relu()
        logits = self.classifier(second.mean(1))
        given = (logits,) if labels is None else (cross_entropy(logits, labels), logits)
        return (*given, (first, second)) if output_hidden_states and self.shows else given


def test_without_a_model_of_transformers_inside_it_shows_its_hidden_states_itself(tmp_path):
    trainer = train("bert", tmp_path, model=Alone(PreTrainedConfig(hidden_size=32)), **SUM)
    assert len(history(trainer)) == 4 and trainer.model.atom_importance(**batch_for("bert")).shape[0] == 4


def test_one_that_shows_no_hidden_states_is_rejected_before_training(tmp_path, monkeypatch):
    monkeypatch.setattr(Alone, "shows", False)
    trainer = make("bert", tmp_path, model=Alone(PreTrainedConfig(hidden_size=32)), **SUM)
    error_message(trainer.train, "Alone returns a tuple without hidden states", "Transformers model")


def test_a_graph_is_shown_without_a_change_of_value_or_gradient():
    loss, atoms = torch.tensor(2.0, requires_grad=True), torch.ones(3, requires_grad=True)
    for outputs in ((loss * 3, "x"), [None, loss * 3], {"a": 1, "loss": loss * 3}, Named(loss * 3, 4), loss * 3):
        shown = showing(outputs, atoms * 2)
        values = [shown] if torch.is_tensor(shown) else list(shown.values() if isinstance(shown, dict) else shown)
        found = next(value for value in values if torch.is_tensor(value))
        assert type(shown) is type(outputs) and found.item() == 6.0
        assert len(values) == (1 if torch.is_tensor(outputs) else len(outputs))
        assert found.grad_fn.next_functions[1][0] is not None
        assert [g and g.item() for g in torch.autograd.grad(found, [loss, atoms], allow_unused=True)] == [3.0, None]
    assert showing((1, 2), atoms) == (1, 2)
