"""The gradient balancer, in a graph with two branches from one hidden state: a task and an atom term."""

import gc
import json
import math
import weakref

import pytest
import torch

from atom_hf import AtomConfig, attach_atoms
from atom_hf.modeling.gradient_balancer import GradientBalancer
from helpers.models import batch_for, tiny


class Branches:
    """hidden = x w; the task reads it, and so does the atom term, through the balancer and a head of its own."""

    def __init__(self, seed=0, atom_size=1.0, dtype=torch.float64):
        generator = torch.Generator().manual_seed(seed)
        self.x, self.w, self.target, self.head = (
            torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)
            for shape in ((6, 4), (4, 5), (6, 5), (5, 5))
        )
        self.w.requires_grad_(), self.head.requires_grad_()
        self.atom_size = atom_size

    def losses(self, balancer=None):
        hidden = self.x @ self.w
        return hidden, *self.terms(hidden, hidden if balancer is None else balancer(hidden))

    def terms(self, hidden, seen):
        task = (hidden - self.target).square().sum()
        return task, self.atom_size * torch.tanh(seen @ self.head).sum()

    def gradients(self):
        """The gradients of the two parts at the hidden state, each taken alone."""
        hidden, task, atom = self.losses()
        return torch.autograd.grad(task, hidden, retain_graph=True)[0], torch.autograd.grad(atom, hidden)[0]

    def norms(self):
        return tuple(gradient.norm().item() for gradient in self.gradients())

    def backward(self, balancer):
        """One backward pass of both losses; the gradients of w and of the head."""
        self.w.grad = self.head.grad = None
        _, task, atom = self.losses(balancer)
        (task + atom).backward()
        return self.w.grad, self.head.grad

    def step(self, balancer):
        gradients = self.backward(balancer)
        balancer.update(alone)
        return gradients


def alone(sums):
    return sums


def passed(branches, balancer):
    """What of the atom term's gradient reaches the hidden state."""
    hidden, task, atom = branches.losses(balancer)
    whole = torch.autograd.grad(task + atom, hidden)[0]
    return whole - branches.gradients()[0]


def test_the_gate_changes_no_value():
    hidden = torch.randn(2, 3, requires_grad=True)
    seen = GradientBalancer(0.1)(hidden)
    assert torch.equal(seen, hidden) and seen is not hidden


def test_without_a_gradient_the_gate_steps_aside():
    balancer, hidden = GradientBalancer(0.1), torch.randn(2, 3)
    assert balancer(hidden) is hidden
    balancer.update(alone)
    assert balancer.state() == GradientBalancer(0.1).state()


def test_without_a_ratio_everything_passes():
    branches, balancer = Branches(atom_size=100.0), GradientBalancer(None)
    assert balancer.scale == 1
    expected = branches.backward(lambda hidden: hidden)
    for _ in range(3):
        for ours, plain in zip(branches.step(balancer), expected, strict=True):
            torch.testing.assert_close(ours, plain, rtol=1e-12, atol=1e-12)
        assert balancer.scale == 1


def test_before_anything_is_measured_nothing_passes_and_the_heads_learn():
    branches, balancer = Branches(), GradientBalancer(0.1)
    assert balancer.scale == 0
    assert passed(branches, balancer).abs().max() == 0
    _, head = branches.backward(balancer)
    _, plain = branches.backward(lambda hidden: hidden)
    assert torch.equal(head, plain) and head.abs().max() > 0


@pytest.mark.parametrize("ratio", [0.0, 0.01, 0.1, 1.0])
@pytest.mark.parametrize("atom_size", [0.3, 1.0, 1e4])
def test_the_ratio_holds_from_the_second_step_on(ratio, atom_size):
    branches, balancer = Branches(atom_size=atom_size), GradientBalancer(ratio)
    task, _ = branches.norms()
    _, plain_head = branches.backward(lambda hidden: hidden)
    branches.step(balancer)
    for _ in range(3):
        through = passed(branches, balancer)
        assert through.norm().item() == pytest.approx(ratio * task, rel=1e-5, abs=1e-12)
        # The direction stays, and the heads learn at full strength whatever the scale.
        torch.testing.assert_close(through, branches.gradients()[1] * balancer.scale)
        _, head = branches.step(balancer)
        torch.testing.assert_close(head, plain_head)


def test_a_tiny_atom_gradient_is_not_blown_up_without_end():
    branches, balancer = Branches(atom_size=1e-6), GradientBalancer(0.1)
    task, atom = branches.norms()
    assert 0.1 * task > 1e3 * atom
    branches.step(balancer)
    assert balancer.scale == GradientBalancer.LIMIT


def test_the_norms_are_those_of_each_part_alone():
    branches, balancer = Branches(atom_size=3.0), GradientBalancer(0.1)
    task, atom = branches.norms()
    for _ in range(3):  # closed at first, then partly open: the measured norms are the whole ones in both
        branches.step(balancer)
        assert balancer.state()["task_norm"] == pytest.approx(task, rel=1e-5)
        assert balancer.state()["atom_norm"] == pytest.approx(atom, rel=1e-5)


def test_norms_are_averaged_over_past_steps():
    balancer, batches = GradientBalancer(0.1), [Branches(seed=seed, atom_size=3.0) for seed in range(4)]
    task, atom = batches[0].norms()
    batches[0].step(balancer)
    for branches in batches[1:]:
        branches.step(balancer)
        new_task, new_atom = branches.norms()
        task, atom = 0.9 * task + 0.1 * new_task, 0.9 * atom + 0.1 * new_atom
        assert balancer.state()["task_norm"] == pytest.approx(task, rel=1e-5)
        assert balancer.state()["atom_norm"] == pytest.approx(atom, rel=1e-5)
        assert balancer.scale == pytest.approx(0.1 * task / atom, rel=1e-5)


@pytest.mark.parametrize("order", ["one after the other", "both forward passes first"])
def test_a_step_of_several_passes_counts_all_of_them(order):
    parts, balancer = [Branches(seed=1), Branches(seed=2)], GradientBalancer(0.1)
    balancer.load({"scale": 0.5, "task_norm": 1.0, "atom_norm": 1.0, "steps": 0})
    if order == "one after the other":
        for branches in parts:
            branches.backward(balancer)
    else:
        sum(sum(branches.losses(balancer)[1:]) for branches in parts).backward()
    balancer.update(alone)
    for name, norms in zip(("task_norm", "atom_norm"), zip(*(b.norms() for b in parts), strict=True), strict=True):
        assert balancer.state()[name] == pytest.approx(math.hypot(*norms), rel=1e-5)


def test_passes_whose_backward_passes_interleave_are_told_apart():
    parts, balancer = [Branches(seed=1), Branches(seed=2, atom_size=3.0)], GradientBalancer(0.1)
    balancer.load({"scale": 0.5, "task_norm": 1.0, "atom_norm": 1.0, "steps": 0})
    hidden = [branches.x @ branches.w for branches in parts]
    seen = [
        balancer(each) for each in hidden
    ]  # both balancers behind both hidden states: backward goes through both first
    sum(sum(b.terms(h, s)) for b, h, s in zip(parts, hidden, seen, strict=True)).backward()
    balancer.update(alone)
    for name, norms in zip(("task_norm", "atom_norm"), zip(*(b.norms() for b in parts), strict=True), strict=True):
        assert balancer.state()[name] == pytest.approx(math.hypot(*norms), rel=1e-5)


def test_norms_are_reduced_over_processes():
    branches, balancer = Branches(), GradientBalancer(0.1)
    branches.backward(balancer)
    task, atom = branches.norms()
    balancer.update(lambda sums: sums + torch.tensor([9.0, 16.0]))  # the squares of another process
    assert balancer.state()["task_norm"] == pytest.approx(math.hypot(task, 3), rel=1e-5)
    assert balancer.state()["atom_norm"] == pytest.approx(math.hypot(atom, 4), rel=1e-5)


def test_a_pass_without_the_atom_term_is_all_task():
    branches, balancer = Branches(), GradientBalancer(0.1)
    balancer.load({**balancer.state(), "scale": 1.0})
    branches.step(balancer)  # of which nothing may be left over
    balancer.load(GradientBalancer(0.1).state())
    _, task, _ = branches.losses(balancer)
    task.backward()
    balancer.update(alone)
    assert balancer.state()["task_norm"] == pytest.approx(branches.norms()[0], rel=1e-5)
    assert balancer.state()["atom_norm"] == 0
    assert math.isfinite(balancer.scale)


def test_where_the_task_has_no_gradient_nothing_passes():
    branches, balancer = Branches(), GradientBalancer(0.1)
    _, _, atom = branches.losses(balancer)
    atom.backward()
    balancer.update(alone)
    assert balancer.scale == 0


@pytest.mark.parametrize("ratio", [None, 0.1])
def test_a_closed_gate_passes_nothing_and_measures_what_a_ratio_needs(ratio):
    branches, balancer = Branches(atom_size=3.0), GradientBalancer(ratio)
    balancer.strength = 0.0
    for _ in range(2):
        assert balancer.scale == 0 and passed(branches, balancer).abs().max() == 0
        balancer.update(alone)
    # Without a ratio there is nothing to measure for.
    assert balancer.state()["atom_norm"] == (0 if ratio is None else pytest.approx(branches.norms()[1], rel=1e-5))
    # Opened, it has its factor at once: the steps while it was closed count.
    balancer.strength = 1.0
    task, atom = branches.norms()
    assert balancer.scale == pytest.approx(1 if ratio is None else ratio * task / atom, rel=1e-5)
    balancer.strength = 0.5
    assert balancer.scale == pytest.approx(0.5 * (1 if ratio is None else ratio * task / atom), rel=1e-5)


def test_a_configuration_asks_for_its_gate():
    assert GradientBalancer.of(AtomConfig(weight=0.25, weighting="relative")).ratio == 0.25
    assert GradientBalancer.of(AtomConfig(weight=0.25, weighting="absolute")).ratio is None


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_step_that_overflows_is_not_counted(bad):
    branches, balancer = Branches(atom_size=3.0), GradientBalancer(0.1)
    branches.step(balancer)
    before = balancer.state()
    _, task, atom = branches.losses(balancer)
    ((task + atom) * bad).backward()
    balancer.update(alone)
    assert balancer.state() == before
    branches.step(balancer)
    assert balancer.state() != before and math.isfinite(balancer.scale)


def test_nothing_passes_after_a_first_step_that_overflows():
    # As the first steps of a run in fp16 do, until the gradient scaler has found its scale.
    branches, balancer = Branches(), GradientBalancer(0.1)
    _, task, atom = branches.losses(balancer)
    ((task + atom) * float("inf")).backward()
    balancer.update(alone)
    assert balancer.scale == 0


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_half_precision_gradients_are_measured_in_float32(dtype):
    branches, balancer = Branches(atom_size=300.0, dtype=dtype), GradientBalancer(0.1)
    task, atom = Branches(atom_size=300.0).norms()
    assert atom**2 > torch.finfo(torch.float16).max, "the square does not fit in fp16"
    branches.step(balancer)
    assert balancer.state()["task_norm"] == pytest.approx(task, rel=0.02)
    assert balancer.state()["atom_norm"] == pytest.approx(atom, rel=0.02)
    assert branches.backward(balancer)[0].dtype == dtype


def test_a_resumed_gate_goes_on_as_the_first_would_have():
    first, batches = GradientBalancer(0.1), [Branches(seed=seed, atom_size=3.0) for seed in range(4)]
    for branches in batches[:2]:
        branches.step(first)
    second = GradientBalancer(0.1)
    second.load(json.loads(json.dumps(first.state())))
    assert second.state() == first.state() and second.scale == first.scale
    for branches in batches[2:]:
        for ours, expected in zip(branches.step(second), branches.step(first), strict=True):
            assert torch.equal(ours, expected)
        assert second.state() == first.state()


# Hidden states off the way that the task takes


class Aside(Branches):
    """The hidden state that is shown is a part of the one that the task goes on with: a model cut its own padding off it."""

    def losses(self, balancer=None):
        whole = self.x @ self.w
        hidden = whole[:4]
        seen = hidden if balancer is None else balancer(hidden)
        task = (whole - self.target).square().sum()
        atom = self.atom_size * torch.tanh(seen @ self.head).sum()
        self.whole = whole
        return hidden, task, atom

    def gradients(self):
        hidden, task, atom = self.losses()
        return torch.autograd.grad(task, self.whole, retain_graph=True)[0], torch.autograd.grad(atom, hidden)[0]


@pytest.mark.parametrize("atom_size", [0.1, 1.0, 30.0])
def test_the_task_is_measured_where_the_model_goes_on(atom_size):
    branches, balancer = Aside(atom_size=atom_size), GradientBalancer(0.3)
    task, atom = branches.norms()
    for _ in range(3):  # once something passes, the task's gradient is told from it
        branches.step(balancer)
        assert balancer.state()["task_norm"] == pytest.approx(task, rel=1e-6)
        assert balancer.scale == pytest.approx(0.3 * task / atom, rel=1e-6)


def test_a_view_that_the_task_goes_on_with_is_measured_as_before():
    class Through(Branches):
        def losses(self, balancer=None):
            hidden = (self.x @ self.w).view(6, 5)
            seen = hidden if balancer is None else balancer(hidden)
            task = (hidden - self.target).square().sum()
            return hidden, task, self.atom_size * torch.tanh(seen @ self.head).sum()

    plain, through = GradientBalancer(0.3), GradientBalancer(0.3)
    for _ in range(3):
        Branches().step(plain), Through().step(through)
        assert through.state() == plain.state()


@pytest.mark.parametrize("backward", [True, False])
@pytest.mark.parametrize("name", ["swin", "bert"])
def test_no_graph_outlives_its_step(name, backward):
    """The hidden states of a Swin are a view: the balancer watches the tensor behind it too."""

    class Kept:
        def __init__(self, tensor):
            self.tensor = tensor

    alive = weakref.WeakSet()

    def keep(tensor):
        kept = Kept(tensor.detach())  # itself it would hold the graph that holds it
        alive.add(kept)
        return kept

    torch.manual_seed(0)
    model = attach_atoms(tiny(name)).train()
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda kept: kept.tensor):
        outputs = model(**batch_for(name, labels=True))
    assert len(alive) > 10
    if backward:
        (outputs.loss + outputs.atoms.square().mean()).backward()
    del outputs
    gc.collect()
    assert not alive
