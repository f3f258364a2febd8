"""Keys on this machine, kept apart from every store (specs/transparency.md).

    KEYS/<store id>/signing.key       signs the store's heads; 0600
    KEYS/<store id>/next.key          while a fork is under way
    KEYS/<store id>/head              the newest head that was signed: no other may contradict it
    KEYS/<store id>/witnesses         verifier keys of witnesses that are trusted, one a line
    KEYS/<store id>/former/<key id>.* keys and heads of origins that were given up
    KEYS/witness/key, logs/...        for who is a witness of others (repository/witness.py)

KEYS is $CKPTLOG_KEYS, else $XDG_DATA_HOME/ckptlog/keys, else ~/.local/share/ckptlog/keys. It stands
apart so that whoever copies, changes or restores a store has neither the key nor the memory of what
was signed: that memory is how a log that went back is noticed.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

from ckptlog.errors import (
    FormatError,
    KeyMissingError,
    KeyUnsafeError,
    from_os_error,
    operating_system_door,
)
from ckptlog.formats import note
from ckptlog.formats.note import NOTE_BYTES_MAX, Note, VerifierKey
from ckptlog.storage import files
from ckptlog.storage.environment import Environment
from ckptlog.storage.lock import WriterLock

if TYPE_CHECKING:
    from ckptlog.crypto.signature import SigningKey

VARIABLE: Final = "CKPTLOG_KEYS"
LINES_MAX: Final = 1000

_SIGNING = "signing.key"
_NEXT = "next.key"
_HEAD = "head"
_WITNESSES = "witnesses"
_FORMER = "former"
_LOCK_TIMEOUT_S = 30.0


def keys_folder(environment: Environment) -> Path:
    """Return the folder of all keys of this user.

    Raises:
        KeyMissingError: There is no home to look in.
    """
    named = environment.variable(VARIABLE)
    if named:
        return Path(named).absolute()
    data = environment.variable("XDG_DATA_HOME")
    if data:
        return Path(data).absolute() / "ckptlog" / "keys"
    try:
        return Path.home() / ".local" / "share" / "ckptlog" / "keys"
    except RuntimeError as error:
        raise KeyMissingError(
            "There is no home directory to look for keys in.", hint=f"Set {VARIABLE}."
        ) from error


class KeyRing:
    """The keys of one store, or those of a witness.

    Threads: safe; what must happen at once happens under `locked`.
    """

    def __init__(self, folder: Path, environment: Environment) -> None:
        self.folder = folder
        self._environment = environment

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Let one process at a time sign: two could otherwise sign what contradicts.

        Raises:
            LockTimeoutError: Another one held it for half a minute.
        """
        make_folder(self.folder)
        lock = WriterLock(self.folder / "lock", self._environment)
        lock.acquire(_LOCK_TIMEOUT_S)
        try:
            yield
        finally:
            lock.release()
            lock.close()

    # --- the signing key ----------------------------------------------------------------------

    def signing_key(self) -> SigningKey | None:
        """Return the key that signs, None where it is not here.

        Raises:
            KeyUnsafeError: Others can read it.
            FormatError: It is damaged.
        """
        return read_key(self.folder / _SIGNING)

    def next_key(self) -> SigningKey | None:
        """Return the key of a fork that was begun."""
        return read_key(self.folder / _NEXT)

    def make_key(self, name: str, kind: int = note.ED25519, *, is_next: bool = False) -> SigningKey:
        """Make a key; it is on the medium when this returns."""
        from ckptlog.crypto.signature import SigningKey

        key = SigningKey(name, kind, self._environment.random_bytes(note.KEY_BYTES))
        write_private(self.folder / (_NEXT if is_next else _SIGNING), key.encode() + "\n")
        return key

    def retire(self, key: SigningKey | None) -> None:
        """Put the key that signed, and its last head, away; let the next one take its place.

        Called again after a crash it goes on where it was.
        """
        with operating_system_door("Cannot put a key away"):
            if key is not None:
                former = self.folder / _FORMER
                make_folder(former)
                stem = key.verifier.key_id.hex()
                _move(self.folder / _HEAD, former / f"{stem}.head")
                os.replace(self.folder / _SIGNING, former / f"{stem}.key")
                files.sync_directory(former)
            os.replace(self.folder / _NEXT, self.folder / _SIGNING)
        files.sync_directory(self.folder)

    def was_given_up(self, key: VerifierKey) -> bool:
        """Say whether a key signed here before a fork.

        Raises:
            KeyUnsafeError, FormatError, CheckpointStorageError: It cannot be told.
        """
        found = read_key(self.folder / _FORMER / f"{key.key_id.hex()}.key")
        return found is not None and found.verifier == key

    # --- what was signed, and who is trusted --------------------------------------------------

    def head(self) -> Note | None:
        """Return the newest head that was signed here.

        Raises:
            FormatError: It is damaged.
        """
        return read_note(self.folder / _HEAD)

    def remember(self, signed: Note) -> None:
        """Remember a head, durably, before anybody is shown it."""
        make_folder(self.folder)
        files.write_atomically(self.folder / _HEAD, note.encode(signed))

    def witnesses(self) -> tuple[VerifierKey, ...]:
        """Return the keys of the witnesses that are trusted."""
        return read_keys(self.folder / _WITNESSES)

    def trust(self, keys: tuple[VerifierKey, ...]) -> None:
        """Trust these witnesses, and no others."""
        make_folder(self.folder)
        text = "".join(f"{key}\n" for key in keys)
        files.write_atomically(self.folder / _WITNESSES, text.encode())


def _move(old: Path, new: Path) -> None:
    if old.exists():
        os.replace(old, new)


# --- files ----------------------------------------------------------------------------------------


def make_folder(folder: Path) -> None:
    """Make a folder of keys, which nobody else may look into."""
    with operating_system_door("Cannot make the folder of keys"):
        folder.parent.mkdir(parents=True, exist_ok=True)
        folder.mkdir(mode=0o700, exist_ok=True)


def write_private(path: Path, text: str) -> None:
    """Write a private key: only its owner can read it, and it is never half there."""
    make_folder(path.parent)
    temporary = path.with_name(f"{path.name}.{os.getpid()}{files.TEMPORARY_SUFFIX}")
    try:
        files.remove(temporary)
        fd = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise from_os_error(error, "Cannot write a key") from error
    try:
        files.write_all(fd, text.encode(), 0)
        files.sync_file(fd)
    finally:
        os.close(fd)
    files.publish(temporary, path)


def read_key(path: Path) -> SigningKey | None:
    """Return the private key in a file, None where there is none."""
    data = _read(path)
    if data is None:
        return None
    with operating_system_door("Cannot look at a key"):
        mode = path.stat().st_mode & 0o077
    if mode:
        raise KeyUnsafeError(
            f"The key {path} can be read by others (mode {mode:03o}).",
            hint="chmod 600 it; if somebody may have read it, make a new one: ckptlog audit fork.",
            path=str(path),
        )
    from ckptlog.crypto.signature import SigningKey

    try:
        return SigningKey.decode(data.decode())
    except (FormatError, UnicodeDecodeError) as error:
        raise FormatError(
            f"The key {path} is damaged.", hint="Restore it from your copy.", path=str(path)
        ) from error


def read_keys(path: Path) -> tuple[VerifierKey, ...]:
    """Return the verifier keys in a file, one a line; none where there is no file."""
    data = _read(path)
    lines = [] if data is None else data.decode(errors="replace").splitlines()
    if len(lines) > LINES_MAX:
        raise FormatError(f"{path} has more than {LINES_MAX} keys.", path=str(path))
    try:
        return tuple(note.decode_key(line) for line in lines if line.strip())
    except FormatError as error:
        raise FormatError(
            f"{path} has a line that is no verifier key: {error.message}",
            hint="Restore the file from a backup of the store, or from the keys that were given "
            "to those who verify (one a line, the present one last).",
            path=str(path),
        ) from error


def read_note(path: Path) -> Note | None:
    """Return the note in a file, None where there is none.

    Raises:
        FormatError: It is none.
    """
    data = _read(path)
    if data is None:
        return None
    try:
        return note.decode(data)
    except FormatError as error:
        raise FormatError(f"{path} is no signed head: {error.message}", path=str(path)) from error


def _read(path: Path) -> bytes | None:
    """Return a small file's bytes; one that is larger than any of ours is cut, and refused."""
    with operating_system_door("Cannot read"):
        try:
            with path.open("rb") as file:
                return file.read(4 * NOTE_BYTES_MAX)
        except (FileNotFoundError, NotADirectoryError):
            return None
