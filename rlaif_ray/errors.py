"""The error tree. Every message says what was seen, what was expected and what to turn.

RlaifError
|- ConfigError(ValueError)        a knob is wrong
|- DataError(ValueError)          LookAheadError, MissingDataError, SchemaError
|- ModelError(RuntimeError)       NotFittedError, CheckpointError
|- AgentError(RuntimeError)       LLMUnavailable, BadCompletion, BudgetExceeded
`- ExecutionError(RuntimeError)   OrderRejected, RiskLimitBreached

`ConfigError` and `DataError` are the user's to mend (exit code 2); the rest are failures (exit code 1).
Only classes that something raises exist; the names above are reserved for the stages that will raise them.
All take one message, so they pickle and travel between Ray workers unchanged.
"""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


class RlaifError(Exception):
    """Root of every error that this package raises on purpose."""


class ConfigError(RlaifError, ValueError):
    """A knob has a wrong name or value."""


class DataError(RlaifError, ValueError):
    """The data does not say what it must."""


class LookAheadError(DataError):
    """Something asked for what was not yet known."""


class MissingDataError(DataError):
    """A path, symbol, column or row that is needed is not there."""


class SchemaError(DataError):
    """Columns or types are not those that the table must have."""


class ModelError(RlaifError, RuntimeError):
    """A model cannot be built, fitted or used."""


class NotFittedError(ModelError):
    """A model was asked to predict before it was fitted."""


class CheckpointError(ModelError):
    """Weights or a manifest on disk are missing or do not match."""


class ExecutionError(RlaifError, RuntimeError):
    """An account or an order is in a state that must not be."""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """' Did you mean X?' for the nearest known name, else an empty string."""
    near = get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f" Did you mean {near[0]!r}?" if near else ""
