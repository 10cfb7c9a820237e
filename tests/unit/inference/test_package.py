"""A model package is used whole and unchanged, or refused with the file's name."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from inference.manifest import PackageFault, PackageRefused, parse_manifest
from inference.package import GOLDEN, MANIFEST, copy_package, locate, read_identity, read_manifest, read_package
from inference.predictor import Predictor
from inference.radiograph import read_radiograph

MakePackage = Callable[..., Path]


def refusal(folder: Path) -> PackageRefused:
    with pytest.raises(PackageRefused) as caught:
        Predictor.load(folder)
    return caught.value


def test_a_sound_package_loads_and_says_who_it_is(make_package: MakePackage) -> None:
    folder = make_package()
    predictor = Predictor.load(folder, threads=2)
    assert predictor.identity == read_identity(folder)
    assert predictor.identity.name == "random-demo"
    assert predictor.identity.kind == "synthetic-demo"
    assert len(predictor.identity.digest) == 64
    assert predictor.ecg_style["seconds_per_lead"] == 2.5


@pytest.mark.parametrize(
    "name",
    ["manifest.json", "model.safetensors", "calibration.safetensors", "MODEL_CARD.md", "golden/cases.json",
     "golden/noise-ecg.png", "golden/noise-radiograph.png"],
)  # fmt: skip
def test_one_flipped_byte_in_any_file_is_refused_by_name(make_package: MakePackage, name: str) -> None:
    folder = make_package()
    path = folder / name
    sound = path.read_bytes()
    # Seeded places over the whole file, its first and last byte among them.
    places = {0, len(sound) - 1, *np.random.default_rng(9).integers(0, len(sound), 6).tolist()}
    for place in places:
        spoilt = bytearray(sound)
        spoilt[place] ^= 0x01
        path.write_bytes(bytes(spoilt))
        with pytest.raises(PackageRefused) as caught:
            read_package(folder)
        assert caught.value.file == name
        assert name in str(caught.value)
    path.write_bytes(sound)
    assert Predictor.load(folder).identity.name == "random-demo"


SHIPPED_FILES = sorted(
    path.relative_to(locate("synthetic-demo")).as_posix()
    for path in locate("synthetic-demo").rglob("*")
    if path.is_file()
)


@pytest.fixture(scope="module")
def shipped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the shipped package that tests may spoil, if they mend it."""
    folder = tmp_path_factory.mktemp("shipped") / "synthetic-demo"
    shutil.copytree(locate("synthetic-demo"), folder)
    return folder


@pytest.mark.parametrize("name", SHIPPED_FILES)
def test_one_flipped_bit_in_any_file_of_the_shipped_package_is_refused_by_name(shipped: Path, name: str) -> None:
    path = shipped / name
    sound = path.read_bytes()
    for place in (0, len(sound) // 3, len(sound) - 1):
        for bit in (0, 7):
            path.write_bytes(sound[:place] + bytes([sound[place] ^ 1 << bit]) + sound[place + 1 :])
            with pytest.raises(PackageRefused) as caught:
                read_package(shipped)
            assert caught.value.file == name
    path.write_bytes(sound)
    read_package(shipped)


@pytest.mark.parametrize("case", [0, 1])
@pytest.mark.parametrize("error_mmhg", [-0.1, 0.1])
def test_a_golden_case_of_the_shipped_package_off_by_a_tenth_is_refused(
    shipped: Path, tmp_path: Path, case: int, error_mmhg: float
) -> None:
    """The digests fit: somebody wrote the package so, or this machine computes something else."""
    folder = tmp_path / "package"
    shutil.copytree(shipped, folder)
    cases = json.loads((folder / GOLDEN).read_bytes())
    cases[case]["patch_mpap_mmhg"][4] += error_mmhg
    (folder / GOLDEN).write_text(json.dumps(cases), encoding="utf-8")
    manifest = read_manifest(folder)
    files = {**manifest.files, GOLDEN: hashlib.sha256((folder / GOLDEN).read_bytes()).hexdigest()}
    (folder / MANIFEST).write_bytes(dataclasses.replace(manifest, files=files).to_bytes())
    refused = refusal(folder)
    assert (refused.fault, refused.file) == (PackageFault.GOLDEN, GOLDEN)
    assert f"case {cases[case]['name']} differs by 0.1" in refused.detail


def test_a_golden_case_off_by_a_tenth_is_refused(make_package: MakePackage) -> None:
    refused = refusal(make_package(golden_error_mmhg=0.1))
    assert refused.fault is PackageFault.GOLDEN
    assert "0.100 mmHg" in refused.detail


def test_a_golden_case_off_by_a_hundredth_is_accepted(make_package: MakePackage) -> None:
    Predictor.load(make_package(golden_error_mmhg=0.01))


def test_a_missing_file_is_refused(make_package: MakePackage) -> None:
    folder = make_package()
    (folder / "calibration.safetensors").unlink()
    refused = refusal(folder)
    assert (refused.fault, refused.file) == (PackageFault.MISSING_FILE, "calibration.safetensors")


def test_a_file_nobody_named_is_refused(make_package: MakePackage) -> None:
    folder = make_package()
    (folder / "golden" / "notes.txt").write_text("by hand")
    refused = refusal(folder)
    assert (refused.fault, refused.file) == (PackageFault.UNEXPECTED_FILE, "golden/notes.txt")


def test_a_link_is_refused(make_package: MakePackage) -> None:
    folder = make_package()
    (folder / "MODEL_CARD.md").rename(folder.parent / "card.md")
    (folder / "MODEL_CARD.md").symlink_to(folder.parent / "card.md")
    assert refusal(folder).file == "MODEL_CARD.md"


@pytest.mark.parametrize("name", ["model.pt", "weights.PKL", "golden/case.npy"])
def test_pickles_are_refused_unopened(make_package: MakePackage, name: str) -> None:
    folder = make_package()
    (folder / name).write_bytes(b"\x80\x04cos\nsystem\n(S'touch owned'\ntR.")
    assert refusal(folder).fault is PackageFault.PICKLE


@pytest.mark.parametrize("name", ["../model.safetensors", "/etc/passwd", "golden/../x", "a\\b", "", ".hidden", "x/"])
def test_a_manifest_that_names_files_elsewhere_is_refused(make_package: MakePackage, name: str) -> None:
    body = json.loads((make_package() / MANIFEST).read_bytes())
    body["files"][name] = "0" * 64
    with pytest.raises(PackageRefused, match="is no file's name inside a package"):
        parse_manifest(json.dumps(body).encode())


def test_a_pipe_among_the_files_is_refused_and_not_waited_for(make_package: MakePackage) -> None:
    folder = make_package()
    (folder / "MODEL_CARD.md").unlink()
    os.mkfifo(folder / "MODEL_CARD.md")
    refused = refusal(folder)
    assert (refused.fault, refused.file) == (PackageFault.UNEXPECTED_FILE, "MODEL_CARD.md")


def test_a_file_beyond_the_bound_is_not_read(make_package: MakePackage, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = make_package()
    monkeypatch.setattr("inference.package._MAXIMUM_FILE_BYTES", 1000)
    refused = refusal(folder)
    assert refused.file == "calibration.safetensors"
    assert "more than 1000" in refused.detail


def test_only_the_package_that_was_verified_is_copied(make_package: MakePackage, tmp_path: Path) -> None:
    """Guards: golden cases and signature are checked of one package, and another stands there when it is copied."""
    source, folder = make_package(), tmp_path / "installed"
    with pytest.raises(PackageRefused, match="changed after the package was verified"):
        copy_package(source, folder, digest="0" * 64)
    (source / "MODEL_CARD.md").write_text("another card")
    with pytest.raises(PackageRefused, match=r"MODEL_CARD\.md"):
        copy_package(source, folder, digest=read_identity(source).digest)
    assert not folder.exists()
    assert not folder.with_name("installed.new").exists()
    sound = make_package()
    assert copy_package(sound, folder, digest=read_identity(sound).digest)
    assert not copy_package(sound, folder, digest=read_identity(sound).digest)


def with_schema(folder: Path, schema: int) -> Path:
    body = json.loads((folder / "manifest.json").read_bytes())
    body["schema"] = schema
    (folder / "manifest.json").write_text(json.dumps(body))
    return folder


def test_an_older_schema_is_refused_with_the_way_out(make_package: MakePackage) -> None:
    refused = refusal(with_schema(make_package(), 0))
    assert refused.fault is PackageFault.SCHEMA
    assert "package the model again" in refused.hint


def test_a_newer_schema_asks_for_an_upgrade(make_package: MakePackage) -> None:
    assert refusal(with_schema(make_package(), 99)).hint == "upgrade pulmolink"


@pytest.mark.parametrize("content", [b"", b"[]", b"{", b"\xff\xfe", b'{"schema": "1"}', b"[" * 100_000])
def test_rubbish_in_place_of_a_manifest_is_refused(content: bytes) -> None:
    with pytest.raises(PackageRefused):
        parse_manifest(content)


def test_a_changed_sentence_in_the_manifest_is_found(make_package: MakePackage) -> None:
    folder = make_package()
    path = folder / "manifest.json"
    path.write_bytes(path.read_bytes().replace(b"everything else", b"nothing at all!"))
    refused = refusal(folder)
    assert (refused.fault, refused.detail) == (PackageFault.MANIFEST, "was changed after it was written")


def test_a_package_that_is_not_there_is_refused_with_the_names_of_those_that_are() -> None:
    with pytest.raises(PackageRefused, match=r"shipped: .*synthetic-demo"):
        locate("no-such-model")


def test_reading_an_identity_does_not_load_torch() -> None:
    code = (
        "from inference.package import read_identity; import sys;"
        "print(read_identity('synthetic-demo').kind, 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["synthetic-demo", "False"]


def test_writing_over_a_package_replaces_it_whole(make_package: MakePackage) -> None:
    folder = make_package()
    first = read_identity(folder)
    make_package()
    assert read_identity(folder) == first  # seeded: the same package, digest and all
    assert not folder.with_name(folder.name + ".new").exists()


def test_a_folder_of_something_else_is_not_replaced(make_package: MakePackage, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    with pytest.raises(FileExistsError):
        make_package(name="mine")
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "years of work"


@pytest.mark.long
def test_dinov2_large_goes_the_same_way(make_package: MakePackage, phantom: object, lead_images: np.ndarray) -> None:
    from inference.phantoms import PhantomPatient

    assert isinstance(phantom, PhantomPatient)
    predictor = Predictor.load(make_package(backbone="vit_large_patch14_dinov2.lvd142m"), threads=2)
    chest = predictor.chest(read_radiograph(phantom.objects[0].part10, predictor.preprocessing))
    assert chest.embedding.shape == (9, 1024)
    assert np.isfinite(predictor.predict(chest.embedding, lead_images).mpap_mmhg)
