"""`ckptlog watch`: events as they come, to stdout, to a command, or to a webhook."""

from __future__ import annotations

import argparse
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from ckptlog.cli.command import Commands, Context, add_command
from ckptlog.cli.exit_status import OK, PARTIAL, TERMINATED
from ckptlog.cli.moment import natural, place, positive, seconds

if TYPE_CHECKING:
    from ckptlog.repository.store import Store
    from ckptlog.watch.delivery import Delivery
    from ckptlog.watch.subscription import Subscription

SECRET_VARIABLE = "CKPTLOG_WEBHOOK_SECRET"  # noqa: S105 - where the secret is looked for
# Printed events are acknowledged durably at most this often: a crash prints some again.
_ACK_INTERVAL_S = 0.2
_STDERR = 2
_FILTERS = ("type", "task", "checkpoint", "worker", "namespace", "actor", "state")


def add_commands(commands: Commands) -> None:
    """Add `watch`."""
    parser = add_command(
        commands,
        "watch",
        run,
        about="print events as they come, one CloudEvent in JSON a line",
        epilog="With --consumer it goes on where it ended; see specs/consumers.md.",
    )
    parser.add_argument("--consumer", metavar="NAME", help="remember under NAME what was delivered")
    for name in _FILTERS:
        parser.add_argument(
            f"--{name}", action="append", metavar=name.upper(), help=f"of this {name}; repeatable"
        )
    _add_place(parser)
    _add_end(parser)
    _add_target(parser)


def _add_place(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("where to begin")
    group.add_argument(
        "--start",
        type=place,
        default="beginning",
        metavar="PLACE",
        help="beginning (the default), end, a position, or a time; only for a new consumer",
    )
    group.add_argument("--reset", action="store_true", help="begin at --start in any case")
    group.add_argument("--cursors", metavar="DIR", help="keep the consumer's cursor in DIR")
    group.add_argument(
        "--busy-timeout",
        type=seconds,
        default=0.0,
        metavar="SECONDS",
        help="wait so long for another process that reads as this consumer",
    )


def _add_end(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("when to look and when to end")
    group.add_argument("--once", action="store_true", help="end when there is nothing more")
    group.add_argument("--idle", type=seconds, metavar="SECONDS", help="end after so long without")
    group.add_argument("--limit", type=positive, metavar="N", help="end after N events")
    group.add_argument(
        "--poll", type=seconds, metavar="SECONDS", help="look at least so often (default: 0.1)"
    )
    group.add_argument("--no-watcher", action="store_true", help="only look, use no notifications")


def _add_target(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("deliveries")
    target = group.add_mutually_exclusive_group()
    target.add_argument(
        "--exec", metavar="COMMAND", help="run a shell command for each event (JSON on its stdin)"
    )
    target.add_argument("--webhook", metavar="URL", help="post each event to URL")
    group.add_argument(
        "--secret-file",
        metavar="FILE",
        help=f"the webhook's secrets, one a line (default: ${SECRET_VARIABLE})",
    )
    group.add_argument("--timeout", type=seconds, metavar="SECONDS", help="of each attempt")
    group.add_argument("--retries", type=natural, metavar="N", help="repetitions (default: 8)")
    group.add_argument(
        "--dead-letters",
        metavar="FILE",
        help="append to FILE what failed each time, and go on; without it, end",
    )


def run(context: Context) -> int:
    """Deliver events until the end that was asked for, an error, or a signal."""
    arguments = context.arguments
    with _terminated(), context.store(is_reading=True) as store:
        delivery = _delivery(context, store)
        try:
            with store.watch(arguments.consumer, **_options(arguments)) as events:
                if delivery is None:
                    return _print(context, events)
                return _deliver(context, events, delivery)
        finally:
            if delivery is not None:
                delivery.close()


def _options(arguments: argparse.Namespace) -> Any:
    options: dict[str, Any] = {f"{name}s": getattr(arguments, name) for name in _FILTERS}
    options |= {
        "start": arguments.start,
        "reset": arguments.reset,
        "cursors": arguments.cursors,
        "busy_timeout_s": arguments.busy_timeout,
        "follow": not arguments.once,
        "timeout_s": arguments.idle,
        "watcher": not arguments.no_watcher,
    }
    if arguments.poll is not None:
        options["poll_s"] = arguments.poll
    if not arguments.exec and not arguments.webhook:
        options["ack_interval_s"] = _ACK_INTERVAL_S
    return options


def _print(context: Context, events: Subscription) -> int:
    output, limit = context.output, context.arguments.limit
    for number, event in enumerate(events, 1):
        output.item(event.to_cloud_event())
        # Acknowledged is what has left this process.
        if not events.has_ready or number % 1000 == 0 or number == limit:
            output.flush()
            events.ack(event)
        if number == limit:
            break
    return OK


def _deliver(context: Context, events: Subscription, delivery: Delivery) -> int:
    output, limit = context.output, context.arguments.limit
    dead = 0
    for number, event in enumerate(events, 1):
        outcome = delivery.deliver(event)
        events.ack(event)
        dead += outcome == "dead"
        if output.is_json:
            output.item(
                {
                    "id": event.id,
                    "position": event.position,
                    "type": event.type,
                    "outcome": outcome,
                    "attempts": delivery.attempts,
                }
            )
            output.flush()
        if number == limit:
            break
    if not dead:
        return OK
    letters = context.arguments.dead_letters
    output.fault(
        {
            "code": "cli.partial",
            "message": f"{dead:,} of the events could not be delivered.",
            "hint": f"They are in {letters}.",
            "context": {"dead": dead, "dead_letters": letters},
        }
    )
    return PARTIAL


def _delivery(context: Context, store: Store) -> Delivery | None:
    """Return how events are delivered; None where they are printed.

    Raises:
        ArgumentError: An option does not fit, or the secret is none.
    """
    from ckptlog.errors import ArgumentError

    arguments = context.arguments
    if not arguments.exec and not arguments.webhook:
        for name in ("secret_file", "timeout", "retries", "dead_letters"):
            if getattr(arguments, name) is not None:
                word = "--" + name.replace("_", "-")
                raise ArgumentError(f"{word} needs --exec or --webhook.", argument=word)
        return None
    from ckptlog.repository.output_file import refuse_house
    from ckptlog.watch.dead_letter import DeadLetters
    from ckptlog.watch.delivery import RETRIES, Delivery, Target

    target: Target
    if arguments.exec:
        from ckptlog.watch.command import Command

        if arguments.secret_file is not None:
            raise ArgumentError("--secret-file needs --webhook.", argument="--secret-file")
        # With --json, our stdout has the outcomes and the command's goes to stderr.
        stdout = _STDERR if context.output.is_json else None
        target = Command(arguments.exec, timeout_s=arguments.timeout, stdout=stdout)
    else:
        from ckptlog.watch.webhook import TIMEOUT_S, Webhook

        target = Webhook(
            arguments.webhook,
            store.environment,
            secrets=_secrets(context),
            timeout_s=TIMEOUT_S if arguments.timeout is None else arguments.timeout,
        )
    retries = RETRIES if arguments.retries is None else arguments.retries
    letters = arguments.dead_letters
    if letters:
        refuse_house(letters, "dead_letters")
    dead_letters = DeadLetters(Path(letters), store.environment) if letters else None
    return Delivery(target, store.environment, retries=retries, dead_letters=dead_letters)


def _secrets(context: Context) -> list[bytes]:
    from ckptlog.errors import operating_system_door
    from ckptlog.formats.webhook import parse_secret

    path = context.arguments.secret_file
    if path is None:
        text = context.environ.get(SECRET_VARIABLE, "")
    else:
        with operating_system_door("Cannot read the webhook's secrets"):
            text = Path(path).read_text(encoding="utf-8", errors="replace")
    secrets = [parse_secret(line) for line in text.splitlines() if line.strip()]
    if path is not None and not secrets:
        parse_secret("")  # says what a secret is
    if not secrets:
        context.output.note(f"events are not signed (no --secret-file, no ${SECRET_VARIABLE})")
    return secrets


@contextmanager
def _terminated() -> Iterator[None]:
    """End on SIGTERM as on Ctrl-C: what was delivered is acknowledged first."""

    def end(*_: object) -> NoReturn:
        raise SystemExit(TERMINATED)

    try:
        before = signal.signal(signal.SIGTERM, end)
    except ValueError:  # not in the main thread: whoever runs us there ends us in another way
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
