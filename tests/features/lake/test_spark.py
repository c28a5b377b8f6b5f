"""Counts of Spark equal those of Polars, where Spark and a Java runtime are."""

import os
import shutil

import pytest

from rollout.features.lake.counting import count_units
from rollout.features.lake.engines import LakeError
from tests.features.lake.test_counts import a_long_history, build_frames, read_rules

pytestmark = [
    pytest.mark.slow,
    pytest.mark.enable_socket,
    pytest.mark.filterwarnings("ignore::FutureWarning"),  # of Spark, about newer packages
]


@pytest.fixture(scope="module")
def session():
    if "ROLLOUT_TEST_SPARK" not in os.environ:  # `make spark` runs them, or fails
        pytest.importorskip("pyspark.sql", reason="no Spark: pip install pyspark (500 MB)")
        if shutil.which("java") is None:
            pytest.skip("no Java runtime, which Spark needs")
    from pyspark import sql  # noqa: PLC0415 - optional

    settings = {
        "spark.ui.enabled": "false",
        "spark.sql.shuffle.partitions": "4",
        "spark.driver.bindAddress": "127.0.0.1",
        "spark.driver.host": "127.0.0.1",
    }
    builder = sql.SparkSession.builder.master("local[2]")
    for name, value in settings.items():
        builder = builder.config(name, value)
    opened = builder.getOrCreate()
    yield opened
    opened.stop()


@pytest.mark.parametrize("unit", ["case", "spans"])
def test_spark_counts_as_polars(session, unit):
    frames = build_frames(a_long_history(80))
    whole = count_units(**frames, policy=read_rules(unit))
    tables = {name: session.createDataFrame(f.to_arrow()) for name, f in frames.items() if len(f)}
    parts = count_units(**{"cases": None, **tables}, policy=read_rules(unit), parts=3)
    assert parts.hash == whole.hash


def test_a_refusal_of_a_worker_is_read_as_one(session):
    frames = build_frames(a_long_history(8))
    frames["predictions"] = frames["predictions"].drop("label")
    tables = {name: session.createDataFrame(f.to_arrow()) for name, f in frames.items() if len(f)}
    with pytest.raises(LakeError, match="label"):
        count_units(**tables, policy=read_rules(), parts=2)
