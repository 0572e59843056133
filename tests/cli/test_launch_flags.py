"""`atom-hf train --accelerate_config`: what is passed to accelerate launch, and what is rejected."""

import importlib.util
import os
import signal
from pathlib import Path

import pytest
import yaml
from torch.distributed.elastic.multiprocessing import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure

import atom_hf
from atom_hf.cli.launch import NAMES
from atom_hf.cli.main import main

CONFIGS = Path(atom_hf.__file__).parent / "cli" / "accelerate_configs"


def with_deepspeed(find):
    return lambda name, *package: name if name == "deepspeed" else find(name, *package)


def started(monkeypatch, *arguments):
    """What `accelerate launch` would have been given."""
    seen = []
    monkeypatch.setattr("accelerate.commands.launch.launch_command", seen.append)
    assert main(["train", *arguments]) == 0
    return seen[0]


def rejected(capsys, *arguments):
    """The one line that says why nothing was started."""
    assert main(["train", *arguments]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    return error


def test_every_name_is_a_file():
    kinds = {name: yaml.safe_load((CONFIGS / f"{name}.yaml").read_text())["distributed_type"] for name in NAMES}
    assert kinds == {"ddp": "MULTI_GPU", "fsdp2": "FSDP", "zero2": "DEEPSPEED", "zero3": "DEEPSPEED"}
    assert sorted(path.stem for path in CONFIGS.glob("*.yaml")) == sorted(NAMES)


@pytest.mark.parametrize("form", [["--accelerate_config", "zero2"], ["--accelerate-config=zero2"]])
def test_flags_are_shared_out(form, monkeypatch):
    # Both know gradient_accumulation_steps.
    monkeypatch.setattr("importlib.util.find_spec", with_deepspeed(importlib.util.find_spec))
    flags = ["--atom", "--num_processes", "2", *form, "--gradient_accumulation_steps", "3", "--main-process-port=7"]
    args = started(monkeypatch, *flags, "--enable_cpu_affinity", "--log_dir", "", "--run_name", "2", "--label-names=a")
    ours = ["--atom", "--gradient_accumulation_steps", "3", "--run_name", "2", "--label-names=a"]
    assert Path(args.config_file) == CONFIGS / "zero2.yaml" and args.training_script_args == ["train", *ours]
    assert (args.num_processes, args.main_process_port, args.enable_cpu_affinity, args.log_dir) == (2, 7, True, "")
    assert "gradient_accumulation_steps" not in args.nondefault


def test_a_value_is_not_taken_for_the_flag_that_it_equals(monkeypatch):
    flags = ["--seed", "2", "--num_processes", "2", "--model", "a b", "--data_seed", "2", "--machine_rank", "2"]
    args = started(monkeypatch, "--accelerate_config", "ddp", *flags)
    assert args.training_script_args == ["train", "--seed", "2", "--model", "a b", "--data_seed", "2"]


def test_the_launcher_takes_no_device_and_leaves_the_environment_as_it_is(monkeypatch):
    monkeypatch.setattr("transformers.TrainingArguments.__post_init__", lambda self: pytest.fail("built"))
    before = dict(os.environ)
    started(monkeypatch, "--accelerate_config", "fsdp2", "--num_processes", "2", "--deepspeed", "x.json")
    assert dict(os.environ) == before


@pytest.mark.promise("No token is shown, logged, saved or pushed.")
def test_the_token_is_not_among_the_flags_of_the_processes(monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "old")
    args = started(monkeypatch, "--accelerate_config=ddp", "--num_processes=2", "--hub_token", "hf_secret", "--atom")
    assert args.training_script_args == ["train", "--atom"] and os.environ["HF_TOKEN"] == "hf_secret"


@pytest.mark.parametrize("flags", [["--num_processes", "2"], ["--num_processes", "2", "--seed", "3"]])
def test_without_the_flag_those_of_accelerate_are_unknown(flags, capsys):
    assert "no such flag: --num_processes" in rejected(capsys, *flags)


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
    monkeypatch.setattr("importlib.util.find_spec", with_deepspeed(importlib.util.find_spec))
    monkeypatch.setenv("DS_ACCELERATOR", "cuda")
    monkeypatch.delenv("DS_ACCELERATOR")
    started(monkeypatch, "--accelerate_config=zero2", "--num_processes", "2", *flags)
    assert os.environ.get("DS_ACCELERATOR") == ("cpu" if cpu else None)


def test_a_file_of_ones_own_is_left_as_it_is(monkeypatch, tmp_path):
    file = tmp_path / "own.yaml"
    file.write_text("distributed_type: MULTI_GPU\nnum_processes: 8\n")
    args = started(monkeypatch, "--accelerate_config", str(file))
    assert args.config_file == str(file) and args.num_processes is None and args.main_process_port is None


@pytest.mark.promise(
    "Bad input ends in one line that names the argument, with exit code 2, before training, and nothing is written."
)
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["--accelerate_config", "zero"],
            "'zero': no such configuration or file; give one of ddp, fsdp2, zero2, zero3",
        ),
        (["--accelerate_config"], "--accelerate_config: give one of ddp"),
        (["--accelerate_config", "--atom"], "--accelerate_config: give one of ddp"),
        (["--accelerate_config="], "--accelerate_config: give one of ddp"),
        (["--accelerate_config", "ddp"], "there is no GPU; give --use_cpu and --num_processes"),
        (["--accelerate_config", "ddp", "--num_processes", "x"], "accelerate launch: argument --num_processes"),
        (["--accelerate_config", "ddp", "--num_processes"], "--num_processes/--num-processes: expected one argument"),
        (["--accelerate_config", "ddp", "--log_dir"], "--log_dir/--log-dir: expected one argument"),
        (["--accelerate_config", __file__], "is not a configuration of accelerate"),
        (["--accelerate_config", "ddp", "--x"], "no such flag: --x;"),
        (["--accelerate_config", "ddp", "--x", "3", "--num_processes", "2"], "no such flag: --x;"),
        (["--accelerate_config", "ddp", "--num_processes", "2", "3"], "no such flag: 3;"),
        (["--accelerate_config", "ddp", "atom_hf", "--num_processes", "2"], "no such flag: atom_hf;"),
        (["--accelerate_config", "ddp", "--num_processes", "2", "--seed", "many"], "--seed"),
        (["--accelerate_config", "ddp", "--num_processes", "2", "--config", "none.yaml"], "'none.yaml' cannot be read"),
        (["--accelerate_config", "ddp", "--cpu"], "--cpu: accelerate launch would start something else"),
        (["--accelerate_config", "ddp", "-m"], "--module: accelerate launch would start something else"),
        (["--accelerate_config", "ddp", "--config_file", __file__], "--config_file: accelerate launch would start"),
        (["--accelerate_config", "ddp", "--no_python"], "--no_python: accelerate launch would start"),
        (["--accelerate_config", "ddp", "-q"], "--quiet: accelerate launch would start"),
    ],
)
def test_what_cannot_be_launched_is_rejected_in_one_line(arguments, message, capsys, monkeypatch):
    monkeypatch.setattr("torch.accelerator.is_available", lambda: False)
    monkeypatch.setattr("accelerate.commands.launch.launch_command", lambda args: pytest.fail("started"))
    assert message in rejected(capsys, *arguments)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is not a configuration of accelerate"),
        ("num_processes: 2", "`distributed_type` must be specified"),
        ("distributed_type: MANY", "'MANY' is not a valid DistributedType"),
        ("{distributed_type: MULTI_GPU, typo: 2}", "unknown keys (['typo'])"),
        ("{compute_environment: AMAZON_SAGEMAKER, distributed_type: 'NO'}", "is not a configuration of accelerate"),
    ],
)
def test_a_file_that_is_no_configuration_is_rejected_in_one_line(text, message, capsys, tmp_path):
    (tmp_path / "own.yaml").write_text(text)
    assert message in rejected(capsys, "--accelerate_config", str(tmp_path / "own.yaml"))


@pytest.mark.parametrize("flags", [[], ["--accelerate_config", "ddp", "--num_processes", "2"]])
def test_the_run_is_not_started_over_processes_by_its_config_file(flags, capsys, tmp_path):
    (tmp_path / "run.yaml").write_text("accelerate_config: ddp\n")
    assert "keys that are not flags: accelerate_config" in rejected(
        capsys, "--config", str(tmp_path / "run.yaml"), *flags
    )


def test_deepspeed_that_is_missing_is_named(capsys, monkeypatch):
    found = importlib.util.find_spec
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "deepspeed" else found(name))
    assert main(["train", "--accelerate_config=zero3", "--num_processes", "2"]) == 2
    assert "needs DeepSpeed: pip install 'atom-hf[deepspeed]'" in capsys.readouterr().err


def test_a_process_that_was_started_starts_no_others(capsys, monkeypatch):
    monkeypatch.setenv("LOCAL_RANK", "0")
    assert "is one of several already" in rejected(capsys, "--accelerate_config", "ddp")


@pytest.mark.parametrize(
    ("end", "status"),
    [
        (ChildFailedError("x", {0: ProcessFailure(0, 1, 3, "none"), 1: ProcessFailure(1, 2, 4, "none")}), 3),
        (ChildFailedError("x", {0: ProcessFailure(0, 1, -signal.SIGKILL, "none")}), 128 + signal.SIGKILL),
        (SignalException("x", signal.SIGTERM), 128 + signal.SIGTERM),
        (ValueError("less than two\nGPUs"), 2),
    ],
)
def test_the_status_is_that_of_the_first_process_that_failed(end, status, monkeypatch):
    def fail(args):
        raise end

    monkeypatch.setattr("accelerate.commands.launch.launch_command", fail)
    assert main(["train", "--accelerate_config", "ddp", "--num_processes", "2"]) == status


def test_help_shows_it(capsys):
    for flags in (["--help"], ["--accelerate_config", "ddp", "--help"]):
        assert main(["train", *flags]) == 0
        assert "one of ddp, fsdp2, zero2, zero3" in " ".join(capsys.readouterr().out.split())
