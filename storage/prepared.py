"""Statements of the receiver's hot path, compiled once: on SQLite the driver runs them without SQLAlchemy's execution.

For each of these SQLAlchemy's execution costs several times what SQLite needs, and a receiver runs three an object.
Types are converted by SQLAlchemy's own column types, so both ways store the same. PostgreSQL takes the ordinary way.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Mapping
from typing import Any

from sqlalchemy import Connection
from sqlalchemy.dialects import sqlite
from sqlalchemy.sql import Executable
from sqlalchemy.sql.compiler import SQLCompiler

from storage.database import translate_sqlite


class Prepared:
    """A SELECT of one value or an INSERT of one row, with named parameters."""

    def __init__(self, statement: Executable) -> None:
        self._statement = statement
        compiled = statement.compile(dialect=sqlite.dialect(paramstyle="qmark"))  # type: ignore[attr-defined]
        if not isinstance(compiled, SQLCompiler):
            raise TypeError("only statements with parameters are prepared")
        self._sql = str(compiled)
        self._names = tuple(compiled.positiontup or ())
        self._converters: Mapping[str, Callable[[Any], Any]] = compiled._bind_processors  # type: ignore[assignment]

    def scalar(self, connection: Connection, parameters: Mapping[str, Any]) -> Any:
        """The first column of the first row, None if there is none. Of a plain SQL type."""
        if connection.dialect.name != "sqlite":
            return connection.scalar(self._statement, parameters)
        row = self._run(connection, parameters).fetchone()
        return None if row is None else row[0]

    def insert(self, connection: Connection, parameters: Mapping[str, Any]) -> int:
        """The number of the new row."""
        if connection.dialect.name != "sqlite":
            key: Any = connection.execute(self._statement, parameters).inserted_primary_key
            return int(key[0])
        return int(self._run(connection, parameters).lastrowid or 0)

    def _run(self, connection: Connection, parameters: Mapping[str, Any]) -> sqlite3.Cursor:
        converters = self._converters
        values = [
            converters[name](parameters[name]) if name in converters else parameters[name] for name in self._names
        ]
        driver: Any = connection.connection.driver_connection
        try:
            cursor: sqlite3.Cursor = driver.execute(self._sql, values)
        except sqlite3.Error as error:
            raise translate_sqlite(error) from None
        return cursor
