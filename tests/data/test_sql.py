import datetime as dt
import pickle
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from rlaif_ray.config_data import SqlData
from rlaif_ray.data import build
from rlaif_ray.data.clean import BAR_SCHEMA, sift
from rlaif_ray.data.lake import Lake
from rlaif_ray.data.sql import SqlSource
from rlaif_ray.errors import ConfigError, DataError, MissingDataError
from tests.servers.postgres import postgres_server

pytest.importorskip("sqlalchemy")

DAYS = ["2020-01-02", "2020-01-03", "2020-01-06"]
QUERY = "SELECT ticker, day, open, high, low, close, volume FROM prices"


@pytest.fixture
def database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[sqlite3.Connection]:
    """A SQLite file with three days of A and B, whose URL is in the environment."""
    path = tmp_path / "prices.db"
    monkeypatch.setenv("RLAIF_SQL_URL", f"sqlite:///{path}")
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE prices (ticker TEXT, day TEXT, open REAL, high REAL, low REAL, close REAL, volume INTEGER)")
    rows = [(s, day, 10 + i, 12.5 + i, 9 + i, 11 + i, 1000) for s in ("A", "B") for i, day in enumerate(DAYS)]
    connection.executemany("INSERT INTO prices VALUES (?, ?, ?, ?, ?, ?, ?)", rows)
    connection.commit()
    yield connection
    connection.close()


def test_one_symbol_a_query(database: sqlite3.Connection) -> None:
    source = pickle.loads(pickle.dumps(SqlSource(f"{QUERY};")))
    assert source.symbols() == ["A", "B"] and source.price_kind is None
    bars = source.read("B")["bars"]
    assert dict(bars.schema) == BAR_SCHEMA and bars["symbol"].unique().to_list() == ["B"]
    assert bars.select("session", "open", "high", "low", "close", "volume").row(0) == (dt.date(2020, 1, 2), 10, 12.5, 9, 11, 1000)
    assert bars["timestamp"].to_list() == [dt.datetime(2020, 1, d, 21, tzinfo=dt.UTC) for d in (2, 3, 6)]


def test_the_query_may_do_what_sql_does(database: sqlite3.Connection) -> None:
    query = """WITH wanted AS (SELECT * FROM prices WHERE volume > 0)
               SELECT ticker AS "Symbol", day AS "Date", close AS "Adj Close" FROM wanted"""
    source = SqlSource(query, names=["A"])
    assert source.symbols() == ["A"] and source.price_kind == "vendor_adjusted"
    assert source.read("A")["bars"]["close"].to_list() == [11, 12, 13]


def test_a_symbol_is_bound_and_never_written_into_the_query(database: sqlite3.Connection) -> None:
    evil = "A' OR '1'='1"
    for day in DAYS:
        database.execute("INSERT INTO prices VALUES (?, ?, 1, 1, 1, 1, 1)", (evil, day))
    database.commit()
    source = SqlSource(QUERY)
    assert evil in source.symbols() and source.read(evil)["bars"]["close"].to_list() == [1, 1, 1]


def test_short_bars_in_the_zone_of_the_table(database: sqlite3.Connection) -> None:
    database.execute("CREATE TABLE minutes (symbol TEXT, time TEXT, close REAL)")
    stamps = ["2019-07-03 09:30:00", "2019-07-03 09:45:00", "2019-07-03 10:00:00"]
    database.executemany("INSERT INTO minutes VALUES ('A', ?, 1)", [(s,) for s in stamps])
    database.commit()
    bars = SqlSource("SELECT * FROM minutes", stamp="start").read("A")["bars"]
    assert bars["timestamp"].dt.strftime("%H:%M").to_list() == ["13:45", "14:00", "14:15"]


@pytest.mark.parametrize(
    ("values", "says"),
    [("'A', '2020-01-07', 1, 1, 1, 'x', 1", r"data.query A row 4: close is 'x'; expected a number"),
     ("'A', '2020-01-07', 1, 1, 1, -1, 1", r"data.query A row 4: close is -1.0; expected a finite number > 0"),
     ("'A', '2020-01-07', 1, 1, 1, NULL, 1", r"data.query A row 4: close is missing"),
     ("'A', 'soon', 1, 1, 1, 1, 1", r"data.query A row 4: the time is 'soon'; expected a date"),
     ("'A', NULL, 1, 1, 1, 1, 1", r"data.query A row 4: the time is missing")],
)  # fmt: skip
def test_a_bad_cell_is_refused_by_row(database: sqlite3.Connection, values: str, says: str) -> None:
    database.execute(f"INSERT INTO prices VALUES ({values})")
    database.commit()
    with pytest.raises(DataError, match=says):
        SqlSource(QUERY).read("A")
    assert SqlSource(QUERY).read("B")["bars"].height == 3


def test_a_bad_price_costs_its_row_where_bad_rows_are_set_apart(database: sqlite3.Connection) -> None:
    for price in ("-1", "NULL", "9e999"):
        database.execute(f"INSERT INTO prices VALUES ('A', '2020-01-07', 1, 1, 1, {price}, 1)")
    database.commit()
    source = build(SqlData(type="sql", query=QUERY, bad_rows="quarantine"))
    good, apart = sift(source.read("A")["bars"])
    assert good["close"].to_list() == [11, 12, 13]
    assert [why.split(";")[0] for why in apart["reason"]] == ["close is -1.0", "close is missing", "close is inf"]


@pytest.mark.parametrize(
    ("query", "says"),
    [("SELECT * FROM nowhere", r"refused data.query \(no such table: nowhere\); check the query and \$RLAIF_SQL_URL"),
     ("DROP TABLE prices", r"refused data.query \(near \"DROP\": syntax error\)"),
     ("SELECT day, close FROM prices", r"data.query gives no symbol column among \['day', 'close'\]; expected one of symbol, ticker"),
     ("SELECT ticker, close FROM prices", r"data.query has no time column"), ("SELECT ticker, day FROM prices", r"no price column")],
)  # fmt: skip
def test_a_bad_query_is_refused_in_one_line(database: sqlite3.Connection, query: str, says: str) -> None:
    with pytest.raises(DataError, match=says) as caught:
        SqlSource(query).symbols()
    assert "\n" not in str(caught.value)


def test_symbols_that_are_not_there(database: sqlite3.Connection) -> None:
    with pytest.raises(MissingDataError, match=r"data.names asks for 'C'; data.query has 2 other symbols"):
        SqlSource(QUERY, names=["C"]).symbols()
    with pytest.raises(MissingDataError, match=r"data.query has no rows of C; expected bars"):
        SqlSource(QUERY).read("C")


def test_the_url_is_in_the_environment_and_never_shown(database: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused() -> str:
        with pytest.raises((ConfigError, DataError)) as caught:
            SqlSource(QUERY, url_variable="PRICES_URL").symbols()
        return str(caught.value)

    assert "$PRICES_URL is not set; expected a SQLAlchemy URL" in refused()
    for url in ("hunter2", "sqlite+hunter2://x", "postgresql+asyncpg://me:hunter2@127.0.0.1:1/x", "sqlite:////hunter2/nowhere.db"):
        monkeypatch.setenv("PRICES_URL", url)
        said = refused()
        assert "$PRICES_URL" in said and "me:" not in said and "@127" not in said and "\n" not in said
    assert "hunter2" not in repr(vars(SqlSource(QUERY, url_variable="PRICES_URL")))


def test_later_bars_leave_what_was_known_before(database: sqlite3.Connection, tmp_path: Path) -> None:
    lake, moment = Lake(str(tmp_path / "lake"), "sql"), dt.datetime(2020, 1, 6, 22, tzinfo=dt.UTC)
    served = []
    later = ("INSERT INTO prices VALUES ('A', '2020-01-07', 1, 1, 1, 1, 1)", "UPDATE prices SET close = 99 WHERE day = '2020-01-06'")
    for change in (None, *later):
        if change:
            database.execute(change)
            database.commit()
        lake.append("bars", SqlSource(QUERY).read("A")["bars"], "A", revised_at=dt.datetime(2020, 2, 1, tzinfo=dt.UTC))
        served.append(lake.read("bars", ["A"], as_of=moment))
    assert served[0].equals(served[1]) and served[0].equals(served[2])
    assert lake.read("bars", ["A"])["close"].to_list() == [11, 12, 99, 1]


def test_the_section_builds_it() -> None:
    source = build(SqlData(type="sql", query=QUERY, url_variable="X", names=("A",), adjustment="raw"))
    assert isinstance(source, SqlSource) and (source.url_variable, source.names, source.adjustment) == ("X", ("A",), "raw")


def test_postgresql_speaks_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with postgres_server(tmp_path) as server:
        server.run(
            """CREATE TABLE prices ("Ticker" CHAR(8), at TIMESTAMPTZ, open NUMERIC(10,2), high REAL, low DOUBLE PRECISION,
                                    close NUMERIC, vol BIGINT)""",
            *[f"INSERT INTO prices VALUES ('{s}', '{day} 16:00-05', 10.25, 12.5, 9, 11.125, 5000000000)" for s in "AB" for day in DAYS],
        )  # fmt: skip
        monkeypatch.setenv("RLAIF_SQL_URL", server.url)
        source = SqlSource('SELECT "Ticker", at AS time, open, high, low, close, vol FROM prices ORDER BY 2')
        assert source.symbols() == ["A", "B"]
        bars = source.read("B")["bars"]
        assert bars.select("open", "high", "low", "close", "volume").row(0) == (10.25, 12.5, 9, 11.125, 5e9)
        assert bars["session"].cast(str).to_list() == DAYS
        with pytest.raises(DataError, match=r'refused data.query \(relation "nowhere" does not exist'):
            SqlSource("SELECT * FROM nowhere").symbols()
        monkeypatch.setenv("RLAIF_SQL_URL", server.url.replace("tester", "nobody:hunter2"))
        with pytest.raises(DataError, match=r"refused data.query") as caught:
            source.symbols()
        assert "hunter2" not in str(caught.value)
