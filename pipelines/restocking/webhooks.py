"""Messages over HTTP in the Standard Webhooks form (https://www.standardwebhooks.com): signed with HMAC-SHA256.

The signature covers the message's id, the time of sending and the body, so that none of them can be exchanged, and
a message that was recorded cannot be played again later.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from datetime import datetime

from standardwebhooks import Webhook, WebhookVerificationError

from pipelines.errors import StockcastError, UsageError

SHORTEST_KEY = 16
"""Bytes; the standard asks for 24 to 64."""


class SignatureError(StockcastError):
    """A message is not signed by who it should come from, or not now."""


class Signer:
    """Signs and verifies messages with one secret.

    Args:
        secret: in the standard's form, `whsec_` and base64.
        setting: the setting that it comes from, for the error.

    Raises:
        UsageError: it is not of that form.
    """

    def __init__(self, secret: str, setting: str) -> None:
        try:
            key = base64.b64decode(secret.removeprefix("whsec_"), validate=True)
        except (binascii.Error, ValueError):
            key = b""
        if len(key) < SHORTEST_KEY:
            raise UsageError(
                f"{setting}: expected whsec_ and at least {SHORTEST_KEY} bytes in base64; make one with "
                "`python3 -c \"import base64, os; print('whsec_' + base64.b64encode(os.urandom(32)).decode())\"`"
            )
        self._webhook = Webhook(key)

    def headers(self, message_id: str, body: bytes, now: datetime) -> dict[str, str]:
        """The three headers that go with a message sent now."""
        return {
            "webhook-id": message_id,
            "webhook-timestamp": str(int(now.timestamp())),
            "webhook-signature": self._webhook.sign(message_id, now, body.decode()),
        }

    def verify(self, headers: Mapping[str, str], body: bytes) -> str:
        """The id of a message that was signed with the secret in the last five minutes.

        Raises:
            SignatureError: a header is missing, the signature is wrong, or the time is not now.
        """
        try:
            self._webhook.verify(body, dict(headers), json_parse=False)
        except WebhookVerificationError as error:
            raise SignatureError(str(error)) from None
        except (ValueError, ArithmeticError):
            raise SignatureError("Invalid Signature Headers") from None
        return headers["webhook-id"]
