"""The first paper's loss as a sentence in the language of the third: its gradients are those of AtomTrainer."""

import pytest
import torch

from atom_hf import AtomConfig, AtomError
from atom_hf.tasks import TaskArguments, TaskModel, TaskTrainer, patterns, read_task
from atom_hf.tasks.atom_boxes import atom_boxes
from helpers.exactness import compare
from helpers.models import attached, collator_for, make_tokenizer, rows_for, tiny
from helpers.training import SUM, Gradients, arguments, make

WEIGHT = 30.0
ONE_STEP = {"max_steps": 1, "max_grad_norm": 0.0, "optim": "sgd", "per_device_train_batch_size": 8}
PLACES = {"boxes.body.base.": "BASE.", "boxes.head.rest.": "", "boxes.atom.heads.": "atom_heads."}


def task(name, config):
    width = config.hidden_size
    spec = patterns.atom_modeling(states=f"vector({width})", atoms=f"vector({width + 3})")
    text = str(spec).replace("atoms 0.3:", f"atoms {WEIGHT}:")
    if name == "bert":
        text = text.replace("pixels(1, 8, 8)", f"tokens({len(make_tokenizer())})").replace("class(10)", "class(2)")
    return read_task(text)


def with_heads(name):
    torch.manual_seed(0)  # of the heads
    return attached(name, AtomConfig(form="paper", layer=-1))


def of_the_task(name, folder, **options):
    model = with_heads(name)
    spec = task(name, model.atom_config)
    callback = Gradients()
    args = arguments(folder, TaskArguments, **{**ONE_STEP, **options})
    compiled = TaskModel(spec, atom_boxes(model))
    TaskTrainer(
        compiled, args, train_dataset=rows_for(name), data_collator=collator_for(name), callbacks=[callback]
    ).train()
    found = {}
    for key, value in callback.steps[0].items():
        before, after = next(pair for pair in PLACES.items() if key.startswith(pair[0]))
        found[after.replace("BASE", model.base_model_prefix) + key.removeprefix(before)] = value
    return found


def of_atom_trainer(name, folder, **options):
    callback = Gradients()
    options = {**SUM, **ONE_STEP, "atom_weight": WEIGHT, **options}
    make(name, folder, model=with_heads(name), rows=rows_for(name), pieces={"callbacks": [callback]}, **options).train()
    return callback.steps[0]


@pytest.mark.exactness
@pytest.mark.parametrize("batches", [1, 2])
@pytest.mark.parametrize("name", ["vit", "bert"])
def test_gradients_are_those_of_atom_trainer(name, batches, tmp_path):
    options = {"gradient_accumulation_steps": batches, "per_device_train_batch_size": 8 // batches}
    expected = of_atom_trainer(name, tmp_path / "one", **options)
    assert expected["atom_heads.position.weight"].abs().max() > 1e-2
    what = f"task: the atom loss of {name}, {batches} of {8 // batches}"
    compare(what, "AtomTrainer, absolute and constant weight", of_the_task(name, tmp_path / "two", **options), expected)


def test_a_model_that_has_no_such_boxes_is_refused():
    with pytest.raises(AtomError, match="this ViTForImageClassification has no atoms attached; call attach_atoms"):
        atom_boxes(tiny("vit"))
    with pytest.raises(AtomError, match=r"its heads train apart from the energy \(form separation\)"):
        atom_boxes(attached("vit", AtomConfig(form="separation")))
