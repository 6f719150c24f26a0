"""What can go wrong in an evaluation; every error says what to do next."""


class EvaluationError(Exception):
    """Root of this package's errors."""


class ReportError(EvaluationError):
    """A file is no report, or is one that this version cannot read."""


class EmptyWorldError(EvaluationError):
    """There is nothing to measure."""
