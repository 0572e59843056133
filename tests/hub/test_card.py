"""How a card is written: valid for the Hub, and with no markup of a stranger's names; and the cards of the recipes."""

import importlib.util
import json
import re

import huggingface_hub.constants
import pytest
from huggingface_hub import HfApi, ModelCard, ModelCardData
from hypothesis import example, given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from atom_hf.hub.card import CardFacts, Comparison, model_card
from helpers.card_rules import empty_values, metadata_errors
from helpers.hub_server import Hub
from helpers.paths import ROOT

HOSTILE = [
    "a|b",
    "two\nlines\r\n---\n",
    "<script>alert(1)</script>",
    "{{ 7 * 7 }}{% raw %}",
    "``` `tick`",
    "[x](https://example.org)",
    "# head: {a: 1}",
    "\u202egnp.exe\u0000\ud800",
    "- !!python/object:x",
    "",
]


@pytest.fixture
def validate(monkeypatch):
    """The client's own validation, which asks the Hub."""
    with Hub() as hub:
        monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", hub.url)

        def validate(text):
            ModelCard(text).validate()
            HfApi(endpoint=hub.url)._validate_yaml(text, token=False)  # what goes before every commit

        yield validate


# Names of strangers


def hostile_facts(names):
    row = [names[0], "0.1", "0.2", names[-1]]
    return CardFacts(
        name=names[0],
        model_class="BertForSequenceClassification",
        pipeline_tag="text-classification",
        base_name=names[1],
        dataset=names[2] or "x",
        dataset_config=names[3] or None,
        labels=names,
        train_samples=4,
        metrics={"accuracy": 0.5, names[4]: 0.25},
        metrics_of="Measured:",
        comparison=Comparison([*names[:4]], [row, row], [1, 2], 3, 4, {}),
        training={"optimizer": names[5]},
        tags=[name for name in names if name],
    )


LETTERS = st.one_of(st.characters(), st.sampled_from("|\\`<>[](){}*_#-+~!&$:@^= \n"))


@pytest.mark.promise("Untrusted texts and names control neither the terminal, nor a page, nor a card.")
@settings(max_examples=60, deadline=None)
@given(st.lists(st.text(LETTERS, max_size=30), min_size=6, max_size=10))
@example(HOSTILE)
@example(HOSTILE[::-1])
def test_names_mean_nothing_but_themselves(names):
    facts = hostile_facts(names)
    text = str(model_card(facts))
    text.encode()  # no lone surrogates
    assert not [c for c in text if not c.isprintable() and c not in "\n\u200c\u200d"]
    card = ModelCard(text)  # the metadata is YAML, and goes round
    assert str(card) == text and metadata_errors(text) == [] and empty_values(card.data.to_dict()) == []
    html = MarkdownIt("gfm-like", {"linkify": False, "html": True}).render(card.text)
    ours = str(model_card(hostile_facts(["plain"] * len(names))))
    expected = MarkdownIt("gfm-like", {"linkify": False, "html": True}).render(ModelCard(ours).text)
    tags = [re.findall(r"<(/?\w+|!--)", page) for page in (html, expected)]
    assert [t for t in tags[0] if "code" not in t] == [t for t in tags[1] if "code" not in t]


def test_long_lists_and_long_names_are_cut():
    text = str(
        model_card(CardFacts(name="n" * 1000, labels=[f"class {i}" for i in range(500)], metrics={"f1": float("nan")}))
    )
    assert "and 480 more" in text and len(text) < 6000 and "nan" not in text.split("---")[1]


RESULT = {"dataset": {"type": "x", "name": "x"}, "metrics": [{"type": "accuracy", "value": 0.5}]}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"license": "my-own"}, '"license" must be one of'),
        ({"pipeline_tag": "guessing"}, '"pipeline_tag" must be one of'),
        ({"base_model": "/home/alice/model"}, '"base_model" must be ids'),
        ({"datasets": ["a data set"]}, '"datasets" must be ids'),
        ({"language": "English"}, '"language" must be codes'),
        ({"tags": "alone"}, '"tags" must be a list'),
        ({"model-index": [{"name": "x", "results": [{"task": {"type": "guessing"}, **RESULT}]}]}, "task.type"),
    ],
)
def test_the_validator_of_the_tests_rejects_what_the_hub_would(changes, message, validate):
    good = model_card(CardFacts(name="x", pipeline_tag="text-classification", license="mit")).data.to_dict()
    validate(f"---\n{ModelCardData(**good)}\n---\n")
    with pytest.raises(ValueError, match=re.escape(message)):
        validate("---\n" + json.dumps({**good, **changes}) + "\n---\n")


# The cards of the recipes


@pytest.fixture(scope="module")
def recipes():
    spec = importlib.util.spec_from_file_location("cards", ROOT / "recipes" / "cards.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_cards_of_the_recipes_are_what_their_results_give(recipes, validate):
    committed = {path.name: path.read_text(encoding="utf-8") for path in (ROOT / "model_cards").glob("*.md")}
    cards = recipes.cards()
    assert cards == {name: text for name, text in committed.items() if name not in ("README.md", "template.md")}
    for name, text in cards.items():
        validate(text)
        lines = (ROOT / "recipes" / name.removesuffix(".md") / "results" / "results.jsonl").read_text().splitlines()
        atom = [line for line in map(json.loads, lines[1:]) if line["arm"] == "atom"]
        result = ModelCard(text).data.eval_results[0]
        key = {"matthews_correlation": "mcc"}.get(result.metric_type, result.metric_type)
        assert result.metric_value == round(sum(line[key] for line in atom) / len(atom), 6)
        assert f"{len(atom)} seeds" in text and "weights of those runs were not kept" in text


def test_the_template_beside_the_cards_is_the_one_in_the_package():
    assert (ROOT / "model_cards" / "template.md").samefile(ROOT / "atom_hf" / "hub" / "template.md")
