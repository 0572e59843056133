"""Models and data sets by their id: the real client against a Hub of the tests' own, over HTTP."""

import io
import json
import os
import re
import subprocess
import sys

import pandas as pd
import pytest
import torch
import transformers
from hub_server import TOKEN, Hub, commit_of
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from atom_hf import AtomConfig, attach_atoms, load_atom_model

LINES = ["the sea is cold and grey", "a fire is warm and red", "they sleep by the cold sea", "we sing by the warm fire"]
WORDS = sorted({word for line in LINES for word in line.split()})
ROWS = pd.DataFrame({"line": LINES * 6, "label": [0, 1, 0, 1] * 6})
KINDS = ["cold", "warm"]
WRONG_TOKEN = "hf_aTokenThatMayReadNothing"

# Runs in a process of its own, since the client reads the address of the Hub when it is imported. Reads a list of steps,
# each either the arguments of the command line, or the number of a step whose printed next command is run, or a piece of
# Python that leaves its answer in `found`.
CLIENT = """
import contextlib, io, json, os, shlex, sys, traceback, warnings
import torch, transformers
from atom_hf import AtomMixin, load_atom_model
from atom_hf.cli import main

answers = []
for step in json.load(sys.stdin):
    out, err = io.StringIO(), io.StringIO()
    os.environ.pop("HF_TOKEN", None)
    os.environ.update(step.get("environment", {}))
    space = {**globals(), "found": None}
    if "next_of" in step:
        lines = answers[step["next_of"]]["out"].splitlines()
        step["arguments"] = shlex.split(next(line for line in lines if line.startswith("next ")))[2:]
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        try:
            status = main(step["arguments"]) if "arguments" in step else exec(step["python"], space)
        except SystemExit as error:
            status = error.code
        except BaseException as error:
            status = traceback.format_exc()
    answers.append({"status": status, "out": out.getvalue(), "err": err.getvalue(), "found": space["found"]})
json.dump(answers, sys.stdout)
"""


def make_tokenizer():
    vocabulary = {word: i for i, word in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", *WORDS])}
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    backend.post_processor = processors.TemplateProcessing("[CLS] $A [SEP]", None, [("[CLS]", 2), ("[SEP]", 3)])
    special = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    return transformers.PreTrainedTokenizerFast(tokenizer_object=backend, model_max_length=16, **special)


def make_model(seed):
    torch.manual_seed(seed)
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    config = transformers.BertConfig(vocab_size=len(WORDS) + 4, max_position_embeddings=16, **sizes)
    config.id2label, config.label2id = dict(enumerate(KINDS)), {kind: i for i, kind in enumerate(KINDS)}
    return transformers.BertForSequenceClassification(config).eval()


def parquet(rows):
    buffer = io.BytesIO()
    rows.to_parquet(buffer)
    return buffer.getvalue()


def importance_of(model):
    encoded = make_tokenizer()(LINES, padding=True, return_tensors="pt")
    return model.atom_importance(**encoded).nan_to_num(9).tolist()


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """What is on the Hub, as folders here: a base, and an atom model in two revisions."""
    root = tmp_path_factory.mktemp("models")
    make_model(0).save_pretrained(root / "base")
    for name, seed in (("v1", 1), ("v2", 2)):
        model = make_model(0)
        torch.manual_seed(seed)
        attach_atoms(model, AtomConfig(), make_tokenizer()).save_pretrained(root / name)
    for name in ("base", "v1", "v2"):
        make_tokenizer().save_pretrained(root / name)
    return root


@pytest.fixture(scope="module")
def hub(folders):
    with Hub() as hub:
        hub.add("org/base", folders / "base")
        hub.add("org/atoms", folders / "v1")
        hub.add("org/atoms", folders / "v2", revision="v2")
        hub.add("org/branched", {"README.md": b"Everything is on another branch.\n"})
        hub.add("org/branched", folders / "v2", revision="v2")
        hub.add("org/secret", folders / "base", private=True)
        hub.add("org/gated", folders / "base", gated=True)
        files = {"data/train.parquet": parquet(ROWS), "data/test.parquet": parquet(ROWS[:8]), "README.md": b"# Lines\n"}
        hub.add("org/data", files, kind="datasets")
        hub.add("org/table", {"train.csv": ROWS.to_csv(index=False).encode()}, kind="datasets")
        hub.add("org/secret-data", {"train.csv": ROWS.to_csv(index=False).encode()}, kind="datasets", private=True)
        card = "---\nconfigs:\n" + "".join(
            f"- config_name: {name}\n  data_files:\n  - split: train\n    path: {name}.csv\n" for name in ("one", "two")
        )
        several = {f"{name}.csv": ROWS[:n].to_csv(index=False).encode() for name, n in (("one", 12), ("two", 20))}
        hub.add("org/several", {"README.md": f"{card}---\n".encode(), **several}, kind="datasets")
        yield hub


def client(hub, folder, steps):
    """The answers of one process that takes the steps one after the other, in `folder`."""
    environment = {**os.environ, **hub.environment(folder / "home"), "OMP_NUM_THREADS": "1"}
    environment.pop("HF_TOKEN", None)
    done = subprocess.run(
        [sys.executable, "-c", CLIENT],
        input=json.dumps(list(steps.values())),
        env=environment,
        cwd=folder,
        capture_output=True,
        text=True,
        check=True,
    )
    # What libraries log goes past the redirection of sys.stderr: it belongs to the process.
    answers = [{**answer, "log": done.stderr} for answer in json.loads(done.stdout)]
    return dict(zip(steps, answers, strict=True))


SHORT = ["--max_steps", "2", "--per_device_train_batch_size", "4"]
READ = """
encoded = transformers.AutoTokenizer.from_pretrained("org/atoms")(LINES, padding=True, return_tensors="pt")
found = model.atom_importance(**encoded).nan_to_num(9).tolist()
"""
READ = READ.replace("LINES", repr(LINES))


def train(*arguments, **environment):
    return {"arguments": ["train", *arguments, *SHORT], "environment": environment}


@pytest.fixture(scope="module")
def loaded(hub, tmp_path_factory):
    folder = tmp_path_factory.mktemp("loaded")
    commit = hub.add("org/atoms", hub.repositories["models", "org/atoms"]["v2"], revision="v2")
    plain = """
auto = transformers.AutoModelForSequenceClassification
model, info = auto.from_pretrained("org/atoms", output_loading_info=True)
encoded = transformers.AutoTokenizer.from_pretrained("org/atoms")(LINES, padding=True, return_tensors="pt")
amiss = {name: sorted(map(str, keys)) for name, keys in info.items() if keys}
found = [isinstance(model, AtomMixin), model(**encoded).logits.tolist(), amiss]
"""
    return client(
        hub,
        folder,
        {
            "main": {"python": 'model = load_atom_model("org/atoms")' + READ},
            "branch": {"python": 'model = load_atom_model("org/atoms", revision="v2")' + READ},
            "commit": {"python": f'model = load_atom_model("org/atoms", revision="{commit}")' + READ},
            "plain": {"python": plain.replace("LINES", repr(LINES))},
        },
    )


@pytest.fixture(scope="module")
def trained(hub, tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained")
    on_data = ("--model", "org/base", "--dataset", "org/data")
    token, wrong = {"HF_TOKEN": TOKEN}, {"HF_TOKEN": WRONG_TOKEN}
    still = ("--learning_rate", "0", "--atom_head_learning_rate", "0")
    several = ("--dataset", "org/several", "--dataset_config")
    steps = {
        "parquet": train(*on_data, "--atom", "--output_dir", "parquet"),
        "csv": train("--model", "org/base", "--dataset", "org/table", "--output_dir", "csv"),
        "revision": train("--model", "org/atoms", "--model_revision", "v2", *on_data[2:], *still, "--atom"),
        "two": train("--model", "org/base", *several, "two", "--atom", "--output_dir", "two"),
        "next": {"next_of": 3},
        "three": train("--model", "org/base", *several, "three"),
        "no config": train("--model", "org/base", *several[:2]),
        "no model": train("--model", "org/nothing", *on_data[2:]),
        "no model, token": train("--model", "org/nothing", *on_data[2:], **token),
        "no revision": train(*on_data, "--model_revision", "v9"),
        "no data": train(*on_data[:2], "--dataset", "org/nothing"),
        "private": train("--model", "org/secret", *on_data[2:]),
        "private, wrong token": train("--model", "org/secret", *on_data[2:], **wrong),
        "private, token": train("--model", "org/secret", *on_data[2:], "--output_dir", "secret", **token),
        "private data": train(*on_data[:2], "--dataset", "org/secret-data", **wrong),
        "private data, token": train(*on_data[:2], "--dataset", "org/secret-data", "--output_dir", "sd", **token),
        "gated": train("--model", "org/gated", *on_data[2:]),
        "gated, wrong token": train("--model", "org/gated", *on_data[2:], **wrong),
        "explain": {"arguments": ["explain", "--model", "org/atoms", "--dataset", "org/data", "--page", "page.html"]},
        "explain branch": {
            "arguments": ["explain", "--model", "org/branched", "--model_revision", "v2", "--text", "the sea"]
            + ["--page", "branch.html"]
        },
        "explain nothing": {"arguments": ["explain", "--model", "org/nothing", "--text", "the sea"]},
        "explain private": {
            "arguments": ["explain", "--model", "org/secret", "--text", "the sea"],
            "environment": wrong,
        },
    }
    return folder, client(hub, folder, steps)


def succeeded(answer):
    assert answer["status"] in (0, None), f"{answer['status']}\n{answer['err']}"
    return answer


def refusal(answer):
    """The one line that a refused command ends with."""
    assert answer["status"] == 2, f"{answer['status']}\n{answer['err']}"
    lines = answer["err"].replace("\r", "\n").splitlines()
    assert lines[-1].startswith("atom-hf: error: ")
    assert sum(line.startswith("atom-hf: error: ") for line in lines) == 1
    assert "Traceback" not in answer["err"]
    for secret in (TOKEN, WRONG_TOKEN):
        assert secret not in answer["err"] + answer["out"] + answer["log"]
    return lines[-1]


def test_the_server_speaks_to_the_client_over_http(hub, loaded):
    for revision in ("main", "v2"):
        commit = commit_of(hub.repositories["models", "org/atoms"][revision])
        for name in ("atom_config.json", "atom_heads.safetensors", "model.safetensors"):
            assert any(
                re.fullmatch(f"(GET|HEAD) /org/atoms/resolve/({revision}|{commit})/{name}", r) for r in hub.requests
            ), name


@pytest.mark.parametrize(("step", "revision"), [("main", "v1"), ("branch", "v2"), ("commit", "v2")])
def test_an_atom_model_by_its_id(loaded, folders, step, revision):
    expected = importance_of(load_atom_model(folders / revision))
    assert succeeded(loaded[step])["found"] == expected
    other = importance_of(load_atom_model(folders / ("v1" if revision == "v2" else "v2")))
    assert expected != other


def test_the_same_repository_without_this_package(loaded):
    is_atom, logits, amiss = succeeded(loaded["plain"])["found"]
    assert not is_atom and not amiss
    encoded = make_tokenizer()(LINES, padding=True, return_tensors="pt")
    assert logits == make_model(0)(**encoded).logits.tolist()
    assert loaded["plain"]["log"] == ""


def test_training_on_data_and_a_model_by_their_ids(trained):
    folder, answers = trained
    out = succeeded(answers["parquet"])["out"]
    assert "data, text-classification" in out and "accuracy" in out and "mean |importance|" in out
    encoded = make_tokenizer()(LINES, padding=True, return_tensors="pt")
    importance = load_atom_model(folder / "parquet").atom_importance(**encoded)
    assert importance[encoded["input_ids"] > 3].abs().gt(0).all()
    assert "table, text-classification" in succeeded(answers["csv"])["out"]
    assert not (folder / "csv" / "atom_heads.safetensors").exists()


def test_training_goes_on_with_the_heads_of_the_revision(trained, folders):
    folder, answers = trained
    succeeded(answers["revision"])
    # The learning rates are 0: the heads are those that were read.
    after = load_atom_model(folder / "runs" / "data-atoms-atom").atom_heads.state_dict()
    for name, tensor in load_atom_model(folders / "v2").atom_heads.state_dict().items():
        torch.testing.assert_close(after[name], tensor, rtol=0, atol=0)


def test_one_configuration_of_several(trained):
    _, answers = trained
    assert "several-two, text-classification" in succeeded(answers["two"])["out"]
    assert "'one', 'two'" in refusal(answers["three"])
    assert "--dataset_config" in refusal(answers["no config"])


def test_the_next_command_knows_the_configuration(trained):
    folder, answers = trained
    succeeded(answers["next"])
    assert "sea" in (folder / "importance.html").read_text(encoding="utf-8")


def test_explaining_by_id(trained):
    folder, answers = trained
    succeeded(answers["explain"])
    assert "sea" in (folder / "page.html").read_text(encoding="utf-8")
    assert (folder / "page.png").stat().st_size > 1000


def test_explaining_a_revision_reads_all_of_it_there(trained):
    folder, answers = trained
    succeeded(answers["explain branch"])
    assert "sea" in (folder / "branch.html").read_text(encoding="utf-8")


@pytest.mark.parametrize("step", ["no model", "no model, token", "private", "private, wrong token"])
def test_no_such_model_that_may_be_read(trained, step):
    message = refusal(trained[1][step])
    assert "--model 'org/" in message
    assert "there is no such model on the Hub, or" in message
    assert ("your token may not read it" if "token" in step else "log in with `hf auth login`") in message


@pytest.mark.parametrize("step", ["no data", "private data"])
def test_no_such_data_that_may_be_read(trained, step):
    assert "no such data set on the Hugging Face Hub that you may read" in refusal(trained[1][step])


@pytest.mark.parametrize("step", ["private, token", "private data, token"])
def test_a_token_opens_what_is_private(trained, step):
    answer = succeeded(trained[1][step])
    assert TOKEN not in answer["out"] + answer["err"] + answer["log"]


@pytest.mark.parametrize("step", ["gated", "gated, wrong token"])
def test_a_gated_model_is_called_gated(trained, step):
    message = refusal(trained[1][step])
    assert "--model 'org/gated'" in message and "it is gated: ask for access at http" in message


def test_no_such_revision_is_named(trained):
    assert "it has no branch, tag or commit 'v9'; it has main" in refusal(trained[1]["no revision"])


@pytest.mark.parametrize("step", ["explain nothing", "explain private"])
def test_explaining_a_model_that_may_not_be_read(trained, step):
    message = refusal(trained[1][step])
    assert "org/" in message and "not an atom model" not in message


def test_a_refused_run_writes_nothing(trained):
    # Of the runs above without --output_dir, one trains and the others are refused.
    folder, _ = trained
    assert sorted(p.name for p in (folder / "runs").iterdir()) == ["data-atoms-atom"]
