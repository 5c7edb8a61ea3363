"""DuckDB: fed from the journals, asked by the app, the commands and notebooks."""

from .store import Store as Store, open_store as open_store


__all__ = ["Store", "open_store"]
