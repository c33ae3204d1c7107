"""Granting a job's rights in Kafka to a user, and finding out at its start whether it has them."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from confluent_kafka import KafkaException, TopicCollection
from confluent_kafka.admin import (
    AclBinding,
    AclOperation,
    AclPermissionType,
    AdminClient,
    ResourcePatternType,
    ResourceType,
)

from pipelines.contracts.rights import Rights
from pipelines.contracts.topics import INPUT_TOPICS, OUTPUT_TOPICS
from pipelines.errors import BrokerError

HINT = "grant it with `stockcast broker grant JOB USER`, run as an administrator"


def acl_bindings(user: str, rights: Rights) -> list[AclBinding]:
    """The rights as Kafka's access control list holds them."""
    return [
        AclBinding(
            kind, name, ResourcePatternType.LITERAL, f"User:{user}", "*", operation, AclPermissionType.ALLOW
        )
        for kind, name, operation in _operations(rights)
    ]  # fmt: skip


def _operations(rights: Rights) -> Iterator[tuple[ResourceType, str, AclOperation]]:
    for name in (*INPUT_TOPICS, *OUTPUT_TOPICS):
        yield ResourceType.TOPIC, name, AclOperation.DESCRIBE
    for kind, names, operation in (
        (ResourceType.TOPIC, rights.read, AclOperation.READ),
        (ResourceType.TOPIC, rights.write, AclOperation.WRITE),
        (ResourceType.GROUP, rights.groups, AclOperation.READ),
        (ResourceType.TRANSACTIONAL_ID, rights.transactional_ids, AclOperation.WRITE),
    ):
        for name in names:
            yield kind, name, operation


def grant(admin: AdminClient, user: str, rights: Rights) -> int:
    """Grant the rights to a user; returns how many entries they are. Repeating it changes nothing.

    Raises:
        BrokerError: the broker refuses.
    """
    bindings = acl_bindings(user, rights)
    for future in admin.create_acls(bindings, request_timeout=15).values():
        try:
            future.result()
        except KafkaException as error:
            raise BrokerError(f"rights cannot be granted to {user}: {error.args[0].str()}") from None
    return len(bindings)


def check_rights(admin: AdminClient, user: str, read: Collection[str], write: Collection[str]) -> None:
    """Whether the user of a client may read and write these topics.

    Raises:
        BrokerError: it may not; names what is missing and what to do.
    """
    wanted = [(name, AclOperation.READ) for name in read] + [(name, AclOperation.WRITE) for name in write]
    described = admin.describe_topics(
        TopicCollection(sorted({name for name, _ in wanted})), include_authorized_operations=True, request_timeout=15
    )
    missing = []
    for name, operation in wanted:
        try:
            allowed = described[name].result().authorized_operations or ()
        except KafkaException:
            allowed = ()
        if operation not in allowed:
            missing.append(f"{operation.name.lower()} {name}")
    if missing:
        raise BrokerError(f"Kafka's user {user} may not {', '.join(missing)}; {HINT}")
