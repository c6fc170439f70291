"""Where mentions given as strings stand: always where they are verbatim, never where it would be a guess."""

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from spacy_gemel.data.datasets.alignment import AMBIGUOUS, PART_OF_WORD, REPEATED, VERBATIM, align
from spacy_gemel.data.datasets.words import Fit, fit_of, split_words
from spacy_gemel.data.records import SAME_SPAN, MentionSpan


def indices(text: str, *mentions: str) -> list[str | None]:
    return [text[a.start : a.end] if isinstance(a, MentionSpan) else None for a in align(text, mentions)]


def starts(text: str, *mentions: str) -> list[int | None]:
    return [a.start if isinstance(a, MentionSpan) else None for a in align(text, mentions)]


def test_repetitions_get_their_occurrences_in_order() -> None:
    assert starts("Java, java and Java", "Java", "Java") == [0, 15]
    again = align("Java and Java", ["Java", "Java", "Java"])
    assert again[2] == REPEATED


def test_whole_words_come_before_parts_of_words() -> None:
    assert starts("Javanese coffee from Java", "Java") == [21]
    assert starts("St. Mark's", "Mark") == [4]
    assert starts("Anna-Maria with Anna", "Anna") == [16]
    assert starts("the U.S.A. and the U.S.", "U.S.") == [19]
    # the k-th mention has the k-th place, also where the better place is the later one
    assert starts("Anna-Maria with Anna", "Anna", "Anna") == [0, 16]


@pytest.mark.parametrize(
    ("text", "mention"),
    [
        ("Ann met Anna", "Ann"),
        ("Canada met ada", "ada"),
        ("Javanese coffee from Java", "Java"),
        ("the U.S. and the U.S.A.", "U.S."),
        ("Josephine and Jose, Jose\u0301", "Jose"),
        ("アンとアンナ", "アン"),
        ("서울 남서울", "서울"),
    ],
)
def test_a_repetition_does_not_land_in_another_word(text: str, mention: str) -> None:
    first, again = align(text, [mention, mention])
    assert isinstance(first, MentionSpan) and first.rule == VERBATIM
    assert again == REPEATED


@pytest.mark.parametrize(
    ("text", "mention"),
    [
        ("Anna's hat, Anna's dog", "Anna"),
        ("Anna’s hat, and Anna", "Anna"),
        ("U.S. ships, U.S.-built", "U.S."),
        ("Sammy Davis Jr., Davis Jr.", "Davis Jr."),
        ("London and London-based", "London"),
        ("从东京到东京站", "东京"),
        ("東京は東京だ", "東京"),
        ("서울에서 서울로", "서울"),
    ],
)
def test_a_repetition_has_its_place_where_no_word_is_cut(text: str, mention: str) -> None:
    indices = align(text, [mention, mention])
    assert [index.rule for index in indices if isinstance(index, MentionSpan)] == [VERBATIM, VERBATIM]


def test_inside_another_word_only_where_nothing_else_fits() -> None:
    assert align("Canada met ADA", ["ada"]) == [MentionSpan(3, 6, rule=PART_OF_WORD)]
    assert indices("Canada met ADA", "Ada") == ["ADA"]
    assert indices("CAdanada met ADA", "Ada") == ["ADA"]
    assert indices("Paul Smithson and Paul A. Smith", "Paul Smith") == ["Paul A. Smith"]
    assert indices("the USA and U.S. ships", "US") == ["U.S"]
    # the beginning of a word before the middle of one, and that before a place with another letter
    assert align("Icelandic", ["Iceland"]) == [MentionSpan(0, 7, rule=PART_OF_WORD)]
    assert align("Joanna, Annabel", ["nna"]) == [MentionSpan(3, 6, rule=PART_OF_WORD)]
    assert align("Joanna, nnabel", ["nna"]) == [MentionSpan(8, 11, rule=PART_OF_WORD)]
    assert align("Marguerites, Margverite", ["Marguerite"]) == [MentionSpan(0, 10, rule=PART_OF_WORD)]
    assert align("Icelandic, Icelander", ["Iceland"] * 3) == [
        MentionSpan(0, 7, rule=PART_OF_WORD),
        MentionSpan(11, 18, rule=PART_OF_WORD),
        REPEATED,
    ]


def test_a_repetition_of_what_a_rule_found_does_not_land_in_another_word() -> None:
    text = "CAdanada met ADA"
    found, again = align(text, ["Ada", "Ada"])
    assert isinstance(found, MentionSpan) and text[found.start : found.end] == "ADA"
    assert again == REPEATED


def test_a_mention_keeps_off_another_where_it_can() -> None:
    assert starts("New York and York", "York", "New York") == [13, 0]
    assert starts("York, New York", "New York", "York") == [6, 0]
    # it cannot: the data set wants both
    assert indices("Otto and Lena Quist", "Lena Quist", "Quist") == ["Lena Quist", "Quist"]


@pytest.mark.parametrize(
    ("text", "mention", "found"),
    [
        ("A map of Louis of Nassau's land", "Louis Nassau", "Louis of Nassau"),
        ("Tom de Vaart (left)", "Tom Vaart", "Tom de Vaart"),
        ("Van der Loo and his dog", "Van Loo", "Van der Loo"),
        ("Giles Tarn, 3rd Earl of Fenwick, by", "Giles Tarn 3rd Earl Fenwick", None),
        ("Josephine: JOSÉPHINE BAKER", "Joséphine Baker", "JOSÉPHINE BAKER"),
        ("Jose\u0301phine Baker", "Josephine Baker", "Jose\u0301phine Baker"),
        ("Sammy  Davis\u00a0Jr.", "Sammy Davis Jr.", "Sammy  Davis\u00a0Jr."),
        ("the “Sud–Est” Cup", "Sud-Est Cup", "Sud–Est” Cup"),
        ("O’Brien’s hat", "O'Brien", "O’Brien"),
        ("the Sud-Est Cup", "SudEst Cup", "Sud-Est Cup"),
        ("in the U.S. Navy", "US Navy", "U.S. Navy"),
        ("Owen J. Marsh, left", "Owen Marsh", "Owen J. Marsh"),
        ("Toby B. Van, painter", "Toby Van", "Toby B. Van"),
        ("with Alice Lee Roosevelt", "Alice Roosevelt", "Alice Lee Roosevelt"),
        ('Edward "Ned" Kelly', "Edward Kelly", 'Edward "Ned" Kelly'),
        ("NASA's Blue Marble pictures", "The Blue Marble", "Blue Marble"),
        ("Ferdinand Georg Lutz", "Ferdinand Georg von Lutz", "Ferdinand Georg Lutz"),
        ("Marguerite Olsen smiles", "Margerite Olsen", "Marguerite Olsen"),
        ("Norman Garham", "Norman Graham", "Norman Garham"),
    ],
)
def test_finds_what_is_not_verbatim(text: str, mention: str, found: str | None) -> None:
    expected = "Giles Tarn, 3rd Earl of Fenwick" if found is None else found
    (index,) = align(text, [mention])
    assert isinstance(index, MentionSpan), index
    assert text[index.start : index.end] == expected
    assert index.rule != VERBATIM


@pytest.mark.parametrize(
    ("text", "mention", "reason"),
    [
        ("Rinaldo Count Bertoldi", "Count Rinaldo", "not as one name"),
        ("Mira Petkova – Stoyan's aunt", "Stoyan Petkova", "not as one name"),
        ("Tarrant in Berlin", "Greta Holm", "none of its words"),
        ("Tarrant in Berlin", "Edgar Tarrant", "only some of its words"),
        ("it was he", "IT", "not as one name"),
        ("they will march", "Will", "not as one name"),
        ("Peter Hague", "The Hague", "only some of its words"),
        ("a Police chief", "Police van", "only some of its words"),
        ("Martin H. W. Cole", "Martin W. Cole", "not as one name"),
        ("Nora with Uncle Weller", "Nora Weller", "not as one name"),
        ("John and Jane Smith", "John Smith", "not as one name"),
        ("John, Mary Smith", "John Smith", "not as one name"),
        ("at home with Paul. Of Nassau nothing", "Paul Nassau", "not as one name"),
        ("Paula Jones", "Paul Jones", "only some of its words"),
        ("Christina Weller", "Christian Weller", "only some of its words"),
        ("Boeing 747-300", "Boeing 747-400", "only some of its words"),
        ("as Vela coach", "A.S. Vela", "only some of its words"),
        ("Alice Lee Roosevelt or Alice Hathaway Roosevelt", "Alice Roosevelt", "more than one place"),
        ("anything", "  ", "blank"),
        ("anything", "!?", "none of its words"),
    ],
)
def test_reports_and_does_not_guess(text: str, mention: str, reason: str) -> None:
    (index,) = align(text, [mention])
    assert isinstance(index, str), index
    assert reason in index


def test_two_mentions_never_get_one_place() -> None:
    text = "Owen J. Marsh"
    assert indices(text, "Owen J. Marsh", "Owen Marsh") == ["Owen J. Marsh", None]
    assert indices("Alda the Bold, Alda the Bold", "Alda Bold", "Alda Bold", "Alda Bold")[2] is None
    assert starts("Alda the Bold, Alda the Bold", "Alda Bold", "Alda Bold") == [0, 15]


def test_places_given_already_are_left_alone() -> None:
    (index,) = align("Java and Java", ["Java"], taken=[(0, 4)])
    assert index == MentionSpan(9, 13, rule=VERBATIM)


LETTERS = st.text(alphabet=st.sampled_from("abAB .,-'’é\u0301\u00a0Ößß1\n"), max_size=24)
ANY = st.text(max_size=24)


@st.composite
def texts_with_parts(draw: st.DrawFn) -> tuple[str, list[str]]:
    text = draw(LETTERS | ANY)
    parts = []
    for _ in range(draw(st.integers(0, 5))):
        start = draw(st.integers(0, len(text)))
        parts.append(text[start : draw(st.integers(start, len(text)))])
    return text, parts


def checked(text: str, mentions: list[str]) -> list[MentionSpan | str]:
    """Every span inside the text, none twice."""
    result = align(text, mentions)
    assert len(result) == len(mentions)
    spans = [(a.start, a.end) for a in result if isinstance(a, MentionSpan)]
    assert len(set(spans)) == len(spans)
    assert all(0 <= start < end <= len(text) for start, end in spans)
    return result


def occurrences(text: str, mention: str) -> list[int]:
    return [at for at in range(len(text)) if mention and text.startswith(mention, at)]


def whole_places(text: str, mention: str) -> list[int]:
    return [at for at in occurrences(text, mention) if fit_of(text, at, at + len(mention)) <= Fit.JOINED]


@settings(max_examples=500)
@given(texts_with_parts())
@example(("aba", ["ab", "ba"]))
@example(("aaa", ["aa", "a", "aa", "aaa"]))
@example(("Ann met Anna", ["Ann", "Ann"]))
def test_what_is_verbatim_is_found_as_it_is(case: tuple[str, list[str]]) -> None:
    text, mentions = case
    for number, (mention, index) in enumerate(zip(mentions, checked(text, mentions), strict=True)):
        wanted = mention.strip()
        repetition = sum(other.strip() == wanted for other in mentions[:number])
        whole = whole_places(text, wanted)
        if not wanted:
            assert isinstance(index, str)
        elif repetition < len(whole):
            assert isinstance(index, MentionSpan)
            assert (text[index.start : index.end], index.rule) == (wanted, VERBATIM)
            assert index.start in whole
        elif whole:
            assert index == REPEATED
        elif repetition == 0 and occurrences(text, wanted) and isinstance(index, str):
            # a rule knew a better place than inside a word, but not which, or another spelling of the mention has it
            assert index in (AMBIGUOUS, SAME_SPAN)
        elif isinstance(index, MentionSpan) and index.rule == PART_OF_WORD:
            assert text[index.start : index.end] == wanted


@settings(max_examples=500)
@given(texts_with_parts())
@example(("111111..1111.", [".", "11111."]))
def test_spans_overlap_only_where_no_other_place_is_left(case: tuple[str, list[str]]) -> None:
    """Of mentions that are there as whole words: none of them gives way to one inside a word, which comes later."""
    text, mentions = case
    result = [a for a in checked(text, mentions) if isinstance(a, MentionSpan)]
    for one in result:
        others = [other for other in result if other is not one and other.rule == VERBATIM]
        if one.rule != VERBATIM or all(one.end <= other.start or other.end <= one.start for other in others):
            continue
        # an overlapping mention has no place as whole words that is clear of all others
        surface = text[one.start : one.end]
        for at in whole_places(text, surface):
            assert any(at < other.end and other.start < at + len(surface) for other in result)


@settings(max_examples=500)
@given(LETTERS | ANY, st.lists(LETTERS | ANY, max_size=4))
def test_never_raises_whatever_the_mentions(text: str, mentions: list[str]) -> None:
    checked(text, mentions)


WORDS = st.sampled_from(["of", "the", "de", "von", "and", "Anna", "Karl", "J.", "Stein", "I", "Braun", ",", "(", "-"])


@settings(max_examples=500)
@given(st.lists(WORDS, max_size=10), st.lists(WORDS, min_size=1, max_size=4))
def test_a_tolerant_span_has_the_mentions_words_in_order(words: list[str], mention: list[str]) -> None:
    text = " ".join(words)
    (index,) = checked(text, [" ".join(mention)])
    if not isinstance(index, MentionSpan):
        return
    span = iter(word.folded for word in split_words(text[index.start : index.end]))
    wanted = [word for word in split_words(" ".join(mention)) if not word.is_function_word]
    assert all(word.folded in span for word in wanted)
    # it begins and ends with words of the mention
    found = [word.folded for word in split_words(text[index.start : index.end])]
    if found:
        assert {found[0], found[-1]} <= {word.folded for word in split_words(" ".join(mention))}
