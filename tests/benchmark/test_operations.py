"""Calls of operators, counted by the profiler, against a count in the dispatcher itself; and the flag's number of them."""

import pytest
import torch
from torch.profiler import ProfilerActivity, profile
from torch.utils._python_dispatch import TorchDispatchMode

from atom_hf.atoms.config import FORMS
from atom_hf.benchmark.operations import NO_WORK, operator_calls
from atom_hf.benchmark.profiling import profile_parts
from helpers.measured import arm
from helpers.models import batch_for

MOST = 120  # calls in a step, by the flag


class Dispatched(TorchDispatchMode):
    """Counts what reaches the dispatcher below autograd, where composite operators have been taken apart."""

    calls = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func._schema.name.removeprefix("aten::")
        self.calls += not (func.is_view or name in NO_WORK or name == "detach")
        return func(*args, **(kwargs or {}))


def counted(call):
    with profile(activities=[ProfilerActivity.CPU]) as found:
        call()
    return sum(operator_calls(event) for event in found.events() if event.cpu_parent is None)


def dispatched(call):
    with Dispatched() as mode:
        call()
    return mode.calls


X = torch.randn(3, 4, requires_grad=True)
CALLS = {
    "one operator": (lambda: X + X, 1),
    "views and allocations": (lambda: torch.empty(3, 4).view(12).unsqueeze(0).mT[0], 0),
    "a composite one": (lambda: torch.nn.functional.linear(X, X, X[:, 0]), 1),
    "a copy by another name": (lambda: X.mT.reshape(-1), 1),
    "a number among the arguments": (lambda: 2 * X, 1),
    "a list of tensors": (lambda: torch._foreach_add([X.detach(), X.detach()], 1.0), 1),
    "with its backward": (lambda: torch.autograd.grad(torch.tanh(X @ X.mT).sum(), X), 8),
}


@pytest.mark.parametrize("name", CALLS)
def test_calls_that_can_be_told(name):
    call, expected = CALLS[name]
    assert counted(call) == dispatched(call) == expected


@pytest.mark.parametrize("form", FORMS)
def test_the_flags_calls_in_a_step(form, tmp_path):
    # Of the sizes the number does not depend.
    arms = {name: arm(tmp_path, "vit", atom=name == "atom", atom_form=form) for name in ("plain", "atom")}
    step = [batch_for("vit", labels=True)]
    for one in arms.values():
        one.step(step)
    found = profile_parts(arms, [step])["operators"]
    assert 0 < found["total"] < MOST
    assert found["total"] == found["rest"] + sum(forward + backward for _, forward, backward in found["rows"])
    assert found["total"] == dispatched(lambda: arms["atom"].step(step)) - dispatched(lambda: arms["plain"].step(step))
