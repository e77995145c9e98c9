"""Where EDGAR's records are had from: a folder of them, or EDGAR's own web interface."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from rlaif_ray.data.patience import Patience
from rlaif_ray.data.saved import read_bytes, read_json
from rlaif_ray.data.web import Web
from rlaif_ray.errors import ConfigError, DataError, MissingDataError, SchemaError

_COMPANY = re.compile(r"CIK(\d{10})(-submissions-\d+)?\.json(\.gz)?$")
_ACCESSION = re.compile(r"(\d{10})-?(\d{2})-?(\d{6})")
_DOCUMENT = re.compile(r"\.(html?|xml|txt)(\.gz)?$", re.IGNORECASE)


class EdgarFolder:
    """A folder that holds what EDGAR's bulk archives unpack to, as it is or gzipped.

    `CIK<10 digits>.json` under a folder with `companyfacts` in its name, the same and `CIK<10 digits>-submissions-<n>.json`
    under one with `submissions`, and the documents of filings anywhere, where a folder's or the file's name holds the
    accession number. Symbols are the tickers that the submissions name, else `CIK<10 digits>`.
    """

    def __init__(self, path: str) -> None:
        # A worker's current folder is not the driver's.
        self.path = str(Path(path).expanduser().absolute())

    def companies(self) -> dict[str, int]:
        """Symbol -> CIK. Raises `MissingDataError` where the folder holds no company."""
        if not self._records:
            raise MissingDataError(
                f"{self.path} holds no CIK<10 digits>.json in a folder named *companyfacts* or *submissions*; check facts.path"
            )
        found = {}
        for cik in sorted({cik for _, cik in self._records}):
            recent = self._records.get(("submissions", cik), [])
            said = read_json(recent[0]) if recent else None
            tickers = said.get("tickers") if isinstance(said, dict) else None
            found |= {symbol: cik for symbol in tickers or [f"CIK{cik:010d}"]}
        return found

    def submissions(self, cik: int) -> list[Mapping[str, Any]]:
        """Column lists of the company's filings; none where the folder has no submissions of it."""
        pages = [(path, read_json(path)) for path in self._records.get(("submissions", cik), [])]
        return [
            _within(page, str(path), "filings", "recent") if isinstance(page, dict) and "filings" in page else page for path, page in pages
        ]

    def company_facts(self, cik: int) -> Mapping[str, Any] | None:
        """EDGAR's `companyfacts`, None where the folder has none of the company."""
        paths = self._records.get(("companyfacts", cik))
        return read_json(paths[0]) if paths else None

    def document(self, cik: int, accession: str, name: str) -> bytes | None:
        """A filing's main document, None where the folder has none of the filing. Raises `DataError` where it cannot be told."""
        paths = self._documents.get(accession, [])
        named = [p for p in paths if p.name.removesuffix(".gz") == name]
        if not paths:
            return None
        if not named and len(paths) > 1:
            raise DataError(f"{paths[0].parent} has {len(paths)} documents of {accession}, none of them {name}; expected that one")
        return read_bytes(named[0] if named else paths[0])

    @cached_property
    def _records(self) -> dict[tuple[str, int], list[Path]]:
        """(kind, CIK) -> files, the company's own before its older pages."""
        found: dict[tuple[str, int], list[Path]] = {}
        for path in self._files:
            match = _COMPANY.search(path.name)
            kind = next((k for k in ("companyfacts", "submissions") if k in path.parent.name.lower()), None)
            if match and kind:
                found.setdefault((kind, int(match[1])), []).append(path)
        return {key: sorted(paths, key=lambda p: p.name.replace(".json", "")) for key, paths in found.items()}

    @cached_property
    def _documents(self) -> dict[str, list[Path]]:
        found: dict[str, list[Path]] = {}
        for path in self._files:
            match = _ACCESSION.search(str(path.relative_to(self.path)))
            if match and _DOCUMENT.search(path.name):
                found.setdefault("-".join(match.groups()), []).append(path)
        return found

    @cached_property
    def _files(self) -> list[Path]:
        return sorted(p for p in Path(self.path).rglob("*") if p.is_file())


@dataclass(frozen=True)
class EdgarApi:
    """EDGAR's web interface (data.sec.gov, www.sec.gov).

    Parameters
    ----------
    user_agent : who asks, as EDGAR demands it: a name and a mail address. Refused when it has none.
    per_second : requests a second of all who share `bucket_file`. EDGAR allows 10 from one caller.
    timeout_s, bucket_file, clock, sleep : see `patience.Patience`.
    data_url, archive_url : the two hosts.
    """

    user_agent: str
    per_second: float = 10.0
    timeout_s: float = 30.0
    data_url: str = "https://data.sec.gov"
    archive_url: str = "https://www.sec.gov"
    bucket_file: str | None = None
    clock: Callable[[], float] = time.time
    sleep: Callable[[float], None] = time.sleep

    def __post_init__(self) -> None:
        if "@" not in self.user_agent:
            raise ConfigError(
                f"facts.user_agent is {self.user_agent!r}; EDGAR expects to be told who asks: a name and a mail address, such as "
                f"'Jane Doe jane@example.com'"
            )

    def companies(self) -> dict[str, int]:
        """Ticker -> CIK of all that EDGAR lists, some ten thousand."""
        listed = self._web.json(f"{self.archive_url}/files/company_tickers.json")
        rows = listed.values() if isinstance(listed, dict) else [listed]
        where = "EDGAR's list of companies"
        return {_within(row, where, "ticker"): int(_within(row, where, "cik_str")) for row in rows}

    def submissions(self, cik: int) -> list[Mapping[str, Any]]:
        """Column lists of all of the company's filings, the older pages too."""
        answer = self._web.json(f"{self.data_url}/submissions/CIK{cik:010d}.json")
        where = f"EDGAR's submissions of CIK{cik:010d}"
        recent, files = (_within(answer, where, "filings", part) for part in ("recent", "files"))
        return [recent, *(self._web.json(f"{self.data_url}/submissions/{_within(page, where, 'name')}") for page in files)]

    def company_facts(self, cik: int) -> Mapping[str, Any]:
        """EDGAR's `companyfacts`. Raises `MissingDataError` for a company that files none."""
        return self._web.json(f"{self.data_url}/api/xbrl/companyfacts/CIK{cik:010d}.json")

    def document(self, cik: int, accession: str, name: str) -> bytes:
        """A filing's main document."""
        return self._web.content(document_url(cik, accession, name, self.archive_url))

    @property
    def _web(self) -> Web:
        patience = Patience(
            "EDGAR", "set facts.user_agent to a name and a mail address, and ask again after ten minutes", 10, 10 / self.per_second,
            self.bucket_file, self.timeout_s, clock=self.clock, sleep=self.sleep,
        )  # fmt: skip
        return Web(patience, {"User-Agent": self.user_agent, "Accept-Encoding": "gzip, deflate"})


def document_url(cik: int, accession: str, name: str, archive_url: str = "https://www.sec.gov") -> str:
    """Where a filing's document lies in EDGAR's archive."""
    return f"{archive_url}/Archives/edgar/data/{cik}/{accession.replace('-', '')}/{name}"



def _within(answer: Any, where: str, *keys: str) -> Any:
    """What lies under one key after the other. Raises `SchemaError` where one is not there."""
    for key in keys:
        if not isinstance(answer, dict) or answer.get(key) is None:
            raise SchemaError(f"{where} is or holds {str(answer)[:80]}; expected an object with {key!r}, as EDGAR writes it")
        answer = answer[key]
    return answer
