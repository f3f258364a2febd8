"""`ckptlog audit head|prove|prove-consistency|verify-proof|publish|fork`: history that is signed.

`verify-proof` touches no store: a file and a verifier key are enough (specs/transparency.md).
"""

from __future__ import annotations

import re
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ckptlog.cli import text
from ckptlog.cli.command import Commands, Context, add_command, open_store
from ckptlog.cli.exit_status import OK
from ckptlog.cli.moment import natural, positive
from ckptlog.cli.output import Column
from ckptlog.cli.progress import Progress
from ckptlog.cli.word import filled

if TYPE_CHECKING:
    from ckptlog.crypto.signature import Cosigned
    from ckptlog.formats.head import ConsistencyProof, Head, InclusionProof
    from ckptlog.formats.note import Note, VerifierKey
    from ckptlog.repository.head_shelf import SignedHead
    from ckptlog.repository.output_file import OutputFile
    from ckptlog.repository.store import Store

_COLUMNS = (
    Column("events", is_number=True),
    Column("root"),
    Column("origin"),
    Column("signatures"),
)

# Open already: reading from it waits for a writer that there is, or was.
_GIVEN = re.compile(r"/dev/stdin|(/dev|/proc/(self|[0-9]+))/fd/[0-9]+")


def add_acts(acts: Commands) -> None:
    """Add what `audit` can do with signed heads."""
    head = add_command(acts, "head", run_head, about="sign the log as it is now, print the head")
    head.add_argument("--latest", action="store_true", help="sign nothing, print the newest head")
    head.add_argument("--list", action="store_true", help="list the heads that are kept")
    _add_out(head)
    prove = add_command(acts, "prove", run_prove, about="prove that an event is in the log")
    prove.add_argument("position", type=natural, metavar="POSITION")
    _add_out(prove)
    consistency = add_command(
        acts, "prove-consistency", run_consistency, about="prove that nothing was changed since"
    )
    consistency.add_argument("old", type=natural, metavar="OLD", help="events of the earlier head")
    consistency.add_argument(
        "new", type=natural, nargs="?", metavar="NEW", help="of the later one (default: the newest)"
    )
    _add_out(consistency)
    _add_verify(acts)
    publish = add_command(
        acts, "publish", run_publish, about="export the log as static files (C2SP tlog-tiles)"
    )
    publish.add_argument(
        "folder", type=filled, metavar="DIR", help="a new folder, or an earlier export"
    )
    publish.add_argument(
        "--latest", action="store_true", help="sign nothing, up to the newest head"
    )
    add_command(
        acts,
        "fork",
        run_fork,
        about="give up the key and origin of a store that was set back, or whose key is lost",
    )


def _add_verify(acts: Commands) -> None:
    verify = add_command(
        acts, "verify-proof", run_verify_proof, about="check a proof; needs no store"
    )
    verify.add_argument("file", type=filled, metavar="FILE")
    verify.add_argument(
        "--vkey", required=True, metavar="KEY", help="the log's verifier key, or a file with it"
    )
    verify.add_argument(
        "--old", metavar="FILE", help="the earlier signed head, for a proof of consistency"
    )
    verify.add_argument(
        "--witness", action="append", default=[], metavar="KEY", help="a witness's key; repeatable"
    )
    verify.add_argument(
        "--witnesses-min", type=positive, metavar="N", help="cosignatures needed (default: all)"
    )


def _add_out(parser: Any) -> None:
    parser.add_argument("--out", type=filled, metavar="FILE", help="write it there instead")
    parser.add_argument("--force", action="store_true", help="replace FILE if it exists")


# --- heads ----------------------------------------------------------------------------------------


def run_head(context: Context) -> int:
    """Sign and print a head, or list those that are kept."""
    arguments, output = context.arguments, context.output
    if arguments.list and (arguments.out or arguments.latest):
        from ckptlog.errors import ArgumentError

        given = "--out" if arguments.out else "--latest"
        raise ArgumentError(
            f"{given} does not go with --list, which prints all heads that are kept.",
            hint="For a file: ckptlog audit head --list > FILE; for the newest head: --latest.",
            argument=given[2:],
        )
    target = _target(context)
    with context.store(is_reading=True) as store:
        notary = store.notary
        if arguments.list:
            # The newest one may lie there twice; that which has cosignatures comes first.
            heads = {one.note.text: one for one in reversed(list(notary.shelf.all()))}
            return _list(context, list(reversed(heads.values())))
        signed = notary.latest() if arguments.latest else notary.sign()
        key, is_published = notary.key, not store.read_only
    if signed is None:
        raise _no_head()
    if not arguments.latest and not is_published:
        output.note("the store cannot be written, so its heads/ do not get this head: keep it")
    _put(context, target, _note_bytes(signed.note), {**head_fields(signed), "key": str(key)})
    if not output.is_json and arguments.out:
        output.line(f"The head of {signed.head.size:,} events is in {text.escape(arguments.out)}.")
    return OK


def _no_head() -> Exception:
    from ckptlog.errors import KeyMissingError

    return KeyMissingError("No head was signed yet.", hint="Sign one: ckptlog audit head")


def _list(context: Context, found: Sequence[SignedHead]) -> int:
    output = context.output
    if output.is_json:
        for one in found:
            output.item(head_fields(one))
    elif found:
        output.table(_COLUMNS, [_row(one) for one in found])
    else:
        output.note("no head is kept")
    return OK


def _row(one: SignedHead) -> tuple[object, ...]:
    names = ", ".join(signature.name for signature in one.note.signatures)
    return one.head.size, one.head.root.hex()[:16], one.head.origin, names


def head_fields(one: SignedHead) -> dict[str, Any]:
    """Return a signed head for JSON."""
    return {
        **_head(one.head),
        "signed_by": [signature.name for signature in one.note.signatures],
        "note": _note_bytes(one.note).decode(),
    }


def _head(head: Head) -> dict[str, Any]:
    return {"origin": head.origin, "size": head.size, "root": head.root.hex()}


def _note_bytes(signed: Note) -> bytes:
    from ckptlog.formats import note

    return note.encode(signed)


# --- proofs ---------------------------------------------------------------------------------------


def run_prove(context: Context) -> int:
    """Prove that an event stands in the log."""
    from ckptlog.formats import head as formats

    target = _target(context)
    with context.store(is_reading=True) as store:
        proof = store.notary.prove(context.arguments.position)
    data, head = formats.encode_inclusion(proof), formats.decode(proof.note.text)
    fields = {"kind": "inclusion", "position": proof.position, "hashes": len(proof.path)}
    _put(context, target, data, {**fields, **_head(head), "proof": data.decode()})
    _tell_out(context, f"event {proof.position} among {head.size:,}")
    return OK


def run_consistency(context: Context) -> int:
    """Prove that an earlier log is the beginning of a later one."""
    from ckptlog.formats import head as formats

    arguments, target = context.arguments, _target(context)
    with context.store(is_reading=True) as store:
        proof = store.notary.prove_consistency(arguments.old, arguments.new)
    data, head = formats.encode_consistency(proof), formats.decode(proof.note.text)
    fields = {"kind": "consistency", "old": proof.old, "hashes": len(proof.path)}
    _put(context, target, data, {**fields, **_head(head), "proof": data.decode()})
    _tell_out(context, f"{proof.old:,} events as the beginning of {head.size:,}")
    return OK


def _tell_out(context: Context, what: str) -> None:
    if context.arguments.out and not context.output.is_json:
        context.output.line(f"The proof of {what} is in {text.escape(context.arguments.out)}.")


def _target(context: Context) -> OutputFile | None:
    """Return the file that was named, having looked at it: before anything is signed."""
    from ckptlog.repository.output_file import OutputFile

    out = context.arguments.out
    is_replaced = context.arguments.force
    return OutputFile(out, is_replaced=is_replaced, argument="out") if out else None


def _put(context: Context, target: OutputFile | None, data: bytes, fields: dict[str, Any]) -> None:
    """Write text to the file that was named, or print it; with --json print the fields."""
    out, output = context.arguments.out, context.output
    if target is not None:
        target.write(data)
    if output.is_json:
        output.document({**fields, "file": out or None})
    elif not out:
        # Every line was made by an encoder of ours: no control characters.
        output.raw(data.decode())


# --- verifying a proof ----------------------------------------------------------------------------


def run_verify_proof(context: Context) -> int:
    """Check a proof by its file and keys alone."""
    from ckptlog.crypto.signature import verify_note
    from ckptlog.errors import ArgumentError
    from ckptlog.formats import head as formats
    from ckptlog.formats.head import InclusionProof

    arguments = context.arguments
    key = read_key(arguments.vkey)
    proof = formats.decode_proof(read_file(arguments.file, formats.PROOF_BYTES_MAX))
    head = formats.decode(proof.note.text)
    verify_note(proof.note, key)
    _check_origin(head, key)
    is_inclusion = isinstance(proof, InclusionProof)
    if is_inclusion and arguments.old is not None:
        raise ArgumentError(
            "This proves an event; --old is for a proof of consistency.",
            hint="Leave --old out.",
            argument="old",
        )
    fields = _inclusion(proof, head) if is_inclusion else _consistency(context, proof, head, key)
    cosigned = _witnessed(context, proof.note)
    fields |= {"witnesses": [one.key.name for one in cosigned]}
    if context.output.is_json:
        context.output.document({"ok": True, **fields, **_head(head), "key": str(key)})
    else:
        _print_verified(context, fields, head, cosigned)
    return OK


def _check_origin(head: Head, key: VerifierKey) -> None:
    from ckptlog.errors import SignatureError

    if head.origin != key.name:
        raise SignatureError(f"The head is of {head.origin}, and the key of {key.name}.")


def _inclusion(proof: Any, head: Head) -> dict[str, Any]:
    from ckptlog.errors import ProofError
    from ckptlog.formats import event, merkle
    from ckptlog.model.leaf import leaf_hash

    found: InclusionProof = proof
    if found.extra is None:
        raise ProofError(
            "The proof does not hold the event.", hint="ckptlog audit prove makes one."
        )
    leaf = leaf_hash(found.extra)
    merkle.verify_inclusion(leaf, found.position, head.size, found.path, root=head.root)
    # Only now is it known to be an event of the log.
    import msgspec

    fields = msgspec.to_builtins(event.decode(found.extra))
    return {"kind": "inclusion", "position": found.position, "leaf": leaf.hex(), "event": fields}


def _consistency(context: Context, proof: Any, head: Head, key: VerifierKey) -> dict[str, Any]:
    from ckptlog.crypto.signature import verify_note
    from ckptlog.errors import ArgumentError, ProofError
    from ckptlog.formats import head as formats
    from ckptlog.formats import merkle, note

    found: ConsistencyProof = proof
    if not context.arguments.old:
        raise ArgumentError(
            "A proof of consistency begins from an earlier head.",
            hint="Give the one that you have kept: --old FILE",
            argument="old",
        )
    former = note.decode(read_file(context.arguments.old, note.NOTE_BYTES_MAX, "old"))
    verify_note(former, key)
    old = formats.decode(former.text)
    _check_origin(old, key)
    if old.size != found.old:
        raise ProofError(
            f"The proof begins from {found.old} events, the earlier head has {old.size}."
        )
    merkle.verify_consistency(
        old.size, head.size, found.path, old_root=old.root, new_root=head.root
    )
    return {"kind": "consistency", "old": old.size, "old_root": old.root.hex()}


def _witnessed(context: Context, signed: Note) -> tuple[Cosigned, ...]:
    from ckptlog.crypto.signature import verify_cosignatures
    from ckptlog.errors import ArgumentError, SignatureError

    arguments = context.arguments
    keys = [read_key(one) for one in arguments.witness]
    least = arguments.witnesses_min or len(keys)
    if least > len(keys):
        raise ArgumentError(
            f"{least} of the named witnesses are needed, and {len(keys)} named.",
            hint="Name each witness whose cosignature counts: --witness KEY",
            argument="witnesses_min",
        )
    found = verify_cosignatures(signed, keys)
    if len(found) < least:
        raise SignatureError(f"{len(found)} of the witnesses have cosigned; {least} are needed.")
    return found


def _print_verified(
    context: Context, fields: dict[str, Any], head: Head, cosigned: tuple[Cosigned, ...]
) -> None:
    output = context.output
    ok = output.paint("ok", "ok")
    if fields["kind"] == "inclusion":
        event = fields["event"]
        output.line(
            f"{ok}: event {fields['position']} of {head.size:,} in {text.escape(head.origin)}"
        )
        subject = event.get("subject", {})
        shown = {name: event[name] for name in ("type", "time", "actor", "state") if name in event}
        output.details({**shown, **subject, "leaf": fields["leaf"]})
    else:
        output.line(
            f"{ok}: the first {fields['old']:,} of {head.size:,} events are unchanged in "
            f"{text.escape(head.origin)}"
        )
    for one in cosigned:
        output.line(f"cosigned by {text.escape(one.key.name)} at {_instant(one.time_s)}")


def _instant(time_s: int) -> str:
    from datetime import UTC, datetime

    try:
        return text.instant(datetime.fromtimestamp(time_s, UTC))
    except (ValueError, OverflowError, OSError):  # a time of no calendar
        return f"second {time_s}"


def read_file(path: str, most: int, argument: str = "file") -> bytes:
    """Return a small file's bytes; of a larger one what is enough to refuse it."""
    from ckptlog.errors import operating_system_door

    named = named_file(path, argument)
    with operating_system_door("Cannot read"), named.open("rb") as file:
        return file.read(most + 1)


def named_file(path: str, argument: str) -> Path:
    """Return the path of a file to read; refuse what names none, which is a slip of the pen.

    A named pipe is refused too: who opens one that nobody writes to waits for ever. What this
    process was given open (/dev/stdin, /dev/fd/N) may be one.
    """
    from ckptlog.errors import ArgumentError, operating_system_door

    named = Path(path)
    with operating_system_door("Cannot read"):
        try:
            mode = named.stat().st_mode
        except (FileNotFoundError, NotADirectoryError) as error:
            raise ArgumentError(
                f"There is no file {path}.",
                hint="Name a file that ckptlog audit has written.",
                argument=argument,
            ) from error
    is_pipe = stat.S_ISFIFO(mode) and _GIVEN.fullmatch(path) is None
    if stat.S_ISDIR(mode) or is_pipe:
        raise ArgumentError(
            f"{path} is a {'pipe' if is_pipe else 'directory'}, not a file.",
            hint="Name a file that ckptlog audit has written"
            + (", or give the pipe as standard input: /dev/stdin." if is_pipe else "."),
            argument=argument,
        )
    return named


def read_key(given: str) -> VerifierKey:
    """Return a verifier key from the command line: itself, or a file with one, the last line."""
    from ckptlog.errors import ArgumentError, FormatError
    from ckptlog.formats import note

    try:
        return note.decode_key(given)
    except FormatError as error:
        if not Path(given).is_file():
            raise ArgumentError(
                f"{given!r} is no verifier key, and no file: {error.message}",
                hint="A key looks like name+0123abcd+AbC...=; STORE/heads/keys has a store's own.",
                argument="vkey",
            ) from error
    lines = read_file(given, note.NOTE_BYTES_MAX, "vkey").decode(errors="replace").split()
    return note.decode_key(lines[-1] if lines else "")


# --- publishing and forking -----------------------------------------------------------------------


def run_publish(context: Context) -> int:
    """Bring a published copy of the log up to date."""
    from ckptlog.repository.publication import Publication

    arguments, output = context.arguments, context.output
    progress = Progress(output, "publish")
    try:
        with context.store(is_reading=True) as store:
            notary = store.notary
            # The folder is looked at before anything is signed for it.
            publication = Publication(notary, Path(arguments.folder), progress)
            signed = notary.latest() if arguments.latest else notary.sign()
            if signed is None:
                raise _no_head()
            done = publication.publish(signed)
            key = notary.key
    finally:
        progress.close()
    if output.is_json:
        fields = {"folder": arguments.folder, "former": done.former, "files": done.files}
        output.document({**fields, "bytes": done.bytes, **_head(done.head), "key": str(key)})
    else:
        new = done.head.size - done.former
        output.line(
            f"{text.escape(arguments.folder)}: {text.count(done.head.size, 'event')} "
            f"({new:,} new; {text.count(done.files, 'file')}, {text.size(done.bytes)} written)."
        )
        output.line(f"Verifier key: {text.escape(str(key))}")
    return OK


def _given_up(context: Context) -> Store:
    """Open a store whose signed heads are to be given up; with a lost end, where they cover it."""
    from ckptlog.errors import LogCorruptionError
    from ckptlog.repository.repair import repair

    path = context.store_path()
    try:
        return open_store(path, context.output)
    except LogCorruptionError:
        if [(one.action, one.container) for one in repair(path).files] != [("refused", "log/end")]:
            raise
        repair(path, is_applied=True, gives_up=True)
        return open_store(path, context.output)


def run_fork(context: Context) -> int:
    """Begin another origin with another key."""
    output = context.output
    with _given_up(context) as store:
        done = store.notary.fork()
    former = _head(done.former) if done.former else None
    if output.is_json:
        fields = {**head_fields(done.head), "key": str(done.key), "former": former}
        output.document(fields)
        return OK
    if done.former is not None:
        output.line(
            f"Given up: {text.escape(done.former.origin)}, {done.former.size:,} events signed."
        )
    output.line(f"The log has {done.head.head.size:,} events, and goes on as:")
    output.line(text.escape(str(done.key)))
    output.note("Tell this key to everybody who verifies; heads of the former one stay in heads/.")
    return OK
