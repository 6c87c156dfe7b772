"""
The documents as a site: `python docs/publish.py [SITE]`, by default in site/; warnings are errors.

Pages link to code, examples and READMEs outside of docs/, as readers of the repository expect. A
site has nothing outside of it, so what is linked is taken along, below `repository/`, and diagrams
are drawn.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from diagrams import drawn

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
FIRST = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")
LINK = re.compile(r"(!?)\[((?:[^\[\]]|\[[^\]]*\])*)\]\(([^)\s]+)\)")
FENCED = re.compile(r"^( *)```.*?^\1```$", flags=re.DOTALL | re.MULTILINE)


class Stage:
    """The pages, and all that they link to, in the places that they have on the site."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._waiting = [*sorted(DOCS.rglob("*.md")), *(ROOT / each for each in FIRST)]
        self._seen = set(self._waiting)
        self.dead: list[str] = []
        """Links to what there is not, with their pages."""

    def fill(self) -> None:
        """Page after page, until nothing that is linked is missing."""
        while self._waiting:
            source = self._waiting.pop()
            target = self._folder / place(source)
            target.parent.mkdir(parents=True, exist_ok=True)
            if source.suffix == ".md":
                target.write_text(self._rewritten(source))
            else:
                shutil.copyfile(source, target)
        (self._folder / "adr" / "index.md").write_text(decisions())

    def _rewritten(self, source: Path) -> str:
        """The page, with its links as they are on the site; code is left as it is."""
        text, at, parts = source.read_text(), 0, []
        for block in FENCED.finditer(text):
            parts += [self._linked(source, text[at : block.start()]), drawn(block.group())]
            at = block.end()
        return "".join([*parts, self._linked(source, text[at:])])

    def _linked(self, source: Path, text: str) -> str:
        return LINK.sub(lambda link: self._link(source, *link.groups(), link.group()), text)

    def _link(self, source: Path, mark: str, words: str, target: str, whole: str) -> str:
        path, hash_, anchor = target.partition("#")
        if "://" in target or target.startswith("mailto:") or not path:
            return whole
        linked = Path(os.path.normpath(source.parent / path))
        if linked == DOCS / "adr":
            linked = linked / "index.md"
        elif linked.is_dir():
            return words
        elif not linked.is_file():
            self.dead.append(f"{source.relative_to(ROOT)}: {target}")
            return whole
        elif linked not in self._seen:
            self._seen.add(linked)
            self._waiting.append(linked)
        new = os.path.relpath(place(linked), place(source).parent)
        return f"{mark}[{words}]({Path(new).as_posix()}{hash_}{anchor})"


def place(source: Path) -> Path:
    """Where a file is on the site."""
    if source.is_relative_to(DOCS):
        return source.relative_to(DOCS)
    return "repository" / source.relative_to(ROOT)


def decisions() -> str:
    """The page that lists them."""
    lines = [
        f"* [{page.read_text().splitlines()[0].removeprefix('# ')}]({page.name})"
        for page in sorted((DOCS / "adr").glob("*.md"))
    ]
    return "# Decisions\n\nWhy things are as they are, and what was rejected.\n\n" + "\n".join(
        lines
    )


def publish(site: Path) -> None:
    """Build all of it; an error says what is wrong."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        shutil.copyfile(ROOT / "zensical.toml", folder / "zensical.toml")
        stage = Stage(folder / "docs")
        stage.fill()
        if stage.dead:
            raise ValueError("\n".join(["these links lead nowhere:", *stage.dead]))
        zensical = Path(sys.executable).parent / "zensical"
        done = subprocess.run(  # noqa: S603  # of the same environment, with no words of anybody's
            [zensical, "build", "--strict"], cwd=folder, capture_output=True, text=True, check=False
        )
        if done.returncode != 0:
            raise ValueError(f"{done.stdout}{done.stderr}")
        shutil.rmtree(site, ignore_errors=True)
        shutil.move(folder / "site", site)


def main(arguments: list[str]) -> None:
    """Publish, or end with the sentence why not."""
    try:
        publish(Path(arguments[0]) if arguments else ROOT / "site")
    except ValueError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main(sys.argv[1:])
