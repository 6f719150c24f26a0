"""What can go wrong with a recommendation; every error says what to do next."""


class RecommendError(Exception):
    """Root of this package's errors."""


class NoModelError(RecommendError):
    """There is no trained model, or it does not fit the data."""


class UnknownItemError(RecommendError):
    """An item is not in the catalogue."""
