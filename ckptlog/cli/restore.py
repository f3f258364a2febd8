"""`ckptlog restore`: verify a checkpoint, move it to `restored`, hand out its data."""

from __future__ import annotations

import os
from pathlib import Path

from ckptlog.cli import text
from ckptlog.cli.command import Commands, Context, add_command
from ckptlog.cli.exit_status import OK
from ckptlog.cli.presenter import summary
from ckptlog.cli.show import unknown_checkpoint


def add_commands(commands: Commands) -> None:
    """Add `restore`."""
    parser = add_command(
        commands,
        "restore",
        run_restore,
        about="restore a checkpoint",
        epilog="To look at data without changing the state: `ckptlog show ID --data`.",
    )
    parser.add_argument("checkpoint", metavar="ID")
    parser.add_argument("--out", metavar="FILE", help="write its data there, as JSON")
    parser.add_argument("--force", action="store_true", help="replace FILE if it exists")


def run_restore(context: Context) -> int:
    """Restore a checkpoint; a file is written first, so that no state moves without its file."""
    arguments, output = context.arguments, context.output
    target = Path(arguments.out) if arguments.out else None
    if target is not None:
        _check_target(target, is_forced=arguments.force)
    with context.manager() as manager:
        before = manager.get_checkpoint(arguments.checkpoint)
        if before is None:
            raise unknown_checkpoint(arguments.checkpoint)
        if target is not None:
            _write(output_text(before.to_dict()["data"]), target)
        restored = manager.restore_checkpoint(arguments.checkpoint, expected=before.position)
    if restored is None:  # deleted in the meantime
        raise unknown_checkpoint(arguments.checkpoint)
    if output.is_json:
        answer = summary(restored) if target else restored.to_dict()
        output.document({"checkpoint": answer, "out": str(target) if target else None})
        return OK
    progress = text.progress(restored.step_number, restored.total_steps)
    output.line(
        text.escape(f"Restored {restored.checkpoint_id}: task {restored.task_id}, step {progress}.")
    )
    if target is not None:
        output.line(text.escape(f"Its data is in {target}."))
    return OK


def output_text(data: object) -> str:
    """Return data as the JSON text of a file."""
    import json

    return json.dumps(data, indent=2, ensure_ascii=False) + "\n"


def _check_target(target: Path, *, is_forced: bool) -> None:
    from ckptlog.errors import ArgumentError

    if target.is_dir():
        raise ArgumentError(f"{target} is a directory.", hint="Name a file.", path=str(target))
    if target.exists() and not is_forced:
        raise ArgumentError(
            f"{target} exists.", hint="Name another file, or add --force.", path=str(target)
        )
    if not target.absolute().parent.is_dir():
        raise ArgumentError(
            f"The directory of {target} does not exist.", hint="Make it first.", path=str(target)
        )


def _write(content: str, target: Path) -> None:
    from ckptlog.storage.files import write_atomically

    raw = content.encode("utf-8", "backslashreplace")
    if target.exists() and not target.is_file():  # /dev/stdout, a named pipe
        with target.open("wb") as file:
            file.write(raw)
        return
    write_atomically(Path(os.path.realpath(target)), raw)
