"""Every public class, function and method says what it is; with arrays, their shapes; with errors, that it raises."""

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
COMMANDS = "spacy_gemel.commands."
# What says how a command ends, or that a method is another class's to write
NO_ERRORS = {"NotImplementedError", "Exit", "SystemExit", "KeyboardInterrupt", "StopIteration"}


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


def test_the_package_was_read() -> None:
    names = {public.name for public in PUBLICS}
    assert len(names) > 300
    assert {"spacy_gemel.component.GemelLinker", "spacy_gemel.component.GemelLinker.initialize"} <= names


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
