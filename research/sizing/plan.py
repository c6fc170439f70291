"""What a config says that decides sizes."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spacy_gemel.pipeline.gemel_linker import DEFAULT_CONFIG
from spacy_gemel.pipeline.loaded import FACTORY


@dataclass(frozen=True, slots=True)
class Training:
    """How long a config trains; None where it does not say.

    epochs: its max_epochs. steps: its max_steps. batch: docs of an update, None for a batcher that does not count docs.
    eval_frequency: updates from one evaluation on dev data to the next.
    """

    epochs: int | None = None
    steps: int | None = None
    batch: int | None = None
    eval_frequency: int | None = None

    def updates(self, docs: int, epochs: int) -> int | None:
        """Updates of a training on so many docs; None where it does not follow.

        epochs: where the config limits neither epochs nor steps. spaCy takes fewer docs for the last update of an
        epoch, and one update more than max_steps.
        """
        limits = [] if self.steps is None else [self.steps + 1]
        epochs_told = self.epochs or (epochs if self.steps is None else None)
        if epochs_told:
            if self.batch is None:
                return None
            limits.append(epochs_told * math.ceil(docs / self.batch))
        return min(limits, default=None)

    def passes(self, docs: int, epochs: int) -> float:
        """Epochs of a training on so many docs, the last one perhaps in part. epochs: where it does not follow."""
        message = self.epochs or epochs
        updates = self.updates(docs, epochs)
        if self.steps is None or self.batch is None or updates is None:
            return message
        seen = updates * self.batch / docs
        return min(seen, self.epochs) if self.epochs else seen

    @property
    def tells_passes(self) -> bool:
        """Whether the epochs follow: not from max_steps alone where the batcher does not count docs."""
        return self.epochs is not None or (self.steps is not None and self.batch is not None)

    def evaluations(self, docs: int, epochs: int) -> int | None:
        """Evaluations on dev data, the one after the first update counted; None where their number does not follow."""
        updates = self.updates(docs, epochs)
        if updates is None or self.eval_frequency is None:
            return None
        return math.ceil(updates / self.eval_frequency)


@dataclass(frozen=True, slots=True)
class Plan:
    """A linker's block of a config, its defaults filled in, and how it is trained.

    linker: the block. folder: where the config lies.
    """

    linker: dict[str, Any]
    folder: Path
    training: Training = Training()

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
    from spacy.language import DEFAULT_CONFIG as SPACYS
    from thinc.api import Config

    file = config / "config.cfg" if config.is_dir() else config
    if not file.is_file():
        raise ValueError(f"{config}: no config there: give a .cfg file, or the folder of a pipeline")
    try:
        read = util.load_config(file, interpolate=True)
    except ValueError as error:
        raise ValueError(f"{file}: this is no config that spaCy can read: {error}") from error
    linkers = {n: block for n, block in read.get("components", {}).items() if block.get("factory") == FACTORY}
    if component is not None and component not in linkers:
        raise ValueError(f"{file}: no {FACTORY} is called {component!r} there ({', '.join(linkers) or 'none'} is)")
    if component is None and len(linkers) != 1:
        found = f"several ({', '.join(linkers)}): choose one with --component" if linkers else "none"
        raise ValueError(f"{file}: one {FACTORY} is needed, and there is {found}")
    block = linkers[component or next(iter(linkers))]
    # merged one by one: a block of another registered name has none of the default's settings
    filled = Config({"linker": DEFAULT_CONFIG}).merge({"linker": {k: v for k, v in block.items() if k != "factory"}})
    training = Config(SPACYS["training"]).merge(Config(read.get("training", {})))
    return Plan(dict(filled["linker"]), file.parent, _training(training))


def _training(block: Mapping[str, Any]) -> Training:
    batcher = block["batcher"]
    size = batcher.get("size") if batcher.get("@batchers") == "spacy.batch_by_sequence.v1" else None
    epochs = block["max_epochs"] or None
    return Training(
        # -1 streams the docs, without an end
        epochs if epochs is None or epochs > 0 else None,
        block["max_steps"] or None,
        size if isinstance(size, int) else None,
        block["eval_frequency"] or None,
    )
