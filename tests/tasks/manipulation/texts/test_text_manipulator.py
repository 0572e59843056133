"""An editor of texts from training to a page: what it writes, saving and loading, its pipeline, what is refused."""

import copy
import json
import re

import pytest
import torch
from huggingface_hub import ModelCard
from transformers import AutoModel, pipeline

from atom_hf import AtomConfig, AtomError, attach_atoms
from atom_hf.explainer.fit import fit_explainer
from atom_hf.importance.read import read_texts
from atom_hf.tasks.manipulation.texts.classifier import TextClassifier, load_text_classifier
from atom_hf.tasks.manipulation.texts.evaluation import changed_words, evaluate_text_manipulator, kept_share
from atom_hf.tasks.manipulation.texts.manipulator import TextManipulator, rewritten
from atom_hf.tasks.manipulation.texts.report import marked, write_text_report
from atom_hf.tasks.manipulation.texts.rows import TextRows, padded, token_ids
from atom_hf.tasks.manipulation.texts.train import manipulate_texts
from helpers.card_rules import metadata_errors
from helpers.models import make_tokenizer, tiny
from helpers.text_manipulators import NAMES, SAYS, few_steps, made_of_texts, sentences, text_classifier


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved")
    made_of_texts().manipulator.save_pretrained(folder)
    return folder


def test_it_writes_what_is_read_and_keeps_the_rest():
    manipulator, rows = made_of_texts().manipulator, sentences(60, 2)
    edited = manipulator.edit(rows.texts, 1 - rows.labels)
    assert (manipulator.classify(edited).argmax(1) == 1 - rows.labels).float().mean() > 0.9
    kept = [kept_share(a, b) for a, b in zip(rows.texts, edited, strict=True)]
    assert min(kept) >= 0.75 - 1e-9  # two words of eight are hidden
    said = {word for text in edited for word in text.split()} & {*SAYS[0], *SAYS[1]}
    assert len(said) >= 2
    same = manipulator.edit(rows.texts, rows.labels)
    assert (manipulator.classify(same).argmax(1) == rows.labels).float().mean() > 0.9


def test_strength_goes_from_the_texts_own_class_to_another():
    manipulator, rows = made_of_texts().manipulator, sentences(20, 2)
    own = manipulator.classify(rows.texts).argmax(1)
    assert manipulator.edit(rows.texts, 1 - own, 0.0) == manipulator.edit(rows.texts, own)
    assert manipulator.edit(rows.texts, "rough") == manipulator.edit(rows.texts, 1)


def test_the_classifier_stands_still():
    manipulator = made_of_texts().manipulator
    for name, value in text_classifier().model.state_dict().items():
        assert torch.equal(manipulator.get.model.state_dict()[name], value)
    assert not any(parameter.requires_grad for parameter in manipulator.train().get.parameters())
    manipulator.eval()
    config = manipulator.config
    assert (
        config.labels == NAMES
        and config.classifier_name == "org/sentences"
        and config.weights == {"putget": 1, "denoise": 1}
    )


def test_it_loads_by_itself(saved):
    assert {"config.json", "model.safetensors", "tokenizer.json", "README.md"} <= {
        path.name for path in saved.iterdir()
    }
    texts, expected = sentences(5, 2).texts, made_of_texts().manipulator.edit(sentences(5, 2).texts, "calm")
    assert TextManipulator.from_pretrained(saved).eval().edit(texts, "calm") == expected
    assert isinstance(AutoModel.from_pretrained(saved), TextManipulator)
    card = ModelCard.load(saved / "README.md")
    assert metadata_errors(str(card)) == [] and "denoise: put(x, y) == x" in card.text
    assert 'edit("A text.", to="rough")["text"]' in card.text and "filled all at once" in card.text


def test_its_pipeline(saved):
    edit = pipeline("attribute-manipulation", model=str(saved), device="cpu")
    text = sentences(5, 2).texts[0]
    found = edit(text, to="rough")
    manipulator = made_of_texts().manipulator
    assert found["text"] == manipulator.edit([text], "rough")[0] and found["label"] == "calm" and found["to"] == "rough"
    assert found["score"] == pytest.approx(float(manipulator.classify([found["text"]]).softmax(1)[0, 1]), abs=1e-4)
    assert [one["text"] for one in edit([text, text], to=1, strength=0.5)] == [
        edit(text, to=1, strength=0.5)["text"]
    ] * 2
    with pytest.raises(AtomError, match="a text must be a string, got int"):
        edit(3, to="rough")


@pytest.mark.slow
def test_what_is_hidden_is_told_by_the_importance_fitted_to_the_classifier(tmp_path):
    classifier, rows = text_classifier(), sentences(200, 0)
    model = attach_atoms(copy.deepcopy(classifier.model), AtomConfig(layer=-1), classifier.tokenizer)
    parts = [padded(token_ids(rows.texts[at : at + 20], classifier.tokenizer, 48)) for at in range(0, 200, 20)]
    batches = [{"input_ids": part.ids, "attention_mask": part.mask} for part in parts]
    fit_explainer(model, classifier.tokenizer, batches, copies=1, sets=4)
    model.save_pretrained(tmp_path / "get")
    classifier.tokenizer.save_pretrained(tmp_path / "get")
    given = load_text_classifier(str(tmp_path / "get"), NAMES)
    args = few_steps(tmp_path / "out", max_steps=3)
    made = manipulate_texts(given, rows, sentences(20, 1), filling_steps=3, args=args).manipulator
    texts = sentences(6, 2).texts
    hidden = made.hide.places(made.read(texts)[0])
    for row, found in enumerate(read_texts(model, classifier.tokenizer, texts)):
        best = sorted(range(8), key=lambda word: -found.words[word].importance)[:2]
        assert [place - 1 for place in hidden[row].nonzero().flatten().tolist()] == sorted(best)
    made.save_pretrained(tmp_path / "saved")
    loaded = TextManipulator.from_pretrained(tmp_path / "saved").eval()
    assert loaded.edit(texts, 1) == made.edit(texts, 1) and not loaded.explained.training


def test_measures_and_the_page(tmp_path):
    manipulator, rows = made_of_texts().manipulator, sentences(60, 2)
    found = evaluate_text_manipulator(manipulator, rows, sentences(100, 4))
    assert found["rows"] == found["edits"] == 60 and found["judge_accuracy"] == 1.0
    assert found["judge"] > 0.8 and found["kept"] == pytest.approx(0.75, abs=0.05) and found["half_kept"] == 1.0
    assert found["agreement"]["agreement"] > 2 * found["agreement"]["chance"]
    json.dumps(found)
    page, picture = write_text_report(tmp_path, manipulator, rows, found, 4)
    text = page.read_text(encoding="utf-8")
    assert text.count("<del>") >= 4 and text.count("<ins>") >= 4 and "Edits and importance" in text
    assert picture.name == "edits.png" and picture.stat().st_size > 1000


def test_changed_words_are_marked_and_escaped():
    assert changed_words("a b c", "a x c d") == ([1], [1, 3]) and kept_share("a b c d", "a x d") == 0.5
    before, after = marked("a <b> c", "a & c")
    assert str(before) == "a <del>&lt;b&gt;</del> c" and str(after) == "a <ins>&amp;</ins> c"


def test_all_but_the_written_tokens_stands_as_it_was():
    tokenizer = make_tokenizer()
    the, day = tokenizer.convert_tokens_to_ids(["the", "day"])

    def again(text, written):
        encoded = tokenizer(text)
        after = [
            written.get(token, number) for token, number in zip(encoded.tokens(), encoded["input_ids"], strict=True)
        ]
        return rewritten(text, encoded.encodings[0].offsets, encoded["input_ids"], after, tokenizer)

    assert again("The  zq, bliss!", {}) == "The  zq, bliss!"
    assert again("The  zq, bliss!", {"z": day, "##q": None, "bliss": the}) == "The  day, the!"
    assert again("bliss'q, day", {"bliss": the, "'": None, "q": None}) == "the, day"
    assert again("bliss,day bliss", {",": the}) == "bliss the day bliss"


class NoEmbeds(torch.nn.Module):
    def forward(self, input_ids, attention_mask):
        return None


def without_mask():
    tokenizer = make_tokenizer().__class__(vocab=make_tokenizer().get_vocab())
    tokenizer.mask_token = None
    return tokenizer


@pytest.mark.parametrize(
    ("classifier", "options", "says"),
    [
        ({}, {"weights": [1, 1, 1]}, "--weights: of texts give two numbers, of putget and denoise, got 3"),
        ({}, {"weights": [0, 1]}, "--weights: that of putget is 0"),
        ({}, {"share": 0}, "--hidden_share must be between 0 and 1"),
        ({}, {"sigma": "loud"}, "--sigma must be auto, or a number"),
        ({"tokenizer": without_mask}, {}, "has no mask token, which stands for a hidden word"),
        ({"model": NoEmbeds}, {}, "--classifier: NoEmbeds takes no inputs_embeds"),
    ],
)
def test_what_is_wrong_is_said_before_training_starts(tmp_path, started, classifier, options, says):
    parts = {name: make() for name, make in classifier.items()}
    given = text_classifier()._replace(**parts)
    with pytest.raises(AtomError, match=re.escape(says)):
        manipulate_texts(given, sentences(20, 0), sentences(20, 1), args=few_steps(tmp_path), **options)
    assert not started


def test_a_filler_of_another_tokenizer_is_refused(tmp_path):
    tiny("bert").base_model.save_pretrained(tmp_path / "filler")
    tokenizer = make_tokenizer().__class__(vocab={**make_tokenizer().get_vocab(), "extra": len(make_tokenizer())})
    tokenizer.save_pretrained(tmp_path / "filler")
    with pytest.raises(AtomError, match="has another tokenizer than the classifier"):
        manipulate_texts(
            text_classifier(), sentences(20, 0), sentences(20, 1), filler=str(tmp_path / "filler"),
            args=few_steps(tmp_path / "out"),
        )  # fmt: skip


def test_texts_without_a_class_each_are_refused():
    with pytest.raises(AtomError, match="2 texts and 1 labels"):
        TextRows(["a", "b"], torch.tensor([0]))
    with pytest.raises(AtomError, match="texts must be a list of strings"):
        made_of_texts().manipulator.edit("a text", "calm")
    with pytest.raises(AtomError, match="to: there is no class 'wild'"):
        made_of_texts().manipulator.edit(["a text"], "wild")
    assert isinstance(text_classifier(), TextClassifier)
