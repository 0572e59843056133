"""The files of flags of the recipes, and their studies."""

import json

import numpy as np
import pytest
import yaml
from PIL import Image

from atom_hf.experiments.study import StudyArguments, run_study
from atom_hf.experiments.study_file import read_study
from atom_hf.finetune.arguments import StoppingArguments
from atom_hf.finetune.flags import as_flags, parse_flags
from atom_hf.tasks import TaskArguments, patterns
from atom_hf.tasks.command import TaskOptions
from atom_hf.tasks.recipe import read_recipe
from helpers.commands import closing, parse, train
from helpers.paths import ROOT

pytestmark = pytest.mark.usefixtures("own_cache")

RECIPES = sorted(path for stem in ("plain", "atom") for path in (ROOT / "recipes").glob(f"*/{stem}.yaml"))
STUDIES = sorted((ROOT / "recipes" / "study").glob("*.yaml"))
TASKS = sorted((ROOT / "recipes" / "tasks").glob("*.yaml"))


def test_every_recipe_is_seen():
    assert len(RECIPES) > 10
    steps = ROOT / "recipes" / "faithfulness" / "steps.yaml"  # read by test_faithfulness_steps.py
    assert {*RECIPES, *STUDIES, *TASKS, steps} == {*(ROOT / "recipes").glob("*/*.yaml")}


@pytest.mark.parametrize("recipe", RECIPES, ids=[f"{path.parent.name}-{path.stem}" for path in RECIPES])
def test_recipe_is_read(recipe):
    run, args = parse(["--config", str(recipe)])
    assert run.dataset and (run.model is None) != (run.model_type is None)
    assert args.atom == (recipe.stem == "atom")
    if args.atom:
        args.atom_config()


@pytest.mark.parametrize("folder", sorted({path.parent for path in RECIPES}), ids=lambda folder: folder.name)
def test_a_pair_of_recipes_differs_in_the_flag_alone(folder):
    pair = {path.stem: path.read_text(encoding="utf-8").splitlines() for path in folder.glob("*.yaml")}
    if set(pair) == {"plain"}:  # how a checkpoint that ships was made
        assert pair["plain"].count("atom: false") == 1
        return
    assert set(pair) == {"plain", "atom"}
    different = [(a, b) for a, b in zip(pair["plain"], pair["atom"], strict=True) if a != b]
    assert different == [("atom: false", "atom: true")]


@pytest.mark.parametrize("file", STUDIES, ids=lambda path: path.stem)
def test_the_flags_of_a_study_are_read(tmp_path, file):
    """Of each arm in each setting at each size; what else a study refuses is told by its first run."""
    found, lines, _ = run_study(str(file), StudyArguments(seeds=2, output_dir=str(tmp_path), report_only=True))
    assert len(found.arms) > 1 and found.settings and lines == []


@pytest.mark.parametrize("file", TASKS, ids=lambda path: path.stem)
def test_a_task_is_read_with_its_bindings_and_flags(file):
    recipe = read_recipe(str(file))
    kinds = [TaskOptions, TaskArguments, StoppingArguments]
    _, args, _ = parse_flags("task", [*as_flags(recipe.flags), "--use_cpu"], kinds)
    assert args.max_steps > 0 and set(recipe.bind) == set(recipe.spec.boxes) - set(recipe.spec.functions)
    assert set(recipe.data) == {name for name, source in recipe.spec.sources.items() if source.is_data}
    assert file.stem in patterns.NAMES


def test_a_recipe_with_flags_behind_it_runs(tmp_path):
    recipe = ROOT / "recipes" / "digits" / "atom.yaml"
    out = train(f"--config {recipe} --max_steps 1 --max_train_samples 16 --output_dir {tmp_path / 'run'}")
    assert closing(out)[0].endswith("atom")
    assert json.loads((tmp_path / "run" / "trainer_state.json").read_text())["global_step"] == 1


@pytest.mark.parametrize("setting", ["Oxford-IIIT Pets, ViT from scratch", "CelebA-HQ, ViT from scratch"])
def test_pets_and_faces_are_read_from_folders(setting, tmp_path):
    """Nobody's pets: pictures in the layout of those data sets, as far as `atom-hf train` can tell."""
    draw = np.random.default_rng(0)
    for split, each in (("train", 4), ("test", 2)):
        for name in ("first", "second"):
            (tmp_path / split / name).mkdir(parents=True)
            for number in range(each):
                pixels = draw.integers(256, size=(50, 40, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(tmp_path / split / name / f"{number}.jpg")
    flags = read_study(str(ROOT / "recipes" / "study" / "pets_faces.yaml")).settings
    given = next(dict(one.flags) for one in flags if one.name == setting)
    given |= {"dataset": str(tmp_path / "train"), "eval_dataset": str(tmp_path / "test"), "max_steps": 1, "atom": True}
    file = tmp_path / "flags.yaml"
    file.write_text(yaml.safe_dump(given))
    closing(train(f"--config {file} --use_cpu --output_dir {tmp_path / 'run'}"))
    assert json.loads((tmp_path / "run" / "config.json").read_text())["id2label"] == {"0": "first", "1": "second"}
