"""A small classifier of digits and editors made of it."""

import functools
import tempfile

import torch
from sklearn.datasets import load_digits

from atom_hf.tasks import manipulate
from atom_hf.tasks.kinds import Kind
from atom_hf.tasks.manipulation.arguments import ManipulatorArguments
from atom_hf.tasks.manipulation.classifier import Classifier, make_classifier
from atom_hf.tasks.manipulation.rows import LabelledRows

DIGITS = Kind("pixels", (1, 8, 8))
NAMES = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]


@functools.cache
def digit_rows():
    """(training rows, rows for a judge, rows to edit): 1,000, 400 and 397 digits."""
    values, labels = load_digits(return_X_y=True)
    order = torch.randperm(len(values), generator=torch.Generator().manual_seed(0))
    pixels = torch.as_tensor(values / 16 * 255).to(torch.uint8).view(-1, 1, 8, 8)[order]
    labels = torch.as_tensor(labels, dtype=torch.long)[order]
    return tuple(
        LabelledRows(pixels[part], labels[part]) for part in (slice(1000), slice(1000, 1400), slice(1400, None))
    )


def small(folder, **more):
    """Arguments of a run that takes a second or two."""
    options = {
        "max_steps": 60, "logging_steps": 30, "save_strategy": "no", "report_to": "none", "use_cpu": True,
        "disable_tqdm": True, **more,
    }  # fmt: skip
    return ManipulatorArguments(str(folder), **options)


@functools.cache
def digits_classifier():
    """A network of one hidden layer that reads digits, trained by hand."""
    train, _, _ = digit_rows()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        form = {"architecture": "mlp(32)"}
        module = make_classifier(form, DIGITS, 10)
        optimizer = torch.optim.AdamW(module.parameters(), 1e-2)
        for _ in range(150):
            rows = train.take(torch.randint(1000, (128,)))
            loss = torch.nn.functional.cross_entropy(module(rows.floats), rows.labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return Classifier(module.eval(), form, NAMES, "classifiers/digits")


@functools.cache
def digits_manipulator():
    """An editor of digits against a sparring copy of noise 0.3."""
    train, judge, _ = digit_rows()
    with tempfile.TemporaryDirectory() as folder:
        return manipulate(
            digits_classifier(), train, judge, sigma=0.3, hidden_sizes=(16, 32), dataset="digits",
            args=small(folder, max_steps=150, per_device_train_batch_size=64, logging_steps=50),
        )  # fmt: skip
