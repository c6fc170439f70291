"""Size and plainness of the code: lines, modules, import circles and private words, before the redesign and now.

python -m benchmarks.house [--root FOLDER] [--where] [--output FILE.json]

Tests and generated files do not count, nor does `__init__.py` as a module. Prints a table, and JSON as the last line.
Exits with 1 if a target is missed.
"""

import argparse
import ast
import json
import re
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

PACKAGE = "spacy_gemel"
FOLDERS = (PACKAGE, "research", "benchmarks", "scripts")
ROOT = Path(__file__).resolve().parent.parent

# The redesign asked for 15,000 lines; each issue since may add 800 (so far: real models, the decision).
TARGETS = {"lines": 16_600, "modules": 115, "top_level_modules": 4, "import_circles": 0, "private_words": 0}

# At commit 746a084, the last one before the redesign.
OLD_COUNTS: dict[str, Any] = {
    "lines": 23810,
    "modules": 209,
    "top_level_modules": 29,
    "import_circles": 4,
    "private_words": 1018,
    "lines_outside_the_wheel": {"research": 0, "benchmarks": 4697, "scripts": 3816},
    "private_words_of": {"spacy_gemel": 783, "research": 0, "benchmarks": 172, "scripts": 63},
}


def _counts(text: str) -> dict[str, int]:
    return {word: int(count) for word, count in (pair.split(":") for pair in text.split())}


# Whole identifiers, leading underscores and case aside. Each has its count at 746a084.
WORDS = _counts("""
place:162 places:37 found:166 wanted:29 kept:36 made:23 own:24 given:34 others:24 some:11 held:23 left:18 turn:8
before:28 growth:3 parts:42 blocks:10 stages:14 gather:4 saved:5 saving:1 unpacked:6 forced:1 stored:5
identity:13 configured:1 plain:14 towers:1 alone:2 apart:5 tolerant:4 with_known:1 judge:7 lab:14 keeping:2
claims:1 described:1 measured:4 led_nowhere:1 can_branch:1 longer_check:4 start_at_the_size_of_words:1
rows_called:2 is_linkable:1
""")
# Distinctive enough to count as a part of an identifier, too, as in `_say_slow` or `nil_golds`.
WORDS_IN_PARTS = _counts("""
told:73 said:22 say:9 shown:44 lacking:8 heard:1 hungry:3 heeded:0 unheeded:1 golds:32 peer:12 peers:2 sayable:1
""")
# Class names and constants, as they are written.
EXACT_WORDS = _counts("""
Judge:1 Branches:1 PlainRows:1 Continuation:1 Reach:1 AllowedNames:1 TrieNames:1 JointNames:1 AnyName:1
Finished:1 NEVER:1 Shortcut:1 Made:1 Task:1 Stages:1 Prompting:1
""")
# One half of a pair is no private word in a module with the other half.
PAIRS = {"left": "right", "before": "after"}


def main(arguments: list[str] | None = None) -> int:
    """Print the counts; the exit status says whether the targets are met."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.house", description=__doc__)
    parser.add_argument("--root", type=Path, default=ROOT, help="the checkout to count")
    parser.add_argument("--where", action="store_true", help="list every private word with its file and line")
    parser.add_argument("--output", type=Path, help="write the counts to this JSON file")
    options = parser.parse_args(arguments)
    counts = measure(options.root)
    uses = counts.pop("uses")
    print(table(counts))
    if options.where:
        print("\n".join(f"{path}:{line}: {name} ({word})" for word, path, line, name in uses))
    text = json.dumps({"before": {**OLD_COUNTS, "words": _words_before()}, "after": counts, "targets": TARGETS})
    if options.output is not None:
        options.output.write_text(json.dumps(json.loads(text), indent=1) + "\n", encoding="utf8")
    print(text)
    return 1 if counts["missed"] else 0


def measure(root: Path) -> dict[str, Any]:
    """All counts of a checkout, the targets it misses, and every use of a private word."""
    wheel = sorted((root / PACKAGE).rglob("*.py"))
    modules = [path for path in wheel if path.name != "__init__.py"]
    lengths = {path.relative_to(root).as_posix(): _lines(path) for path in wheel}
    uses = [use for folder in FOLDERS for use in private_words(root, folder)]
    words = Counter(word for word, *_ in uses)
    by_folder = Counter(path.split("/")[0] for _, path, *_ in uses)
    counts: dict[str, Any] = {
        "lines": sum(lengths.values()),
        "modules": len(modules),
        "top_level_modules": sum(path.parent == root / PACKAGE for path in modules),
        "import_circles": len(circles := circles_of(imports_of(root))),
        "private_words": sum(words.values()),
        "lines_outside_the_wheel": {
            folder: sum(map(_lines, (root / folder).rglob("*.py"))) for folder in FOLDERS if folder != PACKAGE
        },
        "private_words_of": {folder: by_folder[folder] for folder in FOLDERS},
        "circles": circles,
        "longest_modules": dict(sorted(lengths.items(), key=lambda item: -item[1])[:8]),
        "words": dict(words),
        "uses": uses,
    }
    return {**counts, "missed": [name for name, target in TARGETS.items() if counts[name] > target]}


def table(counts: Mapping[str, Any]) -> str:
    """Both columns side by side, the private words without a use left out."""
    lines = [f"{'':34}{'746a084':>9}{'now':>9}{'target':>9}"]
    lines += [f"{name:34}{OLD_COUNTS[name]:>9,}{counts[name]:>9,}{TARGETS[name]:>9,}" for name in TARGETS]
    for folder, now in counts["lines_outside_the_wheel"].items():
        lines.append(
            f"{'lines of ' + folder + '/':34}{OLD_COUNTS['lines_outside_the_wheel'].get(folder, 0):>9,}{now:>9,}"
        )
    for folder, now in counts["private_words_of"].items():
        lines.append(
            f"{'private words of ' + folder + '/':34}{OLD_COUNTS['private_words_of'].get(folder, 0):>9,}{now:>9,}"
        )
    lines += [f"longest: {path:46}{length:>6,}" for path, length in counts["longest_modules"].items()]
    lines += ["circle: " + " ".join(circle) for circle in counts["circles"]]
    words = _words_before()
    lines += [
        f"word: {word:28}{words[word]:>9,}{counts['words'][word]:>9,}{0:>9}"
        for word in words
        if word in counts["words"]
    ]
    return "\n".join([*lines, "targets missed: " + (", ".join(counts["missed"]) or "none")])


def _words_before() -> dict[str, int]:
    return {**WORDS, **WORDS_IN_PARTS, **EXACT_WORDS}


def private_words(root: Path, folder: str) -> Iterator[tuple[str, str, int, str]]:
    """Each definition named by a private word: word, file, line, identifier."""
    for path in sorted((root / folder).rglob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf8"))
        names = [*identifiers(tree), (1, path.stem)]
        present = {name.strip("_").lower() for _, name in names}
        for line, name in sorted(names):
            word = private_word(name)
            if word is not None and PAIRS.get(word) not in present:
                yield word, path.relative_to(root).as_posix(), line, name


def private_word(name: str) -> str | None:
    """The private word in an identifier, or None."""
    bare = name.strip("_")
    if bare in EXACT_WORDS:
        return bare
    if bare.lower() in WORDS:
        return bare.lower()
    pieces = (piece.lower() for piece in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z0-9]+", bare))
    return next((piece for piece in pieces if piece in WORDS_IN_PARTS), None)


def identifiers(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Line and name of everything that is defined: functions, classes, arguments, variables, attributes."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.lineno, node.name
        elif isinstance(node, ast.arg):
            yield node.lineno, node.arg
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.lineno, node.id
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.lineno, node.attr


def imports_of(root: Path) -> dict[str, set[str]]:
    """Modules of the package that each module imports, inside functions too."""
    modules = {_module(root, path): path for path in (root / PACKAGE).rglob("*.py")}
    return {name: set(_imports(path, modules)) - {name} for name, path in modules.items()}


def _imports(path: Path, modules: Mapping[str, Path]) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in modules)
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                target = f"{node.module}.{alias.name}"
                if target in modules:
                    yield target
                elif node.module in modules:
                    yield node.module


def _module(root: Path, path: Path) -> str:
    return ".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__")


def circles_of(imports: Mapping[str, Iterable[str]]) -> list[list[str]]:
    """Groups of modules that import each other, by whatever way."""
    reachable = {module: _reachable(module, imports) for module in imports}
    groups = {
        frozenset(other for other in reachable[module] if module in reachable[other])
        for module in imports
        if module in reachable[module]
    }
    return sorted(sorted(group) for group in groups)


def _reachable(start: str, imports: Mapping[str, Iterable[str]]) -> set[str]:
    reached: set[str] = set()
    waiting = list(imports[start])
    while waiting:
        module = waiting.pop()
        if module not in reached:
            reached.add(module)
            waiting.extend(imports[module])
    return reached


def _lines(path: Path) -> int:
    return len(path.read_text(encoding="utf8").splitlines())


if __name__ == "__main__":
    sys.exit(main())
