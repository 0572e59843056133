"""`Manipulator` as a Transformers model: what an edit is, saving and loading without data or classifier, its card."""

import json

import pytest
import torch
from huggingface_hub import ModelCard
from torch.nn import functional as F
from transformers import AutoModel

from atom_hf import AtomError
from atom_hf.tasks import Manipulator, ManipulatorConfig
from atom_hf.tasks.manipulation.card import manipulator_card
from helpers.card_rules import metadata_errors
from helpers.manipulators import digit_rows, digits_manipulator
from helpers.models import tiny

VECTORS = {"put": "residual", "data_sizes": [4], "hidden_sizes": [8], "classifier": {"architecture": "linear"}}


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved")
    digits_manipulator().save_pretrained(folder)
    return folder


def test_an_edit_is_put_of_a_point_between_classes():
    manipulator, (_, _, test) = digits_manipulator(), digit_rows()
    values = test.floats[:5]
    own = manipulator.classify(values).argmax(1)
    target = 0.25 * F.one_hot(torch.full((5,), 3), 10).float() + 0.75 * F.one_hot(own, 10).float()
    with torch.no_grad():
        torch.testing.assert_close(manipulator.edit(values, "three", 0.25), manipulator.put(values, target))
        assert torch.equal(manipulator.edit(values, 3), manipulator.edit(values, torch.full((5,), 3)))
    assert not manipulator.train().get.training
    manipulator.eval()


def test_vectors_are_shifted_and_scaled_inside():
    torch.manual_seed(0)
    manipulator = Manipulator(ManipulatorConfig(**VECTORS, id2label={0: "a", 1: "b"})).eval()
    torch.nn.init.normal_(manipulator.put.layers[-1].weight)
    manipulator.get.center.copy_(torch.tensor([1.0, 2, 3, 4]))
    manipulator.get.scale.fill_(5)
    values = torch.randn(3, 4)
    inner = (values - manipulator.get.center) / 5
    with torch.no_grad():
        expected = 5 * manipulator.put(inner, torch.eye(2)[[1, 1, 1]]) + manipulator.get.center
        torch.testing.assert_close(manipulator.edit(values, "b"), expected)
        torch.testing.assert_close(manipulator.classify(values), manipulator.get.module(values))


def test_it_is_one_file_and_loads_by_itself(saved):
    assert {path.name for path in saved.iterdir()} == {"config.json", "model.safetensors", "README.md"}
    values = digit_rows()[2].floats[:5]
    for loaded in (Manipulator.from_pretrained(saved), AutoModel.from_pretrained(saved)):
        assert torch.equal(loaded.eval().edit(values, "two"), digits_manipulator().edit(values, "two"))
        assert torch.equal(loaded.classify(values), digits_manipulator().classify(values))
        assert not any(parameter.requires_grad for parameter in loaded.get.parameters())
    config = json.loads((saved / "config.json").read_text(encoding="utf-8"))
    assert config["weights"] == {"putget": 1.0, "getput": 10.0, "undo": 10.0, "law": 0.3}
    assert config["classifier"] == {"architecture": "mlp(32)"} and config["noise_std"] == pytest.approx(0.3)


def test_it_holds_a_classifier_of_transformers(tmp_path):
    model = tiny("vit").eval()
    sizes = [model.config.num_channels, model.config.image_size, model.config.image_size]
    form = {"config": {**model.config.to_diff_dict(), "model_type": "vit"}, "size": None, "mean": [0.5], "std": [0.25]}
    labels = dict(enumerate("abcdefghij"[: model.config.num_labels]))
    config = ManipulatorConfig(data_sizes=sizes, hidden_sizes=[4, 4], classifier=form, id2label=labels)
    manipulator = Manipulator(config).eval()
    manipulator.get.model.load_state_dict(model.state_dict())
    manipulator.save_pretrained(tmp_path)
    loaded, pixels = Manipulator.from_pretrained(tmp_path).eval(), torch.rand(2, *sizes)
    with torch.no_grad():
        torch.testing.assert_close(loaded.classify(pixels), model(pixel_values=(pixels - 0.5) / 0.25).logits)
    assert torch.equal(loaded.edit(pixels, "b"), manipulator.edit(pixels, "b"))


def test_its_card_tells_what_is_known_and_what_is_limited(saved):
    card = ModelCard.load(saved / "README.md")
    assert metadata_errors(str(card)) == []
    text = card.text
    assert "made from the classifier `classifiers/digits` on digits" in text and "standard deviation 0.3" in text
    assert "putget: get(put(x, a)) == a" in text and "## Results" not in text
    assert (
        "Its classes are zero, one, two" in text
        and 'pipeline("attribute-manipulation", model="path/to/this/folder")' in text
    )
    config = ManipulatorConfig.from_pretrained(saved)
    config.evaluation = {"judge": 0.9876, "gap": 0.0123, "rows": 40, "edits": 360, "judge_name": "svm"}
    text = manipulator_card(config, "edits.png", "org/editor").text
    assert "| edits that a judge reads as their class | 0.988 |" in text and "![" in text and "(edits.png)" in text
    assert "On 40 evaluation rows, 360 edits" in text and 'model="org/editor"' in text
    config.dataset = "evil](https://evil.test) | `"
    assert "# ``evil](https://evil.test) | ` manipulator``\n" in manipulator_card(config).text  # as code


def test_a_card_of_ones_own_is_kept(tmp_path):
    (tmp_path / "README.md").write_text("# Mine\n", encoding="utf-8")
    digits_manipulator().save_pretrained(tmp_path)
    assert (tmp_path / "README.md").read_text(encoding="utf-8") == "# Mine\n"


@pytest.mark.parametrize(
    ("act", "says"),
    [
        (lambda m: m.edit(torch.zeros(1, 1, 8, 8), "ten"), "to: there is no class 'ten'; there are zero, one"),
        (lambda m: m.edit(torch.zeros(1, 1, 8, 8), 10), "to: there is no class 10"),
        (lambda m: m.edit(torch.zeros(1, 1, 8, 8), 1, 1.5), "strength must be from 0 to 1, got 1.5"),
        (
            lambda m: m.edit(torch.zeros(1, 3, 8, 8), 1),
            r"values must be floats \[B, 1, 8, 8\], got torch.float32 \[1, 3, 8, 8\]",
        ),
        (lambda m: m.edit(torch.zeros(1, 1, 8, 8, dtype=torch.uint8), 1), "got torch.uint8"),
        (lambda m: ManipulatorConfig(put="nosuch"), "put must be one of steer, residual, got 'nosuch'"),
        (lambda m: ManipulatorConfig(hidden_sizes=[0]), "hidden_sizes must be one or more widths"),
        (lambda m: ManipulatorConfig(data_sizes=[3]), r"pixels\(3\) has 1 size"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(act, says):
    with pytest.raises(AtomError, match=says):
        act(digits_manipulator())


PUSH = """
from atom_hf.tasks import Manipulator
model = Manipulator.from_pretrained("saved")
model.push_to_hub("org/editor")
loaded = Manipulator.from_pretrained("org/editor")
pairs = zip(model.state_dict().values(), loaded.state_dict().values(), strict=True)
found = [loaded.config.labels[7], all(torch.equal(a, b) for a, b in pairs)]
"""


@pytest.mark.slow
def test_it_is_pushed_as_one_commit_with_its_card(hub, tmp_path):
    from helpers.hub_client import client, succeeded
    from helpers.hub_server import TOKEN

    digits_manipulator().save_pretrained(tmp_path / "saved")
    before = len(hub.log)
    answers = client(hub, tmp_path, {"push": {"python": PUSH, "environment": {"HF_TOKEN": TOKEN}}})
    assert succeeded(answers["push"])["found"] == ["seven", True]
    assert len(hub.log) == before + 1 and hub.log[-1][0].endswith("org/editor")
    card = hub.repositories["models", "org/editor"]["main"]["README.md"].decode()
    assert 'model="org/editor"' in card
