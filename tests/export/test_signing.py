"""Signatures: whose they are, what they cover, and that nothing else is asked."""

from __future__ import annotations

import socket
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from export import ExportOptions, export_package
from export.errors import NotSigned, SignatureMismatch, SigningUnavailable, UnusableKey
from export.signing import check_key, sign_package, verify_signature
from registry.artifact import MANIFEST, SIGNATURE, seal, staged, verify
from registry.produce import copy_sealed

PrivateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey
Keys = tuple[Path, Path]
# What git owns is left out by the library's default; here nothing is.
FILES = {"model.onnx": b"weights" * 1000, "config.json": b"{}", ".gitattributes": b"* text"}


def write_keys(folder: Path, key: PrivateKey, *, password: bytes | None = None) -> Keys:
    """Both halves of *key* as PEM files: private, public."""
    folder.mkdir()
    encryption = (
        serialization.BestAvailableEncryption(password)
        if password
        else serialization.NoEncryption()
    )
    private, public = folder / "key.pem", folder / "key.pub.pem"
    private.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption)
    )
    public.write_bytes(
        key.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
    )
    return private, public


@pytest.fixture
def keys(tmp_path: Path) -> Keys:
    """A signer's keys."""
    return write_keys(tmp_path / "keys", ec.generate_private_key(ec.SECP256R1()))


@pytest.fixture
def sealed(tmp_path: Path) -> Path:
    """A sealed folder, as far as a signature looks."""
    with staged(tmp_path / "tiny", kind="package", lineage={"checkpoint": "tiny/1"}) as folder:
        for name, data in FILES.items():
            (folder / name).write_bytes(data)
    return tmp_path / "tiny"


@pytest.mark.parametrize("curve", [ec.SECP256R1(), ec.SECP384R1(), ec.SECP521R1()])
def test_a_signature_verifies_and_leaves_the_digest(
    sealed: Path, tmp_path: Path, curve: ec.EllipticCurve
) -> None:
    """What was signed verifies with the other half of the key; the digest is the unsigned one's."""
    private, public = write_keys(tmp_path / "other", ec.generate_private_key(curve))
    unsigned = verify(sealed)
    sign_package(sealed, private)

    verify_signature(sealed, public)
    assert verify(sealed) == unsigned
    assert sorted(path.name for path in tmp_path.iterdir()) == ["other", "tiny"]


def test_signing_again_replaces(sealed: Path, keys: Keys, tmp_path: Path) -> None:
    """A second signature takes the first one's place, whoever made it."""
    others = write_keys(tmp_path / "others", ec.generate_private_key(ec.SECP256R1()))
    sign_package(sealed, keys[0])
    first = (sealed / SIGNATURE).read_bytes()
    sign_package(sealed, others[0])

    verify_signature(sealed, others[1])
    assert (sealed / SIGNATURE).read_bytes() != first


def test_a_signature_survives_a_copy(sealed: Path, keys: Keys, tmp_path: Path) -> None:
    """Neither place nor name of the folder is signed, and a copy is as good as the original."""
    sign_package(sealed, keys[0])
    copy_sealed(sealed, tmp_path / "elsewhere" / "other-name")

    verify_signature(tmp_path / "elsewhere" / "other-name", keys[1])


@pytest.mark.parametrize("name", [*FILES, MANIFEST])
def test_a_flipped_byte_in_any_file_is_refused(sealed: Path, keys: Keys, name: str) -> None:
    """Every file is signed, what git owns and the manifest too."""
    sign_package(sealed, keys[0])
    damaged = bytearray((sealed / name).read_bytes())
    damaged[len(damaged) // 2] ^= 1
    (sealed / name).write_bytes(damaged)

    with pytest.raises(SignatureMismatch, match="something was changed"):
        verify_signature(sealed, keys[1])


def test_another_package_under_the_same_signature_is_refused(sealed: Path, keys: Keys) -> None:
    """Whoever changes a file and seals again has a whole package, but not a signed one."""
    sign_package(sealed, keys[0])
    (sealed / "config.json").write_bytes(b"[]")
    seal(sealed, kind="package", lineage={"checkpoint": "tiny/1"})

    verify(sealed)
    with pytest.raises(SignatureMismatch):
        verify_signature(sealed, keys[1])


@pytest.mark.parametrize(
    "change", [lambda folder: (folder / "extra").write_text(""), lambda f: (f / MANIFEST).unlink()]
)
def test_more_or_less_than_signed_is_refused(
    sealed: Path, keys: Keys, change: Callable[[Path], object]
) -> None:
    """A file that came or went since is seen by the signature alone."""
    sign_package(sealed, keys[0])
    change(sealed)

    with pytest.raises(SignatureMismatch):
        verify_signature(sealed, keys[1])


def test_another_key_is_refused(sealed: Path, keys: Keys, tmp_path: Path) -> None:
    """A good signature of somebody else is none."""
    others = write_keys(tmp_path / "others", ec.generate_private_key(ec.SECP256R1()))
    sign_package(sealed, others[0])

    with pytest.raises(SignatureMismatch, match="another key"):
        verify_signature(sealed, keys[1])


@pytest.mark.parametrize("mangled", [b"", b"{}", b"\xff\xfe", b"[]", b"null"])
def test_a_mangled_signature_is_refused(sealed: Path, keys: Keys, mangled: bytes) -> None:
    """Whatever lies in its place, the answer is one sentence."""
    (sealed / SIGNATURE).write_bytes(mangled)

    with pytest.raises(SignatureMismatch):
        verify_signature(sealed, keys[1])


def test_a_borrowed_hint_does_not_help(sealed: Path, keys: Keys, tmp_path: Path) -> None:
    """A stranger's signature that names the right key is still a stranger's."""
    others = write_keys(tmp_path / "others", ec.generate_private_key(ec.SECP256R1()))
    hints = []
    for private, _ in (keys, others):
        sign_package(sealed, private)
        hints.append((sealed / SIGNATURE).read_text().split('"hint":')[1].split('"')[1])
    forged = (sealed / SIGNATURE).read_text().replace(hints[1], hints[0])
    (sealed / SIGNATURE).write_text(forged)

    assert hints[0] in forged
    with pytest.raises(SignatureMismatch):
        verify_signature(sealed, keys[1])


def test_no_signature_is_refused(sealed: Path, keys: Keys) -> None:
    """An unsigned package is told apart from a wrongly signed one."""
    with pytest.raises(NotSigned, match="not signed"):
        verify_signature(sealed, keys[1])


def test_unusable_keys_are_refused(sealed: Path, keys: Keys, tmp_path: Path) -> None:
    """Missing, a folder, no PEM, RSA, another curve, locked, or the wrong half: one sentence."""
    rsa_key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    strangers = [
        write_keys(tmp_path / "rsa", rsa_key),
        write_keys(tmp_path / "curve", ec.generate_private_key(ec.SECP256K1())),
        (tmp_path / "missing.pem", tmp_path / "missing.pem"),
        (tmp_path, tmp_path),
        (sealed / "model.onnx", sealed / "model.onnx"),
        (keys[1], keys[0]),
    ]
    locked = ec.generate_private_key(ec.SECP256R1())
    strangers.append((write_keys(tmp_path / "locked", locked, password=b"x")[0], keys[0]))
    sign_package(sealed, keys[0])

    for private, public in strangers:
        with pytest.raises(UnusableKey, match=private.name):
            sign_package(sealed, private)
        with pytest.raises(UnusableKey, match=public.name):
            verify_signature(sealed, public)
    verify_signature(sealed, keys[1])


def test_no_library_is_said(sealed: Path, keys: Keys, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the extra the way to it is told, signing and verifying."""
    (sealed / SIGNATURE).write_text("{}")
    monkeypatch.setitem(sys.modules, "model_signing", None)

    with pytest.raises(SigningUnavailable, match=r"pip install 'miniml\[signing\]'"):
        check_key(keys[0])
    with pytest.raises(SigningUnavailable, match=r"pip install 'miniml\[signing\]'"):
        verify_signature(sealed, keys[1])


def test_the_network_is_never_asked(
    sealed: Path, keys: Keys, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a key of one's own no connection is opened and no name looked up."""

    def refuse(*_: object) -> None:
        raise AssertionError("the network was asked")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    sign_package(sealed, keys[0])

    verify_signature(sealed, keys[1])


def test_an_export_is_signed_when_asked(
    bert: Path, miniml_home: Path, tmp_path: Path, keys: Keys
) -> None:
    """The package carries its signature wherever it goes, and has the digest of an unsigned one."""
    private, public = keys
    output = tmp_path / "signed"

    made = export_package(
        ExportOptions(checkpoint=str(bert), candidates=("fp32",), sign_key=private, output=output)
    )

    assert made.folder.is_relative_to(miniml_home)
    for folder in (output, made.folder):
        verify_signature(folder, public)
        assert verify(folder).digest == made.version.digest
