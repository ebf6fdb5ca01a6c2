"""Where a team's database is, and where its password comes from: the environment or the keyring, never the address."""

from __future__ import annotations

import urllib.parse
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from app.errors import ConfigError
from app.ports import Secrets
from app.secrets import SERVICE

SCHEMES: Final = ("postgresql", "postgres")
PASSWORD_VARIABLES: Final = ("METERWRIGHT_TEAM_PASSWORD", "PGPASSWORD")
EXAMPLE: Final = "postgresql://user@host:5432/database"
_SECRET_OPTIONS: Final = ("password", "secret")  # what the name of an option that is one contains


@dataclass(frozen=True, slots=True)
class TeamAddress:
    """One database: ``url`` without a password as libpq reads it, and ``name`` for people (user@host:port/database)."""

    url: str
    name: str

    @property
    def secret(self) -> str:
        """The name of its password in the keyring."""
        return f"team-database:{self.name}"

    @property
    def password_hint(self) -> str:
        """Where the password may come from, for a sentence."""
        return (
            f"Give the password in the environment ({PASSWORD_VARIABLES[0]} or {PASSWORD_VARIABLES[1]}), or keep it in "
            f'the keyring: keyring set {SERVICE} "{self.secret}"'
        )


def team_address(url: str) -> TeamAddress:
    """A database's URL, checked; what it says about the connection (``?sslmode=verify-full``) is libpq's.

    Raises:
        ConfigError: no such URL, or a password stands in it. The text never repeats the URL.
    """
    try:
        parts = urllib.parse.urlsplit(url.strip())
        port = parts.port
        options = urllib.parse.parse_qsl(parts.query, keep_blank_values=True)
    except ValueError:
        raise ConfigError("this is not the URL of a database", key="URL", expected=EXAMPLE) from None
    if parts.scheme not in SCHEMES:
        raise ConfigError("a team database is a PostgreSQL", key="URL", expected=EXAMPLE)
    # An @ behind the host is that of a password with a slash in it.
    if parts.password is not None or "@" in parts.path or any(_is_secret(name) for name, _value in options):
        raise ConfigError(
            "the address holds a password, which others could read in the process list, the shell's history and the "
            f"log. Leave it out and give it in the environment ({PASSWORD_VARIABLES[0]} or {PASSWORD_VARIABLES[1]}) "
            "or in the keyring",
            key="URL",
            expected=EXAMPLE,
        )
    database = urllib.parse.unquote(parts.path.lstrip("/"))
    if parts.fragment or not parts.hostname or not database or "/" in database:
        raise ConfigError("the address names no host and database", key="URL", expected=EXAMPLE)
    user = f"{urllib.parse.unquote(parts.username)}@" if parts.username else ""
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return TeamAddress(url.strip(), f"{user}{host}{f':{port}' if port else ''}/{database}")


def _is_secret(option: str) -> bool:
    return any(word in option.lower() for word in _SECRET_OPTIONS)


def team_password(address: TeamAddress, environment: Mapping[str, str], secrets: Secrets) -> str | None:
    """The password of a database; None where there is none: then libpq's own means count (.pgpass, a certificate)."""
    for name in PASSWORD_VARIABLES:
        if environment.get(name):
            return environment[name]
    return secrets.get(address.secret)
