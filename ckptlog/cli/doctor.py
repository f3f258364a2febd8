"""`ckptlog doctor`: what is wrong with the store or around it, and what to do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ckptlog.cli import text
from ckptlog.cli.command import Commands, Context, add_command, open_store
from ckptlog.cli.exit_status import NOT_FOUND, OK, PARTIAL, status_of

_MARKS = {"ok": "ok     ", "warning": "WARNING", "error": "ERROR  "}


def add_commands(commands: Commands) -> None:
    """Add `doctor`."""
    add_command(commands, "doctor", run_doctor, about="find what is wrong, and say what to do")


def run_doctor(context: Context) -> int:
    """Print every finding; the status is 0 only without errors."""
    from ckptlog.cli.diagnosis import surroundings
    from ckptlog.storage.environment import Environment

    path = context.store_path()
    findings = [finding.to_dict() for finding in surroundings(path, Environment())]
    inside, status = _inside(context, path)
    findings += [finding for finding in inside if not _is_known(finding, findings)]
    errors = [finding for finding in findings if finding["level"] == "error"]
    if context.output.is_json:
        context.output.document({"store": str(path), "ok": not errors, "findings": findings})
    else:
        _print(context, findings)
    if not errors:
        return OK
    number = text.count(len(errors), "error")
    context.output.fault(
        {
            "code": "cli.doctor",
            "message": f"The doctor found {number} in {path}.",
            "hint": errors[0]["hint"],
            "context": {"errors": [finding["code"] for finding in errors]},
        }
    )
    return status or PARTIAL


def _inside(context: Context, path: Path) -> tuple[list[dict[str, Any]], int]:
    """Return the store's own findings; one that cannot be opened has its error as finding."""
    from ckptlog.errors import CheckpointError

    try:
        with open_store(path, context.output, is_reading=True) as store:
            return [_fields(finding) for finding in store.doctor()], OK
    except CheckpointError as error:
        fault = error.to_dict()
        finding = {key: fault[key] for key in ("code", "message", "hint")}
        return [{"level": "error", **finding}], status_of(error) or NOT_FOUND


def _fields(finding: Any) -> dict[str, Any]:
    return {name: getattr(finding, name) for name in ("level", "code", "message", "hint")}


def _is_known(finding: dict[str, Any], findings: list[dict[str, Any]]) -> bool:
    return any(finding["code"] == other["code"] for other in findings)


def _print(context: Context, findings: list[dict[str, Any]]) -> None:
    output = context.output
    for finding in findings:
        mark = output.paint(_MARKS[finding["level"]], finding["level"])
        output.line(f"{mark}  {text.escape(finding['message'])}")
        if finding["hint"] and finding["level"] != "ok":
            output.line(f"         -> {text.escape(finding['hint'])}")
