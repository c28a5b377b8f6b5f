"""Settings for all tests: properties are searched without a clock.

Here each run searches 40 other examples, in CI the same 100.
"""

import gc
import os
import signal
import sys
from functools import cache, partial

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


def pytest_collection_finish(session):
    """Mend what was imported, once: a fixture costs each test a tenth of pytest's own work.

    What was imported is left out of garbage collections, too: they took a tenth of the run.
    """
    patch = pytest.MonkeyPatch()
    session.config.add_cleanup(patch.undo)
    for name, mend in MENDS.items():
        module = sys.modules.get(name)
        if module is not None:  # most tests ask no service, many no database
            mend(patch, module)
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 50)


@pytest.hookimpl(trylast=True)  # after the last fixtures
def pytest_sessionfinish():
    """Close what tests share, the server and the templates of databases, at the very end."""
    databases = sys.modules.get("tests.data.databases")
    if databases is not None:
        databases.close_server()
        databases.close_templates()


def give_time_to_answer(patch, limit):
    """Give assignments the time of a busy machine; tests of the limit set their own."""
    patch.setattr(limit, "ASSIGNMENT_SECONDS", 30.0)


def hash_passwords_quickly(patch, passwords):
    """Let services that are given no hasher hash in no time: a hash takes 0.2 s of a processor."""
    from argon2 import PasswordHasher  # noqa: PLC0415 - only then

    quick = partial(PasswordHasher, time_cost=1, memory_cost=8, parallelism=1)
    patch.setattr(passwords, "create_hasher", quick)


def respond_whole(patch, client):
    """Let test clients ask in one step: see the module for what that saves."""
    from tests.whole_responses import WholeResponseTransport  # noqa: PLC0415 - only then

    patch.setattr(client, "_TestClientTransport", WholeResponseTransport)


def read_version_once(patch, application):
    """Let applications share the version: a program makes one, which reads it in 2 ms."""
    patch.setattr(application, "version", cache(application.version))


MENDS = {
    "api.app": read_version_once,
    "api.priority_threads": give_time_to_answer,
    "rollout.data.database.session": share_statements,
    "rollout.features.access.credentials": hash_passwords_quickly,
    "starlette.testclient": respond_whole,
}
"""By module, what is done to it; tests that import it later do without."""
