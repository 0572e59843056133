"""The profile of a step."""

import pytest
import torch

import atom_hf.benchmark.bench as bench
import atom_hf.benchmark.profiling as bench_profile
from atom_hf import AtomError
from atom_hf.atoms.config import FORMS
from atom_hf.atoms.heads import AtomHeads
from atom_hf.benchmark.profiling import PREFIX, STEP, attribute, kernel_time, profile_parts, wrapped
from helpers.measured import arm
from helpers.models import batch_for


def test_parts_have_the_time_of_their_forward_and_of_the_nodes_that_it_made():
    class Event:
        def __init__(self, name, start, time, sequence=-1, parent=None):
            self.id, self.name, self.cpu_time_total, self.sequence_nr = start, name, time, sequence
            self.cpu_parent, self.time_range = parent, type("Range", (), {"start": start})

    step = Event(STEP, 0, 100)
    model = Event("aten::mm", 1, 20, 7, step)
    heads = Event(PREFIX + "heads", 2, 30, parent=step)
    inner = Event(PREFIX + "atoms", 3, 10, parent=heads)
    # A comparison makes no node, and so has the number of the one that comes after.
    compared = Event("aten::lt", 4, 1, 8, heads)
    product = Event("aten::mm", 5, 5, 8, heads)
    last = Event("aten::neg", 6, 2, 9, inner)
    later = Event("aten::gt", 7, 2, 10, inner)
    outside = Event("aten::exp", 8, 2, 10, step)
    back = Event("autograd::engine::evaluate_function: MmBackward0", 9, 12, 8, step)
    balancer = Event(PREFIX + "gradient balancer", 10, 4, parent=back)
    negative = Event("autograd::engine::evaluate_function: NegBackward0", 11, 6, 9, step)
    other = Event("autograd::engine::evaluate_function: ExpBackward0", 12, 6, 10, step)
    events = [step, model, heads, inner, compared, product, last, later, outside, back, balancer, negative, other]
    found = attribute(events, lambda e: e.cpu_time_total)
    assert found == {
        STEP: (100, 0),
        PREFIX + "heads": (20, 8),
        PREFIX + "atoms": (10, 6),
        PREFIX + "gradient balancer": (0, 4),
    }


def test_a_range_is_not_counted_among_its_kernels():
    class Event:
        def __init__(self, name, kernels, children=()):
            self.name, self.cpu_children = name, children
            self.kernels = [type("Kernel", (), {"name": n, "duration": d}) for n, d in kernels]

    product = Event("aten::mm", [("gemm", 5), ("reduce", 1)])
    heads = Event(PREFIX + "heads", [(PREFIX + "heads", 40), ("tanh", 2)], [product])
    assert kernel_time(heads) == 8


def test_profile_of_a_step(tmp_path):
    arms = {"plain": arm(tmp_path, atom=False), "atom": arm(tmp_path)}
    batches = [[batch_for("bert", labels=True)]]
    for one in arms.values():
        one.step(batches[0])
    found = profile_parts(arms, batches)
    rows = {name: (forward, backward) for name, forward, backward in found["rows"]}
    assert {"heads", "atoms", "gradient balancer", "pair energy and constraints", "optimizer", "clipping"} <= set(rows)
    assert all(side > 0 for name in ("heads", "atoms", "pair energy and constraints") for side in rows[name])
    assert found["total"] == pytest.approx(found["rest"] + sum(map(sum, rows.values())))


def test_every_part_of_the_profile_is_called_in_a_step(tmp_path, monkeypatch):
    # Parts share names; here each has its own.
    names = [f"{part}: {attribute}" for _, attribute, part in bench_profile.PARTS]
    parts = [(*place, name) for (*place, _), name in zip(bench_profile.PARTS, names, strict=True)]
    monkeypatch.setattr(bench_profile, "PARTS", parts)
    step, plain = [batch_for("bert", labels=True)], arm(tmp_path, atom=False)
    plain.step(step)
    called, shown = set(), set()
    for form in FORMS:  # each leaves a part out
        one = arm(tmp_path, atom_form=form)
        one.step(step)
        with wrapped(one), torch.profiler.profile() as found:
            one.step(step)
        called |= {event.key for event in found.key_averages()}
        shown |= {name for name, _, _ in profile_parts({"plain": plain, "atom": one}, [step])["rows"]}
    assert {PREFIX + name for name in names} <= called
    assert {*names, "optimizer", "clipping"} <= shown


def test_a_part_that_has_moved_is_an_error(tmp_path, monkeypatch):
    one, forward = arm(tmp_path), AtomHeads.forward
    monkeypatch.setattr(bench_profile, "PARTS", (*bench_profile.PARTS, (bench, "gather_rows", "gather")))
    with (
        pytest.raises(AtomError, match=r"atom_hf\.benchmark\.bench has no gather_rows, which 'gather' is measured by"),
        wrapped(one),
    ):
        raise AssertionError("it was profiled")
    # Those before it are unwrapped again.
    assert AtomHeads.forward is forward


def test_wrapping_leaves_no_trace(tmp_path):
    from atom_hf.atoms import energy, heads
    from atom_hf.modeling import gradient_balancer
    from atom_hf.modeling import mixin as modeling
    from atom_hf.training import loss as trainer_loss
    from atom_hf.training import trainer

    one = arm(tmp_path)
    one.step([batch_for("bert", labels=True)])
    places = (
        energy.Atoms,
        gradient_balancer.GradientBalancer,
        heads.AtomHeads,
        modeling,
        trainer,
        trainer_loss,
        trainer.AtomTrainerMixin,
    )
    places = (*places, one.trainer.accelerator, one.trainer.optimizer)
    before = [dict(vars(place)) for place in places]
    with wrapped(one):
        assert [dict(vars(place)) for place in places] != before
        one.step([batch_for("bert", labels=True)])
    assert [vars(place).keys() for place in places] == [b.keys() for b in before]
    assert all(vars(p)[k] is b[k] for p, b in zip(places[:7], before[:7], strict=True) for k in b)
