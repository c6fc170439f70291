"""What a config says that decides sizes."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spacy_gemel.linker import DEFAULT_CONFIG

_FACTORY = "gemel_linker"


@dataclass(frozen=True, slots=True)
class Plan:
    """A linker's block of a config, its defaults filled in, and how it is trained.

    linker: the block. epochs: None where the config counts steps. folder: where the config lies.
    """

    linker: dict[str, Any]
    epochs: int | None
    folder: Path

    @property
    def demonstrations(self) -> int:
        """Demonstrations of a prompt, when linking."""
        return 0 if self.retriever is None else int(self.linker["n_demonstrations"])

    @property
    def training_demonstrations(self) -> int:
        """Demonstrations of a prompt while the mapper learns."""
        most = self.linker["n_training_demonstrations"]
        return self.demonstrations if most is None else min(self.demonstrations, int(most))

    @property
    def prefix_length(self) -> int:
        """Soft tokens of an image; none for text alone."""
        return int(self.linker["model"]["prefix_length"]) if self.linker["use_image"] else 0

    @property
    def retriever(self) -> dict[str, Any] | None:
        """The retriever's block, None where nothing is shown."""
        block: dict[str, Any] = self.linker["retriever"]
        return None if block["@misc"].startswith("spacy_gemel.NoRetriever") else block


def read_plan(config: Path, component: str | None = None) -> Plan:
    """The plan of a .cfg file, or of the folder of a pipeline. Nothing that it names has to be there.

    component: the linker's name, where there are several.
    Raises ValueError where there is no such file or linker.
    """
    from spacy import util
    from thinc.api import Config

    file = config / "config.cfg" if config.is_dir() else config
    if not file.is_file():
        raise ValueError(f"{config}: no config there: give a .cfg file, or the folder of a pipeline")
    try:
        read = util.load_config(file, interpolate=True)
    except ValueError as error:
        raise ValueError(f"{file}: this is no config that spaCy can read: {error}") from error
    linkers = {n: block for n, block in read.get("components", {}).items() if block.get("factory") == _FACTORY}
    if component is not None and component not in linkers:
        raise ValueError(f"{file}: no {_FACTORY} is called {component!r} there ({', '.join(linkers) or 'none'} is)")
    if component is None and len(linkers) != 1:
        found = f"several ({', '.join(linkers)}): choose one with --component" if linkers else "none"
        raise ValueError(f"{file}: one {_FACTORY} is needed, and there is {found}")
    block = linkers[component or next(iter(linkers))]
    # merged one by one: a block of another registered name has none of the default's settings
    filled = Config({"linker": DEFAULT_CONFIG}).merge({"linker": {k: v for k, v in block.items() if k != "factory"}})
    return Plan(dict(filled["linker"]), read.get("training", {}).get("max_epochs") or None, file.parent)
