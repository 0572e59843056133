"""Pushing: the real client against a Hub of the tests' own, over HTTP, with rejections and connections that break off."""

import pytest
import torch

from atom_hf import AtomConfig, attach_atoms, load_atom_model
from helpers.hub_client import client, error_line, has_no_token, importance_of, make_model, make_tokenizer, succeeded
from helpers.hub_server import TOKEN
from helpers.push_commands import ATOMS, PLAIN, SPOILT, steps


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A base, an atom model and its spoilt copies, where the client's process works."""
    folder = tmp_path_factory.mktemp("pushed")
    make_model(0).save_pretrained(folder / "base")
    make_tokenizer().save_pretrained(folder / "base")

    def save(name, **options):
        base = make_model(0)
        torch.manual_seed(1)
        model = attach_atoms(base, AtomConfig(), make_tokenizer())
        model.save_pretrained(folder / name, **options)
        make_tokenizer().save_pretrained(folder / name)
        return folder / name

    saved = save("saved")
    (saved / "README.md").write_text("---\nlibrary_name: transformers\n---\n\n# Mine\n", encoding="utf-8")
    (saved / "training_args.bin").write_bytes(b"a pickle")
    (saved / "modeling.py").write_text("raise SystemExit")
    (saved / "checkpoint-1").mkdir()
    (saved / "checkpoint-1" / "notes.txt").write_text("of the run alone")
    (saved / "last-checkpoint").mkdir()
    (saved / "last-checkpoint" / "trainer_state.json").write_text("{}")
    (saved / "more").symlink_to(folder / "base")
    save("sharded", max_shard_size="8KB")
    headless = save("headless")
    (headless / "atom_heads.safetensors").unlink()
    truncated = save("truncated")
    (truncated / "model.safetensors").write_bytes((truncated / "model.safetensors").read_bytes()[:-9])
    lacking = save("lacking", max_shard_size="8KB")
    sorted(lacking.glob("model-*"))[0].unlink()
    (save("linked") / "notes.txt").symlink_to(folder / "base" / "config.json")
    (save("telling") / "log.txt").write_text(f"logged in with {TOKEN}")
    (folder / "runs" / "checkpoint-7").mkdir(parents=True)
    (folder / "runs" / "checkpoint-7" / "config.json").write_text("{}")
    return folder


@pytest.fixture(scope="module")
def answers(hub, folder):
    return client(hub, folder, steps())


def files_at(answer, name):
    return set(answer["heads"][name][1])


def expected(seed):
    base = make_model(0)
    torch.manual_seed(seed)
    return importance_of(attach_atoms(base, AtomConfig(special_token_ids=[0])))


def test_the_card_of_a_model_that_came_from_the_hub(answers, hub):
    succeeded(answers["itself"])
    card = hub.repositories["models", "org/itself"]["main"]["README.md"].decode()
    assert "| seed | 1 |" in card and "loaded and saved again" in card and 'load_atom_model("org/itself")' in card
    assert "base_model" not in card
    card = hub.repositories["models", "org/after"]["v2"]["README.md"].decode()
    assert "\nbase_model: org/itself\n" in card and 'load_atom_model("org/after", revision="v2")' in card


@pytest.mark.promise("A push is one commit, complete or not at all, and a failed push loses nothing that was trained.")
def test_a_model_is_pushed_as_one_commit(answers, hub):
    answer = succeeded(answers["model"])
    assert files_at(answer, "org/model@main") == {".gitattributes", "README.md", *PLAIN, *ATOMS}
    assert answer["found"].endswith(answer["heads"]["org/model@main"][0])
    assert [entry[2] for entry in hub.log if entry[:2] == ("org/model", "main")] == ["Upload model"]
    card = hub.repositories["models", "org/model"]["main"]["README.md"].decode()
    assert "- mine\n" in card and 'load_atom_model("org/model")' in card and "path/to/model" not in card
    heads = {k: v for k, v in answers["model again"]["heads"].items() if k.startswith("org/model")}
    assert succeeded(answers["model again"]) and heads == {
        k: v for k, v in answer["heads"].items() if k.startswith("org/model")
    }


def test_a_branch_and_main_each_have_their_heads(answers):
    succeeded(answers["branch"])
    assert succeeded(answers["read main"])["found"] == expected(1)
    assert succeeded(answers["read branch"])["found"] == expected(2) != expected(1)


def test_a_private_repository_of_ones_own(answers, hub):
    succeeded(answers["own name"])
    assert ("models", "org/mine") in hub.private
    assert "there is no such model on the Hub, or it is private" in answers["own name, read"]["found"]


def test_saving_pushes_what_was_written_and_its_card(answers, hub):
    assert files_at(succeeded(answers["saving"]), "org/kept@main") == {".gitattributes", "README.md", *PLAIN, *ATOMS}
    assert hub.repositories["models", "org/kept"]["main"]["README.md"] == b"# Kept\n"
    assert [entry[2] for entry in hub.log if entry[0] == "org/kept"] == ["Kept"]


def test_a_card_that_was_saved_is_the_one_that_is_pushed(answers, hub):
    succeeded(answers["card"])
    card = hub.repositories["models", "org/card"]["main"]["README.md"].decode()
    assert card.endswith("# Own\n") and "tags:\n- a\n- b\n" in card


@pytest.mark.promise("A push contains the model and its card, and nothing about this machine.")
def test_a_folder_is_pushed_without_pickles_code_and_checkpoints(answers, hub, folder):
    answer = succeeded(answers["folder"])
    left_out = {"training_args.bin", "modeling.py", "checkpoint-1", "last-checkpoint", "more"}
    names = {p.name for p in (folder / "saved").iterdir()} - left_out
    assert files_at(answer, "org/folder@main") == {".gitattributes", *names}
    assert "left out  checkpoint-1, last-checkpoint, modeling.py, more, training_args.bin" in answer["out"]
    commit = answer["heads"]["org/folder@main"][0]
    assert f"pushed    {hub.url}/org/folder/commit/{commit}" in answer["out"]
    assert ("models", "org/folder") in hub.private
    assert hub.commits["models", "org/folder"][commit]["README.md"].endswith(b"# Mine\n")
    messages = [entry[2] for entry in hub.log if entry[0] == "org/folder"]
    assert messages == ["The first", "Push sharded", "Push saved"]  # and nothing where nothing had changed
    assert f"/org/folder/commit/{commit}" in succeeded(answers["folder again"])["out"]


@pytest.mark.promise("A push is one commit, complete or not at all, and a failed push loses nothing that was trained.")
def test_weights_of_an_earlier_push_do_not_stay_beside_the_new_ones(answers):
    names = files_at(succeeded(answers["sharded"]), "org/folder@main")
    assert "model.safetensors" not in names and "model.safetensors.index.json" in names
    names = files_at(succeeded(answers["one file again"]), "org/folder@main")
    assert {n for n in names if n.startswith("model")} == {"model.safetensors"}


def test_what_was_fetched_can_be_pushed_from_the_cache_with_its_links(answers):
    answer = succeeded(answers["cached"])
    assert answer["found"] == 0 and files_at(answer, "org/copied@main") == files_at(answer, "org/model@main")


def test_an_adapter_with_its_heads(answers):
    names = files_at(succeeded(answers["adapter"]), "org/adapter@main")
    assert {"adapter_config.json", "adapter_model.safetensors", *ATOMS} <= names and "model.safetensors" not in names
    assert succeeded(answers["adapter, read"])["found"] == ["PeftModelForSequenceClassification", True]
    assert "which nobody else has: name a base on the Hub" in error_line(answers["adapter of a folder"])
    assert "is not a finished adapter with heads" in error_line(answers["half an adapter"])
    message = error_line(answers["adapter beside its base"])
    assert "is for the base 'org/base', and one repository cannot hold both" in message


@pytest.mark.promise("A push is one commit, complete or not at all, and a failed push loses nothing that was trained.")
def test_an_adapter_and_a_whole_model_take_the_place_of_each_other(answers):
    adapter, model = {"adapter_config.json", "adapter_model.safetensors"}, PLAIN
    for step, there, gone in (
        ("mixed, adapter", adapter, model),
        ("mixed, model", model, adapter),
        ("mixed, adapter again", adapter, model),
    ):
        names = files_at(succeeded(answers[step]), "org/mixed@main")
        assert there | ATOMS <= names and not gone & names, step


def test_an_adapter_pushes_itself(answers, hub):
    answer = succeeded(answers["adapter, model's"])
    for name, says in (("org/adapted", "Upload model"), ("org/adapted-too", "Upload model")):
        assert {"adapter_config.json", "adapter_model.safetensors", *ATOMS} <= files_at(answer, f"{name}@main")
        assert [entry[2] for entry in hub.log if entry[0] == name] == [says]
        assert f'load_atom_model("{name}")' in hub.repositories["models", name]["main"]["README.md"].decode()
    assert answer["found"] == hub.log_of("org/adapted")[0]
    assert "- mine\n" in hub.repositories["models", "org/adapted"]["main"]["README.md"].decode()
    assert "is for a base in the folder 'base'" in answers["adapter of a folder, model's"]["found"]


def test_a_pull_request_needs_no_right_to_write(answers):
    answer = succeeded(answers["pull request"])
    assert "pushed    " in answer["out"] and "/org/open/discussions/1" in answer["out"]
    assert files_at(answer, "org/open@main") == {"README.md"} and files_at(answer, "org/open@refs/pr/1") >= ATOMS


ERRORS = {
    "no token": "there is no token for the Hub, and pushing requires one: log in with `hf auth login`, or set HF_TOKEN",
    "reader": "your token may not write there",
    "reader, new": "your token may not write there",
    "expired": "the Hub does not accept the token, which may have expired",
    "a token of other letters": "the token cannot be sent as it is",
    "a flag with a token": "no such flag: --hub_tokn=<token>",
    "a token for a name": "--repo looks like a token",
    "public": "'org/open' exists and is public",
    "no repo": "give --repo",
    "no folder": "give the model's folder first",
    "bad name": "--repo 'org/a/b' is not a name on the Hub",
    "two ways": "--create_pr asks to change main",
    "nowhere": "'nowhere': no such folder",
    **SPOILT,
}


@pytest.mark.promise("A push is one commit, complete or not at all, and a failed push loses nothing that was trained.")
@pytest.mark.parametrize("step", ERRORS)
def test_what_cannot_be_pushed_is_rejected_in_one_line(answers, step):
    assert ERRORS[step] in error_line(answers[step])
    assert "org/none@main" not in answers[step]["heads"]


def test_errors_of_the_model_are_atom_errors_too(answers):
    assert "there is no token for the Hub" in answers["no token, model"]["found"]
    assert "the token cannot be sent" in answers["a token with a line in it"]["found"]
    assert "the token cannot be sent" in succeeded(answers["a token that cannot be sent, read"])["found"]


@pytest.mark.promise("A push is one commit, complete or not at all, and a failed push loses nothing that was trained.")
def test_the_client_waits_as_long_as_the_hub_asks(answers):
    answer = succeeded(answers["slow down"])
    assert answer["waits"] == [4.0, 4.0]  # the three seconds of Retry-After, and one of its own
    assert files_at(answer, "org/busy@main") >= ATOMS
    assert "received too many requests" in error_line(answers["too busy"])


@pytest.mark.promise("A push is one commit, complete or not at all, and a failed push loses nothing that was trained.")
def test_a_push_that_is_cut_leaves_the_repository_as_it_was(answers):
    whole = succeeded(answers["upload cut once"])
    assert whole["waits"] == [1] and files_at(whole, "org/cut@main") >= PLAIN | ATOMS
    for step, says in (("upload cut", "was lost"), ("commit cut", "was lost"), ("Hub down", "an internal error")):
        assert says in error_line(answers[step])
        assert answers[step]["heads"]["org/cut@main"] == whole["heads"]["org/cut@main"]
    after = succeeded(answers["after all that"])
    assert "model.safetensors.index.json" in files_at(after, "org/cut@main")


@pytest.mark.promise("A model whose files are damaged, incomplete or of another version is rejected in one line.")
def test_a_download_that_is_cut_is_no_model(answers, folder):
    first = succeeded(answers["download cut once"])
    assert first["found"] == importance_of(load_atom_model(folder / "sharded"))
    for step in ("download cut", "base cut"):
        assert "was lost" in answers[step]["found"], answers[step]
    left = " ".join(answers["what is left"]["found"])
    assert "config.json" in left and "atom_heads" not in left and "incomplete" not in left
    assert succeeded(answers["download again"])["found"] == first["found"]


@pytest.mark.promise("An error says whether a repository or data set is missing, private, gated or offline.")
def test_heads_that_cannot_be_fetched_are_not_taken_for_none(answers):
    assert "an internal error" in answers["heads not there now"]["found"]
    assert "HF_HUB_OFFLINE is set" in answers["offline, without heads"]["found"]


@pytest.mark.promise("An error says whether a repository or data set is missing, private, gated or offline.")
def test_offline(answers):
    assert succeeded(answers["offline, cached"])["found"] == answers["download again"]["found"]
    assert succeeded(answers["offline, whole"])["found"] == answers["download again"]["found"]
    assert succeeded(answers["plain"])["found"] is False
    assert "org/base is taken for a model without atom heads: offline" in answers["plain"]["log"]
    message = answers["offline, nothing"]["found"]
    assert "no such model in the cache; HF_HUB_OFFLINE is set" in message and "hf download org/cut" in message
    assert "nothing can be pushed" in answers["offline, push"]["found"]


@pytest.mark.promise("An error says whether a repository or data set is missing, private, gated or offline.")
def test_a_hub_that_is_not_there(answers):
    message = answers["unreachable"]["found"]
    assert "no such model in the cache, and the Hub (http" in message and "cannot be reached" in message


@pytest.mark.promise("An error says whether a repository or data set is missing, private, gated or offline.")
def test_a_revision_or_token_that_is_none(answers):
    assert "it has no branch, tag or commit 'v9'; it has main, v2" in answers["no revision"]["found"]
    assert "does not accept the token" in answers["expired, read"]["found"]


@pytest.mark.promise("No token is shown, logged, saved or pushed.")
def test_no_token_is_ever_shown(answers):
    for answer in answers.values():
        has_no_token({**answer, "heads": None})
