"""Small folders of Lean's kind for the tests of this folder."""

import datetime as dt
import zipfile
from pathlib import Path

from tests.data.bars import sessions


def put_zip(path: Path, member: str, *lines: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(member, "".join(f"{line}\r\n" for line in lines))
    return path


def put_daily(root: Path, ticker: str, first: dt.date, closes: list[float]) -> Path:
    """`daily/<ticker>.zip`: open = high = low = close on consecutive sessions, in 1/10000 USD, 100 shares a day."""
    days = sessions(first, len(closes))["session"]
    lines = [f"{d:%Y%m%d} 00:00,{','.join([str(round(c * 10_000))] * 4)},100" for d, c in zip(days, closes, strict=True)]
    return put_zip(root / "daily" / f"{ticker}.zip", f"{ticker}.csv", *lines)


def put_company(root: Path, name: str, map_rows: list[str], factor_rows: list[str] | None = None) -> None:
    """`map_files/<name>.csv` and `factor_files/<name>.csv`; without rows no event at all."""
    factors = [f"{map_rows[0][:8]},1,1,1", "20501231,1,1,0"] if factor_rows is None else factor_rows
    for folder, rows in (("map_files", map_rows), ("factor_files", factors)):
        (root / folder).mkdir(parents=True, exist_ok=True)
        (root / folder / f"{name}.csv").write_text("\n".join(rows))
