"""The workspace: one SQLite file, one writer, many readers."""
