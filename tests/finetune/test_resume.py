"""Runs that are resumed when they have ended already, and runs that early stopping ends."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from atom_hf.finetune import run as run_module
from helpers.commands import BERT, command, results

# Three steps an epoch, so that a fourth is not the last of one; at a rate that does not fall, a step too many would show.
SMALL = (
    f"{BERT} --dataset rows.csv --vocabulary_size 300 --max_train_samples 24 --max_eval_samples 8 "
    "--per_device_train_batch_size 8 --lr_scheduler_type constant --report_to none --use_cpu"
)
FOUR = f"{SMALL} --max_steps 4 --save_steps 4"
STOP = "--eval_strategy steps --eval_steps 1 --save_steps 1 --metric_for_best_model loss --load_best_model_at_end true"
STOPPING = f"{SMALL} --max_steps 12 --learning_rate 0.5 {STOP} --early_stopping_patience 2"

pytestmark = pytest.mark.usefixtures("own_folder", "few_steps", "rows")


@pytest.fixture
def rows(tmp_path):
    words = ["the", "sun", "and", "moon", "of", "a", "day", "or", "night", "in", "May"]
    lines = [f"{' '.join(words[(i * k) % 11] for k in range(2, 8))},{'ab'[i % 2]}" for i in range(40)]
    (tmp_path / "rows.csv").write_text("\n".join(["text,label", *lines]) + "\n", encoding="utf-8")


def train(line):
    status, out, err = command(f"train {line}")
    assert status == 0, err
    return out


def weights(folder):
    return {path.name: load_file(path) for path in sorted(folder.glob("*.safetensors"))}


def same(one, other):
    return one.keys() == other.keys() and all(
        one[file].keys() == other[file].keys()
        and all(torch.equal(one[file][name], other[file][name]) for name in one[file])
        for file in one
    )


def checkpoints(folder):
    return sorted(path.name for path in folder.glob("checkpoint-*"))


@pytest.mark.promise("A finished run that is resumed stays as it is: nothing is trained or fitted again.")
@pytest.mark.parametrize("flags", ["", "--atom --no_explainer", "--atom --explainer_samples 16"])
def test_a_finished_run_that_is_resumed_stays_as_it_is(flags, tmp_path, caplog, monkeypatch):
    folder = tmp_path / "run"
    train(f"{FOUR} {flags} --output_dir {folder}")
    before, found = weights(folder), results(folder)
    assert ("explainer.outer.weight" in before.get("atom_heads.safetensors", {})) == ("samples" in flags)

    def never(*_):
        raise AssertionError("fitted again")

    monkeypatch.setattr(run_module, "_fit_explainer", never)
    out = train(f"{FOUR} {flags} --output_dir {folder} --resume_from_checkpoint true")
    assert same(weights(folder), before) and results(folder) == found and checkpoints(folder) == ["checkpoint-4"]
    assert f"{folder}/checkpoint-4 is the end of the run: there is nothing left to train" in caplog.text
    again = f"importance is already fitted to the prediction; atom-hf fit-explainer --model {folder} fits it again"
    assert (again in caplog.text) == ("samples" in flags)
    assert (
        json.loads((folder / "trainer_state.json").read_text())["num_train_epochs"] == 2
        and f"model     {folder}" in out
    )


def spoil(folder):
    """Heads of another run."""
    file = folder / "atom_heads.safetensors"
    heads = load_file(file)
    heads["importance.weight"][0, 0] += 0.5
    save_file(heads, file, metadata={"format": "pt"})


def truncate(folder):
    file = folder / "atom_heads.safetensors"
    file.write_bytes(file.read_bytes()[:100])


def drop(folder):
    (folder / "atom_config.json").unlink()


def unfitted(folder):
    """As if the run had been killed while importance was fitted."""
    shutil.copy(folder / "checkpoint-4" / "atom_config.json", folder)
    heads = load_file(folder / "atom_heads.safetensors")
    kept = {name: value for name, value in heads.items() if not name.startswith("explainer.")}
    save_file(kept, folder / "atom_heads.safetensors", metadata={"format": "pt"})


def classes(folder):
    config = json.loads((folder / "atom_config.json").read_text())
    (folder / "atom_config.json").write_text(json.dumps({**config, "explainer_classes": 3}))


@pytest.fixture(scope="module")
def fitted_once(tmp_path_factory):
    return tmp_path_factory.mktemp("fitted") / "run"


@pytest.mark.promise("A finished run that is resumed stays as it is: nothing is trained or fitted again.")
@pytest.mark.parametrize("change", [spoil, truncate, drop, unfitted, classes])
def test_an_explainer_that_is_not_of_this_run_is_fitted_again(change, fitted_once, tmp_path):
    flags = f"{FOUR} --atom --explainer_samples 16"
    if not fitted_once.exists():
        train(f"{flags} --output_dir {fitted_once}")
    folder = tmp_path / "run"
    shutil.copytree(fitted_once, folder)
    change(folder)
    assert "masking explained" in train(f"{flags} --output_dir {folder} --resume_from_checkpoint true")
    assert same(weights(folder), weights(fitted_once))


@pytest.mark.promise("A finished run that is resumed stays as it is: nothing is trained or fitted again.")
def test_a_finished_run_that_is_given_more_steps_trains_on(tmp_path):
    more = f"{SMALL} --max_steps 6 --save_steps 2"
    train(f"{more} --output_dir {tmp_path / 'whole'}")
    train(f"{FOUR} --output_dir {tmp_path / 'run'}")
    train(f"{more} --output_dir {tmp_path / 'run'} --resume_from_checkpoint true")
    assert same(weights(tmp_path / "run"), weights(tmp_path / "whole"))


# Early stopping


@pytest.mark.promise("A finished run that is resumed stays as it is: nothing is trained or fitted again.")
@pytest.mark.parametrize("arm", ["", "--atom --no_explainer"])
def test_early_stopping_ends_a_run_and_ends_it_in_the_same_place_after_a_cut(arm, tmp_path, caplog):
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    train(f"{STOPPING} {arm} --output_dir {whole}")
    state = json.loads((whole / "trainer_state.json").read_text())
    best, last = int(state["best_model_checkpoint"].rpartition("-")[2]), state["global_step"]
    assert last == best + 2 < 12
    losses = [entry["eval_loss"] for entry in state["log_history"] if "eval_loss" in entry]
    assert results(whole)["loss"] == pytest.approx(min(losses))
    # Cut off between the best evaluation and the last: the one that was counted before counts.
    for step in range(best, last):
        shutil.copytree(whole / f"checkpoint-{step}", cut / f"checkpoint-{step}")
        state_file = cut / f"checkpoint-{step}" / "trainer_state.json"
        state_file.write_text(state_file.read_text().replace(str(whole), str(cut)))
    train(f"{STOPPING} {arm} --output_dir {cut} --resume_from_checkpoint true")
    assert same(weights(cut), weights(whole)) and results(cut) == results(whole)
    assert json.loads((cut / "trainer_state.json").read_text())["global_step"] == last
    # What it ended is finished.
    caplog.clear()
    train(f"{STOPPING} {arm} --output_dir {cut} --resume_from_checkpoint true")
    assert f"checkpoint-{last} is the end of the run" in caplog.text and f"checkpoint-{last + 1}" not in checkpoints(
        cut
    )
    assert same(weights(cut), weights(whole))
    # A larger patience is none that was used up.
    train(f"{STOPPING.replace('patience 2', 'patience 3')} {arm} --output_dir {cut} --resume_from_checkpoint true")
    assert f"checkpoint-{last + 1}" in checkpoints(cut)
