"""A real broker that speaks SASL_SSL with SCRAM and checks an access control list; its authority is made anew."""

from __future__ import annotations

import datetime as dt
import ipaddress
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from confluent_kafka import KafkaException
from confluent_kafka.admin import (
    AdminClient,
    NewTopic,
    ScramCredentialInfo,
    ScramMechanism,
    UserScramCredentialUpsertion,
)
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from pipelines.contracts import topics
from pipelines.operations.jars import JARS
from pipelines.operations.java import java

ADMIN, ADMIN_PASSWORD = "admin", "admin-password-of-the-test"


def make_certificates(folder: Path) -> tuple[Path, Path]:
    """An authority of our own (PEM) and, signed by it, key and certificate of a broker on 127.0.0.1 (PEM)."""
    now = dt.datetime.now(dt.UTC)

    def certificate(name: str, issuer: str, key, signer, extension) -> x509.Certificate:
        return (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
            .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, issuer)]))
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - dt.timedelta(hours=1))
            .not_valid_after(now + dt.timedelta(days=1))
            .add_extension(extension, critical=True)
            .sign(signer, hashes.SHA256())
        )

    authority_key, broker_key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    constraints = x509.BasicConstraints(ca=True, path_length=None)
    authority = certificate("test authority", "test authority", authority_key, authority_key, constraints)
    names = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    broker = certificate("127.0.0.1", "test authority", broker_key, authority_key, names)
    pem = serialization.Encoding.PEM
    ca_file, broker_file = folder / "ca.pem", folder / "broker.pem"
    ca_file.write_bytes(authority.public_bytes(pem))
    private = broker_key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    broker_file.touch(0o600)
    broker_file.write_bytes(private + broker.public_bytes(pem) + authority.public_bytes(pem))
    return ca_file, broker_file


class SecureBroker:
    """A broker that runs; `bootstrap` and `ca_file` are what a client needs beside its user and password."""

    def __init__(self, bootstrap: str, ca_file: Path) -> None:
        self.bootstrap, self.ca_file = bootstrap, ca_file
        self.admin = AdminClient(self.client(ADMIN, ADMIN_PASSWORD))

    def client(self, user: str, password: str) -> dict[str, str]:
        """Settings of a confluent client."""
        return {
            "bootstrap.servers": self.bootstrap,
            "security.protocol": "SASL_SSL",
            "sasl.mechanism": "SCRAM-SHA-512",
            "sasl.username": user,
            "sasl.password": password,
            "ssl.ca.location": str(self.ca_file),
            "log_level": 0,
        }

    def add_user(self, user: str, password: str) -> None:
        """A user that may do nothing yet."""
        info = ScramCredentialInfo(ScramMechanism.SCRAM_SHA_512, 4096)
        added = UserScramCredentialUpsertion(user, info, password.encode())
        self.admin.alter_user_scram_credentials([added])[user].result(15)

    def overrides(self, user: str) -> list[str]:
        """Settings of Stockcast for this broker; the password comes from elsewhere."""
        return [
            f"kafka.bootstrap_servers={self.bootstrap}",
            "kafka.security_protocol=SASL_SSL",
            f"kafka.ca_file={self.ca_file}",
            f"kafka.username={user}",
        ]


@contextmanager
def secure_broker(folder: Path, port: int, controller_port: int) -> Iterator[SecureBroker]:
    """A broker in a folder, with Stockcast's topics, until the block ends."""
    ca_file, broker_file = make_certificates(folder)
    config = folder / "server.properties"
    config.write_text(_properties(folder, port, controller_port, broker_file, ca_file))
    config.chmod(0o600)
    classpath = str(JARS / "broker" / "*")
    scram = f"SCRAM-SHA-512=[name={ADMIN},password={ADMIN_PASSWORD}]"
    subprocess.run(
        [java(), "-cp", classpath, "kafka.tools.StorageTool", "format", "--standalone",
         "-t", "c2VjdXJlLWJyb2tlci10ZQ", "-c", str(config), "--add-scram", scram],
        check=True, capture_output=True,
    )  # fmt: skip
    with open(folder / "broker.log", "wb") as log:
        process = subprocess.Popen(
            [java(), "-Xmx384m", "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn", "-cp", classpath, "kafka.Kafka",
             str(config)],
            stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
        )  # fmt: skip
    try:
        broker = SecureBroker(f"127.0.0.1:{port}", ca_file)
        _make_topics(broker, process, folder / "broker.log")
        yield broker
    finally:
        process.terminate()
        process.wait(30)


def _make_topics(broker: SecureBroker, process: subprocess.Popen[bytes], log: Path) -> None:
    names = (*topics.INPUT_TOPICS, *topics.OUTPUT_TOPICS)
    deadline = time.monotonic() + 120
    while True:
        try:
            missing = set(names) - set(broker.admin.list_topics(timeout=5).topics)
            wanted = [NewTopic(name, 2, 1, config={"message.timestamp.type": "LogAppendTime"}) for name in missing]
            for future in broker.admin.create_topics(wanted, request_timeout=10).values() if wanted else ():
                future.result(15)
        except KafkaException:
            assert process.poll() is None, log.read_text()[-3000:]
            assert time.monotonic() < deadline, log.read_text()[-3000:]
            time.sleep(0.3)
        else:
            if not missing:
                return


def _properties(folder: Path, port: int, controller_port: int, broker_file: Path, ca_file: Path) -> str:
    login = "org.apache.kafka.common.security.scram.ScramLoginModule required"
    return "\n".join(
        f"{key}={value}"
        for key, value in {
            "process.roles": "broker,controller",
            "node.id": 1,
            "controller.quorum.bootstrap.servers": f"127.0.0.1:{controller_port}",
            "listeners": f"SASL_SSL://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller_port}",
            "advertised.listeners": f"SASL_SSL://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller_port}",
            "controller.listener.names": "CONTROLLER",
            "listener.security.protocol.map": "SASL_SSL:SASL_SSL,CONTROLLER:PLAINTEXT",
            "inter.broker.listener.name": "SASL_SSL",
            "sasl.enabled.mechanisms": "SCRAM-SHA-512",
            "sasl.mechanism.inter.broker.protocol": "SCRAM-SHA-512",
            "listener.name.sasl_ssl.scram-sha-512.sasl.jaas.config": f'{login} username="{ADMIN}" '
            f'password="{ADMIN_PASSWORD}";',
            "ssl.keystore.type": "PEM",
            "ssl.keystore.location": broker_file,
            "ssl.truststore.type": "PEM",
            "ssl.truststore.location": ca_file,
            "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
            # The controller's own listener is plain; no client reaches the broker without a user.
            "super.users": f"User:{ADMIN};User:ANONYMOUS",
            "allow.everyone.if.no.acl.found": "false",
            "log.dirs": folder / "data",
            "auto.create.topics.enable": "false",
            "offsets.topic.num.partitions": 1,
            "offsets.topic.replication.factor": 1,
            "transaction.state.log.num.partitions": 1,
            "transaction.state.log.replication.factor": 1,
            "transaction.state.log.min.isr": 1,
            "share.coordinator.state.topic.num.partitions": 1,
            "share.coordinator.state.topic.replication.factor": 1,
            "share.coordinator.state.topic.min.isr": 1,
            "group.initial.rebalance.delay.ms": 0,
        }.items()
    )
