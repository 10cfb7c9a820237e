"""The configuration is a contract: every key by file and by variable, and no mistake passes unnoticed."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from pacs_node.settings import Settings, load
from pacs_node.settings_file import as_toml, example, hide_secrets
from pacs_node.settings_tree import SettingsError

CONTRACT = """
[node]
ae_title = "PULMOLINK"
host = "127.0.0.1"
port = 11112
site_timezone = "Asia/Tokyo"
[storage]
database = "sqlite:////var/lib/pulmolink/pulmolink.db"
objects = "/var/lib/pulmolink/objects"
[model]
package = "synthetic-demo"
[pairing]
window_days = 7
settle_seconds = 0
[[sources]]
ae_title = "MODALITY"
host = "127.0.0.1"
[[destinations]]
name = "pacs"
ae_title = "ORTHANC"
host = "127.0.0.1"
port = 4242
sends = ["sr", "overlay"]
[web]
host = "127.0.0.1"
port = 8080
"""


def write(tmp_path: Path, content: str) -> Path:
    file = tmp_path / "pulmolink.toml"
    file.write_text(content, encoding="utf-8")
    return file


def refusal(path: Path | None = None, **variables: str) -> str:
    with pytest.raises(SettingsError) as caught:
        load(path, variables)
    return str(caught.value)


class TestTheFile:
    def test_of_the_contract_is_taken_key_by_key(self, tmp_path: Path) -> None:
        settings = load(write(tmp_path, CONTRACT), {})
        assert settings.node.port == 11112
        assert settings.sources[0].ae_title == "MODALITY"
        assert (settings.destinations[0].name, settings.destinations[0].sends) == ("pacs", ("sr", "overlay"))

    def test_is_found_by_its_variable(self, tmp_path: Path) -> None:
        file = write(tmp_path, "[node]\nport = 104\n")
        assert load(None, {"PULMOLINK_CONFIG": str(file)}).node.port == 104

    def test_named_on_the_command_line_goes_before_the_variable(self, tmp_path: Path) -> None:
        file = write(tmp_path, "[node]\nport = 104\n")
        assert load(file, {"PULMOLINK_CONFIG": "/nowhere"}).node.port == 104

    @pytest.mark.parametrize(
        ("content", "key", "why"),
        [
            ("[node]\nprot = 1\n", "node.prot", "unknown key"),
            ("[nodes]\nport = 1\n", "nodes", "unknown key"),
            ("port = 1\n", "port", "unknown key"),
            ("[node]\nport = 0\n", "node.port", "greater than or equal to 1"),
            ("[node]\nport = 'x'\n", "node.port", "integer"),
            ("[node]\nport = 1.5\n", "node.port", "integer"),
            ("[node]\nae_title = 'LONGER THAN SIXTEEN'\n", "node.ae_title", "1 to 16"),
            ("[node]\nae_title = 'A\\B'\n", "node.ae_title", "backslash"),
            ("[node]\nae_title = ''\n", "node.ae_title", "1 to 16"),
            ("[node]\nsite_timezone = 'JST'\n", "node.site_timezone", "IANA"),
            ("[storage]\ndatabase = 'mysql://x'\n", "storage.database", "sqlite:////"),
            ("[storage]\nretain_unpaired_days = inf\n", "storage.retain_unpaired_days", "36500"),
            ("[pairing]\nwindow_days = 0\n", "pairing.window_days", "greater than 0"),
            ("[pairing]\nwindow_days = nan\n", "pairing.window_days", ""),
            ("[log]\nlevel = 'loud'\n", "log.level", "'debug'"),
            ("[[destinations]]\nname = 'a'\n", "destinations.0.ae_title", "missing"),
            (
                "[[destinations]]\nname='a'\nae_title='A'\nhost='h'\nport=1\nsends=['pdf']\n",
                "destinations.0.sends.0",
                "'sr'",
            ),
            ("[[sources]]\nae_title = 'A'\nhost = 'h'\nport = 1\n", "sources.0.port", "unknown key"),
            ("[destinations]\nname = 'a'\n", "destinations", "tuple"),
        ],
    )
    def test_with_a_mistake_is_refused_with_file_key_and_reason(
        self, tmp_path: Path, content: str, key: str, why: str
    ) -> None:
        file = write(tmp_path, content)
        sentence = refusal(file)
        assert sentence.startswith(f"{file}: {key}: ")
        assert why in sentence

    def test_with_several_mistakes_names_them_all(self, tmp_path: Path) -> None:
        sentences = refusal(write(tmp_path, "[node]\nport = 0\nprot = 1\n[web]\nport = 0\n")).splitlines()
        assert [sentence.split(": ")[1] for sentence in sentences] == ["node.port", "node.prot", "web.port"]

    def test_that_is_no_toml_says_where(self, tmp_path: Path) -> None:
        assert "line 1" in refusal(write(tmp_path, "[node\n"))

    def test_in_another_encoding_is_refused_in_a_sentence(self, tmp_path: Path) -> None:
        file = tmp_path / "pulmolink.toml"
        file.write_bytes("[node]\nae_title = 'Z\u00dcRICH'".encode("latin-1"))
        assert "not valid TOML" in refusal(file)

    def test_that_is_not_there_is_refused_in_a_sentence(self, tmp_path: Path) -> None:
        assert "cannot be read: No such file" in refusal(tmp_path / "absent.toml")

    @pytest.mark.parametrize(
        ("content", "why"),
        [
            ("[tls]\nport = 2762\n", "tls.certificate: required"),
            ("[tls]\nport = 2762\ncertificate = 'c'\n", "tls.client_ca: required"),
            ("[tls]\nport = 11112\ncertificate = 'c'\nclient_ca = 'a'\n", "tls.port: the same as node.port"),
            ("[tls]\nonly = true\n", "tls.only: nobody could speak"),
            ("[[sources]]\nae_title='A'\nhost='h'\ncertificate='CN=a'\n", "sources.0.certificate: needs tls.port"),
            ("[[sources]]\nae_title='A'\nhost='h'\ncertificate='sha256:12'\n", "64 hexadecimal digits"),
            ("[[sources]]\nae_title='A'\nhost='h'\ncertificate='cart1'\n", "O=Hospital, CN=cart1"),
            ("[[sources]]\nae_title='A'\nhost='h'\naccepts=['ct']\n", "sources.0.accepts.0"),
            (
                "[[sources]]\nae_title='A'\nhost='h'\ncommitment_tls=true\n",
                "sources.0.commitment_tls: needs tls.client_ca",
            ),
        ],
    )
    def test_keys_that_contradict_each_other_are_refused(self, tmp_path: Path, content: str, why: str) -> None:
        assert why in refusal(write(tmp_path, content))

    def test_a_contradiction_is_told_with_its_file_or_variable(self, tmp_path: Path) -> None:
        file = write(tmp_path, "[tls]\nport = 2762\nclient_ca = 'a'\n")
        assert refusal(file) == f"{file}: tls.certificate: required where tls.port is set"
        variables = {"PULMOLINK_TLS_PORT": "2762", "PULMOLINK_TLS_CLIENT_CA": "a"}
        assert refusal(**variables).startswith("PULMOLINK_TLS_")

    @pytest.mark.parametrize(("section", "key"), [("sources", "accepts"), ("destinations", "sends")])
    def test_a_wrong_entry_of_a_list_is_told_once(self, tmp_path: Path, section: str, key: str) -> None:
        entry = f"[[{section}]]\nname = 'a'\nae_title = 'A'\nhost = 'h'\nport = 1\n{key} = ['ct']\n"
        said = refusal(write(tmp_path, entry if section == "destinations" else entry.replace("name = 'a'\n", "")))
        assert f"{section}.0.{key}.0: " in said
        assert "at least 1 item" not in said
        assert "at least 1 item" in refusal(write(tmp_path, entry.replace("'ct'", "")))

    @pytest.mark.parametrize(
        "host",
        ["10.0.0.0/33", "10.0.0.5/99", "10.0.0.5:104", "10.0.0.*", "", " ", "10.0.0", "300.1.1.1", "-a", "a b", "a..b"],
    )
    def test_a_host_that_nobody_can_have_is_refused(self, tmp_path: Path, host: str) -> None:
        """Such a source never matches, and nobody finds out why."""
        entry = f"ae_title = 'A'\nhost = '{host}'\n"
        assert "sources.0.host: '" in refusal(write(tmp_path, f"[[sources]]\n{entry}"))
        said = refusal(write(tmp_path, f"[[sources]]\n{entry}"))
        assert "an address (192.0.2.5), a range (192.0.2.0/24) nor a host name" in said
        for section, more, key in (
            ("[[destinations]]", f"name = 'a'\nport = 1\n{entry}", "destinations.0.host"),
            ("[node]", f"host = '{host}'\n", "node.host"),
            ("[web]", f"host = '{host}'\n", "web.host"),
        ):
            said = refusal(write(tmp_path, f"{section}\n{more}"))
            assert f"{key}: '{host}' is neither an address (192.0.2.5) nor a host name" in said

    def test_a_range_is_whom_a_source_may_be_and_nothing_to_call(self, tmp_path: Path) -> None:
        destination = "[[destinations]]\nname = 'a'\nport = 1\nae_title = 'A'\nhost = '10.0.0.0/8'\n"
        assert "destinations.0.host" in refusal(write(tmp_path, destination))
        source = "[[sources]]\nae_title = 'A'\nhost = 'h'\ncommitment_host = '10.0.0.0/8'\n"
        assert "sources.0.commitment_host" in refusal(write(tmp_path, source))
        assert "write an IPv4 address" in refusal(PULMOLINK_SOURCES='[{"ae_title": "A", "host": "::ffff:10.0.0.1"}]')

    @pytest.mark.parametrize(
        "host",
        [
            "10.0.0.5",
            "10.0.0.0/8",
            "10.0.0.5/24",
            "10.0.0.0/255.0.0.0",
            "::1",
            "fd00::/8",
            "ct1",
            "cart_1.ward",
            "k\u00f6ln.example.",
        ],
    )
    def test_every_form_of_host_is_taken(self, tmp_path: Path, host: str) -> None:
        entry = f"[[sources]]\nae_title = 'A'\nhost = '{host}'\n"
        assert load(write(tmp_path, entry), {}).sources[0].host == host

    def test_tls_may_take_the_place_of_the_plain_port(self, tmp_path: Path) -> None:
        content = "[tls]\nport = 11112\nonly = true\ncertificate = 'c'\nclient_ca = 'a'\n"
        assert load(write(tmp_path, content), {}).tls.only

    def test_two_destinations_of_one_name_are_refused(self, tmp_path: Path) -> None:
        entry = "[[destinations]]\nname='a'\nae_title='A'\nhost='h'\nport=1\n"
        assert "same name" in refusal(write(tmp_path, entry + entry))


def single_keys() -> Iterator[tuple[str, str, Any]]:
    """Every key outside of the lists, with its default."""
    for section, field in Settings.model_fields.items():
        if isinstance(field.default, BaseModel):
            for key, value in field.default.model_dump(mode="json").items():
                yield section, key, value


OTHER_VALUES: dict[str, str] = {
    "node.ae_title": "OTHER",
    "node.host": "node.example",
    "node.site_timezone": "Europe/Berlin",
    "node.also_called": "OTHER",
    "storage.database": "postgresql://u:p@h/n",
    "web.host": "0.0.0.0",
    "folder.pattern": r"(?P<patient_id>\d+)_(?P<acquired_at>\d{14})\.pdf",
    "folder.stored": "delete",
    "model.device": "cuda",
    "log.level": "error",
    "log.format": "console",
}


TLS = {"PULMOLINK_TLS_PORT": "2762", "PULMOLINK_TLS_CERTIFICATE": "node.pem", "PULMOLINK_TLS_CLIENT_CA": "ca.pem"}
"""What keys of TLS are allowed beside."""


@pytest.mark.parametrize(
    ("pattern", "said"),
    [
        ("(", "not a regular expression"),
        (r"(?P<patient_id>\d+)\.pdf", "acquired_at"),
        (r"(?P<patient_id>\d+)_(?P<acquired_at>\d+)_(?P<ward>\w+)", "ward"),
    ],
)
def test_a_file_name_pattern_that_cannot_say_who_and_when_is_refused(pattern: str, said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        load(None, {"PULMOLINK_FOLDER_PATTERN": pattern})


def another(section: str, key: str, value: Any) -> str:
    """A value as text that is allowed for a key and is not its default."""
    if f"{section}.{key}" in OTHER_VALUES:
        return OTHER_VALUES[f"{section}.{key}"]
    if isinstance(value, bool):
        return str(not value).lower()
    return str(value + 1) if isinstance(value, int | float) else f"{value}x"


class TestVariables:
    @pytest.mark.parametrize(("section", "key", "default"), list(single_keys()))
    def test_every_key_is_also_a_variable_which_wins(
        self, tmp_path: Path, section: str, key: str, default: Any
    ) -> None:
        text = another(section, key, default)
        file = write(tmp_path, f"[{section}]\n{key} = {_toml_literal(default)}\n")
        variable = f"PULMOLINK_{section.upper()}_{key.upper()}"
        settings = load(file, (TLS if section == "tls" else {}) | {variable: text})
        found = settings.model_dump(mode="json")[section][key]
        found = ", ".join(found) if isinstance(found, list) else found
        assert found != default
        assert str(found).lower() == text.lower() or float(found) == float(text)

    @pytest.mark.parametrize(("section", "key", "default"), list(single_keys()))
    def test_every_key_has_a_description(self, section: str, key: str, default: Any) -> None:
        kind = type(Settings.model_fields[section].default)
        assert len(kind.model_fields[key].description or "") > 5

    def test_a_wrong_one_is_refused_by_its_name(self) -> None:
        assert refusal(PULMOLINK_NODE_PORT="x").startswith("PULMOLINK_NODE_PORT: node.port: ")

    @pytest.mark.parametrize("name", ["PULMOLINK_NODE_PROT", "PULMOLINK_NODES_PORT", "PULMOLINK_NODE", "PULMOLINK_"])
    def test_an_unknown_one_is_refused(self, name: str) -> None:
        assert refusal(**{name: "1"}).startswith(name)

    def test_others_are_left_alone(self) -> None:
        assert load(None, {"PATH": "/bin", "PULMOLINK_SAMPLES": "/data", "PULMO": "1"}) == Settings()

    def test_what_kubernetes_sets_beside_a_service_is_left_alone(self) -> None:
        """A Service called pulmolink puts these into every container; starting must not fail for it."""
        links = {
            "PULMOLINK_SERVICE_HOST": "10.0.0.1",
            "PULMOLINK_SERVICE_PORT": "11112",
            "PULMOLINK_SERVICE_PORT_DICOM": "11112",
            "PULMOLINK_PORT": "tcp://10.0.0.1:11112",
            "PULMOLINK_PORT_11112_TCP": "tcp://10.0.0.1:11112",
            "PULMOLINK_PORT_11112_TCP_PROTO": "tcp",
            "PULMOLINK_PORT_11112_TCP_ADDR": "10.0.0.1",
            "PULMOLINK_WEB_PORT": "tcp://10.0.0.2:8080",
            "PULMOLINK_WEB_SERVICE_HOST": "10.0.0.2",
        }
        assert load(None, links) == Settings()

    def test_one_field_of_one_entry_of_a_list(self, tmp_path: Path) -> None:
        settings = load(write(tmp_path, CONTRACT), {"PULMOLINK_DESTINATIONS_0_HOST": "pacs.example"})
        assert settings.destinations[0].host == "pacs.example"
        assert settings.destinations[0].port == 4242

    def test_a_new_entry_of_a_list(self) -> None:
        settings = load(
            None,
            {
                "PULMOLINK_DESTINATIONS_0_NAME": "pacs",
                "PULMOLINK_DESTINATIONS_0_AE_TITLE": "ORTHANC",
                "PULMOLINK_DESTINATIONS_0_HOST": "pacs",
                "PULMOLINK_DESTINATIONS_0_PORT": "4242",
                "PULMOLINK_DESTINATIONS_0_SENDS": "sr, overlay",
                "PULMOLINK_SOURCES_0_AE_TITLE": "CART",
                "PULMOLINK_SOURCES_0_HOST": "cart",
                "PULMOLINK_SOURCES_0_ECG_DOCUMENTS": "true",
            },
        )
        assert settings.destinations[0].sends == ("sr", "overlay")
        assert settings.sources[0].ecg_documents

    def test_twelve_entries_of_a_list(self) -> None:
        variables = {
            f"PULMOLINK_SOURCES_{index}_{key}": f"S{index}" for index in range(12) for key in ("AE_TITLE", "HOST")
        }
        assert [source.host for source in load(None, variables).sources] == [f"S{index}" for index in range(12)]

    def test_a_whole_list_as_json(self) -> None:
        settings = load(None, {"PULMOLINK_SOURCES": '[{"ae_title": "A", "host": "h"}]'})
        assert settings.sources[0].ae_title == "A"

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("PULMOLINK_SOURCES", "[{"),
            ("PULMOLINK_SOURCES", '{"ae_title": "A"}'),
            ("PULMOLINK_SOURCES_1_HOST", "gap"),
            ("PULMOLINK_SOURCES_X_HOST", "h"),
            ("PULMOLINK_SOURCES_0", "h"),
            ("PULMOLINK_SOURCES_\u00b2_HOST", "h"),
        ],
    )
    def test_a_list_in_no_form_is_refused_by_name(self, name: str, value: str) -> None:
        assert refusal(**{name: value}).startswith(name)

    def test_a_list_that_the_file_has_as_something_else_is_refused(self, tmp_path: Path) -> None:
        file = write(tmp_path, "[destinations]\nname = 'a'\n")
        assert "PULMOLINK_DESTINATIONS_0_HOST" in refusal(file, PULMOLINK_DESTINATIONS_0_HOST="h")


class TestTheExample:
    def test_of_the_repository_is_the_one_that_the_command_prints(self) -> None:
        file = Path(__file__).parents[2] / "deploy" / "pulmolink.example.toml"
        assert file.read_text(encoding="utf-8").rstrip() == example().rstrip()

    def test_says_the_defaults(self, tmp_path: Path) -> None:
        assert load(write(tmp_path, example()), {}) == Settings()

    def test_without_its_comment_signs_is_a_whole_configuration(self, tmp_path: Path) -> None:
        lines = [
            line[1:] if line.startswith("#") and not line.startswith("# ") else line for line in example().splitlines()
        ]
        settings = load(write(tmp_path, "\n".join(lines)), {})
        assert (len(settings.sources), len(settings.destinations)) == (1, 1)

    def test_says_of_bounds_of_one_receiver_that_they_are(self) -> None:
        lines = {line.partition(" = ")[0]: line for line in example().splitlines()}
        for key in ("associations", "connections", "connections_per_peer", "objects_per_second", "#objects_per_second"):
            assert "each receiver" in lines[key]

    def test_comments_every_key(self) -> None:
        for line in example().splitlines():
            if "=" in line and not line.startswith("# "):
                assert "  # " in line


class TestWhatIsInForce:
    def test_reads_back_as_the_same_settings(self, tmp_path: Path) -> None:
        settings = load(write(tmp_path, CONTRACT), {})
        assert load(write(tmp_path, as_toml(settings)), {}) == settings

    @pytest.mark.parametrize(
        "url",
        [
            "postgresql://pulmo:s3cret@db/pulmolink",
            "postgresql+pg8000://pulmo:s3cret@db:5432/pulmolink?sslmode=require",
            "postgresql://db/pulmolink?user=pulmo&password=s3cret&x=1",
        ],
    )
    def test_hides_the_password_and_nothing_else(self, url: str) -> None:
        assert hide_secrets(url) == url.replace("s3cret", "********")
        shown = as_toml(load(None, {"PULMOLINK_STORAGE_DATABASE": url}))
        assert "s3cret" not in shown
        assert tomllib.loads(shown)["storage"]["database"].endswith(url[-3:])

    def test_an_sqlite_path_is_shown_whole(self) -> None:
        assert hide_secrets("sqlite:////a/b.db") == "sqlite:////a/b.db"

    def test_a_refused_database_url_is_not_repeated(self) -> None:
        assert "s3cret" not in refusal(PULMOLINK_STORAGE_DATABASE="mysql://u:s3cret@h/n")

    def test_cannot_be_changed(self) -> None:
        with pytest.raises(ValidationError, match="frozen"):
            Settings().node.port = 1  # type: ignore[misc]


def _toml_literal(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else repr(value)
