"""The code in a card: its blocks run one after the other as they stand, wherever the model lies."""

import re
from dataclasses import replace

import pytest

from atom_hf.hub.card import CardFacts, Example, model_card
from atom_hf.hub.card_snippets import atom_code, load_from, pipeline_code, plain_code

BERT = CardFacts(
    name="x",
    model_class="BertForSequenceClassification",
    pipeline_tag="text-classification",
    inputs="text",
    has_processor=True,
    repo_id="org/model",
    examples=[Example('The "sea" \\ is calm', None, "yes", "no", 0.9)],
)
VIT = replace(
    BERT, model_class="ViTForImageClassification", pipeline_tag="image-classification", inputs="image", channels=1
)


def blocks(card):
    return re.findall(r"```python\n(.*?)```", str(card), re.S)


def test_a_text_is_an_example_of_the_card():
    assert plain_code(BERT).splitlines() == [
        "from transformers import AutoTokenizer, BertForSequenceClassification",
        "",
        'model = BertForSequenceClassification.from_pretrained("org/model")',
        'tokenizer = AutoTokenizer.from_pretrained("org/model")',
        r'inputs = tokenizer("The \"sea\" \\ is calm", return_tensors="pt")',
        "print(model.config.id2label[model(**inputs).logits.argmax().item()])",
    ]
    assert atom_code(BERT).splitlines()[2] == 'model = load_atom_model("org/model")'
    assert r'print(read("The \"sea\" \\ is calm"))' in pipeline_code(BERT)
    pair = replace(BERT, examples=[Example("one", "two")])
    assert 'tokenizer("one", "two", return_tensors="pt")' in plain_code(pair)
    assert 'read({"text": "one", "text_pair": "two"})' in pipeline_code(pair)
    assert 'tokenizer("Which words matter here?", ' in plain_code(replace(BERT, examples=[]))


def test_a_picture_lies_beside_the_model_or_is_to_be_given():
    code = plain_code(replace(VIT, sample_picture="sample.png"))
    assert 'file = hf_hub_download("org/model", filename="sample.png")\n' in code
    assert 'picture = Image.open(file).convert("L")\n' in code
    assert "file = hf_hub_download(" in pipeline_code(replace(VIT, sample_picture="sample.png"))
    assert 'picture = Image.new("RGB", (224, 224))  # put' in plain_code(replace(VIT, channels=3))
    assert "picture = " in pipeline_code(VIT) and "print(read(picture))" in pipeline_code(VIT)


def test_a_model_without_a_processor_takes_its_bases():
    code = plain_code(replace(BERT, has_processor=False, base_model="org/base"))
    assert 'tokenizer = AutoTokenizer.from_pretrained("org/base")  # the base\'s\n' in code
    assert pipeline_code(replace(BERT, has_processor=False)) == ""


@pytest.mark.parametrize(
    "tag, takes", [("multiple-choice", "text"), (None, None), ("automatic-speech-recognition", None)]
)
def test_of_other_inputs_the_model_is_only_loaded(tag, takes):
    facts = replace(BERT, pipeline_tag=tag, inputs=takes)
    assert plain_code(facts).endswith('.from_pretrained("org/model")') and pipeline_code(facts) == ""
    lines = atom_code(facts).splitlines()
    assert lines[-1].startswith("# importance = ") and lines[-3] == 'model = load_atom_model("org/model")'


def test_a_class_of_ones_own_is_loaded_with_its_heads_alone():
    facts = replace(BERT, model_class="MyOwnModel")
    assert plain_code(facts) == "" and "tokenizer(" in atom_code(facts)


@pytest.mark.parametrize(
    "facts",
    [BERT, VIT, replace(VIT, sample_picture="sample.png"), replace(BERT, library="peft", base_model="org/base")],
    ids=["text", "picture", "picture beside it", "adapter"],
)
def test_pushed_elsewhere_all_code_is_of_that_place(facts):
    here, there = (str(model_card(replace(facts, repo_id=name))) for name in ("org/one", "org/two"))
    assert load_from(here, "org/two", None) == there == load_from(there, "org/two", "main")
    branch = load_from(here, "org/two", "v2")
    names = re.findall(r'"org/two"(?:, revision="v2")?', "\n".join(blocks(branch)))
    assert len(names) >= 3 and set(names) == {'"org/two", revision="v2"'} and "org/one" not in branch
    assert load_from(branch, "org/one", None) == here
    for block in blocks(branch):
        compile(block, "card", "exec")


def test_a_text_that_reads_like_code_stays_a_text():
    facts = replace(BERT, examples=[Example('"org/model", ) load_atom_model("org/model")')])
    moved = load_from(str(model_card(facts)), "org/two", "v2")
    assert moved == str(model_card(replace(facts, repo_id="org/two"))).replace('"org/two"', '"org/two", revision="v2"')
    for block in blocks(moved):
        compile(block, "card", "exec")
