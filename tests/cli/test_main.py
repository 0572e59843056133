"""The commands that there are, and their help."""

import importlib.metadata
import os
import subprocess
import sys

import pytest

import atom_hf
from atom_hf.cli import main as cli
from atom_hf.cli.main import main
from helpers.commands import command
from helpers.paths import environment


def test_help_and_version_of_the_module():
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "atom_hf", "--help"], capture_output=True, text=True, env=environment, check=True
    )
    usage = done.stdout.split("\n\n")[1]
    assert sorted(line.split()[0] for line in usage.splitlines()) == sorted(cli.COMMANDS) and done.stderr == ""
    assert command("--version") == (0, f"atom-hf {atom_hf.__version__}\n", "")
    assert command([])[0] == command("-h")[0] == 0


def test_the_installed_script_is_the_same():
    entry = next(e for e in importlib.metadata.entry_points(group="console_scripts") if e.name == "atom-hf")
    assert entry.load() is main


@pytest.mark.parametrize(
    ("name", "flags"),
    [
        ("train", ["--model", "--dataset", "--atom", "--atom_weight", "--learning_rate", "--config", "--explainer"]),
        ("compare", ["--seeds", "--arms", "--page", "--atom_weight"]),
        ("bench", ["--pairs", "--tokens", "--model_type", "--bf16"]),
        ("explain", ["--model", "--dataset", "--text", "--file", "--samples", "--page"]),
        ("study", ["--seeds", "--output_dir"]),
        ("fragments", ["--models", "--dataset", "--channels", "--regularization", "--fuse", "--select", "--config"]),
        ("push", ["--repo", "--create_pr"]),
        ("task", ["--check", "--draw", "--refines", "--train", "--bind", "--players", "--early_stopping_patience"]),
    ],
)
def test_each_command_lists_its_flags(name, flags):
    for asked in ("--help", "-h"):
        status, out, _ = command(f"{name} {asked}")
        assert status == 0 and f"atom-hf {name}" in out
        assert all(f"  {flag} " in out for flag in flags)


def test_help_imports_neither_torch_nor_transformers():
    program = (
        "import sys; from atom_hf.cli.main import main; status = main(['train', '--seed', '3', '--help']); "
        "print(status, {'torch', 'transformers'} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, env=environment(), check=True
    )
    assert done.stdout.startswith("usage: atom-hf train") and done.stdout.splitlines()[-1] == "0 set()"
