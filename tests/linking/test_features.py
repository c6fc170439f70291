"""Each feature by hand, on a few candidates."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from spacy_gemel.decoding.exact_search import Certificate
from spacy_gemel.kb.entity import Entity
from spacy_gemel.linking import features
from spacy_gemel.linking.candidates import Options, ScoredName
from spacy_gemel.linking.demonstrations import NO_IMAGE, Demonstration, DemonstrationStore
from spacy_gemel.linking.features import compute
from spacy_gemel.linking.mention import Mention
from spacy_gemel.linking.prior import FLOOR
from spacy_gemel.linking.settings import LinkerSettings

SETTINGS = LinkerSettings()
PLANET = Entity("planet", "Mercury (planet)", 9, ("Mercury", "The Swift Planet"), "a planet of the sun")
ELEMENT = Entity("element", "Mercury (element)", 0, ("mercury", "Quick-silver"), None)
GOD = Entity("god", "Mercury", 3, (), "a messenger of the gods")
ALL = [PLANET, ELEMENT, GOD]
MORE = [Entity(f"e{number}", f"E {number}") for number in range(3)]


def options(
    mention: str,
    entities: Sequence[Entity],
    scores: Sequence[float] | None = None,
    *,
    text: str = "a text",
    doc: int = 0,
    image: Sequence[float] | None = None,
    shown: Sequence[str] = (),
) -> Options:
    """A mention that may mean some entities, their place in ALL and MORE as rows; each has a name of its own."""
    pixels = None if image is None else np.array(image, dtype=np.float32)
    scores = [-1.0] * len(entities) if scores is None else scores
    names = [
        ScoredName(entity.name, score, [entity], [[*ALL, *MORE].index(entity)], len(entity.name.split()))
        for entity, score in zip(entities, scores, strict=True)
    ]
    rows = [[*ALL, *MORE].index(entity) for entity in entities]
    return Options(Mention(doc, 0, 1, mention, text, pixels), entities, rows, names, frozenset(shown))


def values(feature: str, *batch: Options, settings: LinkerSettings = SETTINGS, **model: Any) -> list[list[list[float]]]:
    """By mention, candidate and column."""
    made = getattr(features, feature)()
    found = made.values(batch, SimpleNamespace(**model), settings)
    assert [rows.shape for rows in found] == [(len(each.entities), len(made.columns)) for each in batch]
    assert all(rows.dtype == np.float64 for rows in found)
    return [rows.tolist() for rows in found]


EMPTY = options("x", [])


def test_score() -> None:
    [found, empty] = values("ScoreFeature", options("Mercury", ALL, [-2.0, -0.5, -3.0]), EMPTY)
    assert found == [[-2.0, -1.5], [-0.5, 0.0], [-3.0, -2.5]]
    assert empty == []


def test_name_probability() -> None:
    """Of 0.2 that both found names have, when all have between 0.25 and 0.8; another was scored besides."""
    probabilities, lengths = (0.15, 0.05, 1e-12), (2, 2, 1)  # with the name's end
    scores = [math.log(p) / length for p, length in zip(probabilities, (3, 3, 2), strict=True)]
    asked = options("Mercury", [PLANET, ELEMENT, GOD], scores)
    names = [name._replace(searched=name.name != "Mercury") for name in asked.names]
    certificate = Certificate(exact=False, gap=0.1, passes=4, mass=(0.2 / 0.8, 0.2 / 0.25))
    assert [name.tokens for name in names] == [*lengths]
    [found, by_beams, empty] = values(
        "NameProbabilityFeature", replace(asked, names=names, certificate=certificate), asked, EMPTY
    )
    assert found == [[pytest.approx(math.log(p / 0.8))] for p in probabilities[:2]] + [[-20.0]]
    assert (by_beams, empty) == ([[0.0]] * 3, [])


def test_demonstrated() -> None:
    assert values("DemonstratedFeature", options("Mercury", ALL, shown=["god", "planet"]), EMPTY) == [
        [[1.0], [0.0], [1.0]],
        [],
    ]


def test_prior() -> None:
    table: Mapping[str, dict[str, float]] = {"Mercury": {"god": 0.5, "planet": 0.25}, "x": {}}
    found = values("PriorFeature", options("Mercury", ALL), EMPTY, prior=SimpleNamespace(of=table.__getitem__))
    assert found[0] == [[pytest.approx(math.log(p + FLOOR))] for p in (0.25, 0.0, 0.5)]
    assert found[1] == []


@pytest.mark.parametrize(
    ("mention", "text", "planet", "element", "god"),
    [
        # is_name, is_alias, folded_name, folded_alias, mention_words, name_words, text_words, alias_words
        ("Mercury", "", [0, 1, 0, 0, 1, 1 / 2, 0, 1], [0, 1, 0, 0, 1, 1 / 2, 0, 1], [1, 0, 0, 0, 1, 1, 0, 0]),
        ("MERCURY'S", "", [0, 0, 0, 1, 1, 1 / 2, 0, 1], [0, 0, 0, 1, 1, 1 / 2, 0, 1], [0, 0, 1, 0, 1, 1, 0, 0]),
        (
            "swift Mercury",
            "A planet, and Mercury.",
            [0, 0, 0, 0, 1 / 2, 1 / 2, 1, 1 / 2],
            [0, 0, 0, 0, 1 / 2, 1 / 2, 0, 1 / 2],
            [0, 0, 0, 0, 1 / 2, 1, 0, 0],
        ),
        ("quick silver", "", [0] * 8, [0, 0, 0, 1, 0, 0, 0, 1], [0] * 8),
        ("!", "", [0] * 8, [0] * 8, [0] * 8),
    ],
)
def test_surface(mention: str, text: str, planet: list[float], element: list[float], god: list[float]) -> None:
    [found] = values("SurfaceFeature", options(mention, ALL, text=text))
    for own, expected in zip(found, (planet, element, god), strict=True):
        assert own == pytest.approx(expected)


def test_the_share_of_a_name() -> None:
    """Of an entity alone with its name everything, which is 0; a share of nothing is bounded."""
    both = ScoredName("Mercury", -1.0, [PLANET, ELEMENT], [0, 1], 1)
    asked = options("Mercury", ALL)
    shared = Options(asked.mention, ALL, asked.rows, [both, both, asked.names[2]], asked.demonstrated)

    def share(name: ScoredName, text: str) -> list[float]:
        assert text == "a text"
        return [1.0, 0.0] if len(name.entities) == 2 else [1.0]

    [found, empty] = values("NameShareFeature", shared, EMPTY, share=share)
    assert (found, empty) == ([[0.0], [pytest.approx(math.log(features.LEAST_SHARE))], [0.0]], [])


def test_length() -> None:
    assert values("LengthFeature", options("Mercury", ALL), EMPTY) == [[[2.0], [2.0], [1.0]], []]


class Cosines:
    """The cosine of a text with the entity of a row is in a table, that of two rows their product."""

    def similarity(self, texts: Sequence[str], rows: Sequence[Sequence[int]]) -> list[NDArray[np.float32]]:
        table = {"Mercury": [0.1, 0.2, 0.3], "Of the gods, and the sun.": [0.4, 0.5, 0.6], "x": [], "a text": []}
        return [
            np.array([table[text][row] for row in each], dtype=np.float32)
            for text, each in zip(texts, rows, strict=True)
        ]

    def between(self, first: Sequence[int], second: Sequence[int]) -> NDArray[np.float32]:
        return np.array([[0.1 * (a + 1) * (b + 1) for b in second] for a in first], dtype=np.float32)


def test_description() -> None:
    asked = options("Mercury", ALL, text="Of the gods, and the sun.")
    [found, empty] = values("DescriptionFeature", asked, EMPTY, descriptions=Cosines())
    # planet, messenger and gods are the words of four letters or more
    expected = [[1, 0.4, 0.1, 0], [0, 0.5, 0.2, 0], [1, 0.6, 0.3, 1 / 2]]
    assert found == [pytest.approx(row) for row in expected]
    assert empty == []
    [blind] = values("DescriptionFeature", asked, descriptions=None)
    assert blind == [pytest.approx([row[0], 0, 0, row[3]]) for row in expected]


def test_image_description() -> None:
    """The cosine of the image with each entity; nothing without an image, and an error without a text tower."""

    def similarity(features: NDArray[np.float32], entities: Sequence[Entity]) -> NDArray[np.float32]:
        return np.array([features[0] / 10 + ALL.index(entity) / 100 for entity in entities], dtype=np.float32)

    clip = SimpleNamespace(similarity=similarity)
    asked = options("Mercury", ALL, image=[2, 0])
    batch = [asked, options("Mercury", ALL), EMPTY, options("x", [], image=[1, 1])]
    found = values("ImageDescriptionFeature", *batch, image_descriptions=clip)
    assert found[0] == [pytest.approx([1.0, cosine]) for cosine in (0.2, 0.21, 0.22)]
    assert found[1:] == [[[0.0, 0.0]] * 3, [], []]
    unused = SETTINGS.replace(use_image=False)
    assert values("ImageDescriptionFeature", asked, settings=unused, image_descriptions=clip) == [[[0.0, 0.0]] * 3]
    with pytest.raises(ValueError, match="needs a CLIP with its text tower: set text = true"):
        values("ImageDescriptionFeature", asked, image_descriptions=None)


PICTURES = np.array([[1, 0], [0, 1], [-1, -1]], dtype=np.float32)


def store() -> DemonstrationStore:
    rows = [("planet", 0), ("planet", 1), ("element", 2), ("god", NO_IMAGE)]
    demonstrations = [Demonstration("t", "m", "n", kb_id, image) for kb_id, image in rows]
    return DemonstrationStore(demonstrations, PICTURES)


def test_picture() -> None:
    """By the most similar picture, on standardised features; nothing without a picture on either side."""
    shown = store()
    model = {"store": shown, "pictures_of": features.pictures_of(shown)}
    assert model["pictures_of"] == {"planet": [0, 1], "element": [2]}
    asked = options("Mercury", ALL, image=[0, 2])
    [found, blind, empty] = values("PictureFeature", asked, options("Mercury", ALL), EMPTY, **model)
    mean, deviation = PICTURES.mean(0), PICTURES.std(0) + 1e-6
    query, *rows = ((np.array(each) - mean) / deviation for each in ([0, 2], *PICTURES))
    cosines = [float(row @ query / np.linalg.norm(row) / np.linalg.norm(query)) for row in rows]
    assert found[0] == pytest.approx([1.0, max(cosines[:2])], abs=1e-5)
    assert found[1] == pytest.approx([1.0, cosines[2]], abs=1e-5)
    assert found[2] == [0.0, 0.0]
    assert (blind, empty) == ([[0.0, 0.0]] * 3, [])
    [off] = values("PictureFeature", asked, settings=SETTINGS.replace(use_image=False), **model)
    assert off == [[0.0, 0.0]] * 3


def shares(*scores: float) -> list[float]:
    return (np.exp(scores) / np.exp(scores).sum()).tolist()


def test_agreement() -> None:
    """The mean over the doc's other mentions of the cosines with what they may mean, by their probabilities."""
    one = options("Mercury", ALL)
    other = options("Mars", [ELEMENT, GOD], [-1.0, -3.0])
    elsewhere = options("Venus", [GOD], doc=1)
    [found, _, alone, nothing] = values(
        "AgreementFeature", one, other, elsewhere, options("Nobody", []), descriptions=Cosines()
    )
    first, second = shares(-1.0, -3.0)
    mean = 0.1 * (2 * first + 3 * second)
    assert [row[0] for row in found] == pytest.approx([mean, 2 * mean, 3 * mean])
    assert [row[1] for row in found] == [0.0] * 3
    assert alone == [[0.0, 0.0]]
    assert nothing == []
    [blind, _] = values("AgreementFeature", one, other, descriptions=None)
    assert blind == [[0.0, 0.0]] * 3


def test_agreement_looks_at_the_best_three() -> None:
    scores = [-1.0, -9.0, -2.0, -3.0, -8.0]
    other = options("Mars", [*ALL[:2], *MORE], scores)
    [found, _] = values("AgreementFeature", options("Mercury", [PLANET]), other, descriptions=Cosines())
    best = [(math.exp(score), row) for score, row in zip(scores, other.rows, strict=True) if score > -8]
    expected = sum(share * 0.1 * (row + 1) for share, row in best) / sum(share for share, _ in best)
    assert found[0][0] == pytest.approx(expected)


def test_chains_of_names() -> None:
    """A mention that is part of a longer one means what that may mean; the same words say nothing of each other."""
    holmes = options("Holmes", [GOD, PLANET])
    sherlock = options("Sherlock Holmes", [PLANET, ELEMENT], [-1.0, -2.0])
    again = options("holmes'", [ELEMENT])
    [short, long, other] = values("AgreementFeature", holmes, sherlock, again, descriptions=Cosines())
    assert [row[1] for row in short] == pytest.approx([0.0, shares(-1.0, -2.0)[0]])
    assert [row[1] for row in long] == [0.0, 0.0]
    assert [row[1] for row in other] == pytest.approx([shares(-1.0, -2.0)[1]])
    [only, _] = values("AgreementFeature", holmes, again, descriptions=Cosines())
    assert only == [[0.0, 0.0]] * 2


def test_compute_puts_them_side_by_side() -> None:
    batch = [options("Mercury", ALL, [-2.0, -0.5, -3.0], shown=["god"]), EMPTY]
    made = [features.ScoreFeature(), features.DemonstratedFeature()]
    found, columns = compute(made, batch, SimpleNamespace(), SETTINGS)  # type: ignore[arg-type]
    assert columns == ["score", "behind", "demonstrated"]
    assert found[0].tolist() == [[-2.0, -1.5, 0.0], [-0.5, 0.0, 0.0], [-3.0, -2.5, 1.0]]
    assert found[1].shape == (0, 3)
    found, columns = compute([], batch, SimpleNamespace(), SETTINGS)  # type: ignore[arg-type]
    assert ([rows.shape for rows in found], columns) == ([(3, 0), (0, 0)], [])
