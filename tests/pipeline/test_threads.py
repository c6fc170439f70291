"""Several threads with one pipeline, and several pipelines with the same frozen models."""

import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from spacy.language import Language
from spacy.tokens import Doc

from spacy_gemel.kb.knowledge_base import KnowledgeBase
from spacy_gemel.models.causal_lm import CausalLM
from spacy_gemel.models.frozen import _LOCK, model_lock
from spacy_gemel.models.sentence_encoder import SentenceEncoder
from spacy_gemel.models.tokenizer import NameTokenizer
from spacy_gemel.models.vision_encoder import VisionEncoder
from tests.mini_pipeline import COLOURS, example, linker, make_doc, make_pipeline, picture

Answer = list[tuple[str, list[Any]]]


@pytest.fixture
def busy() -> Iterator[None]:
    """Python switches threads as often as it can."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(interval)


@pytest.fixture(scope="module")
def nlp(models: Path, kb: Path) -> Language:
    return make_pipeline(models, kb)


def answer(nlp: Language, seed: int) -> Answer:
    name = list(COLOURS)[seed % len(COLOURS)]
    doc = nlp(make_doc(nlp, f"A photo of Mercury number {seed % 7}.", "Mercury", image=picture(name, seed % 5)))
    return [(ent.kb_id_, [list(found) for found in ent._.gemel_candidates]) for ent in doc.ents]


def close(found: Answer, expected: Answer) -> bool:
    return len(found) == len(expected) and all(
        kb_id == other and [c[:2] for c in cs] == [c[:2] for c in others]
        for (kb_id, cs), (other, others) in zip(found, expected, strict=True)
    )


def run_in_threads(work: Callable[[int], Answer], count: int) -> list[Answer]:
    with ThreadPoolExecutor(8) as pool:
        return list(pool.map(work, range(count)))


def test_threads_that_share_a_pipeline_get_what_one_gets(nlp: Language, models: Path, kb: Path) -> None:
    expected = [answer(nlp, seed) for seed in range(35)]  # all pairs of a text and an image
    fresh = make_pipeline(models, kb)  # nothing kept yet: caches are filled by all threads at once
    fresh.get_pipe("gemel_linker").model.from_bytes(nlp.get_pipe("gemel_linker").model.to_bytes())
    found = run_in_threads(lambda seed: answer(fresh, seed), 35)
    assert all(map(close, found, expected))


def test_two_pipelines_share_the_models_in_threads(nlp: Language, models: Path, kb: Path) -> None:
    other = make_pipeline(models, kb, beam_size=3, n_candidates=3)
    ours, theirs = nlp.get_pipe("gemel_linker"), other.get_pipe("gemel_linker")
    assert ours.linking_model.language_model is theirs.linking_model.language_model
    assert ours._reader.encoder is theirs._reader.encoder
    pipelines = (nlp, other)
    expected = [answer(pipelines[seed % 2], seed) for seed in range(20)]
    found = run_in_threads(lambda seed: answer(pipelines[seed % 2], seed), 20)
    assert all(map(close, found, expected))


def test_entities_are_added_while_others_link(models: Path, kb: Path) -> None:
    nlp = make_pipeline(models, kb)
    pipe = nlp.get_pipe("gemel_linker")
    stop = threading.Event()
    errors: list[BaseException] = []

    def link() -> None:
        seed = 0
        while not stop.is_set():
            try:
                answer(nlp, seed)
            except BaseException as error:
                errors.append(error)
                return
            seed += 1

    threads = [threading.Thread(target=link) for _ in range(3)]
    for thread in threads:
        thread.start()
    for index in range(20):
        pipe.add_entity(f"new-{index}", f"Mercury number {index}")
    stop.set()
    for thread in threads:
        thread.join(60)
    assert errors == []
    assert len(pipe.kb.added.entities) == 20


@pytest.mark.usefixtures("busy")
def test_no_entity_is_lost_if_several_threads_add(models: Path, kb: Path) -> None:
    pipe = linker(make_pipeline(models, kb))
    with ThreadPoolExecutor(3) as pool:
        list(pool.map(lambda index: pipe.add_entity(f"new-{index}", f"Mercury number {index}"), range(60)))
    assert {entity.kb_id for entity in pipe.kb.added.entities} == {f"new-{index}" for index in range(60)}
    assert all(f"new-{index}" in pipe.kb for index in range(60))


class Overlaps:
    """Watches calls of the frozen models, and notes those during which another thread was in one."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *calls: tuple[type, str]) -> None:
        self.together: list[str] = []
        self.seen: set[str] = set()
        self._inside: set[int] = set()
        for owner, name in calls:
            self._watch(monkeypatch, owner, name)

    def _watch(self, monkeypatch: pytest.MonkeyPatch, owner: type, name: str) -> None:
        method = getattr(owner, name)

        def watched(*arguments: Any, **more: Any) -> Any:
            thread = threading.get_ident()
            outermost = thread not in self._inside
            self._inside.add(thread)
            try:
                if outermost:
                    self.seen.add(owner.__name__)
                return method(*arguments, **more)
            finally:
                if outermost:
                    if self._inside - {thread}:
                        self.together.append(f"{owner.__name__}.{name}")
                    self._inside.discard(thread)

        monkeypatch.setattr(owner, name, watched)


def linked(nlp: Language, index: int) -> None:
    # a mention of its own, so that the retriever's model is asked, and a picture of its own
    doc = make_doc(nlp, f"A photo of Mercury{index} here.", f"Mercury{index}", image=picture("Mercury", index))
    assert nlp(doc).ents[0].kb_id_


def learned(nlp: Language, index: int) -> None:
    nlp.update([example(nlp, f"A view{index} of Mercury.", "Mercury", "Mercury", picture("Mercury", 50 + index))])


def shown(nlp: Language, index: int) -> None:
    doc = make_doc(nlp, f"A view of Java{index}.", f"Java{index}", image=picture("Mercury", 100 + index))
    assert len(nlp.get_pipe("gemel_linker").demonstrations_for(doc, doc.ents[0])) == 3


def grown(nlp: Language, index: int) -> None:
    nlp.get_pipe("gemel_linker").add_entity(f"more-{index}", f"Mercury number {index}")


def taught(nlp: Language, index: int) -> None:
    doc = make_doc(nlp, f"Lesson {index} on Mercury.", "Mercury", "Mercury", picture("Mercury", 150 + index))
    assert nlp.get_pipe("gemel_linker").add_demonstrations([doc]) == 1


def moved(nlp: Language, index: int) -> None:
    path = nlp.get_pipe("gemel_linker").kb.path
    nlp.get_pipe("gemel_linker").set_kb(lambda _: KnowledgeBase.open(path))


def loaded(nlp: Language, index: int) -> None:
    pipe: Any = nlp.get_pipe("gemel_linker")
    pipe.from_bytes(pipe.to_bytes(exclude=["vocab", "kb", "models"]), exclude=["vocab", "kb", "models"])


@pytest.mark.usefixtures("busy")
@pytest.mark.parametrize("work", [linked, learned, shown, grown, taught, moved, loaded])
def test_no_two_threads_are_in_the_models_together(
    models: Path, kb: Path, monkeypatch: pytest.MonkeyPatch, work: Callable[[Language, int], None]
) -> None:
    """Whatever a pipe is asked for while others link; tokenizers and caches of the models stand only one thread."""
    nlp = make_pipeline(models, kb)
    calls = [
        (CausalLM, "embed"),
        (NameTokenizer, "encode"),
        (VisionEncoder, "encode_pixels"),
        (SentenceEncoder, "__call__"),
    ]
    watch = Overlaps(monkeypatch, *calls)
    with ThreadPoolExecutor(4) as pool:
        done = [pool.submit(work if index % 2 else linked, nlp, index) for index in range(16)]
    for future in done:
        future.result()
    assert watch.together == []
    assert watch.seen == {"CausalLM", "NameTokenizer", "VisionEncoder", "SentenceEncoder"}


def test_processes_started_while_threads_link_do_not_hang(nlp: Language) -> None:
    expected = [answer(nlp, seed) for seed in range(12)]
    stop = threading.Event()
    thread = threading.Thread(target=lambda: [answer(nlp, 0) for _ in iter(stop.is_set, True)])
    thread.start()
    try:
        names = [list(COLOURS)[seed % len(COLOURS)] for seed in range(12)]
        docs = [
            make_doc(nlp, f"A photo of Mercury number {seed % 7}.", "Mercury", image=picture(name, seed % 5))
            for seed, name in enumerate(names)
        ]
        found = [
            [(ent.kb_id_, [list(c) for c in ent._.gemel_candidates]) for ent in doc.ents]
            for doc in nlp.pipe(docs, n_process=2, batch_size=3)
        ]
    finally:
        stop.set()
        thread.join(60)
    assert all(map(close, found, expected))


def test_loading_and_training_hold_the_models(
    nlp: Language, models: Path, kb: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from spacy_gemel.linking.retrievers import DenseRetriever

    held: list[bool] = []
    index = DenseRetriever.index

    def spy(retriever: DenseRetriever, mentions: Any, vectors: Any) -> None:
        held.append(_LOCK._is_owned())  # type: ignore[attr-defined]
        index(retriever, mentions, vectors)

    monkeypatch.setattr(DenseRetriever, "index", spy)
    make_pipeline(models, kb)
    nlp.get_pipe("gemel_linker").to_disk(tmp_path)
    nlp.get_pipe("gemel_linker").from_disk(tmp_path)
    assert held == [True, True]


def test_a_pipe_is_loaded_in_one_turn(nlp: Language, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another thread never links with the new demonstrations and the old mapper, settings or folders."""
    pipe: Any = nlp.get_pipe("gemel_linker")
    pipe.to_disk(tmp_path)
    pipe.threshold = 0.5
    mapper = pipe.model.get_param("W")
    pipe.model.set_param("W", mapper * 0)

    def state() -> tuple[Any, ...]:
        return (
            pipe.threshold,
            float(abs(pipe.model.get_param("W")).sum()),
            id(pipe.store),
            id(pipe.linking_model.store),
        )

    before = state()
    load = type(pipe.model).from_bytes
    taken: list[bool] = []  # whether another thread could take the lock while the mapper was loaded

    def watched(model: Any, data: bytes) -> Any:
        if model is pipe.model:  # not the copy that tells whether the bytes are sound
            taken.append(pool.submit(_LOCK.acquire, blocking=False).result())
        return load(model, data)

    monkeypatch.setattr(type(pipe.model), "from_bytes", watched)
    with ThreadPoolExecutor(1) as pool:
        pipe.from_disk(tmp_path)
    assert taken == [False]
    assert state()[:2] != before[:2]


def test_demonstrations_go_to_the_pipe_that_was_loaded_meanwhile(models: Path, kb: Path, tmp_path: Path) -> None:
    nlp = make_pipeline(models, kb)
    pipe: Any = nlp.get_pipe("gemel_linker")
    pipe.to_disk(tmp_path)
    read = threading.Event()

    def docs() -> Iterator[Doc]:
        yield make_doc(nlp, "A lesson on Mercury.", "Mercury", "Mercury", picture("Mercury", 150))
        read.set()

    with ThreadPoolExecutor(1) as pool:
        with model_lock():
            adding = pool.submit(pipe.add_demonstrations, docs())
            assert read.wait(300)  # now it waits for the lock
            pipe.from_disk(tmp_path)
        assert adding.result() == 1
    assert pipe.linking_model.store is pipe.store
    assert [shown.text for shown in pipe.store][-1] == "A lesson on Mercury."
