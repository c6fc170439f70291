"""Which spans of a text are whole words, in scripts with blanks and without."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spacy_gemel.data.datasets.words import Fit, differ_by_one_letter, fit_of


@pytest.mark.parametrize(
    ("text", "fit"),
    [
        ("[Ann] met", Fit.WHOLE),
        ("met [Ann]", Fit.WHOLE),
        ("([Ann])", Fit.WHOLE),
        ("“[Ann]”", Fit.WHOLE),
        ("'[Ann]'", Fit.WHOLE),
        ("[Ann]a", Fit.PREFIX),
        ("Jo[ann]", Fit.INSIDE),
        ("J[oan]n", Fit.INSIDE),
        ("C[ana]da", Fit.INSIDE),
        # a possessive is no longer word, whichever apostrophe it has
        ("[Ann]'s hat", Fit.WHOLE),
        ("[Ann]’s hat", Fit.WHOLE),
        ("[Ann's] hat", Fit.WHOLE),
        ("[ANN]'S HAT", Fit.WHOLE),
        ("[Boss]' hat", Fit.WHOLE),
        ("[O]'Sullivan", Fit.JOINED),
        ("O'[Brien]", Fit.JOINED),
        ("[Ankara]'da", Fit.JOINED),
        # hyphens and the like
        ("[Jean]-Paul", Fit.JOINED),
        ("Jean-[Paul]", Fit.JOINED),
        ("[Berlin] - a city", Fit.WHOLE),
        ("[Berlin]-", Fit.WHOLE),
        ("Riga/[Tallinn]", Fit.JOINED),
        ("in_[Riga]_now", Fit.JOINED),
        # abbreviations, and mentions that end in a mark
        ("the [U.S.] Navy", Fit.WHOLE),
        ("the [U.S]. Navy", Fit.WHOLE),
        ("the [U.S].", Fit.WHOLE),
        ("the [U.S.]A. Navy", Fit.PREFIX),
        ("the [U.S].A.", Fit.PREFIX),
        ("the U.[S.]", Fit.INSIDE),
        ("the [U.S.]'s", Fit.WHOLE),
        ("Davis [Jr.], left", Fit.WHOLE),
        ("[J.R.]Smith", Fit.JOINED),
        ("J.[Smith]", Fit.JOINED),
        ("at [St.]Gallen", Fit.JOINED),
        ("in [London].", Fit.WHOLE),
        ("[Yahoo!] News", Fit.WHOLE),
        # digits are as good as letters
        ("679.95[NASDAQ]", Fit.INSIDE),
        ("[Apollo]11", Fit.PREFIX),
        # marks belong to their letter
        ("[Jose]\u0301", Fit.PREFIX),
        ("[Jose\u0301]s", Fit.PREFIX),
        ("[Jose\u0301] x", Fit.WHOLE),
        ("e\u0301[a]", Fit.INSIDE),
        # no blanks between words: nobody can tell
        ("我在[东京]工作", Fit.WHOLE),
        ("私は[東京]にいる", Fit.WHOLE),
        ("ไป[ไทย]ดี", Fit.WHOLE),
        ("用[iPhone]拍", Fit.WHOLE),
        # a foreign name in katakana is one word, and a dot joins its parts
        ("[アン]ナと", Fit.PREFIX),
        ("[アンナ]と", Fit.WHOLE),
        ("マ[アン]", Fit.INSIDE),
        ("[アン]・リー", Fit.JOINED),
        # a particle follows a name in hangul, and nothing stands before it
        ("[서울]에서", Fit.WHOLE),
        ("[BTS]는", Fit.WHOLE),
        ("남[서울] 역", Fit.INSIDE),
    ],
)
def test_fit(text: str, fit: Fit) -> None:
    start, end = text.index("["), text.index("]") - 1
    assert fit_of(text.replace("[", "").replace("]", ""), start, end) is fit


@settings(max_examples=500)
@given(st.text(max_size=12) | st.text("aB1 '-.é\u0301", max_size=12), st.data())
def test_plain_letters_are_judged_as_a_regular_expression_does(text: str, data: st.DataObject) -> None:
    if not text:
        return
    start = data.draw(st.integers(0, len(text) - 1))
    end = data.draw(st.integers(start + 1, len(text)))
    fit = fit_of(text, start, end)  # never raises
    if re.fullmatch("[a-zA-Z0-9 ]*", text):
        cut = r"(?<=[a-zA-Z0-9])(?=[a-zA-Z0-9])"
        cuts = {found.start() for found in re.finditer(cut, text)}
        assert fit is (Fit.INSIDE if start in cuts else Fit.PREFIX if end in cuts else Fit.WHOLE)


@pytest.mark.parametrize(
    ("left", "right", "expected"),
    [
        ("abcd", "abd", True),
        ("abd", "abcd", True),
        ("abcd", "abxd", True),
        ("abcd", "acbd", True),
        ("ab", "ba", True),
        ("abcd", "abcd", False),
        ("abcd", "badc", False),
        ("abcd", "ab", False),
    ],
)
def test_differ_by_one_letter(left: str, right: str, expected: bool) -> None:
    assert differ_by_one_letter(left, right) is expected
