"""doctor says before the first `serve` what `serve` would say, and leaves nothing behind that it made."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner

from pacs_node.cli import root
from pacs_node.commands import doctor
from pacs_node.commands.doctor import Check
from pacs_node.settings import Settings
from storage.database import upgrade
from storage.objects import ObjectStore
from tests.integration.rig import free_port

Found = Callable[[Settings], dict[str, Check]]


def site(folder: Path, **storage: str) -> Settings:
    """A site in `folder` whose ports are free."""
    places = {"database": f"sqlite:///{folder}/new/rows.db", "objects": f"{folder}/new/objects", **storage}
    ports = {"node": {"port": free_port()}, "web": {"port": free_port()}}
    return Settings.model_validate({"storage": places, **ports})


@pytest.fixture
def found(monkeypatch: pytest.MonkeyPatch) -> Found:
    """Gives the checks of a site by their part, without computing golden cases."""
    monkeypatch.setattr(doctor, "_model", lambda *_: "not loaded")

    def look(settings: Settings) -> dict[str, Check]:
        return {check.part: check for check in doctor._checks(settings)}

    return look


def test_finds_no_fault_in_a_new_installation_and_makes_nothing(tmp_path: Path, found: Found) -> None:
    checks = found(site(tmp_path))
    assert [check for check in checks.values() if not check.ok] == []
    assert "first `serve` makes it" in checks["database"].found
    assert "first `serve` makes it" in checks["objects"].found
    assert "deliveries" not in checks
    assert list(tmp_path.iterdir()) == []


def test_takes_an_empty_database_for_a_new_one_as_serve_does(tmp_path: Path, found: Found) -> None:
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "rows.db").touch()
    checks = found(site(tmp_path))
    assert [check for check in checks.values() if not check.ok] == []
    assert "the first `serve` makes its tables" in checks["database"].found


def test_finds_a_new_database_over_objects_in_use(tmp_path: Path, found: Found) -> None:
    ObjectStore(tmp_path / "new" / "objects").put(b"of another")
    checks = found(site(tmp_path))
    assert not checks["database and objects"].ok
    assert "is in use" in checks["database and objects"].found
    assert not (tmp_path / "new" / "rows.db").exists()


def test_does_not_make_the_folder_of_objects_of_a_database(tmp_path: Path, found: Found) -> None:
    settings = site(tmp_path)
    upgrade(settings.storage.database)
    assert found(settings)["database and objects"].ok
    assert not settings.storage.objects.exists()


@pytest.mark.parametrize("part", ["database", "objects"])
@pytest.mark.parametrize("place", ["file", "/proc"])
def test_finds_what_serve_could_not_make(tmp_path: Path, found: Found, part: str, place: str) -> None:
    """Nobody, root included, makes folders in these places."""
    (tmp_path / "file").touch()
    path = f"{tmp_path / place}/pulmolink/{part}"
    checks = found(site(tmp_path, **{part: f"sqlite:///{path}" if part == "database" else path}))
    assert not checks[part].ok
    assert f"{path} cannot be made: {tmp_path / place}: " in checks[part].found
    assert f"(storage.{part})" in checks[part].found
    assert "Errno" not in checks[part].found


def test_prints_brackets_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    said = "ORTHANC is not one of [[sources]]: its reports would be rejected"
    monkeypatch.setattr(doctor, "_checks", lambda _settings: [Check(part="destination [b]", ok=True, found=said)])
    printed = CliRunner().invoke(root, ["doctor"], env={"COLUMNS": "200"}).stdout
    assert said in printed
    assert "destination [b]" in printed
