"""The wheel: what is in it, and that it works in an environment of its own."""

import os
import subprocess
import sys
import venv
import zipfile

import pytest

from helpers.paths import ROOT


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "-w", str(folder)]
    source = folder / "source"
    subprocess.run(["git", "-C", ROOT, "checkout-index", "-a", f"--prefix={source}/"], check=True)
    subprocess.run([*command, str(source)], check=True, timeout=120)
    (file,) = folder.glob("*.whl")
    return file


def test_the_wheel_holds_its_data_and_nothing_else(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    for name in (
        "atom_hf/py.typed",
        "atom_hf/visualization/templates/page.html.j2",
        "atom_hf/visualization/templates/page.js",
        "atom_hf/cli/accelerate_configs/zero3.yaml",
        "atom_hf/cli/help/train.txt",
        "atom_hf/hub/template.md",
        "atom_hf/tasks/grammar.lark",
        "atom_hf/assets/verse/train.parquet",
        "atom_hf/assets/verse/test.parquet",
        "atom_hf/assets/vit_fashion_mnist/config.json",
        "atom_hf/assets/vit_fashion_mnist/model.safetensors",
        "atom_hf/assets/vit_fashion_mnist/preprocessor_config.json",
    ):
        assert name in names
    assert {name.split("/")[0].split("-")[0] for name in names} == {"atom_hf"}
    assert any(name.endswith("licenses/LICENSE") for name in names)


@pytest.mark.slow
def test_the_wheel_works_in_an_empty_environment(wheel, tmp_path):
    venv.create(tmp_path / "env", with_pip=True)
    scripts = tmp_path / "env" / "bin"
    install = [scripts / "python", "-m", "pip", "install", "--quiet", "-c", ROOT / "constraints.txt", wheel]
    subprocess.run(install, check=True, timeout=900)
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    flags = (
        "--model vit-fashion-mnist --dataset digits --atom --max_train_samples 20 --max_eval_samples 20 --max_steps 2"
    )
    run = subprocess.run(
        [scripts / "atom-hf", "train", *flags.split(), "--output_dir", "out"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert run.returncode == 0, run.stderr
    assert "mean |importance|" in run.stdout and "atom-hf explain" in run.stdout
    assert (tmp_path / "out" / "atom_heads.safetensors").exists()
