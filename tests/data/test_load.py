"""Every kind of data set that may be named, every error, the embedded sets, and the recipe that makes one of them."""

import importlib.util
import json
import logging
import re
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, HTTPServer

import datasets
import huggingface_hub
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from atom_hf.data import EMBEDDED, TASKS, load_data, stratified_rows
from atom_hf.errors import AtomError
from helpers.paths import ROOT

ROWS = pd.DataFrame(
    {"sentence": [f"line number {i}" for i in range(20)], "label": ["good", "bad"] * 10, "idx": range(20)}
)


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("cache"))
    datasets.disable_progress_bars()


def write(path, rows=ROWS):
    """Writes the rows in the format that the name of the file says, and returns its path as a string."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = pd.DataFrame(rows)
    if path.suffix in (".csv", ".tsv"):
        rows.to_csv(path, index=False, sep="\t" if path.suffix == ".tsv" else ",")
    elif path.suffix == ".parquet":
        rows.to_parquet(path)
    else:
        rows.to_json(path, orient="records", lines=path.suffix == ".jsonl")
    return str(path)


def write_images(folder, counts, mode="L"):
    for name, count in counts.items():
        (folder / name).mkdir(parents=True)
        for number in range(count):
            Image.new(mode, (4, 4), 10 * number if mode == "L" else (10 * number, 0, 0)).save(
                folder / name / f"test_{number}.png"
            )
    return str(folder)


def texts(rows):
    return rows["text"][:]


def labels(rows):
    return rows["label"][:]


def pairs(rows):
    return zip(texts(rows), labels(rows), strict=True)


def error_of(*args, **kwargs):
    with pytest.raises(AtomError) as caught:
        load_data(*args, **kwargs)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# Embedded data sets


def test_digits():
    data = load_data("digits")
    assert (data.name, data.task, data.labels) == ("digits", "image-classification", [str(i) for i in range(10)])
    assert (len(data.train), len(data.eval)) == (1000, 797)
    assert min(Counter(labels(data.train)).values()) >= 95 and min(Counter(labels(data.eval)).values()) >= 75
    image = data.train[0]["image"]
    assert (image.mode, image.size) == ("L", (8, 8))
    assert max(np.array(row["image"]).max() for row in data.train.select(range(50))) == 255

    from sklearn.datasets import load_digits

    drawn = sorted(np.array(row["image"]).tobytes() for part in (data.train, data.eval) for row in part)
    every = sorted(np.round(image * (255 / 16)).astype(np.uint8).tobytes() for image in load_digits().images)
    assert drawn == every  # the two parts are disjoint and together they are the whole
    assert labels(load_data("digits").train) == labels(data.train)


def test_gaussians():
    data = load_data("gaussians")
    names = ["0+1", "0+2", "0+3", "1+2", "1+3", "2+3"]
    assert (data.name, data.task, data.labels) == ("gaussians", "image-classification", names)
    corners = np.array([[-1, -1], [-1, 1], [1, -1], [1, 1]])
    found = {}
    for rows, count in ((data.train, 2000), (data.eval, 1000)):
        assert len(rows) == count and min(Counter(labels(rows)).values()) > count / 6 * 0.8
        images = rows["image"][:]
        assert {(image.mode, image.size) for image in images} == {("RGB", (4, 4))}
        pixels = np.stack([np.asarray(image) for image in images]).reshape(count, 16, 3)
        assert (pixels[..., 2] == 128).all()
        points, classes = (pixels[..., :2] - 128.0) / 32, np.array(labels(rows))
        found[count] = pixels
        for number, name in enumerate(names):
            mine = points[classes == number].reshape(-1, 2)
            two = corners[[int(part) for part in name.split("+")]]
            # The mean and the covariance of a mixture of two Gaussians of variance 1.44, each half of the points.
            offsets = two - two.mean(0)
            np.testing.assert_allclose(mine.mean(0), two.mean(0), atol=0.15)
            np.testing.assert_allclose(np.cov(mine.T), offsets.T @ offsets / 2 + 1.44 * np.eye(2), atol=0.25)
    assert not {row.tobytes() for row in found[2000]} & {row.tobytes() for row in found[1000]}
    assert labels(load_data("gaussians").train) == labels(data.train)


def bag(line):
    return sorted(re.findall(r"[a-z']+", line.lower()))


def test_verse():
    data = load_data("verse")
    assert (data.name, data.task, data.labels) == ("verse", "text-classification", ["intact", "swapped"])
    assert Counter(labels(data.train)) == {0: 2000, 1: 2000} and Counter(labels(data.eval)) == {0: 500, 1: 500}
    assert data.train.column_names == data.eval.column_names == ["text", "label"]
    lines = texts(data.train) + texts(data.eval)
    assert len({tuple(bag(line)) for line in lines}) == 5000  # no line twice, not even once intact and once swapped
    assert not {line.lower() for line in texts(data.train)} & {line.lower() for line in texts(data.eval)}
    for line in lines:
        assert 6 <= len(line.split()) <= 14 and re.fullmatch(r"[A-Z][A-Za-z' ,;:.!?]+", line)
    assert texts(load_data("verse").train) == texts(data.train)


def verse_recipe():
    path = ROOT / "recipes" / "verse" / "make.py"
    spec = importlib.util.spec_from_file_location("verse_recipe", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_verse_recipe_swaps_exactly_two_words(tmp_path, monkeypatch):
    make = verse_recipe()
    monkeypatch.setattr(make, "ROWS_PER_BLOCK", 60)
    monkeypatch.setattr(make, "MIN_USES", 2)
    data = load_data("verse")
    intact = [line for part in (data.train, data.eval) for line, label in pairs(part) if not label]
    lines = intact + intact[:10] + ["The year was 1492, and the ships sailed", "AND ALL THE SEA WAS WHITE WITH FOAM"]
    source = pd.DataFrame({"line": lines, "block": np.arange(len(lines)) * 10 // len(lines), "corpus_index": 7})
    source["corpus_index"] = source.index + 7
    write(tmp_path / "source.parquet", source)
    for out in ("first", "second"):
        make.main(["--source", str(tmp_path / "source.parquet"), "--out", str(tmp_path / out)])
    written = {split: pd.read_parquet(tmp_path / "first" / f"{split}.parquet") for split in ("train", "test")}
    for split, rows in written.items():
        assert rows.equals(pd.read_parquet(tmp_path / "second" / f"{split}.parquet"))
        assert abs(rows["label"].mean() - 0.5) < 0.01
        blocks = {int(source["block"][index - 7]) for index in rows["corpus_index"]}
        assert blocks == (set(make.TEST_BLOCKS) if split == "test" else set(range(10)) - set(make.TEST_BLOCKS))
        for text, label, index in rows.itertuples(index=False):
            line = source["line"][index - 7]
            if label == 0:
                assert text == line
                continue
            before, after = make.words_of(line), make.words_of(text)
            moved = [i for i, (b, a) in enumerate(zip(before, after, strict=True)) if b[0].lower() != a[0].lower()]
            assert bag(text) == bag(line) and len(moved) == 2 and 2 <= moved[1] - moved[0] <= 5
            assert [mark for _, mark in before] == [mark for _, mark in after] and text[0].isupper()
            assert min(len(before[i][0]) for i in moved) >= 3
    every = pd.concat(written.values())
    assert every["corpus_index"].is_unique and len(every) == 600 and not every["text"].str.contains("1492|AND").any()


# Files and folders


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl", ".json", ".parquet"])
def test_table(tmp_path, suffix):
    data = load_data(write(tmp_path / f"my rows{suffix}"), sample_seed=1)
    assert (data.name, data.task, data.labels) == ("my-rows", "text-classification", ["bad", "good"])
    assert data.train.column_names == data.eval.column_names == ["text", "label"]
    assert (len(data.train), len(data.eval)) == (16, 4)
    assert Counter(labels(data.eval)) == {0: 2, 1: 2}
    assert isinstance(data.train.features["label"], datasets.ClassLabel)
    assert sorted(texts(data.train) + texts(data.eval)) == sorted(ROWS["sentence"])
    for text, label in pairs(data.train):
        assert data.labels[label] == ROWS["label"][int(text.split()[-1])]


def test_text_file_is_for_language_models(tmp_path, caplog):
    (tmp_path / "poem.txt").write_text("one\n\ntwo\nthree\n   \nfour\nfive\n")
    with caplog.at_level(logging.INFO, "atom_hf"):
        data = load_data(str(tmp_path / "poem.txt"))
    assert (data.task, data.labels, data.train.column_names) == ("causal-lm", None, ["text"])
    assert sorted(texts(data.train) + texts(data.eval)) == ["five", "four", "one", "three", "two"]
    assert "2 blank rows" in caplog.text and "1 of 5 rows are held out" in caplog.text


def test_words_that_pandas_takes_for_missing_stay_classes(tmp_path):
    rows = {"text": ["null", "a", "NA", "b"], "label": ["None", "NA", "None", "NA"]}
    data = load_data(write(tmp_path / "d.csv", rows), eval_dataset=write(tmp_path / "e.csv", rows))
    assert data.labels == ["NA", "None"] and texts(data.train) == rows["text"]


@pytest.mark.parametrize("layout", ["poem_train.csv poem_dev.csv", "train/a.csv test/a.csv", "train-0.csv valid.csv"])
def test_folder_of_files(tmp_path, layout):
    first, second = layout.split()
    write(tmp_path / first)
    write(tmp_path / second, ROWS[:6])
    (tmp_path / "README.txt").write_text("about")
    data = load_data(str(tmp_path))
    assert (len(data.train), len(data.eval)) == (20, 6)


def test_folder_of_files_that_name_no_split(tmp_path):
    write(tmp_path / "[a]" / "one.jsonl", ROWS[:10])
    write(tmp_path / "[a]" / "two.jsonl", ROWS[10:])
    data = load_data(str(tmp_path / "[a]"))
    assert len(data.train) + len(data.eval) == 20
    write(tmp_path / "[a]" / "test.jsonl")
    assert "not one.jsonl, two.jsonl; name all" in error_of(str(tmp_path / "[a]"))


def test_test_file_without_labels_is_not_used(tmp_path, caplog):
    write(tmp_path / "train.csv")
    write(tmp_path / "test.csv", ROWS[["sentence"]])
    with caplog.at_level(logging.INFO, "atom_hf"):
        assert len(load_data(str(tmp_path)).eval) == 4
    assert "split test has no labels" in caplog.text
    assert "--eval_split 'test' has no column label" in error_of(str(tmp_path), eval_split="test")


def test_image_folder(tmp_path):
    data = load_data(write_images(tmp_path / "pets", {"cat": 10, "dog": 5, "train": 5}))
    assert (data.name, data.task, data.labels) == ("pets", "image-classification", ["cat", "dog", "train"])
    assert (len(data.train), len(data.eval)) == (16, 4)
    assert Counter(labels(data.eval)) == {0: 2, 1: 1, 2: 1}
    assert data.train[0]["image"].mode == "L"


@pytest.mark.parametrize("other", ["test", "validation"])
def test_image_folder_with_splits(tmp_path, other):
    write_images(tmp_path / "[pets]" / "train", {"cat": 3, "dog": 3}, "RGB")
    write_images(tmp_path / "[pets]" / other, {"cat": 1, "dog": 1}, "RGB")
    data = load_data(str(tmp_path / "[pets]"))
    assert (len(data.train), len(data.eval), data.labels) == (6, 2, ["cat", "dog"])
    assert data.train[0]["image"].mode == "RGB"


@pytest.mark.parametrize(("shape", "mode"), [((5, 4), "L"), ((5, 4, 1), "L"), ((5, 4, 3), "RGB")])
def test_npz(tmp_path, shape, mode):
    images = np.random.default_rng(0).integers(0, 256, (12, *shape), dtype=np.uint8)
    classes = np.arange(12).reshape(-1, 1) % 3
    np.savez(tmp_path / "a.npz", x_train=images, y_train=classes, x_test=images[:6], y_test=classes[:6])
    data = load_data(str(tmp_path / "a.npz"))
    assert (data.task, len(data.train), len(data.eval), data.labels) == ("image-classification", 12, 6, ["0", "1", "2"])
    image = data.train[7]["image"]
    assert image.mode == mode and (np.array(image) == images[7].squeeze()).all() and data.train[7]["label"] == 1
    np.savez(tmp_path / "b.npz", x=images, y=classes)
    data = load_data(str(tmp_path / "b.npz"), eval_fraction=0.5)
    assert (len(data.train), len(data.eval)) == (6, 6) and data.eval[0]["image"].mode == mode


def test_images_in_parquet(tmp_path):
    write_images(tmp_path, {"a": 4})
    encoded = [{"bytes": (tmp_path / "a" / f"test_{i}.png").read_bytes(), "path": None} for i in range(4)]
    path = write(tmp_path / "p" / "images.parquet", {"img": encoded, "fine_label": [3, 5, 3, 5], "index": range(4)})
    data = load_data(path, eval_fraction=0.5)
    assert (data.task, data.labels) == ("image-classification", ["3", "5"])
    assert data.train.column_names == ["image", "label"] and data.train[0]["image"].mode == "L"


def test_embedded_name_before_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "verse" / "a.csv")
    assert len(load_data("verse").train) == 4000
    assert load_data("./verse").name == "verse" and len(load_data("./verse").train) == 16


# The Hub


def on_hub(monkeypatch, splits):
    calls = []
    given = datasets.DatasetDict({name: datasets.Dataset.from_dict(*rows) for name, rows in splits.items()})
    monkeypatch.setattr(datasets, "load_dataset", lambda *args: calls.append(args) or given)
    return calls


def test_hub_benchmark_with_hidden_test_labels(monkeypatch, caplog):
    kinds = datasets.Features({"question": datasets.Value("string"), "sentence": datasets.Value("string")})
    kinds["label"] = datasets.ClassLabel(names=["no", "yes"])
    rows = {"question": ["a", "b", "c", "d"], "sentence": list("efgh"), "label": [0, 1, 0, 1]}
    hidden = {**rows, "label": [-1] * 4}
    calls = on_hub(monkeypatch, {"test": (hidden, kinds), "validation_matched": (rows, kinds), "train": (rows, kinds)})
    data = load_data("nyu/glue", dataset_config="qnli", max_eval_samples=2)
    assert calls == [("nyu/glue", "qnli")]
    assert (data.name, data.labels, len(data.eval)) == ("glue-qnli", ["no", "yes"], 2)
    assert data.train[0] == {"text": "a", "text_pair": "e", "label": 0}

    assert "4 of 4 rows have no label in 'label'" in error_of("nyu/glue", eval_split="test")
    missing = error_of("nyu/glue", eval_split="dev")
    assert missing == "--eval_split 'dev': 'nyu/glue' has no such split; give one of test, validation_matched, train"
    assert "--train_split 'all'" in error_of("nyu/glue", train_split="all")

    on_hub(monkeypatch, {"test": (hidden, kinds), "train": (rows, kinds)})
    with caplog.at_level(logging.INFO, "atom_hf"):
        assert len(load_data("nyu/glue").eval) == 1
    assert "split test has no labels" in caplog.text
    on_hub(monkeypatch, {"test": (rows, kinds), "dev": (rows, kinds)})
    assert "no split called train; give one of test, dev" in error_of("nyu/glue")
    assert len(load_data("nyu/glue", train_split="dev").train) == 4
    on_hub(monkeypatch, {"train": ({"text": []},)})
    assert "--train_split 'train': this split of 'nyu/glue' is empty" in error_of("nyu/glue")


def test_hub_configuration_is_missing(monkeypatch):
    def load_dataset(*_):
        raise ValueError("Config name is missing.\nPlease pick one among the available configs: ['cola', 'sst2']")

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    message = error_of("nyu/glue")
    assert "['cola', 'sst2']" in message and "--dataset_config" in message


def test_hub_cannot_be_reached(monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(time, "sleep", lambda seconds: None)  # huggingface_hub waits longer before each retry
    message = error_of("someone/poems")
    assert message.startswith(
        "--dataset 'someone/poems': there is no such path, and the Hugging Face Hub cannot be reach"
    )
    assert "embedded one (digits, gaussians, verse)" in message


def test_hub_has_no_such_data_set(monkeypatch):
    class Nothing(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(404)
            self.send_header("X-Error-Code", "RepoNotFound")
            self.send_header("Content-Length", "0")
            self.end_headers()

        do_HEAD = do_GET

        def log_message(self, *_):
            pass

    with HTTPServer(("127.0.0.1", 0), Nothing) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setattr(datasets.config, "HF_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
        with pytest.raises(AtomError, match="no such data set on the Hugging Face Hub") as caught:
            load_data("someone/poems")
        server.shutdown()
    assert isinstance(caught.value.__cause__, datasets.exceptions.DatasetNotFoundError)


# Columns, tasks and classes


def test_columns_that_are_named_win(tmp_path):
    rows = {"text": list("abcd"), "other": list("efgh"), "label": [0, 1, 0, 1], "kind": list("xyxy")}
    path = write(tmp_path / "d.csv", rows)
    both = {"eval_dataset": path}
    data = load_data(path, text_column="other", text_pair_column="text", label_column="kind", **both)
    assert data.train[0] == {"text": "e", "text_pair": "a", "label": 0} and data.labels == ["x", "y"]
    data = load_data(path, task="causal-lm", **both)
    assert data.train.column_names == ["text"] and data.labels is None


@pytest.mark.parametrize("columns", ["sentence1 sentence2", "premise hypothesis", "Question Sentence", "text1 text2"])
def test_pairs_are_known(tmp_path, columns):
    first, second = columns.split()
    path = write(tmp_path / "d.csv", {first: list("abcd"), second: list("efgh"), "Label": [0, 1, 0, 1]})
    assert load_data(path, eval_dataset=path).train[0] == {"text": "a", "text_pair": "e", "label": 0}
    assert load_data(path, eval_dataset=path, text_column=second).train[0] == {"text": "e", "label": 0}


def test_longest_strings_are_the_text(tmp_path):
    rows = {"source": ["https://a.very/long/address"] * 4, "mood": list("abcd"), "remark": ["a few words"] * 4}
    path = write(tmp_path / "d.jsonl", {**rows, "target": [0, 1, 0, 1]})
    assert load_data(path).train["text"][0] == "a few words"


@pytest.mark.parametrize(
    ("values", "names"),
    [([2, -1, 0, -1], ["-1", "0", "2"]), ([True, False] * 2, ["False", "True"]), (list("baba"), ["a", "b"])],
)
def test_labels_of_every_kind(tmp_path, values, names):
    path = write(tmp_path / "d.parquet", {"text": list("abcd"), "label": values})
    data = load_data(path, eval_dataset=path)
    assert data.labels == data.train.features["label"].names == names
    assert [names[label] for label in labels(data.train)] == [str(value) for value in values]


def test_classes_of_evaluation_data_are_matched_by_name(tmp_path, monkeypatch):
    def part(names, ids):
        rows = datasets.Dataset.from_dict({"text": list("abcd"), "label": ids})
        return rows.cast_column("label", datasets.ClassLabel(names=names))

    part(["no", "yes", "maybe"], [0, 1, 0, 1]).to_parquet(tmp_path / "a.parquet")
    part(["yes", "no"], [0, 1, 1, 0]).to_parquet(tmp_path / "b.parquet")
    data = load_data(str(tmp_path / "a.parquet"), eval_dataset=str(tmp_path / "b.parquet"))
    assert data.labels == ["no", "yes", "maybe"] and labels(data.eval) == [1, 0, 0, 1]


# Which rows


def test_stratified_rows():
    classes = np.repeat([0, 1, 2, 3], [700, 200, 99, 1])
    rows = stratified_rows(classes, 100, 0)
    assert [*np.bincount(classes[rows])] == [70, 20, 9, 1] and len({*rows}) == 100
    assert (rows == stratified_rows(classes, 100, 0)).all() and (rows != stratified_rows(classes, 100, 1)).any()
    assert [*np.bincount(classes[stratified_rows(classes, 4, 0)])] == [1, 1, 1, 1]
    assert len(stratified_rows(classes, 2, 0)) == 2 and len(stratified_rows(classes, 1000, 0)) == 1000


def test_samples_are_drawn(tmp_path, caplog):
    data = load_data("verse", max_train_samples=64, max_eval_samples=10, sample_seed=3)
    assert Counter(labels(data.train)) == {0: 32, 1: 32} and Counter(labels(data.eval)) == {0: 5, 1: 5}
    again = load_data("verse", max_train_samples=64, sample_seed=3)
    assert texts(again.train) == texts(data.train)
    assert texts(load_data("verse", max_train_samples=64, sample_seed=4).train) != texts(data.train)
    (tmp_path / "a.txt").write_text("\n".join(f"line {i}" for i in range(100)))
    with caplog.at_level(logging.INFO, "atom_hf"):
        data = load_data(str(tmp_path / "a.txt"), max_train_samples=10, max_eval_samples=1000)
    assert (len(data.train), len(data.eval)) == (10, 20)
    assert "--max_eval_samples is 1000 and there are 20 rows: all are used" in caplog.text


def test_rows_are_held_out_even_where_there_is_a_split_to_evaluate_on():
    """What settings are chosen by must not be what judges them."""
    whole = load_data("digits")
    data = load_data("digits", hold_out=True, eval_fraction=0.3, sample_seed=2)
    assert (len(data.train), len(data.eval)) == (700, 300)

    def images(rows):
        return Counter(np.asarray(image).tobytes() for image in rows["image"])

    assert images(data.train) + images(data.eval) == images(whole.train)
    assert images(load_data("digits", hold_out=True, eval_fraction=0.3, sample_seed=2).eval) == images(data.eval)
    few = load_data("digits", hold_out=True, eval_fraction=0.3, sample_seed=2, max_train_samples=20)
    assert images(few.eval) == images(data.eval) and not images(few.train) - images(data.train)
    for other in ({"eval_split": "test"}, {"eval_dataset": "digits"}):
        assert error_of("digits", hold_out=True, **other).startswith("--hold_out evaluates on training rows; leave out")


def parts_of(monkeypatch, counts):
    texts = {split: [f"{split} {i}" for i in range(count)] for split, count in counts.items()}
    kinds = datasets.Features({"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["no", "yes"])})
    columns = {split: {"text": rows, "label": [i % 2 for i in range(len(rows))]} for split, rows in texts.items()}
    on_hub(monkeypatch, {split: (rows, kinds) for split, rows in columns.items()})
    return texts


def test_splits_are_joined_by_a_plus(monkeypatch):
    lines = parts_of(monkeypatch, {"train": 8, "validation": 4, "test": 6})
    data = load_data("someone/poems", eval_split="validation+test")
    assert texts(data.train) == lines["train"] and texts(data.eval) == lines["validation"] + lines["test"]
    data = load_data("someone/poems", eval_dataset="someone/poems", eval_split="test+validation")
    assert texts(data.eval) == lines["test"] + lines["validation"]
    message = error_of("someone/poems", eval_split="validation+dev")
    assert message.startswith("--eval_split 'validation+dev': 'someone/poems' has no such split; give one of train,")


def test_a_split_that_is_trained_on_is_not_what_is_evaluated_on(monkeypatch):
    lines = parts_of(monkeypatch, {"train": 8, "validation": 4, "test": 6})
    data = load_data("someone/poems", train_split="train+validation")
    assert texts(data.train) == lines["train"] + lines["validation"] and texts(data.eval) == lines["test"]


def test_held_out_rows_leave_every_class_to_train_on(tmp_path):
    rows = {"text": [f"t{i}" for i in range(21)], "label": ["a"] * 10 + ["b"] * 10 + ["rare"]}
    data = load_data(write(tmp_path / "d.csv", rows), eval_fraction=0.5)
    assert set(labels(data.train)) == {0, 1, 2} and not {*texts(data.train)} & {*texts(data.eval)}
    assert len(data.train) + len(data.eval) == 21


# Errors: each names the argument and says what would do


@pytest.mark.parametrize("name", ["nowhere.csv", "./nowhere", "a/b/c", ""])
def test_no_such_path(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    message = error_of(name)
    assert message.startswith(f"--dataset {name!r}: there is no such file or folder")
    assert "digits, gaussians, verse" in message
    assert error_of("verse", eval_dataset="nowhere.csv").startswith("--eval_dataset 'nowhere.csv': there is no such")


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl", "a.parquet", "a.txt"])
def test_empty_file(tmp_path, name):
    (tmp_path / name).touch()
    assert f"{name} is empty; give a file with at least one row" in error_of(str(tmp_path / name))


@pytest.mark.parametrize(
    ("name", "content"),
    [("a.csv", "text,label\na,b,c\nd,e,f,g\n"), ("a.jsonl", "{not json"), ("a.parquet", "PAR?"), ("a.npz", "zip?")],
)
def test_file_that_cannot_be_parsed(tmp_path, name, content):
    (tmp_path / name).write_text(content)
    with pytest.raises(AtomError, match=r"--dataset .* cannot be read as .*; mend it or give \.parquet, ") as caught:
        load_data(str(tmp_path / name))
    assert caught.value.__cause__ is not None and "\n" not in str(caught.value)


def test_no_rows(tmp_path):
    (tmp_path / "a.csv").write_text("text,label\n")
    assert "is empty: it has no rows; give a file with at least one row" in error_of(str(tmp_path / "a.csv"))
    (tmp_path / "a.txt").write_text("\n\n")
    assert "only blank text" in error_of(str(tmp_path / "a.txt"))
    (tmp_path / "b.txt").write_text("one line")
    assert "too few rows (1)" in error_of(str(tmp_path / "b.txt"))
    (tmp_path / "nothing").mkdir()
    assert "the folder holds no images and no file that is read" in error_of(str(tmp_path / "nothing"))


def test_unsupported_file(tmp_path):
    (tmp_path / "a.docx").write_text("words")
    message = error_of(str(tmp_path / "a.docx"))
    assert "'.docx' are not read; give .parquet, .csv, .tsv, .jsonl, .json, .txt or .npz, or a folder" in message


def test_npz_that_does_not_fit(tmp_path):
    path = tmp_path / "a.npz"
    for arrays, what in [
        ({"x_train": np.zeros((2, 3, 3)), "y_train": np.arange(2)}, "x_train is float64 [2, 3, 3]"),
        ({"x": np.zeros((2, 3, 3, 4), np.uint8), "y": np.arange(2)}, "x is uint8 [2, 3, 3, 4]"),
        ({"x": np.zeros((2, 3, 3), np.uint8), "y": np.arange(3)}, "y has 3 labels for 2 images"),
        ({"images": np.zeros(3)}, "it holds images"),
        ({"x": np.array([{}], dtype=object), "y": np.arange(1)}, "cannot be read as npz"),
    ]:
        np.savez(path, **arrays)
        assert what in error_of(str(path))


def test_wrong_arguments(tmp_path):
    assert error_of("verse", task="poetry") == f"--task 'poetry' is unknown; give one of {', '.join(TASKS)}"
    assert "--max_train_samples is 0; give 1 or more" in error_of("verse", max_train_samples=0)
    assert "--max_eval_samples is -1; give 1 or more" in error_of("verse", max_eval_samples=-1)
    for fraction in (0, 1, 1.5, -0.1):
        assert f"--eval_fraction is {fraction}; give a number between" in error_of("verse", eval_fraction=fraction)
    assert "--dataset_config 'x' is for data sets on the Hub" in error_of("verse", dataset_config="x")
    path = write(tmp_path / "a.csv")
    message = f"--train_split 'test': {path!r} has no such split; give one of train"
    assert error_of(path, train_split="test") == message


def test_wrong_columns(tmp_path):
    path = write(tmp_path / "a.csv")
    for role in ("text", "text_pair", "image", "label"):
        message = error_of(path, **{f"{role}_column": "words"})
        assert f"--{role}_column 'words' does not exist; the columns of {path!r} are sentence, label, idx" in message
    assert "--text_column 'idx' does not hold strings; the columns that do: sentence, label" in error_of(
        path, text_column="idx"
    )
    assert "--image_column 'idx' does not hold images" in error_of(
        path, task="image-classification", image_column="idx"
    )
    assert "is given for two purposes" in error_of(path, text_column="label", label_column="label")
    path = write(tmp_path / "b.csv", {"a": [1, 2], "b": [0.5, 1.5]})
    assert "no column of images or text is found" in error_of(path) and "are a, b" in error_of(path)
    path = write(tmp_path / "c.jsonl", {"text": [["a", "b"], ["c"]], "title": ["x", "y"]})
    assert "--text_column 'text' does not hold strings; the columns that do: title" in error_of(path)


def test_task_that_does_not_fit(tmp_path):
    message = error_of("verse", task="image-classification")
    assert "needs a column of images (--image_column)" in message and "are text, label, corpus_index" in message
    for task in ("causal-lm", "text-classification"):
        assert f"--task {task} needs a column of text (--text_column)" in error_of("digits", task=task)
    (tmp_path / "a.txt").write_text("one\ntwo\n")
    message = error_of(str(tmp_path / "a.txt"), task="text-classification")
    assert message.startswith("--label_column: --task text-classification needs one") and message.endswith("are text")


@pytest.mark.parametrize(
    ("values", "what"),
    [
        ([0.5, 1.5, 0.5, 1.5], "--label_column 'label' holds float64 (regression is not supported); give one of int"),
        ([[0], [1], [0], [1]], "--label_column 'label' holds lists; give one of integers or strings"),
        (["a", None, "b", None], "2 of 4 rows have no label in 'label'; fill or remove them"),
        ([0, 0, 0, 0], "--label_column 'label' has one class only, '0'; give data with two or more"),
    ],
)
def test_labels_that_are_no_classes(tmp_path, values, what):
    path = tmp_path / "d.jsonl"
    lines = [json.dumps({"text": f"text {i}", "label": value}) for i, value in enumerate(values)]
    path.write_text("\n".join(lines))
    assert what in error_of(str(path))


def test_one_class_of_images(tmp_path):
    assert "has one class only, 'cat'" in error_of(write_images(tmp_path, {"cat": 4}))


def test_identifiers_are_no_classes(tmp_path):
    rows = {"text": [f"t{i}" for i in range(51)], "key": range(51)}
    path = write(tmp_path / "d.csv", rows)
    assert "--label_column 'key' has as many classes as rows (51)" in error_of(path, label_column="key")


def test_text_that_is_missing(tmp_path):
    path = write(tmp_path / "d.csv", {"text": ["a", None, "b", "c"], "label": [0, 1, 0, 1]})
    assert "1 rows have no text in column 'text'; fill or remove them" in error_of(path)


def test_evaluation_data_that_does_not_fit(tmp_path):
    path = write(tmp_path / "a.csv")
    other = write(tmp_path / "b.csv", {"sentence": ["a", "b"], "label": ["good", "ugly"]})
    message = error_of(path, eval_dataset=other)
    assert message.startswith(f"--eval_dataset {other!r}: labels ugly in 'label' are not among those of the training")
    assert message.endswith("give data with bad, good only")
    other = write(tmp_path / "c.csv", {"words": ["a", "b"], "label": ["good", "bad"]})
    assert "has no column sentence as the training data has; it has words, label" in error_of(path, eval_dataset=other)
    other = write(tmp_path / "d.csv", {"sentence": [1, 2], "label": ["good", "bad"]})
    assert "column 'sentence' does not hold strings" in error_of(path, eval_dataset=other)


def test_embedded_sets_are_described():
    assert [*EMBEDDED] == ["digits", "gaussians", "verse"] and all(EMBEDDED.values())
