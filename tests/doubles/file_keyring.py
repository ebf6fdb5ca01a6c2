"""A keyring for subprocesses of tests: what stands in the JSON file that KEYRING_FILE names, by service and name.

Chosen by PYTHON_KEYRING_BACKEND=tests.doubles.file_keyring.FileKeyring.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

from keyring.backend import KeyringBackend


class FileKeyring(KeyringBackend):
    """Reads only."""

    priority = 1.0

    def get_password(self, service: str, username: str) -> str | None:
        words = json.loads(Path(os.environ["KEYRING_FILE"]).read_text(encoding="utf-8"))
        found: str | None = words.get(service, {}).get(username)
        return found

    def set_password(self, service: str, username: str, password: str) -> None:
        raise NotImplementedError

    def delete_password(self, service: str, username: str) -> None:
        raise NotImplementedError
