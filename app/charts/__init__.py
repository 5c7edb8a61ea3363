"""Figures: pure functions from Polars frames to Plotly. Nothing here knows of Streamlit."""
