"""The Streamlit app. Installed as `spikewatch.app`; the only place that imports streamlit."""
