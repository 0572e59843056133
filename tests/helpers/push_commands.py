"""Pushes and downloads of a process, by the command line and by models, step by step."""

from helpers.hub_client import LINES, WRONG_TOKEN
from helpers.hub_server import EXPIRED, READER, TOKEN

WRITER = {"HF_TOKEN": TOKEN}
PLAIN = {"config.json", "model.safetensors"}
ATOMS = {"atom_config.json", "atom_heads.safetensors"}

# What a pushed model is made of, in the client's process: the base of "base", with the heads that a seed makes.
MAKE = """
import huggingface_hub
from unittest import mock
from atom_hf import AtomConfig, AtomError, attach_atoms
def make(seed):
    base = transformers.AutoModelForSequenceClassification.from_pretrained("base")
    torch.manual_seed(seed)
    return attach_atoms(base, AtomConfig())
"""
READ = """
encoded = transformers.AutoTokenizer.from_pretrained("base")(LINES, padding=True, return_tensors="pt")
found = model.atom_importance(**encoded).nan_to_num(9).tolist()
""".replace("LINES", repr(LINES))


ADAPTER = """
import peft
base = transformers.AutoModelForSequenceClassification.from_pretrained("BASE")
adapted = peft.get_peft_model(base, peft.LoraConfig(task_type="SEQ_CLS", target_modules=["query"]))
adapted = attach_atoms(adapted, AtomConfig())
adapted.save_pretrained("NAME")
status = main(["push", "NAME", "--repo", "org/adapter"])
if status:
    raise SystemExit(status)
"""
READ_ADAPTER = """
encoded = transformers.AutoTokenizer.from_pretrained("base")(LINES, padding=True, return_tensors="pt")
local = load_atom_model("adapter")
found = [type(model).__name__, torch.equal(*(m.atom_importance(**encoded).nan_to_num(9) for m in (model, local)))]
""".replace("LINES", repr(LINES))


def python(code, *, faults=None, **environment):
    step = {"python": MAKE + code, "environment": environment}
    return step if faults is None else {**step, "faults": faults}


def rejected(code, **options):
    """A step that leaves the message of the error in `found`."""
    body = "".join(f"    {line}\n" for line in code.splitlines())
    return python(f"try:\n{body}except AtomError as error:\n    found = str(error)\n", **options)


def push(*arguments, faults=None, **environment):
    step = {"arguments": ["push", *arguments], "environment": environment}
    return step if faults is None else {**step, "faults": faults}


def offline(code):
    return f"with mock.patch.object(huggingface_hub.constants, 'HF_HUB_OFFLINE', True):\n    {code}\n"


def nowhere(code):
    """`code` where nobody answers at the address of the Hub."""
    template = "'http://127.0.0.1:9/{repo_id}/resolve/{revision}/{filename}'"
    return (
        f"with mock.patch.object(huggingface_hub.constants, 'HUGGINGFACE_CO_URL_TEMPLATE', {template}):\n    {code}\n"
    )


def cut(pattern, times, cut_after=0):
    return [{"pattern": pattern, "times": times, "cut_after": cut_after}]


SPOILT = {
    "base": "has no atom_config.json: it was not trained with --atom",
    "headless": "do not fit BertForSequenceClassification",
    "truncated": "cannot be loaded",
    "lacking": "cannot be loaded",
    "linked": "is a link to",
    "telling": "log.txt holds the token",
    "runs": "it holds checkpoint-7, and each of them can be pushed",
}


def steps():
    """What is done, one after the other, by its name."""
    named = {
        "model": python('found = make(1).push_to_hub("org/model", tags="mine")', **WRITER),
        "model again": python('make(1).push_to_hub("org/model", tags="mine")', **WRITER),
        "branch": python('make(2).push_to_hub("org/model", revision="v2")', **WRITER),
        "read main": python('model = load_atom_model("org/model")' + READ),
        "read branch": python('model = load_atom_model("org/model", revision="v2")' + READ),
        "own name": python('make(1).push_to_hub("mine", private=True)', **WRITER),
        "own name, read": rejected('load_atom_model("org/mine")'),
        "saving": python(
            'import os; os.makedirs("kept"); open("kept/README.md", "w").write("# Kept\\n"); open("kept/diary", "w").close()\n'
            'make(1).save_pretrained("kept", push_to_hub=True, repo_id="org/kept", commit_message="Kept")',
            **WRITER,
        ),
        "card": python(
            "model = make(1); save = model.save_pretrained\n"
            "def save_with_card(folder, **options):\n"
            "    save(folder, **options); open(folder + '/README.md', 'w').write('---\\ntags:\\n- a\\n---\\n# Own\\n')\n"
            'model.save_pretrained = save_with_card; model.push_to_hub("org/card", tags="b")',
            **WRITER,
        ),
        "folder": push("saved", "--repo", "org/folder", "--private", "--commit_message", "The first", **WRITER),
        "folder again": push("saved", "--repo", "org/folder", **WRITER),
        "sharded": push("sharded", "--repo", "org/folder", **WRITER),
        "one file again": push("saved", "--repo", "org/folder", **WRITER),
        "cached": python(
            'folder = huggingface_hub.snapshot_download("org/model")\n'
            'found = main(["push", folder, "--repo", "org/copied"])',
            **WRITER,
        ),
        "adapter": python(ADAPTER.replace("BASE", "org/base").replace("NAME", "adapter"), **WRITER),
        "adapter, read": python('model = load_atom_model("org/adapter")' + READ_ADAPTER),
        "adapter of a folder": python(ADAPTER.replace("BASE", "base").replace("NAME", "of-folder"), **WRITER),
        "mixed, adapter": push("adapter", "--repo", "org/mixed", **WRITER),
        "mixed, model": push("saved", "--repo", "org/mixed", **WRITER),
        "mixed, adapter again": push("adapter", "--repo", "org/mixed", **WRITER),
        "adapter, model's": python(
            'model = load_atom_model("adapter")\nfound = model.push_to_hub("org/adapted", tags=["mine"]).oid\n'
            'model.save_pretrained("saved-adapter", push_to_hub=True, repo_id="org/adapted-too")',
            **WRITER,
        ),
        "adapter of a folder, model's": rejected(
            'model = load_atom_model("adapter"); model.peft_config["default"].base_model_name_or_path = "base"\n'
            'model.push_to_hub("org/none")',
            **WRITER,
        ),
        "adapter beside its base": push("adapter", "--repo", "org/base", **WRITER),
        "half an adapter": python(
            "import os; os.remove('adapter/adapter_model.safetensors')\n"
            'raise SystemExit(main(["push", "adapter", "--repo", "org/none"]))',
            **WRITER,
        ),
        "itself": python(
            "from atom_hf.hub.card import CardFacts, write_card\n"
            'make(1).save_pretrained("run"); write_card(CardFacts(name="run", training={"seed": 1}), "run")\n'
            'assert main(["push", "run", "--repo", "org/itself"]) == 0\n'
            'load_atom_model("org/itself").push_to_hub("org/itself")\n'
            'load_atom_model("org/itself").push_to_hub("org/after", revision="v2")',
            **WRITER,
        ),
        "pull request": push("saved", "--repo", "org/open", "--create_pr", HF_TOKEN=READER),
        "no token": push("saved", "--repo", "org/none"),
        "no token, model": rejected('make(1).push_to_hub("org/none")'),
        "reader": push("saved", "--repo", "org/open", HF_TOKEN=READER),
        "reader, new": push("saved", "--repo", "org/none", HF_TOKEN=READER),
        "expired": push("saved", "--repo", "org/none", HF_TOKEN=EXPIRED),
        "a token with a line in it": rejected(
            f'make(1).push_to_hub("org/none", token="{TOKEN}\\n{TOKEN}")', HF_TOKEN=WRONG_TOKEN
        ),
        "a token of other letters": push("saved", "--repo", "org/none", HF_TOKEN="hf_théTokén"),
        "a flag with a token": push("saved", f"--hub_tokn={TOKEN}", **WRITER),
        "a token for a name": push("saved", "--repo", TOKEN),
        "a token that cannot be sent, read": python(
            "import traceback\n"
            f'try:\n    load_atom_model("org/model", token="{TOKEN}\\n{TOKEN}")\n'
            "except AtomError:\n    found = traceback.format_exc()"
        ),
        "public": push("saved", "--repo", "org/open", "--private", **WRITER),
        "no repo": push("saved", **WRITER),
        "no folder": push("--repo", "org/none", **WRITER),
        "bad name": push("saved", "--repo", "org/a/b", **WRITER),
        "two ways": push("saved", "--repo", "org/open", "--create_pr", "--revision", "v2", **WRITER),
        "nowhere": push("nowhere", "--repo", "org/none", **WRITER),
        **{name: push(name, "--repo", "org/none", **WRITER) for name in SPOILT},
        "slow down": push(
            "saved",
            *("--repo", "org/busy"),
            faults=[{"pattern": "POST .*preupload", "times": 2, "status": 429, "headers": {"Retry-After": "3"}}],
            **WRITER,
        ),
        "too busy": push(
            "saved", "--repo", "org/open", faults=[{"pattern": "POST", "times": 99, "status": 429}], **WRITER
        ),
        "upload cut once": push("saved", "--repo", "org/cut", faults=cut("PUT /storage", 1, 100), **WRITER),
        "upload cut": push("sharded", "--repo", "org/cut", faults=cut("PUT /storage", 99, 100), **WRITER),
        "commit cut": push("sharded", "--repo", "org/cut", faults=cut("POST .*/commit/", 1, 50), **WRITER),
        "Hub down": push(
            "sharded", "--repo", "org/cut", faults=[{"pattern": ".*", "times": 99, "status": 503}], **WRITER
        ),
        "after all that": push("sharded", "--repo", "org/cut", faults=[], **WRITER),
        "download cut once": python(
            'model = load_atom_model("org/cut", cache_dir="once")' + READ, faults=cut("GET .*/model-00001", 1, 99)
        ),
        "download cut": rejected('load_atom_model("org/cut", cache_dir="never")', faults=cut("GET .*heads", 99)),
        "what is left": python('from pathlib import Path\nfound = [str(p) for p in Path("never").rglob("*")]'),
        "base cut": rejected('load_atom_model("org/cut", cache_dir="base")', faults=cut("GET .*/model-0000[12]", 99)),
        "heads not there now": rejected(
            'load_atom_model("org/cut", cache_dir="half")', faults=[{"pattern": "heads", "times": 99, "status": 503}]
        ),
        "download again": python('model = load_atom_model("org/cut", cache_dir="never")' + READ, faults=[]),
        "offline, cached": python(offline('model = load_atom_model("org/cut", cache_dir="never")') + READ),
        "fetched whole": python('huggingface_hub.snapshot_download("org/cut", cache_dir="whole")'),
        "offline, whole": python(offline('model = load_atom_model("org/cut", cache_dir="whole")') + READ),
        "plain": python(
            'base = transformers.AutoModelForSequenceClassification.from_pretrained("org/base", cache_dir="plain")\n'
            "from atom_hf.modeling.load import restore_heads\n"
            + offline('found = restore_heads(base, "org/base", cache_dir="plain")')
        ),
        "offline, nothing": rejected(offline('load_atom_model("org/cut", cache_dir="nothing")')),
        "offline, without heads": rejected(offline('load_atom_model("org/cut", cache_dir="half")')),
        "offline, push": rejected(offline('make(1).push_to_hub("org/none")'), **WRITER),
        "unreachable": rejected(nowhere('load_atom_model("org/model", cache_dir="nothing")'), faults=[]),
        "no revision": rejected('load_atom_model("org/model", revision="v9")'),
        "expired, read": rejected('load_atom_model("org/model")', HF_TOKEN=EXPIRED),
    }
    return named
