"""Components out of what a program has anyway: two callables, or an object that gives its state.

An object is asked by the first protocol of this table that it has (specs/capture-components.md,
section 2); half of one is told by name, never skipped:

    get_state()  and set_state(state)         state_dict() and load_state_dict(state)
    get_state()  and restore_state(state)     state: an attribute; a dict is changed in place
    capture_state() and restore_state(state)  a dict itself, changed in place

What such a component gives back may change while it is written, so its stability is "live": it is
serialised inside of the barrier. Who hands out a copy says so (`stability="copied"`).
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from typing import Any, Final

from ckptlog.capture.argument import number_of, texts_of
from ckptlog.capture.loop_call import (
    LOOP_TIMEOUT_S,
    Loop,
    bound,
    checked_loop,
    resolve_in_loop,
    running_loop,
)
from ckptlog.capture.shape import refuse_faults
from ckptlog.errors import ComponentError
from ckptlog.model.quotation import quoted

_PAIRS: Final = (
    ("get_state", "set_state"),
    ("get_state", "restore_state"),
    ("capture_state", "restore_state"),
    ("state_dict", "load_state_dict"),
)
_HOOKS: Final = frozenset(
    {
        "look_ahead",
        "prepare",
        "commit",
        "abort",
        "validate",
        "migrate",
        "verify_restored",
        "plan",
    }
)
_STABILITIES: Final = ("live", "copied", "immutable", "fork")
_PROTOCOLS: Final = (
    "get_state() with set_state(state) or restore_state(state), capture_state() with "
    "restore_state(state), state_dict() with load_state_dict(state), or an attribute `state`"
)


class CallableComponent:
    """A component of two callables: one gives the state, the other takes it back.

    Attributes:
        name: Of the component.
        stability: How long what `capture` gives stays as it is.
        depends_on: Names of components that are restored before this one.
        schema_version: Of the state's form; raise it with a `migrate` hook.

    Threads: as the callables.
    """

    kind = "state"

    def __init__(
        self,
        name: str,
        capture: Callable[[], Any],
        restore: Callable[[Any], Any],
        *,
        stability: str = "live",
        depends_on: Sequence[str] = (),
        schema_version: int = 1,
        loop: Loop | None = None,
        timeout_s: float = LOOP_TIMEOUT_S,
        **hooks: Callable[..., Any],
    ) -> None:
        """Make a component of two callables.

        Args:
            name: Of the component.
            capture: Returns the state, a storable value; may be a coroutine function.
            restore: Takes it back; may be a coroutine function.
            stability: "live", "copied" (capture hands out a copy), "immutable" or "fork".
            depends_on: Names of components that are restored before this one.
            schema_version: Of the state's form.
            loop: Runs coroutines; the one that runs here, if there is one.
            timeout_s: Seconds that a coroutine may take.
            hooks: look_ahead, prepare, commit, abort, validate, migrate, verify_restored, plan:
                as a component has them.

        Raises:
            ComponentError: A callable is none or takes other arguments; an unknown hook; another
                argument is not what it must be.
        """
        _check_hooks(name, hooks)
        if stability not in _STABILITIES:
            raise ComponentError(
                f"stability of the component {quoted(name)} is {quoted(stability)}.",
                hint=f"One of {', '.join(_STABILITIES)}.",
            )
        _check_call(name, "capture", capture)
        _check_call(name, "restore", restore, None)
        self.name = name
        self.stability = stability
        self.depends_on = texts_of(name, "depends_on", depends_on)
        self.schema_version = schema_version
        self._capture = capture
        self._restore = restore
        self._loop = checked_loop(name, loop) or running_loop()
        self._timeout_s = number_of(name, "timeout_s", timeout_s)
        vars(self).update(hooks)

    def bind_loop(self, loop: Loop) -> None:
        """Let a loop run the coroutines, where none that could is known yet."""
        self._loop = bound(self._loop, loop)

    def capture(self) -> Any:
        """Return the state as the callable gives it."""
        return self._resolved(self._capture())

    def restore(self, payload: Any) -> None:
        """Hand a state to the callable that takes it."""
        self._resolved(self._restore(payload))

    def _resolved(self, answer: Any) -> Any:
        return resolve_in_loop(self._loop, answer, name=self.name, timeout_s=self._timeout_s)


class MappingComponent(CallableComponent):
    """A dict of the program, restored in place: whoever holds it sees the restored content.

    Threads: none; changes of other threads while it is captured belong behind a barrier.
    """

    kind = "mapping"

    def __init__(self, name: str, mapping: MutableMapping[str, Any], **options: Any) -> None:
        """Make a component of a dict; options as in CallableComponent.

        Raises:
            ComponentError: It is no dict; as CallableComponent.
        """
        given: object = mapping
        if not isinstance(given, MutableMapping):
            raise ComponentError(
                f"What is given for the component {quoted(name)} is of type "
                f"{type(given).__name__}.",
                hint="Give a dict.",
                component=name,
            )
        super().__init__(name, lambda: dict(mapping), self._put_back, **options)
        self._mapping = mapping

    def _put_back(self, payload: Any) -> None:
        refuse_faults(self.name, _mapping_faults(payload))
        self._mapping.clear()
        self._mapping.update(payload)

    def validate(self, payload: Any) -> list[str]:
        """Return what is wrong with a payload: it must be a dict."""
        return _mapping_faults(payload)


def state_component(name: str, target: Any, **options: Any) -> CallableComponent:
    """Return a component of an object that gives and takes its state.

    Args:
        name: Of the component.
        target: Has one of the protocols of this module, or is a dict.
        options: As in CallableComponent.

    Raises:
        ComponentError: The object has none of them, or half of one; the message says which.
    """
    if inspect.isclass(target):
        raise ComponentError(
            f"What is given for the component {quoted(name)} is the class {target.__name__}.",
            hint="Give an object of it.",
        )
    for getter, setter in _PAIRS:
        if _has(target, getter) and _has(target, setter):
            return CallableComponent(
                name, getattr(target, getter), getattr(target, setter), **_passed(target, options)
            )
    _refuse_half(name, target)
    if isinstance(target, MutableMapping):
        return MappingComponent(name, target, **options)
    if hasattr(target, "state"):
        return _attribute_component(name, target, options)
    raise ComponentError(
        f"What is given for the component {quoted(name)}, {_kind(target)}, gives no state.",
        hint=f"It needs {_PROTOCOLS}. Or hand over two callables: CallableComponent(name, "
        "capture, restore).",
        component=name,
    )


def _attribute_component(name: str, target: Any, options: Mapping[str, Any]) -> CallableComponent:
    """Return a component of an object's `state`: a dict in place, anything else set anew."""

    def capture() -> Any:
        state = target.state
        return dict(state) if isinstance(state, MutableMapping) else state

    def restore(payload: Any) -> None:
        state = target.state
        if isinstance(state, MutableMapping):
            refuse_faults(name, _mapping_faults(payload))
            state.clear()
            state.update(payload)
        else:
            target.state = payload

    fixed = inspect.getattr_static(target, "state", None)
    is_fixed = isinstance(fixed, property) and fixed.fset is None
    if is_fixed and not isinstance(target.state, MutableMapping):
        raise ComponentError(
            f"`state` of the component {quoted(name)}, {_kind(target)}, cannot be set.",
            hint="Give it a setter, let it return a dict, or use CallableComponent.",
            component=name,
        )
    return CallableComponent(name, capture, restore, **_passed(target, options))


def _passed(target: Any, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options, and the object's own `validate_state` where it has one."""
    hook = getattr(target, "validate_state", None)
    return {"validate": hook, **options} if callable(hook) else dict(options)


def _has(target: Any, name: str) -> bool:
    return callable(getattr(target, name, None))


def _refuse_half(name: str, target: Any) -> None:
    """Raise if the object has one half of a protocol only: it was meant to be asked that way."""
    getters = [getter for getter, _ in _PAIRS if _has(target, getter)]
    setters = [setter for _, setter in _PAIRS if _has(target, setter)]
    if not getters and not setters:
        return
    has = (getters or setters)[0]
    needed = [s if getters else g for g, s in _PAIRS if has in (g, s)]
    raise ComponentError(
        f"What is given for the component {quoted(name)}, {_kind(target)}, has {has} but not "
        f"{' or '.join(needed)}.",
        hint="Add it, or hand over two callables: CallableComponent(name, capture, restore).",
        component=name,
    )


def _mapping_faults(payload: Any) -> list[str]:
    if type(payload) is dict:
        return []
    return [f"is a value of type {type(payload).__name__}; a dict is expected"]


def _check_hooks(name: str, hooks: Mapping[str, Any]) -> None:
    for hook, function in hooks.items():
        if hook not in _HOOKS or not callable(function):
            fault = "is no callable" if hook in _HOOKS else "is unknown"
            raise ComponentError(
                f"{quoted(hook)} of the component {quoted(name)} {fault}.",
                hint=f"Hooks are {', '.join(sorted(_HOOKS))}.",
            )


def _check_call(name: str, what: str, function: Any, *arguments: Any) -> None:
    if not callable(function):
        raise ComponentError(
            f"{what} of the component {quoted(name)} is no callable, but of type "
            f"{type(function).__name__}.",
            component=name,
        )
    try:
        inspect.signature(function).bind(*arguments)
    except TypeError as error:
        takes = "one argument, the state" if arguments else "no argument"
        raise ComponentError(
            f"{what} of the component {quoted(name)} cannot be called with {takes}: {error}.",
            hint="Wrap it in a function that takes what is asked.",
            component=name,
        ) from error
    except ValueError:
        return  # a callable of C that does not tell


def _kind(target: Any) -> str:
    return f"of type {type(target).__qualname__}"
