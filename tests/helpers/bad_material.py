"""Files, good and bad, and models whose heads are spoilt, for commands that are rejected."""

import json
import shutil

import pandas as pd
import torch
from safetensors.torch import load_file, save_file


def write_files(folder):
    lines = ["the sea is calm", "a fire burns"] * 8
    tables = {
        "good": {"text": lines, "label": ["cold", "warm"] * 8},
        "other": {"text": lines, "label": ["cold", "tepid"] * 8},
        "float": {"text": lines, "label": [0.25, 1.5] * 8},
        "none": {"text": lines, "label": ["cold", None] * 8},
        "moods": {"text": lines, "mood": ["cold", "warm"] * 8},
        "one": {"text": lines, "label": ["cold"] * 16},
    }
    for name, columns in tables.items():
        pd.DataFrame(columns).to_csv(folder / f"{name}.csv", index=False)
    (folder / "commas.csv").write_text("text,label\n" + "the sea, calm,cold\na fire,warm\n" * 8, encoding="utf-8")
    configs = {
        "unknown.yaml": "learning_rat: 1.0e-4\n",
        "list.yaml": "- model\n",
        "broken.yaml": "model: [\n",
        "word.yaml": "max_steps: many\n",
        "switch.yaml": "atom: perhaps\n",
        "number.yaml": "model: 3\ndataset: digits\n",
        "one-arm.yaml": "plain: {atom: false}\n",
        "no-flag.yaml": "plain: {}\nodd: {atm: true}\n",
        "no-arms.yaml": "plain\n",
        "bad-weight.yaml": "plain: {}\nodd: {atom: true, atom_weight: -1}\n",
        "bad-value.yaml": "plain: {}\nodd: {learning_rate: fast}\n",
    }
    for name, text in configs.items():
        (folder / name).write_text(text, encoding="utf-8")
    (folder / "file").write_text("not a folder", encoding="utf-8")


def spoil_checkpoint(folder):
    """A copy of the run in `folder`/vit-atom whose checkpoint has no optimizer in its file for it."""
    shutil.copytree(folder / "vit-atom", folder / "vit-damaged")
    (folder / "vit-damaged" / "checkpoint-1" / "optimizer.pt").write_bytes(b"not an optimizer")


def spoil_heads(folder):
    """Copies of the model in `folder`/vit-atom, each spoilt in another way."""

    def spoil(name, change):
        target = folder / name
        target.mkdir()
        for file in (folder / "vit-atom").iterdir():
            if file.is_file():
                (target / file.name).write_bytes(file.read_bytes())
        change(target)

    def narrower(folder):
        config = json.loads((folder / "atom_config.json").read_text())
        (folder / "atom_config.json").write_text(json.dumps({**config, "hidden_size": 12}))

    def other_shapes(folder):
        heads = load_file(folder / "atom_heads.safetensors")
        save_file(
            {name: tensor[..., :-1].contiguous() for name, tensor in heads.items()}, folder / "atom_heads.safetensors"
        )

    def foreign(folder):
        save_file({"weight": torch.zeros(2, 2)}, folder / "atom_heads.safetensors")

    def truncated(folder):
        file = folder / "atom_heads.safetensors"
        file.write_bytes(file.read_bytes()[:-100])

    def newer(folder):
        config = json.loads((folder / "atom_config.json").read_text())
        (folder / "atom_config.json").write_text(json.dumps({**config, "format_version": 999}))

    for name, change in {
        "heads-narrower": narrower,
        "heads-other-shapes": other_shapes,
        "heads-foreign": foreign,
        "heads-truncated": truncated,
        "heads-text": lambda folder: (folder / "atom_heads.safetensors").write_text("no tensors here"),
        "heads-gone": lambda folder: (folder / "atom_heads.safetensors").unlink(),
        "config-newer": newer,
        "config-broken": lambda folder: (folder / "atom_config.json").write_text("[]"),
    }.items():
        spoil(name, change)
