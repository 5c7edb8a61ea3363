"""Formulas that more than one table uses."""

import polars as pl


def entropy_bits(*shares: pl.Expr) -> pl.Expr:
    """Shannon entropy −Σ p log2 p in bits, with 0 log 0 = 0; NULL if a share is NULL."""
    terms = [pl.when(p > 0).then(-p * p.log(2)).otherwise(0.0 * p) for p in shares]
    return pl.sum_horizontal(terms, ignore_nulls=False)
