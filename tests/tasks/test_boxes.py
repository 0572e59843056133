"""Boxes that are bound to modules, to networks by name, and to models of Transformers."""

import pytest
import torch
import transformers
from torch import nn

from atom_hf import AtomError
from atom_hf.finetune.pretrained import find_model
from atom_hf.tasks import TaskModel, read_task
from atom_hf.tasks.boxes import ImageModel, bind, preparation
from helpers.models import batch_for, make_tokenizer, tiny
from helpers.tasks import fit

VOCABULARY = len(make_tokenizer())
TEXT = f"type text = tokens({VOCABULARY}), sense = class(2), code = vector(32)\ndata T : text, sense\n"


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Folders of tiny models: a classifier of images, one of texts, and an encoder without a pooler."""
    folder = tmp_path_factory.mktemp("models")
    tiny("vit").save_pretrained(folder / "vit")
    processor = transformers.ViTImageProcessor(size={"height": 8, "width": 8}, image_mean=[0.5], image_std=[0.25])
    processor.save_pretrained(folder / "vit")
    tiny("bert").save_pretrained(folder / "bert")
    tiny("distilbert").save_pretrained(folder / "distilbert")
    return folder


def image_task(model, size=8, classes=10):
    types = f"type image = pixels(1, {size}, {size}), label = class({classes})\ndata D : image, label\n"
    boxes = f'fixed get : image -> label = "{model}"\nlearner f : image -> label\n'
    return read_task(f"{types}{boxes}for x, y in D:\n    hint: f(x) == get(x)\n")


def test_a_fixed_classifier_of_images_is_named_in_the_task(folders):
    model = TaskModel(image_task(folders / "vit"), {"f": "linear"})
    pixels = torch.rand(3, 1, 8, 8, generator=torch.Generator().manual_seed(0)).requires_grad_()
    (wire,) = model.call("get", [pixels], frozen=False)
    plain = transformers.AutoModelForImageClassification.from_pretrained(folders / "vit").eval()
    assert torch.equal(wire.logits, plain(pixel_values=(pixels - 0.5) / 0.25).logits)
    wire.logits.sum().backward()
    assert pixels.grad.abs().sum() > 0 and all(p.grad is None for p in model.fixed.parameters())
    model(x=pixels.detach(), y=torch.tensor([0, 1, 2])).loss.backward()


def test_images_are_resized_and_given_their_channels_with_a_gradient():
    vit = tiny("vit", num_channels=3)
    processor = transformers.ViTImageProcessor(
        size={"height": 8, "width": 8}, image_mean=[0.5] * 3, image_std=[0.5] * 3
    )
    box, pixels = ImageModel(vit.eval(), **preparation(processor)), torch.rand(2, 1, 16, 12).requires_grad_()
    box(pixels).logits.sum().backward()
    assert pixels.grad.shape == pixels.shape and pixels.grad.abs().sum() > 0
    assert ImageModel(vit).size is None and ImageModel(vit).std == (1.0,)


def test_a_built_in_model_is_a_box_by_its_name():
    boxes = bind(image_task("vit-fashion-mnist", 28), {"f": "linear"})
    assert boxes["get"].model.config.num_labels == 10 and boxes["get"].size == (28, 28)
    assert not boxes["get"].training and boxes["f"].training


def test_texts_go_to_their_classifier_and_to_an_embedding(folders):
    text = f"{TEXT}fixed get : text -> sense\nfixed embed, mean : text -> code\nlearner f : code -> sense\n"
    task = read_task(f"{text}for t, s in T:\n    fit: f(embed(t)) == s\n    hint: f(mean(t)) == get(t)\n")
    names = {"get": "bert", "embed": "bert", "mean": "distilbert"}
    model = TaskModel(task, {**{box: str(folders / name) for box, name in names.items()}, "f": "linear"})
    batch = batch_for("bert", 4)
    labels = torch.tensor([0, 1, 0, 1])
    atoms = model(labels=labels, **batch).atoms
    auto = transformers.AutoModel.from_pretrained(folders / "distilbert").eval()
    states = auto(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).last_hidden_state
    mask = batch["attention_mask"].unsqueeze(-1)
    vectors = (states * mask).sum(1) / mask.sum(1)
    assert not mask.all() and torch.allclose(model.call("mean", [wire(batch)], False)[0], vectors)
    logits = (
        transformers.AutoModelForSequenceClassification.from_pretrained(folders / "bert")
        .eval()(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"])
        .logits
    )
    expected = torch.nn.functional.kl_div(
        model.boxes["f"](vectors).log_softmax(-1), logits.softmax(-1), reduction="batchmean"
    )
    assert atoms["hint"].item() == pytest.approx(expected.item(), rel=1e-5)


def wire(batch):
    from atom_hf.tasks.wires import Tokens

    return Tokens(batch["input_ids"], batch["attention_mask"])


def test_a_model_of_transformers_is_a_learner_too(folders):
    task = image_task(folders / "vit")
    model = TaskModel(task, {"f": str(folders / "vit")})
    model(pixel_values=torch.rand(2, 1, 8, 8), labels=torch.tensor([0, 1])).loss.backward()
    assert all(p.requires_grad for p in model.boxes["f"].parameters())


REFUSED = {
    "no/model": "fixed get: 'no/model': no such model that can be read",
    "bert": r"fixed get: .*bert cannot be loaded: |fixed get: .*bert has 2 classes, and label is class\(10\)",
    "mlp(4)": "fixed get: mlp.4. would be a new network, which is not trained; give a model",
}


@pytest.mark.parametrize(("given", "says"), REFUSED.items())
def test_a_model_that_cannot_be_a_box_is_refused(folders, given, says, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    source = folders / given if (folders / given).exists() else given
    with pytest.raises(AtomError, match=says):
        bind(image_task("ignored"), {"f": "linear", "get": str(source)})


def test_wires_that_no_model_takes_are_refused(folders):
    with pytest.raises(AtomError, match=r"fixed get: .*vit has 10 classes, and label is class\(7\)"):
        bind(image_task(folders / "vit", classes=7), {"f": "linear"})
    says = {
        "get": "fixed get: a model of Transformers takes one image or text and gives one wire; it cannot be image, label",
        "say": r"fixed say: a model of Transformers gives a class or a vector, not pixels\(1, 8, 8\)",
    }
    boxes = {"get": ("image, label -> image", "get(x, y)"), "say": ("image -> image", "say(x)")}
    for name, (signature, call) in boxes.items():
        more = f"fixed {name} : {signature} = some/model\nlearner put : image, label -> image"
        task = read_task(fit(f"fit: f(x) == y\nput: put(x, y) == {call}", more))
        with pytest.raises(AtomError, match=says[name]):
            bind(task, {"f": "linear", "put": "mlp"})


def test_what_is_bound_must_be_there_and_fit():
    more = "learner g : label -> image\nfunction own2 : image -> image"
    task = read_task(fit("fit: f(x) == y\nback: g(f(own2(x))) == x", more))
    f, g = nn.Sequential(nn.Flatten(), nn.Linear(64, 10)), nn.Linear(10, 64)
    good = {"f": f, "g": g, "own2": nn.Identity()}
    assert set(bind(task, good)) == {"draw", "hide", "view", "f", "g", "own2"}
    bind(task, {**good, "own2": lambda x: x})
    frozen = nn.Linear(10, 64).requires_grad_(False)
    for change, says in (
        ({"h": f}, "boxes: h is no box of the task; there are draw, hide, view, own2, f, g|boxes: h is no box"),
        (
            {"g": None},
            "learner g: no module is bound to it; give --bind g=MODEL, a folder or Hub id, or in Python boxes=",
        ),
        ({"g": 3}, "learner g: it must be a torch.nn.Module or a text, got a int"),
        ({"own2": None}, "function own2: it is no built-in one; give it as boxes={'own2': ...}, got nothing"),
        ({"own2": nn.Linear(8, 8)}, "function own2: its module has parameters; declare it a learner, or fixed"),
        (
            {"g": nn.Sequential(nn.Linear(10, 64), f)},
            "boxes: (f and g|g and f) share parameters, and each learner has its own",
        ),
        ({"g": frozen}, "boxes: g is a learner, and its module has no parameter that can be trained; declare it fixed"),
    ):
        with pytest.raises(AtomError, match=says):
            bind(task, {**good, **change})
    fixed = read_task(fit("fit: f(x) == y\nhint: f(hide(x)) == get(x)", "fixed get : image -> label"))
    with pytest.raises(
        AtomError, match="boxes: get is fixed, and shares parameters with the learner f; copy the module"
    ):
        bind(fixed, {"f": f, "get": f})
    let = read_task(fit("fit: f2(x) == y", "let f2(x) = f(x)"))
    with pytest.raises(AtomError, match="boxes: f2 is a let, made of other boxes; there are draw, hide, view, f"):
        bind(let, {"f": f, "f2": g})


def test_find_model_is_the_same_folder():
    assert find_model("vit-fashion-mnist").endswith("vit_fashion_mnist")
