"""Write a copy of a training config with one registered function in place of another.

    python scripts/swap_block.py configs/mini.cfg training/bm25.cfg components.gemel_linker.retriever \
        @misc=spacy_gemel.BM25Retriever.v1

spaCy's command line can change the settings of a block, but not put a function there that has other
settings: those of the old one would stay. Relative paths that exist beside the config are rewritten to be
found from beside the copy.
"""

import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from thinc.api import Config


def swap(source: Path, target: Path, block: str, settings: dict[str, Any]) -> None:
    """Copy a config with exactly `settings` in `block`. Raises ValueError where it has no such block."""
    config = Config().from_disk(source, interpolate=False)
    *parents, last = block.split(".")
    section: Any = config
    for name in (*parents, last):
        if not isinstance(section.get(name), dict):
            raise ValueError(f"{source}: no block [{block}]")
        parent, section = section, section[name]
    parent[last] = settings
    _move_paths(config, source.parent, target.parent)
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(target.name + ".partial")
    config.to_disk(partial, interpolate=False)
    partial.replace(target)


def _move_paths(section: dict[str, Any], old: Path, new: Path) -> None:
    """Rewrite, in place, each string that is a relative path below `old`'s folder."""
    for key, value in section.items():
        if isinstance(value, dict):
            _move_paths(value, old, new)
        elif isinstance(value, str) and "/" in value and not Path(value).is_absolute() and (old / value).exists():
            section[key] = Path(os.path.relpath(old / value, new)).as_posix()


def main(arguments: Sequence[str]) -> int:
    """SOURCE TARGET BLOCK KEY=VALUE...; values are JSON, or plain strings."""
    if len(arguments) < 4 or not all("=" in pair for pair in arguments[3:]):
        print(__doc__, file=sys.stderr)
        return 2
    settings: dict[str, Any] = {}
    for pair in arguments[3:]:
        key, value = pair.split("=", 1)
        try:
            settings[key] = json.loads(value)
        except ValueError:
            settings[key] = value
    try:
        swap(Path(arguments[0]), Path(arguments[1]), arguments[2], settings)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
