"""What the paper reports, and the setting that each of its figures belongs to.

Shi et al. 2024, "Generative Multimodal Entity Linking", arXiv 2306.12725: top-1 accuracy in percent, of the in-KB
mentions of WikiDiverse and of WikiMEL.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

DATA_SETS = ("WikiDiverse", "WikiMEL")

SETTING: Mapping[str, Any] = {
    "language_model": "Llama-2-7b",
    "vision_encoder": "ViT-L-14-quickgelu openai",
    "retriever": "sup-simcse-roberta-large",
    "n": 16,
    "k": 4,
    "image": True,
    "constrained": True,
    "name_end": "eos",
}
"""The paper's own; of the models the beginning of their names."""


@dataclass(frozen=True, slots=True)
class Reported:
    """wikidiverse, wikimel: percent. changes: of SETTING; None where no setting of this package gives the figure."""

    wikidiverse: float
    wikimel: float
    changes: Mapping[str, Any] | None = field(default_factory=dict)

    @property
    def figures(self) -> tuple[float, float]:
        """In the order of DATA_SETS."""
        return self.wikidiverse, self.wikimel

    def is_setting(self, setting: Mapping[str, Any]) -> bool:
        """Whether a setting, described with the keys of SETTING, is the one that this was measured in.

        The learning rate is left out of account: the paper's has no meaning in fp32.
        """
        if self.changes is None:
            return False
        ours = {**SETTING, **self.changes}
        # without any demonstration it does not matter which one would have chosen them, without an image not the mapper
        ignored = set() if ours["n"] else {"retriever"}
        ignored |= set() if ours["image"] else {"k", "vision_encoder"}
        return all(_same(ours[key], setting.get(key)) for key in ours if key not in ignored)


def _same(papers: Any, given: Any) -> bool:
    if isinstance(papers, str):
        name = str(given).rsplit("/", 1)[-1]
        return name.lower().startswith(papers.lower())
    return bool(papers == given)


REPORTED: dict[str, Reported] = {
    "full": Reported(86.3, 82.6),
    "no-image": Reported(79.5, 74.2, {"image": False}),
    "no-demonstrations": Reported(80.2, 75.2, {"n": 0}),
    "random": Reported(83.1, 78.3, {"retriever": "spacy_gemel.RandomRetriever"}),
    "bm25": Reported(85.3, 82.5, {"retriever": "spacy_gemel.BM25Retriever"}),
    "simcse": Reported(86.3, 82.6),
    "opt-6.7b": Reported(82.7, 75.5, {"language_model": "opt-6.7b"}),
    "llama-7b": Reported(85.8, 82.2, {"language_model": "llama-7b"}),
    "llama-2-7b": Reported(86.3, 82.6),
    "resnet-101": Reported(85.3, 82.1, {"vision_encoder": "resnet-101"}),
    "beit-large": Reported(84.7, 81.0, {"vision_encoder": "beit-large"}),
    "clip-vit-l-14": Reported(86.3, 82.6),
    "common": Reported(87.4, 82.7),
    "tail": Reported(57.5, 75.2),
    "gpt-3.5": Reported(72.7, 73.8, None),
}
"""By the name that a grid calls them. common, tail: of the full setting."""
