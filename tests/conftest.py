"""What every test wants: one thread for torch, and no runs folder of the person who tests."""

import pytest
import torch


torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _no_outer_settings(monkeypatch):
    monkeypatch.delenv("SPIKEWATCH_DIR", raising=False)
