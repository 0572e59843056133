"""A process with the real client of the Hub in it, and small models and data for it to fetch and push."""

import io
import json
import os
import subprocess
import sys

import pandas as pd
import torch
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from helpers.hub_server import EXPIRED, READER, TOKEN

LINES = ["the sea is cold and grey", "a fire is warm and red", "they sleep by the cold sea", "we sing by the warm fire"]
WORDS = sorted({word for line in LINES for word in line.split()})
ROWS = pd.DataFrame({"line": LINES * 6, "label": [0, 1, 0, 1] * 6})
KINDS = ["cold", "warm"]
WRONG_TOKEN = "hf_aTokenThatMayReadNothing"

# Runs in a process of its own, since the client reads the address of the Hub when it is imported. Reads a list of steps,
# each either the arguments of the command line, or the number of a step whose printed next command is run, or a piece of
# Python that leaves its answer in `found`. A step may begin with faults of the Hub's; with it comes what is on the Hub after.
CLIENT = """
import contextlib, gc, io, json, logging, os, shlex, sys, time, traceback, urllib.request, warnings
import torch, transformers
from atom_hf import AtomMixin, load_atom_model
from atom_hf.cli.main import main

def tell_hub(what, value):
    data = json.dumps(value).encode()
    with urllib.request.urlopen(os.environ["HF_ENDPOINT"] + "/tests/" + what, data) as answer:
        return json.load(answer)

logging.basicConfig(format="%(message)s")
waits, sleep = [], time.sleep

answers = []
for step in json.load(sys.stdin):
    gc.freeze()  # each training looks for garbage, which is not in the libraries
    out, err = io.StringIO(), io.StringIO()
    if "faults" in step:
        tell_hub("faults", step["faults"])
    # The client waits longer and longer before it tries again; where that is expected it only notes how long.
    time.sleep = waits.append if "faults" in step else sleep
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
    answers[-1].update(waits=waits[:], heads=tell_hub("heads", None))
    waits.clear()
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


def table_files():
    """A data set of two splits, as the files of its repository."""
    return {"data/train.parquet": parquet(ROWS), "data/test.parquet": parquet(ROWS[:8]), "README.md": b"# Lines\n"}


def importance_of(model):
    encoded = make_tokenizer()(LINES, padding=True, return_tensors="pt")
    return model.atom_importance(**encoded).nan_to_num(9).tolist()


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
    )
    assert done.returncode == 0, done.stderr[-2000:]
    # What libraries log goes past the redirection of sys.stderr: it belongs to the process.
    answers = [{**answer, "log": done.stderr} for answer in json.loads(done.stdout)]
    return dict(zip(steps, answers, strict=True))


def succeeded(answer):
    assert answer["status"] in (0, None), f"{answer['status']}\n{answer['err']}"
    return answer


def error_line(answer):
    """The one line that a rejected command ends with."""
    assert answer["status"] == 2, f"{answer['status']}\n{answer['err']}"
    lines = answer["err"].replace("\r", "\n").splitlines()
    assert lines[-1].startswith("atom-hf: error: ")
    assert sum(line.startswith("atom-hf: error: ") for line in lines) == 1
    assert "Traceback" not in answer["err"]
    has_no_token(answer)
    return lines[-1]


def has_no_token(answer):
    for secret in (TOKEN, READER, WRONG_TOKEN, EXPIRED):
        assert secret not in json.dumps(answer)
