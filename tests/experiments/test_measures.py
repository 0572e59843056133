"""Measures of a trained model: each by hand and at its limits, and all of them on small real runs."""

import math
import shlex
import statistics

import datasets
import numpy as np
import pytest
import torch
from PIL import Image

from atom_hf.data.load import load_data
from atom_hf.experiments.features import read_outputs
from atom_hf.experiments.measures import (
    calibration_error,
    corrupt,
    distinct,
    effective_rank,
    entropy,
    less_is_better,
    measure_classifier,
    measure_writer,
    neighbor_distance,
    repetition,
    self_bleu,
)
from atom_hf.experiments.regularizers import StudyTrainer, StudyTrainingArguments
from atom_hf.finetune.arguments import RunArguments
from atom_hf.finetune.flags import parse_kinds
from atom_hf.finetune.run import prepare_run, unlogged_run

pytestmark = pytest.mark.usefixtures("own_cache")

SHORT = "--max_steps 4 --max_train_samples 32 --per_device_train_batch_size 8 --learning_rate 5e-3 --seed 3"
SIZES = "hidden_size=16,num_hidden_layers=1,num_attention_heads=2,intermediate_size=16"
VIT = f"--model_type vit --config_overrides image_size=8,patch_size=4,num_channels=1,{SIZES} --dataset digits"
BERT = f"--model_type bert --config_overrides {SIZES} --vocabulary_size 400 --dataset verse"
GPT2 = (
    "--model_type gpt2 --config_overrides n_embd=16,n_layer=1,n_head=2,n_positions=48 --vocabulary_size 300 "
    "--dataset verse --task causal-lm --max_length 48"
)


def probabilities_of(n, classes, seed=0):
    found = np.random.default_rng(seed).gamma(0.3, size=(n, classes))
    return found / found.sum(1, keepdims=True)


# Probabilities


def naive_calibration_error(probabilities, labels):
    bins = {}
    for row, label in zip(probabilities.tolist(), labels.tolist(), strict=True):
        confidence = max(row)
        chosen = next(b for b in range(15) if confidence <= (b + 1) / 15)
        bins.setdefault(chosen, []).append((confidence, row.index(confidence) == label))
    error = 0.0
    for members in bins.values():
        confidence = statistics.mean(c for c, _ in members)
        accuracy = statistics.mean(float(right) for _, right in members)
        error += len(members) / len(labels) * abs(accuracy - confidence)
    return error


@pytest.mark.parametrize("classes", [2, 5])
@pytest.mark.parametrize("seed", range(3))
def test_calibration_error_against_bins_in_loops(classes, seed):
    probabilities = probabilities_of(200, classes, seed)
    labels = np.random.default_rng(seed + 9).integers(0, classes, 200)
    labels[:100] = probabilities[:100].argmax(1)
    assert calibration_error(probabilities, labels) == pytest.approx(naive_calibration_error(probabilities, labels))


def test_calibration_error_at_its_limits():
    sure = np.eye(2)[[0, 1, 0, 1]]
    assert calibration_error(sure, np.array([0, 1, 0, 1])) == 0
    assert calibration_error(sure, np.array([1, 0, 1, 0])) == 1
    # As often right as it says.
    assert calibration_error(np.array([[0.75, 0.25]] * 4), np.array([0, 0, 0, 1])) == pytest.approx(0)
    # Half are too sure by 0.1 and half not sure enough by 0.1: bins do not make up for each other.
    rows = np.array([[0.9, 0.1]] * 10 + [[0.6, 0.4]] * 10)
    labels = np.array([0] * 8 + [1] * 2 + [0] * 7 + [1] * 3)
    assert calibration_error(rows, labels) == pytest.approx(0.1)


def test_entropy():
    assert entropy(np.eye(3)) == 0
    assert entropy(np.full((2, 5), 0.2)) == pytest.approx(math.log(5))
    rows = probabilities_of(7, 4)
    by_hand = statistics.mean(-sum(p * math.log(p) for p in row if p > 0) for row in rows.tolist())
    assert entropy(rows) == pytest.approx(by_hand)


# Latents


@pytest.mark.parametrize("k", [1, 2, 5])
def test_effective_rank_of_k_directions_of_equal_size(k):
    cross = np.vstack([np.eye(6)[:k], -np.eye(6)[:k]])
    turned = cross @ np.linalg.qr(np.random.default_rng(k).normal(size=(6, 6)))[0]
    # Where they are and how large they are does not matter.
    assert effective_rank(3 * turned + 100) == pytest.approx(k)


def test_effective_rank_by_hand():
    latent = np.array([[2.0, 0.0], [-2.0, 0.0], [0.0, 1.0], [0.0, -1.0]])
    # Centred as it stands, with singular values 2 sqrt(2) and sqrt(2): shares 2/3 and 1/3.
    assert effective_rank(latent) == pytest.approx(math.exp(-2 / 3 * math.log(2 / 3) - 1 / 3 * math.log(1 / 3)))
    assert effective_rank(np.ones((4, 3))) == pytest.approx(1)


def naive_neighbor_distance(latent):
    n = len(latent)
    distances = {(i, j): math.dist(latent[i], latent[j]) for i in range(n) for j in range(n) if i != j}
    nearest = [min(distances[i, j] for j in range(n) if j != i) for i in range(n)]
    return statistics.mean(nearest) / statistics.mean(distances.values())


def test_neighbor_distance():
    latent = np.random.default_rng(0).normal(size=(12, 3))
    found = neighbor_distance(latent)
    assert found == pytest.approx(naive_neighbor_distance(latent.tolist()))
    assert neighbor_distance(10 * latent + 5) == pytest.approx(found)
    # The corners of a square: four sides of 1 and two diagonals.
    square = np.array([[0.0, 0], [0, 1], [1, 0], [1, 1]])
    assert neighbor_distance(square) == pytest.approx(1 / ((4 + 2 * math.sqrt(2)) / 6))
    assert neighbor_distance(np.repeat(square, 2, axis=0)) == 0
    assert neighbor_distance(np.ones((3, 2))) == 0


# What is written


def test_distinct_and_repetition():
    texts = [["the", "sea", "the", "sea"], ["the", "the", "moon"], ["sea"], []]
    # 8 words of 3 kinds; 5 pairs, one of them twice.
    assert distinct(texts, 1) == 3 / 8 and distinct(texts, 2) == 4 / 5
    assert distinct(texts, 4) == 1 and distinct(texts, 5) == 0
    assert repetition(texts) == 1 / 5
    assert repetition([["a"] * 5]) == 1 and repetition([[], ["a"]]) == 0


def test_self_bleu():
    assert self_bleu(["the tide is full tonight"] * 3) == pytest.approx(100)
    assert self_bleu(["a b c d e", "f g h i j"]) < 1e-6
    # 4 of 5 words, 3 of 4 pairs, 2 of 3 triples and 1 of 2 fours are shared; both are as long.
    expected = 100 * (4 / 5 * 3 / 4 * 2 / 3 * 1 / 2) ** (1 / 4)
    assert self_bleu(["a b c d e", "a b c d f"]) == pytest.approx(expected)
    # A text without a word is compared with nothing.
    assert self_bleu(["a b c d e", "a b c d f", " "]) == pytest.approx(expected)


def test_which_measures_are_better_when_less():
    less = {"loss", "perplexity", "calibration_error", "self_bleu", "repetition"}
    every = less | {"accuracy", "mcc", "distinct-1", "distinct-2"}
    assert {name for name in every if less_is_better(name)} == less


# Corruption


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_images_become_noisy_by_the_stated_deviation(mode):
    grey = [Image.new(mode, (16, 16), 128 if mode == "L" else (128, 128, 128)) for _ in range(30)]
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["no", "yes"])})
    rows = datasets.Dataset.from_dict({"image": grey, "label": [i % 2 for i in range(30)]}, features=features)
    found = corrupt(rows, 0)
    assert found["label"][:] == rows["label"][:] and found.features == rows.features
    images = found["image"][:]
    assert {(image.mode, image.size) for image in images} == {(mode, (16, 16))}
    noise = np.stack([np.asarray(image, dtype=float) for image in images]) - 128
    # A fifth of 255, a little less for what is clipped at 0 and 255.
    assert 48 < noise.std() < 51 and abs(noise.mean()) < 2
    assert not np.array_equal(noise[0], noise[1])


def test_words_are_taken_out_and_nothing_else_changes():
    rows = load_data("verse", max_eval_samples=200).eval
    found = corrupt(rows, 0)
    assert found["label"][:] == rows["label"][:] and found.features == rows.features
    before, after = ([text.split() for text in part["text"]] for part in (rows, found))
    for whole, left in zip(before, after, strict=True):
        words = iter(whole)
        assert left and all(word in words for word in left), "in their order"
    dropped = 1 - sum(map(len, after)) / sum(map(len, before))
    assert 0.17 < dropped < 0.23


def test_no_text_is_made_empty_and_both_texts_of_a_pair_lose_words():
    count = 200
    columns = {
        "text": ["sea"] * count,
        "text_pair": ["the moon lies fair upon"] * count,
        "label": [0, 1] * (count // 2),
    }
    rows = datasets.Dataset.from_dict(columns).cast_column("label", datasets.ClassLabel(names=["no", "yes"]))
    found = corrupt(rows, 1)
    assert set(found["text"]) == {"sea"} and len(set(found["text_pair"])) > 10
    assert found["label"][:] == rows["label"][:]


@pytest.mark.parametrize("name", ["digits", "verse"])
def test_the_same_seed_is_the_same_corruption(name):
    rows = load_data(name, max_eval_samples=20).eval
    column = "text" if name == "verse" else "image"

    def read(part):
        return [one if name == "verse" else np.asarray(one).tolist() for one in part[column]]

    first, again, other = (read(corrupt(rows, seed)) for seed in (4, 4, 5))
    assert first == again != other and first != read(rows)


# Runs


def prepare(line):
    flags = shlex.split(f"{line} {SHORT}")
    run, args = parse_kinds("train", flags, [RunArguments, StudyTrainingArguments])
    with unlogged_run(run, args, 3) as (one, quietly):
        prepared = prepare_run(one, quietly, save=False, trainer_class=StudyTrainer)
        prepared.trainer.train()
    return prepared


CLASSIFIERS = {"image": f"{VIT} --max_eval_samples 70", "text": f"{BERT} --max_eval_samples 40 --atom"}


@pytest.mark.parametrize("kind", CLASSIFIERS)
def test_a_classifier_is_measured_by_what_its_trainer_finds_and_more(kind):
    prepared = prepare(CLASSIFIERS[kind])
    rows = prepared.data.eval
    shifted = rows.select(range(10, 30))
    measures, latent = measure_classifier(prepared, {"out of domain": shifted}, seed=1)
    found = prepared.trainer.evaluate()
    assert list(measures) == [
        *("accuracy", "mcc", "loss", "calibration_error", "entropy", "effective_rank", "neighbor_distance"),
        *("corrupted accuracy", "corrupted mcc", "out of domain accuracy", "out of domain mcc"),
        *("scaled loss", "train accuracy", "twin", "distance_correlation"),
    ]
    assert all(type(value) is float and math.isfinite(value) for value in measures.values())
    assert measures["loss"] == pytest.approx(found["eval_loss"], rel=1e-5)
    assert measures["accuracy"] == found["eval_accuracy"] and measures["mcc"] == found["eval_mcc"]
    assert latent.shape == (len(rows), 16)

    logits, labels, _ = read_outputs(prepared, prepared.task.eval)
    assert labels.tolist() == rows["label"][:]
    probabilities = torch.tensor(logits).double().softmax(1).numpy()
    assert measures["calibration_error"] == pytest.approx(naive_calibration_error(probabilities, labels))
    assert measures["neighbor_distance"] == pytest.approx(naive_neighbor_distance(latent.tolist()), rel=1e-4)
    known = prepared.trainer.evaluate(prepared.task.encode(prepared.data.train))
    assert measures["train accuracy"] == known["eval_accuracy"]
    right = logits.argmax(1) == labels
    assert measures["out of domain accuracy"] == right[10:30].mean()
    assert (
        measures["corrupted accuracy"]
        == prepared.trainer.evaluate(prepared.task.encode(corrupt(rows, 1)))["eval_accuracy"]
    )


def test_latents_are_those_of_the_rows_in_their_order():
    prepared = prepare(f"{VIT} --max_eval_samples 40")
    _, _, latent = read_outputs(prepared, prepared.task.eval)
    body = prepared.trainer.model.eval().vit
    for i in (0, 33, 39):  # 32 rows make a batch
        with torch.no_grad():
            alone = body(prepared.task.eval[i]["pixel_values"][None])[0][0, 0]
        np.testing.assert_allclose(latent[i], alone.numpy(), rtol=1e-4, atol=1e-5)


@pytest.fixture(scope="module")
def writer(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("cache"))
        # All evaluation rows are one batch: Trainer's loss is then the mean over tokens too.
        return prepare(f"{GPT2} --max_eval_samples 24")


def test_a_writer_is_measured_by_what_its_trainer_finds_and_more(writer, monkeypatch):
    # Trainer does not know that GPT-2's loss shifts the labels, and divides by one token too many for each text.
    monkeypatch.setattr(writer.trainer, "_loss_shifts_labels", True)
    measures, latent = measure_writer(writer, seed=0)
    assert list(measures) == [
        *("perplexity", "loss", "entropy", "effective_rank", "neighbor_distance"),
        *("distinct-1", "distinct-2", "self_bleu", "repetition"),
    ]
    assert all(math.isfinite(value) for value in measures.values())
    assert measures["loss"] == pytest.approx(writer.trainer.evaluate()["eval_loss"], rel=1e-5)
    assert measures["perplexity"] == pytest.approx(math.exp(measures["loss"]))
    assert 0 < measures["distinct-1"] <= 1 and 0 <= measures["repetition"] < 1
    assert 0 < measures["entropy"] < math.log(300) + 1e-6 and latent.shape == (24, 16)


def test_the_loss_of_a_writer_is_over_tokens_however_they_are_batched(writer, monkeypatch):
    rows, model = writer.task.eval, writer.trainer.model.eval()
    total = disorder = count = 0
    latents = []
    for row in rows:  # one by one: nothing is padded
        ids = torch.tensor(row["input_ids"])
        with torch.no_grad():
            hidden = model.transformer(ids[None]).last_hidden_state[0]
            log_p = model.lm_head(hidden).double().log_softmax(-1)
        for place in range(len(ids) - 1):
            total -= log_p[place, ids[place + 1]].item()
            disorder -= (log_p[place].exp() * log_p[place]).sum().item()
            count += 1
        latents.append(hidden.mean(0).numpy())
    for size in (32, 5):
        monkeypatch.setattr(writer.trainer.args, "per_device_eval_batch_size", size)
        measures, latent = measure_writer(writer, seed=0)
        assert measures["loss"] == pytest.approx(total / count, rel=1e-5)
        assert measures["entropy"] == pytest.approx(disorder / count, rel=1e-5)
        np.testing.assert_allclose(latent, np.stack(latents), rtol=1e-3, atol=1e-5)


def test_writing_is_by_the_seed_alone(writer):
    first, again, other = (measure_writer(writer, seed)[0] for seed in (0, 0, 1))
    assert first == again and first["loss"] == other["loss"] and first["self_bleu"] != other["self_bleu"]


def test_a_model_that_diverged_has_no_measures():
    nothing = np.full((4, 3), np.nan)
    assert all(map(math.isnan, (calibration_error(nothing, np.zeros(4)), effective_rank(nothing), entropy(nothing))))
