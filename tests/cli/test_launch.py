"""Runs over processes, started by name: DDP, FSDP2 and DeepSpeed end as one process with the whole batch, and a lost process
costs no more than the steps since the last checkpoint. helpers/launched.py is what each process does.
"""

import functools
import importlib.util
import json
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForSequenceClassification

import atom_hf
from atom_hf import load_atom_model
from helpers import exactness
from helpers.launched import MODELS, RELATIVE, ROWS, SEPARATION, one_process, rows_of
from helpers.models import TEXT, batch_for
from helpers.paths import environment
from helpers.training import equal

PROGRAM = ["-m", "helpers.launched"]
CONFIGS = Path(atom_hf.__file__).parent / "cli" / "accelerate_configs"
TITLES = {"ddp": "DDP", "fsdp2": "FSDP2", "zero2": "DeepSpeed ZeRO-2", "zero3": "DeepSpeed ZeRO-3"}
LAUNCHES = [("ddp", 2), ("ddp", 4), ("fsdp2", 2), ("zero2", 2), ("zero3", 2)]
SHARDED = [config for config, _ in LAUNCHES if config != "ddp"]
BATCH, WIDTH = 8, 32
GATHERING = "utils.distributed."
SECONDS = 120  # that the other process may take to notice


def why_not(config):
    """Why a configuration cannot be run here; empty if it can."""
    missing = config.startswith("zero") and importlib.util.find_spec("deepspeed") is None
    return "DeepSpeed is not installed" if missing else ""


@pytest.fixture(scope="module")
def killed(tmp_path_factory):
    """Two processes, started without a launcher that would end the one when the other is killed."""
    folder = tmp_path_factory.mktemp("killed")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        meet = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1]), "WORLD_SIZE": "2"}
    logs = [tmp_path_factory.mktemp("log") / rank for rank in "01"]
    runs = []
    for log in logs:
        variables = environment(**meet, RANK=log.name, LOCAL_RANK=log.name)
        with log.open("w") as file:
            runs.append(
                subprocess.Popen([sys.executable, *PROGRAM, "killed", folder], env=variables, stdout=file, stderr=file)
            )
    try:
        last = runs[1].wait(timeout=SECONDS)
        start = time.monotonic()
        first = runs[0].wait(timeout=SECONDS)
    finally:
        for run in runs:
            run.kill()
    took = time.monotonic() - start
    return {"folder": folder, "ends": [first, last], "message": logs[0].read_text(), "took": took}


@pytest.fixture(scope="module")
def launched(tmp_path_factory, killed):
    """launched(config, processes): what each process found, and the folder. Each launch is made once."""

    @functools.cache
    def launch(config, processes):
        folder = tmp_path_factory.mktemp(f"{config}{processes}")
        if (config, processes) == ("ddp", 2):
            shutil.copytree(killed["folder"], folder / "killed")
        start = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", CONFIGS / f"{config}.yaml"]
        start += ["--num_processes", str(processes), "--main_process_port", "0", *PROGRAM, config, folder]
        run = subprocess.run(start, capture_output=True, text=True, env=environment(), timeout=300)
        assert run.returncode == 0, run.stderr[-3000:]
        return [torch.load(folder / f"rank{rank}.pt") for rank in range(processes)], folder

    return launch


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
    """expected(name, numbers): the gradients and the gradient balancer of one process with these rows."""
    return functools.cache(lambda name, numbers: one_process(name, numbers, tmp_path_factory.getbasetemp()))


def marked(config, *more):
    """DeepSpeed compiles what it needs when it is first used: its cases are slow, and `make slow` installs it.

    So are four processes, which do what two do.
    """
    slow = config.startswith("zero") or more[:1] == (4,)
    return pytest.param(config, *more, marks=[pytest.mark.slow] if slow else [])


CASES = [marked(config, processes, name) for config, processes in LAUNCHES for name in MODELS]
CASES.append(marked("ddp", 2, "gpt2, not filled up"))


@pytest.mark.exactness
@pytest.mark.parametrize("step", [0, 1], ids=["whole", "last"])
@pytest.mark.parametrize(("config", "processes", "case"), CASES)
def test_processes_have_the_gradients_of_one(config, processes, case, step, launched, expected):
    name, _, unfilled = case.partition(",")
    rows = {"": "a last batch of 5, filled up to 8", " not filled up": "a last batch of 4 + 1"}[unfilled]
    kind = "texts of very different length" if name in TEXT else "images"
    what = f"{TITLES[config]}, {processes} processes: {name}, {rows if step else 'a batch of 8'}, {kind}"
    against = "one process with the same rows"
    if why := why_not(config):
        exactness.not_run(what, against, why)
        pytest.skip(why)

    parts = [part[case] for part in launched(config, processes)[0]]
    numbers = [number for part in parts for number in part["seen"][step]]
    assert len(numbers) == (5 if step and unfilled else BATCH) and set(numbers) == set(
        [*range(8, ROWS), *(() if unfilled else range(3))] if step else range(BATCH)
    )
    if name in TEXT:
        lengths = [max(len(rows_of(name)[n]["input_ids"]) for n in part["seen"][0]) for part in parts]
        assert max(lengths) > 2 * min(lengths)
    gradients, _ = expected(name, tuple(numbers))
    assert "atom_heads.position.weight" in gradients
    for part in parts:
        assert part["sharded"] == (config in ("fsdp2", "zero3"))
    exactness.compare(what, against, parts[0]["steps"][step], gradients)
    if step == 0:
        assert equal(parts[0]["steps"][0], parts[-1]["steps"][0])


@pytest.mark.exactness
@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize(("config", "processes"), [marked(*launch) for launch in LAUNCHES])
def test_the_separation_form_over_processes(config, processes, name, launched, tmp_path):
    # Distances are relative to those among the atoms of all processes.
    batches = {
        "a batch of 8": (range(BATCH), 0, 0),
        "a last batch of 5, filled up to 8": ([*range(BATCH, ROWS), *range(2 * BATCH - ROWS)], 0, 1),
        "cached pairs of 2 batches of 4": (range(BATCH), 1, 0),
    }
    for rows, (numbers, case, step) in batches.items():
        what = f"{TITLES[config]}, {processes} processes: separation form, {name}, {rows}"
        against = "one process with the same rows"
        if why := why_not(config):
            exactness.not_run(what, against, why)
            continue
        alone, _ = one_process(name, numbers, tmp_path, **SEPARATION)
        found = launched(config, processes)[0][0][f"{name}, separation"][case][step]
        exactness.compare(what, against, found, alone)
    if why:
        pytest.skip(why)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize(("config", "processes"), [marked(*launch) for launch in LAUNCHES])
def test_processes_measure_the_norms_of_one(config, processes, name, launched, tmp_path):
    if why := why_not(config):
        pytest.skip(why)
    found = launched(config, processes)[0][0][f"{name}, relative"]
    # The whole batch, and the one that is filled up with rows of the first. Norms are known up to a factor that both share.
    batches = tuple(range(BATCH)), (*range(BATCH, ROWS), *range(2 * BATCH - ROWS))
    alone = [one_process(name, numbers, tmp_path, **RELATIVE)[1] for numbers in batches]
    task, atom = (0.9 * alone[0][norm] + 0.1 * alone[1][norm] for norm in ("task_norm", "atom_norm"))
    assert found["task_norm"] / found["atom_norm"] == pytest.approx(task / atom, rel=1e-3)
    assert found["steps"] == 2


@pytest.mark.exactness
@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize(("config", "processes"), [marked(*launch) for launch in LAUNCHES])
def test_pairs_are_cached_over_processes(config, processes, name, launched, expected):
    what = f"{TITLES[config]}, {processes} processes: {name}, cached pairs of 2 batches of 4"
    against = "one process with a batch of 8"
    if why := why_not(config):
        exactness.not_run(what, against, why)
        pytest.skip(why)
    parts = [part[f"{name}, cached pairs"] for part in launched(config, processes)[0]]
    assert {number for part in parts for batch in part["seen"] for number in batch} == set(range(BATCH))
    gradients, _ = expected(name, tuple(range(BATCH)))
    assert all(len(part["steps"]) == 1 for part in parts)
    exactness.compare(what, against, parts[0]["steps"][0], gradients)
    sent = [
        n for part in parts for where, _, n, kind in part["calls"] if where == f"{GATHERING}forward" and "float" in kind
    ]
    assert sent == [BATCH // processes * (WIDTH + 3)] * processes, "the atoms go over once"


@pytest.mark.parametrize("processes", [2, pytest.param(4, marks=pytest.mark.slow)])
def test_running_statistics_are_what_they_are_without_a_cache(processes, launched):
    for part in launched("ddp", processes)[0]:
        plain, cached = part["buffers"]
        assert any(name.endswith("running_mean") for name in plain) and equal(plain, cached)


def test_a_weight_of_0_leaves_no_process_waiting(launched):
    for part in launched("ddp", 2)[0]:
        heads = {name: gradient for name, gradient in part["weight 0"][0].items() if "atom_heads" in name}
        assert len(heads) == 4 and all(gradient.abs().max() == 0 for gradient in heads.values())
        assert len(part["weight 0"]) == 2


@pytest.mark.parametrize(("config", "processes", "case"), CASES)
def test_only_atoms_go_between_processes(config, processes, case, launched):
    if why := why_not(config):
        pytest.skip(why)
    for part in launched(config, processes)[0]:
        calls = part[case]["calls"]
        assert calls
        floats = [numbers for where, _, numbers, kind in calls if where.startswith(GATHERING) and "float" in kind]
        # In both steps, whatever the number of tokens: the atoms of this process, and nothing backward.
        assert floats == 2 * [BATCH // processes * (WIDTH + 3)]
        assert {kind for where, _, _, kind in calls if where.startswith(GATHERING)} <= {
            "torch.float32",
            "torch.int64",
        }
        # Counts of rows, norms for the balancer, and what is logged.
        small = [numbers for where, _, numbers, kind in calls if "int" in kind or not where.startswith(GATHERING)]
        assert len(small) <= 6 and max(small) <= 10


@pytest.mark.promise(
    "What is saved is the plain base model and its heads: it loads without this package, and with it as it was."
)
@pytest.mark.parametrize("precision", ["float32", "bf16"])
@pytest.mark.parametrize("config", [marked(config) for config in SHARDED])
def test_a_sharded_run_saves_a_plain_model_and_resumes(config, precision, launched):
    if why := why_not(config):
        pytest.skip(why)
    parts, folder = launched(config, 2)
    gates = parts[0]["gates" if precision == "float32" else "gates, bf16"]
    assert gates[0] == gates[1] and gates[0]["steps"] == 6 and min(gates[0].values()) > 0
    finals = [folder / precision / run / "final" for run in ("alone", "resumed")]
    for file in ("model.safetensors", "atom_heads.safetensors"):
        assert equal(*(load_file(final / file) for final in finals))

    plain, info = AutoModelForSequenceClassification.from_pretrained(finals[0], output_loading_info=True)
    assert not any(info[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    model = load_atom_model(finals[0])
    assert all(torch.equal(p, model.state_dict()[name]) for name, p in plain.state_dict().items())
    assert not model.atom_importance(**batch_for("bert")).isnan().all()
    assert equal(model.state_dict(), load_atom_model(folder / precision / "alone" / "checkpoint-6").state_dict())
    start = load_atom_model(folder / precision / "alone" / "checkpoint-2").atom_heads.state_dict()
    assert not equal(start, model.atom_heads.state_dict())
    assert all("checkpoint-2 was written by a run with --atom" in part["error"] for part in parts)


def test_fsdp_trains_a_bfloat16_model_with_float32_heads(launched):
    assert launched("fsdp2", 2)[0][0]["bfloat16"] == {"torch.bfloat16": True, "torch.float32": True}


def test_a_process_whose_peer_is_killed_ends(killed):
    assert killed["ends"][1] == -signal.SIGKILL and killed["ends"][0] > 0, killed["message"][-2000:]
    assert killed["took"] < SECONDS and "Error" in killed["message"]
    assert sorted(path.name for path in killed["folder"].iterdir()) == ["checkpoint-2", "checkpoint-4"]


@pytest.mark.promise("A killed run resumes as if it had not been interrupted.")
def test_after_a_kill_two_processes_go_on_as_if_left_alone(launched):
    for part in launched("ddp", 2)[0]:
        resumed, alone = part["weights"]
        assert equal(resumed, alone)


FLAGS = "--model vit-fashion-mnist --dataset digits --atom --max_train_samples 40 --max_eval_samples 20 --use_cpu"
FLAGS += " --per_device_train_batch_size 4 --num_processes 2 --disable_tqdm true --no_explainer"


def command(config, folder, *more):
    start = [sys.executable, "-m", "atom_hf", "train", "--accelerate_config", config, *FLAGS.split()]
    return [*start, "--output_dir", folder, *more]


@pytest.mark.promise("A killed run resumes as if it had not been interrupted.")
@pytest.mark.slow
def test_the_launcher_says_that_a_process_was_killed_and_the_run_goes_on(tmp_path):
    steps = ["--max_steps", "60", "--save_steps", "20"]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True}
    whole, broken = (subprocess.Popen(command("ddp", tmp_path / name, *steps), **quiet) for name in ("whole", "broken"))
    try:
        end = time.monotonic() + SECONDS
        while not (tmp_path / "broken" / "checkpoint-20" / "trainer_state.json").exists():
            assert broken.poll() is None and time.monotonic() < end, broken.communicate()[1][-2000:]
            time.sleep(0.02)
        psutil.Process(broken.pid).children()[0].kill()
        assert broken.wait(timeout=SECONDS) > 0
        assert whole.wait(timeout=SECONDS) == 0, whole.communicate()[1][-2000:]
    finally:
        for run in (whole, broken):
            run.terminate()
            run.communicate()
    assert not (tmp_path / "broken" / "model.safetensors").exists()
    resume = command("ddp", tmp_path / "broken", *steps, "--resume_from_checkpoint", "true")
    run = subprocess.run(resume, capture_output=True, text=True, timeout=SECONDS)
    assert run.returncode == 0 and "atom-hf explain" in run.stdout, run.stderr[-2000:]
    for file in ("model.safetensors", "atom_heads.safetensors"):
        assert equal(*(load_file(tmp_path / name / file) for name in ("whole", "broken")))


@pytest.mark.slow
@pytest.mark.parametrize("config", [*SHARDED, "path"])
def test_a_pretrained_model_is_trained_by_name(config, tmp_path):
    # Loaded in shards under ZeRO-3, where its classifier, of other classes, starts anew all the same.
    if why := why_not(config):
        pytest.skip(why)
    if config == "path":  # checkpoints in shards, and a whole model at the end
        text = (CONFIGS / "fsdp2.yaml").read_text().replace("FULL_STATE_DICT", "SHARDED_STATE_DICT")
        config = tmp_path / "own.yaml"
        config.write_text(text)
    folder = tmp_path / "out"
    run = subprocess.run(
        command(str(config), folder, "--max_steps", "2", "--save_steps", "1"),
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert run.returncode == 0 and "atom-hf explain" in run.stdout, run.stderr[-2000:]
    assert json.loads((folder / "eval_results.json").read_text())["loss"] < 2.6  # ten classes at random: 2.3
    model = load_atom_model(folder)
    images = torch.zeros(1, model.config.num_channels, model.config.image_size, model.config.image_size)
    assert not model.atom_importance(pixel_values=images).isnan().all()
