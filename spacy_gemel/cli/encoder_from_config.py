"""The vision encoder that a config or a saved pipeline names, without loading anything else of it."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spacy_gemel.utils.files import resolve

if TYPE_CHECKING:
    from spacy_gemel.models.frozen import FrozenModel
    from spacy_gemel.models.vision_encoder import VisionEncoder

_FACTORY = "gemel_linker"
_PART = "vision_encoder"


def configured_encoder(config: Path, component: str | None = None) -> tuple["FrozenModel[VisionEncoder]", Path | None]:
    """The encoder of a linker, and the folder that it was saved in or found in, as `FrozenModel.load` takes it.

    config: a .cfg file or the folder of a saved pipeline. component: the linker's name, where there are several.
    Raises ValueError where there is no such file, linker or encoder.
    """
    from spacy import util
    from spacy.util import registry
    from thinc.api import Config

    from spacy_gemel.pipeline.gemel_linker import DEFAULT_CONFIG

    file = config / "config.cfg" if config.is_dir() else config
    if not file.is_file():
        raise ValueError(f"{config}: no config there: give a .cfg file, or the folder of a pipeline (its model-best)")
    try:
        components = util.load_config(file, interpolate=True).get("components", {})
    except ValueError as error:
        raise ValueError(f"{file}: this is no config that spaCy can read: {error}") from error
    name = _linker(components, component, file)
    given = {_PART: components[name].get(_PART, {})}
    block = Config({_PART: DEFAULT_CONFIG[_PART]}).merge(given)[_PART] if given[_PART] else DEFAULT_CONFIG[_PART]
    if not config.is_dir() and resolve(block["name"], [file.parent]).is_dir():
        block = {**block, "name": str(resolve(block["name"], [file.parent]))}
    frozen = registry.resolve({_PART: block})[_PART]
    return frozen, _saved_folder(config / name, frozen) if config.is_dir() else None


def _linker(components: dict[str, Any], wanted: str | None, file: Path) -> str:
    names = [name for name, block in components.items() if block.get("factory") == _FACTORY]
    if wanted is not None and wanted not in names:
        raise ValueError(f"{file}: no {_FACTORY} is called {wanted!r} there (there is {', '.join(names) or 'none'})")
    if wanted is None and len(names) != 1:
        what = f"several ({', '.join(names)}): choose one with --component" if names else "none among its components"
        raise ValueError(f"{file}: one {_FACTORY} is needed, and there is {what}")
    return wanted or names[0]


def _saved_folder(pipe: Path, frozen: "FrozenModel[Any]") -> Path | None:
    """Where a saved pipe has its encoder: bundled inside it, or else where it was when the pipe was saved."""
    bundle = pipe / "models" / _PART
    if frozen.is_bundled(bundle):
        return bundle
    try:
        found = json.loads((pipe / "cfg").read_text(encoding="utf8"))["found"][_PART]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return Path(found["folder"]) if found.get("name") == frozen.name else None
