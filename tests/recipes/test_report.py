"""The tables of the documents are what the committed results give."""

import importlib.util
import shutil

from helpers.paths import ROOT

DOCUMENTS = ["README.md", "docs/results.md", "recipes/README.md", "recipes/study/README.md"]


def test_tables_are_what_the_results_give(tmp_path, monkeypatch):
    shutil.copytree(ROOT / "recipes", tmp_path / "recipes")
    (tmp_path / "docs").mkdir()
    for name in DOCUMENTS[:2]:
        shutil.copy(ROOT / name, tmp_path / name)
    for name in DOCUMENTS[2:]:
        (tmp_path / name).unlink()
    spec = importlib.util.spec_from_file_location("report", ROOT / "recipes" / "report.py")
    report = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(report)
    monkeypatch.setattr(report, "HERE", tmp_path / "recipes")
    report.main()
    for name in DOCUMENTS:
        assert (tmp_path / name).read_text(encoding="utf-8") == (ROOT / name).read_text(encoding="utf-8")
