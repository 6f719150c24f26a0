"""Recommendations: matrix factorization that takes the profile in, and reasons whose parts add up to the score."""
