"""Filings split into items: by hand on small ones, and on real ones where they are."""

import gzip
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

from rlaif_ray.data.edgar_items import Item, items
from rlaif_ray.errors import DataError

pytestmark = pytest.mark.skipif(find_spec("edgar") is None, reason="edgartools is not installed (extra edgar)")


@pytest.fixture(scope="module", autouse=True)
def own_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """edgartools makes a folder when it is imported; not in anybody's home."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EDGAR_LOCAL_DATA_DIR", str(tmp_path_factory.mktemp("edgar")))
        yield


BODIES = {
    "1": ("Business", "We make things. "), "1A": ("Risk Factors", "Things may break. "), "7": ("Management's Discussion", "Sales rose. "),
}  # fmt: skip


def annual_report(links: bool) -> bytes:
    """A 10-K with a table of contents that names each item before its text does."""
    rows, parts = [], []
    for number, (title, sentence) in BODIES.items():
        entry = f'<a href="#i{number}">Item {number}. {title}</a>' if links else f"Item {number}. {title}"
        rows.append(f"<tr><td>{entry}</td><td>{len(rows) + 3}</td></tr>")
        body = "".join(f"<p>{sentence * 20}</p>" for _ in range(5))
        parts.append(f'<div id="i{number}"></div><p><b>Item {number}. {title}</b></p>{body}')
    return f"""<html><body><p>FORM 10-K</p><p>TABLE OF CONTENTS</p><table>{"".join(rows)}</table>{"".join(parts)}
        <p><b>SIGNATURES</b></p><p>Pursuant to the requirements of Section 13 the registrant has signed.</p></body></html>""".encode()


@pytest.mark.parametrize("links", [True, False])
def test_the_table_of_contents_is_not_the_item(links: bool) -> None:
    found = items(annual_report(links), "10-K", "x")
    assert [item.section for item in found] == list(BODIES)
    for item in found:
        title, sentence = BODIES[str(item.section)]
        assert item.title == title and item.text.startswith(f"Item {item.section}. {title}")
        assert item.text.count(sentence.strip()) == 100
        assert not [other for number, (_, other) in BODIES.items() if number != item.section and other.strip() in item.text]


def test_a_document_without_items_is_one_text() -> None:
    release = b"<html><body><p>Press release</p><p>Sales&nbsp;rose.</p></body></html>"
    assert items(release, "8-K", "x") == [Item(None, None, "Press release\n\nSales rose.")]
    with pytest.raises(DataError, match=r"ex99\.htm of 0001 holds no text"):
        items(b"", "8-K", "ex99.htm of 0001")


def real(folder: Path, name: str) -> bytes:
    path = folder / "fundamentals" / "sec_filings_html" / name
    return gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()


TEN_K = ["1", "1A", "1B", "1C", "2", "3", "4", "5", "6", "7", "7A", "8", "9", "9A", "9B", "9C", "10", "11", "12", "13", "14", "15", "16"]


def test_annual_reports_of_apple_and_nvidia(real_data: Path) -> None:
    apple = {i.section: i for i in items(real(real_data, "10-K_AAPL_0000320193-24-000123/primary-document.html.gz"), "10-K", "x")}
    assert list(apple) == TEN_K
    assert apple["1A"].title == "Risk Factors" and 60_000 < len(apple["1A"].text) < 75_000
    assert apple["1A"].text.endswith("adverse impact on investor confidence and employee retention.")
    assert apple["4"].text.startswith("Item 4. Mine Safety Disclosures\n\nNot applicable.")
    assert "Net sales" in apple["8"].text and "391,035" in apple["8"].text  # total net sales of 2024, USD millions
    nvidia = {i.section: i for i in items(real(real_data, "10-K_NVDA_0001045810-24-000029/primary-document.html.gz"), "10-K", "x")}
    assert list(nvidia) == TEN_K
    assert nvidia["1"].text.startswith("Item 1. Business\n\nOur Company\n\nNVIDIA pioneered accelerated computing")
    assert nvidia["2"].text.startswith("Item 2. Properties") and len(nvidia["1A"].text) > 100_000
    assert len(nvidia["8"].text) < 300 and "60,922" in nvidia["15"].text  # its statements stand under item 15


def test_a_quarterly_report_numbers_its_items_by_part(real_data: Path) -> None:
    found = items(real(real_data, "10-Q_AAPL_0000320193-23-000077/primary-document.html.gz"), "10-Q", "x")
    assert [i.section for i in found] == ["I.1", "I.2", "I.3", "I.4", "II.1", "II.1A", "II.2", "II.3", "II.4", "II.5", "II.6"]
    assert "81,797" in found[0].text and found[5].title == "Risk Factors"  # net sales of the quarter


@pytest.mark.parametrize(("name", "sections"), [
    ("BuckleInc.8-K", ["2.02", "9.01"]), ("NextPoint.8K", ["8.01"]), ("Oracle.8-K", ["5.07"]), ("form8k.Nordstrom", ["5.02", "9.01"]),
    ("BuckleInc.8-K.EX99.1", [None]),
])  # fmt: skip
def test_current_reports(real_data: Path, name: str, sections: list[str | None]) -> None:
    found = items(real(real_data, f"8-K/{name}.html"), "8-K", "x")
    assert [i.section for i in found] == sections and all(len(i.text) > 150 for i in found)
    assert not [i for i in found if "SIGNATURE" in i.text]
