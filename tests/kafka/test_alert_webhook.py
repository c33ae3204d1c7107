"""Alerts to a webhook: the real broker on one side, an HTTP server that verifies signatures on the other."""

from __future__ import annotations

import base64
import json
import threading
import time
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from pydantic import SecretStr
from standardwebhooks import Webhook

from pipelines.contracts import topics
from pipelines.contracts.alerts import HIGH, Alert
from pipelines.errors import UsageError
from pipelines.io import kafka
from pipelines.io.alerts import send_alerts
from pipelines.serving.alert_webhook import AlertWebhook, check_alert_webhook

SECRET = "whsec_" + base64.b64encode(bytes(range(32))).decode()


class Receiver(BaseHTTPRequestHandler):
    """Takes what is signed; answers of `planned` come first, by the alert's occasion."""

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        Webhook(SECRET).verify(body, dict(self.headers))
        said = json.loads(body)
        assert self.headers["webhook-id"] == self.headers["Idempotency-Key"] == said["alert_id"]
        with self.server.lock:
            self.server.calls.append(said["message"])
            planned = self.server.planned.get(said["message"], [])
            status = planned.pop(0) if planned else 200
        self.send_response(status)
        self.send_header("Content-Length", "0")
        if status == 302:
            self.send_header("Location", "http://127.0.0.1:1/elsewhere")
        self.end_headers()

    def log_message(self, *_):
        """Quiet."""


@pytest.fixture
def receiver():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Receiver)
    server.lock, server.calls, server.planned = threading.Lock(), [], {}
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()


def webhook_settings(settings, url, **more):
    values = {
        "url": url,
        "secret": SecretStr(SECRET),
        "first_pause_seconds": 0.05,
        "largest_pause_seconds": 0.1,
        "allowed_private_hosts": ("127.0.0.1",),
        **more,
    }
    return settings.model_copy(update={"alert_webhook": settings.alert_webhook.model_copy(update=values)})


@contextmanager
def sending(settings):
    """The webhook at work until the block ends."""
    stop = threading.Event()
    webhook = AlertWebhook(settings, lambda: datetime.now(UTC))
    thread = threading.Thread(target=webhook.run, args=(stop.is_set,), daemon=True)
    thread.start()
    try:
        yield webhook
    finally:
        stop.set()
        thread.join(20)
        assert not thread.is_alive()


def until(condition, seconds=30):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def alert(name, raised_at=None):
    at = raised_at or datetime.now(UTC)
    return Alert("test", HIGH, "subject", name, at, at, name)


def test_alerts_arrive_signed_and_once_through_failures_and_restarts(broker, receiver):
    url = f"http://127.0.0.1:{receiver.server_port}/alerts"
    settings = webhook_settings(broker, url)
    kafka.ensure_topics(settings)
    producer = kafka.producer(settings)
    # given an alert that is told twice, one that the receiver cannot take at first, one that it refuses, one that it
    # sends elsewhere, one of the day before yesterday, and what is no alert
    receiver.planned = {"second": [503, 429], "refused": [400, 400], "moved": [302, 302]}
    old = datetime.now(UTC) - timedelta(days=2)
    send_alerts(producer, [alert("first"), alert("first"), alert("second"), alert("refused"), alert("moved")])
    send_alerts(producer, [alert("old", old)])
    kafka.send(producer, topics.ALERTS, [("subject", b"not json"), ("subject", b'{"alert_id": "../x"}')])
    send_alerts(producer, [alert("last")])
    with sending(settings) as webhook:
        until(lambda: "last" in receiver.calls)
        until(lambda: webhook.outcomes.get("none", 0) >= 2)
    # then each was taken once, after as many tries as it took
    names = ("first", "second", "refused", "moved", "old", "last")
    assert [receiver.calls.count(name) for name in names] == [1, 3, 1, 1, 0, 1]
    # (the broker is shared: other tests may have told alerts of their own)
    least = {"repeated": 1, "late": 1, "none": 2, "refused": 2, "sent": 3}
    assert all(webhook.outcomes[name] >= count for name, count in least.items())
    # when it is started again, it goes on behind what was taken
    send_alerts(producer, [alert("after the restart")])
    with sending(settings):
        until(lambda: "after the restart" in receiver.calls)
    assert [receiver.calls.count(name) for name in names] == [1, 3, 1, 1, 0, 1]


def test_an_alert_that_got_no_answer_is_sent_again_by_the_next_one(broker, receiver):
    url = f"http://127.0.0.1:{receiver.server_port}/alerts"
    settings = webhook_settings(broker, url)
    kafka.ensure_topics(settings)
    # given a receiver that is out of order, and a sender that is stopped meanwhile
    receiver.planned = {"stubborn": [500] * 1_000}
    send_alerts(kafka.producer(settings), [alert("stubborn")])
    with sending(settings):
        until(lambda: receiver.calls.count("stubborn") >= 2)
    # when both are well again, then it arrives
    with receiver.lock:
        receiver.planned = {}
    before = receiver.calls.count("stubborn")
    with sending(settings) as webhook:
        until(lambda: webhook.outcomes.get("sent"))
    assert receiver.calls.count("stubborn") == before + 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"url": None}, r"alert_webhook\.url is not set"),
        ({"secret": None}, "no secret to sign alerts with"),
        ({"secret": SecretStr("whsec_short")}, r"alert_webhook\.secret: expected whsec_"),
        ({"allowed_private_hosts": ()}, "lies at a private address"),
        ({"url": "http://anna:secret@127.0.0.1/"}, "no place for a password"),
        ({"url": "file:///etc/passwd"}, r"alert_webhook\.url: expected http"),
    ],
    ids=["no-url", "no-secret", "short", "private", "password", "scheme"],
)
def test_what_is_not_fit_is_refused_before_anything_is_sent(settings, change, message):
    with pytest.raises(UsageError, match=message):
        check_alert_webhook(webhook_settings(settings, **{"url": "http://127.0.0.1:1/", **change}).alert_webhook)
