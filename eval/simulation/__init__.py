"""Simulated catalogues, users whose tastes we know, and their logs."""
