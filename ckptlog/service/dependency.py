"""What a service is given to save: the managers of the specification, by name, and components.

    agent_manager  memory_manager  queue_manager  task_manager  system_manager   (or camelCase)
    -> agents      memory          queues         tasks         system

Each is an object that gives and takes its state (capture.callables: get_state and set_state, ...),
a dict, or a component. Any other name stands for a component of that name.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from ckptlog.capture.callables import state_component
from ckptlog.errors import ComponentError
from ckptlog.model.component import Component
from ckptlog.model.quotation import quoted
from ckptlog.model.setting import nearest, snake

MANAGERS: Final = {
    "agent_manager": "agents",
    "memory_manager": "memory",
    "queue_manager": "queues",
    "task_manager": "tasks",
    "system_manager": "system",
}
# Whatever is so near to the name of a manager is that name, misspelt.
_LIKENESS: Final = 0.85
_LIST: Final = "components"


def components_of(dependencies: object) -> list[Component]:
    """Return the components of what a service was given.

    Args:
        dependencies: A dict, by the names above; an object with such attributes; or components.

    Raises:
        ComponentError: A name is unknown or stands twice, or an object gives no state.
    """
    if dependencies is None:
        return []
    if isinstance(dependencies, Mapping):
        return _of_mapping(dependencies)
    if isinstance(dependencies, list | tuple | set | frozenset):
        return [_component(one) for one in dependencies]
    found = {}
    for name in dir(dependencies):
        if snake(name) in MANAGERS or name == _LIST:
            found[name] = getattr(dependencies, name)
    if not found:
        raise ComponentError(
            f"dependencies are {quoted(dependencies)}, which has none of {', '.join(MANAGERS)}.",
            hint="Give a dict of managers, or a list of components.",
        )
    return _of_mapping(found)


def _of_mapping(given: Mapping[Any, Any]) -> list[Component]:
    components: list[Component] = []
    for key, target in given.items():
        if target is None:
            continue  # a system without one of the five
        if key == _LIST and isinstance(target, Iterable):
            components += [_component(one) for one in target]
        else:
            components.append(_named(_name(key), target))
    names = [one.name for one in components]
    for name in names:
        if names.count(name) > 1:
            raise ComponentError(f"The component {name!r} is given twice.", component=name)
    return components


def _name(key: object) -> str:
    name = snake(key) if type(key) is str else ""
    if name in MANAGERS:
        return MANAGERS[name]
    likeness = 0.6 if name.endswith("manager") else _LIKENESS
    if name and (meant := nearest(name, MANAGERS, likeness)):
        raise ComponentError(
            f"There is no dependency {quoted(key)}.",
            hint=f"Did you mean {meant}? A component of your own needs a name that differs more.",
        )
    if type(key) is not str:
        raise ComponentError(f"A dependency has the name {quoted(key)}; a text is needed.")
    return key


def _named(name: str, target: Any) -> Component:
    if not _is_component(target):
        return state_component(name, target)
    if target.name != name:
        raise ComponentError(
            f"The component {target.name!r} is given under the name {name!r}.",
            hint="Give it under its own name, or in a list.",
            component=target.name,
        )
    found: Component = target
    return found


def _component(target: Any) -> Component:
    if not _is_component(target):
        raise ComponentError(
            f"{quoted(target)} is no component.",
            hint="Components have name, capture() and restore(payload); an object that gives its "
            "state is given by name: {'agents': object}.",
        )
    found: Component = target
    return found


def _is_component(target: object) -> bool:
    return not isinstance(target, type | Mapping) and isinstance(target, Component)
