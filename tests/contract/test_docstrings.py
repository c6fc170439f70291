"""Every public class, function and method says what it is; with arrays, their shapes; with errors, that it raises.

What does something of the paper, or a method that others have found, says which: SOURCES.
"""

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

PACKAGE = Path(__file__).parents[2] / "spacy_gemel"
Function = ast.FunctionDef | ast.AsyncFunctionDef

ARRAYS = re.compile(r"NDArray|ndarray|\bTensor\b|\bFloats[1-4]d\b|\bInts[1-4]d\b|\bArrayXd\b")
# "(mentions, width)", "(d_v,)"; or, where it is said elsewhere, where
SHAPES = re.compile(r"\((?:[^()]|\([^()]*\))*,(?:[^()]|\([^()]*\))*\)|\bone-dimensional\b|\b[Ss]ee `?\w")
RAISES = re.compile(r"\b[Rr]aises?\b|\braised\b")
# Commands say their errors on the command line; their docstrings are what --help shows.
COMMANDS = "spacy_gemel.cli."
# What says how a command ends, or that a method is another class's to write
NO_ERRORS = {"NotImplementedError", "Exit", "SystemExit", "KeyboardInterrupt", "StopIteration"}


PAPER = r"[Pp]aper"
# What it is for -> what its docstring names. Modules as well, and those of scripts that train the mini world's models.
SOURCES = {
    # the paper (Shi et al. 2024), in its own order
    "spacy_gemel.pipeline.gemel_linker.make_gemel_linker": r"Shi et al\. 2024, arXiv 2306\.12725",
    "research.paper": r"Shi et al\. 2024.*arXiv 2306\.12725",
    "spacy_gemel.models.vision_encoder": PAPER + r" section 3\.1",
    "spacy_gemel.models.vision_encoder.VisionEncoder": PAPER + r" section 3\.1",
    "spacy_gemel.models.open_clip.load_open_clip": r"Radford et al\. 2021.*\(the paper's\)",
    "spacy_gemel.models.mapper.linear_mapper": PAPER + r" eq\. 1",
    "spacy_gemel.linking.prompt.query_text": PAPER + r" section 3\.2",
    "spacy_gemel.linking.prompt.demonstration_text": PAPER + r" section 3\.2",
    "spacy_gemel.linking.prompt": PAPER + r" section 3\.2",
    "spacy_gemel.linking.prompt.PromptBuilder": PAPER + r" section 3\.2",
    "spacy_gemel.linking.retrievers": "Table 6",
    "spacy_gemel.linking.retrievers.RandomRetriever": PAPER + r" Table 6",
    "spacy_gemel.linking.retrievers.BM25Retriever": PAPER + r" Table 6; Robertson and Zaragoza 2009",
    "spacy_gemel.linking.retrievers.DenseRetriever": r"the paper's, Table 6, with SimCSE, Gao et al\. 2021",
    "spacy_gemel.linking.model.LinkingModel.learn": PAPER + r" eq\. 4",
    "spacy_gemel.models.causal_lm": PAPER + r" sections 3\.2 and 3\.3",
    "spacy_gemel.models.causal_lm.CausalLM": PAPER + r" sections 3\.2 and 3\.3",
    "spacy_gemel.models.causal_lm.CausalLM.name_loss": PAPER + r" eq\. 4",
    "spacy_gemel.decoding.beam_search": PAPER + r" section 3\.3.*transformers\.generate",
    "spacy_gemel.decoding.beam_search.beam_search": r"[Pp]aper's search \(section 3\.3\).*transformers\.generate",
    "spacy_gemel.decoding.constraints.TrieConstraint": r"paper's \(section 3\.3\).*GENRE.*De Cao et al\. 2021",
    "spacy_gemel.evaluation.metrics.summarise": "the paper's, top-1",
    "spacy_gemel.evaluation.tail": PAPER,
    "spacy_gemel.evaluation.tail.split_tail": PAPER,
    # known methods
    "spacy_gemel.models.sentence_encoder": "SimCSE",
    "spacy_gemel.models.sentence_encoder.SentenceEncoder": "Reimers and Gurevych 2019",
    "spacy_gemel.models.sentence_encoder.PoolerEncoder": r"SimCSE.*Gao et al\. 2021",
    "spacy_gemel.models.quantization.quantization_options": r"Dettmers et al\. 2022.*Dettmers et al\. 2023",
    "spacy_gemel.kb.trie": "Jacobson 1989",
    "spacy_gemel.linking.prior.MentionPrior": r"Milne and Witten \(2008\)",
    "spacy_gemel.evaluation.bootstrap": "Efron 1979",
    "spacy_gemel.evaluation.bootstrap.accuracy_interval": "Efron 1979",
    "spacy_gemel.evaluation.bootstrap.paired_difference": "Efron 1979",
    "spacy_gemel.evaluation.bootstrap.seeds_and_mentions_interval": "Owen 2007",
    "spacy_gemel.evaluation.calibration.fit_temperature": r"Guo et al\. 2017.*Kiefer 1953",
    "spacy_gemel.evaluation.confidence.reliability": r"Guo et al\. 2017",
    "spacy_gemel.evaluation.confidence.expected_calibration_error": r"Guo et al\. 2017",
    "spacy_gemel.pipeline.scorer.linker_score": r"spaCy's `Scorer\.score_links`",
    "research.baselines.spacy_linker.projected_vectors": "Johnson and Lindenstrauss 1984",
    "research.baselines.spacy_linker": "spaCy's own entity_linker",
    "scripts.mini_world.train_lm.build_optimizers": r"Muon \(Jordan et al\. 2024\)",
    "scripts.mini_world.train_sentences": r"SimCSE.*Gao et al\. 2021",
    "scripts.mini_world.train_vision": r"CLIP \(Radford et al\. 2021\)",
    # data sets
    "spacy_gemel.data.datasets.gemel": r"Shi et al\. 2024",
    "spacy_gemel.data.datasets.melbench": r"Wang, Wu and Chen 2022(?s:.*)Luo et al\. 2023",
    "spacy_gemel.data.datasets.wikidiverse": r"Wang et al\. 2022",
}
# "(Efron 1979)", "Guo et al. 2017", "Milne and Witten (2008)", "paper section 3.2"
CITES = re.compile(r"[A-Z]\w+(?: et al\.)? \(?(?:19|20)\d\d\b|\bpaper(?:'s,)? (?:sections? \d|eq\. \d|Table \d)")


class Public(NamedTuple):
    name: str
    docstring: str
    signature: str
    raised: set[str]


def publics() -> Iterator[Public]:
    for path in sorted(PACKAGE.rglob("*.py")):
        module = path.relative_to(PACKAGE.parent).with_suffix("").as_posix().replace("/", ".")
        yield from _publics_in(ast.parse(path.read_text(encoding="utf8")), module)


def _publics_in(tree: ast.Module | ast.ClassDef, prefix: str) -> Iterator[Public]:
    for node in tree.body:
        if not isinstance(node, ast.ClassDef | Function) or node.name.startswith("_"):
            continue
        if any(ast.unparse(decorator).endswith((".setter", "overload")) for decorator in node.decorator_list):
            continue
        name = f"{prefix}.{node.name}"
        docstring = ast.get_docstring(node) or ""
        if isinstance(node, ast.ClassDef):
            made = [
                part for part in node.body if isinstance(part, Function) and part.name in ("__init__", "__post_init__")
            ]
            fields = [part for part in node.body if isinstance(part, ast.AnnAssign)]
            shown = [ast.unparse(part.annotation) for part in fields if not ast.unparse(part.target).startswith("_")]
            yield Public(name, docstring, " ".join(shown), {error for part in made for error in _raised(part)})
            yield from _publics_in(node, name)
        else:
            yield Public(name, docstring, _annotations(node), _raised(node))


def _annotations(function: Function) -> str:
    arguments = [*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs]
    given = [argument.annotation for argument in arguments] + [function.returns]
    return " ".join(ast.unparse(annotation) for annotation in given if annotation is not None)


def _raised(function: Function) -> set[str]:
    """The classes that its own body raises, not those of functions inside it and not what it only passes on."""
    found = set()
    left: list[ast.AST] = [*function.body]
    while left:
        node = left.pop()
        if isinstance(node, ast.ClassDef | Function | ast.Lambda):
            continue
        left.extend(ast.iter_child_nodes(node))
        if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call):
            found.add(ast.unparse(node.exc.func).rpartition(".")[2])
    return found - NO_ERRORS


PUBLICS = list(publics())


def docstrings() -> dict[str, str]:
    """Of all public things and modules, and of the scripts' modules and functions; each in one line."""
    found = {public.name: public.docstring for public in PUBLICS}
    for folder in (PACKAGE, PACKAGE.parent / "scripts" / "mini_world"):
        for path in folder.rglob("*.py"):
            module = path.relative_to(PACKAGE.parent).with_suffix("").as_posix().replace("/", ".")
            tree = ast.parse(path.read_text(encoding="utf8"))
            found[module] = ast.get_docstring(tree) or ""
            if folder != PACKAGE:
                found |= {public.name: public.docstring for public in _publics_in(tree, module)}
    return {name: " ".join(docstring.split()) for name, docstring in found.items()}


def test_what_others_have_found_names_them() -> None:
    said = docstrings()
    assert [name for name in SOURCES if name not in said] == [], "renamed or gone: SOURCES is to follow"
    assert [name for name, source in SOURCES.items() if not re.search(source, said[name])] == []


def test_what_names_a_source_stands_in_the_list() -> None:
    citing = {name for name, docstring in docstrings().items() if CITES.search(docstring)}
    assert len(citing) > 30
    assert citing - set(SOURCES) == set()


def test_the_package_was_read() -> None:
    names = {public.name for public in PUBLICS}
    assert len(names) > 300
    assert {
        "spacy_gemel.pipeline.gemel_linker.GemelLinker",
        "spacy_gemel.pipeline.gemel_linker.GemelLinker.initialize",
    } <= names


def test_each_has_a_docstring() -> None:
    assert [public.name for public in PUBLICS if not public.docstring] == []


def test_what_raises_says_so() -> None:
    raising = [public for public in PUBLICS if public.raised and not public.name.startswith(COMMANDS)]
    assert len(raising) > 50
    silent = [
        f"{public.name}: {', '.join(sorted(public.raised))}"
        for public in raising
        if not RAISES.search(public.docstring) and not any(error in public.docstring for error in public.raised)
    ]
    assert silent == []


def test_what_takes_or_gives_arrays_says_their_shapes() -> None:
    with_arrays = [public for public in PUBLICS if ARRAYS.search(public.signature)]
    assert len(with_arrays) > 20
    assert {public.name for public in with_arrays if not SHAPES.search(public.docstring)} == set()


@pytest.mark.parametrize(
    ("text", "there"),
    [("Raises ValueError.", True), ("It is raised to 2.", True), ("See x.", False), ("Ends.", False)],
)
def test_the_rule_for_raises(text: str, there: bool) -> None:
    assert bool(RAISES.search(text)) == there
