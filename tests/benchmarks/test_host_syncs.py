"""Waits for the GPU, counted in the events of a trace."""

import pytest
import torch

from benchmarks.overhead.host_syncs import MARK, Syncs, count_syncs, syncs_in


TRAINING, AUTOGRAD, WRITER = 1, 2, 3


def event(name, cat, tid, ts, correlation=None, dur=1.0):
    args = {} if correlation is None else {"correlation": correlation}
    return {"ph": "X", "name": name, "cat": cat, "tid": tid, "ts": ts, "dur": dur, "args": args}


def runtime(name, tid, ts, correlation=None):
    return event(name, "cuda_runtime", tid, ts, correlation)


MARKED = event(MARK, "user_annotation", TRAINING, 100.0, dur=100.0)
BACKWARD = event("autograd::engine::evaluate_function: MulBackward0", "cpu_op", AUTOGRAD, 120.0)


def count(*events):
    return syncs_in([MARKED, BACKWARD, *events], n_steps=2)


def test_launches_and_asynchronous_copies_to_the_gpu_wait_for_nothing():
    launch = runtime("cudaLaunchKernel", TRAINING, 110.0, 1)
    copy = runtime("cudaMemcpyAsync", TRAINING, 111.0, 2)
    moved = event("Memcpy HtoD (Pinned -> Device)", "gpu_memcpy", 7, 112.0, 2)
    assert count(launch, copy, moved) == Syncs(0, 0, 0, 2)


def test_an_item_in_the_training_thread_is_a_copy_and_a_wait():
    copy = runtime("cudaMemcpyAsync", TRAINING, 110.0, 1)
    moved = event("Memcpy DtoH (Device -> Pageable)", "gpu_memcpy", 7, 111.0, 1)
    wait = runtime("cudaStreamSynchronize", TRAINING, 112.0, 2)
    assert count(copy, moved, wait) == Syncs(1, 1, 0, 2)


def test_a_wait_in_a_gradient_hook_is_the_trainings():
    assert count(runtime("cudaStreamSynchronize", AUTOGRAD, 130.0)) == Syncs(1, 0, 0, 2)


def test_the_writer_may_wait():
    copy = runtime("cudaMemcpyAsync", WRITER, 110.0, 1)
    moved = event("Memcpy DtoH (Device -> Pageable)", "gpu_memcpy", 7, 111.0, 1)
    wait = runtime("cudaEventSynchronize", WRITER, 112.0, 2)
    assert count(copy, moved, wait) == Syncs(0, 0, 1, 2)


def test_waits_outside_of_the_marked_steps_are_not_counted():
    before = runtime("cudaDeviceSynchronize", TRAINING, 99.0)
    after = runtime("cudaDeviceSynchronize", TRAINING, 201.0)
    assert count(before, after) == Syncs(0, 0, 0, 2)


def test_a_trace_without_the_marked_range_is_refused():
    with pytest.raises(ValueError, match="overhead: training"):
        syncs_in([BACKWARD], n_steps=2)


def test_a_real_trace_of_steps_without_a_gpu_has_no_waits():
    net = torch.nn.Linear(3, 2)
    found = count_syncs(lambda: net(torch.ones(4, 3)).sum().backward(), n_steps=3)
    assert found == Syncs(0, 0, 0, 3)
