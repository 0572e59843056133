"""Where data comes from: built in, files and folders, and the Hub."""

import logging
import re
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, HTTPServer

import datasets
import huggingface_hub
import numpy as np
import pytest

from atom_hf.data.load import load_data
from atom_hf.errors import AtomError
from helpers.tables import ROWS, bag, error_of, labels, on_hub, pairs, texts, write, write_images

pytestmark = pytest.mark.usefixtures("own_cache")

# Built-in data sets


def test_digits():
    data = load_data("digits")
    assert (data.name, data.task, data.labels) == ("digits", "image-classification", [str(i) for i in range(10)])
    assert (len(data.train), len(data.eval)) == (1000, 797) and data.is_image
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


def test_verse():
    data = load_data("verse")
    assert (data.name, data.task, data.labels) == ("verse", "text-classification", ["intact", "swapped"])
    assert not data.is_image
    assert Counter(labels(data.train)) == {0: 2000, 1: 2000} and Counter(labels(data.eval)) == {0: 500, 1: 500}
    assert data.train.column_names == data.eval.column_names == ["text", "label"]
    lines = texts(data.train) + texts(data.eval)
    assert len({tuple(bag(line)) for line in lines}) == 5000  # no line twice, not even once intact and once swapped
    assert not {line.lower() for line in texts(data.train)} & {line.lower() for line in texts(data.eval)}
    for line in lines:
        assert 6 <= len(line.split()) <= 14 and re.fullmatch(r"[A-Z][A-Za-z' ,;:.!?]+", line)
    assert texts(load_data("verse").train) == texts(data.train)


# Files and folders


@pytest.mark.promise("Data are read as they are meant, and what was left out or assumed is said.")
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


@pytest.mark.promise("Data are read as they are meant, and what was left out or assumed is said.")
def test_text_file_is_for_language_models(tmp_path, caplog):
    (tmp_path / "poem.txt").write_text("one\n\ntwo\nthree\n   \nfour\nfive\n")
    with caplog.at_level(logging.INFO, "atom_hf"):
        data = load_data(str(tmp_path / "poem.txt"))
    assert (data.task, data.labels, data.train.column_names) == ("causal-lm", None, ["text"])
    assert sorted(texts(data.train) + texts(data.eval)) == ["five", "four", "one", "three", "two"]
    assert "2 blank rows" in caplog.text and "1 of 5 rows are held out" in caplog.text


@pytest.mark.promise("Data are read as they are meant, and what was left out or assumed is said.")
def test_words_that_pandas_takes_for_missing_stay_classes(tmp_path):
    rows = {"text": ["null", "a", "NA", "b"], "label": ["None", "NA", "None", "NA"]}
    data = load_data(write(tmp_path / "d.csv", rows), eval_dataset=write(tmp_path / "e.csv", rows))
    assert data.labels == ["NA", "None"] and texts(data.train) == rows["text"]


@pytest.mark.promise("Data are read as they are meant, and what was left out or assumed is said.")
@pytest.mark.parametrize("layout", ["poem_train.csv poem_dev.csv", "train/a.csv test/a.csv", "train-0.csv valid.csv"])
def test_folder_of_files(tmp_path, layout):
    first, second = layout.split()
    write(tmp_path / first)
    write(tmp_path / second, ROWS[:6])
    (tmp_path / "README.txt").write_text("about")
    data = load_data(str(tmp_path))
    assert (len(data.train), len(data.eval)) == (20, 6)


@pytest.mark.promise("Data are read as they are meant, and what was left out or assumed is said.")
def test_folder_of_files_that_name_no_split(tmp_path):
    write(tmp_path / "[a]" / "one.jsonl", ROWS[:10])
    write(tmp_path / "[a]" / "two.jsonl", ROWS[10:])
    data = load_data(str(tmp_path / "[a]"))
    assert len(data.train) + len(data.eval) == 20
    write(tmp_path / "[a]" / "test.jsonl")
    assert "not one.jsonl, two.jsonl; name all" in error_of(str(tmp_path / "[a]"))


@pytest.mark.promise("Data are read as they are meant, and what was left out or assumed is said.")
def test_test_file_without_labels_is_not_used(tmp_path, caplog):
    write(tmp_path / "train.csv")
    write(tmp_path / "test.csv", ROWS[["sentence"]])
    with caplog.at_level(logging.INFO, "atom_hf"):
        assert len(load_data(str(tmp_path)).eval) == 4
    assert "split test has no labels" in caplog.text
    assert "--eval_split 'test' has no column label" in error_of(str(tmp_path), eval_split="test")


@pytest.mark.promise("Data are read as they are meant, and what was left out or assumed is said.")
def test_image_folder(tmp_path):
    data = load_data(write_images(tmp_path / "pets", {"cat": 10, "dog": 5, "train": 5}))
    assert (data.name, data.task, data.labels) == ("pets", "image-classification", ["cat", "dog", "train"])
    assert (len(data.train), len(data.eval)) == (16, 4)
    assert Counter(labels(data.eval)) == {0: 2, 1: 1, 2: 1}
    assert data.train[0]["image"].mode == "L"


@pytest.mark.promise("Data are read as they are meant, and what was left out or assumed is said.")
@pytest.mark.parametrize("other", ["test", "validation"])
def test_image_folder_with_splits(tmp_path, other):
    write_images(tmp_path / "[pets]" / "train", {"cat": 3, "dog": 3}, "RGB")
    write_images(tmp_path / "[pets]" / other, {"cat": 1, "dog": 1}, "RGB")
    data = load_data(str(tmp_path / "[pets]"))
    assert (len(data.train), len(data.eval), data.labels) == (6, 2, ["cat", "dog"])
    assert data.train[0]["image"].mode == "RGB"


@pytest.mark.promise("Data are read as they are meant, and what was left out or assumed is said.")
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


@pytest.mark.promise("Data are read as they are meant, and what was left out or assumed is said.")
def test_images_in_parquet(tmp_path):
    write_images(tmp_path, {"a": 4})
    encoded = [{"bytes": (tmp_path / "a" / f"test_{i}.png").read_bytes(), "path": None} for i in range(4)]
    path = write(tmp_path / "p" / "images.parquet", {"img": encoded, "fine_label": [3, 5, 3, 5], "index": range(4)})
    data = load_data(path, eval_fraction=0.5)
    assert (data.task, data.labels) == ("image-classification", ["3", "5"])
    assert data.train.column_names == ["image", "label"] and data.train[0]["image"].mode == "L"


def test_built_in_name_before_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "verse" / "a.csv")
    assert len(load_data("verse").train) == 4000
    assert load_data("./verse").name == "verse" and len(load_data("./verse").train) == 16


@pytest.mark.promise("Data are read as they are meant, and what was left out or assumed is said.")
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


@pytest.mark.promise("An error says whether a repository or data set is missing, private, gated or offline.")
def test_hub_configuration_is_missing(monkeypatch):
    def load_dataset(*_):
        raise ValueError("Config name is missing.\nPlease pick one among the available configs: ['cola', 'sst2']")

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    message = error_of("nyu/glue")
    assert "['cola', 'sst2']" in message and "--dataset_config" in message


@pytest.mark.promise("An error says whether a repository or data set is missing, private, gated or offline.")
def test_hub_cannot_be_reached(monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(time, "sleep", lambda seconds: None)  # huggingface_hub waits longer before each retry
    message = error_of("someone/poems")
    assert message.startswith(
        "--dataset 'someone/poems': there is no such path, and the Hugging Face Hub cannot be reach"
    )
    assert "built-in one (digits, gaussians, verse)" in message


@pytest.mark.promise("An error says whether a repository or data set is missing, private, gated or offline.")
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


# Errors: each names the argument and says what would do


@pytest.mark.promise("Data that cannot be read, or could mean several things, are rejected in one line.")
@pytest.mark.parametrize("name", ["nowhere.csv", "./nowhere", "a/b/c", ""])
def test_no_such_path(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    message = error_of(name)
    assert message.startswith(f"--dataset {name!r}: there is no such file or folder")
    assert "digits, gaussians, verse" in message
    assert error_of("verse", eval_dataset="nowhere.csv").startswith("--eval_dataset 'nowhere.csv': there is no such")


@pytest.mark.promise("Data that cannot be read, or could mean several things, are rejected in one line.")
@pytest.mark.parametrize("name", ["a.csv", "a.jsonl", "a.parquet", "a.txt"])
def test_empty_file(tmp_path, name):
    (tmp_path / name).touch()
    assert f"{name} is empty; give a file with at least one row" in error_of(str(tmp_path / name))


@pytest.mark.promise("Data that cannot be read, or could mean several things, are rejected in one line.")
@pytest.mark.parametrize(
    ("name", "content"),
    [("a.csv", "text,label\na,b,c\nd,e,f,g\n"), ("a.jsonl", "{not json"), ("a.parquet", "PAR?"), ("a.npz", "zip?")],
)
def test_file_that_cannot_be_parsed(tmp_path, name, content):
    (tmp_path / name).write_text(content)
    with pytest.raises(AtomError, match=r"--dataset .* cannot be read as .*; fix it or give \.parquet, ") as caught:
        load_data(str(tmp_path / name))
    assert caught.value.__cause__ is not None and "\n" not in str(caught.value)


@pytest.mark.promise("Data that cannot be read, or could mean several things, are rejected in one line.")
def test_no_rows(tmp_path):
    (tmp_path / "a.csv").write_text("text,label\n")
    assert "is empty: it has no rows; give a file with at least one row" in error_of(str(tmp_path / "a.csv"))
    (tmp_path / "a.txt").write_text("\n\n")
    assert "only blank text" in error_of(str(tmp_path / "a.txt"))
    (tmp_path / "b.txt").write_text("one line")
    assert "too few rows (1)" in error_of(str(tmp_path / "b.txt"))
    (tmp_path / "nothing").mkdir()
    assert "the folder holds no images and no file that is read" in error_of(str(tmp_path / "nothing"))


@pytest.mark.promise("Data that cannot be read, or could mean several things, are rejected in one line.")
def test_unsupported_file(tmp_path):
    (tmp_path / "a.docx").write_text("words")
    message = error_of(str(tmp_path / "a.docx"))
    assert "'.docx' are not read; give .parquet, .csv, .tsv, .jsonl, .json, .txt or .npz, or a folder" in message


@pytest.mark.promise("Data that cannot be read, or could mean several things, are rejected in one line.")
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
