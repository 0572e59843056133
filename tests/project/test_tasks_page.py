"""docs/tasks.md: its texts are tasks, its examples run, its tables are whole, and its drawings are those of the patterns."""

import importlib.util
import io
import re
from contextlib import redirect_stdout

import pytest

from atom_hf.tasks import TaskSpec, draw_task, patterns, read_task
from atom_hf.tasks.architectures import NAMES as NETWORKS
from atom_hf.tasks.functions import BUILT_IN
from atom_hf.tasks.kinds import FAMILIES
from atom_hf.tasks.recipe import read_recipe
from helpers.paths import ROOT

PAGE = (ROOT / "docs" / "tasks.md").read_text(encoding="utf-8")
BLOCKS = {kind: re.findall(rf"```{kind}\n(.*?)```", PAGE, re.DOTALL) for kind in ("task", "python", "yaml")}

# What the fragments of the page leave out.
AROUND = """\
type image = pixels(1, 28, 28), label = class(10), code = vector(4), truth = logit
{sources}
{boxes}
learner gen : code -> image
learner dis : image -> truth
learner enc : image -> code
learner dec : code -> image
learner w : label -> code
{let}
{atoms}
"""


def test_the_texts_are_tasks():
    first, sources, boxes, atoms, let = BLOCKS["task"]
    assert read_task(first) == patterns.supervised()
    whole = AROUND.format(sources=sources, boxes=boxes, let=let, atoms=atoms)
    task = read_task(f"{whole}    rest: dis(dec(enc(x))) == one\n    steered: get(steer(x, a)) == a\n")
    assert set(task.atoms) == {"putget", "getput", "law", "fool", "cost", "rest", "steered"}


@pytest.mark.parametrize("number", range(3))
def test_the_examples_run(number, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code = BLOCKS["python"][number].replace("max_steps=20)", "max_steps=2, report_to=[], dataloader_pin_memory=False)")
    said, names = io.StringIO(), {}
    with redirect_stdout(said):
        exec(code, names)
    expected = "".join(line.removeprefix("# ") + "\n" for line in code.splitlines() if line.startswith("# "))
    assert expected in said.getvalue()
    assert not isinstance(names.get("task"), TaskSpec) or read_task(said.getvalue()) == names["task"]


def test_the_recipe_is_read(tmp_path):
    (recipe,) = BLOCKS["yaml"]
    (tmp_path / "vae.yaml").write_text(recipe, encoding="utf-8")
    assert read_recipe(str(tmp_path / "vae.yaml")).spec == patterns.vae()


def test_every_kind_function_network_and_pattern_is_on_the_page():
    for name, family in FAMILIES.items():
        row = next(line for line in PAGE.splitlines() if line.startswith(f"| `{name}"))
        assert re.findall(r"`(\w+)`", row.split("|")[3]) == list(family.divergences)
    for name in (*BUILT_IN, *NETWORKS, *patterns.NAMES):
        assert re.search(rf"`{name}[`(]", PAGE), name


def test_a_line_is_a_sentence():
    text = re.sub(r"```.*?```", "", PAGE, flags=re.DOTALL)
    long = [
        line for line in text.splitlines() if re.search(r"[a-z`)]\. [A-Z]", line) and not line.startswith(("|", "    "))
    ]
    assert not long, long


def test_what_is_linked_is_there():
    for name in ("docs/tasks.md", "recipes/tasks/README.md"):
        text = (ROOT / name).read_text(encoding="utf-8")
        links = re.findall(r"\]\(([^)#]+)\)", text)
        assert links and all(
            (ROOT / name).parent.joinpath(link).exists() for link in links if not link.startswith("http")
        )


@pytest.mark.parametrize("name", patterns.NAMES)
def test_the_drawings_are_those_of_the_patterns(name):
    committed = (ROOT / "docs" / "tasks" / f"{name}.svg").read_text(encoding="utf-8")
    assert committed == draw_task(patterns.pattern(name)), "python recipes/tasks/draw.py draws it anew"


def test_the_data_of_the_gallery_is_what_its_script_writes():
    import numpy as np

    spec = importlib.util.spec_from_file_location("tasks_data", ROOT / "recipes" / "tasks" / "data.py")
    data = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(data)
    assert (ROOT / "recipes" / "tasks" / "ring.csv").read_text(encoding="utf-8") == data.ring()
    with np.load(ROOT / "recipes" / "tasks" / "negatives.npz") as file:
        assert all(np.array_equal(file[key], value) for key, value in zip("xy", data.negatives(), strict=True))
