"""Write a copy of a training config with one registered function in place of another.

    python scripts/swap_block.py configs/mini.cfg training/bm25.cfg components.gemel_linker.retriever \
        @misc=spacy_gemel.BM25Retriever.v1

spaCy's command line can change the settings of a block, but not put a function there that has other
settings: those of the old one would stay. Relative paths that exist beside the config are rewritten to be
found from beside the copy.
"""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from research.configs import change, read_config, value_at, write_config


def swap(source: Path, target: Path, block: str, settings: dict[str, Any]) -> None:
    """Copy a config with exactly `settings` in `block`. Raises ValueError where it has no such block."""
    config = read_config(source)
    if not isinstance(value_at(config, block), dict):
        raise ValueError(f"{source}: no block [{block}]")
    change(config, {block: settings})
    write_config(config, source, target)


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
