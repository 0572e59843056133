"""Measurements of steps: turns, memory and operations."""

import torch
from torch import nn
from transformers import TrainerCallback

import atom_hf.benchmark.bench as bench
from atom_hf import AtomTrainer
from atom_hf.benchmark.steps import Arm, allocated_peak, count_flops, peak_memory
from helpers.measured import arm
from helpers.models import batch_for, collator_for, rows_for, tiny
from helpers.training import arguments


def test_steps_are_taken_by_turns_in_an_order_that_is_reversed_each_time():
    taken = []
    steps = {name: (lambda batches, name=name: taken.append((name, batches))) for name in ("plain", "floor", "atom")}
    seconds = bench.time_steps(steps, ["first", "second"], 3, 1, torch.device("cpu"))
    assert {name: len(values) for name, values in seconds.items()} == {"plain": 3, "floor": 3, "atom": 3}
    names = [name for name, _ in taken]
    rounds = [names[i : i + 3] for i in range(0, 12, 3)]
    forward = ["plain", "floor", "atom"]
    assert rounds == [forward, forward[::-1], forward, forward[::-1]]
    assert [batch for _, batch in taken[::3]] == ["second", "first", "second", "first"]


def test_peak_of_known_allocations():
    def call():
        a = torch.empty(1000)  # 4,000
        b = torch.empty(3000)  # 16,000
        del a
        c = torch.empty(500)  # 14,000
        del b
        return c, torch.empty(2000)  # 10,000

    assert allocated_peak(call) == 16_000
    assert allocated_peak(lambda: None) == 0


def test_memory_of_a_step_whose_allocations_are_known():
    class Optimizer:
        def __init__(self, parameter):
            self.state = {parameter: {"moment": torch.zeros(3, 5), "step": torch.zeros(())}}

    class Known(Arm):
        def __init__(self):
            self.trainer = type("Trainer", (), {})()
            self.trainer.args = type("Args", (), {"device": torch.device("cpu")})
            model = nn.Linear(5, 3, bias=False)
            model.shared = model.weight  # one storage, held once
            model.register_buffer("buffer", torch.zeros(7))
            self.trainer.model, self.trainer.optimizer = model, Optimizer(model.weight)

        def step(self, batches):
            torch.empty(1000)

    assert peak_memory(Known(), []) == 4 * (15 + 7 + 15 + 1 + 1000)


def test_heads_cost_their_parameters_and_moments_between_steps(tmp_path):
    plain, atom = arm(tmp_path, atom=False), arm(tmp_path)
    held = []
    for one in (plain, atom):
        one.step([batch_for("bert", labels=True)])
        assert all(p.grad is None for p in one.trainer.model.parameters())
        held.append(one.resident_bytes())
    heads = atom.trainer.model.atom_heads
    steps = 4 * len(list(heads.parameters()))
    assert held[1] - held[0] == 3 * 4 * sum(p.numel() for p in heads.parameters()) + steps


def test_operations_of_attention_and_of_products_are_counted():
    query, weight = torch.randn(2, 3, 8, 4, requires_grad=True), torch.randn(4, 4)

    def step(_):
        nn.functional.scaled_dot_product_attention(query, query, query).sum().backward()
        weight @ weight

    # Attention: two products forward and five backward, of 2 x 3 heads, 8 x 8 x 4 each.
    assert count_flops(step, []) == 2 * 2 * 3 * 8 * 8 * 4 * (2 + 5) + 2 * 4**3


def test_a_measured_step_is_a_training_step(tmp_path):
    """Two steps of an arm leave the parameters that the first two steps of a training run leave."""
    torch.manual_seed(0)  # the heads are drawn
    options = {"gradient_accumulation_steps": 2, "lr_scheduler_type": "constant"}
    one = arm(tmp_path, **options)
    loader = iter(one.trainer.get_train_dataloader())
    batches = [[next(loader), next(loader)] for _ in range(2)]
    for step in batches:
        one.step(step)
    args = arguments(tmp_path, atom=True, max_steps=100, logging_strategy="no", **options)
    torch.manual_seed(0)
    whole = AtomTrainer(tiny("bert"), args, train_dataset=rows_for("bert"), data_collator=collator_for("bert"))
    whole.add_callback(_StopAfter(2))
    whole.train()
    assert whole.state.global_step == one.trainer.state.global_step == 2
    for (name, a), b in zip(one.trainer.model.named_parameters(), whole.model.parameters(), strict=True):
        assert torch.equal(a, b), name
    assert one.trainer.model.atom_balancer.state() == whole.model.atom_balancer.state()


class _StopAfter(TrainerCallback):
    def __init__(self, steps):
        self.steps = steps

    def on_step_end(self, args, state, control, **kwargs):
        control.should_training_stop = state.global_step >= self.steps
