"""A wrong setting is refused before anything starts, naming the key, its source and what was expected."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from pipelines.errors import UsageError
from pipelines.operations.settings import Settings, load_settings

CONF = Path(__file__).parents[2] / "conf"


@pytest.fixture
def layer(tmp_path):
    """Writes a YAML file and gives its path."""

    def write(text, name="own.yaml"):
        path = tmp_path / name
        path.write_text(text)
        return str(path)

    return write


def refused(**arguments):
    with pytest.raises(UsageError) as caught:
        load_settings(**{"environment": {}, **arguments})
    assert caught.value.exit_code == 2
    return str(caught.value)


def test_base_yaml_states_every_default():
    assert Settings.model_validate(yaml.safe_load((CONF / "base.yaml").read_text())) == Settings()
    assert set(yaml.safe_load((CONF / "base.yaml").read_text())) == set(Settings.model_fields)


@pytest.mark.parametrize("path", sorted(CONF.glob("*.yaml")), ids=lambda path: path.name)
def test_every_file_in_conf_is_valid(path):
    assert load_settings([str(path)], environment={})


def test_later_layers_win(layer):
    first, second = layer("forecast: {horizon_days: 7}", "a.yaml"), layer("forecast: {horizon_days: 14}", "b.yaml")
    environment = {"STOCKCAST_HOME": "/data/x", "STOCKCAST__FORECAST__HORIZON_DAYS": "21"}
    assert load_settings([first, second], environment={}).forecast.horizon_days == 14
    assert load_settings([first, second], environment=environment).forecast.horizon_days == 21
    settings = load_settings([first], ["forecast.horizon_days=35"], environment)
    assert (settings.forecast.horizon_days, settings.home) == (35, "/data/x")


def test_an_unknown_key_names_the_file_and_the_known_ones(layer):
    path = layer("forecast: {horizn_days: 7}")
    message = refused(configs=[path])
    assert path in message
    assert "unknown key forecast.horizn_days" in message
    assert "horizon_days" in message.split("expected one of")[1]


def test_a_wrong_type_names_what_was_expected_and_found(layer):
    message = refused(configs=[layer("kafka: {partitions: many}")])
    assert "kafka.partitions" in message
    assert "integer" in message
    assert "'many'" in message


@pytest.mark.parametrize(
    "arguments",
    [
        {"overrides": ["forecast.horizon_days"]},
        {"overrides": ["forecast.horizon_days=0"]},
        {"overrides": ["nothing.here=1"]},
        {"configs": ["/no/such/file.yaml"]},
        {"environment": {"STOCKCAST__KAFKA__BOOTSTRAP": "x"}},
    ],
    ids=["no value", "out of range", "unknown section", "no such file", "unknown in the environment"],
)
def test_what_else_is_refused(arguments):
    assert refused(**arguments)


@pytest.mark.parametrize("lengths", ["[90]", "[60]", "[120,120]", "[10140]", "[-120]", "[0]"])
def test_sliding_windows_that_are_not_made_of_tumbling_ones_are_refused(lengths):
    assert load_settings(overrides=["totals.sliding_minutes=[120,10080]"]).totals.sliding_minutes == (120, 10080)
    assert "expected different multiples of window_minutes (60)" in refused(
        overrides=[f"totals.sliding_minutes={lengths}"]
    )


def test_settings_cannot_be_changed():
    with pytest.raises(Exception, match="frozen"):
        load_settings(environment={}).home = "elsewhere"


def test_broken_yaml_is_named(layer):
    assert "not YAML" in refused(configs=[layer("a: [")])


TOKEN = "0123456789012345"


def test_a_secret_from_the_environment_is_taken_as_it_is_and_never_shown():
    settings = load_settings(environment={"STOCKCAST__API__READ_TOKEN": TOKEN})
    assert settings.api.read_token.get_secret_value() == TOKEN
    assert TOKEN not in repr(settings) + str(settings) + settings.model_dump_json()


def test_a_secret_is_refused_on_the_command_line_and_in_a_file_that_others_can_read(layer):
    assert TOKEN not in refused(overrides=[f"api.read_token={TOKEN}"])
    path = Path(layer(f"supplier_api: {{secret: whsec_{TOKEN}}}"))
    path.chmod(0o644)
    message = refused(configs=[str(path)])
    assert f"chmod 600 {path}" in message
    assert TOKEN not in message
    path.chmod(0o600)
    assert load_settings([str(path)], environment={}).supplier_api.secret.get_secret_value() == f"whsec_{TOKEN}"


def test_a_secret_of_a_wrong_type_is_not_shown_either(layer):
    path = Path(layer("api: {read_token: [hunter2]}"))
    path.chmod(0o600)
    assert "hunter2" not in refused(configs=[str(path)])
