"""The documents as a site: built without a warning, and no link in it leads nowhere."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
import tomllib
from functools import partial
from html.parser import HTMLParser
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from playwright.sync_api import sync_playwright

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


class Fetched(HTMLParser):
    """What a browser fetches by itself for a page, and does not find at the same host."""

    def __init__(self, text):
        super().__init__()
        self.elsewhere, self.names = [], set()
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        given = dict(attrs)
        self.names |= set((given.get("class") or "").split())
        is_link = tag == "link" and given.get("rel") not in {"canonical", "prev", "next"}
        names = ("src", "srcset", "data", "poster", *(("href",) if is_link or tag == "use" else ()))
        for name in names:
            if re.match(r"([a-z]+:)?//", given.get(name) or ""):
                self.elsewhere.append(f"{tag} {name}={given[name]}")
        self.elsewhere += re.findall(r"url\(['\"]?(?:https?:)?//[^)]*", given.get("style") or "")


def test_pages_load_nothing_from_other_hosts(site):
    """A diagram that is left as text would have the theme fetch the program that draws it."""
    pages = {path: Fetched(path.read_text()) for path in site.rglob("*.html")}
    styles = [path.read_text() for path in site.rglob("*.css")]

    assert {str(path): each.elsewhere for path, each in pages.items() if each.elsewhere} == {}
    assert [str(path) for path, each in pages.items() if "mermaid" in each.names] == []
    assert re.findall(r"(?:url\(|@import )['\"]?(?:https?:)?//", "".join(styles)) == []


def test_what_is_loaded_from_another_host_would_be_seen():
    page = '<script src="https://a/x.js"></script><link rel=stylesheet href=//b/y><img src="z.svg">'

    assert Fetched(page).elsewhere == ["script src=https://a/x.js", "link href=//b/y"]


def test_a_browser_asks_no_other_host_for_the_pages_with_diagrams(site):
    """Diagrams are drawn, and whatever the theme's program does, it stays at home."""
    asked, handler = set(), partial(Quiet, directory=site)
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server, sync_playwright() as playwright:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        browser = playwright.chromium.launch(
            executable_path="/usr/bin/chromium", args=["--no-sandbox"]
        )
        page = browser.new_page()
        page.on("request", lambda request: asked.add(urlsplit(request.url).netloc))
        for name in ("architecture", "shadow", "state-machine", "repository"):
            page.goto(f"http://127.0.0.1:{server.server_address[1]}/{name}/")
            assert page.locator(".diagram").count() == 1
            assert page.locator(".diagram").bounding_box()["height"] > 100
        browser.close()
        server.shutdown()

    assert asked == {f"127.0.0.1:{server.server_address[1]}"}


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def diagrams():
    found = spec_from_file_location("diagrams", DOCS / "diagrams.py")
    module = module_from_spec(found)
    sys.modules["diagrams"] = module  # dataclasses look themselves up there
    found.loader.exec_module(module)
    return module


def test_every_arrow_and_every_word_of_a_diagram_is_drawn(diagrams):
    texts = [each for page in PAGES for each in diagrams.FENCED.findall(page.read_text())]
    assert len(texts) >= 3
    for text in texts:
        kind, *lines = text.strip().splitlines()
        drawn = diagrams.drawn(f"```mermaid\n{text}```\n")
        arrows = drawn.count("marker-end") if kind == "flowchart LR" else drawn.count("●") + 1
        labels = re.findall(r"[-.] ([^-.>]+?) [-.]+>", text)
        assert arrows == len(lines)
        assert [each for each in labels if f">{each}<" not in drawn] == []


@pytest.mark.parametrize("text", ["pie\n  a: 1\n", "flowchart LR\n  a --> b & c\n"])
def test_what_cannot_be_drawn_stops_the_build_of_the_site(diagrams, text):
    with pytest.raises(ValueError, match=r"no diagram of this kind|no edge of a flowchart"):
        diagrams.drawn(f"```mermaid\n{text}```\n")


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
