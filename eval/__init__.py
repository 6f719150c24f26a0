"""Evaluation: how far the parts of Limner can be trusted, in figures."""
