"""Where things lie: the user's data, the caches, and the app's files in a checkout or in a wheel."""

import os
from pathlib import Path

_PACKAGE = Path(__file__).resolve().parents[1]


def data_home() -> Path:
    """The default workspace: this user's stores, target sets and exports (`XDG_DATA_HOME`)."""
    return _home("XDG_DATA_HOME", ".local/share")


def cache_home() -> Path:
    """Files that can be recreated, such as the converted bundled model (`XDG_CACHE_HOME`)."""
    return _home("XDG_CACHE_HOME", ".cache")


def studio() -> Path:
    """The folder that holds `app/`, `pages/` and `assets/`: the checkout's root, or `gradsift/studio` in a wheel."""
    installed = _PACKAGE / "studio"
    return installed if installed.is_dir() else _PACKAGE.parents[1]


def _home(variable: str, fallback: str) -> Path:
    return Path(os.environ.get(variable) or Path.home() / fallback) / "gradsift"
