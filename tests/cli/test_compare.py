"""The flags of `atom-hf compare`: two recipes, and what belongs to the comparison and not to a run."""

import pytest

from atom_hf.cli.compare import read_flags
from atom_hf.errors import AtomError


@pytest.fixture
def recipes(tmp_path, monkeypatch):
    """A function that writes a.yaml and b.yaml."""
    monkeypatch.chdir(tmp_path)

    def write(first, second):
        (tmp_path / "a.yaml").write_text(first, encoding="utf-8")
        (tmp_path / "b.yaml").write_text(second, encoding="utf-8")
        return ["--a", "a.yaml", "--b", "b.yaml"]

    return write


def test_each_recipe_gives_its_flags_and_the_command_line_counts_for_both(recipes):
    flags = recipes("learning_rate: 1.0e-3\nmax_steps: 9\noutput_dir: runs/mine", "learning_rate: 1.0e-4\natom: true")
    run, args, options, (other_run, other_args) = read_flags([*flags, "--max_steps", "5", "--seeds", "4"])
    assert (args.learning_rate, other_args.learning_rate) == (1e-3, 1e-4)
    assert args.max_steps == other_args.max_steps == 5 and options.seeds == 4
    assert (args.atom, other_args.atom) == (False, True) and run == other_run
    # The folder of a recipe is that of its own run, which holds a model.
    assert args.output_dir == other_args.output_dir == "trainer_output"
    _, args, _, (_, other_args) = read_flags([*flags, "--output_dir", "here"])
    assert args.output_dir == other_args.output_dir == "here"


def test_one_recipe_is_read_as_ever(recipes):
    recipes("learning_rate: 1.0e-3\noutput_dir: here", "")
    flags = ["--config", "a.yaml", "--change", "max_steps=3", "--change", "warmup_steps=1", "weight_decay=0.1"]
    run, args, options = read_flags(flags)
    assert args.output_dir == "here" and run.dataset is None
    assert options.change == ["max_steps=3", "warmup_steps=1", "weight_decay=0.1"]
    assert read_flags(["--config", "a.yaml"])[2].change is None


def test_changed_flags_may_stand_in_a_file(recipes):
    recipes("max_steps: 2\nchange: {learning_rate: 1.0e-3, config_overrides.hidden_size: 8}", "")
    assert read_flags(["--config", "a.yaml"])[2].change == [
        '{"learning_rate": 0.001, "config_overrides.hidden_size": 8}'
    ]


@pytest.mark.parametrize(
    "first, second, more, says",
    [
        ("seeds: 3", "seeds: 4", [], "--a and --b give different seeds, which is no setting of a run"),
        ("learning_rte: 3", "", [], "--a 'a.yaml' has keys that are not flags: learning_rte"),
        ("max_steps: 3", "- a list", [], "--b 'b.yaml' must hold flags as keys"),
        ("max_steps: 3", "max_steps: 4", ["--config", "a.yaml"], "--config is a third recipe beside --a and --b"),
    ],
)
def test_recipes_that_do_not_go_together_are_rejected(recipes, first, second, more, says):
    with pytest.raises(AtomError, match=says):
        read_flags([*recipes(first, second), *more])


@pytest.mark.parametrize("flag", ["--a", "--b"])
def test_one_recipe_is_not_two(recipes, flag):
    recipes("max_steps: 3", "")
    with pytest.raises(
        AtomError, match="--a and --b are the two recipes to compare; give both, or --config with --change"
    ):
        read_flags([flag, "a.yaml"])
