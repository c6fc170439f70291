"""Names of one entity only in plain text, and the docs that are made of them."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import spacy
from hypothesis import given, settings
from hypothesis import strategies as st
from spacy.tokens import Doc

from spacy_gemel.data.distant_supervision import (
    UnambiguousNames,
    WeakLabelReport,
    lower_case_words,
    make_demonstrations,
)
from spacy_gemel.data.reader import blank_pipeline, read_docs
from spacy_gemel.kb.builder import build_kb
from spacy_gemel.kb.knowledge_base import KnowledgeBase
from tests.commands import call, failed
from tests.kb.conftest import CharacterTokenizer
from tests.mini_pipeline import linker, make_kb, make_pipeline

ENTITIES = [
    {"id": "obama", "name": "Barack Obama", "aliases": ["President Obama", "Obama"]},
    {"id": "nyc", "name": "New York City", "aliases": ["NYC", "the Big Apple", "NY"]},
    {"id": "ny", "name": "New York"},
    {"id": "trenton-1", "name": "Trenton"},
    {"id": "trenton-2", "name": "Trenton"},
    {"id": "yorker-1", "name": "The New Yorker Hotel"},
    {"id": "yorker-2", "name": "The New Yorker Hotel"},
    {"id": "turkey", "name": "Turkey"},
    {"id": "bird", "name": "Turkey (bird)"},
    {"id": "gift", "name": "Gift (2020 film)", "aliases": ["The Gift"]},
    {"id": "chinese", "name": "Chinese language", "aliases": ["Chinese"]},
    {"id": "death", "name": "Death", "aliases": ["dead", "dying"]},
    {"id": "film", "name": "2012"},
    {"id": "air", "name": "R2D2 unit"},
    {"id": "not-in-trie", "name": "Rock & Roll"},  # a character that the tokenizer lacks
]
WORDS = ["Barack", "Obama", "New", "York", "City", "NYC", "Death", "death", "the", ".", "\u00a0", "\n", "-", "2012"]
Row = dict[str, Any] | str


@pytest.fixture(scope="module")
def kb(tmp_path_factory: pytest.TempPathFactory) -> KnowledgeBase:
    folder = tmp_path_factory.mktemp("kb")
    source = folder / "entities.jsonl"
    source.write_text("".join(json.dumps(row) + "\n" for row in ENTITIES), encoding="utf8")
    build_kb(source, folder / "kb", CharacterTokenizer(), progress=False)
    return KnowledgeBase.open(folder / "kb")


def names_in(kb: KnowledgeBase, text: str, *others: str) -> list[tuple[str, str, bool]]:
    """Surface, id and whether by alias; `others` are further texts of the file."""
    nlp = blank_pipeline("en")
    nlp.add_pipe("sentencizer")
    mentions = UnambiguousNames(kb, lower_case_words([text, *others]))(nlp(text))
    return [(text[m.start : m.end], kb.entity(m.row).kb_id, m.by_alias) for m in mentions]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("We saw Barack Obama there", [("Barack Obama", "obama", False)]),
        ("We saw President Obama in NYC", [("President Obama", "obama", True), ("NYC", "nyc", True)]),
        ("in New York City, in New York", [("New York City", "nyc", False), ("New York", "ny", False)]),
        ("in the Big Apple and New  York", [("the Big Apple", "nyc", True), ("New  York", "ny", False)]),
        ("New York\u00a0 is here", [("New York", "ny", False)]),  # no blank at its edges
        ("of R2D2 unit", [("R2D2 unit", "air", False)]),
        # several have it, or may have it
        ("in Trenton", []),
        ("in Turkey", []),
        ("near the The New Yorker Hotel", []),  # nor is the shorter "New York" in it meant
        ("I like The Gift", [("The Gift", "gift", True)]),
        # a part of another name
        ("in New York Harbour", []),
        ("the Great New York", []),
        ("New York 2000", []),
        # one word of the name, too short, no letter, not in the trie
        ("a Chinese restaurant, with Obama", []),
        ("in NY", []),
        ("in 2012", []),
        ("of Rock & Roll", []),
        # lower case, and a first word that the texts have in lower case
        ("he is dead. dying", []),
        ("in Death", [("Death", "death", False)]),
        ("Death comes. New York too", [("Death", "death", False), ("New York", "ny", False)]),
        ("Death comes, death goes", []),
        ('Yes. "Death" is not death', []),
        ("The New York of the poor", [("New York", "ny", False)]),
    ],
)
def test_which_names_count(kb: KnowledgeBase, text: str, expected: list[tuple[str, str, bool]]) -> None:
    assert names_in(kb, text) == expected


def test_words_in_lower_case_may_stand_in_other_texts(kb: KnowledgeBase) -> None:
    assert names_in(kb, "Death comes") == [("Death", "death", False)]
    assert names_in(kb, "Death comes", "of death.") == []


def test_a_qualifier_of_its_own_makes_no_name_ambiguous(kb: KnowledgeBase, tmp_path: Path) -> None:
    (tmp_path / "e.jsonl").write_text('{"id": "x", "name": "Red Sea (film)", "aliases": ["Red Sea"]}')
    build_kb(tmp_path / "e.jsonl", tmp_path / "kb", CharacterTokenizer(), progress=False)
    assert names_in(KnowledgeBase.open(tmp_path / "kb"), "at the Red Sea") == [("Red Sea", "x", True)]


@settings(max_examples=100)
@given(st.lists(st.sampled_from(WORDS)))
def test_mentions_do_not_overlap_and_are_whole_tokens(kb: KnowledgeBase, words: list[str]) -> None:
    text = " ".join(words)
    nlp = blank_pipeline("en")
    nlp.add_pipe("sentencizer")
    doc = nlp(text)
    mentions = UnambiguousNames(kb, set())(doc)
    stop = 0
    for mention in mentions:
        span = doc.char_span(mention.start, mention.end)
        assert span is not None and mention.start >= stop
        assert not span[0].is_space and not span[-1].is_space
        assert kb.rows_by_surface(span.text) == (([], [mention.row]) if mention.by_alias else ([mention.row], []))
        stop = mention.end


def write(folder: Path, rows: Sequence[Row]) -> Path:
    path = folder / "raw" / "text.jsonl"
    path.parent.mkdir(exist_ok=True)
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    path.write_text("".join(line + "\n" for line in lines), encoding="utf8")
    return path


def read(path: Path) -> list[Doc]:
    return list(read_docs(path, spacy.blank("en").vocab))


def demonstrations(
    kb: KnowledgeBase, folder: Path, rows: Sequence[Row], **options: Any
) -> tuple[WeakLabelReport, list[Doc]]:
    out = folder / "out" / "o.spacy"
    report = make_demonstrations(write(folder, rows), kb, out, progress=False, **options)
    return report, read(out)


def test_the_docs_have_ids_images_and_only_these_mentions(kb: KnowledgeBase, tmp_path: Path) -> None:
    rows: list[Row] = [
        {"text": "We met Barack Obama", "id": 7, "image": "i/7.jpg", "mentions": [{"start": 0, "end": 2}]},
        {"text": "Nothing here"},
        {"text": "in NYC", "image": "https://example.org/a.png"},
        {"text": "in New York", "mentions": [{"start": 90, "end": 91}]},
    ]
    report, docs = demonstrations(kb, tmp_path, rows)
    assert [[(e.text, e.label_, e.kb_id_) for e in doc.ents] for doc in docs] == [
        [("Barack Obama", "ENTITY", "obama")],
        [("NYC", "ENTITY", "nyc")],
        [("New York", "ENTITY", "ny")],
    ]
    assert docs[0].user_data == {"id": "7", "image": str(tmp_path / "raw" / "i" / "7.jpg")}
    assert docs[1].user_data == {"image_url": "https://example.org/a.png"}
    [problem] = report.problems
    assert "text.jsonl:3: image left out: it is a URL: fetch-images downloads it" in str(problem)


def test_mentions_by_alias_come_first_each_in_another_text(kb: KnowledgeBase, tmp_path: Path) -> None:
    texts = ["in New York City one", "in New York City two", "in NYC", "in NYC", "in NYC, NYC", "the Big Apple, yes"]
    report, docs = demonstrations(kb, tmp_path, [{"text": text} for text in texts], per_entity=4)
    assert [ent.text for doc in docs for ent in doc.ents] == ["New York City", "NYC", "NYC", "the Big Apple"]
    assert [doc.text for doc in docs] == [texts[0], texts[2], texts[4], texts[5]]
    assert report.mentions == 7
    _, docs = demonstrations(kb, tmp_path, [{"text": text} for text in texts], per_entity=2)
    assert [doc.text for doc in docs] == ["in NYC", "in NYC, NYC"]


def test_a_text_is_in_one_of_both_files(kb: KnowledgeBase, tmp_path: Path) -> None:
    texts = [f"number {n} in New York" for n in range(200)]
    rows: list[Row] = [{"text": text} for text in [*texts, *texts, *(text.replace(" ", "  ") for text in texts)]]
    dev = tmp_path / "dev" / "d.spacy"
    _, docs = demonstrations(kb, tmp_path, rows, dev=dev, per_entity=1000)
    shown, held_out = ({" ".join(doc.text.split()) for doc in each} for each in (docs, read(dev)))
    assert shown | held_out == set(texts)
    assert not shown & held_out
    assert 25 <= len(held_out) <= 55
    assert len(docs) == 2 * len(shown)  # each text once
    again = tmp_path / "again.spacy"
    make_demonstrations(write(tmp_path, rows[:200]), kb, again, dev=dev, progress=False)
    assert {doc.text for doc in read(dev)} <= held_out  # whatever else the file has


def test_a_bad_row_is_named_and_counted(kb: KnowledgeBase, tmp_path: Path) -> None:
    source = write(tmp_path, [{"text": "in NYC"}, "{broken", {"text": 3}, {"text": "We met Barack Obama"}])
    done = call("make-demonstrations", source, kb.path, tmp_path / "o.spacy", "-q")
    assert done.exit_code == 0, done.output
    assert f"{source}:2: row left out: not JSON" in done.stderr
    assert f"{source}:3: row left out: no text" in done.stderr
    assert done.stdout.splitlines() == [
        f"{tmp_path / 'o.spacy'}: 2 docs, 2 mentions of 2 entities, 50.0 % by an alias",
        "2 texts read, 2 bad rows, 2 mentions found",
    ]


def test_errors_leave_nothing_behind(kb: KnowledgeBase, tmp_path: Path) -> None:
    source = write(tmp_path, [{"text": "in NYC"}, "{broken"])
    out, dev = tmp_path / "o.spacy", tmp_path / "d.spacy"

    def run(*arguments: object) -> Any:
        return call("make-demonstrations", *arguments, "-q")

    failed(run(tmp_path / "gone.jsonl", kb.path, out), "gone.jsonl: no such file")
    failed(run(source, tmp_path / "gone", out), "gone")
    failed(run(source, kb.path, tmp_path / "o.jsonl"), "must end in .spacy")
    failed(run(source, kb.path, out, "--dev", tmp_path / "d.jsonl"), "must end in .spacy")
    failed(run(source, kb.path, out, "--dev", out), "both outputs have this path")
    failed(run(source, kb.path, out, "--lang", "qq"), "spaCy has no language 'qq'")
    # all of its texts belong to one of both files
    failed(run(source, kb.path, out, "--dev", dev, "--dev-share", 0), f"{dev}: nothing was written")
    failed(run(source, kb.path, out, "--dev", dev, "--dev-share", 1), f"{out}: nothing was written")
    failed(run(write(tmp_path, ["{broken"]), kb.path, out), "text.jsonl:1: row left out: not JSON")
    assert [path.name for path in tmp_path.iterdir()] == ["raw"]


def test_a_linker_shows_them(models: Path, tmp_path: Path) -> None:
    folder = make_kb(tmp_path, models)
    rows: list[Row] = [{"text": "Above us is the Space Shuttle Atlantis"}]
    _, docs = demonstrations(KnowledgeBase.open(folder), tmp_path, rows)
    nlp = make_pipeline(models, folder)
    assert linker(nlp).add_demonstrations(docs) == 1
    assert [*linker(nlp).store][-1].name == "Space Shuttle Atlantis"
