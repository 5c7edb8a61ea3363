"""Spiking self-attention by hand."""

import torch

from spikewatch.zoo.spikformer import N_TOKENS, Spikformer, SpikingSelfAttention


def test_attention_is_the_product_of_spikes_with_nothing_in_place_of_softmax():
    torch.manual_seed(0)
    attention = SpikingSelfAttention(8, n_heads=2, scale=0.3)
    seen = {}
    for name in ("query", "key", "value"):
        layer = getattr(attention, name)
        layer.register_forward_hook(lambda _, __, out, name=name: seen.update({name: out}))
    attention.attention_lif.register_forward_hook(
        lambda _, args, __: seen.setdefault("current", args[0])
    )
    attention((torch.rand(3, 2, 5, 8) < 0.5).float())
    q, k, v = (seen[name] for name in ("query", "key", "value"))
    assert all(set(s.unique().tolist()) == {0, 1} for s in (q, k, v))
    for head in (slice(0, 4), slice(4, 8)):
        # Without softmax the order is free: Q(KᵀV) costs tokens × channels², not tokens².
        linear = q[0, ..., head] @ (k[0, ..., head].transpose(-1, -2) @ v[0, ..., head])
        torch.testing.assert_close(seen["current"][..., head], 0.3 * linear)


def test_every_parameter_learns():
    torch.manual_seed(0)
    net = Spikformer(n_channels=16)
    net(torch.rand(32, 64)).square().sum().backward()
    assert N_TOKENS == 9
    for name, parameter in net.named_parameters():
        assert parameter.grad.abs().max() > 0, name
