"""What the paper reports, and the setting that each of its figures belongs to.

Shi et al. 2024, "Generative Multimodal Entity Linking", arXiv 2306.12725: top-1 accuracy in percent, of the in-KB
mentions of WikiDiverse and of WikiMEL.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

DATA_SETS = ("WikiDiverse", "WikiMEL")


@dataclass(frozen=True, slots=True)
class PaperModel:
    """A model of the paper's tables.

    Attributes:
        axis: What kind of model it is.
        names: Exactly what it is called, on a hub or by open_clip.
        patterns: What the name of a possible copy contains, in lower case.
    """

    axis: str
    names: tuple[str, ...]
    patterns: tuple[str, ...]

    def is_named(self, name: Any) -> bool:
        """Whether this is the model itself, by its whole name, or in a folder with its own name."""
        text = str(name).casefold()
        names = [each.casefold() for each in self.names]
        if _HUB.fullmatch(text) or "/" not in text:
            return text in names
        return text.rstrip("/").rsplit("/", 1)[-1] in [each.rsplit("/", 1)[-1] for each in names if "/" in each]

    def may_be(self, name: Any) -> bool:
        """Whether a model of this name could be meant, such as a copy of it or a quantized one."""
        return any(pattern in str(name).casefold() for pattern in self.patterns)


_HUB = re.compile(r"[\w-][\w.-]*/[\w.-]+")

MODELS: Mapping[str, PaperModel] = {
    "Llama-2-7B": PaperModel("language_model", ("meta-llama/Llama-2-7b-hf",), ("llama-2-7b",)),
    "Llama-7B": PaperModel("language_model", ("huggyllama/llama-7b",), ("llama-7b",)),
    "OPT-6.7B": PaperModel("language_model", ("facebook/opt-6.7b",), ("opt-6.7b",)),
    "OPT-2.7B": PaperModel("language_model", ("facebook/opt-2.7b",), ("opt-2.7b",)),
    "OPT-1.3B": PaperModel("language_model", ("facebook/opt-1.3b",), ("opt-1.3b",)),
    "OPT-350M": PaperModel("language_model", ("facebook/opt-350m",), ("opt-350m",)),
    "ResNet-101": PaperModel("vision_encoder", ("microsoft/resnet-101",), ("resnet-101",)),
    "BEiT-large": PaperModel("vision_encoder", ("microsoft/beit-large-patch16-224",), ("beit-large",)),
    "CLIP ViT-L/14": PaperModel(
        "vision_encoder",
        ("ViT-L-14-quickgelu openai", "openai/clip-vit-large-patch14"),
        ("vit-l-14", "clip-vit-large-patch14"),
    ),
    "SimCSE": PaperModel("retriever", ("princeton-nlp/sup-simcse-roberta-large",), ("simcse",)),
}
"""By the paper's name."""

SETTING: Mapping[str, Any] = {
    "language_model": "meta-llama/Llama-2-7b-hf",
    "vision_encoder": "ViT-L-14-quickgelu openai",
    "retriever": "princeton-nlp/sup-simcse-roberta-large",
    "n": 16,
    "k": 4,
    "image": True,
    "constrained": True,
    "name_end": "eos",
    "others": {},
}
"""The paper's own. n: demonstrations at prediction. others: other settings that change results and differ from the
paper's, as grid/setting.py finds them.
"""

DOCS_OF_AN_UPDATE: Mapping[str, int] = {"WikiDiverse": 8, "WikiMEL": 14}
"""By data set: how many docs, which spaCy's batchers count, hold the paper's 16 mentions on average."""

_TRAINING: Mapping[str, Any] = {
    "max_epochs": 5,
    "max_steps": 0,
    "patience": 0,
    "dropout": 0.0,
    "eval_frequency": 312,
    "optimizer": {
        "@optimizers": "Adam.v1",
        "beta1": 0.9,
        "beta2": 0.999,
        "L2": 0.01,
        "L2_is_weight_decay": True,
        "grad_clip": 1.0,
        "use_averages": False,
        "eps": 1e-6,
    },
}


def training_on(dataset: str) -> dict[str, Any]:
    """The paper's training as a config has it, the rest spaCy's default; WikiDiverse's for another data set.

    Without the learning rate: the paper's has no meaning in fp32. 5,000 steps of 1 mention between two evaluations on
    dev data are 312 of 16.
    """
    size = DOCS_OF_AN_UPDATE.get(dataset, DOCS_OF_AN_UPDATE["WikiDiverse"])
    return {**_TRAINING, "batcher": {"@batchers": "spacy.batch_by_sequence.v1", "size": size}}


@dataclass(frozen=True, slots=True)
class Reported:
    """A row of the paper's tables.

    Attributes:
        wikidiverse: Percent.
        wikimel: Percent.
        changes: Of SETTING; None if no setting of this package gives the figure.
        model: The model of MODELS that it is the figure of.
        part: The kind of mention that it is over; "" for all.
    """

    wikidiverse: float
    wikimel: float
    changes: Mapping[str, Any] | None = field(default_factory=dict)
    model: str = ""
    part: str = ""

    @property
    def figures(self) -> tuple[float, float]:
        """In the order of DATA_SETS."""
        return self.wikidiverse, self.wikimel

    def is_setting(self, setting: Mapping[str, Any]) -> bool:
        """Whether a setting, with the keys of SETTING, is the one that this was measured in.

        Never for common and tail: the paper does not say which entities those are.
        """
        if self.changes is None or self.part:
            return False
        ours = {**SETTING, **self.changes}
        # without demonstrations the retriever has no effect, without an image the mapper has none; the training docs,
        # which demonstrations come from, do
        idle = set() if ours["n"] else {"retriever"}
        idle |= set() if ours["image"] else {"k", "vision_encoder", "model", "training", "corpora.dev"}
        differing = {
            name
            for name in setting.get("others", {})
            if not any(f"{name}.".startswith(f"{section}.") for section in idle)
        }
        same = all(_same(ours[key], setting.get(key)) for key in ours if key not in {"others", *idle})
        return same and not differing

    def contradiction(self, setting: Mapping[str, Any]) -> str:
        """What of a setting is not what the figure is about; "" if the figure may stand beside it."""
        if self.changes is None:
            return "no setting of this package gives it"
        claimed = {} if self.model else self.changes
        wrong = [key for key, value in claimed.items() if setting.get(key) != value]
        if self.model and not MODELS[self.model].may_be(setting.get(MODELS[self.model].axis)):
            wrong.append(MODELS[self.model].axis)
        return ", ".join(f"{key.replace('_', ' ')} is {setting.get(key)!r}" for key in wrong)


def _same(papers: Any, value: Any) -> bool:
    model = next((model for model in MODELS.values() if papers in model.names), None)
    return bool(papers == value) if model is None else model.is_named(value)


def _of(model: str) -> dict[str, Any]:
    """The change of SETTING to another model."""
    return {MODELS[model].axis: MODELS[model].names[0]}


REPORTED: dict[str, Reported] = {
    "full": Reported(86.3, 82.6),
    "no-image": Reported(79.5, 74.2, {"image": False}),
    "no-demonstrations": Reported(80.2, 75.2, {"n": 0}),
    "random": Reported(83.1, 78.3, {"retriever": "spacy_gemel.RandomRetriever.v1"}),
    "bm25": Reported(85.3, 82.5, {"retriever": "spacy_gemel.BM25Retriever.v1"}),
    "simcse": Reported(86.3, 82.6),
    "opt-6.7b": Reported(82.7, 75.5, _of("OPT-6.7B"), "OPT-6.7B"),
    "llama-7b": Reported(85.8, 82.2, _of("Llama-7B"), "Llama-7B"),
    "llama-2-7b": Reported(86.3, 82.6, _of("Llama-2-7B"), "Llama-2-7B"),
    "resnet-101": Reported(85.3, 82.1, _of("ResNet-101"), "ResNet-101"),
    "beit-large": Reported(84.7, 81.0, _of("BEiT-large"), "BEiT-large"),
    "clip-vit-l-14": Reported(86.3, 82.6, _of("CLIP ViT-L/14"), "CLIP ViT-L/14"),
    "common": Reported(87.4, 82.7, part="common"),
    "tail": Reported(57.5, 75.2, part="tail"),
    "gpt-3.5": Reported(72.7, 73.8, None),
}
"""By the name that a grid calls them. common, tail: of the full setting. simcse: of dense demonstrations, which
may come from another sentence encoder here.
"""
