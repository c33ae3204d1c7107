"""The Spark session. Master, memory and jars come from spark-submit or spark-defaults.conf, never from here."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

from pyspark import SparkFiles
from pyspark.sql import SparkSession

from pipelines.errors import UsageError
from pipelines.operations import logs

DELTA_EXTENSION = "io.delta.sql.DeltaSparkSessionExtension"


def open_session(name: str) -> SparkSession:
    """A session with Delta and UTC, whoever launched the driver.

    Raises:
        UsageError: Delta is not on the class path or the session zone is not UTC; says how to pass the
            project's Spark defaults.
    """
    # Workers on this machine run the driver's own Python; a cluster's spark.pyspark.python comes first.
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    spark = SparkSession.builder.appName(name).getOrCreate()
    conf = spark.conf
    if DELTA_EXTENSION not in (conf.get("spark.sql.extensions", "") or ""):
        spark.stop()
        raise UsageError(
            "this Spark session has no Delta Lake: run `make setup`, or pass "
            "--properties-file conf/spark-defaults.conf and --jars .jars/spark/*.jar"
        )
    conf.set("spark.sql.session.timeZone", "UTC")
    logs.tell_spark(spark)
    _share_wheels(spark)
    return spark


def _share_wheels(spark: SparkSession) -> None:
    """Let executors import from the wheels of `--py-files`: by itself Spark looks there into .zip and .egg only."""
    submitted = spark.sparkContext.getConf().get("spark.submit.pyFiles", "") or ""
    for name in (Path(path).name for path in submitted.split(",") if path.endswith(".whl")):
        copy = Path(SparkFiles.getRootDirectory(), "wheels", f"{name}.zip")
        copy.parent.mkdir(exist_ok=True)
        shutil.copyfile(SparkFiles.get(name), copy)
        spark.sparkContext.addPyFile(str(copy))
