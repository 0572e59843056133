"""`atom-hf train --accelerate_config`: what is passed to accelerate launch, and what is refused."""

import importlib.util
import os
from pathlib import Path

import pytest
import yaml

import atom_hf
from atom_hf import AtomError
from atom_hf.cli import main
from atom_hf.launch import NAMES, Launch, launch, split

CONFIGS = Path(atom_hf.__file__).parent / "assets" / "accelerate"


def started(monkeypatch, *arguments):
    """What `accelerate launch` would have been given."""
    seen = []
    monkeypatch.setattr("accelerate.commands.launch.launch_command", seen.append)
    assert launch(split(list(arguments))) == 0
    return seen[0]


def test_every_name_is_a_file():
    kinds = {name: yaml.safe_load((CONFIGS / f"{name}.yaml").read_text())["distributed_type"] for name in NAMES}
    assert kinds == {"ddp": "MULTI_GPU", "fsdp2": "FSDP", "zero2": "DEEPSPEED", "zero3": "DEEPSPEED"}
    assert sorted(path.stem for path in CONFIGS.glob("*.yaml")) == sorted(NAMES)


@pytest.mark.parametrize("form", [["--accelerate_config", "zero2"], ["--accelerate_config=zero2"]])
def test_flags_are_shared_out(form):
    # gradient_accumulation_steps and debug are known to both.
    asked = split(
        ["--atom", "--num_processes", "2", *form, "--gradient_accumulation_steps", "3", "--main-process-port=0", "--x"]
    )
    assert asked == Launch(
        "zero2",
        ["--num_processes", "2", "--main-process-port=0"],
        ["--atom", "--gradient_accumulation_steps", "3", "--x"],
    )


def test_without_the_flag_nothing_is_taken():
    assert split(["--atom", "--num_processes", "2"]) == Launch(None, [], ["--atom", "--num_processes", "2"])


def test_the_run_is_passed_on(monkeypatch):
    args = started(monkeypatch, "--accelerate_config", "fsdp2", "--num_processes", "3", "--atom", "--use_cpu")
    assert Path(args.config_file) == CONFIGS / "fsdp2.yaml" and args.num_processes == 3 and args.module
    assert (args.training_script, args.training_script_args) == ("atom_hf", ["train", "--atom", "--use_cpu"])
    assert args.main_process_port == 0


def test_by_default_there_is_a_process_for_each_gpu(monkeypatch):
    monkeypatch.setattr("torch.accelerator.is_available", lambda: True)
    monkeypatch.setattr("torch.accelerator.device_count", lambda: 4)
    assert started(monkeypatch, "--accelerate_config=ddp", "--atom").num_processes == 4


@pytest.mark.parametrize("flags", [["--gpu_ids", "0,2"], ["--gpu_ids=0,2"], ["--gpu-ids", "0,2"]])
def test_gpus_that_are_named_have_a_process_each(flags, monkeypatch):
    monkeypatch.setattr("torch.accelerator.is_available", lambda: True)
    monkeypatch.setattr("torch.accelerator.device_count", lambda: 4)
    args = started(monkeypatch, "--accelerate_config=ddp", *flags)
    assert args.num_processes == 2 and args.gpu_ids == "0,2"


@pytest.mark.parametrize(
    ("flags", "cpu"),
    [
        (["--use_cpu"], True),
        (["--use_cpu", "--atom"], True),
        (["--use-cpu"], True),
        (["--use_cpu", "true"], True),
        (["--use_cpu=True"], True),
        (["--use_cpu", "false"], False),
        (["--config", "own.yaml"], True),
        (["--config", "own.yaml", "--use_cpu", "false"], False),
        ([], False),
    ],
)
def test_deepspeed_is_told_where_it_runs(flags, cpu, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    Path("own.yaml").write_text("model: minilm\nuse_cpu: true\n")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name)
    monkeypatch.setenv("DS_ACCELERATOR", "cuda")
    monkeypatch.delenv("DS_ACCELERATOR")
    started(monkeypatch, "--accelerate_config=zero2", "--num_processes", "2", *flags)
    assert os.environ.get("DS_ACCELERATOR") == ("cpu" if cpu else None)


def test_a_file_of_ones_own_is_left_as_it_is(monkeypatch, tmp_path):
    file = tmp_path / "own.yaml"
    file.write_text("distributed_type: MULTI_GPU\nnum_processes: 8\n")
    args = started(monkeypatch, "--accelerate_config", str(file))
    assert args.config_file == str(file) and args.num_processes is None and args.main_process_port is None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["--accelerate_config", "zero"],
            "'zero': no such configuration or file; give one of ddp, fsdp2, zero2, zero3",
        ),
        (["--accelerate_config"], "--accelerate_config: give one of ddp"),
        (["--accelerate_config", "--atom"], "--accelerate_config: give one of ddp"),
        (["--accelerate_config", "ddp"], "there is no GPU; give --use_cpu and --num_processes"),
        (["--accelerate_config", "ddp", "--num_processes", "x"], "accelerate launch: argument --num_processes"),
        (["--accelerate_config", "ddp", "--num_processes"], "--num_processes: give its value"),
        (["--accelerate_config", __file__], "is no configuration of accelerate"),
    ],
)
def test_what_cannot_be_launched_is_refused_in_one_line(arguments, message, capsys, monkeypatch):
    monkeypatch.setattr("torch.accelerator.is_available", lambda: False)
    assert main(["train", *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


def test_deepspeed_that_is_missing_is_named(capsys, monkeypatch):
    found = importlib.util.find_spec
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "deepspeed" else found(name))
    assert main(["train", "--accelerate_config=zero3", "--num_processes", "2"]) == 2
    assert "needs DeepSpeed: pip install 'atom-hf[deepspeed]'" in capsys.readouterr().err


def test_a_process_that_was_started_starts_no_others(monkeypatch):
    monkeypatch.setenv("LOCAL_RANK", "0")
    with pytest.raises(AtomError, match="is one of several already"):
        launch(split(["--accelerate_config", "ddp"]))


def test_help_shows_it(capsys):
    with pytest.raises(SystemExit):
        main(["train", "--accelerate_config", "ddp", "--help"])
    assert "--accelerate_config" in capsys.readouterr().out
