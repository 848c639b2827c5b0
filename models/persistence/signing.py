"""Door to the key: says whether a file is one of ours, before anything in it is believed.

Unpickling runs whatever the bytes say, so models and checkpoints are signed with HMAC-SHA256 under
a key that lives in the home and nowhere else. The seal knows nothing of what it signs.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
from pathlib import Path

from observability.core import atomic_file
from observability.core.errors import ThermodriftError

KEY_BYTES = 32
_OTHERS = 0o027


class KeyUnusable(ThermodriftError, OSError):
    """The key cannot be read or made, has the wrong size, or is open to others."""


class Tampered(ThermodriftError, ValueError):
    """Content whose signature is not ours: changed, damaged, or signed in another home."""


class Seal:
    """Signs bytes, and refuses bytes that it did not sign."""

    def __init__(self, key: bytes) -> None:
        if len(key) != KEY_BYTES:
            raise ValueError(f"a key has {KEY_BYTES} bytes; came: {len(key)}")
        self._key = key

    @classmethod
    def open(cls, key_file: Path) -> Seal:
        """The seal of `key_file`, which is made (0600, 32 random bytes) where there is none.

        Of processes that make it at the same moment exactly one wins, and all read its key.
        Raises KeyUnusable.
        """
        try:
            if not key_file.exists():
                _make(key_file)
            key, mode = key_file.read_bytes(), key_file.stat().st_mode
        except OSError as error:
            raise KeyUnusable(
                f"the key {key_file} cannot be read or made: {error}; models and checkpoints "
                f"cannot be trusted without it: {atomic_file.remedy(error)}, then run again"
            ) from error
        _refuse_unfit(key_file, key, mode)
        return cls(key)

    def sign(self, content: bytes) -> str:
        """The signature of `content`: HMAC-SHA256 in 64 hexadecimal digits."""
        return hmac.new(self._key, content, hashlib.sha256).hexdigest()

    def verify(self, content: bytes, signature: str, what: str) -> None:
        """Return if `signature` is ours for `content`; else raise Tampered, which names `what`."""
        if not hmac.compare_digest(self.sign(content).encode(), signature.encode()):
            raise Tampered(
                f"{what} is not what this home signed: it was changed or damaged, or comes from "
                f"another home; restore it from a backup together with the home's key, or train "
                f"it again here"
            )


def _make(key_file: Path) -> None:
    """Write a new key aside, then give it its name only if no other process was first."""
    key_file.parent.mkdir(parents=True, exist_ok=True)
    aside = key_file.with_name(f".{key_file.name}.{secrets.token_hex(8)}.tmp")
    handle = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(secrets.token_bytes(KEY_BYTES))
            file.flush()
            os.fsync(file.fileno())
        key_file.hardlink_to(aside)
    except FileExistsError:
        pass
    finally:
        aside.unlink(missing_ok=True)
    atomic_file.sync_folder(key_file.parent)


def _refuse_unfit(key_file: Path, key: bytes, mode: int) -> None:
    if len(key) != KEY_BYTES:
        raise KeyUnusable(
            f"the key {key_file} has {len(key)} bytes and must have {KEY_BYTES}: it is damaged; "
            f"restore it from a backup, or remove it and train anew what it signed"
        )
    if mode & _OTHERS:
        raise KeyUnusable(
            f"the key {key_file} is open to other users of this machine (mode {mode & 0o777:o}), "
            f"so its signatures prove nothing; run: chmod 600 {key_file}"
        )
