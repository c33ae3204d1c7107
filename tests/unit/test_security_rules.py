"""Rules that hold for all of the code: no SQL assembled from data, names from a pattern, nothing beyond loopback."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from pydantic import SecretStr

from pipelines.contracts import tables as contract
from pipelines.contracts.rights import RIGHTS
from pipelines.contracts.topics import INPUT_TOPICS, OUTPUT_TOPICS
from pipelines.errors import UsageError
from pipelines.operations import broker
from pipelines.operations.settings import ApiSettings, Settings, load_settings
from pipelines.serving.access import load_access

ROOT = Path(__file__).parents[2]
SOURCES = sorted([*(ROOT / "pipelines").rglob("*.py"), *(ROOT / "jobs").glob("*.py")])

SQL_CALLS = {"sql", "expr", "selectExpr", "where", "filter", "delete", "overwrite", "overwrite_frame", "merge",
             "when_matched_update", "when_matched_delete", "execute", "executemany",
             "search_runs", "search_model_versions", "search_registered_models"}  # fmt: skip
"""Calls whose text is a program in another language."""
SQL_NAMES = {"predicate", "condition"}
HARMLESS = (
    r"(publishing\.)?_?safe\(.*\)",  # refuses whatever is not a version's name
    r"', '\.join\(.*\b_?safe\(.*\).*\)",
    r".*\.isoformat\(\)",
    r"(period|self)\.microseconds|time",  # a whole number; a name of a column that our own code gives
    r"names",  # the versions, each through _safe, in the line before
    r"key",  # of our own constants: the keys of a merge
    r"' AND '\.join\(.*\)",
    r"self\.name",  # mlflow.registered_model, a setting
)
"""What may stand in such a text besides constants."""


def assembled(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Line and source of everything that is put into a text of another language."""
    for node in ast.walk(tree):
        texts: list[ast.expr] = []
        if isinstance(node, ast.Call):
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if name in SQL_CALLS:
                texts = [*node.args, *(keyword.value for keyword in node.keywords)]
            else:
                texts = [keyword.value for keyword in node.keywords if keyword.arg in SQL_NAMES]
        elif isinstance(node, ast.Assign) and {getattr(target, "id", "") for target in node.targets} & SQL_NAMES:
            texts = [node.value]
        for text in texts:
            yield from _parts(text)


def _parts(text: ast.expr) -> Iterator[tuple[int, str]]:
    if isinstance(text, ast.JoinedStr):
        for part in text.values:
            if isinstance(part, ast.FormattedValue):
                yield part.lineno, ast.unparse(part.value)
    elif isinstance(text, ast.BinOp) and isinstance(text.op, ast.Add | ast.Mod):
        if any(isinstance(side, ast.Constant) and isinstance(side.value, str) for side in (text.left, text.right)):
            yield text.lineno, ast.unparse(text)
        else:
            yield from _parts(text.left)
            yield from _parts(text.right)
    elif isinstance(text, ast.Call) and isinstance(text.func, ast.Attribute) and text.func.attr in {"format", "join"}:
        if text.func.attr == "format" or not isinstance(text.args[0], ast.GeneratorExp):
            yield text.lineno, ast.unparse(text)
        else:
            yield from _parts(text.args[0].elt)


def violations(source: str) -> list[str]:
    found = assembled(ast.parse(source))
    return [f"{line}: {text}" for line, text in found if not any(re.fullmatch(rule, text) for rule in HARMLESS)]


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_sql_is_assembled_from_data(path):
    assert violations(path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    "line",
    [
        "spark.sql(f'SELECT * FROM t WHERE sku = \"{sku}\"')",
        "frame.where(f\"sku = '{row['sku']}'\")",
        "frame.where('sku = ' + sku)",
        "frame.filter('sku = %s' % sku)",
        "F.expr('sku = {}'.format(sku))",
        "tables.delete(T, f\"version = '{version}'\")",
        "tables.overwrite(T, rows, predicate=f\"version = '{version}'\")",
        "predicate = f\"version = '{version}'\"",
        "frame.where(', '.join(names))",
    ],
)
def test_the_rule_can_fail(line):
    assert violations(line)


def test_tables_and_topics_have_names_from_a_pattern():
    for table in contract.ALL_TABLES:
        assert re.fullmatch(r"(bronze|silver|gold|catalog)/[a-z][a-z_]{0,62}", table.name), table.name
    for topic in (*INPUT_TOPICS, *OUTPUT_TOPICS):
        assert re.fullmatch(r"[a-z][a-z_]*(\.[a-z][a-z_]*)?", topic), topic


@pytest.mark.parametrize(
    "name", ["silver/../../etc", "/etc/passwd", "silver", "silver/a/b", "Silver/x", "silver/x;", ""]
)
def test_a_table_with_another_name_cannot_be_made(name):
    with pytest.raises(ValueError, match="is no table's name"):
        contract.Table(name, contract.PRODUCTS.schema, "nobody")


def test_no_setting_names_a_table_or_a_topic():
    """What is written where is stated in the contract alone; nobody can point a job at another table or topic."""
    sections = {name: field.annotation for name, field in Settings.model_fields.items()}
    names = [name for section in sections.values() for name in getattr(section, "model_fields", ())]
    assert len(names) > 50
    assert not [name for name in names if re.search(r"(^|_)(table|topic)s?($|_)", name)]


def test_rights_name_topics_of_the_contract_only():
    for job, rights in RIGHTS.items():
        assert {*rights.read, *rights.write} <= {*INPUT_TOPICS, *OUTPUT_TOPICS}, job


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "stockcast.example.org", ""])
def test_nothing_listens_beyond_loopback_without_a_token(host):
    with pytest.raises(UsageError, match=r"dashboard\.host is .*, which others can reach, and no token is set"):
        load_access(ApiSettings(), host, "dashboard.host")
    assert load_access(ApiSettings(read_token=SecretStr("a-token-of-some-length")), host)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1", "[::1]", "127.8.8.8"])
def test_on_loopback_no_token_is_needed(host):
    assert load_access(ApiSettings(), host).is_open


@pytest.mark.parametrize(
    "servers", ["0.0.0.0:9092", "kafka.example.org:9092", "'[::]:9092'", "127.0.0.1:9092,10.0.0.1:9092"]
)
def test_the_embedded_broker_which_knows_no_users_stays_on_loopback(servers, tmp_path):
    settings = load_settings(overrides=[f"home={tmp_path}", f"kafka.bootstrap_servers={servers}"])
    with pytest.raises(UsageError, match=r"listens on 127\.0\.0\.1:PORT only"):
        broker.start(settings)


def test_spark_hides_what_is_secret_by_its_name():
    """Names of options that hold secrets are among those that Spark shows as redacted."""
    lines = (ROOT / "conf" / "spark-defaults.conf").read_text(encoding="utf-8").splitlines()
    defaults = dict(line.split(None, 1) for line in lines if line.strip() and not line.startswith("#"))
    for setting in ("spark.redaction.regex", "spark.sql.redaction.options.regex"):
        pattern = re.compile(defaults[setting])
        for name in ("kafka.sasl.jaas.config", "kafka.ssl.key.password", "STOCKCAST__KAFKA__PASSWORD",
                     "STOCKCAST__SUPPLIER_API__SECRET", "STOCKCAST__API__READ_TOKEN", "fs.s3a.access.key"):  # fmt: skip
            assert pattern.search(name), (setting, name)


def test_no_file_in_conf_or_deploy_holds_a_secret():
    for path in [*(ROOT / "conf").glob("*.yaml"), *(ROOT / "deploy").rglob("*.yaml")]:
        for document in yaml.safe_load_all(path.read_text(encoding="utf-8")):
            for section, keys in (document or {}).items():
                for key, value in keys.items() if isinstance(keys, dict) else ():
                    if re.search("password|secret|token", str(key)) and not str(key).endswith("_file"):
                        assert value is None, f"{path}: {section}.{key}"
