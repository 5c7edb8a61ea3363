"""What the demo's models are, in a line each. No torch here: the command line lists them."""

MODEL_STORIES = {
    "digits": "spiking layers, ternary weights and ternary spikes, on handwritten digits",
    "spike-gpt": "a language model with spiking RWKV blocks, on Python's own docstrings",
    "spikformer": "spiking self-attention without softmax, on digits in patches",
    "equilibrium": "a recurrent network without surrogate, trained at its equilibrium",
    "goose": "a linear-attention student with ternary keys and values, and its teacher",
    "twn": "ternary weights, threshold from their mean (TWN), kept from collapsing",
    "ttq": "ternary weights with two scales that learn (TTQ)",
    "tervit": "ternary weights with a scale a channel, after 8-bit ones (TerViT)",
    "lsq": "ternary weights with a step size that learns (LSQ)",
    "sttn": "ternary weights as a sum of two binary kernels (STTN)",
    "tequila": "ternary weights whose zeros act as a bias (TEQUILA)",
    "progressive": "full precision, then soft, then hard ternary weights",
}
