"""Policies against the market: the walk through a fold, what it earned, and what may be claimed from it."""
