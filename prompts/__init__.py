"""Prompt files, versioned and immutable once released, and their strict loader."""
