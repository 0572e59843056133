"""Models and data sets by their id: the real client against a Hub of the tests' own, over HTTP."""

import re

import pytest
import torch

from atom_hf import AtomConfig, attach_atoms, load_atom_model
from helpers.hub_client import (
    LINES,
    ROWS,
    WRONG_TOKEN,
    client,
    error_line,
    importance_of,
    make_model,
    make_tokenizer,
    succeeded,
    table_files,
)
from helpers.hub_server import TOKEN, commit_of


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
def hub(hub, folders):
    hub.add("org/atoms", folders / "v1")
    hub.add("org/atoms", folders / "v2", revision="v2")
    hub.add("org/branched", {"README.md": b"Everything is on another branch.\n"})
    hub.add("org/branched", folders / "v2", revision="v2")
    hub.add("org/secret", folders / "base", private=True)
    hub.add("org/gated", folders / "base", gated=True)
    hub.add("org/gated-data", table_files(), kind="datasets", gated=True)
    hub.add("org/table", {"train.csv": ROWS.to_csv(index=False).encode()}, kind="datasets")
    hub.add("org/secret-data", {"train.csv": ROWS.to_csv(index=False).encode()}, kind="datasets", private=True)
    card = "---\nconfigs:\n" + "".join(
        f"- config_name: {name}\n  data_files:\n  - split: train\n    path: {name}.csv\n" for name in ("one", "two")
    )
    several = {f"{name}.csv": ROWS[:n].to_csv(index=False).encode() for name, n in (("one", 12), ("two", 20))}
    hub.add("org/several", {"README.md": f"{card}---\n".encode(), **several}, kind="datasets")
    return hub


SHORT = ["--no_explainer", "--max_steps", "2", "--per_device_train_batch_size", "4"]
OFFLINE = """
from unittest import mock
import huggingface_hub
with mock.patch.object(huggingface_hub.constants, "HF_HUB_OFFLINE", True):
    raise SystemExit(main(ARGUMENTS))
"""
READ = """
encoded = transformers.AutoTokenizer.from_pretrained("org/atoms")(LINES, padding=True, return_tensors="pt")
found = model.atom_importance(**encoded).nan_to_num(9).tolist()
"""
READ = READ.replace("LINES", repr(LINES))


def train(*arguments, **environment):
    return {"arguments": ["train", *arguments, *SHORT], "environment": environment}


def offline(*arguments):
    return {"python": OFFLINE.replace("ARGUMENTS", repr(train(*arguments)["arguments"]))}


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
        "gated data": train(*on_data[:2], "--dataset", "org/gated-data", **wrong),
        "offline": {
            "python": OFFLINE.replace("ARGUMENTS", repr(train("--model", "org/base2", *on_data[2:])["arguments"]))
        },
        "offline data": {
            "python": OFFLINE.replace("ARGUMENTS", repr(train("--dataset", "org/table2", *on_data[:2])["arguments"]))
        },
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
    assert "'one', 'two'" in error_line(answers["three"])
    assert "--dataset_config" in error_line(answers["no config"])


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


@pytest.mark.promise("An error says whether a repository or data set is missing, private, gated or offline.")
@pytest.mark.parametrize("step", ["no model", "no model, token", "private", "private, wrong token"])
def test_no_such_model_that_may_be_read(trained, step):
    message = error_line(trained[1][step])
    assert "--model 'org/" in message
    assert "there is no such model on the Hub, or" in message
    assert ("your token may not read it" if "token" in step else "log in with `hf auth login`") in message


@pytest.mark.promise("An error says whether a repository or data set is missing, private, gated or offline.")
@pytest.mark.parametrize("step", ["no data", "private data"])
def test_no_such_data_that_may_be_read(trained, step):
    assert "no such data set on the Hugging Face Hub that you may read" in error_line(trained[1][step])


@pytest.mark.promise("An error says whether a repository or data set is missing, private, gated or offline.")
@pytest.mark.parametrize("step", ["private, token", "private data, token"])
def test_a_token_opens_what_is_private(trained, step):
    answer = succeeded(trained[1][step])
    assert TOKEN not in answer["out"] + answer["err"] + answer["log"]


@pytest.mark.promise("An error says whether a repository or data set is missing, private, gated or offline.")
@pytest.mark.parametrize("step", ["gated", "gated, wrong token"])
def test_a_gated_model_is_called_gated(trained, step):
    message = error_line(trained[1][step])
    assert "--model 'org/gated'" in message and "it is gated: ask for access at http" in message


@pytest.mark.promise("An error says whether a repository or data set is missing, private, gated or offline.")
def test_gated_data_is_called_gated(trained):
    message = error_line(trained[1]["gated data"])
    assert "--dataset 'org/gated-data'" in message and "it is gated, ask for access at http" in message


@pytest.mark.promise("An error says whether a repository or data set is missing, private, gated or offline.")
def test_what_is_not_in_the_cache_while_offline(trained):
    message = error_line(trained[1]["offline"])
    assert "--model 'org/base2'" in message and "no such model in the cache; HF_HUB_OFFLINE is set" in message
    message = error_line(trained[1]["offline data"])
    assert "--dataset 'org/table2'" in message and "HF_HUB_OFFLINE is set, so the Hub is not asked" in message


@pytest.mark.promise("An error says whether a repository or data set is missing, private, gated or offline.")
def test_no_such_revision_is_named(trained):
    assert "it has no branch, tag or commit 'v9'; it has main" in error_line(trained[1]["no revision"])


@pytest.mark.promise("An error says whether a repository or data set is missing, private, gated or offline.")
@pytest.mark.parametrize("step", ["explain nothing", "explain private"])
def test_explaining_a_model_that_may_not_be_read(trained, step):
    message = error_line(trained[1][step])
    assert "org/" in message and "not an atom model" not in message


@pytest.mark.promise(
    "Bad input ends in one line that names the argument, with exit code 2, before training, and nothing is written."
)
def test_a_rejected_run_writes_nothing(trained):
    # Of the runs above without --output_dir, one trains and the others are rejected.
    folder, _ = trained
    assert sorted(p.name for p in (folder / "runs").iterdir()) == ["data-atoms-atom"]
