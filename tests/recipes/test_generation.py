"""The studies of generators: their pages are those of their results; what they choose and compare; a run of each kind."""

import importlib
import re
import sys

import numpy as np
import pytest
import torch

from atom_hf.experiments.regularizers import dispersive_loss
from atom_hf.utils.jsonl import read_lines
from helpers.paths import ROOT

FOLDER = ROOT / "recipes" / "generation"
NAMES = [path.stem for path in sorted(FOLDER.glob("*.py"))]


@pytest.fixture(scope="module")
def study():
    """The modules of the recipe, by name; they find each other as scripts of one folder do."""
    sys.path.insert(0, str(FOLDER))
    try:
        yield {name: importlib.import_module(name) for name in NAMES}
    finally:
        sys.path.remove(str(FOLDER))
        for name in NAMES:
            sys.modules.pop(name, None)


@pytest.mark.parametrize("file", sorted((FOLDER / "results").glob("*.jsonl")), ids=lambda path: path.stem)
def test_a_page_is_that_of_its_results(study, file):
    rows, page = read_lines(file), (FOLDER / f"{file.stem}.md").read_text(encoding="utf-8")
    if file.stem == "mixtures":
        assert page == study["mixture_report"].report(rows, study["mixtures"].SETTINGS)
    else:
        settings = study["images"].settings(file.stem)
        assert page == study["image_report"].report(file.stem, rows, settings)
        assert (FOLDER / "results" / f"{file.stem}.safetensors").is_file()
    for picture in re.findall(r"\]\((\w+\.png)\)", page):
        assert (FOLDER / picture).is_file()


def test_every_study_is_in_the_index():
    index = (FOLDER / "README.md").read_text(encoding="utf-8")
    assert {path.stem for path in FOLDER.glob("*.md")} - {"README"} == set(re.findall(r"\]\((\w+)\.md\)", index))


@pytest.fixture
def made(study, tmp_path):
    """(rows, setting) of a study whose runs are numbers: an arm's score is -(weight - 0.1)^2, and b is 2 above plain."""
    setting = study["arms"].Setting(
        "toy", ("plain", "separation", "paper"), (0.01, 0.1, 1.0), 3, tuning_seeds=(1000, 1001)
    )

    def run(setting, arm, weight, seed):
        gain = {"plain": 0, "separation": 2 + 0.1 * (seed % 2), "paper": 0.1 * (-1) ** seed}[arm]
        return {"score": -((weight - 0.1) ** 2), "seconds": 2.0 if arm == "plain" else 3.0, "value": seed + gain}

    rows = study["arms"].run_missing(tmp_path / "rows.jsonl", [setting], run)
    assert study["arms"].run_missing(tmp_path / "rows.jsonl", [setting], None) == rows  # nothing is run again
    return rows, setting


def test_weights_are_chosen_on_seeds_that_do_not_report(study, made):
    arms, (rows, setting) = study["arms"], made
    assert len(rows) == setting.runs == 2 * 2 * 3 + 3 * 3
    assert arms.chosen_weights(rows, setting) == {"plain": 0.0, "separation": 0.1, "paper": 0.1}
    assert sorted(row["seed"] for row in arms.rows_of(rows, setting, "paper")) == [0, 1, 2]
    few = setting._replace(name="few", weights_of="toy")
    assert arms.chosen_weights(rows, few) == arms.chosen_weights(rows, setting) and few.runs == 9
    assert [job[0] for job in arms.jobs(rows, few)] == ["plain", "separation", "paper"] * 3
    unfinished = [row for row in rows if (row["arm"], row["weight"], row["seed"]) != ("paper", 1.0, 1001)]
    assert arms.chosen_weights(unfinished, setting) == {"plain": 0.0, "separation": 0.1}


def test_differences_are_paired(study, made):
    arms, (rows, setting) = study["arms"], made
    better, none = arms.differences(rows, [setting], ("value",))
    assert better.interval.mean == pytest.approx((2 + 2.1 + 2) / 3) and better.is_significant
    assert better.text.startswith("**+2.03 [") and not none.is_significant
    assert better.holm > 0 and arms.time_ratio(rows, setting, "paper") == 1.5
    words = study["tables"].found_sentences([better, none], {"value": "the value"}, ())
    assert "Better than plain after the correction: energy, separation form in the value (toy: +2.03)." in words
    assert "Worse than plain after the correction: nothing." in words


@pytest.mark.parametrize(("kind", "arm"), [("gan", "dispersive"), ("gan", "separation"), ("flow", "paper")])
def test_a_run_on_a_mixture(study, monkeypatch, kind, arm):
    runs = study["mixture_runs"]
    monkeypatch.setattr(runs, "SAMPLES", 50)
    monkeypatch.setattr(runs, "ON_THE_WAY", 50)
    found = runs.train("ring", kind, arm, 0.1, 3, steps=10)
    assert [point["step"] for point in found["curve"]] == list(range(1, 11)) and found["seconds"] > 0
    assert 0 <= found["covered"] <= 8 and np.shape(found["shown"]) == (runs.SHOWN, 2)


def test_dispersive_loss_joins_the_loss(study, tmp_path):
    """The loss of a step, and its gradient, are those of the model plus the term of one module's output."""
    runs = study["image_runs"]
    data = study["image_data"].Images(*(torch.rand(8, 1, 8, 8), torch.zeros(8, dtype=torch.long)) * 2)
    trainer = runs.make_trainer(data, "gan", "dispersive", 0.3, 0, str(tmp_path), hidden_sizes=[6, 4])
    model, batch = trainer.model.train(), {"pixel_values": data.train}
    torch.manual_seed(0)
    loss = trainer.compute_loss(model, batch)
    torch.manual_seed(0)
    outputs = model(**batch, output_hidden_states=True)
    term = dispersive_loss(outputs.hidden_states[-1].flatten(1), 0.5)
    assert loss.item() == pytest.approx((outputs.loss + 0.3 * term).item(), rel=1e-5)
    assert trainer.compute_loss(model.eval(), batch).item() != pytest.approx(loss.item(), rel=1e-5)


def test_the_energy_and_dispersive_loss_read_the_same_state_of_a_flow(study):
    model = study["mixture_runs"].FlowModel(study["mixture_runs"].FlowConfig(8, 2))
    given = []
    model.get_submodule("layers.0").register_forward_hook(lambda module, inputs, output: given.append(output))
    outputs = model(torch.randn(5, 2, 1, 1), output_hidden_states=True)
    assert torch.equal(outputs.hidden_states[1].squeeze(1), given[0]) and len(outputs.hidden_states) == 3


@pytest.mark.parametrize(("kind", "arm"), [("flow", "plain"), ("flow", "separation"), ("gan", "mode seeking")])
def test_a_run_on_images(study, kind, arm):
    torch.manual_seed(0)
    data = study["image_data"].Images(*(torch.rand(20, 1, 8, 8), torch.arange(20) % 10) * 2)
    classifier = study["image_data"].Classifier(1).eval()
    found = study["image_runs"].train(data, classifier, kind, arm, 0.1, 0, steps=5)
    assert found["frechet"] > 0 and found["memorised"] <= 1 and len(found.get("curve", [])) == 5 * (arm == "plain")
    images = study["image_runs"].unpacked(found["shown"], found["shape"])
    assert images.shape == (12, 1, 8, 8)
    packed = study["image_runs"].packed(torch.from_numpy(images.copy()).float() / 255)
    assert packed == found["shown"]
