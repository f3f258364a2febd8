from __future__ import annotations

import base64
import json
import shutil
import socket
import ssl
import subprocess
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from ckptlog.errors import ArgumentError, DeliveryError
from ckptlog.formats import webhook as webhook_format
from ckptlog.storage.environment import Environment
from ckptlog.watch import webhook as webhooks
from ckptlog.watch.dead_letter import DeadLetters
from ckptlog.watch.delivery import Delivery
from ckptlog.watch.webhook import Webhook, check_url, connect, proxy_of, target_of
from tests.watch.receiver import Receiver

SECRET = bytes(range(32))
NOW_US = 1_700_000_000_500_000


class Still(Environment):
    """A clock that stands, and sleeps that only count."""

    def __init__(self):
        super().__init__()
        self.slept = []

    def now_us(self):
        return NOW_US

    def sleep(self, duration_s):
        self.slept.append(duration_s)


@pytest.fixture
def world():
    return Still()


@pytest.fixture
def receiver():
    made = Receiver()
    yield made
    made.stop()


@pytest.fixture
def events(room):
    for number in range(6):
        room.add(f"n{number}")
    with room.watch("hook", follow=False) as events:
        yield list(events)


@pytest.fixture
def post(receiver, world):
    made = []

    def post(event, **options):
        options = {"timeout_s": 60, **options}
        if not made:
            made.append(Webhook(receiver.url, world, **options))
        return made[0].deliver(event)

    yield post
    for one in made:
        one.close()


def test_posts_a_signed_cloud_event(post, receiver, events):
    assert post(events[2], secrets=[SECRET]) is None
    ((path, headers, body),) = receiver.got
    assert path == "/hook"
    assert body == events[2].to_json()
    assert json.loads(body)["data"]["position"] == 2
    assert headers["content-type"] == "application/cloudevents+json; charset=utf-8"
    assert headers["webhook-id"] == events[2].id
    assert headers["webhook-timestamp"] == "1700000000"
    wanted = webhook_format.sign([SECRET], events[2].id, 1_700_000_000, body)
    assert headers["webhook-signature"] == wanted


def test_without_a_secret_there_is_no_signature(post, receiver, events):
    assert post(events[0]) is None
    assert "webhook-signature" not in receiver.got[0][1]


def test_one_connection_is_kept(post, receiver, events):
    for event in events:
        assert post(event) is None
    assert [json.loads(body)["data"]["position"] for *_, body in receiver.got] == list(range(6))
    assert receiver.connections == 1


def test_a_kept_connection_that_was_closed_is_opened_anew(post, receiver, events):
    receiver.plan = ["close", 204, "close"]
    for event in events:
        assert post(event) is None
    assert len(receiver.got) == 6
    assert receiver.connections == 3


@pytest.mark.parametrize("status", [200, 201, 202, 204, 299])
def test_any_2xx_is_taken(post, receiver, events, status):
    receiver.plan = [status]
    assert post(events[0]) is None


@pytest.mark.parametrize(
    ("act", "words"),
    [
        (400, "answered 400"),
        (404, "answered 404"),
        (500, "answered 500"),
        ((301, {"location": "http://127.0.0.1:1/other"}), "redirects are not followed"),
        ((307, {}), "redirects are not followed"),
        ("reset", "ConnectionResetError"),
        ("garbage", "BadStatusLine"),
    ],
)
def test_what_fails_is_told(post, receiver, events, act, words):
    receiver.plan = [act]
    failure = post(events[0])
    assert words in failure.reason
    assert not failure.is_final
    assert post(events[0]) is None, "and the next attempt is a new one"
    assert receiver.got[0][1]["webhook-id"] == receiver.got[1][1]["webhook-id"]


@pytest.mark.parametrize("act", ["slow", "drip"])
def test_an_attempt_ends_in_time_however_slowly_bytes_come(post, receiver, events, act):
    receiver.plan = [act]
    assert post(events[0], timeout_s=0.3).reason == "no answer within 0.3 s"
    receiver.released.set()
    assert post(events[0]) is None


def test_an_answer_without_end_is_not_read_to_its_end(post, receiver, events):
    receiver.plan = ["huge"]
    assert post(events[0]) is None
    assert post(events[1]) is None


def test_nobody_there(events, world):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/"
    assert "ConnectionRefusedError" in Webhook(url, world).deliver(events[0]).reason
    # A server without TLS is no server for https.
    receiver = Receiver()
    hook = Webhook(receiver.url.replace("http:", "https:"), world, timeout_s=60)
    assert "SSL" in hook.deliver(events[0]).reason
    receiver.stop()


def test_410_means_that_no_more_is_wanted(post, receiver, events):
    receiver.plan = [410]
    assert post(events[0]).is_final


@pytest.mark.parametrize(
    ("value", "wait_s"),
    [
        ("7", 7.0),
        ("0", 0.0),
        ("999999999999", 999999999.0),
        (format_datetime(datetime.fromtimestamp(NOW_US / 1e6, UTC) + timedelta(seconds=30)), 30),
        ("Wed, 21 Oct 2015 07:28:00 GMT", 0.0),
        ("soon", None),
        ("-5", None),
        ("", None),
    ],
)
def test_the_receiver_may_say_when_to_come_back(post, receiver, events, value, wait_s):
    receiver.plan = [(503, {"retry-after": value})]
    asked = post(events[0]).retry_after_s
    assert asked == (wait_s if wait_s is None else pytest.approx(wait_s, abs=1))


# --- deliveries ------------------------------------------------------------------------------


def test_failures_are_repeated_with_growing_waits(receiver, events, world):
    receiver.plan = [500, "reset", 503, "garbage"]
    hook = Webhook(receiver.url, world, timeout_s=60)
    delivery = Delivery(hook, world, retries=5)
    assert delivery.deliver(events[0]) == "delivered"
    # The reset met a kept connection: that one is tried anew at once.
    assert (delivery.attempts, len(receiver.got)) == (4, 5)
    for wait_s, bound_s in zip(world.slept, [0.5, 1, 2], strict=True):
        assert bound_s / 2 <= wait_s < bound_s
    assert len({headers["webhook-id"] for _, headers, _ in receiver.got}) == 1
    assert delivery.deliver(events[1]) == "delivered"
    assert delivery.attempts == 1
    hook.close()


def test_a_failing_one_holds_up_the_others_and_then_ends(receiver, events, world):
    receiver.plan = [500] * 3
    hook = Webhook(receiver.url, world, timeout_s=60)
    with pytest.raises(DeliveryError) as caught:
        Delivery(hook, world, retries=2).deliver(events[0])
    assert caught.value.context == {"event": events[0].id, "attempts": 3}
    assert "answered 500" in caught.value.message
    hook.close()


def test_the_receivers_wish_is_heeded_up_to_a_bound(receiver, events, world):
    receiver.plan = [(429, {"retry-after": "17"}), (429, {"retry-after": "99999"}), 204]
    hook = Webhook(receiver.url, world, timeout_s=60)
    assert Delivery(hook, world).deliver(events[0]) == "delivered"
    assert world.slept == [17, 600]
    hook.close()


def test_410_ends_the_deliveries_even_with_dead_letters(receiver, events, world, tmp_path):
    receiver.plan = [410]
    hook = Webhook(receiver.url, world, timeout_s=60)
    letters = DeadLetters(tmp_path / "dead", world)
    with pytest.raises(DeliveryError) as caught:
        Delivery(hook, world, dead_letters=letters).deliver(events[0])
    assert "wants no more events" in caught.value.message
    assert world.slept == []
    assert not letters.path.exists()
    hook.close()


def test_dead_letters(receiver, events, world, tmp_path):
    path = tmp_path / "dead.jsonl"
    hook = Webhook(receiver.url, world, timeout_s=60)
    delivery = Delivery(hook, world, retries=1, dead_letters=DeadLetters(path, world))
    receiver.plan = [500, 500, 204, 400, 400]
    assert [delivery.deliver(event) for event in events[:3]] == ["dead", "delivered", "dead"]
    letters = [json.loads(line) for line in path.read_text().splitlines()]
    assert [letter["event"] for letter in letters] == [
        events[0].to_cloud_event(),
        events[2].to_cloud_event(),
    ]
    assert ["500" in letters[0]["reason"], "400" in letters[1]["reason"]] == [True, True]
    assert {letter["attempts"] for letter in letters} == {2}
    assert {letter["time_us"] for letter in letters} == {NOW_US}
    hook.close()


# --- URLs ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "url",
    [
        "",
        "example.org/hook",
        "ftp://example.org/",
        "file:///etc/passwd",
        "http://",
        "http:///path",
        "http://user:secret@example.org/",
        "http://example.org:0/",
        "http://example.org:99999/",
        "http://example.org:x/",
        "http://example.org/a b",
        "http://example.org/\n",
        "http://[::1/",
    ],
)
def test_no_urls(url, world):
    with pytest.raises(ArgumentError) as caught:
        Webhook(url, world)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "target"),
    [
        ("http://h", "/"),
        ("https://h/", "/"),
        ("http://h:8080/a/b?x=1&y=%20#part", "/a/b?x=1&y=%20"),
        ("http://h/ä?ö", "/%C3%A4?%C3%B6"),
    ],
)
def test_what_is_asked_for(url, target, monkeypatch):
    monkeypatch.setattr(webhooks, "getproxies", dict)
    assert target_of(check_url(url)) == target


def test_proxies_of_the_environment(monkeypatch, receiver, events, world):
    for name in ("http_proxy", "https_proxy", "no_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    host = receiver.url.split("/")[2]
    monkeypatch.setenv("http_proxy", f"http://{host}")
    hook = Webhook("http://far.example/hook?x=1", world, timeout_s=60)
    assert hook.deliver(events[0]) is None
    hook.close()
    assert receiver.got[0][0] == "http://far.example/hook?x=1"
    monkeypatch.setenv("https_proxy", host)
    tunnel = connect(check_url("https://far.example:444/"), 5)
    assert (tunnel.host, tunnel._tunnel_host, tunnel._tunnel_port) == (
        "127.0.0.1",
        "far.example",
        444,
    )
    monkeypatch.setenv("no_proxy", "far.example")
    assert proxy_of(check_url("http://far.example/")) is None


def test_the_secret_is_in_no_message(receiver, events, world):
    receiver.plan = [500]
    hook = Webhook(receiver.url, world, secrets=[SECRET], timeout_s=60)
    failure = hook.deliver(events[0])
    hook.close()
    assert base64.b64encode(SECRET).decode() not in failure.reason


@pytest.fixture
def certificate(tmp_path):
    if shutil.which("openssl") is None:
        pytest.skip("needs openssl to make a certificate")
    names = ["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"]
    made = ["-keyout", str(tmp_path / "key"), "-out", str(tmp_path / "certificate")]
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"]
    subprocess.run([*command, *names, *made], check=True, capture_output=True)
    return tmp_path / "certificate", tmp_path / "key"


def test_a_certificate_that_nobody_vouches_for_is_refused(
    receiver, events, world, certificate, monkeypatch
):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)
    receiver.server.socket = context.wrap_socket(receiver.server.socket, server_side=True)
    url = receiver.url.replace("http:", "https:")
    refused = Webhook(url, world, timeout_s=60).deliver(events[0])
    assert "CERTIFICATE_VERIFY_FAILED" in refused.reason
    assert receiver.got == []
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate[0]))
    hook = Webhook(url, world, secrets=[SECRET], timeout_s=60)
    assert [hook.deliver(event) for event in events[:2]] == [None, None]
    hook.close()
    assert len(receiver.got) == 2
