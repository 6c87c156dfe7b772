"""The documents as a site: built without a warning, and no link in it leads nowhere."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = [
    page
    for page in [*ROOT.glob("*.md"), *DOCS.rglob("*.md"), *(ROOT / "charts").rglob("*.md")]
    if page.is_file()
]
FENCED = re.compile(r"^( *)```.*?^\1```$", flags=re.DOTALL | re.MULTILINE)


class Page(HTMLParser):
    """The links of a page, and the places that can be linked to."""

    def __init__(self, path):
        super().__init__()
        self.links, self.ids = [], set()
        self.feed(path.read_text())

    def handle_starttag(self, tag, attrs):
        given = dict(attrs)
        if "id" in given:
            self.ids.add(given["id"])
        if tag == "a" and "href" in given:
            self.links.append(given["href"])
        if tag in {"img", "script"} and "src" in given:
            self.links.append(given["src"])


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("documents") / "site"
    script = str(DOCS / "publish.py")
    done = subprocess.run(
        [sys.executable, script, str(folder)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return folder


def broken(folder):
    """Each link within a site that leads nowhere, with its page."""
    pages = {path: Page(path) for path in folder.rglob("*.html")}
    for path, page in pages.items():
        # What is missing can be missed at any depth: its links are from the root of a host.
        if path.name == "404.html":
            continue
        for link in page.links:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = path
            if parts.path:
                target = Path(os.path.normpath(path.parent / unquote(parts.path)))
                target = target / "index.html" if target.is_dir() else target
            known = pages[target].ids if target in pages else set()
            if not target.exists() or (parts.fragment and unquote(parts.fragment) not in known):
                yield f"{path.relative_to(folder)}: {link}"


def test_no_link_and_no_anchor_of_the_site_leads_nowhere(site):
    assert sorted(broken(site)) == []


def test_a_broken_anchor_would_be_seen(tmp_path):
    (tmp_path / "a.html").write_text('<a href="b.html#no">x</a><a href="c.html">y</a>')
    (tmp_path / "b.html").write_text('<h1 id="yes">b</h1>')

    assert list(broken(tmp_path)) == ["a.html: b.html#no", "a.html: c.html"]


def test_the_site_has_every_page(site):
    missing = [
        str(page)
        for page in DOCS.rglob("*.md")
        if not any(
            (site / page.relative_to(DOCS).with_suffix(end)).exists() for end in ("", ".html")
        )
    ]

    assert missing == []


def navigated(entries):
    for entry in entries:
        if isinstance(entry, str):
            yield entry
        else:
            for value in entry.values():
                yield from [value] if isinstance(value, str) else navigated(value)


def test_every_page_can_be_found_in_the_navigation():
    nav = list(navigated(tomllib.loads((ROOT / "zensical.toml").read_text())["project"]["nav"]))
    pages = [str(page.relative_to(DOCS)) for page in DOCS.glob("*.md")]

    assert sorted(set(pages) - set(nav)) == []
    assert len(nav) == len(set(nav))


def slug(heading):
    """The anchor that a forge gives a heading."""
    plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).lower()
    return re.sub(r"[^\w\- ]", "", plain).replace(" ", "-")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_anchors_are_there_for_readers_of_the_repository_too(page):
    text = FENCED.sub("", page.read_text())
    missing = []
    for link in re.findall(r"\]\(([^)\s]*#[^)\s]+)\)", text):
        path, _, anchor = link.partition("#")
        if "://" in link:
            continue
        linked = page.parent / path if path else page
        headings = re.findall(r"^#+ (.+)$", FENCED.sub("", linked.read_text()), flags=re.MULTILINE)
        if anchor not in map(slug, headings):
            missing.append(link)

    assert missing == []
