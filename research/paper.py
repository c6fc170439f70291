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
    """A model of the paper's tables. axis: what it is. names: exactly what it is called, on a hub or by open_clip.
    looks: what the name of one that may be called so has in it, in lower case.
    """

    axis: str
    names: tuple[str, ...]
    looks: tuple[str, ...]

    def is_named(self, given: Any) -> bool:
        """Whether this is the model itself, by its whole name, or in a folder that has its own name."""
        message = str(given).casefold()
        own = [name.casefold() for name in self.names]
        if _HUB.fullmatch(message) or "/" not in message:
            return message in own
        return message.rstrip("/").rsplit("/", 1)[-1] in [name.rsplit("/", 1)[-1] for name in own if "/" in name]

    def may_be(self, given: Any) -> bool:
        """Whether a model of this name could be meant, such as a copy of it or one that is quantized."""
        return any(look in str(given).casefold() for look in self.looks)


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
"""By the paper's name for it."""

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
"""The paper's own. n: demonstrations at prediction. others: what else that changes results is not as the paper has it;
experiments/described.py finds it.
"""

DOCS_OF_AN_UPDATE: Mapping[str, int] = {"WikiDiverse": 8, "WikiMEL": 14}
"""By data set: so many docs, which spaCy's batchers count, hold the paper's 16 mentions on average."""

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
    """The paper's training as a config has it: the rest is spaCy's default. dataset: WikiDiverse's where it has none.

    The learning rate is left out of account: the paper's has no meaning in fp32. 5,000 steps of 1 between two looks at
    dev data are 312 of 16.
    """
    size = DOCS_OF_AN_UPDATE.get(dataset, DOCS_OF_AN_UPDATE["WikiDiverse"])
    return {**_TRAINING, "batcher": {"@batchers": "spacy.batch_by_sequence.v1", "size": size}}


@dataclass(frozen=True, slots=True)
class Reported:
    """wikidiverse, wikimel: percent. changes: of SETTING; None where no setting of this package gives the figure.

    model: the one that it is the figure of, of MODELS. part: the kind of mention that it is over, "" for all.
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
        """Whether a setting, described with the keys of SETTING, is the one that this was measured in.

        Never for common and tail: the paper does not say which entities those are.
        """
        if self.changes is None or self.part:
            return False
        ours = {**SETTING, **self.changes}
        # Without any demonstration it does not matter which one would have chosen them, without an image not the
        # mapper; but the training docs, which demonstrations are chosen from, do.
        idle = set() if ours["n"] else {"retriever"}
        idle |= set() if ours["image"] else {"k", "vision_encoder", "model", "training", "corpora.dev"}
        others = {name for name in setting.get("others", {}) if not _is_below(name, idle)}
        same = all(_same(ours[key], setting.get(key)) for key in ours if key not in {"others", *idle})
        return same and not others

    def contradicts(self, setting: Mapping[str, Any]) -> str:
        """What of a setting is not what the figure is about, in words; "" where it may stand beside it."""
        if self.changes is None:
            return "no setting of this package gives it"
        claimed = {} if self.model else self.changes
        wrong = [key for key, value in claimed.items() if setting.get(key) != value]
        if self.model and not MODELS[self.model].may_be(setting.get(MODELS[self.model].axis)):
            wrong.append(MODELS[self.model].axis)
        return ", ".join(f"{key.replace('_', ' ')} is {setting.get(key)!r}" for key in wrong)


def _is_below(name: str, sections: set[str]) -> bool:
    return any(f"{name}.".startswith(f"{section}.") for section in sections)


def _same(papers: Any, given: Any) -> bool:
    for model in MODELS.values():
        if papers in model.names:
            return model.is_named(given)
    return bool(papers == given)


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
"""By the name that a grid calls them. common, tail: of the full setting. simcse: of dense demonstrations, which may be
another sentence encoder's here.
"""
