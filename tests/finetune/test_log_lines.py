"""The lines that a run prints as it trains, beside the dictionaries that reporters get."""

import types

import pytest
from transformers import PrinterCallback, ProgressCallback, TrainerCallback, TrainerState

from atom_hf.finetune import log_lines
from atom_hf.finetune.log_lines import LogLines, log_often, print_lines
from helpers.models import rows_for
from helpers.training import history, make

RUN = {"max_steps": 4, "logging_steps": 2, "eval_strategy": "steps", "eval_steps": 3}


class Reporter(TrainerCallback):
    def __init__(self):
        self.logs = []

    def on_log(self, args, state, control, logs=None, **kwargs):
        self.logs.append({**logs, "step": state.global_step})


def printed(folder, capsys, **options):
    """(lines, trainer, what a reporter was given) of a run."""
    reporter = Reporter()
    trainer = make("bert", folder, pieces={"eval_dataset": rows_for("bert")[:4], "callbacks": [reporter]}, **options)
    print_lines(trainer)
    capsys.readouterr()
    trainer.train()
    trainer.evaluate()
    return capsys.readouterr().out.splitlines(), trainer, reporter.logs


@pytest.mark.parametrize("disable_tqdm", [True, False])
@pytest.mark.parametrize("atom", [True, False])
def test_a_line_for_each_log_and_none_of_the_dictionaries(atom, disable_tqdm, tmp_path, capsys):
    lines, trainer, _ = printed(tmp_path, capsys, atom=atom, disable_tqdm=disable_tqdm, **RUN)
    headings = ["energy", "importance"] if atom else []
    assert lines[0].replace("learning rate", "rate").split() == ["step", "loss", *headings, "rate", "rows/s"]
    first, evaluation, second, _, last = lines[1:]  # Trainer evaluates after the last step too
    logs = {(entry["step"], "loss" in entry): entry for entry in history(trainer)}
    keys = ["loss", *(["atom_energy", "atom_importance"] if atom else []), "learning_rate"]
    for line, step in ((first, 2), (second, 4)):
        found = line.split()
        assert found[0] == str(step) and float(found[-1]) > 0 and len(line) == len(lines[0])
        assert [float(value) for value in found[1:-1]] == pytest.approx([logs[step, True][k] for k in keys], abs=1e-4)
    assert evaluation.split("evaluation: ")[0].strip() == "3" and "runtime" not in evaluation
    assert f"loss {logs[3, False]['eval_loss']:.4f}" in evaluation and "per_second" not in evaluation
    assert last.startswith("trained 4 steps in ") and "{" not in "".join(lines)


@pytest.mark.parametrize("disable_tqdm", [True, False])
def test_reporters_and_the_history_get_what_they_always_got(disable_tqdm, tmp_path, capsys):
    _, trainer, reported = printed(tmp_path / "ours", capsys, atom=True, disable_tqdm=disable_tqdm, **RUN)
    reporter = Reporter()
    pieces = {"eval_dataset": rows_for("bert")[:4], "callbacks": [reporter]}
    stock = make("bert", tmp_path / "stock", pieces=pieces, atom=True, disable_tqdm=disable_tqdm, **RUN)
    stock.train()
    stock.evaluate()
    assert history(trainer) == history(stock) and len(history(trainer)) == 6
    assert [list(logs) for logs in reported] == [list(logs) for logs in reporter.logs]
    assert all(not isinstance(value, str) for logs in reported for value in logs.values())


def test_a_run_without_steps_or_of_another_process_prints_nothing(tmp_path, capsys):
    trainer = make("bert", tmp_path, pieces={}, max_steps=2, logging_steps=1)
    lines = LogLines()
    state = TrainerState(global_step=2, is_world_process_zero=False)
    lines.on_train_begin(trainer.args, state, None)
    lines.on_log(trainer.args, state, None, logs={"eval_loss": 1.0})
    state.is_world_process_zero = True
    lines.on_log(trainer.args, state, None, logs={"train_runtime": 1.0, "train_loss": 0.0})
    lines.on_train_end(trainer.args, state, None)
    lines.on_log(trainer.args, state, None, logs={"eval_loss": 1.0})
    assert capsys.readouterr().out == ""


def test_numbers_that_are_missing_or_not_finite_are_shown(tmp_path, capsys):
    trainer = make("bert", tmp_path, pieces={}, max_steps=2)
    lines, state = LogLines(), TrainerState(global_step=0, is_world_process_zero=True)
    lines.on_train_begin(trainer.args, state, None)
    lines.on_step_begin(trainer.args, state, None)
    state.global_step = 1
    lines.on_log(trainer.args, state, None, logs={"loss": float("nan"), "learning_rate": 1e-12})
    lines.on_log(trainer.args, state, None, logs={"loss": 123456.789})
    lines.on_log(trainer.args, state, None, logs={"eval_loss": float("inf"), "eval_note": "odd"})
    shown = [line.split() for line in capsys.readouterr().out.splitlines()[1:]]
    assert shown[0] == ["1", "nan", "1e-12", "-"] and shown[1] == ["1", "1.235e+05", "-", "-"]
    assert shown[2] == ["1", "evaluation:", "loss", "inf,", "note", "odd"]


@pytest.mark.parametrize(
    ("rows", "drop_last", "expected"),
    [(range(24), False, 24), (range(20), False, 20), (range(20), True, 32), (iter(range(24)), False, 32)],
)
def test_rows_a_second_are_counted_without_evaluations(rows, drop_last, expected, tmp_path, capsys, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(log_lines.time, "monotonic", lambda: now[0])
    args = types.SimpleNamespace(
        dataloader_drop_last=drop_last, train_batch_size=8, world_size=2, gradient_accumulation_steps=1
    )
    lines, state = LogLines(), TrainerState(global_step=0, epoch=0, is_world_process_zero=True, train_batch_size=8)
    lines.on_train_begin(args, state, None)
    now[0] = 100.0  # whatever was done before the first step
    for step in (1, 2):
        lines.on_step_begin(args, state, None)
        now[0] += 2.0
        state.global_step, state.epoch = step, step / 2
        lines.on_step_end(args, state, None)
        now[0] += 50.0  # an evaluation, or a checkpoint
        (lines.on_evaluate if step == 1 else lines.on_save)(args, state, None)
    loader = types.SimpleNamespace(dataset=rows)
    lines.on_log(args, state, None, logs={"loss": 1.0}, train_dataloader=loader)
    assert capsys.readouterr().out.splitlines()[-1].split()[-1] == log_lines.format_number(expected / 4)


def test_what_a_notebook_shows_stays(tmp_path):
    trainer = make("bert", tmp_path, pieces={}, max_steps=2)
    for kind in (ProgressCallback, PrinterCallback):
        trainer.remove_callback(kind)
    before = list(trainer.callback_handler.callbacks)
    print_lines(trainer)
    assert trainer.callback_handler.callbacks == before


@pytest.mark.parametrize(
    "steps, given, expected", [(40, 50, 4), (4, 50, 1), (3000, 50, 50), (40, 2, 2), (40, 0.5, 0.5)]
)
def test_a_short_run_logs_ten_times(tmp_path, steps, given, expected):
    trainer = make("bert", tmp_path, max_steps=steps, logging_steps=given)
    log_often(trainer, 10)
    assert trainer.args.logging_steps == expected


def test_a_run_logs_as_often_after_it_is_resumed(tmp_path):
    state = TrainerState(logging_steps=7)
    state.save_to_json(str(tmp_path / "trainer_state.json"))
    trainer = make("bert", tmp_path, max_steps=40, logging_steps=50, resume_from_checkpoint=str(tmp_path))
    log_often(trainer, 10)
    assert trainer.args.logging_steps == 7


def test_a_run_that_does_not_log_stays_silent(tmp_path):
    trainer = make("bert", tmp_path, max_steps=40, logging_steps=50, logging_strategy="no")
    log_often(trainer, 10)
    assert trainer.args.logging_steps == 50
