"""How Kafka is reached where it asks for TLS and for a user: one group of settings, for both kinds of clients.

librdkafka (the confluent clients) and Java (Spark's source and sink) name these things differently; the user writes
them once. The password never becomes part of an address, an option with a harmless name, or a message.
"""

from __future__ import annotations

import re

from pipelines.errors import UsageError
from pipelines.operations.secret_files import secret_of
from pipelines.operations.settings import KafkaSettings

SECRET_NAMES = re.compile("password|secret|jaas|token|private", re.IGNORECASE)
"""Names of client settings that hold secrets: refused among those that are shown and handed on as they are."""

_JAVA_NAMES = {"sasl.mechanisms": "sasl.mechanism"}
_LOGIN_MODULES = {
    "PLAIN": "org.apache.kafka.common.security.plain.PlainLoginModule",
    "SCRAM-SHA-256": "org.apache.kafka.common.security.scram.ScramLoginModule",
    "SCRAM-SHA-512": "org.apache.kafka.common.security.scram.ScramLoginModule",
}


def librdkafka_options(settings: KafkaSettings) -> dict[str, str]:
    """What the confluent clients need, with `settings.client`.

    Raises:
        UsageError: the settings do not fit together.
    """
    options = _checked(settings)
    if settings.security_protocol != "PLAINTEXT":
        options["security.protocol"] = settings.security_protocol
    if settings.ca_file is not None:
        options["ssl.ca.location"] = settings.ca_file
    if (password := _password(settings)) is not None:
        options |= {
            "sasl.mechanism": settings.sasl_mechanism,
            "sasl.username": str(settings.username),
            "sasl.password": password,
        }
    return options


def java_options(settings: KafkaSettings) -> dict[str, str]:
    """What Spark's Kafka source and sink need (without their prefix `kafka.`), with `settings.client`.

    Raises:
        UsageError: the settings do not fit together.
    """
    options = {_JAVA_NAMES.get(name, name): value for name, value in _checked(settings).items()}
    if settings.security_protocol != "PLAINTEXT":
        options["security.protocol"] = settings.security_protocol
    if settings.ca_file is not None:
        options |= {"ssl.truststore.type": "PEM", "ssl.truststore.location": settings.ca_file}
    if (password := _password(settings)) is not None:
        module = _LOGIN_MODULES[settings.sasl_mechanism]
        options |= {
            "sasl.mechanism": settings.sasl_mechanism,
            "sasl.jaas.config": f"{module} required username={_quoted(str(settings.username))} "
            f"password={_quoted(password)};",
        }
    return options


def _checked(settings: KafkaSettings) -> dict[str, str]:
    for name in settings.client:
        if SECRET_NAMES.search(name):
            raise UsageError(
                f"kafka.client holds {name}, which is a secret and would be shown; use kafka.username with "
                "STOCKCAST__KAFKA__PASSWORD or kafka.password_file"
            )
    if settings.ca_file is not None and not settings.security_protocol.endswith("SSL"):
        raise UsageError("kafka.ca_file is set, but kafka.security_protocol uses no TLS; set it to SSL or SASL_SSL")
    return dict(settings.client)


def _password(settings: KafkaSettings) -> str | None:
    """The user's password; None where the protocol asks for no user."""
    password = secret_of(settings.password, settings.password_file, "kafka.password")
    if not settings.security_protocol.startswith("SASL"):
        if password is not None or settings.username is not None:
            raise UsageError(
                "kafka.username or its password is set, but kafka.security_protocol is "
                f"{settings.security_protocol}, which sends neither; set it to SASL_SSL"
            )
        return None
    if settings.username is None or password is None:
        raise UsageError(
            f"kafka.security_protocol is {settings.security_protocol}, which needs kafka.username and "
            "STOCKCAST__KAFKA__PASSWORD or kafka.password_file"
        )
    return password


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
