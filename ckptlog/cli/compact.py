"""`ckptlog compact`: give back the room of what was deleted, and compress the settled log."""

from __future__ import annotations

from typing import Any

from ckptlog.cli import text
from ckptlog.cli.command import Commands, Context, add_command
from ckptlog.cli.exit_status import OK
from ckptlog.cli.progress import Progress


def add_commands(commands: Commands) -> None:
    """Add `compact`."""
    parser = add_command(
        commands, "compact", run_compact, about="give back the room of deleted checkpoints"
    )
    parser.add_argument("--dry-run", action="store_true", help="only say what could be given back")
    parser.add_argument(
        "--drop-superseded",
        action="store_true",
        help="also drop payloads that a later change of their checkpoint replaced",
    )
    parser.add_argument(
        "--upgrade",
        action="store_true",
        help="let a store of an older version become one that only this version and newer ones "
        "open",
    )


def run_compact(context: Context) -> int:
    """Collect, and print before and after."""
    output, arguments = context.output, context.arguments
    progress = Progress(output, "compact", is_bytes=True)
    with context.manager(is_reading=arguments.dry_run) as manager:
        try:
            done = manager.compact_checkpoint_storage(
                drop_superseded=arguments.drop_superseded,
                dry_run=arguments.dry_run,
                upgrade=arguments.upgrade,
                progress=progress,
            )
        finally:
            progress.close()
    if output.is_json:
        output.document({"store": str(context.store_path()), **done})
    else:
        output.line(_sentence(done))
    return OK


def _sentence(done: dict[str, Any]) -> str:
    found = done["collection"]
    dropped = text.count(found["chunks_dropped"], "chunk")
    if found["is_dry_run"]:
        return (
            f"Would drop {dropped} ({text.size(found['bytes_dropped'])}) from "
            f"{text.count(found['segments'], 'segment')} and "
            f"{text.count(found['packs'], 'pack')} (--dry-run)."
        )
    return (
        f"{text.size(done['bytes_before'])} -> {text.size(done['bytes_after'])}: dropped {dropped} "
        f"({text.size(found['bytes_dropped'])}), kept {found['chunks_kept']:,}, settled "
        f"{text.count(found['segments'], 'segment')} and {text.count(found['packs'], 'pack')}."
    )
