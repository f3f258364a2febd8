"""The signature of Standard Webhooks (https://www.standardwebhooks.com): symmetric, `v1`.

    signed content = webhook-id "." webhook-timestamp "." body
    signature      = "v1," + base64(HMAC-SHA256(secret, signed content))

Several secrets (while one is being replaced) give several signatures, parted by blanks.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from collections.abc import Sequence
from typing import Final

from ckptlog.errors import ArgumentError

SECRET_PREFIX: Final = "whsec_"  # noqa: S105 - how a secret begins
SECRET_BYTES_MIN: Final = 24
SECRET_BYTES_MAX: Final = 64


def parse_secret(text: str) -> bytes:
    """Return the bytes of a secret: base64 of 24 to 64 bytes, with or without `whsec_`.

    Raises:
        ArgumentError: It is none. The message never shows it.
    """
    try:
        secret = base64.b64decode(text.strip().removeprefix(SECRET_PREFIX), validate=True)
    except (binascii.Error, ValueError):
        secret = b""
    if not SECRET_BYTES_MIN <= len(secret) <= SECRET_BYTES_MAX:
        raise ArgumentError(
            "The webhook's secret is not base64 of 24 to 64 bytes.",
            hint='Make one: python -c "import base64, os; '
            "print('whsec_' + base64.b64encode(os.urandom(32)).decode())\"",
            argument="secret",
        )
    return secret


def sign(secrets: Sequence[bytes], message_id: str, timestamp_s: int, body: bytes) -> str:
    """Return the value of `webhook-signature`."""
    content = f"{message_id}.{timestamp_s}.".encode() + body
    return " ".join(
        "v1," + base64.b64encode(hmac.digest(secret, content, hashlib.sha256)).decode()
        for secret in secrets
    )


def headers(
    secrets: Sequence[bytes], message_id: str, timestamp_s: int, body: bytes
) -> dict[str, str]:
    """Return the headers of a delivery; without a secret, without a signature."""
    found = {"webhook-id": message_id, "webhook-timestamp": str(timestamp_s)}
    if secrets:
        found["webhook-signature"] = sign(secrets, message_id, timestamp_s, body)
    return found
