"""Opening the database of studies: URLs, SQLite set up to be shared, one line for what fails."""

from petra_optuna.database.storage import (
    HEARTBEAT_S,
    absolute_url,
    artifacts_folder,
    cache_folder,
    open_storage,
    sqlite_folder,
)
from petra_optuna.database.storage_errors import one_line_storage_errors
from petra_optuna.database.urls import (
    DEFAULT_URL,
    StorageLike,
    location_of,
    parse_url,
    shown_url,
    storage_url,
)

__all__ = [
    "DEFAULT_URL",
    "HEARTBEAT_S",
    "StorageLike",
    "absolute_url",
    "artifacts_folder",
    "cache_folder",
    "location_of",
    "one_line_storage_errors",
    "open_storage",
    "parse_url",
    "shown_url",
    "sqlite_folder",
    "storage_url",
]
