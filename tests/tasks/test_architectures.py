"""Networks by name."""

import pytest
import torch

from atom_hf import AtomError
from atom_hf.tasks.architectures import is_architecture, make_network
from atom_hf.tasks.kinds import Kind, Type
from atom_hf.tasks.spec import Box

IMAGE, ODD = Type(Kind("pixels", (1, 8, 8))), Type(Kind("pixels", (3, 9, 7)))
LABEL, CODE, STATS = Type(Kind("class", (10,))), Type(Kind("vector", (5,))), Type(Kind("gaussian", (4,)))
TRUTH = Type(Kind("logit"))


def box(inputs, outputs):
    return Box("f", "learner", tuple(inputs), tuple(outputs))


def values(wire, rows=3):
    return torch.rand(rows, *((wire.kind.values,) if wire.kind.name != "pixels" else wire.kind.sizes))


@pytest.mark.parametrize(
    ("inputs", "outputs", "text"),
    [
        ([IMAGE], [LABEL], "linear"),
        ([IMAGE, LABEL], [IMAGE], "mlp"),
        ([CODE], [STATS], "mlp(16, 8)"),
        ([IMAGE], [TRUTH], " conv ( 4, 8 ) "),
        ([ODD, CODE], [LABEL, CODE], "conv(4, 8)"),
        ([ODD], [STATS], "conv"),
        ([CODE, LABEL], [ODD], "conv(4, 8)"),
        ([STATS], [IMAGE], "conv(4)"),
        ([ODD, LABEL], [ODD], "conv(4, 4)"),
    ],
)
def test_a_network_takes_and_gives_its_wires(inputs, outputs, text):
    assert is_architecture(text)
    network = make_network(box(inputs, outputs), text)
    found = network(*(values(wire) for wire in inputs))
    found = found if len(outputs) > 1 else (found,)
    assert [part.flatten(1).shape for part in found] == [(3, wire.kind.values) for wire in outputs]
    if outputs[0].kind.name == "pixels" and "conv" in text:
        assert found[0].shape == (3, *outputs[0].kind.sizes)
    sum(part.sum() for part in found).backward()
    assert all(parameter.grad is not None for parameter in network.parameters())


def test_linear_is_linear_and_widths_are_taken():
    assert len(list(make_network(box([CODE], [LABEL]), "linear").parameters())) == 2
    shapes = [p.shape for p in make_network(box([CODE], [LABEL]), "mlp(16, 8)").parameters() if p.dim() == 2]
    assert shapes == [(16, 5), (8, 16), (10, 8)]


@pytest.mark.parametrize(
    ("inputs", "text", "says"),
    [
        ([CODE], "mlp(0)", "learner f: a width is a whole number from 1 to 65536, got 'mlp"),
        ([CODE], "mlp(4", "learner f: 'mlp.4' is no network; there are linear, mlp.128., conv.16, 32., centres"),
        ([CODE], "linear(4)", "learner f: linear has no widths"),
        ([CODE], "conv", "learner f: conv takes one image, or gives one, or both; use mlp"),
        ([IMAGE, ODD], "conv", "learner f: conv takes one image, or gives one, or both"),
        (
            [Type(Kind("tokens", (9,)))],
            "mlp",
            r"learner f: mlp takes and gives no tokens\(9\); bind a module of your own",
        ),
    ],
)
def test_a_network_that_cannot_be_is_refused(inputs, text, says):
    with pytest.raises(AtomError, match=says):
        make_network(box(inputs, [LABEL]), text)
    with pytest.raises(AtomError, match=r"conv keeps the size of an image, got pixels\(1, 8, 8\) -> pixels\(3, 9, 7\)"):
        make_network(box([IMAGE], [ODD]), "conv")


def test_paths_are_no_networks():
    for path in ("runs/mlp", "vit-fashion-mnist", "org/conv", "mlpx", "./linear"):
        assert not is_architecture(path)
