"""Importance of every target by masking, on models trained for it, against masking done by hand, a token at a time."""

import math

import pytest
import torch

from atom_hf import AtomConfig, AtomError, attach_atoms, detach_atoms
from atom_hf.importance.by_masking import masked_importance
from helpers import trained
from helpers.models import make_tokenizer, tiny

COUNT = 6
TOKENIZER = make_tokenizer()


@pytest.fixture
def samples():
    return trained.texts(COUNT, seed=999)


def by_hand(model, ids, value, most=trained.LENGTH):
    """v(all) - v(all but i) of one text, special tokens nan; `value` takes ids [1, M] and gives a number."""
    with torch.no_grad():
        whole, found = value(ids[None]), []
        for place in range(most):
            masked = ids.clone()
            masked[place] = TOKENIZER.mask_token_id
            is_word = int(ids[place]) not in TOKENIZER.all_special_ids
            found.append(whole - value(masked[None]) if is_word else math.nan)
    return torch.tensor(found), whole


def check(found, samples, value_of, scaled=False):
    """That `found` is what masking by hand gives, and that the key, which decides, comes first."""
    ids, _, places = samples
    first = 0
    for row in range(COUNT):
        expected, whole = by_hand(None, ids[row], lambda given, row=row: value_of(row, given))
        if scaled and expected.nan_to_num().abs().max() > 1:
            expected = expected / expected.nan_to_num().abs().max()
        torch.testing.assert_close(found.importance[row], expected, atol=1e-5, rtol=1e-4, equal_nan=True)
        assert float(found.everything[row]) == pytest.approx(whole, abs=1e-5)
        first += int(found.importance[row].nan_to_num().argmax() == places[row])
    assert found.importance.nan_to_num().abs().max() <= 1
    return first


def ones(ids):
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


def test_the_predicted_class_and_any_other_by_name_or_index(samples):
    model, (ids, chosen, _) = trained.classifier(), samples

    def chance(number):
        return lambda row, given: float(model(**ones(given)).logits[0].softmax(-1)[number(row)])

    found = masked_importance(model, TOKENIZER, ones(ids))
    assert check(found, samples, chance(lambda row: chosen[row])) == COUNT
    assert found.names == [f"key {number}" for number in chosen] and all(found.is_predicted)
    assert (found.nothing < found.everything).all()
    for target in ("key 2", 2, "2"):
        found = masked_importance(model, TOKENIZER, ones(ids), target)
        check(found, samples, chance(lambda row: 2))
        assert found.is_predicted == [number == 2 for number in chosen.tolist()]
    each = ["key 1", 3, 0, None, "key 2", 1]
    found = masked_importance(model, TOKENIZER, ones(ids), each)
    check(found, samples, chance(lambda row: [1, 3, 0, int(chosen[3]), 2, 1][row]))


def test_a_label_of_several(samples):
    model, (ids, chosen, _) = trained.of_labels(), samples
    found = masked_importance(model, TOKENIZER, ones(ids), "LABEL_1")
    check(found, samples, lambda row, given: float(model(**ones(given)).logits[0, 1].sigmoid()))
    assert [bool(value > 0.5) for value in found.everything] == (chosen > 1).tolist()


def test_the_number_of_a_regression(samples):
    model, (ids, _, places) = trained.regression(), samples
    found = masked_importance(model, TOKENIZER, ones(ids))
    check(found, samples, lambda row, given: float(model(**ones(given)).logits[0, 0]), scaled=True)
    strongest = found.importance.nan_to_num().abs().argmax(1)
    assert (strongest == places).sum() >= COUNT - 1


def test_the_label_of_a_token(samples):
    model, (ids, chosen, _) = trained.tagger(), samples

    def chance(place, number):
        return lambda row, given: float(model(**ones(given)).logits[0, place].softmax(-1)[number(row)])

    found = masked_importance(model, TOKENIZER, ones(ids), (0, None))
    assert check(found, samples, chance(0, lambda row: chosen[row])) == COUNT and all(found.is_predicted)
    found = masked_importance(model, TOKENIZER, ones(ids), [(3, "key 1")] * COUNT)
    check(found, samples, chance(3, lambda row: 1))
    for target in (None, 7, ("word", 1), (2, "no label")):
        with pytest.raises(AtomError, match="target") as error:
            masked_importance(model, TOKENIZER, ones(ids), target)
        assert "\n" not in str(error.value)


def test_the_next_token_and_a_given_continuation(samples):
    model, (ids, chosen, _) = trained.language_model(), samples
    behind = trained.continuation(chosen)

    def mean(row, given, wanted):
        given, total = given.clone(), 0.0
        for token in wanted:
            total += float(model(**ones(given)).logits[0, -1].log_softmax(-1)[token])
            given = torch.cat([given, token.view(1, 1)], 1)
        return math.exp(total / len(wanted))

    found = masked_importance(model, TOKENIZER, ones(ids))
    assert check(found, samples, lambda row, given: mean(row, given, behind[row, :1])) == COUNT
    assert found.names == [TOKENIZER.decode(token) for token in behind[:, :1]] and all(found.is_predicted)
    words = TOKENIZER.decode(behind[0])
    found = masked_importance(model, TOKENIZER, ones(ids), words)
    check(found, samples, lambda row, given: mean(row, given, behind[0]))
    assert set(found.names) == {words} and not any(found.is_predicted) and found.everything[0] > 0.9


def test_the_answer_to_a_question(samples):
    model, (ids, _, places) = trained.reader(), samples
    ends = (places + 1).clamp(max=trained.LENGTH - 2)

    def chance(row, given, start, end):
        outputs = model(**ones(given))
        return float(outputs.start_logits[0].softmax(-1)[start] * outputs.end_logits[0].softmax(-1)[end])

    found = masked_importance(model, TOKENIZER, ones(ids))
    assert check(found, samples, lambda row, given: chance(row, given, places[row], ends[row])) >= COUNT - 1
    assert found.names == [TOKENIZER.decode(ids[i, places[i] : ends[i] + 1]) for i in range(COUNT)]
    one = {name: value[:1] for name, value in ones(ids).items()}
    answer = masked_importance(model, TOKENIZER, one, TOKENIZER.decode(ids[0, 1:3]))
    expected, _ = by_hand(model, ids[0], lambda given: chance(0, given, 1, 2))
    torch.testing.assert_close(answer.importance[0], expected, atol=1e-5, rtol=1e-4, equal_nan=True)
    with pytest.raises(AtomError, match="this answer does not stand in the text"):
        masked_importance(model, TOKENIZER, ones(ids), "zzzzz")


def test_what_an_encoder_decoder_writes(samples):
    model, (ids, chosen, _) = trained.writer(), samples
    wanted = torch.cat([trained.continuation(chosen)[:, :1], torch.full((COUNT, 1), TOKENIZER.sep_token_id)], 1)

    def mean(row, given, labels):
        # The loss of an encoder-decoder is the mean negative log likelihood of its labels.
        return math.exp(-float(model(**ones(given), labels=labels[None]).loss))

    found = masked_importance(model, TOKENIZER, ones(ids))
    assert check(found, samples, lambda row, given: mean(row, given, wanted[row])) == COUNT
    assert found.names == [TOKENIZER.decode(row[:1]) for row in wanted] and all(found.is_predicted)
    text = TOKENIZER.decode(wanted[0, :1])
    found = masked_importance(model, TOKENIZER, ones(ids), text)
    labels = torch.tensor(TOKENIZER(text)["input_ids"])
    check(found, samples, lambda row, given: mean(row, given, labels))


@pytest.mark.parametrize(("name", "grid"), [("vit", (4, 4)), ("swin", (7, 7)), ("resnet", (7, 7))])
def test_images_by_patches_or_cells_of_their_input(name, grid):
    model = trained.looker(name)
    pixels, chosen = trained.pictures(3, seed=999)
    found = masked_importance(model, None, {"pixel_values": pixels})
    assert found.importance.shape == (3, grid[0] * grid[1])
    for row in range(3):
        with torch.no_grad():
            number = int(model(pixel_values=pixels[row : row + 1]).logits.argmax())
            values = []
            for cell in [None, *range(grid[0] * grid[1])]:
                masked = pixels[row].clone()
                for y in range(16):
                    for x in range(16):
                        if cell is not None and divmod(cell, grid[1]) == (y * grid[0] // 16, x * grid[1] // 16):
                            masked[:, y, x] = pixels[row].mean()
                values.append(float(model(pixel_values=masked[None]).logits[0].softmax(-1)[number]))
        expected = values[0] - torch.tensor(values[1:])
        torch.testing.assert_close(found.importance[row], expected, atol=1e-5, rtol=1e-4)
        assert found.names[row] == f"LABEL_{number}"
        assert name == "swin" or number == chosen[row]  # so small a Swin learns nothing


def test_padding_on_either_side_changes_nothing(samples):
    model, ids = trained.classifier(), samples[0]
    expected = masked_importance(model, TOKENIZER, ones(ids)).importance
    pad = torch.zeros(COUNT, 2, dtype=torch.long)
    right = {"input_ids": torch.cat([ids, pad], 1), "attention_mask": torch.cat([torch.ones_like(ids), pad], 1)}
    found = masked_importance(model, TOKENIZER, right).importance
    torch.testing.assert_close(found[:, : trained.LENGTH], expected, atol=1e-6, rtol=0, equal_nan=True)
    assert found[:, trained.LENGTH :].isnan().all()
    model = trained.language_model()
    expected = masked_importance(model, TOKENIZER, ones(ids)).importance
    left = {"input_ids": torch.cat([pad, ids], 1), "attention_mask": torch.cat([pad, torch.ones_like(ids)], 1)}
    found = masked_importance(model, TOKENIZER, left).importance
    torch.testing.assert_close(found[:, 2:], expected, atol=1e-6, rtol=0, equal_nan=True)


def test_a_classifier_without_padding_takes_one_copy_at_a_time():
    ids = trained.texts(2, seed=999)[0]
    found = [
        masked_importance(tiny("gpt2-classifier", pad_token_id=pad).eval(), TOKENIZER, ones(ids)) for pad in (0, None)
    ]
    torch.testing.assert_close(found[0].importance, found[1].importance, equal_nan=True, atol=1e-6, rtol=1e-5)


def test_it_is_a_method_of_a_model_with_atoms(samples):
    model, ids = trained.classifier(), samples[0]
    expected = masked_importance(model, TOKENIZER, ones(ids), "key 1").importance
    attach_atoms(model, AtomConfig(), TOKENIZER)
    try:
        found = model.atom_importance(**ones(ids), target="key 1", method="masking", processing_class=TOKENIZER)
        torch.testing.assert_close(found, expected, equal_nan=True)
        with pytest.raises(AtomError, match="is not fitted to what it predicts; fit it"):
            model.atom_importance(**ones(ids), target="key 1")
        with pytest.raises(AtomError, match="method must be 'explainer' or 'masking'; got 'magic'"):
            model.atom_importance(**ones(ids), method="magic")
    finally:
        detach_atoms(model)


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda ids: masked_importance(tiny("bert").bert.eval(), TOKENIZER, ones(ids)), "BertModel gives no class"),
        (lambda ids: masked_importance(trained.classifier(), None, ones(ids)), "processing_class: give the tokenizer"),
        (lambda ids: masked_importance(trained.classifier(), TOKENIZER, ones(ids), "key 9"), "'key 9' is no class"),
        (lambda ids: masked_importance(trained.classifier(), TOKENIZER, ones(ids), 4), "give one of key 0, key 1"),
        (lambda ids: masked_importance(trained.classifier(), TOKENIZER, ones(ids), [1]), "target: 1 for 6 samples"),
        (lambda ids: masked_importance(trained.classifier(), TOKENIZER, ones(ids), None, "drop"), "moves tokens"),
        (lambda ids: masked_importance(trained.language_model(), TOKENIZER, ones(ids), 3), "target 3: give a text"),
    ],
)
def test_what_cannot_be_explained_is_rejected_in_a_line(samples, call, says):
    with pytest.raises(AtomError) as error:
        call(samples[0])
    assert says in str(error.value) and "\n" not in str(error.value)
