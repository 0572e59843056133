"""A task under Trainer: gradients, accumulation and two processes, logs, turns, clipping, and resuming to the bit."""

import pytest
import torch
from torch import nn
from transformers import Trainer, TrainerCallback, TrainingArguments, default_data_collator

from atom_hf import AtomError
from atom_hf.tasks import TaskArguments, TaskModel, TaskTrainer, read_task
from helpers.exactness import compare
from helpers.models import rows_for, tiny
from helpers.task_models import GAME, game, game_batch, game_boxes, naive_gradients
from helpers.tasks import fit
from helpers.training import Gradients, arguments, equal, history

ONE_STEP = {"max_steps": 1, "max_grad_norm": 0.0, "optim": "sgd", "per_device_train_batch_size": 8}


def rows(count=8, seed=0):
    batch = game_batch(count, seed)
    return [{name: value[i] for name, value in batch.items()} for i in range(count)]


def trainer_of(folder, model=None, data=None, callbacks=(), **options):
    args = arguments(folder, TaskArguments, **options)
    data = rows(24) if data is None else data
    return TaskTrainer(model or game(), args, train_dataset=data, eval_dataset=data[:10], callbacks=list(callbacks))


def gradients_of(folder, **options):
    callback = Gradients()
    trainer_of(folder, data=rows(16), callbacks=[callback], **{**ONE_STEP, **options}).train()
    return {name: value for name, value in callback.steps[0].items()}


def joined(batches):
    """The mean of the naive gradients of several batches."""
    found = [naive_gradients(game_boxes(), batch)[0] for batch in batches]
    return {name: sum(one[name] for one in found) / len(found) for name in found[0]}


def batches_of(size):
    whole = game_batch(16)
    return [{name: value[start : start + size] for name, value in whole.items()} for start in range(0, 16, size)]


@pytest.mark.exactness
@pytest.mark.parametrize("steps", [1, 2, 4])
def test_accumulation(tmp_path, steps):
    size = 16 // steps
    found = gradients_of(tmp_path, per_device_train_batch_size=size, gradient_accumulation_steps=steps)
    what = f"task: three learners and a fixed box, dropout, {steps} batches of {size}"
    compare(what, "loops that switch requires_grad, and the mean", found, joined(batches_of(size)), bound=1e-6)


def two_process_gradients(folder):
    model = trainer_of(folder, data=rows(16), **ONE_STEP)
    assert model.args.world_size == 2
    callback = Gradients()
    model.add_callback(callback)
    model.train()
    return {name.removeprefix("module."): value for name, value in callback.steps[0].items()}


@pytest.mark.exactness
def test_two_processes(tmp_path, two_processes):
    found = two_processes(two_process_gradients, str(tmp_path))
    expected = joined(batches_of(8))
    for rank in range(2):
        what = f"task: three learners and a fixed box, dropout, DDP, 2 processes, rank {rank}"
        compare(what, "loops that switch requires_grad, and the mean", found[rank], expected, bound=1e-6)


LAW = fit(
    "fit: f(x) == y\nlaw: (g(x, n), y) ~ (x, y)\nmatch: against(h(x), h(g(x, n))) == own",
    "learner g : image, code -> image\nlearner h : image -> code",
)


class Edit(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(80, 64)

    def forward(self, x, n):
        return self.layer(torch.cat([x.flatten(1), n], 1))


def law_model():
    torch.manual_seed(0)
    flat = lambda width: nn.Sequential(nn.Flatten(), nn.Linear(64, width))  # noqa: E731
    return TaskModel(read_task(LAW), {"f": flat(10), "h": flat(16), "g": Edit()})


def law_rows():
    generator = torch.Generator().manual_seed(0)
    return [{"x": torch.rand(1, 8, 8, generator=generator), "y": torch.tensor(i % 3)} for i in range(16)]


def law_gradients(folder, size):
    """Noise is drawn by the model: over processes it is that of one process with the rows of all."""
    callback = Gradients()
    options = {**ONE_STEP, "per_device_train_batch_size": size}
    trainer_of(folder, law_model(), law_rows(), [callback], **options).train()
    return {name.removeprefix("module."): value for name, value in callback.steps[0].items()}


@pytest.mark.exactness
def test_laws_and_contrasts_take_the_rows_of_all_processes(tmp_path, two_processes):
    found = two_processes(law_gradients, str(tmp_path / "two"), 8)[0]
    what = "task: a law, a contrast and noise, DDP, 2 processes of 8 rows"
    compare(what, "one process with 16 rows", found, law_gradients(tmp_path / "one", 16), bound=1e-6)


class Recorder(TrainerCallback):
    """Keeps the values of the atoms of each forward pass."""

    def __init__(self, model):
        self.values, forward = [], model.forward

        def kept(**batch):
            outputs = forward(**batch)
            self.values.append({name: value.item() for name, value in outputs.atoms.items()})
            return outputs

        model.forward = kept


def test_each_atom_is_in_the_log_averaged_over_window_and_accumulation(tmp_path):
    model = game()
    recorder = Recorder(model)
    trainer = trainer_of(tmp_path, model, logging_steps=2, gradient_accumulation_steps=2, max_steps=2)
    trainer.train()
    logged = next(entry for entry in history(trainer) if "loss" in entry)
    assert len(recorder.values) == 4
    for name in model.spec.atoms:
        assert logged[f"loss_{name}"] == pytest.approx(sum(one[name] for one in recorder.values) / 4, rel=1e-5)
    weights = {name: atom.weight for name, atom in model.spec.atoms.items()}
    assert logged["loss"] == pytest.approx(sum(w * logged[f"loss_{name}"] for name, w in weights.items()), rel=1e-5)


def test_an_evaluation_gives_each_atom_by_rows(tmp_path):
    model = game()
    recorder = Recorder(model)
    metrics = trainer_of(tmp_path, model, per_device_eval_batch_size=4).evaluate()
    sizes = [4, 4, 2]
    for name in model.spec.atoms:
        mean = sum(n * one[name] for n, one in zip(sizes, recorder.values, strict=True)) / 10
        assert metrics[f"eval_loss_{name}"] == pytest.approx(mean, rel=1e-5)
    assert metrics["eval_loss"] == pytest.approx(
        sum(a.weight * metrics[f"eval_loss_{n}"] for n, a in model.spec.atoms.items()), rel=1e-5
    )


def test_the_supervised_task_is_trainer_to_the_bit(tmp_path):
    """The loss, its gradients and the weights of a ViT, with accumulation and Trainer's defaults."""
    task = read_task(fit("fit: f(x) == y").replace("n in N", "").replace("D; ", "D"))
    options = {"gradient_accumulation_steps": 2, "weight_decay": 0.1, "max_grad_norm": 0.5}
    plain = Trainer(
        tiny("vit", dropout=0.1), arguments(tmp_path, TrainingArguments, **options), train_dataset=rows_for("vit", 24)
    )
    plain.train()
    model = TaskModel(task, {"f": tiny("vit", dropout=0.1)})
    ours = TaskTrainer(model, arguments(tmp_path, TaskArguments, **options), train_dataset=rows_for("vit", 24))
    ours.train()
    for a, b in zip(history(plain), history(ours), strict=True):
        a.pop("total_flos", None)  # counted of Transformers' models alone
        assert {name: value for name, value in b.items() if name not in ("loss_fit", "total_flos")} == a
    assert equal(plain.model.state_dict(), model.boxes["f"].state_dict())


def test_the_task_is_trained_by_any_trainer(tmp_path):
    """A plain Trainer makes one optimizer for all learners."""
    args = arguments(tmp_path, TrainingArguments, remove_unused_columns=False)
    trainer = Trainer(game(), args, train_dataset=rows(24), data_collator=default_data_collator)
    before = {name: value.clone() for name, value in trainer.model.state_dict().items()}
    trainer.train()
    changed = {name for name, value in trainer.model.state_dict().items() if not torch.equal(value, before[name])}
    assert {name.split(".")[1] for name in changed if name.startswith("boxes")} == {"gen", "dis", "put"}
    assert not any(name.startswith("fixed") for name in changed)


class Weights(TrainerCallback):
    """Which learners an optimizer step has changed."""

    def __init__(self):
        self.changed, self.before = [], None

    def on_step_begin(self, args, state, control, model, **kwargs):
        self.before = {name: value.clone() for name, value in model.state_dict().items()}

    def on_step_end(self, args, state, control, model, **kwargs):
        now = model.state_dict()
        self.changed.append(
            {n.split(".")[1] for n in now if n.startswith("boxes") and not torch.equal(now[n], self.before[n])}
        )


def test_learners_have_rates_and_turns_of_their_own(tmp_path):
    weights = Weights()
    players = '{"dis": {"lr": 0.5}, "gen": {"every": 3}, "put": {"lr": 0, "every": 2}}'
    options = {
        "optim": "sgd",
        "learning_rate": 0.25,
        "lr_scheduler_type": "constant",
        "max_steps": 6,
        "weight_decay": 0.1,
    }
    trainer = trainer_of(tmp_path, callbacks=[weights], players=players, **options)
    trainer.train()
    groups = trainer.optimizer.param_groups
    assert {(group["player"], group["lr"]) for group in groups} == {("gen", 0.25), ("dis", 0.5), ("put", 0.0)}
    assert {(group["player"], group["weight_decay"]) for group in groups} == {
        (n, d) for n in ("gen", "dis", "put") for d in (0.1, 0.0)
    }
    assert weights.changed == [{"dis"}, {"dis"}, {"dis", "gen"}] * 2
    sizes = {name: sum(p.numel() for p in ps.values()) for name, ps in trainer.model.learner_parameters().items()}
    held = {name: sum(p.numel() for g in groups if g["player"] == name for p in g["params"]) for name in sizes}
    assert held == sizes


def test_each_learner_is_clipped_by_itself(tmp_path):
    free, clipped = (gradients_of(tmp_path, max_grad_norm=most) for most in (0.0, 0.01))
    for name in ("gen", "dis", "put"):
        norms = [
            torch.stack([g.norm() for n, g in found.items() if f".{name}." in n]).norm() for found in (free, clipped)
        ]
        assert norms[0] > 0.02 and norms[1].item() == pytest.approx(0.01, rel=1e-3)


@pytest.mark.parametrize("accumulation", [1, 2])
def test_a_run_is_resumed_to_the_bit(tmp_path, accumulation):
    options = {
        "max_steps": 6, "save_strategy": "steps", "save_steps": 3, "gradient_accumulation_steps": accumulation,
        "players": {"gen": {"every": 2, "lr": 1e-2}}, "train_sampling_strategy": "random",
    }  # fmt: skip
    data = [{name: row[name] for name in ("x", "y")} for row in rows(40)]
    whole = trainer_of(tmp_path / "run", data=data, **options)
    whole.train()
    again = trainer_of(tmp_path / "other", game(seed=7), data, **options)
    again.model.fixed["get"].load_state_dict(whole.model.fixed["get"].state_dict())
    again.train(resume_from_checkpoint=str(tmp_path / "run" / "checkpoint-3"))
    assert equal(whole.model.state_dict(), again.model.state_dict())
    assert history(whole)[3:6] == history(again)[3:6]
    states = [trainer.optimizer.state_dict()["state"] for trainer in (whole, again)]
    assert states[0].keys() == states[1].keys() and len(states[0]) > 10
    assert all(torch.equal(states[0][i][key], states[1][i][key]) for i in states[0] for key in states[0][i])


def test_the_best_model_is_loaded(tmp_path):
    options = {
        "eval_strategy": "steps",
        "eval_steps": 1,
        "save_strategy": "steps",
        "save_steps": 1,
        "learning_rate": 0.5,
    }
    best = {"load_best_model_at_end": True, "metric_for_best_model": "loss_getput", "greater_is_better": False}
    trainer = trainer_of(tmp_path, max_steps=3, **options, **best)
    trainer.train()
    found = [entry["eval_loss_getput"] for entry in history(trainer) if "eval_loss_getput" in entry]
    assert trainer.evaluate()["eval_loss_getput"] == min(found) != found[-1]


def test_what_cannot_be_is_refused(tmp_path):
    with pytest.raises(AtomError, match="model: TaskTrainer trains a TaskModel, got a Linear"):
        TaskTrainer(nn.Linear(2, 2), arguments(tmp_path, TaskArguments))
    with pytest.raises(AtomError, match="args: TaskTrainer takes TaskArguments, got TrainingArguments"):
        TaskTrainer(game(), arguments(tmp_path, TrainingArguments))
    with pytest.raises(AtomError, match="players: get is no learner of the task; there are gen, dis, put"):
        trainer_of(tmp_path, players={"get": {"lr": 1}})
    with pytest.raises(AtomError, match="label_smoothing_factor: the divergences of a task have none"):
        trainer_of(tmp_path, label_smoothing_factor=0.1)
    for players, says in (
        ("{", "players: '{' is no JSON"),
        ([1], "players: give options by the names of learners"),
        ({"gen": 3}, "players: gen has lr and every"),
        ({"gen": {"rate": 3}}, "players: gen has lr and every"),
        ({"gen": {"lr": -1}}, "players: lr of gen must be a finite number of at least 0, got -1"),
        ({"gen": {"every": 0}}, "players: every of gen must be a whole number of at least 1, got 0"),
        ({"gen": {"every": 1.5}}, "players: every of gen must be a whole number"),
    ):
        with pytest.raises(AtomError, match=says):
            arguments(tmp_path, TaskArguments, players=players)
    trainer_of(tmp_path / "run", save_strategy="steps", save_steps=1, max_steps=1).train()
    other = TaskModel(
        read_task(GAME.replace("code = vector(4)", "code = vector(5)")),
        {**game_boxes(), "gen": nn.Sequential(nn.Linear(5, 64))},
    )
    with pytest.raises(AtomError, match=r"resume_from_checkpoint: .* holds another task or other modules: boxes.gen"):
        trainer_of(tmp_path / "new", other, max_steps=2).train(
            resume_from_checkpoint=str(tmp_path / "run" / "checkpoint-1")
        )
