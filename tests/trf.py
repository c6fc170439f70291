"""Pipelines with a transformer: of both packages, where they are installed, and made by hand after what these leave."""

import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import spacy
import torch
from spacy.language import Language
from spacy.tokens import Doc
from spacy.training import Example
from thinc.api import Ragged

from tests.mini_pipeline import COLOURS, LINKER, add_linker, example, make_doc, picture, train

MADE = ["made after spacy-transformers", "made after spacy-curated-transformers"]
PACKAGES = ["spacy-transformers", "spacy-curated-transformers"]
KINDS = [
    *MADE,
    *(
        pytest.param(
            package,
            marks=pytest.mark.skipif(not find_spec(package.replace("-", "_")), reason=f"{package} is not installed"),
        )
        for package in PACKAGES
    ),
]
RETRIEVER = {"@misc": "spacy_gemel.TransformerRetriever.v1"}


@dataclass
class LikeSpacyTransformers:
    """What TransformerData has: (spans, padded wordpieces, width), and the places in it, flat, of each token."""

    model_output: dict[str, Any]
    align: Ragged


@dataclass
class LikeCurated:
    """What DocTransformerOutput has: the wordpieces of each token."""

    last_hidden_layer_state: Ragged


class MadeTransformer:
    """Leaves numbers on a doc that depend on its text, the token and, in overlapping spans, on the span."""

    def __init__(self, kind: str, width: int, seed: int, window: int = 6, stride: int = 4) -> None:
        self.kind, self.width, self.seed, self.window, self.stride = kind, width, seed, window, stride
        self.docs = 0
        if not Doc.has_extension("trf_data"):
            Doc.set_extension("trf_data", default=None)

    def __call__(self, doc: Doc) -> Doc:
        self.docs += 1
        starts = range(0, len(doc), self.stride) if self.kind == MADE[0] else [0]
        spans = [doc[start : start + (self.window if self.kind == MADE[0] else len(doc))] for start in starts]
        pieces = [[(token.i, piece) for token in span for piece in range(_pieces(token.text))] for span in spans]
        longest = max(map(len, pieces)) + 2  # one before and one behind, as of [CLS] and [SEP]
        states = np.full((len(spans), longest, self.width), 1e3, dtype="f")
        indices: list[list[int]] = [[] for _ in doc]
        for number, span in enumerate(pieces):
            for index, (token, piece) in enumerate(span, 1):
                key = f"{self.seed}|{doc.text}|{doc[token].text}|{piece}|{number}"
                states[number, index] = np.random.default_rng(zlib.crc32(key.encode())).normal(size=self.width)
                indices[token].append(number * longest + index)
        lengths = np.array([len(each) for each in indices], dtype="i")
        flat = np.array([index for each in indices for index in each], dtype="i")
        if self.kind == MADE[0]:
            doc._.trf_data = LikeSpacyTransformers({"last_hidden_state": states}, Ragged(flat, lengths))
        else:
            doc._.trf_data = LikeCurated(Ragged(states.reshape(-1, self.width)[flat], lengths))
        return doc

    def pipe(self, docs: Iterable[Doc], batch_size: int = 128) -> Iterator[Doc]:
        yield from map(self, docs)


@Language.factory("made_transformer", assigns=["doc._.trf_data"])
def make_transformer(nlp: Language, name: str, kind: str, width: int = 8, seed: int = 0) -> MadeTransformer:
    return MadeTransformer(kind, width, seed)


def _pieces(text: str) -> int:
    return 0 if text.isspace() else 1 + len(text) // 6


def transformer_block(kind: str, models: Path, seed: int = 0, width: int = 8) -> dict[str, Any]:
    """The block of a small transformer."""
    if kind in MADE:
        return {"factory": "made_transformer", "kind": kind, "width": width, "seed": seed}
    if kind == PACKAGES[0]:
        model = {
            "@architectures": "spacy-transformers.TransformerModel.v3",
            "name": str(models / "sentence_encoder-plain"),
            "tokenizer_config": {"use_fast": True},
            "get_spans": {"@span_getters": "spacy-transformers.strided_spans.v1", "window": 6, "stride": 4},
        }
        return {"factory": "transformer", "model": model}
    model = {
        "@architectures": "spacy-curated-transformers.BertTransformer.v1",
        "vocab_size": 200,
        "hidden_width": 16,
        "intermediate_width": 32,
        "num_attention_heads": 2,
        "num_hidden_layers": 1,
        "piece_encoder": {"@architectures": "spacy-curated-transformers.BertWordpieceEncoder.v1"},
        "with_spans": {"@architectures": "spacy-curated-transformers.WithStridedSpans.v1", "window": 16, "stride": 12},
    }
    return {"factory": "curated_transformer", "model": model, "frozen": True}


def ner_block(kind: str) -> dict[str, Any]:
    """The block of a NER that listens to the transformer."""
    listener: dict[str, Any] = {"@architectures": "spacy-transformers.TransformerListener.v1"}
    if kind == PACKAGES[1]:
        listener = {"@architectures": "spacy-curated-transformers.LastTransformerLayerListener.v1", "width": 16}
    parser = {
        "@architectures": "spacy.TransitionBasedParser.v2",
        "state_type": "ner",
        "extra_state_tokens": False,
        "hidden_width": 16,
        "maxout_pieces": 2,
        "use_upper": False,
    }
    # no gradient for the transformer: a few large steps would make all its vectors the same
    listener |= {"grad_factor": 0.0, "pooling": {"@layers": "reduce_mean.v1"}}
    return {"factory": "ner", "model": {**parser, "tok2vec": listener}}


def initialize_blocks(kind: str, models: Path, kb: Path, folder: Path) -> dict[str, Any]:
    """What [initialize.components] says; a curated transformer's wordpieces are written to the folder."""
    blocks: dict[str, Any] = {LINKER: {"kb_loader": {"@misc": "spacy_gemel.KBFromDisk.v1", "path": str(kb)}}}
    if kind == PACKAGES[1]:
        from transformers import AutoTokenizer

        vocab = AutoTokenizer.from_pretrained(models / "sentence_encoder-plain").get_vocab()
        (folder / "wordpieces").write_text("\n".join(sorted(vocab, key=vocab.__getitem__)), encoding="utf8")
        loader = {"@model_loaders": "spacy-curated-transformers.WordpieceLoader.v1", "path": str(folder / "wordpieces")}
        blocks["transformer"] = {"piecer_loader": loader}
    return blocks


def texts() -> list[tuple[str, str, str]]:
    """(text, mention, name): short and long ones, of several tokens and wordpieces, and one with much white space."""
    # words that the small tokenizers know: others are all the same to them
    indices = ("Jaguar", "Atlantis", "Georgia")
    short = [(f"{index} Cars: Mercury, a photo.", "Mercury", name) for index in indices for name in COLOURS]
    return [
        *short,
        (
            "On the way to New York City we saw, from afar and in the rain, its towers.",
            "New York City",
            "New York",
        ),
        ("Nobody who came by ship to the island   of  Java that summer ever saw New York.", "Java", "Java"),
        ("He wrote, late in the evening, a letter from São Tomé to his sister.", "São Tomé", "São Tomé"),
        ("Space Shuttle Atlantis is what it was called.", "Space Shuttle Atlantis", "Space Shuttle Atlantis"),
    ]


def trf_examples(nlp: Language) -> list[Example]:
    return [
        example(nlp, text, mention, name, picture(name, index) if index % 3 else None)
        for index, (text, mention, name) in enumerate(texts())
    ]


def trf_docs(nlp: Language) -> list[Doc]:
    """New docs, with gold entities and pictures."""
    return [
        make_doc(nlp, f"Look: {text}", mention, image=picture(name, index))
        for index, (text, mention, name) in enumerate(texts())
    ]


def make_trf_pipeline(kind: str, models: Path, kb: Path, folder: Path, seed: int = 0, **changes: Any) -> Language:
    """Transformer, NER (where the package is there) and linker: the NER trained for a few steps, then frozen."""
    spacy.util.fix_random_seed(seed)
    nlp = spacy.blank("en")
    block = transformer_block(kind, models, seed)
    nlp.add_pipe(block.pop("factory"), "transformer", config=block)
    before = ["transformer"]
    nlp.config["initialize"]["components"] = initialize_blocks(kind, models, kb, folder)
    if kind in PACKAGES:
        ner = ner_block(kind)
        nlp.add_pipe(ner.pop("factory"), "ner", config=ner)
        before.append("ner")
        optimizer = nlp.initialize(lambda: trf_examples(nlp))
        _sharpen(nlp)
        optimizer.learn_rate = 0.003
        for _ in range(150):
            examples = trf_examples(nlp)
            if kind == PACKAGES[1]:
                _pass_to_listeners(nlp, [each.predicted for each in examples])
            nlp.update(examples, sgd=optimizer, exclude=["transformer"] if kind == PACKAGES[1] else [])
    add_linker(nlp, models, retriever=RETRIEVER, **changes)
    with nlp.select_pipes(disable=before):  # as `spacy train` does with frozen components
        nlp.initialize(lambda: trf_examples(nlp))
    return nlp


def _pass_to_listeners(nlp: Language, docs: list[Doc]) -> None:
    """What a frozen curated transformer's update does but for its loss.

    0.3.1 takes float() of an array with one element for that, which NumPy refuses since 2.4.
    """
    from spacy_curated_transformers.models.listeners import ListenerStateUtils

    transformer: Any = nlp.get_pipe("transformer")
    outputs = transformer.predict(docs)
    for listener in transformer.listeners:
        ListenerStateUtils.receive(listener, ListenerStateUtils.calculate_batch_id(docs), outputs, lambda *_, **__: [])


def _sharpen(nlp: Language) -> None:
    """Larger random weights: those that it starts with give a word nearly the same vector in any text."""
    generator = torch.Generator().manual_seed(0)
    model: Any = nlp.get_pipe("transformer").model  # type: ignore[attr-defined]
    for node in model.walk():
        for shim in node.shims:
            for weights in shim._model.parameters():
                if weights.dim() > 1:
                    torch.nn.init.normal_(weights.data, std=0.4, generator=generator)


def learn(nlp: Language, steps: int = 8) -> list[float]:
    """Train the linker alone, as `spacy train` does with the others frozen; returns the loss of each step."""
    frozen = [name for name in nlp.pipe_names if name != LINKER]
    return train(nlp, steps, trf_examples(nlp), exclude=frozen, annotates=["transformer"])


def mean_of(doc: Doc, start: int, end: int) -> np.ndarray:
    """The mean over the wordpieces of some tokens of a doc that a transformer has read, one after the other."""
    data = doc._.trf_data
    rows = []
    for token in range(start, end):
        if hasattr(data, "align"):
            states = data.model_output["last_hidden_state"]
            for index in data.align[token].dataXd.ravel():
                span, piece = divmod(int(index), states.shape[1])
                rows.append(states[span, piece])
        else:
            rows.extend(data.last_hidden_layer_state[token].dataXd)
    return np.array(rows, dtype="d").mean(axis=0)


def vector_of(nlp: Language, text: str, mention: str) -> np.ndarray:
    """The vector of a mention, by the pipeline's transformer alone."""
    doc = make_doc(nlp, text, mention)
    doc = nlp.get_pipe("transformer")(doc)  # type: ignore[operator]
    return mean_of(doc, doc.ents[0].start, doc.ents[0].end)
