"""How a retention policy is written down: dictionaries, as TOML and JSON give them, and back.

    {"keep_last": 5, "keep_best": [{"metric": "loss", "order": "min", "n": 3}]}     one rule
    {"rules": [{"tasks": ["train-*"], "keep_every": 100}, {"keep_days": 30}]}       several

Everything is checked here, once, and a fault names the key that it is at: `rules[1].keep_last`. A
name that nobody knows is refused: a slip of the pen must not delete what it should have kept.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from typing import Any, Final

from ckptlog.errors import ArgumentError
from ckptlog.model.quotation import quoted
from ckptlog.model.state import CheckpointState
from ckptlog.model.tag import is_utf8
from ckptlog.policy.retention import Best, Policy, Rule

DAYS_MAX: Final = 365_000
_COUNT_MAX: Final = 2**53
# A policy stands in an event, which has room for 65,535 bytes.
TEXT_BYTES_MAX: Final = 16_384
_KEEPS: Final = ("keep_last", "keep_every", "keep_days", "keep_states", "keep_best")
_RULE_KEYS: Final = ("tasks", "except_tasks", *_KEEPS)
_GUARDS: Final = ("keep_recovery_points", "keep_pinned")
_STATES: Final = tuple(state.value for state in CheckpointState)
_FORM: Final = "retention is a dictionary, for example {'keep_last': 5}."


def policy_of(given: object) -> Policy:
    """Return the policy that a dictionary describes; a Policy as it is.

    Raises:
        ArgumentError: Something in it is wrong; `argument` is the path to it.
    """
    if isinstance(given, Policy):
        given = form_of(given)  # made by hand, it was never checked
    fields = _mapping("retention", given)
    if "rules" in fields:
        _refuse_unknown("", fields, ("rules", *_GUARDS))
        listed = fields["rules"]
        if not isinstance(listed, list | tuple):
            raise _wrong("rules", listed, "a list of rules is needed")
        rules = tuple(_rule(f"rules[{number}].", one) for number, one in enumerate(listed))
    else:
        _refuse_unknown("", fields, (*_RULE_KEYS, *_GUARDS, "rules"))
        rules = (_rule("", {name: fields[name] for name in fields if name not in _GUARDS}),)
    if not rules:
        raise _wrong("rules", [], "at least one rule is needed")
    policy = Policy(
        rules=rules, **{name: _switch(name, fields[name]) for name in _GUARDS if name in fields}
    )
    if len(text_of(policy).encode()) > TEXT_BYTES_MAX:
        raise ArgumentError(
            f"The policy has more than {TEXT_BYTES_MAX} bytes as JSON.",
            hint="Use patterns for the names of tasks, or clean up in several runs.",
            argument="retention",
        )
    return policy


def form_of(policy: Policy) -> dict[str, Any]:
    """Return the dictionary of a policy; `policy_of` makes the same policy of it."""
    fields: dict[str, Any] = {"rules": [_rule_form(rule) for rule in policy.rules]}
    defaults = Policy(rules=())
    for name in _GUARDS:
        if getattr(policy, name) != getattr(defaults, name):
            fields[name] = getattr(policy, name)
    return fields


def text_of(policy: Policy) -> str:
    """Return a policy as one line of JSON, always the same for the same policy."""
    return json.dumps(form_of(policy), separators=(",", ":"), sort_keys=True)


def best_of(text: str, at: str = "keep_best") -> dict[str, Any]:
    """Return what `metric:min|max[:n]` says, as a dictionary. The metric may hold colons.

    Raises:
        ArgumentError: It says nothing of the kind.
    """
    words = text.split(":")
    if len(words) > 2 and words[-1].isascii() and words[-1].isdigit() and len(words[-1]) < 16:
        count = int(words.pop())
    else:
        count = 1
    if len(words) < 2 or words[-1] not in ("min", "max") or not (metric := ":".join(words[:-1])):
        raise _wrong(at, text, "METRIC:min or METRIC:max, and :N behind it, is needed")
    return {"metric": metric, "order": words[-1], "n": count}


def _rule_form(rule: Rule) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    for name in _RULE_KEYS:
        value = getattr(rule, name)
        if value in (None, ()) or (name == "tasks" and value == ("*",)):
            continue
        fields[name] = list(value) if isinstance(value, tuple) else value
    if rule.keep_best:
        fields["keep_best"] = [
            {"metric": best.metric, "n": best.n, "order": best.order} for best in rule.keep_best
        ]
    return fields


def _rule(at: str, given: object) -> Rule:
    fields = _mapping(at.rstrip(".") or "retention", given)
    _refuse_unknown(at, fields, _RULE_KEYS)
    if not any(name in fields for name in _KEEPS):
        raise ArgumentError(
            f"{at.rstrip('.') or 'retention'} keeps nothing, so everything would go.",
            hint=f"Say what stays: {', '.join(_KEEPS)}. To keep nothing on purpose: keep_last = 0.",
            argument=at.rstrip(".") or "retention",
        )
    return Rule(**{name: _READERS[name](f"{at}{name}", value) for name, value in fields.items()})


def _mapping(at: str, given: object) -> dict[str, Any]:
    if not isinstance(given, Mapping):
        raise _wrong(at, given, "a dictionary is needed", hint=_FORM)
    return {_name(at, name): value for name, value in given.items()}


def _name(at: str, name: object) -> str:
    if not isinstance(name, str):
        raise _wrong(at, name, "it stands where the name of a key is needed")
    return name


def _refuse_unknown(at: str, fields: Mapping[str, Any], known: tuple[str, ...]) -> None:
    for name in fields:
        if name in known:
            continue
        shown = f"{at}{quoted(name).strip(chr(39))}"
        close = get_close_matches(name[:80], known, 1)
        hint = f"Did you mean {close[0]}?" if close else f"There are: {', '.join(known)}."
        raise ArgumentError(f"A policy has no key {shown!r}.", hint=hint, argument=shown)


def _wrong(at: str, value: object, need: str, *, hint: str = "") -> ArgumentError:
    return ArgumentError(f"{at} is {quoted(value)}; {need}.", hint=hint, argument=at)


def _count(least: int) -> Callable[[str, object], int]:
    def read(at: str, value: object) -> int:
        if type(value) is not int or not least <= value <= _COUNT_MAX:
            raise _wrong(at, value, f"a whole number from {least} on is needed")
        return value

    return read


def _days(at: str, value: object) -> float:
    # NaN is in no range.
    if type(value) not in (int, float) or not 0 <= value <= DAYS_MAX:  # type: ignore[operator]
        raise _wrong(at, value, f"a number of days from 0 to {DAYS_MAX} is needed")
    return value  # type: ignore[return-value]


def _texts(at: str, value: object) -> tuple[str, ...]:
    """Return a list of texts, or a single one; a lone surrogate is in no name."""
    listed = [value] if isinstance(value, str) else value
    if not isinstance(listed, list | tuple) or not listed:
        raise _wrong(at, value, "a list of texts is needed")
    for number, one in enumerate(listed):
        if type(one) is not str or not one or not is_utf8(one):
            raise _wrong(f"{at}[{number}]", one, "a text is needed")
    return tuple(listed)


def _states(at: str, value: object) -> tuple[str, ...]:
    listed = [value] if isinstance(value, str | CheckpointState) else value
    if not isinstance(listed, list | tuple) or not listed:
        raise _wrong(at, value, f"a list of states is needed: {', '.join(_STATES)}")
    found = []
    for number, one in enumerate(listed):
        word = one.value if isinstance(one, CheckpointState) else one
        if word not in _STATES:
            raise _wrong(f"{at}[{number}]", one, f"there are: {', '.join(_STATES)}")
        found.append(word)
    return tuple(dict.fromkeys(found))


def _bests(at: str, value: object) -> tuple[Best, ...]:
    listed = [value] if isinstance(value, str | Mapping | Best) else value
    if not isinstance(listed, list | tuple) or not listed:
        raise _wrong(at, value, "a list of {metric, order, n} is needed")
    return tuple(_best(f"{at}[{number}]", one) for number, one in enumerate(listed))


def _best(at: str, given: object) -> Best:
    if isinstance(given, str):
        given = best_of(given, at)
    fields = _mapping(at, given)
    _refuse_unknown(f"{at}.", fields, ("metric", "order", "n"))
    metric, order = fields.get("metric"), fields.get("order")
    if type(metric) is not str or not metric or not is_utf8(metric):
        raise _wrong(f"{at}.metric", metric, "the name of a metadata key is needed")
    if order == "min":
        return Best(metric, "min", _count(1)(f"{at}.n", fields.get("n", 1)))
    if order == "max":
        return Best(metric, "max", _count(1)(f"{at}.n", fields.get("n", 1)))
    raise _wrong(f"{at}.order", order, '"min" or "max" is needed')


def _switch(at: str, value: object) -> bool:
    if type(value) is not bool:
        raise _wrong(at, value, "true or false is needed")
    return value


_READERS: Final[dict[str, Callable[[str, object], Any]]] = {
    "tasks": _texts,
    "except_tasks": _texts,
    "keep_last": _count(0),
    "keep_every": _count(1),
    "keep_days": _days,
    "keep_states": _states,
    "keep_best": _bests,
}
