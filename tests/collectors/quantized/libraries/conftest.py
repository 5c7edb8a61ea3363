"""A short training on real digits, bare and watched; what was stored beside what NumPy counts."""

import copy
import io
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from torch import Tensor, nn

import spikewatch
from spikewatch.zoo.digits import load_digits


N_STEPS = 5
# What a library's own interface tells of its layers, by name: quantized and latent weight.
Weights = dict[str, tuple[Tensor, Tensor | None]]


@dataclass
class Trained:
    """A watched training that has ended.

    Attributes:
        net: The model as it was trained.
        layers: Kind, library, type and note of each layer, by name.
        tables: Stored rows.
        told: What the library told of the weights in each training step, and then in evaluation.
    """

    net: nn.Module
    layers: dict[str, dict[str, str]]
    tables: dict[str, pl.DataFrame]
    told: list[Weights]

    def rows(self, table: str, layer: str, phase: str = "train") -> list[dict[str, Any]]:
        rows = self.tables[table].filter(layer=layer, phase=phase).sort("step")
        return list(rows.iter_rows(named=True))

    def notes(self, layer: str) -> list[str]:
        return self.tables["events"].filter(layer=layer, kind="note")["message"].to_list()

    def check(self, layer: str, *, by_row: bool = False, **expected: float) -> None:
        """Every figure of the layer in every step is that of the library's own weights.

        Args:
            layer: Its name.
            by_row: Whether each row has a scale of its own.
            expected: Figures of the last training step, from elsewhere.
        """
        told = [weights[layer] for weights in self.told]
        for phase, weights in (("train", told[:-1]), ("eval", told[-1:])):
            for table, count in (("weights", _weights), ("latent", partial(_latent, by_row))):
                rows = self.rows(table, layer, phase)
                assert len(rows) == len(weights), (phase, table)
                for row, (quantized, latent) in zip(rows, weights, strict=True):
                    _compare(row, count(_numpy(quantized), _numpy(latent)))
        moves = {row["step"]: row for row in self.rows("transitions", layer)}
        for step in range(1, len(told) - 1):
            before, after = (_numpy(told[k][0]) for k in (step - 1, step))
            _compare(moves[step], _transitions(before, after))
        if told[0][1] is not None:
            self._check_updates(layer, told, by_row=by_row)
        for name, value in expected.items():
            tables = ("weights", "latent", "amplitudes")
            row = {k: v for t in tables for k, v in self.rows(t, layer)[-1].items()}
            assert row[name] == pytest.approx(value, rel=1e-4), name

    def _check_updates(self, layer: str, told: list[Any], *, by_row: bool) -> None:
        """The last two are the last step and the evaluation after it: an update lies between."""
        updates = zip(self.rows("latent", layer), told, told[1:], strict=False)
        for row, (quantized, before), (_, after) in updates:
            w = _numpy(before)
            moved = np.abs(_numpy(after) - w) / _delta(_numpy(quantized), w, by_row=by_row)
            assert row["update_ratio"] == pytest.approx(_median(moved), rel=1e-3)


def _numpy(x: Tensor | None) -> Any:
    return None if x is None else x.detach().double().numpy()


def _compare(row: dict[str, Any], expected: dict[str, float | None]) -> None:
    for name, value in expected.items():
        assert row[name] == (value and pytest.approx(value, rel=1e-4, abs=1e-9)), name


def _weights(q: Any, w: Any) -> dict[str, float]:
    rows, n = q.reshape(len(q), -1), q.size
    shares = np.array([(q < 0).sum(), (q == 0).sum(), (q > 0).sum()]) / n
    used = shares[shares > 0]
    columns = q.reshape(*q.shape[:2], -1) if q.ndim > 2 else q[..., None]
    found = {
        "n_weights": n,
        "weight_negative_frac": shares[0],
        "weight_zero_frac": shares[1],
        "weight_positive_frac": shares[2],
        "weight_entropy_bits": -(used * np.log2(used)).sum(),
        "scale_positive": q[q > 0].mean(),
        "scale_negative": -q[q < 0].mean(),
        "dead_row_frac": (rows == 0).all(1).mean(),
        "dead_column_frac": (columns == 0).all((0, 2)).mean(),
    }
    return found if w is None else found | {"delta": np.abs(w)[q == 0].max()}


def _delta(q: Any, w: Any, *, by_row: bool) -> Any:
    """Threshold Δ: one, or one a row that broadcasts over the weights."""
    axes = tuple(range(1, w.ndim)) if by_row else None
    return np.abs(np.where(q == 0, w, 0)).max(axes, keepdims=True)


def _median(x: Any) -> float:
    return np.quantile(x, 0.5, method="lower")  # of two in the middle, as torch


def _latent(by_row: bool, q: Any, w: Any) -> dict[str, float | None]:
    if w is None:
        return {"annealing": 1.0, "sqnr_db": None, "deadzone_frac": None}
    fitted = (w * q).sum() / (q * q).sum() * q
    plain = fitted if np.allclose(np.abs(q)[q != 0], 1) else q
    ratio = np.abs(w) / _delta(q, w, by_row=by_row)
    return {
        "annealing": 1.0,
        "sqnr_db": 10 * np.log10((w**2).sum() / ((w - plain) ** 2).sum()),
        "sqnr_fitted_db": 10 * np.log10((w**2).sum() / ((w - fitted) ** 2).sum()),
        "deadzone_frac": (ratio <= 1).mean(),
        "boundary_distance": _median(np.abs(ratio - 1)),
        "clipped_frac": (np.abs(w) >= 1).mean(),
    }


def _transitions(before: Any, after: Any) -> dict[str, float]:
    flipped, live = np.sign(before) != np.sign(after), before != 0
    return {"flip_rate": flipped.mean(), "live_flip_rate": flipped[live].mean()}


@pytest.fixture(name="trained")
def _trained(tmp_path, monkeypatch) -> Callable[..., Trained]:
    """Train a model twice, watched and not: the two are the same bit for bit.

    The function takes what makes the model, and what tells the weights of its layers (in a training
    step after the backward pass, before the optimizer moves them).
    """
    monkeypatch.setenv("SPIKEWATCH_ON_ERROR", "raise")

    def trained(make: Callable[[], nn.Module], tell: Callable[..., Weights] = nothing) -> Trained:
        bare, watched = (_built(make) for _ in range(2))
        _, expected = _fit(bare, tell)
        with spikewatch.attach(watched, dir=tmp_path, every=1, quiet=True):
            told, got = _fit(watched, tell)
        assert len(got) == len(expected) > 0
        for a, b in zip(got, expected, strict=True):
            assert a.dtype == b.dtype
            assert torch.equal(a, b)
        with spikewatch.open_store(tmp_path) as store:
            names = ["weights", "latent", "transitions", "amplitudes", "spikes", "membrane"]
            tables = {n: store.sql(f"FROM {n}") for n in (*names, "events", "layers")}
        layers = {row["layer"]: row for row in tables["layers"].iter_rows(named=True)}
        return Trained(watched, layers, tables, told)

    return trained


@pytest.fixture(name="named")
def _named(listen) -> Callable[..., dict[str, tuple[str, str, str]]]:
    """What layers with weights that are not ternary are named: library, kind, note; nothing more.

    The function takes what makes the model.
    """

    def named(make: Callable[[], nn.Module]) -> dict[str, tuple[str, str, str]]:
        net = _built(make)
        heard = listen(net)
        net(torch.rand(32, 64)).square().sum().backward()
        assert not any("weights" in heard.tables(name) for name in heard.observers)
        return {x.name: (x.library, x.kind, x.note) for x in heard.confirmed}

    return named


def nothing(net: nn.Module) -> Weights:
    """For a library without an interface that tells."""
    return {}


def _built(make: Callable[[], nn.Module]) -> nn.Module:
    torch.manual_seed(0)
    return make()


def _fit(net: nn.Module, tell: Callable[..., Weights]) -> tuple[list[Weights], list[Tensor]]:
    """Train, evaluate, copy and save; what the library told, and all tensors that came of it."""
    data, _ = load_digits()
    torch.manual_seed(1)
    learn = [p for p in net.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(learn, 0.1, momentum=0.9) if learn else None
    told, came = [], []
    for x, y in data.batches(32, generator=torch.Generator().manual_seed(2)):
        if len(told) == N_STEPS:
            break
        scores = net.train()(x.flatten(1))
        came.append(scores)
        if optimizer is not None:
            loss = nn.functional.cross_entropy(scores, y)
            optimizer.zero_grad()
            loss.backward()
            came += [p.grad.clone() for p in learn if p.grad is not None]
        told.append(_kept(tell(net)))
        if optimizer is not None:
            optimizer.step()
    with torch.no_grad():
        came.append(net.eval()(x.flatten(1)))
        told.append(_kept(tell(net)))
        came.append(copy.deepcopy(net)(x.flatten(1)))
    file = io.BytesIO()
    torch.save(net.state_dict(), file)
    file.seek(0)
    saved = torch.load(file, weights_only=False)
    came += [_plain(v) for _, v in sorted(saved.items()) if isinstance(v, Tensor)]
    return told, [*(x.detach() for x in came), torch.get_rng_state()]


def _kept(weights: Weights) -> Weights:
    return {n: tuple(None if x is None else _plain(x).clone() for x in pair)
            for n, pair in weights.items()}  # fmt: skip


def _plain(x: Tensor) -> Tensor:
    """As numbers, of a type of the library's own."""
    if type(x) in (Tensor, nn.Parameter):
        return x.detach()
    return x.dequantize() if hasattr(type(x), "dequantize") and not hasattr(x, "_data") else x
