"""`atom-hf task`: check, draw, compare, train."""

import json
import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from atom_hf import AtomError
from atom_hf.tasks import TaskModel, draw_task, patterns, read_task
from helpers.commands import command
from helpers.models import make_tokenizer, tiny

pytestmark = pytest.mark.usefixtures("own_folder", "digits_once")

SHORT = "--use_cpu --max_steps 4 --per_device_train_batch_size 32 --logging_steps 2"
VAE = f"task vae --bind D=digits enc=mlp(16) dec=linear --train {SHORT} --output_dir"


def test_a_task_is_checked_and_printed():
    for flags in ("", " --check"):
        status, out, err = command(f"task gan{flags}")
        assert (status, err) == (0, "") and read_task(out) == patterns.gan()


def test_a_task_is_drawn():
    status, out, _ = command("task vae --draw pictures/vae.svg")
    assert status == 0 and out == "drawn     pictures/vae.svg\n"
    assert Path("pictures/vae.svg").read_text(encoding="utf-8") == draw_task(patterns.vae())


def test_tasks_are_compared():
    Path("less.task").write_text(
        patterns.pattern_text("manipulation").replace("    undo 10: put(put(x, a), get(x)) == x\n", "")
    )
    status, out, _ = command("task manipulation --refines less.task")
    assert status == 0 and out.startswith("yes\nputget: it is putget\n")
    status, out, _ = command("task less.task --refines manipulation")
    assert status == 1 and out.startswith("no\n") and "but undo fails at x = " in out


def test_a_task_is_trained_saved_and_resumed():
    status, out, err = command(f"{VAE} out --save_steps 2 --seed 3")
    assert status == 0, err
    lines = out.splitlines()
    assert lines[0].split() == ["step", "loss", "rebuild", "prior", "learning", "rate", "rows/s"]
    assert [line.split()[0] for line in lines[1:3]] == ["2", "4"] and "written   out" in out
    metrics = json.loads(Path("out/metrics.json").read_text(encoding="utf-8"))
    assert metrics["loss"] == pytest.approx(10 * metrics["loss_rebuild"] + metrics["loss_prior"], rel=1e-4)
    bindings = json.loads(Path("out/bindings.json").read_text(encoding="utf-8"))
    assert bindings == {"data": {"D": "digits"}, "bind": {"enc": "mlp(16)", "dec": "linear"}}
    model = TaskModel(read_task("out/task.task"), bindings["bind"])
    model.load_learned_state(load_file("out/model.safetensors"), "out")
    assert {"checkpoint-2", "checkpoint-4", "diagram.svg", "trainer_state.json"} <= set(os.listdir("out"))
    # A finished run is not written over; a checkpoint of it gives the same weights.
    status, _, err = command(f"{VAE} out")
    assert status == 2 and "--output_dir 'out' holds another run; resume it by --resume_from_checkpoint true" in err
    status, _, err = command(f"{VAE} again --seed 3 --resume_from_checkpoint out/checkpoint-2")
    assert status == 0, err
    one, other = load_file("out/model.safetensors"), load_file("again/model.safetensors")
    assert list(one) == list(other) and all((one[name] == other[name]).all() for name in one)


def test_a_recipe_is_trained_with_flags_behind_it():
    Path("fit.yaml").write_text(
        "task: supervised\ndata: {D: {dataset: digits, max_train_samples: 40}}\nbind: {f: linear}\nmax_steps: 90\n"
    )
    status, out, err = command(f'task fit.yaml --train --players \'{{"f": {{"lr": 0.1}}}}\' {SHORT}')
    assert status == 0, err
    assert out.rstrip().endswith("written   runs/task-fit") and "loss_fit" in out
    assert json.loads(Path("runs/task-fit/trainer_state.json").read_text(encoding="utf-8"))["global_step"] == 4


def test_a_learner_of_a_trained_task_is_a_fixed_box_of_another():
    train = f"task supervised --bind D=digits f=mlp(16) --train {SHORT} --output_dir first"
    assert command(train)[0] == 0
    status, out, err = command(f"task distillation --bind D=digits teacher=first:f --train {SHORT} --output_dir second")
    assert status == 0 and "loss_hint" in out, err
    student = TaskModel(patterns.distillation(), {"teacher": "first:f", "student": "second:student"})
    state = load_file("first/model.safetensors")
    for name, value in student.fixed["teacher"].state_dict().items():
        assert torch.equal(value, state[f"boxes.f.{name}"])
    for name, value in load_file("second/model.safetensors").items():
        assert torch.equal(value, student.state_dict()[name])
    with pytest.raises(AtomError, match="fixed teacher: first:g: the task there has no learner g; it has f"):
        TaskModel(patterns.distillation(), {"teacher": "first:g", "student": "mlp"})
    with pytest.raises(
        AtomError, match=r"f is pixels\(1, 8, 8\) -> class\(10\) there, and teacher is .* -> class\(7\)"
    ):
        TaskModel(patterns.distillation(label="class(7)"), {"teacher": "first:f", "student": "mlp"})
    Path("first/bindings.json").write_text("{}", encoding="utf-8")
    with pytest.raises(AtomError, match="does not say what f was made of; train the task by atom-hf task"):
        TaskModel(patterns.distillation(), {"teacher": "first:f", "student": "mlp"})


BAD = {
    "task": "give the task first: atom-hf task FILE",
    "task --train": "give the task first: atom-hf task FILE",
    "task nosuch.task": "'nosuch.task': there is no such file; give the path of a task, or one of atom_modeling",
    "task nosuch.yaml": "recipe 'nosuch.yaml' cannot be read",
    "task broken.task": "broken.task: line 1: got 'typ'; expected the end of the line, 'const', 'data'",
    "task gan --check --train": "give one of --check, --draw, --refines and --train, got --check, --train",
    "task gan --draw .": "--draw '.' cannot be written: give the path of a file in a folder",
    "task gan --refines gan": "fake, fool: dis(gen(n)) cannot equal both zero and one",
    "task gan --refines nosuch": "'nosuch': there is no such file",
    "task gan --bind gen": "--bind 'gen': give a name and what it is",
    "task gan --nosuch": "no such flag: --nosuch; atom-hf task FILE --help_all lists them",
    "task gan --train": "data D: no data set is bound to it; give --bind D=digits",
    "task gan --train --bind D=digits": "data D: D.1 (sample): pictures of 64 pixels are no vector(2)",
    "task supervised --train --bind D=digits f=nosuch/model": "learner f: 'nosuch/model': no such model that can be read",
    "task supervised --train --bind D=digits f=mlp(0)": "learner f: a width is a whole number from 1 to 65536",
    "task supervised --train --bind D=nosuch.csv": "data D: --dataset 'nosuch.csv': there is no such file or folder",
    "task supervised --train --bind D=digits --learning_rate nan": "--learning_rate must be",
    "task supervised --train --bind D=digits --players {": "players: '{' is no JSON",
    "task supervised --train --bind D=digits --report_to nosuch": "--report_to 'nosuch' does not exist",
    "task supervised --train --bind D=digits --output_dir broken.task": "--output_dir 'broken.task' is a file; give a folder",
    "task manipulation --train --bind D=digits": "fixed get: no module is bound to it; give --bind get=MODEL",
    "task manipulation --train --bind D=digits get=mlp": "fixed get: mlp would be a new network, which is not trained",
    "task manipulation --train --bind D=digits get=vit-fashion-mnist --per_device_train_batch_size 16": (
        "law: ~ compares at least two rows of each class in a batch, and a batch has 16 rows; give "
        "--per_device_train_batch_size 20 or more"
    ),
    "task supervised --train --bind D=digits --torch_compile": "torch_compile: a task is not compiled as a whole",
    "task supervised --train --bind D=digits --activation_checkpointing": "a task does not recompute its boxes; leave it out",
    "task supervised --train --bind D=digits --metric_for_best_model accuracy": (
        "--metric_for_best_model 'accuracy' is not measured; give one of loss, loss_fit"
    ),
    "task supervised --train --bind D=digits --optim galore_adamw --optim_target_modules f": "optim",
}


@pytest.mark.promise(
    "A task that cannot be used ends in one line, with status 2, before training.",
    "files, patterns, bindings, data, flags and folders of atom-hf task",
)
@pytest.mark.parametrize(("line", "says"), BAD.items())
def test_bad_input_is_refused_in_one_line(line, says, started, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    Path("broken.task").write_text("typ image = pixels(1, 8, 8)\n")
    status, _, err = command(f"{line} --use_cpu" if "--train" in line and "FILE" not in says else line)
    lines = err.splitlines()
    assert status == 2 and "Traceback" not in err, err
    assert lines[-1].startswith("atom-hf: error: ") and says in lines[-1] and started == []
    assert not os.path.exists("runs") or os.listdir("runs") == []


def test_texts_are_trained_by_the_tokenizer_of_their_model(tmp_path):
    for name, count in (("one", None), ("other", 40)):
        tiny("bert").save_pretrained(name)
        tokenizer = make_tokenizer()
        if count:
            tokenizer = type(tokenizer)(vocab=dict(list(tokenizer.get_vocab().items())[:count]), model_max_length=48)
        tokenizer.save_pretrained(name)
    text = (
        f"type text = tokens({len(make_tokenizer())}), sense = class(2)\ndata T : text, sense\n"
        "fixed get : text -> sense = one\nlearner f : text -> sense\nfor t, s in T:\n    hint: f(t) == get(t)\n"
    )
    Path("hint.task").write_text(text, encoding="utf-8")
    data = "T=verse f="
    status, out, err = command(f"task hint.task --train --bind {data}one {SHORT} --output_dir hint")
    assert status == 0 and "loss_hint" in out, err
    status, _, err = command(f"task hint.task --train --bind {data}other {SHORT} --output_dir other_out")
    assert status == 2 and "get and f have tokenizers that differ, and take the same texts" in err
