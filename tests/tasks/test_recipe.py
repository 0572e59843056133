"""A task and its bindings in one file."""

import pytest

from atom_hf import AtomError
from atom_hf.tasks import patterns, read_task
from atom_hf.tasks.recipe import named_task, read_recipe


def written(folder, text, name="fit.yaml"):
    (folder / name).write_text(text, encoding="utf-8")
    return str(folder / name)


def test_a_recipe_names_a_pattern_a_file_or_holds_the_text(tmp_path):
    text = patterns.pattern_text("supervised")
    (tmp_path / "my.task").write_text(text, encoding="utf-8")
    inline = "task: |\n" + "".join(f"  {line}\n" for line in text.splitlines())
    found = [
        read_recipe(
            written(tmp_path, f"{first}data: {{D: digits}}\nbind: {{f: linear}}\nlearning_rate: 0.1\nmax_steps: 3\n")
        )
        for first in ("task: supervised\n", "task: my.task\n", inline)
    ]
    assert all(one == found[0] for one in found)
    assert found[0].name == "fit" and found[0].spec == patterns.supervised()
    assert found[0].data == {"D": "digits"} and found[0].bind == {"f": "linear"}
    assert found[0].flags == {"learning_rate": 0.1, "max_steps": 3}


def test_a_task_alone_is_a_recipe_without_bindings(tmp_path):
    (tmp_path / "my.task").write_text(patterns.pattern_text("gan"), encoding="utf-8")
    assert read_recipe("gan").spec == read_recipe(str(tmp_path / "my.task")).spec == patterns.gan()
    with pytest.raises(
        AtomError, match=r"'gann': there is no such file; give the path of a task, or one of atom_modeling, "
    ):
        read_recipe("gann")


def test_types_of_a_pattern_are_changed(tmp_path):
    text = "task: gan\ntypes: {sample: 'vector(3)', code: 'vector(9)'}\n"
    assert read_recipe(written(tmp_path, text)).spec == patterns.gan(sample="vector(3)", code="vector(9)")


def test_files_beside_the_recipe_are_found(tmp_path):
    (tmp_path / "ring.csv").write_text("a,b\n1,2\n", encoding="utf-8")
    text = "task: gan\ndata: {D: {dataset: ring.csv, columns: [[a, b]]}}\n"
    assert read_recipe(written(tmp_path, text)).data["D"]["dataset"] == str(tmp_path / "ring.csv")


def test_flags_bind_boxes_and_data():
    recipe = read_recipe("supervised").bound(["f=mlp(3)", "D=digits"])
    assert recipe.bind == {"f": "mlp(3)"} and recipe.data == {"D": "digits"}
    assert recipe.bound(["f=conv"]).bind == {"f": "conv"}
    for pair, says in (
        ("f", "--bind 'f': give a name and what it is, as in D=digits"),
        ("f=", "--bind 'f=': give a name and what it is"),
        ("g=mlp", "--bind 'g=mlp': no such box or data source: g; there are f, D"),
    ):
        with pytest.raises(AtomError, match=says):
            recipe.bound([pair])


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("- task\n", "recipe '.*fit.yaml' must hold 'task: ...', the name of a pattern"),
        ("task: [gan]\n", "recipe '.*fit.yaml' must hold 'task: ...'"),
        ("task: nosuch\n", "recipe '.*fit.yaml': 'nosuch': there is no such file; give the path of a task, or one of"),
        ("task: |\n  type a = b\n", "recipe '.*fit.yaml': type a: no such type: b"),
        ("task: gan\ntypes: 3\n", "recipe '.*fit.yaml': types must hold 'name: text', got 3"),
        ("task: gan\ntypes: {image: 'vector(3)'}\n", "gan has no type image; there are sample, code, truth"),
        ("task: gan\ntypes: {sample: 'vectr(3)'}\n", "type sample: no such type: vectr"),
        (
            "task: gan\ntypes: {code: 'class(3)'}\n",
            r"noise N: normal draws pixels, vector, scalar, and N is class\(3\)",
        ),
        ("task: gan\ndata: [D]\n", "data must hold 'SOURCE: data set', got"),
        ("task: gan\ndata: {E: digits}\n", "data: no such data source: E; there are D"),
        ("task: gan\nbind: {f: mlp}\n", "bind: no such box: f; there are gen, dis"),
        ("task: gan\nbind: {gen: 3}\n", "bind must hold 'name: text'"),
    ],
)
def test_a_recipe_that_cannot_be_is_refused(tmp_path, text, says):
    with pytest.raises(AtomError, match=says):
        read_recipe(written(tmp_path, text))


@pytest.mark.parametrize("name", patterns.NAMES)
def test_every_pattern_is_a_task(name):
    spec = getattr(patterns, name)()
    assert spec == named_task(name) == read_task(str(spec)) and patterns.pattern_text(name).startswith("# ")


def test_a_pattern_that_is_not_there_is_refused():
    with pytest.raises(AtomError, match="no such pattern: 'foo'; there are atom_modeling, autoencoder"):
        patterns.pattern("foo")
    with pytest.raises(AttributeError):
        patterns.foo  # noqa: B018
    assert "gan" in dir(patterns)
