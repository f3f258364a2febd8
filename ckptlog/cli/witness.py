"""`ckptlog audit witness`: attest the logs of others, and take in what others attest of ours."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from ckptlog.cli import text
from ckptlog.cli.command import Commands, Context, add_command
from ckptlog.cli.exit_status import OK
from ckptlog.cli.output import Column
from ckptlog.cli.transparency import head_fields, read_file, read_key

if TYPE_CHECKING:
    from ckptlog.formats.note import Signature
    from ckptlog.repository.witness import Witness

_COLUMNS = (Column("witness"), Column("key"))


def add_acts(acts: Commands) -> None:
    """Add `witness` and what it can do."""
    parser = acts.add_parser("witness", help="attest the logs of others; take in cosignatures")
    kinds = parser.add_subparsers(title="acts", metavar="ACT", dest="witness_act", required=True)
    init = add_command(kinds, "init", run_init, about="make this user a witness: make its key")
    init.add_argument("name", metavar="NAME", help="like a host: witness.example.org/ada")
    cosign = add_command(
        kinds,
        "cosign",
        run_cosign,
        about="check what a log asks with (its prove-consistency), cosign its head",
    )
    cosign.add_argument("file", metavar="FILE", help="the request; - for standard input")
    cosign.add_argument("--vkey", metavar="KEY", help="the log's verifier key; the first time")
    trust = add_command(kinds, "trust", run_trust, about="trust a witness of this store's heads")
    trust.add_argument("key", metavar="KEY", help="its verifier key, or a file with it")
    distrust = add_command(kinds, "distrust", run_distrust, about="trust a witness no more")
    distrust.add_argument("name", metavar="NAME")
    accept = add_command(
        kinds, "accept", run_accept, about="add the cosignatures in a file to this store's heads"
    )
    accept.add_argument("file", metavar="FILE", help="a witness's answer; - for standard input")
    add_command(kinds, "list", run_list, about="list the witnesses that are trusted")


def _witness() -> Witness:
    from ckptlog.repository.witness import Witness
    from ckptlog.storage.environment import Environment

    return Witness(Environment())


def run_init(context: Context) -> int:
    """Make the witness's key, or show it."""
    key = _witness().make_key(context.arguments.name)
    if context.output.is_json:
        context.output.document({"witness": key.name, "key": str(key)})
    else:
        context.output.line(text.escape(str(key)))
    return OK


def run_cosign(context: Context) -> int:
    """Check a request; print the cosignature's line, as a witness answers."""
    from ckptlog.formats import head as formats
    from ckptlog.formats.note import signature_line

    arguments, output = context.arguments, context.output
    request = _read(arguments.file, formats.PROOF_BYTES_MAX)
    key = read_key(arguments.vkey) if arguments.vkey else None
    head, made = _witness().cosign(request, key)
    line = signature_line(made)
    if output.is_json:
        fields = {"origin": head.origin, "size": head.size, "root": head.root.hex()}
        output.document({"witness": made.name, **fields, "cosignature": line})
    else:
        output.raw(line)
        output.note(f"cosigned {head.size:,} events of {head.origin}")
    return OK


def _read(path: str, most: int) -> bytes:
    return sys.stdin.buffer.read(most + 1) if path == "-" else read_file(path, most)


def run_trust(context: Context) -> int:
    """Trust a witness."""
    from ckptlog.errors import ArgumentError
    from ckptlog.formats.note import COSIGNATURE

    key = read_key(context.arguments.key)
    if key.kind != COSIGNATURE:
        raise ArgumentError(f"{key} is a log's key, not a witness's.", argument="key")
    with context.store(is_reading=True) as store:
        ring = store.notary.ring
        ring.trust((*(one for one in ring.witnesses() if one.name != key.name), key))
    return _done(context, {"witness": key.name, "trusted": True}, f"{key.name} is trusted.")


def run_distrust(context: Context) -> int:
    """Trust a witness no more."""
    from ckptlog.errors import KeyMissingError
    from ckptlog.model.quotation import quoted

    name = context.arguments.name
    with context.store(is_reading=True) as store:
        ring = store.notary.ring
        before = ring.witnesses()
        after = tuple(one for one in before if one.name != name)
        if after == before:
            raise KeyMissingError(
                f"No witness {quoted(name)} is trusted.",
                hint="Those that are: ckptlog audit witness list",
                witness=name,
            )
        ring.trust(after)
    return _done(context, {"witness": name, "removed": True}, f"{name} is trusted no more.")


def _done(context: Context, fields: dict[str, object], said: str) -> int:
    if context.output.is_json:
        context.output.document(fields)
    else:
        context.output.line(text.escape(said))
    return OK


def run_accept(context: Context) -> int:
    """Take in cosignatures by trusted witnesses."""
    from ckptlog.formats.note import NOTE_BYTES_MAX
    from ckptlog.repository.witness import accept

    output = context.output
    signatures = _signatures(_read(context.arguments.file, NOTE_BYTES_MAX))
    with context.store() as store:
        notary = store.notary
        with notary.ring.locked():
            changed = accept(notary.shelf, signatures, notary.ring.witnesses())
    if output.is_json:
        for one in changed:
            output.item(head_fields(one))
    else:
        for one in changed:
            names = ", ".join(signature.name for signature in one.note.signatures[1:])
            output.line(text.escape(f"The head of {one.head.size:,} events: cosigned by {names}."))
    return OK


def _signatures(data: bytes) -> tuple[Signature, ...]:
    """Return the signatures of a witness's answer, or of a whole note."""
    from ckptlog.errors import FormatError
    from ckptlog.formats import note

    if b"\n\n" in data:
        return note.decode(data).signatures
    if len(data) > note.NOTE_BYTES_MAX:
        raise FormatError(f"An answer of {len(data)} bytes is over {note.NOTE_BYTES_MAX}.")
    try:
        return note.decode_signatures(data.decode())
    except UnicodeDecodeError as error:
        raise FormatError("A witness's answer is not UTF-8.") from error


def run_list(context: Context) -> int:
    """List the witnesses that are trusted."""
    output = context.output
    with context.store(is_reading=True) as store:
        found = store.notary.ring.witnesses()
    if output.is_json:
        for one in found:
            output.item({"witness": one.name, "key": str(one)})
    elif found:
        output.table(_COLUMNS, [(one.name, str(one)) for one in found])
    else:
        output.note("no witness is trusted")
    return OK
