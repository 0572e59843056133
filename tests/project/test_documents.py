"""The documents: README.md and docs/ are short, their links lead somewhere, and their commands and Python run as printed."""

import os
import re
import shutil
import tomllib
from pathlib import Path

import pytest
import torch
import yaml
from accelerate.commands.launch import launch_command_parser

from atom_hf.cli import compare as compare_command
from atom_hf.cli.main import COMMANDS
from atom_hf.experiments.study_file import job_flags, read_study, study_jobs
from atom_hf.finetune import flags
from helpers.commands import command, parse
from helpers.documents import (
    BRIEF,
    PAGES,
    anchors,
    blocks,
    commands,
    files,
    links,
    make_folder,
    read,
    run_python,
    words,
)
from helpers.hub_client import client, succeeded
from helpers.hub_server import TOKEN
from helpers.paths import ROOT

OTHER_PAGES = [
    "CONTRIBUTING.md",
    *(path.relative_to(ROOT).as_posix() for path in (ROOT / "recipes").rglob("*.md")),
    *("model_cards/README.md", "atom_hf/assets/README.md"),
]
# What takes a Hub, or libraries that other tests import, runs there: see `helpers.documents.python_with` and `commands`.
ELSEWHERE = {"docs/generation.md", "docs/sharing.md", "docs/trainers.md"}
# Pages of commands that train many models, or measure for long.
LONG = {"docs/experiments.md", "docs/faithfulness.md"}


def test_the_readme_is_short():
    assert read("README.md").count("\n") <= 150


@pytest.mark.parametrize("page", [*PAGES, *OTHER_PAGES])
def test_what_is_linked_is_there(page):
    here = ROOT / page
    for link in links(page):
        path, _, anchor = link.partition("#")
        target = here.parent / path if path else here
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


def test_every_page_is_in_the_index_and_the_index_in_the_readme():
    linked = {link.partition("#")[0] for link in links("docs/README.md")}
    assert {page.removeprefix("docs/") for page in PAGES[1:]} - {"README.md"} <= linked
    assert {page for page in PAGES[1:]} - {"docs/README.md", "docs/limits.md"} <= set(links("README.md"))


def prose(page):
    """The lines of a page that are neither code nor tables, nor steps of a list."""
    text = re.sub(r"^```.*?^```", "", read(page), flags=re.DOTALL | re.MULTILINE)
    return [line for line in text.splitlines() if not re.match(r"\||    |<!--|\d+\. ", line)]


@pytest.mark.parametrize("page", [page for page in PAGES if page != "docs/robustness.md"])  # a table of names of tests
def test_a_line_is_a_sentence(page):
    assert [line for line in prose(page) if re.search(r"[^\d.*][.!?][)*]* [A-Z`\[*(]", line)] == []
    following = zip(prose(page), [*prose(page)[1:], ""], strict=True)
    assert [line for line, after in following if re.search(r"[\w,]$", line) and re.match(r" *[\w(]", after)] == []


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The commands that have run, in a folder of all that the documents name, with the models that the pages read."""
    import datasets

    place = tmp_path_factory.mktemp("documents")
    make_folder(place)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("cache"))
        patch.setattr("atom_hf.explainer.descent.STEPS", 20)
        patch.setattr("atom_hf.explainer.descent.LOOK", 10)
        patch.setenv("ACCELERATE_USE_CPU", "true")
        patch.chdir(place)
        datasets.disable_progress_bars()
        (place / "study.yaml").write_text(yaml.safe_dump(brief_study(place / "study.yaml")), encoding="utf-8")
        ran = set()
        for line in ("--model bert-base-uncased --dataset my.csv", "--model vit-fashion-mnist --dataset flowers"):
            run(f"atom-hf train {line} --atom", ran)
        for seed in range(4):  # the runs of docs/fragments.md
            shutil.copytree("runs/my-bert-base-uncased-atom", f"runs/seed-{seed}")
        yield ran


def brief_study(path):
    """A study with a run of two steps for each setting and arm."""
    study = yaml.safe_load(path.read_text(encoding="utf-8"))
    for setting in study["settings"].values():
        setting |= {"sizes": {min(setting["sizes"]): {"max_steps": 2}}, "max_eval_samples": 40}
    return {**study, "seeds": 2}


def test_the_study_that_is_shown_can_be_run(tmp_path):
    path = tmp_path / "study.yaml"
    path.write_text(files("docs/experiments.md")["study.yaml"], encoding="utf-8")
    study = read_study(str(path))
    jobs = list(study_jobs(study))
    assert len(jobs) == 5 * 3 * 2 and all(job_flags(study, job) for job in jobs)


def run(line, ran, brief=BRIEF):
    """Runs a command as it is printed, once, with flags that make it brief; what would start processes is parsed."""
    arguments, piped = words(line)
    if line in ran:
        return
    ran.add(line)
    if arguments[0] == "make":
        assert re.search(rf"^{arguments[1]}:", (ROOT / "Makefile").read_text(), re.MULTILINE), line
    elif arguments[:2] == ["pip", "install"]:
        extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
        named = re.findall(r"[\w-]+", "".join(re.findall(r"\.\[(.*?)\]", line)))
        assert set(named) <= set(extras), line
    elif arguments[:2] == ["accelerate", "launch"]:
        known = launch_command_parser().parse_args(arguments[2:])
        assert known.module and known.training_script == "atom_hf" and known.training_script_args[0] == "train"
        parse(known.training_script_args[1:])
    else:
        assert arguments[0] == "atom-hf" and arguments[1] in COMMANDS, line
        run_here(line, arguments[1:], piped, brief)


def run_here(line, arguments, piped, brief):
    started = []
    with pytest.MonkeyPatch.context() as patch, open(piped or os.devnull, encoding="utf-8") as standard_input:
        patch.setattr("sys.stdin", standard_input)
        if "--accelerate_config" in arguments:  # as on a machine with two GPUs, without starting anything
            patch.setattr("torch.accelerator.is_available", lambda: True)
            patch.setattr("torch.accelerator.device_count", lambda: 2)
            patch.setattr("accelerate.commands.launch.launch_command", started.append)
        status, out, err = command([*arguments, *brief.get(arguments[0], "").split()])
    assert status in (0, None), f"{line}\n{err[-3000:]}"
    if started:
        assert started[0].training_script_args[0] == "train"
        parse(started[0].training_script_args[1:])
    else:
        assert out or not brief, line


@pytest.mark.parametrize("page", [page for page in PAGES if commands(page)])
def test_the_commands_are_understood(page, monkeypatch, tmp_path):
    def only(real):
        def parse_only(*arguments):
            real(*arguments)
            raise SystemExit(0)

        return parse_only

    monkeypatch.setattr(flags, "parse_flags", only(flags.parse_flags))
    monkeypatch.setattr(compare_command, "read_flags", only(compare_command.read_flags))  # of two recipes
    monkeypatch.chdir(tmp_path)
    for name, text in files(page).items():
        Path(name).write_text(text, encoding="utf-8")
    for line in commands(page):
        run(line.partition(" | ")[2] or line, set(), brief={})


@pytest.mark.filterwarnings("ignore:.*pin_memory")
@pytest.mark.parametrize(
    "page",
    [
        pytest.param(page, marks=[pytest.mark.slow] if page in LONG else [])
        for page in PAGES
        if commands(page) and page not in ELSEWHERE
    ],
)
def test_the_commands_run(page, folder):
    for line in commands(page):
        run(line, folder)


@pytest.mark.filterwarnings("ignore:.*pin_memory")
@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, "python") and page not in ELSEWHERE])
def test_the_python_runs(page, folder):
    names = {}
    for block in blocks(page, "python"):
        names = run_python("\n" * block.line + block.text, str(ROOT / page), **names)
    if page == "README.md":
        from atom_hf import load_atom_model

        model, line = load_atom_model("out/final"), names["tokenizer"]("And rivers rushing", return_tensors="pt")
        importance = model.atom_importance(**line)
        assert model.atom_config.has_explainer and importance.shape == line["input_ids"].shape
        # [CLS] and [SEP] are no tokens of the atom; the words are.
        assert torch.isnan(importance[0, [0, -1]]).all() and (importance[0, 1:-1].abs() <= 1).all()


@pytest.mark.slow
def test_what_pushes_and_pulls_runs_beside_a_hub(folder, hub):
    page, brief = "docs/sharing.md", {"train": ["--no_explainer"]}
    steps = {line: {"arguments": [*(words(line)[0][1:]), *brief.get(words(line)[0][1], [])]} for line in commands(page)}
    steps |= {str(block.line): {"python": block.text} for block in blocks(page, "python")}
    for step in steps.values():
        step["environment"] = {"HF_TOKEN": TOKEN}
    answers = client(hub, Path.cwd(), steps)
    assert len(answers) == 3 and all(succeeded(answer) for answer in answers.values())
    for name in ("org/name", "org/pushed"):
        assert {"model.safetensors", "atom_heads.safetensors", "README.md"} <= set(
            hub.repositories["models", name]["main"]
        )
