"""`ckptlog doctor`: what is wrong with the store or around it, and what to do."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ckptlog.cli import text
from ckptlog.cli.command import Commands, Context, add_command
from ckptlog.cli.exit_status import BY_CODE, OK, PARTIAL

if TYPE_CHECKING:
    from ckptlog.repository.report import Finding

_MARKS = {"ok": "ok     ", "warning": "WARNING", "error": "ERROR  "}


def add_commands(commands: Commands) -> None:
    """Add `doctor`."""
    add_command(commands, "doctor", run_doctor, about="find what is wrong, and say what to do")


def run_doctor(context: Context) -> int:
    """Print every finding; the status is 0 only without errors. Nothing is changed."""
    from ckptlog.cli.diagnosis import surroundings
    from ckptlog.repository.doctor import diagnose
    from ckptlog.storage.environment import Environment

    path = context.store_path()
    findings = [_fields(finding) for finding in surroundings(path, Environment())]
    inside = [_fields(finding) for finding in diagnose(path)]
    findings += [finding for finding in inside if not _is_known(finding, findings)]
    errors = [finding for finding in findings if finding["level"] == "error"]
    if context.output.is_json:
        context.output.document({"store": str(path), "ok": not errors, "findings": findings})
    else:
        _print(context, findings)
    return _tell_errors(context, str(path), errors) if errors else OK


def _tell_errors(context: Context, path: str, errors: list[dict[str, str]]) -> int:
    number = text.count(len(errors), "error")
    context.output.fault(
        {
            "code": "cli.doctor",
            "message": f"The doctor found {number} in {path}.",
            "hint": errors[-1]["hint"],
            "context": {"errors": [finding["code"] for finding in errors]},
        }
    )
    return BY_CODE.get(errors[-1]["code"], PARTIAL)


def _fields(finding: Finding) -> dict[str, str]:
    return {
        "level": finding.level,
        "code": finding.code,
        "message": finding.message,
        "hint": finding.hint,
    }


def _is_known(finding: dict[str, str], findings: list[dict[str, str]]) -> bool:
    return any(finding["code"] == other["code"] for other in findings)


def _print(context: Context, findings: list[dict[str, str]]) -> None:
    output = context.output
    for finding in findings:
        mark = output.paint(_MARKS[finding["level"]], finding["level"])
        output.line(f"{mark}  {text.escape(finding['message'])}")
        if finding["hint"] and finding["level"] != "ok":
            output.line(f"         -> {text.escape(finding['hint'])}")
