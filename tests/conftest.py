"""Fixtures of all tests, and the exactness table."""

import functools
import gc
import logging
from pathlib import Path

import pytest

from helpers import exactness
from helpers.browser import chromium  # noqa: F401 (a fixture)


@pytest.fixture(autouse=True, scope="module")
def brief_searches():
    """Each training looks for garbage several times: it need not look through what libraries and earlier modules hold."""
    gc.collect()
    gc.freeze()


@pytest.fixture
def library_log():
    """What Transformers and Accelerate log from warnings on, as a list of messages."""
    messages = []
    handler = logging.Handler(level=logging.WARNING)
    handler.emit = lambda record: messages.append(record.getMessage())
    loggers = [logging.getLogger(name) for name in ("transformers", "accelerate")]
    for logger in loggers:
        logger.addHandler(handler)
    yield messages
    for logger in loggers:
        logger.removeHandler(handler)


@pytest.fixture
def own_cache(tmp_path_factory, monkeypatch):
    """What `datasets` reads is kept in a folder of the test's own."""
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("cache"))
    datasets.disable_progress_bars()


@pytest.fixture
def own_folder(own_cache, tmp_path, monkeypatch):
    """The test runs in its own folder."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def few_steps(monkeypatch):
    """Importance is fitted to the prediction in as few steps as show that it is."""
    monkeypatch.setattr("atom_hf.explainer.descent.STEPS", 20)
    monkeypatch.setattr("atom_hf.explainer.descent.LOOK", 10)


@pytest.fixture(scope="module")
def hub(tmp_path_factory):
    """A Hub with a base, a data set, and a repository of somebody else."""
    from helpers.hub_client import make_model, make_tokenizer, table_files
    from helpers.hub_server import Hub

    base = tmp_path_factory.mktemp("base")
    make_model(0).save_pretrained(base)
    make_tokenizer().save_pretrained(base)
    with Hub() as hub:
        hub.add("org/base", base)
        hub.add("org/open", {"README.md": b"# Of somebody\n"})
        hub.add("org/data", table_files(), kind="datasets")
        yield hub


@pytest.fixture(scope="session")
def two_processes(tmp_path_factory):
    """two_processes(function, *arguments): what a function of the test's module returns in each of two processes."""
    from helpers.two_processes import TwoProcesses

    processes = TwoProcesses(lambda: tmp_path_factory.mktemp("two_processes"))
    yield processes
    processes.stop()


@pytest.fixture(scope="module")
def digits_once():
    """Reads the built-in digits once."""
    from atom_hf.data import sources

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sources, "_digits", functools.cache(sources._digits))
        yield


@pytest.fixture
def started(monkeypatch):
    """The seeds of the runs that are trained."""
    import transformers

    seeds, real = [], transformers.Trainer.train

    def train(self, *args, **options):
        seeds.append(self.args.seed)
        return real(self, *args, **options)

    monkeypatch.setattr(transformers.Trainer, "train", train)
    return seeds


def pytest_addoption(parser):
    parser.addoption("--exactness", metavar="FILE", help="write what the comparisons of gradients found into FILE")


def pytest_sessionfinish(session, exitstatus):
    file = session.config.getoption("--exactness")
    if file and exitstatus == 0:
        exactness.write(Path(file))
