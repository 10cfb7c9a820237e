"""Where settings come from: a TOML file and variables of the environment as one tree, and whose a mistake in it is."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

CONFIG_VARIABLE = "PULMOLINK_CONFIG"
PREFIX = "PULMOLINK_"
NOT_KEYS = frozenset({CONFIG_VARIABLE, "PULMOLINK_SAMPLES"})
"""Variables with our prefix that are not settings."""
SERVICE_LINK = re.compile(r"PULMOLINK_(.*_)?(SERVICE_(HOST|PORT.*)|PORT_\d+_(TCP|UDP|SCTP).*)")
"""What Kubernetes sets in every container beside a Service whose name begins with ours."""


class SettingsError(Exception):
    """The configuration cannot be used. One line a problem, each naming where, which key and why."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


def read_file(path: Path) -> dict[str, Any]:
    """A TOML file as a tree. Raises SettingsError where it cannot be read."""
    try:
        with path.open("rb") as file:
            return tomllib.load(file)
    except OSError as error:
        raise SettingsError([f"{path}: cannot be read: {error.strerror}"]) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError([f"{path}: not valid TOML: {error}"]) from None


def merge_environment(tree: dict[str, Any], variables: Mapping[str, str]) -> dict[tuple[str, ...], str]:
    """Write each PULMOLINK_ variable into `tree`; return which variable gave which key."""
    origins: dict[tuple[str, ...], str] = {}
    for variable in sorted(variables, key=_with_numbers_in_order):
        if not variable.startswith(PREFIX) or variable in NOT_KEYS or _is_service_link(variable, variables[variable]):
            continue
        section, _, key = variable.removeprefix(PREFIX).lower().partition("_")
        key = key.lstrip("_")
        value: Any = variables[variable]
        if section in {"sources", "destinations"}:
            _merge_list(tree, section, key, value, variable, origins)
        else:
            table = tree.setdefault(section, {})
            if not isinstance(table, dict) or not key:
                raise SettingsError([f"{variable}: no such key; variables are PULMOLINK_SECTION_KEY"])
            table[key] = value
            origins[section, key] = variable
    return origins


def _with_numbers_in_order(variable: str) -> list[tuple[int, str]]:
    """A sorting key that puts entry 10 of a list after entry 9."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", variable)]


def _is_service_link(variable: str, value: str) -> bool:
    """Whether Kubernetes set a variable, such as PULMOLINK_WEB_PORT to tcp://10.0.0.1:8080."""
    return SERVICE_LINK.fullmatch(variable) is not None or re.match(r"(tcp|udp|sctp)://", value) is not None


def _merge_list(
    tree: dict[str, Any],
    section: str,
    key: str,
    value: str,
    variable: str,
    origins: dict[tuple[str, ...], str],
) -> None:
    if not key:
        try:
            tree[section] = json.loads(value)
        except json.JSONDecodeError as error:
            raise SettingsError([f"{variable}: not valid JSON: {error}"]) from None
        origins[(section,)] = variable
        return
    index, _, field = key.partition("_")
    field = field.lstrip("_")
    entries = tree.setdefault(section, [])
    listed = isinstance(entries, list) and all(isinstance(entry, dict) for entry in entries)
    if not listed or not index.isdecimal() or not field or int(index) > len(entries):
        raise SettingsError([f"{variable}: variables of a list are PULMOLINK_{section.upper()}_0_KEY, ..._1_KEY"])
    if int(index) == len(entries):
        entries.append({})
    entries[int(index)][field] = value
    origins[section, index, field] = variable


def sentences(problems: Sequence[Any], path: Path | None, origins: Mapping[tuple[str, ...], str]) -> list[str]:
    """Validation errors as "where: key: reason", without repeating a secret value."""
    return [_sentence(problem, path, origins) for problem in problems if not _follows(problem, problems)]


def placed(problem: str, path: Path | None, origins: Mapping[tuple[str, ...], str]) -> str:
    """A problem "key: reason" with where it comes from before it."""
    return f"{_where(tuple(problem.partition(':')[0].split('.')), path, origins)}: {problem}"


def _follows(problem: Any, problems: Sequence[Any]) -> bool:
    """Whether a list is too short only because its entries were refused, which is said of them."""
    location = problem["loc"]
    return problem["type"] == "too_short" and any(
        other["loc"][: len(location)] == location and len(other["loc"]) > len(location) for other in problems
    )


def _sentence(problem: Any, path: Path | None, origins: Mapping[tuple[str, ...], str]) -> str:
    location = tuple(str(part) for part in problem["loc"])
    reason = {
        "extra_forbidden": "unknown key; `pulmolink config example` lists the keys",
        "missing": "required key is missing",
    }.get(problem["type"], problem["msg"].removeprefix("Value error, "))
    return f"{_where(location, path, origins)}: {'.'.join(location)}: {reason}"


def _where(location: tuple[str, ...], path: Path | None, origins: Mapping[tuple[str, ...], str]) -> str:
    """The variable that gave the key, or the part of it that is wrong; else the file; else a variable beside it."""
    parts = [location[:length] for length in range(len(location), 0, -1)]
    givers = [origins[part] for part in parts if part in origins]
    if path is None:
        givers += [name for part in parts for key, name in origins.items() if key[: len(part)] == part]
    return givers[0] if givers else str(path) if path is not None else "built-in defaults"
