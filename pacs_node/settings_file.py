"""The settings as text: those in force, and an example with every key explained."""

from __future__ import annotations

import json
import re
from typing import Any

from pydantic import BaseModel

from pacs_node.settings import Destination, Settings, Source


def hide_secrets(url: str) -> str:
    """A database URL with its password replaced."""
    url = re.sub(r"(://[^:/@]*:)[^@]*@", r"\1********@", url)
    return re.sub(r"([?&]password=)[^&]*", r"\1********", url)


def as_toml(settings: Settings) -> str:
    """The settings in force as TOML, secrets hidden."""
    tree = settings.model_dump(mode="json")
    tree["storage"]["database"] = hide_secrets(tree["storage"]["database"])
    lines: list[str] = []
    for section, content in tree.items():
        tables = content if isinstance(content, list) else [content]
        for table in tables:
            lines.append(f"[[{section}]]" if isinstance(content, list) else f"[{section}]")
            lines += [f"{key} = {_toml(value)}" for key, value in table.items()]
            lines.append("")
    return "\n".join(lines)


def example() -> str:
    """A commented file with every key at its default; lists show one commented entry."""
    lines = [
        "# pulmolink configuration. Every key may be left out; what stands here is the default.",
        "# Each key is also an environment variable, PULMOLINK_SECTION_KEY, which wins over this file.",
        "",
    ]
    samples: dict[str, tuple[type[BaseModel], dict[str, Any]]] = {
        "sources": (Source, {"ae_title": "MODALITY", "host": "127.0.0.1"}),
        "destinations": (
            Destination,
            {"name": "pacs", "ae_title": "ORTHANC", "host": "127.0.0.1", "port": 4242},
        ),
    }
    for section, field in Settings.model_fields.items():
        if section in samples:
            kind, sample = samples[section]
            lines.append(f"# {kind.__doc__}" + (" None listed: nobody but loopback." * (section == "sources")))
            values = kind.model_validate(sample).model_dump(mode="json")
            lines.append(f"#[[{section}]]")
            mark = "#"
        else:
            kind = type(field.default)
            values = kind().model_dump(mode="json")
            lines += [f"# {kind.__doc__}", f"[{section}]"]
            mark = ""
        for key, entry in kind.model_fields.items():
            lines.append(f"{mark}{key} = {_toml(values[key])}  # {entry.description}")
        lines.append("")
    return "\n".join(lines)


def _toml(value: object) -> str:
    """A value as TOML; JSON's notation is TOML's for the kinds used here."""
    return json.dumps(value, ensure_ascii=False)
