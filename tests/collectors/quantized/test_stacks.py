"""Experts whose matrices are kept in one tensor: each has inputs and outputs of its own."""

import pytest
import torch
from torch import nn

from spikewatch.collectors.quantized.level_sums import level_sums


N, N_IN, N_OUT = 3, 40, 24


def twn(w, dim):
    """A scale for each output of each expert; `dim` is that of the inputs."""
    live = w.abs() > 0.7 * w.abs().mean(dim, keepdim=True)
    scale = (w.abs() * live).sum(dim, keepdim=True) / live.sum(dim, keepdim=True).clamp(min=1)
    return scale * w.sign() * live


class Experts(nn.Module):
    """The products that code has for it, and the layouts of their weights."""

    def __init__(self, how):
        super().__init__()
        self.how = how
        w = torch.randn(N, N_OUT, N_IN)
        w[1, 5] = 0  # an output that tells nothing
        w[2, :, 7] = 0  # an input that is not heard
        self.kernel = nn.Parameter(w if how.endswith("oi") else w.mT.contiguous())

    def weight(self):
        return twn(self.kernel, 2 if self.how.endswith("oi") else 1)

    def forward(self, x):
        w = self.kernel + (self.weight() - self.kernel).detach()
        match self.how:
            case "einsum io":
                return torch.einsum("bd,edh->beh", x, w)
            case "einsum oi":
                return torch.einsum("ehd,bd->ebh", w, x)
            case "bmm io":
                return torch.bmm(x.expand(N, *x.shape), w)
            case "matmul io":
                return x @ w
            case "matmul oi":
                return w @ x.t()


@pytest.mark.parametrize("how", ["einsum io", "einsum oi", "bmm io", "matmul io", "matmul oi"])
def test_outputs_inputs_scales_and_latent_weights_are_those_of_each_expert(listen, how):
    torch.manual_seed(0)
    layer = Experts(how)
    heard = listen(nn.Sequential(layer))
    layer(torch.randn(6, N_IN)).square().sum().backward()
    assert [(x.name, x.kind, x.note) for x in heard.confirmed] == [
        ("0", "ternary", "a scale a row")
    ]
    tables = heard.tables("0")
    row, q, w = tables["weights"], layer.weight().detach(), layer.kernel.detach()
    assert (row["n_rows"], row["n_dead_rows"]) == (N * N_OUT, 1)
    assert (row["n_columns"], row["n_dead_columns"]) == (N * N_IN, 1)
    assert row["n_weight_zero"] == (q == 0).sum()
    zeros = torch.where(q == 0, w.abs(), 0)
    assert row["delta"] == pytest.approx(zeros.max().item())
    latent = tables["latent"]
    assert latent["sum_latent_quantized"] == pytest.approx((w * q).sum().item(), rel=1e-5)
    deltas = zeros.amax(2 if how.endswith("oi") else 1, keepdim=True)
    assert latent["n_deadzone"] == ((w.abs() <= deltas) & (deltas > 0)).sum()
    assert tables["amplitudes"]["n_alphas"] == N * N_OUT


def test_three_axes_of_which_none_is_a_batch_are_counted_as_they_are_kept(listen):
    class Heads(nn.Module):
        def __init__(self):
            super().__init__()
            self.kernel = nn.Parameter(torch.randn(40, 4, 6))

        def forward(self, x):
            q = twn(self.kernel.view(1, -1), 1).view_as(self.kernel)
            return torch.einsum("bd,dnh->bnh", x, self.kernel + (q - self.kernel).detach())

    torch.manual_seed(0)
    net = nn.Sequential(Heads())
    heard = listen(net)
    net(torch.randn(2, 40)).sum().backward()
    row = heard.flush("0", "weights")
    assert (row["n_weights"], row["n_rows"]) == (960, 40)


@pytest.mark.parametrize("transposed", [False, True])
def test_a_stack_is_counted_as_its_matrices_are(transposed):
    torch.manual_seed(0)
    stack = torch.randn(5, 7, 9).sign() * (torch.rand(5, 7, 9) < 0.3)
    told = level_sums(stack.mT.contiguous().mT if transposed else stack, stacked=True)
    apart = [level_sums(matrix) for matrix in stack]
    assert torch.equal(told.n_nonzero, torch.cat([x.n_nonzero for x in apart]))
    assert torch.equal(told.used_columns, torch.cat([x.used_columns for x in apart]))
