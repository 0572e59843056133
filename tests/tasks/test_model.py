"""A task compiled: its gradients against loops that switch requires_grad, its noise, and what it refuses."""

import math

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from atom_hf import AtomError
from atom_hf.errors import DivergedError
from atom_hf.tasks import TaskModel, read_task
from atom_hf.tasks.sources import another_draw
from helpers.exactness import compare
from helpers.task_models import GAME, game, game_batch, game_boxes, naive_gradients
from helpers.tasks import fit


def linear(inputs=64, outputs=10):
    return nn.Sequential(nn.Flatten(), nn.Linear(inputs, outputs))


def model_of(atoms, more="", **boxes):
    torch.manual_seed(0)
    return TaskModel(read_task(fit(atoms, more)), {"f": linear(), **boxes})


def images(rows=6, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return {"x": torch.rand(rows, 1, 8, 8, generator=generator), "y": torch.randint(10, (rows,), generator=generator)}


@pytest.mark.exactness
def test_each_learner_gets_the_gradient_of_its_own_atoms():
    model, batch = game().train(), game_batch()
    loss, atoms = model(**batch)
    loss.backward()
    found = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    expected, losses = naive_gradients(game_boxes(), batch)
    compare(
        "task: three learners and a fixed box, dropout", "loops that switch requires_grad", found, expected, bound=1e-6
    )
    assert list(atoms) == list(model.spec.atoms) and [v.item() for v in atoms.values()] == pytest.approx(
        losses, rel=1e-5
    )
    weights = [atom.weight for atom in model.spec.atoms.values()]
    assert loss.item() == pytest.approx(sum(w * v for w, v in zip(weights, losses, strict=True)), rel=1e-5)
    assert not any(value.requires_grad for value in atoms.values())


def test_terms_in_common_run_once():
    calls = []
    f, g = linear(), linear(10, 64)
    f.register_forward_hook(lambda *_: calls.append("f"))
    g.register_forward_hook(lambda *_: calls.append("g"))
    atoms = "fit: f(x) == y\nback: g(f(x)) == x\nagain: g(f(x)) == x by l1\nonly: g(f(x)) == x trains g\nhid: f(hide(x)) == y"
    model = model_of(atoms, "learner g : label -> image", f=f, g=g)
    model(**images())
    # f(x) trained, once; f(x) frozen, once; f(hide(x)). g of the first and of the second.
    assert sorted(calls) == ["f", "f", "f", "g", "g"]


def test_a_learner_that_is_not_trained_still_counts_in_its_batch_norm():
    norm = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(64), nn.Linear(64, 10))
    model = model_of(
        "fit: f(x) == y\nback: g(f(hide(x))) == x trains g", "learner g : label -> image", f=norm, g=linear(10, 64)
    )
    model(**images())
    assert norm[1].num_batches_tracked == 2


def test_fixed_boxes_stay_frozen_and_in_evaluation():
    model = game().train()
    get = model.fixed["get"]
    assert not get.training and not any(p.requires_grad for p in get.parameters())
    model.eval().train()
    assert not get.training and model.boxes["put"].training
    model(**game_batch()).loss.backward()
    assert all(p.grad is None for p in get.parameters())
    assert not any(name.startswith("fixed") for name in model.learned_state())


def test_outputs_are_read_in_every_way():
    outputs = model_of("fit: f(x) == y")(**images())
    loss, atoms = outputs
    assert outputs.loss is loss is outputs["loss"] is outputs[0] and outputs["atoms"] is atoms is outputs[1]


def test_columns_go_by_place_by_variable_and_by_their_name_in_transformers():
    model, batch = model_of("fit: f(x) == y").eval(), images()
    x, y = batch["x"], batch["y"]
    losses = [
        model(**given).loss
        for given in (
            batch,
            {"D.1": x, "D.2": y},
            {"pixel_values": x, "labels": y, "other": 3},
            {"D.1": x.flatten(1), "y": y},
        )
    ]
    assert all(torch.equal(losses[0], loss) for loss in losses)
    unused = model_of("one: minimize entropy(f(x))")
    unused(x=x)
    for given, says in (
        ({"x": x}, r"D\.2 \(label\): the batch holds x; give it as D\.2 or y or labels"),
        ({"x": x, "y": y[:3]}, "all columns of a batch have the same number of rows; D.1 has 6, D.2 has 3"),
        (
            {"x": x[:, :, :4], "y": y},
            r"D\.1 \(image\): gives \[6, 1, 4, 8\], and pixels\(1, 8, 8\) is \[rows, 1, 8, 8\]",
        ),
        ({"x": x, "y": y + 5}, r"D\.2 \(label\): classes of class\(10\) are 0 to 9, got"),
        ({"x": x[:0], "y": y[:0]}, "the batch has no rows"),
    ):
        with pytest.raises(AtomError, match=says):
            model(**given)


def test_noise_is_drawn_anew_for_each_atom_and_shared_within_it():
    more = "learner g : code -> image\nfunction code2 : code -> code = jitter(0)"
    model = model_of(
        "fit: f(x) == y\none: g(n) == g(n)\ntwo: f(g(n)) == f(x)\nsame: g(n) == g(code2(n))", more, g=linear(4 * 4, 64)
    )
    atoms = model(**images()).atoms
    assert atoms["one"] == 0 and atoms["same"] == 0
    seen = []
    model.boxes["g"].register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    model(**images())
    assert len({tuple(n.flatten().tolist()) for n in seen}) == 3  # of the atoms one, two, and same


def test_noise_in_evaluation_depends_on_the_batch_alone():
    model = game().eval()
    x, y = (game_batch()[name] for name in ("x", "y"))
    torch.manual_seed(1)
    state = torch.get_rng_state()
    first = model(x=x, y=y).loss
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(2)
    assert torch.equal(first, model(x=x, y=y).loss) and not torch.equal(first, model(x=x.flip(0), y=y.flip(0)).loss)
    model.train()
    assert not torch.equal(model(x=x, y=y).loss, model(x=x, y=y).loss)


def test_a_marginal_has_the_classes_of_training():
    model = game().train()
    batch = {**game_batch(64), "y": torch.tensor([3] * 48 + [7] * 16)}
    del batch["a"]
    seen = []
    model.boxes["put"].register_forward_pre_hook(lambda _, given: seen.append(given[1]))
    for _ in range(5):
        model(**batch)
    assert model.noise.seen_A.tolist() == [0, 0, 0, 5 * 48, 0, 0, 0, 5 * 16, 0, 0]
    drawn = torch.cat([given.argmax(1) for given in seen[::3] if given.max() == 1])
    assert set(drawn.tolist()) == {3, 7} and 0.6 < (drawn == 3).float().mean() < 0.9
    # Without training, they are those of the batch.
    fresh, seen[:] = game().eval(), []
    fresh.boxes["put"].register_forward_pre_hook(lambda _, given: seen.append(given[1]))
    fresh(**batch)
    assert set(seen[0].argmax(1).tolist()) == {3, 7}


def test_two_draws_of_data_are_independent_rows():
    text = (
        fit("fit: f(x) == y\ndiffer: g(x) == u")
        .replace("n in N", "u, v in D")
        .replace("learner f", "learner g : image -> image\nlearner f")
    )
    model, batch = TaskModel(read_task(text), {"f": linear(), "g": nn.Identity()} | {"g": linear(64, 64)}), images(5)
    outer = {}
    model._bound["g"].register_forward_hook(lambda _, given, out: outer.update(x=given[0]))
    orders = []
    for seed in range(20):
        torch.manual_seed(seed)
        one, two = another_draw(5, 1, batch["x"]), another_draw(5, 2, batch["x"])
        assert (
            sorted(one.tolist()) == list(range(5))
            and not (one == torch.arange(5)).any()
            and not (two == torch.arange(5)).any()
        )
        orders.append(tuple(one.tolist()))
    assert len(set(orders)) > 5
    text = fit("fit: f(x) == y\none: g(u) == g(u)\ntwo: f(u) == v", "learner g : image -> code").replace(
        "n in N", "u, v in D"
    )
    model = TaskModel(read_task(text), {"f": linear(), "g": linear(64, 16)})
    atoms, seen = {}, []
    model.boxes["f"].register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    for seed in range(3):
        torch.manual_seed(seed)
        atoms = model(**batch).atoms
        x, u = seen[-2:]
        order = [next(i for i in range(5) if torch.equal(row, batch["x"][i])) for row in u]
        assert (
            torch.equal(x, batch["x"]) and sorted(order) == list(range(5)) and all(i != j for i, j in enumerate(order))
        )
        logits = model.boxes["f"](batch["x"])[order]
        assert atoms["two"].item() == pytest.approx(
            nn.functional.cross_entropy(logits, batch["y"][order]).item(), rel=1e-6
        )


def test_weights_of_zero_measure_and_train_nothing():
    model = model_of("fit: f(x) == y\nlook 0: f(hide(x)) == y")
    loss, atoms = model(**images())
    assert torch.equal(loss, atoms["fit"]) and atoms["look"] > 0


def test_several_wires_add_up():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(64, 74)

        def forward(self, x):
            return self.layer(x.flatten(1)).split([10, 64], 1)

    more = "learner g : image -> label, image"
    model = model_of("fit: f(x) == y\nboth: g(x) == (y, x)\nread: g(x).1 == y\nredo: g(x).2 == x", more, g=Two())
    atoms = model(**images()).atoms
    assert atoms["both"].item() == pytest.approx(atoms["read"].item() + atoms["redo"].item(), rel=1e-6)


def test_what_a_box_gives_must_fit_its_wire():
    with pytest.raises(AtomError, match=r"f: gives \[6, 7\], and class\(10\) is \[rows, 10\]"):
        model_of("fit: f(x) == y", f=linear(64, 7))(**images())
    with pytest.raises(AtomError, match="g gives image -> label, image, and its module gave a Tensor"):
        model_of("fit: f(x) == y\nboth: g(x) == (y, x)", "learner g : image -> label, image", g=linear())(**images())


def test_a_loss_that_is_no_number_names_its_atom():
    class Broken(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(64, 64)

        def forward(self, x):
            return self.layer(x.flatten(1)).mul(-1e30).exp().log() * math.nan

    model = model_of("fit: f(x) == y\nback: g(x) == x", "learner g : image -> image", g=Broken())
    with pytest.raises(DivergedError, match=r"^back is nan: the loss is not a finite number; lower the learning rate"):
        model(**images())


def test_what_is_learned_is_saved_and_loaded(tmp_path):
    model = game()
    model(**game_batch())
    model.save(tmp_path / "out")
    state = load_file(tmp_path / "out" / "model.safetensors")
    other = TaskModel(read_task(tmp_path / "out" / "task.task"), {**game_boxes(1), "get": model.fixed["get"]})
    assert other.spec == model.spec
    other.load_learned_state(state, "out")
    batch = {name: value for name, value in game_batch().items() if name in "xy"}
    assert torch.equal(model.eval()(**batch).loss, other.eval()(**batch).loss)
    with pytest.raises(AtomError, match=r"out holds another task or other modules: boxes\.f\.1\.bias differs"):
        model_of("fit: f(x) == y").load_learned_state({"boxes.gen.1.bias": torch.zeros(1)}, "out")


def test_a_task_that_cannot_be_trained_is_refused():
    with pytest.raises(AtomError, match="the task has no learner, so that nothing can be trained"):
        TaskModel(read_task(fit("fit: f(x) == y").replace("learner f", "fixed f")), {"f": linear()})
    text = GAME.replace("a in A", "").replace("n in N; ", "n in N").replace("(x, a)", "(x, y)").replace("== a", "== y")
    lines = [line for line in text.splitlines() if "seems" not in line]
    with pytest.raises(AtomError, match=r"putget, getput, round: put\(x, y\) = x solves all that put is in"):
        TaskModel(read_task("\n".join(lines)), game_boxes())
