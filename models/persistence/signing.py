"""Signed files: verifies that this home wrote a file before its content is used.

Unpickling can run any code, so models and checkpoints are signed with HMAC-SHA256, with a key that
exists in the home only. A signed file is a JSON object, its header, and after that line the
payload, if it has one. The header has the file's format, such as "checkpoint 3", and the signature
of the rest of the header and the payload. This module does not depend on what it signs.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from observability.core import atomic_file
from observability.core.errors import ThermodriftError

KEY_BYTES = 32
_GROUP_AND_OTHERS = 0o027


class KeyUnusable(ThermodriftError, OSError):
    """The key cannot be read or created, has the wrong size, or other users may read it."""


class SignatureMismatch(ThermodriftError, ValueError):
    """The signature is wrong: the content was changed, damaged, or signed in another home."""


class Damaged(SignatureMismatch):
    """The content is no signed file; the message is the reason only."""


class OtherFormat(ThermodriftError, ValueError):
    """Another version of thermodrift wrote the file."""


class SignedFile(NamedTuple):
    """The content of a signed file."""

    header: dict[str, Any]
    payload: bytes


def header(text: bytes, form: str, what: str) -> dict[str, Any]:
    """The header of a file of the format `form`; its signature is not verified.

    `what` names the file in messages. Raises Damaged, OtherFormat.
    """
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise Damaged("its first line is not JSON") from error
    if not isinstance(found, dict):
        raise Damaged("its first line is no JSON object")
    kind, _, number = form.rpartition(" ")
    # Before format 2, a checkpoint had a bare number here, and a manifest had a `hmac_sha256`.
    named = found.get("format", f"{kind} 1" if "hmac_sha256" in found else None)
    named = f"{kind} {named}" if isinstance(named, int) else named
    if not isinstance(named, str) or named.rpartition(" ")[0] != kind:
        raise Damaged(f"its first line does not say that it is a {kind}")
    if named != form:
        theirs = named.removeprefix(f"{kind} ")
        version = "an earlier" if theirs.isdecimal() and int(theirs) < int(number) else "another"
        raise OtherFormat(
            f"{what} was written by {version} version of thermodrift: it has the format {named!r}, "
            f"and this version reads {form!r}. Go on with the version that wrote it, or remove the "
            "pipeline's folder to learn from the start"
        )
    return found


class SigningKey:
    """Signs bytes, and verifies signatures."""

    def __init__(self, key: bytes) -> None:
        if len(key) != KEY_BYTES:
            raise ValueError(f"a key has {KEY_BYTES} bytes; came: {len(key)}")
        self._key = key

    @classmethod
    def open(cls, key_file: Path) -> SigningKey:
        """The key in `key_file`, which is created (0600, 32 random bytes) if it does not exist.

        If several processes create it at once, exactly one wins, and all read its key.
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
        if len(key) != KEY_BYTES:
            raise KeyUnusable(
                f"the key {key_file} has {len(key)} bytes and must have {KEY_BYTES}: it is "
                "damaged; restore it from a backup, or remove it and train anew what it signed"
            )
        if mode & _GROUP_AND_OTHERS:
            raise KeyUnusable(
                f"the key {key_file} is open to other users of this machine (mode "
                f"{mode & 0o777:o}), so its signatures prove nothing; run: chmod 600 {key_file}"
            )
        return cls(key)

    def sign(self, content: bytes) -> str:
        """The signature of `content`: HMAC-SHA256 in 64 hexadecimal digits."""
        return hmac.new(self._key, content, hashlib.sha256).hexdigest()

    def verify(self, content: bytes, signature: str, what: str) -> None:
        """Raise SignatureMismatch, which names `what`, unless `signature` is that of `content`."""
        if not hmac.compare_digest(self.sign(content).encode(), signature.encode()):
            raise SignatureMismatch(
                f"{what} is not what this home signed: it was changed or damaged, or comes from "
                f"another home; restore it from a backup together with the home's key, or train "
                f"it again here"
            )

    def pack(self, form: str, header: Mapping[str, object], payload: bytes | None = None) -> bytes:
        """A signed file of the format `form`. Without a payload its header is indented."""
        head: dict[str, object] = {"format": form, **header}
        head["signature"] = self.sign(_signed(head, payload or b""))
        if payload is None:
            return json.dumps(head, indent=1).encode()
        return json.dumps(head).encode() + b"\n" + payload

    def unpack(self, form: str, content: bytes, what: str, *, payload: bool = True) -> SignedFile:
        """Verify and read a signed file that `pack` made, with a payload or without one.

        The layout of the header does not matter, only its values. `what` names the file in
        messages. Raises Damaged, OtherFormat, SignatureMismatch.
        """
        text, _, body = content.partition(b"\n") if payload else (content, b"", b"")
        head = header(text, form, what)
        signature = head.pop("signature", None)
        if not isinstance(signature, str) or not signature.isascii():
            raise Damaged("it has no signature")
        self.verify(_signed(head, body), signature, what)
        return SignedFile(head, body)


def _signed(head: Mapping[str, object], payload: bytes) -> bytes:
    """The signed bytes, which are the same for every layout of the header."""
    return json.dumps(head, sort_keys=True, separators=(",", ":")).encode() + b"\n" + payload


def _make(key_file: Path) -> None:
    """Write a new key to a temporary file, and link it to its name unless another process did."""
    key_file.parent.mkdir(parents=True, exist_ok=True)
    temporary = key_file.with_name(f".{key_file.name}.{secrets.token_hex(8)}.tmp")
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(secrets.token_bytes(KEY_BYTES))
            file.flush()
            os.fsync(file.fileno())
        key_file.hardlink_to(temporary)
    except FileExistsError:
        pass
    finally:
        temporary.unlink(missing_ok=True)
    atomic_file.sync_folder(key_file.parent)
