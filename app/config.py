"""Where the program keeps its things."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import platformdirs

from app.errors import ConfigError

APP = "meterwright"


@dataclass(frozen=True, slots=True)
class Profile:
    """Folders of one profile. ``--profile DIR`` puts all of them below DIR."""

    config: Path
    data: Path
    logs: Path

    @property
    def default_workspace(self) -> Path:
        return self.data / "workspace.mwk"

    def make(self) -> Profile:
        """Create the folders.

        Raises:
            ConfigError: one of them cannot be written.
        """
        for folder in (self.config, self.data, self.logs):
            try:
                folder.mkdir(parents=True, exist_ok=True)
            except OSError as exc:
                raise ConfigError(
                    f"cannot be created ({exc.strerror}); choose another place with --profile", file=str(folder)
                ) from None
        return self


def profile(directory: str | Path | None = None) -> Profile:
    """The profile below ``directory``, or the platform's own folders."""
    if directory is not None:
        root = Path(directory).expanduser()
        return Profile(root / "config", root / "data", root / "logs")
    return Profile(
        Path(platformdirs.user_config_dir(APP, appauthor=False)),
        Path(platformdirs.user_data_dir(APP, appauthor=False)),
        Path(platformdirs.user_log_dir(APP, appauthor=False)),
    )
