"""The vision encoder that a config or a saved pipeline names, without loading the rest of the pipeline."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spacy_gemel.utils.files import resolve

if TYPE_CHECKING:
    from spacy_gemel.models.frozen import FrozenModel
    from spacy_gemel.models.vision_encoder import VisionEncoder

_FACTORY = "gemel_linker"
_BLOCK = "vision_encoder"


def encoder_from_config(config: Path, component: str | None = None) -> tuple["FrozenModel[VisionEncoder]", Path | None]:
    """The encoder of a linker, and the folder that `FrozenModel.load` takes: where it is saved or was found.

    Args:
        config: A .cfg file, or the folder of a saved pipeline.
        component: The linker's name, needed if there are several.

    Raises:
        ValueError: if there is no such file, linker or encoder.
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
        raise ValueError(f"{file}: spaCy cannot read this config: {error}") from error
    name = _find_linker(components, component, file)
    block = DEFAULT_CONFIG[_BLOCK]
    if components[name].get(_BLOCK):
        block = Config({_BLOCK: block}).merge({_BLOCK: components[name][_BLOCK]})[_BLOCK]
    if config.is_dir():
        frozen = registry.resolve({_BLOCK: block})[_BLOCK]
        return frozen, _saved_folder(config / name, frozen)
    folder = resolve(block["name"], [file.parent])
    if folder.is_dir():
        block = {**block, "name": str(folder)}
    return registry.resolve({_BLOCK: block})[_BLOCK], None


def _find_linker(components: dict[str, Any], name: str | None, file: Path) -> str:
    names = [key for key, block in components.items() if block.get("factory") == _FACTORY]
    if name is not None and name not in names:
        raise ValueError(f"{file}: no {_FACTORY} is called {name!r} there (there is {', '.join(names) or 'none'})")
    if name is None and len(names) != 1:
        what = f"several ({', '.join(names)}): choose one with --component" if names else "none among its components"
        raise ValueError(f"{file}: one {_FACTORY} is needed, and there is {what}")
    return name or names[0]


def _saved_folder(pipe: Path, frozen: "FrozenModel[Any]") -> Path | None:
    """Where a saved pipe has its encoder: bundled inside it, or else where it was when the pipe was saved."""
    bundle = pipe / "models" / _BLOCK
    if frozen.is_bundled(bundle):
        return bundle
    try:
        location = json.loads((pipe / "cfg").read_text(encoding="utf8"))["found"][_BLOCK]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return Path(location["folder"]) if location.get("name") == frozen.name else None
