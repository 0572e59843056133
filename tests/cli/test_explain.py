"""`atom-hf explain`: what it reads, what it writes and prints, and what it rejects before a model is loaded."""

import contextlib
import io
import os
import pty
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

import atom_hf.cli.explain
from atom_hf import AtomConfig, attach_atoms, load_atom_model
from atom_hf.cli.main import main
from atom_hf.data.given import open_picture
from atom_hf.importance.read import read_images, read_texts
from atom_hf.modeling.attach import add_explainer
from atom_hf.visualization.pictures import write_words
from helpers.models import make_tokenizer, tiny


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Three models, and files of every kind."""
    root = tmp_path_factory.mktemp("explain")
    grey = ViTImageProcessorPil(size={"height": 8, "width": 8}, image_mean=[0.5], image_std=[0.5])
    for name, processor in (("bert", make_tokenizer()), ("gpt2", make_tokenizer()), ("vit", grey)):
        model = tiny(name).eval()
        model.save_pretrained(root / f"{name}-plain")
        processor.save_pretrained(root / f"{name}-plain")
        attach_atoms(model, AtomConfig(layer=-1), processor).save_pretrained(root / name)
        processor.save_pretrained(root / name)
    rng = np.random.default_rng(0)
    for place in ("pictures", "classes/one"):
        (root / place).mkdir(parents=True)
    for number in range(5):
        Image.fromarray(rng.integers(0, 256, (20, 30, 3), dtype=np.uint8)).save(root / "pictures" / f"{number}.png")
    Image.new("RGB", (8, 8)).save(root / "classes" / "one" / "a.png")
    rotated = Image.new("L", (30, 20))
    exif = rotated.getexif()
    exif[0x0112] = 6  # to be turned by a quarter
    rotated.save(root / "turned.jpg", exif=exif)
    (root / "pictures" / "notes.txt").write_text("no picture\n")
    (root / "lines.txt").write_text("the sea\n\n  rivers <b>rushing</b>\r\n\u202egreat the\n", encoding="utf-8")
    (root / "many.txt").write_text("".join(f"line {number}\n" for number in range(40)))
    (root / "empty.txt").write_text("\n \n")
    (root / "latin.txt").write_bytes("caf\xe9\n".encode("latin-1"))
    (root / "table.csv").write_text("text,label\nthe sea,1\n")
    (root / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n and nothing else")
    (root / "none").mkdir()
    return root


@pytest.fixture(autouse=True)
def in_folder(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(folder)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


def explain(line, page):
    """(exit status, what it prints, what it says on stderr)."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        status = main(["explain", *shlex.split(line), "--page", str(page)])
    return status, out.getvalue(), err.getvalue()


@pytest.fixture
def shown(tmp_path):
    """Explains, and gives what was printed and the page."""

    def run(line):
        page = tmp_path / "page.html"
        status, out, err = explain(line, page)
        assert status == 0, err
        pictures = [page.with_suffix(".png"), tmp_path / "page.atoms.png"]
        lines = [f"page      {page}", *(f"picture   {picture}" for picture in pictures)]
        assert out.endswith("\n".join(lines) + "\n") and "\x1b" not in out
        assert all(picture.read_bytes()[:4] == b"\x89PNG" for picture in pictures)
        return out, page.read_text(encoding="utf-8")

    return run


@pytest.mark.parametrize("model", ["bert", "gpt2"])
@pytest.mark.parametrize("line", ["'the sea' 'great rivers' --model {}", "--model {} --text 'the sea' 'great rivers'"])
def test_texts_on_the_command_line(shown, model, line):
    out, page = shown(line.format(model))
    results = read_texts(load_atom_model(model), make_tokenizer(), ["the sea", "great rivers"])
    for result in results:
        values = [f"{span.importance:+.2f}" for span in result.words]
        values = ["0.00" if value[1:] == "0.00" else value for value in values]
        assert " ".join(f"{span.text}({value})" for span, value in zip(result.words, values, strict=True)) in out
        assert (f"predicted {result.predicted}" in out) == (model == "bert")
    assert "read      2 texts\n" in out and "sea" in page


def test_texts_before_the_flags_and_behind_them(shown):
    out, _ = shown("great --model bert --samples 3 moon '- the rivers' --text sea")
    assert all(f"{word}(" in out for word in ("great", "moon", "rivers", "sea")) and "read      4 texts" in out


def test_standard_input(shown, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.StringIO("the sea\n\nrivers\n"))
    out, _ = shown("'first text' - --model bert")
    assert out.index("first(") < out.index("sea(") < out.index("rivers(") and "read      3 texts" in out


def test_standard_input_is_utf_8_and_output_any_encoding(monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO("früh 海\n".encode()), encoding="ascii"))
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding="ascii", write_through=True))
    assert main(["explain", "-", "--model", "bert", "--page", str(tmp_path / "page.html")]) == 0
    assert re.match(rb"fr\?h\(.*\?\(", raw.getvalue())
    assert "früh" in (tmp_path / "page.html").read_text(encoding="utf-8")


def test_a_stranger_s_class_names_do_not_steer_the_terminal(folder, tmp_path):
    model = load_atom_model("bert")
    model.config.id2label = {0: "\x1b]0;owned\x07cold", 1: "\x1b[2Jwarm"}
    model.save_pretrained(tmp_path / "bert")
    make_tokenizer().save_pretrained(tmp_path / "bert")
    status, out, err = explain(f"'the sea' --model {tmp_path / 'bert'}", tmp_path / "page.html")
    assert status == 0 and "predicted \ufffd" in out and not set("\x1b\x07") & set(out + err)


def test_a_file_of_lines(shown):
    out, page = shown("--model bert --file lines.txt")
    assert "read      3 texts\n" in out and "the(" in out
    assert "<b>rushing" not in page and "\u202e" not in out + page
    out, page = shown("--model bert --file many.txt lines.txt --samples 4")
    assert "read      4 texts of 43; --samples all shows all\n" in out and "line 39" not in page


def test_images_and_folders_of_them(shown):
    out, page = shown("--model vit --file pictures --samples 3")
    assert "read      3 images of 5; --samples all shows all\n" in out
    images = [Image.open(f"pictures/{number}.png") for number in range(3)]
    processor = ViTImageProcessorPil.from_pretrained("vit")
    for number, result in enumerate(read_images(load_atom_model("vit"), processor, images)):
        assert f"{number}.png  predicted {result.predicted}  {result.confidence:.0%}\n" in out
    assert "2.png" in page and "3.png" not in out + page
    out, _ = shown("--model vit --file turned.jpg pictures/4.png")
    assert out.startswith("turned.jpg  predicted") and "4.png" in out and "read      2 images\n" in out
    assert open_picture(Path("turned.jpg")).size == (20, 30)


def test_importance_that_is_fitted_to_the_prediction(folder, tmp_path, monkeypatch):
    model = load_atom_model("bert")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        add_explainer(
            model,
            explainer_classes=model.config.num_labels,
            explainer_width=8,
            explainer_blocks=0,
            explainer_layers=[-1],
            explainer_strategies=["mask", "drop"],
            explainer_explained=[0.251, -0.02],
        )
    model.save_pretrained(folder / "fitted")
    make_tokenizer().save_pretrained(folder / "fitted")
    says = "the prediction leans on it"
    for name, value in {"FORCE_COLOR": "1", "TERM": "xterm-256color", "NO_COLOR": "", "COLUMNS": "200"}.items():
        monkeypatch.setenv(name, value)
    for name in ("bert", "fitted"):
        status, out, _ = explain(f"sea 'great rivers' --model {name}", tmp_path / f"{name}.html")
        page = (tmp_path / f"{name}.html").read_text(encoding="utf-8")
        assert status == 0 and (says in out) == (says in page) == (name == "fitted")
        assert ("The importance explains 25% (mask) and 0% (drop) of what masking" in page) == (name == "fitted")
    results = read_texts(load_atom_model("fitted"), make_tokenizer(), ["sea", "great rivers"])
    for name, same in (("fitted", True), ("bert", False)):
        drawn = write_words(tmp_path / "words.png", results, fitted=True).read_bytes()
        assert (drawn == (tmp_path / f"{name}.png").read_bytes()) == same
    # Charges, and so the atoms, are what they were.
    assert (tmp_path / "fitted.atoms.png").read_bytes() == (tmp_path / "bert.atoms.png").read_bytes()


def test_one_sample_has_no_map_of_atoms(tmp_path):
    status, out, _ = explain("sea --model bert", tmp_path / "one.html")
    assert status == 0 and "read      1 text\n" in out
    assert {path.name for path in tmp_path.iterdir()} == {"one.html", "one.png"}


def test_all_samples_go_on_pages_that_lead_to_each_other(shown, tmp_path, monkeypatch):
    monkeypatch.setattr(atom_hf.cli.explain, "PER_PAGE", 16)
    monkeypatch.setattr(atom_hf.cli.explain, "PRINTED", 3)
    page = tmp_path / "page.html"
    status, out, err = explain("--model bert --file many.txt --samples all", page)
    assert status == 0, err
    assert "... and 37 more on the pages\n" in out and f"page      {page} to {tmp_path / 'page-3.html'}\n" in out
    assert "read      40 texts\n" in out and out.count("predicted ") == 3
    pages = [(tmp_path / name).read_text(encoding="utf-8") for name in ("page.html", "page-2.html", "page-3.html")]
    for number, text in enumerate(pages):
        first, last = 16 * number, min(16 * number + 16, 40)
        assert f"Samples {first + 1} to {last}" in text and text.count('<figure class="card') - text.count("<h3>") >= 8
        lines = {int(found) for found in re.findall(r"<bdi>line (\d+)</bdi></a></th>", text)}
        assert lines == set(range(first, last))
        names = ["page.html", "page-2.html", "page-3.html"]
        assert [f'href="{name}"' in text for name in names] == [name != names[number] for name in names]
        assert f'<span aria-current="page">{number + 1}</span>' in text
    assert {path.name for path in tmp_path.iterdir()} == {*names, "page.png", "page.atoms.png"}
    status, out, _ = explain("--model vit --file pictures --samples all", tmp_path / "images.html")
    assert status == 0 and "read      5 images\n" in out and f"page      {tmp_path / 'images.html'}\n" in out


def test_a_target_by_masking_and_what_masking_really_does(shown, tmp_path):
    model, tokenizer = load_atom_model("bert"), make_tokenizer()
    texts = ["the sea of rivers", "great rivers and the sea"]
    line = "'the sea of rivers' 'great rivers and the sea' --method masking --verify --target 1"
    expected = read_texts(model, tokenizer, texts, target=1, method="masking", verified=True)
    for name in ("bert", "bert-plain"):
        status, out, err = explain(f"{line} --model {name}", tmp_path / f"{name}.html")
        assert status == 0, err
        page = (tmp_path / f"{name}.html").read_text(encoding="utf-8")
        for result in expected:
            seen = result.verified
            assert f"LABEL_1 {seen.before:.2f} -> {seen.after:.2f}" in out
            assert f"LABEL_1 {seen.before:.2f} → {seen.after:.2f}" in page
            assert f"importance for LABEL_1, {result.explained.everything:.2f}" in out or result.explained.is_predicted
        assert "the prediction leans on it" in page
    assert "Nearest samples" not in page  # without atoms


REJECTED = [
    ("--model bert", "give --dataset or --text or --file, or texts through a pipe"),
    ("'the sea' --model bert --dataset verse", "give --dataset or --text or --file, one of them"),
    ("'the sea' --model bert --file lines.txt", "give --dataset or --text or --file, one of them"),
    ("--model bert --text ''", "--text: an empty text has no words"),
    ("--model bert --file nosuch.txt", "--file 'nosuch.txt': there is no such file or folder"),
    ("--model bert --file empty.txt", "--file 'empty.txt' is empty; give one text per line"),
    ("--model bert --file latin.txt", "--file 'latin.txt' is not UTF-8 text"),
    ("--model bert --file table.csv", "--file 'table.csv' has columns: give it as --dataset"),
    ("--model vit --file none", "--file 'none': no images in this folder"),
    ("--model vit --file classes", "a folder of folders of images is a --dataset"),
    ("--model vit --file broken.png", "--file 'broken.png' is not a readable image"),
    ("--model vit --file pictures lines.txt", "--file: texts and images were given; give either"),
    ("'the sea'", "give --model"),
    ("'the sea' --model bert --samples some", "--samples must be at least 1, or all; got some"),
    ("'the sea' --model bert --sample 3", "no such flag: --sample;"),
    ("-x --model bert", "no such flag: -x;"),
]


@pytest.mark.parametrize(("line", "says"), REJECTED, ids=[line for line, _ in REJECTED])
def test_rejected_in_a_line_before_a_model_is_loaded(line, says, tmp_path, monkeypatch):
    monkeypatch.setattr(atom_hf.cli.explain, "load_atom_model", lambda *_, **__: pytest.fail("a model was loaded"))
    status, out, err = explain(line, tmp_path / "page.html")
    assert status == 2 and out == "" and says in err and err.count("\n") == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("--model vit --file lines.txt", "an image model takes no texts"),
        ("--model bert --file pictures", "a text model takes no images"),
        ("sea --model bert --target LABEL_1", "is not fitted to what it predicts; fit it (atom-hf fit-explainer)"),
        ("sea --model bert --method masking --target LABEL_7", "'LABEL_7' is no class of the model"),
        ("sea --model bert --method guessing", "method must be one of explainer, masking"),
        ("sea --model bert-plain", "bert-plain has no atom_config.json"),
    ],
)
def test_the_wrong_kind_of_model(line, says, tmp_path):
    status, _, err = explain(line, tmp_path / "page.html")
    assert status == 2 and says in err.splitlines()[-1]


def test_standard_input_that_is_empty_or_no_text(tmp_path, monkeypatch):
    for given, says in ((b"", "standard input is empty"), (b"caf\xe9\n", "standard input is not UTF-8 text")):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(given), encoding="utf-8"))
        status, _, err = explain("- --model bert", tmp_path / "page.html")
        assert status == 2 and says in err


def test_a_pipe_in_and_a_terminal_out(tmp_path):
    """The command itself: lines through a pipe; words in colour in a terminal, with what would steer it taken out."""
    variables = {**os.environ, "TERM": "xterm-256color", "COLORTERM": "truecolor", "OMP_NUM_THREADS": "1"}
    for name in ("NO_COLOR", "FORCE_COLOR", "COLUMNS"):
        variables.pop(name, None)
    command = [sys.executable, "-m", "atom_hf", "explain", "--model", "bert", "--page", str(tmp_path / "page.html")]
    leader, follower = pty.openpty()
    try:
        run = subprocess.run(
            command, input=b"the sea\ngreat\x1b[2J\n", stdout=follower, stderr=subprocess.PIPE, env=variables
        )
        assert run.returncode == 0, run.stderr.decode()
        sent = os.read(leader, 65536).decode()
    finally:
        os.close(leader)
        os.close(follower)
    assert re.search("\x1b\\[[14];38;2;", sent) and "\x1b[2J" not in sent
    words = re.sub("\x1b\\[[0-9;]*m", "", sent).replace("\r\n", "\n")
    assert words.startswith("the sea\n") and "great\ufffd[2J\n" in words and "read      2 texts\n" in words
