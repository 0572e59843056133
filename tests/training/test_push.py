"""What a run puts on the Hub under each strategy, and how it is taken up again from there: over HTTP, with the real client."""

import json
import os
import subprocess
import sys
from concurrent.futures import Future
from pathlib import Path

import huggingface_hub
import pytest
from safetensors.torch import load, load_file
from torch import equal

import atom_hf
from atom_hf import AtomError, AtomTrainer
from helpers.hub_client import LINES, client, error_line, has_no_token, succeeded
from helpers.hub_server import TOKEN
from helpers.models import rows_for, tiny
from helpers.pushing_runs import ATOMS, PLAIN, STATE, WRITER, steps, strategy, train
from helpers.training import arguments

# In a process that cannot import this package, with nothing of the tests on its path.
WITHOUT = """
import importlib.abc, json, logging, sys, warnings
class Blocker(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "atom_hf":
            raise ModuleNotFoundError("No module named 'atom_hf'", name="atom_hf")
sys.meta_path.insert(0, Blocker())
try:
    import atom_hf
    raise SystemExit("atom_hf can be imported")
except ModuleNotFoundError:
    pass
warnings.simplefilter("error", UserWarning)
import torch, transformers
messages = []
handler = logging.Handler(logging.WARNING)
handler.emit = lambda record: messages.append(record.getMessage())
logging.getLogger("transformers").addHandler(handler)
found = {}
for name, revision in json.load(sys.stdin):
    model, info = transformers.AutoModelForSequenceClassification.from_pretrained(
        name, revision=revision, output_loading_info=True
    )
    tokenizer = transformers.AutoTokenizer.from_pretrained(name, revision=revision)
    logits = model(**tokenizer(LINES, padding=True, return_tensors="pt")).logits.tolist()
    found[f"{name}@{revision}"] = {"logits": logits, "amiss": {k: sorted(map(str, v)) for k, v in info.items() if v}}
assert not [name for name in sys.modules if name.split(".")[0] == "atom_hf"]
json.dump({"found": found, "messages": messages}, sys.stdout)
""".replace("LINES", repr(LINES))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def answers(hub, folder):
    return client(hub, folder, steps())


@pytest.fixture(scope="module")
def without(answers, hub, folder):
    """What a process without this package loads of the first and the last push of each run."""
    runs = ("every_save", "checkpoint", "all_checkpoints", "cut", "half")
    each = {name: hub.log_of(f"org/{name}") for name in ("end", *runs)}
    asked = [(f"org/{name}", commit) for name, commits in each.items() for commit in {commits[0], commits[-1]}]
    done = subprocess.run(
        [sys.executable, "-I", "-c", WITHOUT],
        input=json.dumps(asked),
        env={**os.environ, **hub.environment(folder / "home"), **WRITER},
        cwd=folder,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout)


def pushes(hub, name):
    return [
        (entry[2], set(hub.commits["models", f"org/{name}"][entry[3]]))
        for entry in hub.log
        if entry[0] == f"org/{name}"
    ]


def under(folder, names):
    return {f"{folder}/{name}" for name in names}


def test_each_strategy_pushes_what_it_says(answers, hub):
    root = {".gitattributes", "README.md", *PLAIN, *ATOMS}
    inside = (PLAIN | STATE | ATOMS) - {"atom_heads.safetensors"}
    for name in ("end", "every_save", "checkpoint", "all_checkpoints"):
        succeeded(answers[name])
    picture = {"importance.png"}  # of the card of a finished run
    assert pushes(hub, "end") == [("Model save", root | picture)]
    steps = ["Training in progress, step 2", "Training in progress, step 4", "Model save"]
    last = under("last-checkpoint", inside)
    both = [under(f"checkpoint-{step}", inside) for step in (2, 4)]
    for name, beside in (
        ("every_save", [set(), set(), picture]),
        ("checkpoint", [last, last, last | picture]),
        ("all_checkpoints", [both[0], both[0] | both[1], both[0] | both[1] | picture]),
    ):
        assert pushes(hub, name) == [(step, root | files) for step, files in zip(steps, beside, strict=True)], name


def test_the_root_is_always_the_plain_model_and_its_heads(answers, hub, folder):
    names = set(load_file(folder / "alone" / "model.safetensors"))
    for (_, name), commits in hub.commits.items():
        for files in commits.values():
            if "atom_config.json" in files:
                header = files["model.safetensors"][8 : 8 + int.from_bytes(files["model.safetensors"][:8], "little")]
                assert set(json.loads(header)) - {"__metadata__"} == names, name


@pytest.mark.promise(
    "What is saved is the plain base model and its heads: it loads without this package, and with it as it was."
)
def test_it_loads_without_this_package(without, answers, hub):
    assert without["messages"] == []
    assert without["found"] and not any(found["amiss"] for found in without["found"].values())
    last = {entry[0]: entry[3] for entry in hub.log}
    ends = [
        without["found"][f"{name}@{last[name]}"]["logits"] for name in ("org/end", "org/every_save", "org/checkpoint")
    ]
    assert ends[0] == ends[1] == ends[2]
    first = next(entry[3] for entry in hub.log if entry[0] == "org/checkpoint")
    assert without["found"][f"org/checkpoint@{first}"]["logits"] != ends[0]


@pytest.mark.promise("A killed run resumes as if it had not been interrupted.")
@pytest.mark.parametrize("name", ["checkpoint", "all_checkpoints"])
def test_a_run_goes_on_from_what_was_pulled(answers, folder, name):
    for step in ("fetch", "resume"):
        succeeded(answers[f"{step} {name}"])
    for file in ("model.safetensors", "atom_heads.safetensors"):
        alone, again = load_file(folder / "alone" / file), load_file(folder / f"resumed-{name}" / file)
        assert alone.keys() == again.keys() and all(equal(alone[key], again[key]) for key in alone)
    half = load_file(folder / f"fetched-{name}" / "atom_heads.safetensors")
    assert not equal(half["position.weight"], alone["position.weight"])  # two steps on they are others


@pytest.mark.promise("A checkpoint of another run, or one that is incomplete, is not resumed from.")
@pytest.mark.parametrize("name", ["optimizer.pt", "scheduler.pt", "rng_state.pth"])
def test_a_checkpoint_that_was_fetched_by_half_is_rejected(answers, name):
    assert f"no-{name} is incomplete" in error_line(answers[f"no {name}"])


@pytest.mark.promise("A checkpoint of another run, or one that is incomplete, is not resumed from.")
def test_a_checkpoint_without_all_that_trains_is_rejected(answers):
    succeeded(answers["strip"])
    message = error_line(answers["stripped"])
    assert "the optimizer's state and the scheduler's state and the random state is missing" in message


def test_going_on_in_a_pulled_folder_pushes_the_new_checkpoint_alone(answers, hub):
    for step in ("copy", "on"):
        succeeded(answers[step])
    for commit in hub.log_of("org/on"):
        files = hub.commits["models", "org/on"][commit]
        assert json.loads(files["last-checkpoint/trainer_state.json"])["global_step"] == 4
        inside = load(files["last-checkpoint/model.safetensors"])["atom_heads.position.weight"]
        assert equal(inside, load(files["atom_heads.safetensors"])["position.weight"])


@pytest.mark.promise("A push is one commit, complete or not at all, and a failed push loses nothing that was trained.")
def test_a_checkpoint_whose_push_failed_comes_with_the_next(answers, hub, folder):
    succeeded(answers["cut, all"])
    (first, names), _ = pushes(hub, "cut-all")
    assert first == "Training in progress, step 4"
    assert {f"checkpoint-{step}/optimizer.pt" for step in (2, 4)} <= names
    files = hub.repositories["models", "org/cut-all"]["main"]
    for step in (2, 4):
        state = json.loads(files[f"checkpoint-{step}/trainer_state.json"])
        assert state["global_step"] == step and state["best_model_checkpoint"] in ("checkpoint-2", "checkpoint-4")


@pytest.mark.promise("A push contains the model and its card, and nothing about this machine.")
def test_no_folder_of_this_machine_is_pushed(answers, hub, folder):
    for commits in hub.commits.values():
        for files in commits.values():
            assert not any(str(folder).encode() in content for content in files.values())


def test_a_checkpoint_is_pushed_in_the_form_of_a_finished_model(answers, without, hub, folder):
    succeeded(answers["half"])
    ((_, names),) = pushes(hub, "half")
    assert names == {".gitattributes", "README.md", "trainer_state.json", "atom_state.json", *PLAIN, *ATOMS}
    files = hub.repositories["models", "org/half"]["main"]
    checkpoint = load_file(folder / "alone" / "checkpoint-2" / "model.safetensors")
    heads = {f"atom_heads.{name}": tensor for name, tensor in load(files["atom_heads.safetensors"]).items()}
    pushed = {**load(files["model.safetensors"]), **heads}
    assert pushed.keys() == checkpoint.keys() and all(equal(pushed[key], checkpoint[key]) for key in pushed)
    assert any(name.startswith("org/half@") for name in without["found"])


@pytest.mark.promise("A push is one commit, complete or not at all, and a failed push loses nothing that was trained.")
def test_training_goes_on_while_a_push_waits_and_the_push_is_of_its_own_step(answers, hub, folder):
    assert succeeded(answers["busy"])["found"] == 0
    assert [message for message, _ in pushes(hub, "busy")] == ["Training in progress, step 2", "Model save"]
    assert succeeded(answers["rotated"])["found"] == 0
    assert [p.name for p in (folder / "rotated").glob("checkpoint-*")] == ["checkpoint-4"]
    first, second, _ = (hub.commits["models", "org/rotated"][commit] for commit in hub.log_of("org/rotated"))
    local = load_file(folder / "alone" / "checkpoint-2" / "model.safetensors")
    for name, files in (("busy", hub.commits["models", "org/busy"][hub.log_of("org/busy")[0]]), ("rotated", first)):
        assert equal(load(files["atom_heads.safetensors"])["position.weight"], local["atom_heads.position.weight"]), (
            name
        )
    for step, files in ((2, first), (4, second)):
        state = json.loads(files[f"checkpoint-{step}/trainer_state.json"])
        assert state["global_step"] == step and f"checkpoint-{step}/optimizer.pt" in files


@pytest.mark.promise("A push is one commit, complete or not at all, and a failed push loses nothing that was trained.")
def test_a_push_that_breaks_off_is_said_and_training_goes_on(answers, hub):
    answer = succeeded(answers["cut"])
    assert (
        "Training in progress, step 2: 'org/cut' could not be pushed to: the connection to the Hub was lost"
        in answer["log"]
    )
    assert [message for message, _ in pushes(hub, "cut")] == ["Training in progress, step 4", "Model save"]


@pytest.mark.promise("A push is one commit, complete or not at all, and a failed push loses nothing that was trained.")
def test_a_push_that_fails_in_the_end_loses_no_results(answers, hub, folder):
    message = error_line(answers["end cut"])
    assert "was lost" in message
    assert "the model is saved in end-cut, and `atom-hf push end-cut --repo org/end-cut` pushes it" in message
    out = answers["end cut"]["out"]
    assert "mean |importance|" in out and "model     end-cut" in out and "pushed" not in out
    assert {"trainer_state.json", "eval_results.json"} <= {path.name for path in (folder / "end-cut").iterdir()}
    succeeded(answers["end again"])
    assert set(hub.repositories["models", "org/end-cut"]["main"]) >= PLAIN | ATOMS


@pytest.mark.promise("A push is one commit, complete or not at all, and a failed push loses nothing that was trained.")
@pytest.mark.parametrize(
    ("step", "says"),
    [
        ("no token", "there is no token for the Hub, and pushing requires one"),
        ("reader", "your token may not write there"),
        ("private token", "<token>"),
        ("two tokens", "--hub_token: give the token"),
        ("bad name", "--hub_model_id 'a/b/c' is not a name on the Hub"),
        ("plain, reader", "--push_to_hub: your token may not write there"),
    ],
)
def test_a_run_that_could_not_push_does_not_begin(answers, folder, step, says):
    assert says in error_line(answers[step])
    assert not (folder / "none").exists() or not list((folder / "none").iterdir())


def test_a_trainer_that_could_not_push_is_not_made(tmp_path, monkeypatch):
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.setattr(huggingface_hub.constants, "HF_TOKEN_PATH", str(tmp_path / "none"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    rows = {"model": tiny("bert"), "train_dataset": rows_for("bert")}
    for name, says in (
        ("org/name", "there is no token for the Hub"),
        ("org--name", "hub_model_id 'org--name' is not a name"),
    ):
        args = arguments(tmp_path, atom=True, push_to_hub=True, hub_model_id=name, hub_strategy="checkpoint")
        with pytest.raises(AtomError, match=says):
            AtomTrainer(args=args, **rows)


@pytest.mark.promise("No token is shown, logged, saved or pushed.")
def test_no_token_goes_anywhere(answers, hub, folder):
    for name in ("given token", "private", "plain"):
        succeeded(answers[name])
    assert ("models", "org/private") in hub.private
    for answer in answers.values():
        has_no_token(answer)
    for commits in hub.commits.values():
        for files in commits.values():
            assert not any(TOKEN.encode() in content for content in files.values())
    assert not any(TOKEN.encode() in path.read_bytes() for path in folder.rglob("*") if path.is_file())


@pytest.mark.slow
@pytest.mark.parametrize("form", ["FULL_STATE_DICT", "SHARDED_STATE_DICT"])
def test_the_root_is_whole_whatever_form_the_checkpoints_of_fsdp_have(answers, hub, folder, form):
    config = (Path(atom_hf.__file__).parent / "cli" / "accelerate_configs" / "fsdp2.yaml").read_text(encoding="utf-8")
    (folder / f"{form}.yaml").write_text(config.replace("FULL_STATE_DICT", form), encoding="utf-8")
    launched = ["--accelerate_config", f"{form}.yaml", "--num_processes", "2", "--use_cpu"]
    arguments = train(form, *strategy("checkpoint", form))["arguments"]
    done = subprocess.run(
        [sys.executable, "-m", "atom_hf", arguments[0], *launched, *arguments[1:]],
        env={**os.environ, **hub.environment(folder / "home"), **WRITER, "OMP_NUM_THREADS": "1"},
        cwd=folder,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert [message for message, _ in pushes(hub, form)] == [f"Training in progress, step {n}" for n in (2, 4)] + [
        "Model save"
    ]
    kept = "pytorch_model_fsdp.bin" if form.startswith("FULL") else "pytorch_model_fsdp_0/__1_0.distcp"
    heads = []
    for commit in hub.log_of(f"org/{form}"):
        files = hub.commits["models", f"org/{form}"][commit]
        assert f"last-checkpoint/{kept}" in files
        heads.append(load(files["atom_heads.safetensors"])["position.weight"])
        assert load(files["model.safetensors"]).keys() == load_file(folder / "alone" / "model.safetensors").keys()
    assert not equal(heads[0], heads[1]) and equal(heads[1], heads[2])


@pytest.mark.promise("A push is one commit, complete or not at all, and a failed push loses nothing that was trained.")
def test_nothing_is_left_of_the_pushes(answers, folder):
    assert not list(folder.rglob("_push-*"))


def test_a_push_has_the_token_and_the_branch_of_when_it_was_scheduled(tmp_path, monkeypatch):
    waiting, pushed = [], []

    class Later:
        def run_as_future(self, call, *args, **kwargs):
            waiting.append(lambda: call(*args, **kwargs))
            done = Future()
            done.set_result(None)
            return done

    monkeypatch.setattr("atom_hf.training.push.hf_api", Later)
    monkeypatch.setattr("atom_hf.training.push.open_repository", lambda name, **_: name)
    monkeypatch.setattr("atom_hf.training.push.commit", lambda name, files, **options: pushed.append(options))
    hub = {"push_to_hub": True, "hub_model_id": "org/name", "hub_token": TOKEN, "hub_revision": "v1"}
    args = arguments(tmp_path, atom=True, max_steps=1, save_strategy="steps", save_steps=1, **hub)
    trainer = AtomTrainer(args=args, model=tiny("vit"), train_dataset=rows_for("vit"))
    trainer.train()
    trainer.args.hub_token = trainer.args.hub_revision = None  # as it is while a model is saved
    for call in waiting:
        call()
    assert [(options["token"], options["revision"]) for options in pushed] == [(TOKEN, "v1")]
