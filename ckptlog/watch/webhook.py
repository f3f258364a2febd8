"""A webhook as the target of events: HTTP, signed as Standard Webhooks has it.

The standard library's client does: one connection that is kept, no redirects (a signed event goes
where the user said and nowhere else), certificates checked, proxies as the environment names them.
A watchdog ends an attempt that takes too long as a whole, however slowly bytes trickle.
"""

from __future__ import annotations

import socket
from collections.abc import Sequence
from contextlib import suppress
from email.utils import parsedate_to_datetime
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection
from threading import Timer
from urllib.parse import SplitResult, quote, urlsplit
from urllib.request import getproxies, proxy_bypass

from ckptlog.errors import ArgumentError
from ckptlog.formats import webhook as webhook_format
from ckptlog.formats.cloud_event import CONTENT_TYPE
from ckptlog.storage.environment import Environment
from ckptlog.watch.delivery import Failure
from ckptlog.watch.event import WatchEvent

TIMEOUT_S = 30.0
_ANSWER_BYTES_MAX = 64 * 1024
_GONE = 410
_KEPT = "/%:@!$&'()*+,;=-._~"


class Webhook:
    """Posts events to a URL.

    Args:
        secrets: Each signs; none: unsigned.
        timeout_s: For a whole attempt.

    Threads: one at a time.
    """

    def __init__(
        self,
        url: str,
        environment: Environment,
        *,
        secrets: Sequence[bytes] = (),
        timeout_s: float = TIMEOUT_S,
    ) -> None:
        self._url = check_url(url)
        self._environment = environment
        self._secrets = tuple(secrets)
        self._timeout_s = timeout_s
        self._connection: HTTPConnection | None = None

    def deliver(self, event: WatchEvent) -> Failure | None:
        """Post once; any status 2xx means that the event was taken."""
        body = event.to_json()
        now_s = self._environment.now_us() // 1_000_000
        headers = {
            "content-type": CONTENT_TYPE,
            "user-agent": "ckptlog",
            **webhook_format.headers(self._secrets, event.id, now_s, body),
        }
        is_kept = self._connection is not None
        try:
            try:
                answer = self._post(body, headers)
            except (ConnectionResetError, BrokenPipeError):
                if not is_kept:
                    raise
                # The receiver has closed the kept connection meanwhile; that is no failure yet.
                answer = self._post(body, headers)
        except TimeoutError:
            return Failure(f"no answer within {self._timeout_s:g} s")
        except (OSError, HTTPException, ValueError) as error:  # ValueError: of what a host may be
            return Failure(f"{type(error).__name__}: {error}"[:500])
        return self._judge(answer)

    def close(self) -> None:
        """Close the connection."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _judge(self, answer: HTTPResponse) -> Failure | None:
        status = answer.status
        if 200 <= status < 300:
            return None
        reason = f"the receiver answered {status} {answer.reason}"[:500]
        if status == _GONE:
            return Failure(f"{reason}: it wants no more events", is_final=True)
        if 300 <= status < 400:
            target = answer.getheader("location", "")[:200]
            return Failure(f"{reason}; redirects are not followed ({target})")
        return Failure(reason, retry_after_s=self._retry_after_s(answer))

    def _retry_after_s(self, answer: HTTPResponse) -> float | None:
        text = answer.getheader("retry-after", "").strip()
        if text.isascii() and text.isdecimal():
            return float(text[:9])
        try:
            at_s = parsedate_to_datetime(text).timestamp()
        except (ValueError, OverflowError, TypeError):  # a stranger's text
            return None
        return max(0.0, at_s - self._environment.now_us() / 1_000_000)

    def _post(self, body: bytes, headers: dict[str, str]) -> HTTPResponse:
        """Make one request.

        Raises:
            TimeoutError: The attempt took too long.
            OSError, HTTPException: There was no answer.
        """
        connection = self._connection = self._connection or connect(self._url, self._timeout_s)
        late: list[bool] = []

        def end() -> None:
            late.append(True)
            # Wakes whoever reads; close alone would not.
            with suppress(OSError, AttributeError):
                connection.sock.shutdown(socket.SHUT_RDWR)

        watchdog = Timer(self._timeout_s, end)
        watchdog.daemon = True
        watchdog.start()
        try:
            connection.request("POST", target_of(self._url), body=body, headers=headers)
            answer = connection.getresponse()
            answer.read(_ANSWER_BYTES_MAX)
            if not answer.isclosed():  # more than anybody needs to say
                self.close()
        except (OSError, HTTPException, ValueError) as error:
            self.close()
            if late:
                raise TimeoutError from error
            raise
        finally:
            watchdog.cancel()
        if late:  # what looks like an answer was cut off by us
            self.close()
            raise TimeoutError
        return answer


def check_url(url: str) -> SplitResult:
    """Return a URL's parts.

    Raises:
        ArgumentError: It is none that events can be posted to.
    """
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise _refused(url, str(error)) from error
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise _refused(url, "it does not begin with http:// or https://, and a host")
    if parts.username is not None or parts.password is not None:
        raise _refused(f"{parts.scheme}://...", "it holds a password; sign events instead")
    if port == 0 or any(character <= " " or character == "\x7f" for character in url):
        raise _refused(url, "it holds a blank, a control character, or port 0")
    try:
        parts.hostname.encode("idna")
    except UnicodeError as error:
        raise _refused(url, f"its host cannot be looked up ({error})") from error
    return parts


def _refused(url: str, reason: str) -> ArgumentError:
    return ArgumentError(f"Events cannot be posted to {url!r}: {reason}.", argument="webhook")


def target_of(parts: SplitResult) -> str:
    """Return what a request asks for: the path and the query, and all before it for a proxy."""
    target = quote(parts.path or "/", safe=_KEPT)
    if parts.query:
        target += "?" + quote(parts.query, safe=_KEPT + "?")
    if parts.scheme == "http" and proxy_of(parts) is not None:
        return f"http://{parts.netloc}{target}"
    return target


def proxy_of(parts: SplitResult) -> SplitResult | None:
    """Return the proxy that the environment names for a URL, or None."""
    proxies = getproxies()
    proxy = proxies.get(parts.scheme) or proxies.get("all")
    if not proxy or proxy_bypass(parts.netloc):
        return None
    found = urlsplit(proxy if "://" in proxy else f"http://{proxy}")
    return found if found.scheme == "http" and found.hostname else None


def connect(parts: SplitResult, timeout_s: float) -> HTTPConnection:
    """Return a connection for a URL, not opened yet."""
    host, port = parts.hostname or "", parts.port
    proxy = proxy_of(parts)
    if parts.scheme == "http":
        if proxy is None:
            return HTTPConnection(host, port, timeout=timeout_s)
        return HTTPConnection(proxy.hostname or "", proxy.port, timeout=timeout_s)
    if proxy is None:
        return HTTPSConnection(host, port, timeout=timeout_s)
    tunnel = HTTPSConnection(proxy.hostname or "", proxy.port, timeout=timeout_s)
    tunnel.set_tunnel(host, port)
    return tunnel
