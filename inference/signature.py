"""OpenSSF Model Signing: who vouches for a package. A signature over the digest of every file of its folder.

Written and checked by the library `model-signing` (the extra `pulmolink[signing]`), as its own command line does, with
an elliptic-curve key in a file: no network and no account. The signature lies in the package's folder and is no part
of the package, so that signing changes no digest and a copy of the folder is signed too.
"""

from __future__ import annotations

import base64
import contextlib
import io
import json
import tempfile
from pathlib import Path
from typing import Any

from inference.manifest import PackageFault, PackageRefused
from inference.package import MANIFEST, SIGNATURE

MAXIMUM_SIGNATURE_BYTES = 1 << 20
_EXTRA = "pip install 'pulmolink[signing]'"


def sign(folder: Path, private_key: Path, *, password: str | None = None) -> Path:
    """Sign a sound package with the key in a PEM file (P-256, P-384 or P-521); the signature's file.

    Raises
    ------
    PackageRefused
        If the library is absent or the key is of no use.
    """
    signing = _library("signing")
    try:
        signer = signing.Config().use_elliptic_key_signer(private_key=private_key, password=password)
    except (OSError, ValueError, TypeError, AttributeError) as error:  # the last of RSA keys
        raise PackageRefused(
            PackageFault.SIGNATURE,
            private_key.name,
            f"is no private key that can sign ({type(error).__name__})",
            "openssl ecparam -name prime256v1 -genkey -noout -out FILE",
        ) from error
    path = folder / SIGNATURE
    path.unlink(missing_ok=True)
    signer.set_hashing_config(_files_but(path)).sign(folder, path)
    return path


def vouched_manifest(folder: Path, public_key: Path) -> str:
    """The sha256 of the manifest that the package's signature vouches for.

    The manifest names every other file with its digest, so whoever loads the package with this manifest has what was
    signed, whatever happens to the folder in between.

    Raises
    ------
    PackageRefused
        If the package is not signed, by another key, or a file is not the one that was signed; it names the file.
    """
    verifying = _library("verifying")
    path = folder / SIGNATURE
    try:
        with path.open("rb") as file:
            content = file.read(MAXIMUM_SIGNATURE_BYTES + 1)
    except FileNotFoundError:
        raise PackageRefused(
            PackageFault.SIGNATURE,
            SIGNATURE,
            "is missing: the package is not signed",
            "sign it with `pulmolink model sign`, or leave model.public_key out",
        ) from None
    except OSError as error:
        raise PackageRefused(PackageFault.SIGNATURE, SIGNATURE, f"cannot be read ({error.strerror})") from error
    if len(content) > MAXIMUM_SIGNATURE_BYTES:
        raise PackageRefused(PackageFault.SIGNATURE, SIGNATURE, "is too large for a signature")
    try:
        verifier = verifying.Config().use_elliptic_key_verifier(public_key=public_key)
    except (OSError, ValueError, TypeError) as error:
        raise PackageRefused(
            PackageFault.SIGNATURE,
            public_key.name,
            f"is no public key ({type(error).__name__})",
            "see model.public_key",
        ) from error
    with tempfile.TemporaryDirectory() as private, contextlib.redirect_stdout(io.StringIO()):
        # What is checked is what was read: the file in the folder may change meanwhile.
        copy = Path(private) / SIGNATURE
        copy.write_bytes(content)
        try:
            verifier.set_hashing_config(_files_but(path)).verify(folder, copy)
        except Exception as error:
            raise _wrong(folder, content) from error
    return _signed_files(content)[MANIFEST]


def _wrong(folder: Path, content: bytes) -> PackageRefused:
    """Name the file that is not the signed one, or the signature itself."""
    import hashlib

    try:
        signed = _signed_files(content)
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        return PackageRefused(PackageFault.SIGNATURE, SIGNATURE, f"is malformed ({type(error).__name__})")
    present = {
        path.relative_to(folder).as_posix(): path
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path != folder / SIGNATURE
    }
    for name in sorted(signed.keys() | present.keys()):
        if name not in present:
            return PackageRefused(PackageFault.SIGNATURE, name, "is missing and was signed", "install again")
        if name not in signed:
            return PackageRefused(PackageFault.SIGNATURE, name, "was not there when the package was signed")
        with present[name].open("rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() != signed[name]:
                return PackageRefused(PackageFault.SIGNATURE, name, "is not the file that was signed", "install again")
    return PackageRefused(
        PackageFault.SIGNATURE, SIGNATURE, "was not made by the key that this site trusts", "ask who made the package"
    )


def _signed_files(content: bytes) -> dict[str, str]:
    """The sha256 of each file as the signature lists them (OpenSSF Model Signing v1.0: an in-toto statement)."""
    statement = json.loads(base64.b64decode(json.loads(content)["dsseEnvelope"]["payload"]))
    resources = statement["predicate"]["resources"]
    if any(one["algorithm"] != "sha256" for one in resources):
        raise ValueError("only sha256 is read")
    return {str(one["name"]): str(one["digest"]) for one in resources}


def _files_but(signature: Path) -> Any:
    """Every file of the folder by its sha256, but for the signature."""
    hashing = _library("hashing")
    return hashing.Config().use_file_serialization(hashing_algorithm="sha256").set_ignored_paths(paths=[signature])


def _library(part: str) -> Any:
    """A module of `model_signing`, which only those who sign or check need."""
    import importlib

    try:
        return importlib.import_module(f"model_signing.{part}")
    except ModuleNotFoundError as error:
        raise PackageRefused(
            PackageFault.SIGNATURE, SIGNATURE, f"cannot be checked or made: {error.name} is not installed", _EXTRA
        ) from error
