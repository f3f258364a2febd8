"""`ckptlog restore`: verify a checkpoint, move it to `restored`, hand out its data."""

from __future__ import annotations

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
    from ckptlog.repository.output_file import OutputFile

    arguments, output = context.arguments, context.output
    out = arguments.out
    target = OutputFile(out, is_replaced=arguments.force, argument="out") if out else None
    with context.manager() as manager:
        before = manager.get_checkpoint(arguments.checkpoint)
        if before is None:
            raise unknown_checkpoint(arguments.checkpoint)
        if target is not None:
            data = output_text(before.to_dict()["data"])
            target.write(data.encode("utf-8", "backslashreplace"))
        restored = manager.restore_checkpoint(arguments.checkpoint, expected=before.position)
    if restored is None:  # deleted in the meantime
        raise unknown_checkpoint(arguments.checkpoint)
    if output.is_json:
        answer = summary(restored) if target else restored.to_dict()
        output.document({"checkpoint": answer, "out": out if target else None})
        return OK
    progress = text.progress(restored.step_number, restored.total_steps)
    output.line(
        text.escape(f"Restored {restored.checkpoint_id}: task {restored.task_id}, step {progress}.")
    )
    if target is not None:
        output.line(text.escape(f"Its data is in {out}."))
    return OK


def output_text(data: object) -> str:
    """Return data as the JSON text of a file."""
    import json

    return json.dumps(data, indent=2, ensure_ascii=False) + "\n"
