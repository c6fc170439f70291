"""Drawings out of npm packages: each fetched at its version, checked, and read as an archive; nothing in it is run."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import re
import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path
from typing import Any

from drawings.tables import Source

ICONS = "package/icons.json"
"""Where a package of Iconify has its drawings; one without it has a WebP file for each."""

# tries an index that cannot be reached for seconds, not for a minute
_OPTIONS = ("--ignore-scripts", "--fetch-retry-mintimeout=500", "--fetch-retry-maxtimeout=5000")


def fetch(source: Source) -> bytes:
    """The package of an emoji set, as npm's configured index gives it.

    Raises:
        ValueError: if npm is not installed, if it cannot fetch the package, or if the package is another one than that
            of the table.
    """
    npm, name = shutil.which("npm"), f"{source.package}@{source.version}"
    if npm is None:
        raise ValueError(f"npm is needed to fetch {name}, and it is not installed: install Node.js, which brings it")
    with tempfile.TemporaryDirectory() as folder:  # also the working folder, so that no project's settings count
        command = [npm, "pack", name, *_OPTIONS, "--pack-destination", folder]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, stdin=subprocess.DEVNULL)
        archives = list(Path(folder).glob("*.tgz"))
        if done.returncode or len(archives) != 1:
            raise ValueError(
                f"npm could not fetch {name} ({_reason(done.stderr)}): is the package index that `npm config get "
                "registry` names within reach?"
            )
        content = archives[0].read_bytes()
    integrity = "sha512-" + base64.b64encode(hashlib.sha512(content).digest()).decode("ascii")
    if integrity != source.integrity:
        raise ValueError(
            f"{name}: the index gave another file than the one known here: its checksum is {integrity}, "
            f"expected is {source.integrity}; nothing of it was used"
        )
    return content


def _reason(errors: str) -> str:
    """The first words of npm's own errors, without the prefix of its log."""
    lines = re.findall(r"^npm (?:error|ERR!) (.*\S)", errors, re.MULTILINE)
    return "; ".join(lines[:3]) or "no reason given"


class Package:
    """The drawings in a package."""

    def __init__(self, source: Source, content: bytes) -> None:
        self.name = f"{source.package}@{source.version}"
        self._archive = tarfile.open(fileobj=io.BytesIO(content), mode="r:gz")  # noqa: SIM115 - lives as long as this
        self._members = {member.name: member for member in self._archive.getmembers() if member.isfile()}
        self._icons: dict[str, Any] = json.loads(self._bytes(ICONS)) if ICONS in self._members else {}

    def svg(self, icon: str) -> str | None:
        """A drawing of Iconify as an SVG document; None if the package has WebP files. Raises ValueError."""
        if not self._icons:
            return None
        record, change = self._icons["icons"].get(icon), {}
        if record is None and icon in self._icons.get("aliases", {}):
            change = self._icons["aliases"][icon]
            record = self._icons["icons"].get(change["parent"])
        if record is None:
            raise ValueError(f"{self.name} has no icon {icon!r}")
        box = {"left": 0, "top": 0, "width": 16, "height": 16, **self._icons, **record, **change}
        if any(box.get(key) for key in ("hFlip", "vFlip", "rotate")):
            raise ValueError(f"{self.name}: the icon {icon!r} is a turned one, which is not supported")
        return (
            '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
            f'viewBox="{box["left"]} {box["top"]} {box["width"]} {box["height"]}">{record["body"]}</svg>'
        )

    def webp(self, icon: str) -> bytes:
        """A drawing that is a WebP file. Raises ValueError if it is not there."""
        names = [name for name in self._members if name.endswith(f"/{icon}.webp")]
        if len(names) != 1:
            raise ValueError(f"{self.name} has {len(names)} files {icon}.webp")
        return self._bytes(names[0])

    def _bytes(self, name: str) -> bytes:
        file = self._archive.extractfile(self._members[name])
        assert file is not None  # only of a member that is no file
        return file.read()
