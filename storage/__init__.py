"""What must survive: rows (SQLite or PostgreSQL) and the bytes of objects (a content-addressed folder)."""
