"""A site that names a publisher's key serves what that key signed, and refuses anything else by the file's name."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("model_signing", reason="the extra pulmolink[signing] is not installed")

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from inference.manifest import PackageFault, PackageRefused
from inference.package import MANIFEST, SIGNATURE, copy_package, read_identity, read_manifest
from inference.predictor import Predictor
from inference.signature import sign, vouched_manifest
from pacs_node.cli import main

MakePackage = Callable[..., Path]


def key_pair(folder: Path, name: str) -> tuple[Path, Path]:
    """PEM files of a new private key and its public one."""
    key = ec.generate_private_key(ec.SECP256R1())
    private, public = folder / f"{name}.pem", folder / f"{name}.pub.pem"
    private.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    public.write_bytes(
        key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    )
    return private, public


@pytest.fixture
def keys(tmp_path: Path) -> tuple[Path, Path]:
    return key_pair(tmp_path, "publisher")


@pytest.fixture
def signed(make_package: MakePackage, keys: tuple[Path, Path]) -> Path:
    folder = make_package()
    sign(folder, keys[0])
    return folder


def refusal(folder: Path, public_key: Path) -> PackageRefused:
    with pytest.raises(PackageRefused) as caught:
        Predictor.load(folder, public_key=public_key)
    assert caught.value.fault is PackageFault.SIGNATURE
    return caught.value


def test_a_signed_package_loads_and_is_the_same_package(make_package: MakePackage, keys: tuple[Path, Path]) -> None:
    folder = make_package()
    before = read_identity(folder)
    sign(folder, keys[0])
    assert Predictor.load(folder, public_key=keys[1]).identity == before
    assert vouched_manifest(folder, keys[1]) == before.digest
    assert Predictor.load(folder).identity == before  # nobody has to ask


def test_an_unsigned_package_is_refused_where_a_key_is_named(
    make_package: MakePackage, keys: tuple[Path, Path]
) -> None:
    refused = refusal(make_package(), keys[1])
    assert (refused.file, refused.detail) == (SIGNATURE, "is missing: the package is not signed")


def test_a_package_that_somebody_else_signed_is_refused(signed: Path, tmp_path: Path) -> None:
    refused = refusal(signed, key_pair(tmp_path, "stranger")[1])
    assert (refused.file, "was not made by the key" in refused.detail) == (SIGNATURE, True)


def test_a_manifest_rewritten_with_fitting_digests_is_refused_by_name(signed: Path, keys: tuple[Path, Path]) -> None:
    """All that digests alone prove is that the files fit the manifest, which anybody can write."""
    forged = replace(read_manifest(signed), intended_use="any decision on a person's care")
    (signed / MANIFEST).write_bytes(forged.to_bytes())
    assert Predictor.load(signed).identity.name == "random-demo"
    refused = refusal(signed, keys[1])
    assert (refused.file, refused.detail) == (MANIFEST, "is not the file that was signed")


@pytest.mark.parametrize(
    "name",
    ["manifest.json", "model.safetensors", "calibration.safetensors", "MODEL_CARD.md", "golden/cases.json"],
)
def test_a_changed_a_missing_and_an_added_file_are_refused_by_name(
    signed: Path, keys: tuple[Path, Path], name: str
) -> None:
    sound = (signed / name).read_bytes()
    (signed / name).write_bytes(sound[:-1] + bytes([sound[-1] ^ 1]))
    with pytest.raises(PackageRefused) as caught:
        vouched_manifest(signed, keys[1])
    assert (caught.value.file, caught.value.detail) == (name, "is not the file that was signed")
    (signed / name).unlink()
    with pytest.raises(PackageRefused) as caught:
        vouched_manifest(signed, keys[1])
    assert (caught.value.file, caught.value.detail) == (name, "is missing and was signed")
    (signed / name).write_bytes(sound)
    (signed / "notes.txt").write_text("by hand")
    with pytest.raises(PackageRefused) as caught:
        vouched_manifest(signed, keys[1])
    assert (caught.value.file, caught.value.detail) == ("notes.txt", "was not there when the package was signed")


def test_a_flipped_byte_anywhere_in_the_signature_is_refused(signed: Path, keys: tuple[Path, Path]) -> None:
    path = signed / SIGNATURE
    sound = path.read_bytes()
    body = json.loads(sound)
    for part in ("payload", "signature"):
        spoilt = json.loads(sound)
        envelope = spoilt["dsseEnvelope"]
        holder = envelope if part == "payload" else envelope["signatures"][0]
        field = "payload" if part == "payload" else "sig"
        text = holder[field]
        holder[field] = text[:40] + ("A" if text[40] != "A" else "B") + text[41:]
        path.write_text(json.dumps(spoilt))
        assert refusal(signed, keys[1]).file == SIGNATURE
    for rubbish in (b"", b"{}", b"[]", b"\xff", b"[" * 100_000, sound[:-40]):
        path.write_bytes(rubbish)
        assert refusal(signed, keys[1]).file == SIGNATURE
    path.write_text(json.dumps(body))
    assert Predictor.load(signed, public_key=keys[1]).identity.name == "random-demo"


def test_a_copy_is_signed_too_and_one_signed_later_is_brought_up_to_date(
    make_package: MakePackage, keys: tuple[Path, Path], tmp_path: Path
) -> None:
    folder, installed = make_package(), tmp_path / "installed"
    assert copy_package(folder, installed, digest=read_identity(folder).digest)
    refusal(installed, keys[1])
    sign(folder, keys[0])
    assert not copy_package(folder, installed, digest=read_identity(folder).digest)
    assert Predictor.load(installed, public_key=keys[1]).identity == read_identity(folder)


def test_a_key_of_another_kind_cannot_sign(make_package: MakePackage, tmp_path: Path) -> None:
    path = tmp_path / "rsa.pem"
    path.write_bytes(
        rsa.generate_private_key(65537, 2048).private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    with pytest.raises(PackageRefused, match=r"rsa.pem: is no private key that can sign"):
        sign(make_package(), path)


def test_without_the_library_a_named_key_is_a_refusal_with_the_way_out(
    signed: Path, keys: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "model_signing", None)
    monkeypatch.delitem(sys.modules, "model_signing.verifying", raising=False)
    assert refusal(signed, keys[1]).hint == "pip install 'pulmolink[signing]'"


def test_openssls_keys_and_the_librarys_own_command_line_agree_with_ours(signed: Path, keys: tuple[Path, Path]) -> None:
    """Anybody may check a package without pulmolink."""
    done = subprocess.run(
        [sys.executable, "-m", "model_signing", "verify", "key", str(signed), "--signature", str(signed / SIGNATURE),
         "--public_key", str(keys[1]), "--ignore-paths", str(signed / SIGNATURE)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "Verification succeeded" in done.stdout + done.stderr


def test_the_commands_sign_install_and_verify(
    make_package: MakePackage,
    keys: tuple[Path, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = make_package()
    monkeypatch.setenv("PULMOLINK_MODEL_FOLDER", str(tmp_path / "models"))
    monkeypatch.setenv("PULMOLINK_MODEL_PUBLIC_KEY", str(keys[1]))

    def call(*arguments: str) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["pulmolink", "model", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        said = capsys.readouterr()
        return int(ended.value.code or 0), said.out + said.err

    assert call("install", str(folder)) == (
        1,
        "pulmolink: model.sig: is missing: the package is not signed (sign it with `pulmolink model sign`, or leave "
        "model.public_key out)\n",
    )
    assert not (tmp_path / "models").exists()
    assert call("sign", str(folder), "--key", str(keys[0]))[0] == 0
    assert call("install", str(folder))[0] == 0
    status, said = call("verify", "random-demo-0.1.0")
    assert (status, f"signed by the key in {keys[1]}" in said) == (0, True)
    stranger = key_pair(tmp_path, "stranger")[1]
    status, said = call("verify", "random-demo-0.1.0", "--public-key", str(stranger))
    assert (status, "was not made by the key" in said) == (1, True)
