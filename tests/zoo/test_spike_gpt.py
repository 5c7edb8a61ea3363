"""The language model: its recurrence by hand, and that no letter sees those that follow it."""

import subprocess
import sys

import pytest
import torch

from spikewatch.zoo.spike_gpt import BinaryEmbedding, SpikeGPT, shifted, wkv
from spikewatch.zoo.text import ALPHABET, WINDOW, Text, load_text


def test_wkv_is_the_recurrence_of_rwkv():
    torch.manual_seed(0)
    k, v = torch.randn(2, 3, 9, 4, dtype=torch.float64)
    w, u = torch.rand(2, 4, dtype=torch.float64)
    given = wkv(k, v, decay=w, bonus=u)
    top = bottom = torch.zeros(3, 4, dtype=torch.float64)
    for t in range(9):
        now = (u + k[:, t]).exp()
        torch.testing.assert_close(given[:, t], (top + now * v[:, t]) / (bottom + now))
        top = (-w).exp() * top + k[:, t].exp() * v[:, t]
        bottom = (-w).exp() * bottom + k[:, t].exp()


def test_wkv_does_not_overflow():
    k = torch.tensor([[[500.0], [-500.0], [900.0]]])
    v = torch.tensor([[[1.0], [2.0], [3.0]]])
    assert wkv(k, v, decay=torch.ones(1), bonus=torch.zeros(1)).flatten().tolist() == [1, 1, 3]


def test_the_token_before_is_nothing_at_the_start():
    x = torch.arange(6.0).reshape(1, 3, 2)
    assert shifted(x).tolist() == [[[0, 0], [0, 1], [2, 3]]]


def test_scores_do_not_depend_on_later_letters_nor_on_other_samples():
    torch.manual_seed(0)
    net = SpikeGPT().eval()
    tokens = torch.randint(len(ALPHABET), (4, WINDOW))
    other = tokens.clone()
    other[:, 10:] = torch.randint(len(ALPHABET), (4, WINDOW - 10))
    other[1:] = 3
    with torch.no_grad():
        a, b = net(tokens), net(other)
    torch.testing.assert_close(a[0, :10], b[0, :10], rtol=1e-4, atol=1e-5)
    assert not torch.allclose(a[0, 10:], b[0, 10:], atol=1e-3)


def test_an_embedding_of_spikes_learns():
    torch.manual_seed(0)
    embedding = BinaryEmbedding(5, 8)
    spikes = embedding(torch.tensor([1, 4]))
    assert set(spikes.flatten().tolist()) == {0, 1}
    spikes.sum().backward()
    assert embedding.embedding.weight.grad[[1, 4]].abs().min() > 0


# ------------------------------------------------------------------------------------------ text


def test_the_text_is_english_of_one_alphabet_and_the_target_is_the_next_letter():
    train, test = load_text()
    assert len(train.letters) > 100_000 > len(test.letters) > 5_000
    text = "".join(ALPHABET[i] for i in train.letters[:50_000].tolist())
    assert " the " in text
    assert "  " not in text
    windows, following = next(train.batches(8, generator=torch.Generator().manual_seed(0)))
    assert windows.shape == following.shape == (8, WINDOW)
    assert torch.equal(windows[:, 1:], following[:, :-1])


def test_windows_are_drawn_by_their_own_generator():
    train, _ = load_text()
    state = torch.get_rng_state()
    a, b = (next(train.batches(4, generator=torch.Generator().manual_seed(2))) for _ in "ab")
    assert torch.equal(a[0], b[0])
    assert torch.equal(torch.get_rng_state(), state)


def test_the_windows_of_the_test_text_are_always_the_same():
    text = Text(torch.arange(1000) % 7)
    assert torch.equal(text.all()[0], text.all()[0])
    assert torch.equal(text.all()[1], (text.all()[0] + 1) % 7)


@pytest.mark.slow
def test_a_python_without_docstrings_is_told_what_to_do():
    code = (
        "from spikewatch.zoo.text import load_text\n"
        "from spikewatch import SpikewatchError\n"
        "try: load_text()\n"
        "except SpikewatchError as error: print(error)"
    )
    ran = subprocess.run([sys.executable, "-OO", "-c", code], capture_output=True, text=True)
    assert "without -OO" in ran.stdout, ran.stderr
