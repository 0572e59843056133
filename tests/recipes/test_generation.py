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


IMAGE_RUNS = [
    *[("flow", "plain"), ("flow", "separation"), ("gan", "mode seeking")],
    *[("vae", arm) for arm in ("plain", "separation", "paper", "dispersive", "beta")],
]


@pytest.mark.parametrize(("kind", "arm"), IMAGE_RUNS)
def test_a_run_on_images(study, kind, arm):
    torch.manual_seed(0)
    data = study["image_data"].Images(*(torch.rand(20, 1, 8, 8), torch.arange(20) % 10) * 2)
    classifier = study["image_data"].Classifier(1).eval()
    found = study["image_runs"].train(data, classifier, kind, arm, 0.1, 0, steps=5)
    assert found["frechet"] > 0 and found["memorised"] <= 1 and len(found.get("curve", [])) == 5 * (arm == "plain")
    assert ("active_units" in found) == ("reconstruction" in found) == (kind == "vae")
    images = study["image_runs"].unpacked(found["shown"], found["shape"])
    assert images.shape == (12, 1, 8, 8)
    packed = study["image_runs"].packed(torch.from_numpy(images.copy()).float() / 255)
    assert packed == found["shown"]


@pytest.fixture
def vae(study, tmp_path):
    """(what makes the trainer of a small VAE of an arm, at weight 0.3; its images)."""
    torch.manual_seed(0)
    data = study["image_data"].Images(*(2 * torch.rand(20, 1, 8, 8) - 1, torch.arange(20) % 10) * 2)

    def make(arm, **over):
        torch.manual_seed(0)
        return study["image_runs"].make_trainer(data, "vae", arm, 0.3, 0, str(tmp_path), hidden_sizes=[4, 6], **over)

    return make, data


def test_the_loss_of_a_vae_is_its_bound_a_pixel(vae):
    make, data = vae
    batch = {"pixel_values": data.train / 2 + 0.5}
    for arm, beta in (("plain", 1), ("dispersive", 1), ("beta", 0.3)):
        trainer = make(arm)
        torch.manual_seed(1)
        loss = trainer.compute_loss(trainer.model.train(), batch)
        torch.manual_seed(1)
        outputs = trainer.model(**batch, output_hidden_states=True)
        expected = (outputs.reconstruction_loss + beta * outputs.kl) / 64
        if arm == "dispersive":  # on the state that the energy reads: the encoder's last
            expected = expected + 0.3 * dispersive_loss(outputs.hidden_states[-1].flatten(1), 0.5)
        assert loss.item() == pytest.approx(expected.item(), rel=1e-5)


def test_the_energy_of_a_vae_reads_the_cells_of_the_encoders_last_state(vae):
    make, data = vae
    model = make("paper").model
    assert model.atom_config.tokens == "all" and model.atom_config.hidden_size == 6
    assert model.atom_importance(pixel_values=data.train / 2 + 0.5).shape == (20, 4)


def test_samples_of_a_vae_are_decoded_from_the_same_noise(study, vae):
    make, _ = vae
    runs, found = study["image_runs"], make("separation")
    state = torch.get_rng_state()
    images = runs.draw(found, 5, 3)
    assert torch.equal(state, torch.get_rng_state())  # a curve does not change the run that it is of
    latents = torch.randn(5, runs.LATENTS, generator=torch.Generator().manual_seed(3))
    assert torch.equal(images, found.model.decode(latents)) and images.min() > 0 and images.max() < 1


def test_measures_of_latents(study, vae):
    make, data = vae
    trainer = make("plain", latent_size=3)
    with torch.no_grad():  # the first latent is not used, the second and third hold the same
        trainer.model.posterior.weight[[0, 2]] = 0 * trainer.model.posterior.weight[[0, 1]]
        trainer.model.posterior.weight[1] *= 100
        trainer.model.posterior.weight[2] = trainer.model.posterior.weight[1]
        found = study["image_runs"].measure_latents(trainer.model, data.test)
        means = trainer.model.encode(data.test / 2 + 0.5)[0]
        errors = [
            (pixel - 0.5 - seen / 2) ** 2
            for pixel, seen in zip(
                trainer.model.decode(means).flatten().tolist(), data.test.flatten().tolist(), strict=True
            )
        ]
    assert found["active_units"] == 2 and found["effective_rank"] == pytest.approx(1, abs=1e-3)
    assert found["reconstruction"] == pytest.approx(sum(errors) / len(errors), rel=1e-5)


def test_each_data_set_has_its_kinds_and_every_arm_as_many_tries(study):
    names = {name: [one.name for one in study["images"].settings(name)] for name in study["images"].KINDS}
    assert names["digits"] == ["digits, flow", "digits, gan", "digits 300, flow", "digits 300, gan"]
    assert names["fashion"] == ["fashion, vae", "fashion 300, vae"]
    for name in names:
        for setting in study["images"].settings(name):
            assert {len(setting.tried(arm)) for arm in setting.arms[1:]} == {3}
    vae = study["images"].settings("fashion")[0]
    assert vae.tried("beta") == (0.3, 2, 4) and vae.tried("dispersive") == study["images"].WEIGHTS
    assert vae.runs == 4 * 3 + 5 * 5


@pytest.fixture
def clothes(study, tmp_path):
    """The rows of a study of VAEs whose runs are numbers: beta is best at 2, and has fewer active units and a worse error."""
    report = study["image_report"]

    def run(setting, arm, weight, seed):
        row = {measure: 0.5 + 0.01 * (-1) ** seed for measure in {**report.NAMES, **report.LATENT_NAMES}}
        shift = 0.001 * (seed % 2)  # without a spread there is nothing to test by
        if arm == "beta":
            row |= {"active_units": 8 - weight + shift, "reconstruction": weight + shift, "frechet": abs(weight - 2)}
        row |= {"seconds": 1.0, "images": 300 if " 300," in setting.name else 1200}
        row |= {"curve": [{"step": step, "frechet": 1 / step, "coverage": 0.5} for step in (1, 2, 3, 4, 5)]}
        if seed == 0:
            pictures = study["image_runs"].packed(torch.zeros(12, 1, 4, 4))
            row |= {"shown": pictures, "nearest": pictures, "shape": [1, 4, 4]}
        return {"score": -row["frechet"], **row}

    settings = study["images"].settings("fashion")
    return study["arms"].run_missing(tmp_path / "rows.jsonl", settings, run), settings


def test_the_page_of_vaes(study, clothes, tmp_path):
    rows, settings = clothes
    page = study["image_report"].report("fashion", rows, settings)
    assert "Fashion-MNIST. 1,200 images to train on." in page and "UNet" not in page and "Not all runs" not in page
    assert "## VAE\n" in page and "## VAE, 300 images\n" in page
    _, _, *lines = page.split("## VAE\n\n")[1].split("\n\n")[0].splitlines()
    header = page.split("## VAE\n\n")[1].splitlines()[0]
    assert [cell.strip() for cell in header.split("|")[-5:-1]] == [
        *("active units", "effective rank", "reconstruction error", "time")
    ]
    assert len(lines) == 5 and lines[-1].startswith("| beta | 2 | 5 |")
    assert "fashion, vae | beta | " in page and "**0.000**" in page  # the chosen beta, of those that were tried
    worse = page[page.index("Worse than plain") :].splitlines()[0]
    assert "beta in reconstruction error (fashion, vae:" in worse and "active units" not in worse
    assert "active units (" not in page[: page.index("Worse than plain")]
    for picture in study["image_report"].pictures("fashion", rows, settings, tmp_path):
        assert picture.is_file()


def test_pages_of_other_generators_have_no_latents(study, clothes):
    rows, _ = clothes
    latents = study["image_report"].LATENT_NAMES
    other = [
        {key: value for key, value in row.items() if key not in (*latents, "images")}
        | {"setting": row["setting"].replace("fashion", "digits").replace("vae", kind)}
        for row in rows
        if row["arm"] != "beta"
        for kind in ("flow", "gan")
    ]
    page = study["image_report"].report("digits", other, study["images"].settings("digits"))
    assert "## Flow\n" in page and "## GAN\n" in page and "mode seeking" in page
    assert not any(name in page for name in latents.values())
