"""The vault: the last bars of a real set, on which nothing is tested until a configuration opens it, once.

Test blocks end so far before it that no label of theirs closes inside. The live models may learn from it, because nothing
is scored there. Opened, it is all that is tested. That a configuration has opened it stands in the ledger; "a
configuration" is its family: another seed, or another first day of the vault, is no other configuration.
"""

from __future__ import annotations

import datetime as dt
import json
import uuid
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from rlaif_ray.core import canonical_json
from rlaif_ray.errors import ConfigError
from rlaif_ray.ledger import TrialLedger
from rlaif_ray.runs import Run, write_atomically

YEARS = 2  # at the end of a real set for which no first day is given
State = Literal["none", "closed", "open", "broken"]


@dataclass(frozen=True)
class Vault:
    """Rows `row` to the last of a cube; `row` is None where there is none."""

    row: int | None
    bars: int
    first: str  # days
    last: str
    state: State

    @classmethod
    def of(
        cls, times: np.ndarray, *, first_day: dt.date | None, asked: Literal["closed", "open", "broken"], real: bool, bars_per_year: float
    ) -> Vault:  # fmt: skip
        """The vault of a set with bars that end at `times` (T,).

        Parameters
        ----------
        first_day : its first day; None: the last two years of a real set, nothing of a synthetic one.
        asked : what a run wants of it.

        Raises `ConfigError` where it is to be opened and there is none.
        """
        if first_day is not None:
            row = int(np.searchsorted(times, np.datetime64(first_day)))
        else:
            row = max(len(times) - round(YEARS * bars_per_year), 0) if real else len(times)
        days = times.astype("datetime64[D]")
        if row == len(times):
            if asked != "closed":
                raise ConfigError(f"no bar of the data, which end on {days[-1]}, is in a vault to open; check --backtest.vault_from")
            return cls(None, 0, str(first_day) if real and first_day else "", "", "none")
        return cls(row, len(times) - row, str(days[row]), str(days[-1]), asked)

    @property
    def opened(self) -> bool:
        return self.state in ("open", "broken")

    @property
    def result(self) -> dict[str, Any]:
        """For result.json and verdict.json."""
        return {"state": self.state, "from": self.first or None, "bars": self.bars}

    @property
    def notes(self) -> list[str]:
        """What a reader must know of it, one sentence or none."""
        if self.state == "none":
            return [f"The vault begins on {self.first}, after the last bar: nothing is kept from being tested."] if self.first else []
        span = f"{self.first} to {self.last} ({self.bars} bars)"
        said: dict[State, str] = {
            "closed": f"The vault, {span}, is closed: nothing was tested there; the live models have learnt from it.",
            "open": f"The vault, {span}, was opened for this run: it is all that was tested, and it cannot serve as a test again.",
            "broken": f"VAULT BROKEN: {span} was opened with --break-vault; what was tested there may have been chosen there.",
        }
        return [said[self.state]]


def open_vault(vault: Vault, run: Run, ledger: TrialLedger, data_version: str) -> None:
    """Say in the ledger that the run's configuration looks in, before it does. A run that is resumed has said so already.

    Raises `ConfigError` where the configuration has looked before and `vault` is not to be broken.
    """
    token = run.path / "vault.json"
    if not token.exists():
        write_atomically(token, canonical_json({"opened_by": uuid.uuid4().hex}))
    opened_by = json.loads(token.read_text())["opened_by"]
    where, again = f"{vault.first}/{vault.last}", vault.state == "broken"
    ledger.open_vault(run.config.family, run.config.hash, data_version, where, opened_by=opened_by, again=again)
