"""Signatures of packages: OpenSSF `model-signing` with an elliptic curve key, nothing else.

The signature lies in the package (`model.sig`, a Sigstore bundle) and covers every other file of
it, the manifest too. Keys are PEM files without a password: P-256, P-384 or P-521. No network is
asked: with a key of one's own there is neither identity provider nor transparency log.

    openssl ecparam -name prime256v1 -genkey -noout -out key.pem
    openssl ec -in key.pem -pubout -out key.pub.pem
"""

from __future__ import annotations

import sys
import tempfile
from contextlib import redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING

from export.errors import NotSigned, SignatureMismatch, SigningUnavailable, UnusableKey
from registry.artifact import SIGNATURE, STAGING_SUFFIX

if TYPE_CHECKING:
    from model_signing import hashing, signing, verifying


def sign_package(folder: Path, key: Path) -> None:
    """Write the signature of the sealed *folder*, in place of one that is there.

    Raises `UnusableKey`, `SigningUnavailable`.
    """
    signer = check_key(key).set_hashing_config(_all_but_the_signature())
    folder = folder.absolute()
    with tempfile.TemporaryDirectory(
        prefix=f".{folder.name}.", suffix=STAGING_SUFFIX, dir=folder.parent
    ) as beside:
        part = Path(beside) / SIGNATURE
        signer.sign(folder, part)
        part.chmod(0o644)
        part.replace(folder / SIGNATURE)


def verify_signature(folder: Path, public_key: Path) -> None:
    """Return when the holder of *public_key*'s private half signed exactly what *folder* holds.

    Raises `NotSigned`, `SignatureMismatch`, `UnusableKey`, `SigningUnavailable`.
    """
    if not (folder / SIGNATURE).is_file():
        raise NotSigned(f"{folder} is not signed (no {SIGNATURE}); export it with --sign-key.")
    verifier = _check_public_key(public_key).set_hashing_config(_all_but_the_signature())
    try:
        with redirect_stdout(sys.stderr):  # it prints what it thinks of old signatures
            verifier.verify(folder.absolute(), folder.absolute() / SIGNATURE)
    except Exception as error:  # a mangled signature fails at any step, each with its own class
        raise SignatureMismatch(
            f"{SIGNATURE} in {folder} does not fit: another key than that of {public_key} signed it,"
            " or something was changed since; do not use it, fetch it again."
        ) from error


def check_key(key: Path) -> signing.Config:
    """A signer with *key*, so that a wrong one is refused before long work.

    Raises `UnusableKey`, `SigningUnavailable`.
    """
    try:
        from model_signing import signing
    except ImportError as error:
        raise _unavailable(error) from error
    try:
        return signing.Config().use_elliptic_key_signer(private_key=key)
    except Exception as error:  # one class for each way in which a file is not this kind of key
        raise _unusable(key, "private", error) from error


def _check_public_key(key: Path) -> verifying.Config:
    try:
        from model_signing import verifying
    except ImportError as error:
        raise _unavailable(error) from error
    try:
        return verifying.Config().use_elliptic_key_verifier(public_key=key)
    except Exception as error:  # as above
        raise _unusable(key, "public", error) from error


def _all_but_the_signature() -> hashing.Config:
    """Every file is hashed; by default those that git owns would be left out."""
    from model_signing import hashing

    return hashing.Config().set_ignored_paths(paths=[SIGNATURE], ignore_git_paths=False)


def _unavailable(error: ImportError) -> SigningUnavailable:
    return SigningUnavailable(
        f"Signatures need model-signing, which cannot be imported here ({error});"
        " pip install 'miniml[signing]'."
    )


def _unusable(key: Path, half: str, error: Exception) -> UnusableKey:
    if isinstance(error, OSError):
        return UnusableKey(f"{key} cannot be read ({error.strerror}); name a PEM file.")
    return UnusableKey(
        f"{key} is no usable {half} key; it must be PEM, on the curve P-256, P-384 or P-521,"
        " and without a password."
    )
