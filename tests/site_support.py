"""Pages of the site, read by a parser that owes nothing to the code."""

from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path

FETCHED = {("script", "src"), ("link", "href"), ("img", "src"), ("iframe", "src"), ("source", "src"), ("video", "src")}


class FetchedPage(HTMLParser):
    """What a page fetches while it is opened, and its text by table rows."""

    def __init__(self) -> None:
        super().__init__()
        self.addresses: list[str] = []
        self.rows: list[list[str]] = []
        self._inside = False

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        given = dict(attributes)
        # Of links in the head, those to the site's own address are no more than names.
        if not (tag == "link" and given.get("rel") in ("canonical", "prev", "next")):
            self.addresses += [value or "" for name, value in attributes if (tag, name) in FETCHED]
        if tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th") and self.rows:
            self.rows[-1].append("")
            self._inside = True

    def handle_endtag(self, tag: str) -> None:
        if tag in ("td", "th"):
            self._inside = False

    def handle_data(self, data: str) -> None:
        if self._inside:
            self.rows[-1][-1] += data


def read(path: Path) -> FetchedPage:
    page = FetchedPage()
    page.feed(path.read_text(encoding="utf-8"))
    return page
