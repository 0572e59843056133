"""Classifiers that an editor is made of: loaded, described, made again, and which are refused."""

import pytest
import torch
from transformers import AutoConfig
from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

from atom_hf import AtomError
from atom_hf.tasks import TaskModel, patterns
from atom_hf.tasks.kinds import Kind
from atom_hf.tasks.manipulation.classifier import Classifier, load_classifier, make_classifier, ordered_labels
from atom_hf.tasks.manipulation.manipulator import logits_of
from atom_hf.tasks.saved_boxes import bindings_text
from helpers.manipulators import DIGITS, NAMES, digits_classifier
from helpers.models import tiny


@pytest.fixture(scope="module")
def vit(tmp_path_factory):
    folder, model = tmp_path_factory.mktemp("vit"), tiny("vit")
    model.save_pretrained(folder)
    size = {"height": model.config.image_size, "width": model.config.image_size}
    channels = model.config.num_channels
    ViTImageProcessorPil(size=size, image_mean=[0.3] * channels, image_std=[0.4] * channels).save_pretrained(folder)
    return str(folder), model.eval()


def test_a_model_of_transformers_is_described_and_made_again(vit):
    folder, model = vit
    labels = [f"LABEL_{number}" for number in range(model.config.num_labels)]
    kind = Kind("pixels", (model.config.num_channels, model.config.image_size, model.config.image_size))
    found = load_classifier(folder, kind, labels)
    pixels = torch.rand(3, *kind.sizes)
    with torch.no_grad():
        expected = model(pixel_values=(pixels - 0.3) / 0.4).logits
        torch.testing.assert_close(logits_of(found.module, pixels), expected)
        again = make_classifier(found.form, kind, len(labels))
        again.load_state_dict(found.module.state_dict())
        torch.testing.assert_close(logits_of(again.eval(), pixels), expected)
        # Of another size it is resized, with a gradient.
        other = torch.rand(1, kind.sizes[0], 9, 9, requires_grad=True)
    logits_of(found.module, other).sum().backward()
    assert other.grad.abs().sum() > 0


def test_a_learner_of_a_task_is_a_classifier(tmp_path):
    model = TaskModel(patterns.supervised(), {"f": "mlp(8)"})
    model.save(tmp_path)
    (tmp_path / "bindings.json").write_text(bindings_text({}, {"f": "mlp(8)"}), encoding="utf-8")
    found = load_classifier(f"{tmp_path}:f", DIGITS, NAMES)
    pixels = torch.rand(2, 1, 8, 8)
    assert found.form == {"architecture": "mlp(8)"} and torch.equal(found.module(pixels), model.boxes["f"](pixels))


def test_the_hash_is_that_of_the_weights():
    one = digits_classifier()
    other = Classifier(make_classifier(one.form, DIGITS, 10), one.form, NAMES)
    other.module.load_state_dict(one.module.state_dict())
    assert len(one.weights_hash) == 64 and other.weights_hash == one.weights_hash
    next(other.module.parameters()).data.view(-1)[0] += 1e-3
    assert other.weights_hash != one.weights_hash


def config(labels=3, **more):
    names = [f"LABEL_{number}" for number in range(labels)] if isinstance(labels, int) else labels
    return AutoConfig.for_model(
        "vit", id2label=dict(enumerate(names)), label2id={n: i for i, n in enumerate(names)}, **more
    )


@pytest.mark.parametrize(
    ("given", "labels", "says"),
    [
        (
            config(1, problem_type="regression"),
            ["a"],
            r"gives numbers \(regression\); give a classifier of one class each",
        ),
        (config(problem_type="multi_label_classification"), list("abc"), "gives several classes at once"),
        (config(["a"]), ["a"], "has one class, and there is nothing to turn it into"),
        (
            config(3),
            list("ab"),
            r"has 3 classes .*, and --dataset has 2 \(a, b\); give data of the classifier's classes",
        ),
        (config(list("abc")), list("abd"), r"has 3 classes \(a, b, c\), and --dataset has 3 \(a, b, d\)"),
    ],
)
def test_classifiers_that_do_not_fit_are_refused(given, labels, says):
    with pytest.raises(AtomError, match=says):
        ordered_labels(given, labels, "--classifier 'x'")


def test_classes_are_in_the_order_of_the_classifier():
    assert ordered_labels(config(3), list("bca"), "") == list("bca")  # it has no names
    assert ordered_labels(config(list("abc")), list("bca"), "") == list("abc")
    shirts = ordered_labels(config(["T-shirt/top", "Ankle boot"]), ["ankle_boot", "T - shirt / top"], "")
    assert shirts == ["T - shirt / top", "ankle_boot"]


@pytest.mark.parametrize(
    ("source", "kind", "says"),
    [
        ("mlp(8)", DIGITS, r"--classifier 'mlp\(8\)' would be a new network, which knows nothing"),
        ("./nosuch", DIGITS, r"--classifier '\./nosuch': no such model that can be read"),
        ("vit-fashion-mnist", DIGITS, r"has 10 classes \(T-shirt/top"),
        ("vit-fashion-mnist", Kind("vector", (3,)), "of vectors, give a learner of a trained task"),
    ],
)
def test_sources_that_are_no_classifiers_are_refused(source, kind, says):
    with pytest.raises(AtomError, match=says):
        load_classifier(source, kind, NAMES)


def test_a_form_that_describes_nothing_is_refused():
    with pytest.raises(AtomError, match="does not say what its classifier is"):
        make_classifier({}, DIGITS, 10)
    with pytest.raises(AtomError, match="num_hidden_layers is 1000000"):
        make_classifier({"config": {"model_type": "vit", "num_hidden_layers": 10**6}}, DIGITS, 10)
    with pytest.raises(AtomError, match="the classifier of the manipulator cannot be made: "):
        make_classifier({"config": {"model_type": "nosuch"}}, DIGITS, 10)
