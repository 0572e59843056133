"""Fixtures of all tests, and the exactness table."""

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


def pytest_addoption(parser):
    parser.addoption("--exactness", metavar="FILE", help="write what the comparisons of gradients found into FILE")


def pytest_sessionfinish(session, exitstatus):
    file = session.config.getoption("--exactness")
    if file and exitstatus == 0:
        exactness.write(Path(file))
