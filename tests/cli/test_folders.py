"""Every command that writes a folder: one run at a time in it, and only where something can be written."""

import os

import pytest

from atom_hf.utils.lock import HOST, LOCK_NAME, lock_folder
from helpers.commands import command
from helpers.studies import SHORT, write

pytestmark = [
    pytest.mark.usefixtures("digits_once", "own_folder"),
    pytest.mark.promise(
        "One run at a time writes to a folder.",
        "train, compare, study, faithfulness, fragments, task and fit-explainer, twice in one folder; folders that cannot be "
        "written to",
    ),
]

DATA = "--dataset digits --max_train_samples 24 --max_eval_samples 10"
VIT = (
    f"--model_type vit --config_overrides hidden_size=16,num_hidden_layers=1,num_attention_heads=2,intermediate_size=16,"
    f"image_size=8,patch_size=4,num_channels=1 {DATA}"
)
COMMANDS = {
    "train": f"train {VIT} --output_dir",
    "train --atom": f"train {VIT} --atom --output_dir",
    "compare": f"compare {VIT} --seeds 2 --output_dir",
    "study": "study study.yaml --output_dir",
    "faithfulness": f"faithfulness {DATA} --model nowhere/model --methods random --output_dir",
    "fragments": "fragments --dataset digits --models nowhere/model other/model --channels space --output_dir",
    "task": "task supervised --train --bind D=digits --output_dir",
    "fit-explainer": f"fit-explainer {DATA} --model . --output_dir",
    "fit-explainer in place": f"fit-explainer {DATA} --model",
}
ALL = pytest.mark.parametrize("name", COMMANDS)


@pytest.fixture(autouse=True)
def study(tmp_path):
    write(tmp_path, SHORT)


def rejected(line, status=2):
    found, _, err = command(line)
    lines = err.splitlines()
    assert found == status and lines[-1].startswith("atom-hf: error: ") and "Traceback" not in err, err
    return lines[-1]


@ALL
def test_a_folder_that_another_run_writes_to_is_refused(name, started):
    with lock_folder("out"):
        line = rejected(f"{COMMANDS[name]} out")
        assert f"'out' is being written to by process {os.getpid()} on {HOST}" in line and started == []
        assert os.listdir("out") == [LOCK_NAME]


@ALL
def test_a_folder_within_a_file_is_rejected(name, started):
    open("file", "w").close()
    os.makedirs("in/place")
    where = "file/inner" if "in place" not in name else "file"
    line = rejected(f"{COMMANDS[name]} {where}")
    assert where in line and started == [] and os.path.isfile("file")


@ALL
def test_a_folder_that_cannot_be_written_to_is_rejected(name, started, monkeypatch):
    os.mkdir("out")
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    assert "'out' cannot be written to: " in rejected(f"{COMMANDS[name]} out") and started == []
    assert os.listdir("out") == []


def test_a_study_may_be_looked_at_while_it_runs():
    with lock_folder("out"):
        status, out, err = command("study study.yaml --output_dir out --report_only")
        assert status == 0, err
        assert "written   out/" in out


def test_two_comparisons_one_after_the_other_go_on(started):
    line = f"{COMMANDS['compare']} out --max_steps 1 --per_device_train_batch_size 8 --use_cpu"
    for _ in range(2):
        assert command(line)[0] == 0 and len(started) == 4
    assert LOCK_NAME not in os.listdir("out")


@pytest.mark.parametrize("name", ["compare", "study"])
def test_a_result_that_finds_no_room_is_said_in_a_line(name, monkeypatch):
    more = " --max_steps 1 --per_device_train_batch_size 8 --use_cpu" if name == "compare" else ""
    real = os.fsync

    def fsync(opened):
        if os.readlink(f"/proc/self/fd/{opened}").endswith("/results.jsonl"):
            raise OSError(28, "No space left on device")
        real(opened)

    monkeypatch.setattr(os, "fsync", fsync)
    line = rejected(f"{COMMANDS[name]} out{more}")
    assert "out/results.jsonl: the last result could not be written: No space left on device; make room" in line


def test_a_full_disk_anywhere_else_is_a_line_too(monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device", "somewhere")

    monkeypatch.setattr("atom_hf.finetune.run.load_run_data", full)
    assert "somewhere could not be written: No space left on device" in rejected(f"{COMMANDS['train']} out")
