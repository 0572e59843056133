"""`atom-hf manipulate`: an editor is made, judged, saved, resumed and used; bad input is refused in one line."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
from axe_playwright_python.sync_playwright import Axe
from PIL import Image

from atom_hf.tasks import Manipulator, draw_task, read_task
from helpers.browser import opened
from helpers.commands import command
from helpers.manipulators import digits_manipulator
from helpers.text_manipulators import NAMES, sentences, text_classifier

pytestmark = pytest.mark.usefixtures("own_cache", "digits_once")

FAST = "--max_steps 4 --hidden_sizes 4 8 --sigma 0 --edit_rows 20 --use_cpu --disable_tqdm true --report_to none"
TASK = (
    "task supervised --train --bind D=digits f=mlp(16) --max_steps 40 --learning_rate 1e-2 --use_cpu --report_to none"
)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder with a classifier in `get`, and the editor that a command made of it in `out`."""
    folder, before = tmp_path_factory.mktemp("made"), os.getcwd()
    os.chdir(folder)
    try:
        assert command(f"{TASK} --per_device_train_batch_size 64 --output_dir get")[0] == 0
        found = command(f"manipulate --classifier get:f --dataset digits {FAST} --samples 4 --output_dir out")
    finally:
        os.chdir(before)
    return folder, found


def test_one_command_makes_the_whole_folder(made):
    folder, (status, out, err) = made
    assert status == 0, err
    assert {
        "config.json",
        "model.safetensors",
        "manipulation.task",
        "diagram.svg",
        "metrics.json",
        "edits.html",
    } <= set(os.listdir(folder / "out"))
    assert "edits that a judge reads as their class" in out and f"written   out{os.sep}edits.html" in out
    metrics = json.loads((folder / "out" / "metrics.json").read_text(encoding="utf-8"))
    assert metrics["edits"] == 180 and metrics["judge_accuracy"] > 0.9 and metrics["agreement"]["chance"] == 0.25
    spec = read_task(folder / "out" / "manipulation.task")
    assert list(spec.atoms) == ["putget", "getput", "undo", "law"]
    assert (folder / "out" / "diagram.svg").read_text(encoding="utf-8") == draw_task(spec)
    card = (folder / "out" / "README.md").read_text(encoding="utf-8")
    assert f"| edits that a judge reads as their class | {metrics['judge']:.3f} |" in card and "(edits.png)" in card
    assert not (folder / "out" / "sparring.safetensors").exists()
    loaded = Manipulator.from_pretrained(folder / "out")
    assert loaded.config.evaluation["judge"] == metrics["judge"] and loaded.config.classifier == {
        "architecture": "mlp(16)"
    }


def test_its_page_is_accessible(made, chromium):
    with opened(chromium, made[0] / "out" / "edits.html") as page:
        found = Axe().run(page, options={"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"]})
        assert found.violations_count == 0, found.generate_report()
        assert page.locator("img").count() == 2 and "0, 1, 2, 3" in page.locator("img").first.get_attribute("alt")


def test_an_editor_of_texts_is_made_and_used(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    classifier, rows = text_classifier(), sentences(60, 1)
    classifier.model.save_pretrained("get")
    classifier.tokenizer.save_pretrained("get")
    lines = [f"{text},{NAMES[label]}" for text, label in zip(rows.texts, rows.labels.tolist(), strict=True)]
    Path("lines.csv").write_text("text,label\n" + "\n".join(lines) + "\n", encoding="utf-8")
    fast = "--max_steps 3 --filling_steps 3 --sigma auto --per_device_train_batch_size 8 --use_cpu --disable_tqdm true"
    line = f"manipulate --classifier get --dataset lines.csv --eval_fraction 0.5 --put fill {fast} --report_to none --samples 4"
    status, out, err = command(f"{line} --output_dir out")
    assert status == 0, err
    assert "words of a text that an edit keeps" in out and f"written   out{os.sep}edits.html" in out
    metrics = json.loads(Path("out", "metrics.json").read_text(encoding="utf-8"))
    assert (
        set(metrics["compared"]) == {"filling gaps alone", "unedited"} and metrics["compared"]["unedited"]["kept"] == 1
    )
    spec = read_task(Path("out", "manipulation.task"))
    assert list(spec.atoms) == ["putget", "denoise"] and "put" in spec.lets
    assert Path("out", "edits.png").is_file() and "(edits.png)" in Path("out", "README.md").read_text(encoding="utf-8")
    status, out, err = command(["manipulate", "--model", "out", "--edit", rows.texts[0], "--to", "rough"])
    assert status == 0, err
    assert out.splitlines()[2].split() == ["strength", "P(rough)", "text"]
    Path("in.txt").write_text("\n".join(rows.texts[:3]) + "\n\n", encoding="utf-8")
    status, _, err = command("manipulate --model out --edit in.txt --to calm --strength 0:1:3")
    assert status == 0, err
    assert len(Path("edited.txt").read_text(encoding="utf-8").splitlines()) == 9
    status, _, err = command("manipulate --model out --edit none.txt --to calm")
    assert status == 2 and "--edit 'none.txt' is no readable text file" in err


def test_an_input_is_edited_at_several_strengths(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    digits_manipulator().save_pretrained("out")
    Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8)).save("in.png")
    status, out, err = command("manipulate --model out --edit in.png --to nine --strength 0:1:3")
    assert status == 0, err
    lines = [line.split() for line in out.splitlines()]
    assert [line[0] for line in lines[4:7]] == ["0", "0.5", "1"] and lines[2] == ["strength", "P(nine)"]
    with Image.open("edited.png") as opened_picture:
        assert opened_picture.width > 4 * 160


BAD = {
    "manipulate": "give --classifier: a folder, a Hub id, or a learner of a trained task",
    "manipulate --classifier get:f": "give --dataset",
    "manipulate --classifier get:f --dataset digits --put paint": "--put 'paint' is unknown; give one of steer, residual",
    "manipulate --classifier get:f --dataset digits --put residual": "no such model that can be read",
    "manipulate --classifier get:g --dataset digits": "the task there has no learner g; it has f",
    "manipulate --classifier get:f --dataset digits --weights 1 -1 1 1": "--weights: that of getput must be 0 or more",
    "manipulate --classifier get:f --dataset digits --weights 0 0 0 0": "--weights: that of putget is 0",
    "manipulate --classifier get:f --dataset digits --sigma loud": "--sigma must be auto, or a number",
    "manipulate --classifier get:f --dataset digits --judge_fraction 1": "--judge_fraction must be between 0 and 1",
    "manipulate --classifier get:f --dataset digits --judge_fraction 0.001": "are left for the judge",
    "manipulate --classifier get:f --dataset digits --max_eval_samples 12": "are left for the judge",
    "manipulate --classifier vit-fashion-mnist --dataset digits": "--classifier 'vit-fashion-mnist' has 10 classes",
    "manipulate --classifier get:f --dataset verse": "--classifier 'get:f'",
    "manipulate --classifier get:f --dataset words.csv --put steer": "--put steer does not edit texts; give --put residual",
    "manipulate --classifier get:f --dataset words.csv --put fill": "--classifier 'get:f': no such model that can be read",
    "manipulate --classifier get:f --dataset digits --put fill": "--dataset 'digits' holds images; --put fill edits single",
    "manipulate --classifier get:f --dataset words.csv --put fill --weights 1 1 1 1": "--weights: of texts give two numbers",
    "manipulate --classifier get:f --dataset words.csv --put fill --hidden_share 1": "--hidden_share must be between 0 and 1",
    "manipulate --classifier get:f --dataset words.csv --put fill --compare true": "--compare is not for --put fill",
    "manipulate --classifier get:f --dataset digits --per_device_train_batch_size 8": "law: ~ compares at least two rows",
    "manipulate --classifier get:f --dataset digits --output_dir words.csv": "is a file; give a folder",
    "manipulate --model out": "give --edit too",
    "manipulate --model out --edit in.png": "give --to too",
    "manipulate --model out --edit in.png --to nine --classifier get:f": "give either",
    "manipulate --model out --edit in.png --to nine --strength 0:2:3": "--strength must be a number from 0 to 1",
    "manipulate --model get --edit in.png --to nine": "--model 'get' is no manipulator that can be read",
    "manipulate --model out --edit words.csv --to 9": "--edit 'words.csv' is not a readable picture",
    "manipulate --model out --edit words.csv --to ten": "to: there is no class 'ten'",
}


@pytest.mark.promise(
    "A manipulator that cannot be made or used ends in one line, with status 2, before training.",
    "classifiers, data, weights, noises, judges and inputs of atom-hf manipulate",
)
@pytest.mark.parametrize(("line", "says"), BAD.items())
def test_bad_input_is_refused_in_one_line(made, line, says, started, monkeypatch):
    monkeypatch.chdir(made[0])
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    Path("words.csv").write_text("text,label\n" + "a word,x\nanother,y\n" * 20, encoding="utf-8")
    status, _, err = command(f"{line} --use_cpu")
    lines = err.splitlines()
    assert status == 2 and "Traceback" not in err, err
    assert lines[-1].startswith("atom-hf: error: ") and says in lines[-1] and started == []
