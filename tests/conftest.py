"""Settings for all tests: properties are searched without a clock.

Here each run searches 40 other examples, in CI the same 100.
"""

import gc
import os
import signal
import sys
from functools import partial

import pytest
from hypothesis import HealthCheck, settings

from tests.collection import Needless, rewrite_share
from tests.data.compiled_statements import share_statements
from tests.parts import Spent, mark_parts
from tests.samples import COMMIT, Sample, count_workers, file_of_seconds
from tests.second_tries import count_tries_in_workers

# Programs that tests start inherit SIGINT where a shell ignores it, and would not end on Ctrl-C.
signal.signal(signal.SIGINT, signal.default_int_handler)
# Before numpy and polars are imported: each worker has one processor, and threads spin for others.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("POLARS_MAX_THREADS", "1")
settings.register_profile(
    "here", deadline=None, max_examples=40, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile(
    "ci", parent=settings.get_profile("here"), max_examples=100, derandomize=True
)
settings.load_profile("ci" if os.environ.get("CI") else "here")


@pytest.hookimpl(trylast=True)  # after the plugin that tries tests again
def pytest_configure(config):
    count_tries_in_workers(config)
    rewrite_share(config)
    config.pluginmanager.register(Needless(), "needless")
    if COMMIT:
        file_of_seconds()  # workers inherit its name
    if not hasattr(config, "workerinput"):  # one process alone reports
        config.pluginmanager.register(Spent(count_workers(config)), "parts")


@pytest.hookimpl(tryfirst=True)  # before `-m` chooses
def pytest_collection_modifyitems(config, items):
    part_of = mark_parts(items)
    if COMMIT:
        sample = Sample(COMMIT, part_of, file_of_seconds(), count_workers(config))
        items[:], left_out = sample.choose(items)
        config.hook.pytest_deselected(items=left_out)
        config.pluginmanager.register(sample, "sample")


def pytest_collection_finish():
    """Leave what was imported out of garbage collections: they took a tenth of the run."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 50)


@pytest.fixture(autouse=True)
def _time_to_answer(monkeypatch):
    """Give assignments the time of a busy machine; tests of the limit set their own."""
    limit = sys.modules.get("api.priority_threads")  # most tests ask no service
    if limit is not None:
        monkeypatch.setattr(limit, "ASSIGNMENT_SECONDS", 30.0)


@pytest.fixture(scope="session", autouse=True)
def _statements_compiled_once():
    """Let all databases share their compiled statements."""
    with pytest.MonkeyPatch.context() as patch:
        session = sys.modules.get("rollout.data.database.session")  # many tests need no database
        if session is not None:
            share_statements(patch, session)
        yield


@pytest.fixture(scope="session", autouse=True)
def _passwords_hashed_quickly():
    """Let services that are given no hasher hash in no time: a hash takes 0.2 s of a processor."""
    with pytest.MonkeyPatch.context() as patch:
        passwords = sys.modules.get("rollout.features.access.credentials")
        if passwords is not None:
            from argon2 import PasswordHasher  # noqa: PLC0415 - only then

            quick = partial(PasswordHasher, time_cost=1, memory_cost=8, parallelism=1)
            patch.setattr(passwords, "create_hasher", quick)
        yield


@pytest.fixture(scope="session", autouse=True)
def _whole_responses():
    """Let test clients ask in one step: see the module for what that saves."""
    with pytest.MonkeyPatch.context() as patch:
        client = sys.modules.get("starlette.testclient")  # most tests ask no service
        if client is not None:
            from tests.whole_responses import WholeResponseTransport  # noqa: PLC0415 - only then

            patch.setattr(client, "_TestClientTransport", WholeResponseTransport)
        yield


@pytest.fixture(scope="session", autouse=True)
def _nothing_left_running():
    """Close what tests share, the server and the templates of databases, at the very end."""
    yield
    databases = sys.modules.get("tests.data.databases")  # many tests need no database
    if databases is not None:
        databases.close_server()
        databases.close_templates()
