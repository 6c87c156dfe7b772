"""The archive that krew installs, and its manifest: `python plugins/pack.py WHEEL URI FOLDER`."""

from __future__ import annotations

import gzip
import hashlib
import io
import sys
import tarfile
from pathlib import Path
from string import Template

from modelrollout import __version__

HERE = Path(__file__).parent
ARCHIVE, MANIFEST, LAUNCHER = (
    "kubectl-modelrollout.tar.gz",
    "modelrollout.yaml",
    "kubectl-modelrollout",
)
MODE, EXECUTABLE = 0o644, 0o755


def main(wheel: Path, uri: str, folder: Path) -> None:
    """Write both. The same wheel gives the same bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    packed = archive(wheel)
    (folder / ARCHIVE).write_bytes(packed)
    template = Template((HERE / MANIFEST).read_text())
    checksum = hashlib.sha256(packed).hexdigest()
    text = template.substitute(version=__version__, uri=uri, sha256=checksum)
    (folder / MANIFEST).write_text(text)


def archive(wheel: Path) -> bytes:
    """The launcher, the wheel and the licence."""
    tar = io.BytesIO()
    with tarfile.open(fileobj=tar, mode="w") as file:
        for path in (HERE / LAUNCHER, wheel, HERE.parent / "LICENSE"):
            member = tarfile.TarInfo(path.name)
            member.size = path.stat().st_size
            member.mode = EXECUTABLE if path.name == LAUNCHER else MODE
            file.addfile(member, io.BytesIO(path.read_bytes()))
    return gzip.compress(tar.getvalue(), mtime=0)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3]))
