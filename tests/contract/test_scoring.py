"""A score is of what the linker was given; where the reader dropped the images or the mentions there is none."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
import spacy
from spacy.language import Language
from spacy.tokens import Doc, Span
from spacy.training import Corpus, Example

from spacy_gemel.data.reader import multimodal_corpus
from spacy_gemel.pipeline.loaded_pipeline import overridden
from tests.calls import Calls
from tests.mini_pipeline import LINKER, linker, make_config, make_doc


def ruled(folder: Path) -> Language:
    """The saved pipeline behind rules that find its mentions."""
    nlp = spacy.load(folder)
    ruler = nlp.add_pipe("entity_ruler", before=LINKER)
    ruler.add_patterns([{"label": "ENT", "pattern": "Mercury"}])
    return nlp


def test_our_reader_scores_with_the_images(trained: Language, corpus: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pipe: Any = linker(trained)
    data = list(multimodal_corpus(corpus, gold_ents=True, limit=18)(trained))
    right = 0
    for example in data:
        doc = make_doc(trained, example.text, "Mercury", image=example.reference.user_data["image"])
        right += trained(doc).ents[0].kb_id_ == example.reference.ents[0].kb_id_
    linked = Calls(monkeypatch, pipe.linking_model, "link")
    assert trained.evaluate(data)["nel_accuracy"] == right / 18
    mentions = [mention for batch in linked.seen for mention in batch]
    assert len(mentions) == 18
    assert all(mention.features is not None for mention in mentions)
    assert all("gemel_candidates" not in example.predicted.user_data for example in data)  # spaCy scores copies


def test_spacys_reader_is_refused(saved: Path, corpus: Path) -> None:
    """Alone in its pipeline and behind rules that find mentions: the text alone is never scored."""
    for nlp in (spacy.load(saved), ruled(saved)):
        with pytest.raises(ValueError, match=r"108 of 108 docs have an image .* not given .*'0-0'") as raised:
            nlp.evaluate(list(Corpus(corpus)(nlp)))
        assert "python -m spacy_gemel evaluate" in str(raised.value)
        assert "MultimodalCorpus" in str(raised.value)


def test_one_image_that_was_dropped_is_enough(trained: Language, corpus: Path) -> None:
    data = list(multimodal_corpus(corpus, gold_ents=True, limit=3)(trained))
    del data[1].predicted.user_data["image"]
    with pytest.raises(ValueError, match="1 of 3 docs"):
        trained.evaluate(data)


def test_text_alone_on_purpose(saved: Path, corpus: Path) -> None:
    nlp = ruled(saved)
    with overridden(linker(nlp), use_image=False):
        scores = nlp.evaluate(list(Corpus(corpus)(nlp)))
    assert scores["nel_accuracy"] is not None


def text_only(nlp: Language, doc_of: Callable[[Language, str], Doc]) -> list[Example]:
    data = []
    for text in ("Mercury is far.", "I saw Mercury."):
        reference = nlp.make_doc(text)
        [start] = [token.i for token in reference if token.text == "Mercury"]
        reference.ents = [Span(reference, start, start + 1, label="ENT", kb_id="Mercury")]
        data.append(Example(doc_of(nlp, text), reference))
    return data


def test_no_mentions_to_link_is_no_score_of_zero(trained: Language, saved: Path) -> None:
    def plain(nlp: Language, text: str) -> Doc:
        return nlp.make_doc(text)

    with pytest.raises(ValueError, match="not one of 2 docs with gold entities had entities to link"):
        trained.evaluate(text_only(trained, plain))
    nlp = ruled(saved)
    assert nlp.evaluate(text_only(nlp, plain))["nel_accuracy"] is not None


def test_a_ner_that_finds_nothing_is_scored(trained: Language) -> None:
    """An early epoch of a NER in training: it looked, so there is something to say."""

    def searched(nlp: Language, text: str) -> Doc:
        doc = nlp.make_doc(text)
        doc.ents = []
        return doc

    scores = trained.evaluate(text_only(trained, searched))
    assert scores["nel_micro_f"] == 0
    assert scores["nel_accuracy"] is None


def test_docs_without_golds_ask_for_nothing(trained: Language) -> None:
    assert trained.evaluate([])["nel_micro_f"] == 0
    doc = trained.make_doc("Nothing here.")
    doc.user_data["image"] = "nowhere.png"
    assert trained.evaluate([Example(trained.make_doc(doc.text), doc)])["nel_accuracy"] is None


def test_any_iterable_and_the_scorers_own_options(trained: Language, corpus: Path) -> None:
    pipe: Any = linker(trained)
    data = list(multimodal_corpus(corpus, gold_ents=True, limit=2)(trained))
    for example in data:
        example.predicted = trained(example.predicted)
    once: Iterable[Example] = (example for example in data)
    assert pipe.score(once)["nel_accuracy"] == pipe.score(data, labels=())["nel_accuracy"]
    per_component = trained.evaluate(data, per_component=True)
    assert "nel_micro_f" in per_component[LINKER]


def test_a_pipe_without_a_scorer_scores_nothing(models: Path) -> None:
    nlp = spacy.blank("en")
    pipe: Any = nlp.add_pipe(LINKER, config=make_config(models, scorer=None))
    assert pipe.score([]) == {}
