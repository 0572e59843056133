"""What the documents say: the example runs, and the tables are what the committed results give."""

import importlib.util
import re
import shutil

import pytest
import torch

from helpers.paths import ROOT


def test_the_ten_lines_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code = (ROOT / "README.md").read_text(encoding="utf-8").split("```python\n")[1].split("```")[0]
    short = 'AtomTrainingArguments("out", atom=True, max_steps=2, dataloader_pin_memory=False)'
    assert 'AtomTrainingArguments("out", atom=True)' in code
    names = {}
    exec(code.replace('AtomTrainingArguments("out", atom=True)', short), names)
    importance = names["load_atom_model"]("out/final").atom_importance(**names["line"])
    assert importance.shape == names["line"]["input_ids"].shape
    # [CLS] and [SEP] are no tokens of the atom; the words are.
    assert torch.isnan(importance[0, [0, -1]]).all() and (importance[0, 1:-1].abs() <= 1).all()


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md", "recipes/README.md", "model_cards/README.md"])
def test_what_is_linked_is_there(name):
    text = (ROOT / name).read_text(encoding="utf-8")
    links = [link for link in re.findall(r"\]\(([^)]+)\)", text) if not link.startswith(("http", "#"))]
    missing = [link for link in links if not (ROOT / name).parent.joinpath(link.split("#")[0]).exists()]
    assert links and not missing


def test_tables_are_what_the_results_give(tmp_path, monkeypatch):
    documents = ["README.md", "recipes/README.md", "recipes/study/README.md"]
    shutil.copytree(ROOT / "recipes", tmp_path / "recipes")
    shutil.copy(ROOT / "README.md", tmp_path)
    for name in documents[1:]:
        (tmp_path / name).unlink()
    spec = importlib.util.spec_from_file_location("report", ROOT / "recipes" / "report.py")
    report = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(report)
    monkeypatch.setattr(report, "HERE", tmp_path / "recipes")
    report.main()
    for name in documents:
        assert (tmp_path / name).read_text(encoding="utf-8") == (ROOT / name).read_text(encoding="utf-8")
