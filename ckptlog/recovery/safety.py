"""The safety capture: what is there before a recovery touches anything, and what is not there.

Whoever recovers a database or a directory often does so because it was deleted. Such a component
cannot be captured, and must not make the recovery impossible. An `Absent` stands for it in the
safety capture, so that going back to it makes it missing again.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from contextlib import ExitStack
from typing import Any

from ckptlog.capture.capturer import Capturer
from ckptlog.errors import CaptureFailedError, FullError, QuotaError
from ckptlog.model.capture import CaptureInfo
from ckptlog.model.component import traits_of
from ckptlog.recovery.absent import Absent, has_own_word, is_absent
from ckptlog.recovery.call import called
from ckptlog.recovery.target import Target

_HINT = (
    "Nothing was touched. What can no longer be captured is recovered without saving it: "
    "safety=False, or ckptlog recover --no-safety. A component of your own whose state may be "
    "missing says so: is_absent(), make_absent()."
)

_FULL_HINT = (
    "Nothing was touched: there is no room to save what is there first. Without that a recovery "
    "needs next to none, and cannot be undone: safety=False, or ckptlog recover --no-safety."
)


def save(
    capturer: Capturer,
    targets: Collection[Target],
    deadline_of: Callable[[Any], float],
    **options: Any,
) -> tuple[CaptureInfo | None, list[str]]:
    """Capture what is there; return (the capture, names of what is missing).

    Raises:
        CaptureFailedError: Something is there, and cannot be captured.
        FullError, QuotaError: There is no room for it; the hint says what then.
    """
    missing = [
        traits.name
        for traits in capturer.traits
        if has_own_word(part := capturer.components[traits.name])
        and called(traits.name, "is_absent", lambda: is_absent(part), deadline_of(traits))
    ]
    with ExitStack() as stack:
        for target in targets:  # what rules leave out now, a restore overwrites all the same
            if hasattr(target.component, "tracking"):
                stack.enter_context(target.component.tracking(target.stored))
        while True:
            try:
                return _standing_in(capturer, missing).capture(**options), missing
            except CaptureFailedError as error:
                name = str(error.context.get("component", ""))
                if name in missing or not _has_gone(capturer, name, deadline_of):
                    error.hint = f"{error.hint} {_HINT}".strip()
                    raise
                missing.append(name)
            except (FullError, QuotaError) as error:
                error.hint = f"{error.hint} {_FULL_HINT}".strip()
                raise


def _has_gone(capturer: Capturer, name: str, deadline_of: Callable[[Any], float]) -> bool:
    """Say whether one that could not be captured is missing; one that cannot tell is not."""
    part = capturer.components.get(name)
    if part is None:
        return False
    try:
        seconds = deadline_of(traits_of(part))
        return bool(called(name, "is_absent", lambda: is_absent(part), seconds))
    except Exception:  # noqa: BLE001 - why it could not be captured says more
        return False


def _standing_in(capturer: Capturer, missing: Collection[str]) -> Capturer:
    """Return a capturer of the same components, of which some are missing."""
    if not missing:
        return capturer
    parts: list[Any] = [
        Absent(part) if name in missing else part for name, part in capturer.components.items()
    ]
    return capturer.of(parts)
