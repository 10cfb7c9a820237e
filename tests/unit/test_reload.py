"""What a running service takes over from a changed file."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pacs_node import log
from pacs_node.reload import NEEDS_RESTART, changed_keys, keep, reread
from pacs_node.settings import Log, Settings
from pacs_node.settings_tree import SettingsError


def settings(**sections: object) -> Settings:
    return Settings.model_validate(sections)


def test_the_keys_that_differ_are_named() -> None:
    old = settings()
    new = settings(limits={"associations": 5}, sources=[{"ae_title": "A", "host": "h"}], log={"level": "debug"})
    assert changed_keys(old, old) == []
    assert sorted(changed_keys(old, new)) == ["limits.associations", "log.level", "sources"]


@pytest.mark.parametrize("name", NEEDS_RESTART)
def test_what_needs_a_restart_exists_and_keeps_its_value(name: str) -> None:
    section, key = name.split(".")
    old = settings()
    other = old.model_copy(update={section: getattr(old, section).model_copy(update={key: "other"})})
    assert changed_keys(old, other) == [name]
    assert keep(old, other) == old


def test_every_address_and_port_that_is_listened_on_waits_for_a_restart() -> None:
    """A taken port would end a part of the service that was well, and start it again and again."""
    listened_on = {
        f"{section}.{key}"
        for section in ("node", "tls", "web")
        for key in ("host", "port")
        if key in type(getattr(settings(), section)).model_fields
    }
    assert listened_on == {"node.host", "node.port", "tls.port", "web.host", "web.port"}
    assert listened_on <= set(NEEDS_RESTART)


class TestReading:
    @pytest.fixture(autouse=True)
    def as_json(self) -> None:
        log.configure(Log())

    def lines(self, capsys: pytest.CaptureFixture[str]) -> list[dict[str, object]]:
        return [json.loads(line) for line in capsys.readouterr().err.splitlines()]

    def test_says_what_changed_and_what_waits(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        file = tmp_path / "pulmolink.toml"
        file.write_text("[node]\nport = 104\nae_title = 'NEW'\n", encoding="utf-8")
        new = reread(file, settings(), lambda _settings: None)
        assert new == settings(node={"ae_title": "NEW"})
        (line,) = self.lines(capsys)
        assert (line["changed"], line["needs_restart"]) == (["node.ae_title"], ["node.port"])

    def test_refuses_a_file_with_mistakes_and_names_each(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        file = tmp_path / "pulmolink.toml"
        file.write_text("[node]\nprot = 1\n[web]\nport = 0\n", encoding="utf-8")
        assert reread(file, settings(), lambda _settings: None) is None
        assert [line["event"] for line in self.lines(capsys)] == ["settings_refused"] * 2

    def test_refuses_what_cannot_be_used(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        file = tmp_path / "pulmolink.toml"
        file.write_text("[model]\npackage = '/nowhere'\n", encoding="utf-8")

        def check(new: Settings) -> None:
            raise SettingsError([f"{new.model.package} is no package"])

        assert reread(file, settings(), check) is None
        assert self.lines(capsys)[0]["reason"] == "/nowhere is no package"

    @pytest.mark.parametrize(
        ("written", "reason"),
        [
            ("", "tls.certificate: required where tls.port is set (tls.port as before: a restart would take the new"),
            ("[node]\nport = 2762\n", "tls.certificate: required"),
            ("[tls]\ncertificate = 'c'\n", "tls.client_ca: required"),
        ],
    )
    def test_refuses_what_contradicts_a_value_that_waits_for_a_restart(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str], written: str, reason: str
    ) -> None:
        """The parts of a service that start again would find settings that nobody can start with."""
        file = tmp_path / "pulmolink.toml"
        file.write_text(written, encoding="utf-8")
        running = settings(tls={"port": 2762, "certificate": "c", "client_ca": "a"})
        assert reread(file, running, lambda _settings: None) is None
        (line, *_) = self.lines(capsys)
        assert line["event"] == "settings_refused"
        assert str(line["reason"]).startswith(f"{file}: {reason}")
