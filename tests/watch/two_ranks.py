"""One rank of a distributed training on CPU, run as a script: `two_ranks.py WAY FOLDER`.

Trains three times from the same start: bare, attached to the inner model before it is wrapped, and
attached to the wrapped one. Fails where one of them ends with other weights than the first.
"""

import os
import sys
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn


sys.path.insert(0, str(Path(__file__).parent))

from little_nets import Own

import spikewatch


BATCH, N_STEPS = 800, 3
RANK = int(os.environ["RANK"])


def wrapped(way: str, net: nn.Module) -> nn.Module:
    """The model as it is trained on several ranks."""
    if way == "ddp":
        return nn.parallel.DistributedDataParallel(net)
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh("cpu", (dist.get_world_size(),))
    fully_shard(net.fc2, mesh=mesh)  # the user's class becomes one of FSDP's
    return fully_shard(net, mesh=mesh)


def whole(parameter: nn.Parameter) -> torch.Tensor:
    return getattr(parameter, "full_tensor", parameter.detach)()


def train(way: str, folder: str, attach_to: str) -> list[torch.Tensor]:
    torch.manual_seed(0)
    net, watch = Own(), None
    if attach_to == "inner":
        watch = spikewatch.attach(net, dir=folder, run="inner", every=1, quiet=True)
    model = wrapped(way, net)
    if attach_to == "outer":
        watch = spikewatch.attach(model, dir=folder, run="outer", every=1, quiet=True)
    if attach_to == "one rank" and RANK == 0:
        watch = spikewatch.attach(model, dir=folder, run="one", every=1, quiet=True)
    optimizer = torch.optim.SGD(model.parameters(), 0.01)
    torch.manual_seed(10 + RANK)
    for _ in range(N_STEPS):
        model(torch.rand(BATCH, 8)).square().sum().backward()
        optimizer.step()
        optimizer.zero_grad()
    if watch is not None:
        watch.close()
    return [whole(p) for p in model.parameters()]


def main(way: str, folder: str) -> None:
    torch.set_num_threads(1)
    meeting = f"file://{folder}/meeting"
    dist.init_process_group("gloo", init_method=meeting, rank=RANK, world_size=2)
    expected = train(way, folder, "nothing")
    for attach_to in ("inner", "outer", "one rank"):
        got = train(way, folder, attach_to)
        assert all(torch.equal(a, b) for a, b in zip(got, expected, strict=True)), attach_to
    dist.destroy_process_group()


if __name__ == "__main__":
    main(*sys.argv[1:])
