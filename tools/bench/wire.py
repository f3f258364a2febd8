"""From values to their wire and back: 1,000 messages, about 1.1 MB, beside msgspec and the walk.

The messages are like LangChain's: objects with everything in `__dict__` and slots beside it, 850
characters of text, one call of a tool. msgspec encodes and decodes dicts of the same fields: it
knows neither the objects nor what else the wire tells apart.
Usage: tools/bench/run wire [--rounds N] [--messages N]
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Callable
from typing import Any

import msgspec

from ckptlog.model import value as values
from ckptlog.model.codec import Built, Codecs, TypeCodec
from ckptlog.policy.sanitise import Sanitiser
from tools.bench import measure
from tools.bench.measure import Contestant

WORDS = (measure.ROOT / "README.md").read_text(encoding="utf-8").split()


class Message:
    """What a pydantic model looks like from here."""

    __slots__ = (
        "__dict__",
        "__pydantic_extra__",
        "__pydantic_fields_set__",
        "__pydantic_private__",
    )


def _text(source: random.Random, size: int) -> str:
    return " ".join(source.choices(WORDS, k=size))[:size]


def _fields(source: random.Random, number: int) -> dict[str, Any]:
    return {
        "content": _text(source, 850),
        "additional_kwargs": {},
        "response_metadata": {},
        "type": "ai",
        "name": None,
        "id": f"run-{source.getrandbits(64):x}",
        "example": False,
        "tool_calls": [
            {"name": "search", "args": {"query": "what it is"}, "id": f"call_{number}"},
        ],
        "invalid_tool_calls": [],
        "usage_metadata": None,
    }


def _message(fields: dict[str, Any]) -> Message:
    message: Message = CODEC.lift([fields, None, None])
    return message


ATTRIBUTES = ("__dict__", "__pydantic_extra__", "__pydantic_private__")
CODEC = TypeCodec(
    kind=Message,
    name="message",
    attributes=ATTRIBUTES,
    lift=Built(Message, ATTRIBUTES, {"__pydantic_fields_set__": set}),
)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="From values to their wire and back.")
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--messages", type=int, default=1000)
    options = parser.parse_args()
    measure.machine(measure.ROOT, "msgspec")
    source = random.Random(1)  # noqa: S311 - the same texts each time
    dicts = {"messages": [_fields(source, number) for number in range(options.messages)]}
    objects = {"messages": [_message(fields) for fields in dicts["messages"]]}
    codecs, sanitiser = Codecs([CODEC]), Sanitiser()
    encode, decode = msgspec.json.Encoder().encode, msgspec.json.Decoder().decode
    wire, plain = values.prepare(objects, codecs=codecs).wire, encode(dicts)

    _compare(
        f"writing {options.messages:,} messages, {len(wire) / 1e6:.2f} MB",
        {
            "ckptlog, objects": lambda: values.prepare(objects, codecs=codecs),
            "ckptlog, dicts": lambda: values.prepare(dicts),
            "ckptlog, objects, secrets": lambda: values.prepare(
                objects, codecs=codecs, sanitiser=sanitiser
            ),
            "lowered in Python, encoded": lambda: values.encode(
                values.lower(objects, codecs=codecs)
            ),
            "msgspec, dicts": lambda: encode(dicts),
        },
        options.rounds,
    )
    _compare(
        "reading them",
        {
            "ckptlog, objects": lambda: values.decode(wire, codecs),
            "ckptlog, dicts": lambda: values.decode(plain),
            "lifted in Python": lambda: values.lift(decode(wire), codecs),
            "msgspec, dicts": lambda: decode(plain),
        },
        options.rounds,
    )
    found = Contestant("searching for secrets", _timed(lambda: sanitiser.may_hold_secret(wire)))
    measure.alternate([found], options.rounds)
    measure.heading("its wire")
    measure.table([found])


def _compare(what: str, works: dict[str, Callable[[], object]], rounds: int) -> None:
    contestants = [Contestant(name, _timed(work)) for name, work in works.items()]
    measure.alternate(contestants, rounds)
    measure.heading(what)
    measure.table(contestants)
    measure.judge_ratio(
        f"{contestants[0].name}, beside {contestants[-1].name}",
        measure.rate_ratios(contestants[0], contestants[-1]),
    )


def _timed(work: Callable[[], object]) -> Callable[[], measure.Round]:
    return lambda: measure.timed(lambda _: work(), range(10))


if __name__ == "__main__":
    main()
