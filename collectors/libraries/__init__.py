"""One file per SNN or quantization library: how its layers are recognised and read."""
