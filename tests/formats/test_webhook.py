from __future__ import annotations

import base64
import hashlib
import hmac

import pytest

from ckptlog.errors import ArgumentError
from ckptlog.formats import webhook

SECRET = base64.b64decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")


def test_the_example_of_the_specification():
    """From the published vectors of Standard Webhooks and of its reference libraries."""
    assert webhook.parse_secret("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw") == SECRET
    signature = webhook.sign(
        [SECRET], "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}'
    )
    assert signature == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_every_part_is_signed():
    whole = webhook.sign([SECRET], "42-00", 17, b"body")
    for other in (("42-01", 17, b"body"), ("42-00", 18, b"body"), ("42-00", 17, b"bodY")):
        assert webhook.sign([SECRET], *other) != whole
    digest = hmac.new(SECRET, b"42-00.17.body", hashlib.sha256).digest()
    assert whole == "v1," + base64.b64encode(digest).decode()


def test_every_secret_signs():
    other = bytes(32)
    both = webhook.sign([SECRET, other], "m", 1, b"x").split(" ")
    assert both == [webhook.sign([one], "m", 1, b"x") for one in (SECRET, other)]


def test_headers():
    assert webhook.headers([], "m", 7, b"x") == {"webhook-id": "m", "webhook-timestamp": "7"}
    signed = webhook.headers([SECRET], "m", 7, b"x")
    assert signed["webhook-signature"] == webhook.sign([SECRET], "m", 7, b"x")


@pytest.mark.parametrize("size", [24, 32, 64])
@pytest.mark.parametrize("prefix", ["", "whsec_"])
def test_secrets(size, prefix):
    text = prefix + base64.b64encode(bytes(range(size))).decode()
    assert webhook.parse_secret(f" {text}\n") == bytes(range(size))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "whsec_",
        "whsec_not base64!",
        "plainword",
        base64.b64encode(bytes(23)).decode(),
        base64.b64encode(bytes(65)).decode(),
        "whsec_é",
    ],
)
def test_no_secrets_and_none_is_shown(text):
    with pytest.raises(ArgumentError) as caught:
        webhook.parse_secret(text)
    assert not text.removeprefix("whsec_") or text not in str(caught.value)
