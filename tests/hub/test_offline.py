"""While the Hub is not asked: a cache without a listing, as a copy or an older client leaves it, and names of nothing."""

import json
import os
import shutil

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForSequenceClassification

from atom_hf import AtomConfig, AtomMixin, attach_atoms, load_atom_model
from atom_hf.hub.files import NotInCache, find_file
from atom_hf.modeling.load import restore_heads
from helpers.error_messages import error_message
from helpers.models import attached, batch_for, tiny
from helpers.training import train

# PEFT 0.21 goes by names that Transformers 5.23 calls old.
pytestmark = [
    pytest.mark.filterwarnings("ignore:.*gradient_checkpointing.*:FutureWarning"),
    pytest.mark.promise(
        "An offline cache without a listing is read, and a file missing from it is not taken to be absent from the Hub.",
        "three kinds of model, three kinds of revision, nine missing files",
    ),
]

COMMIT = "0123456789" * 4
PART = "HF_HUB_OFFLINE is set, and not all of it is in the cache"


@pytest.fixture(autouse=True)
def offline(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """What was on the Hub."""
    root = tmp_path_factory.mktemp("models")
    model = attached("bert")
    model.save_pretrained(root / "whole")
    model.save_pretrained(root / "shards", max_shard_size="20KB")
    tiny("bert").save_pretrained(root / "plain")
    train("bert", root / "run", atom=True, max_steps=1, save_strategy="steps", save_steps=1)
    shutil.copytree(root / "run" / "checkpoint-1", root / "checkpoint")
    base = AutoModelForSequenceClassification.from_pretrained(root / "plain")
    lora = LoraConfig(r=2, target_modules=["query"], task_type="SEQ_CLS", init_lora_weights=False)
    attach_atoms(get_peft_model(base, lora), AtomConfig()).save_pretrained(root / "adapter")
    file = root / "adapter" / "adapter_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "base_model_name_or_path": "org/plain"}))
    return root


@pytest.fixture
def cached(folders, tmp_path):
    """cached(name): puts a model into a cache, without some files, and without the client's own notes."""

    def put(name, *without):
        repository = tmp_path / "cache" / f"models--org--{name}"
        for part in ("blobs", "refs", f"snapshots/{COMMIT}"):
            (repository / part).mkdir(parents=True)
        (repository / "refs" / "main").write_text(COMMIT)
        for number, file in enumerate(sorted((folders / name).iterdir())):
            if file.name not in without:
                shutil.copy(file, repository / "blobs" / f"{number:040d}")
                os.symlink(f"../../blobs/{number:040d}", repository / "snapshots" / COMMIT / file.name)
        return {"cache_dir": tmp_path / "cache"}

    return put


@pytest.mark.parametrize("name", ["whole", "shards", "checkpoint"])
@pytest.mark.parametrize("revision", [None, "main", COMMIT])
def test_a_cache_without_a_listing_holds_a_whole_model(name, revision, cached, folders):
    loaded = load_atom_model(f"org/{name}", revision=revision, **cached(name))
    here = load_atom_model(folders / name)
    assert isinstance(loaded, AtomMixin)
    assert all(torch.equal(loaded.state_dict()[key], value) for key, value in here.state_dict().items())


def test_an_adapter_and_its_base_from_such_a_cache(cached, folders, monkeypatch):
    cached("plain")
    kept = cached("adapter")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(kept["cache_dir"]))
    loaded, batch = load_atom_model("org/adapter", **kept), batch_for("bert")
    plain = AutoModelForSequenceClassification.from_pretrained(folders / "plain")
    assert not torch.equal(loaded.eval()(**batch).logits, plain.eval()(**batch).logits)


@pytest.mark.parametrize(
    ("name", "lacks"),
    [
        ("whole", "config.json"),
        ("whole", "atom_config.json"),
        ("whole", "atom_heads.safetensors"),
        ("whole", "model.safetensors"),
        ("shards", "model.safetensors.index.json"),
        ("shards", "model-00002-of-00005.safetensors"),
        ("checkpoint", "model.safetensors"),
        ("adapter", "adapter_model.safetensors"),
        ("adapter", "adapter_config.json"),
    ],
)
def test_what_is_missing_in_such_a_cache_is_not_taken_for_missing_on_the_hub(name, lacks, cached, folders):
    assert (folders / name / lacks).is_file()
    kept = cached(name, lacks)
    message = error_message(lambda: load_atom_model(f"org/{name}", **kept), f"org/{name}", PART)
    assert "\n" not in message and f"`hf download org/{name}`" in message


def test_files_that_a_model_is_whole_without(cached):
    kept = cached("whole")
    assert find_file("org/whole", "model.safetensors.index.json", optional=True, **kept) is None
    assert find_file("org/whole", "config.json", optional=True, **kept) is not None
    with pytest.raises(NotInCache):
        find_file("org/whole", "atom_extra.json", **kept)
    for other in ({"revision": "v2"}, {"revision": "1" * 40}, {"cache_dir": kept["cache_dir"] / "none"}):
        with pytest.raises(NotInCache):
            find_file("org/whole", "config.json", optional=True, **{**kept, **other})


def test_a_plain_model_from_such_a_cache_has_no_heads(cached, caplog):
    model = AutoModelForSequenceClassification.from_pretrained("org/plain", **cached("plain"))
    assert not restore_heads(model, "org/plain", cache_dir=cached("whole")["cache_dir"])
    assert "is taken for a model without atom heads" in caplog.text


def test_a_cache_that_knows_that_there_is_none_says_so(cached, folders):
    kept = cached("whole", "atom_config.json")
    repository = kept["cache_dir"] / "models--org--whole"
    (repository / ".no_exist" / COMMIT).mkdir(parents=True)
    (repository / ".no_exist" / COMMIT / "atom_config.json").touch()
    error_message(lambda: load_atom_model("org/whole", **kept), "has no atom_config.json")


# Names of nothing


def test_a_folder_that_is_not_there_is_called_that(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    (tmp_path / "runs" / "a").mkdir(parents=True)
    for name, says in {
        "runs/b": "there is no such folder in runs",
        "runs/a/b": "there is no such folder, and it is not a name on the Hub",
        "./runs/b": "no such folder",
        str(tmp_path / "runs" / "b"): "no such folder",
        "nothing": "there is no such folder, and no such model in the cache",
        "org/nothing": "there is no such folder, and no such model in the cache",
    }.items():
        message = error_message(lambda: load_atom_model(name), name, says)  # noqa: B023
        assert ("hf download" in message) == ("nothing" in name) and "\n" not in message
