"""The key is made once, kept private, and signs nothing that it would not know again."""

from __future__ import annotations

import hashlib
import hmac
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.persistence import signing
from models.persistence.signing import (
    Damaged,
    KeyUnusable,
    OtherFormat,
    SignatureMismatch,
    SigningKey,
)

KEY = bytes(range(32))


def test_the_first_opening_makes_a_private_key(tmp_path: Path) -> None:
    """32 bytes that only this user may read; the home is made if need be; nothing is left over."""
    file = tmp_path / "home" / "key"
    SigningKey.open(file)
    assert 32 == len(file.read_bytes())
    assert 0o600 == file.stat().st_mode & 0o777
    assert [file] == list(file.parent.iterdir())


def test_keys_differ(tmp_path: Path) -> None:
    """Each home has a key of its own."""
    signatures = {SigningKey.open(tmp_path / name).sign(b"content") for name in ("a", "b")}
    assert 2 == len(signatures)


def test_a_later_opening_reads_the_same_key(tmp_path: Path) -> None:
    """What one process signs, the next one verifies."""
    signature = SigningKey.open(tmp_path / "key").sign(b"content")
    SigningKey.open(tmp_path / "key").verify(b"content", signature, "it")


def test_a_signature_is_hmac_sha256() -> None:
    """The algorithm is the standard's, so that it can be checked with other tools."""
    expected = hmac.new(KEY, b"content", hashlib.sha256).hexdigest()
    assert expected == SigningKey(KEY).sign(b"content")


@given(content=st.binary(max_size=50), other=st.binary(max_size=50))
def test_a_signature_fits_its_own_content_alone(content: bytes, other: bytes) -> None:
    """Any other content is refused, whatever it is."""
    ours = SigningKey(KEY)
    signature = ours.sign(content)
    ours.verify(content, signature, "it")
    if other != content:
        with pytest.raises(SignatureMismatch, match="it is not what this home signed"):
            ours.verify(other, signature, "it")


@pytest.mark.parametrize("signature", ["", "0" * 64, "é" * 64])
def test_no_other_signature_is_taken(signature: str) -> None:
    """Nor does text that is no signature at all break the check."""
    with pytest.raises(SignatureMismatch, match=r"the model v7.*another home"):
        SigningKey(KEY).verify(b"content", signature, "the model v7")


HEADER = {"name": "größte", "share": 0.1, "none": None}


@given(payload=st.none() | st.binary(max_size=50))
def test_what_is_packed_is_unpacked(payload: bytes | None) -> None:
    """The header and the payload come back, whatever bytes are in it."""
    content = SigningKey(KEY).pack("thing 1", HEADER, payload)
    found = SigningKey(KEY).unpack("thing 1", content, "it", payload=payload is not None)
    assert ({"format": "thing 1", **HEADER}, payload or b"") == found
    line = content if payload is None else content.partition(b"\n")[0]
    assert HEADER.items() <= signing.header(line, "thing 1", "it").items()


@pytest.mark.parametrize(
    ("form", "error"), [("thing 1", OtherFormat), ("thing 3", OtherFormat), ("other 2", Damaged)]
)
def test_a_file_of_another_format_is_told_from_a_damaged_one(
    form: str, error: type[Exception]
) -> None:
    """Another number is another version of thermodrift; another kind is no such file."""
    content = SigningKey(KEY).pack(form, HEADER, b"payload")
    with pytest.raises(error):
        SigningKey(KEY).unpack("thing 2", content, "it")


def test_another_homes_signature_is_refused() -> None:
    """A file copied from another home is not one of ours."""
    with pytest.raises(SignatureMismatch):
        SigningKey(KEY).verify(b"content", SigningKey(bytes(32)).sign(b"content"), "it")


@pytest.mark.parametrize("size", [0, 31, 33])
def test_a_damaged_key_is_refused(tmp_path: Path, size: int) -> None:
    """A key of another size would sign, and be worth nothing."""
    (tmp_path / "key").write_bytes(bytes(size))
    (tmp_path / "key").chmod(0o600)
    with pytest.raises(KeyUnusable, match=f"has {size} bytes and must have 32"):
        SigningKey.open(tmp_path / "key")
    with pytest.raises(ValueError, match="32 bytes"):
        SigningKey(bytes(size))


@pytest.mark.parametrize(("mode", "refused"), [(0o600, 0), (0o640, 0), (0o604, 1), (0o602, 1)])
def test_a_key_that_every_user_may_touch_is_refused(
    tmp_path: Path, mode: int, refused: bool
) -> None:
    """Who can read the key can forge a model; a group, as of mounted secrets, is trusted."""
    (tmp_path / "key").write_bytes(KEY)
    (tmp_path / "key").chmod(mode)
    if refused:
        with pytest.raises(KeyUnusable, match="chmod 600"):
            SigningKey.open(tmp_path / "key")
    else:
        SigningKey.open(tmp_path / "key").verify(b"content", SigningKey(KEY).sign(b"content"), "it")


def test_a_key_that_cannot_be_read_is_said_so(tmp_path: Path) -> None:
    """The cause is kept, and the message names the file."""
    (tmp_path / "key").mkdir()
    with pytest.raises(KeyUnusable, match="cannot be read or made") as caught:
        SigningKey.open(tmp_path / "key")
    assert isinstance(caught.value.__cause__, OSError)


def test_who_comes_second_takes_the_first_ones_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process makes the key between our look and our making: its key stands."""
    file = tmp_path / "key"
    make = signing._make

    def make_late(key_file: Path) -> None:
        file.write_bytes(KEY)
        file.chmod(0o600)
        make(key_file)

    monkeypatch.setattr(signing, "_make", make_late)
    SigningKey.open(file).verify(b"content", SigningKey(KEY).sign(b"content"), "it")
    assert [file] == list(tmp_path.iterdir())


def test_processes_that_make_the_key_at_once_all_have_one_key(tmp_path: Path) -> None:
    """Exactly one wins, whoever it is."""
    code = (
        "import sys; from pathlib import Path; from models.persistence.signing import SigningKey; "
        "sys.stdin.readline(); print(SigningKey.open(Path(sys.argv[1])).sign(b'content'))"
    )
    racers = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(tmp_path / "key")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(4)
    ]
    for racer in racers:
        assert racer.stdin is not None
        racer.stdin.write("\n")
        racer.stdin.flush()
    signatures = {racer.communicate()[0] for racer in racers}
    assert 1 == len(signatures)
    assert 65 == len(signatures.pop())
