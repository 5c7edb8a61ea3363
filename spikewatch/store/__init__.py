"""DuckDB: fed from the journals, asked by the app, the commands and notebooks."""
