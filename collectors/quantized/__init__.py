"""Quantized weights: which layers have them, what they multiply with, what is counted of them.

One way through: `finding` says which modules may have quantized weights; `seeing` catches the
weight that a layer really multiplies with; `observer` judges its levels and hands what it saw to
the `instruments`, each of which counts one thing.
"""
