"""Imports stay light, and every registered name resolves."""

import importlib
import json
import logging
import pkgutil
import subprocess
import sys
from importlib.util import find_spec

import pytest
from spacy import registry

import spacy_gemel

HEAVY = ["transformers", "open_clip", "sentence_transformers", "pyarrow", "spacy_transformers"]


def loaded(code: str, names: list[str]) -> list[str]:
    program = f"import json, sys\n{code}\nprint(json.dumps([n for n in {names!r} if n in sys.modules]))"
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    found: list[str] = json.loads(run.stdout.splitlines()[-1])
    return found


def test_the_package_alone_loads_nothing() -> None:
    assert loaded("import spacy_gemel", ["spacy", "torch", "numpy", *HEAVY]) == []


def test_the_public_names_are_imported_when_they_are_used() -> None:
    from spacy_gemel.pipeline.gemel_linker import GemelLinker
    from spacy_gemel.utils.messages import GemelWarning

    assert (spacy_gemel.GemelLinker, spacy_gemel.GemelWarning) == (GemelLinker, GemelWarning)
    for name in spacy_gemel.__all__:
        assert getattr(spacy_gemel, name).__name__ == name
        assert name in dir(spacy_gemel)
    assert "__version__" in dir(spacy_gemel)
    with pytest.raises(AttributeError, match="has no attribute 'Linker'"):
        _ = spacy_gemel.Linker
    code = "import spacy_gemel; spacy_gemel.Entity, spacy_gemel.KnowledgeBase, spacy_gemel.GemelWarning"
    assert loaded(code, ["spacy", "thinc", "torch"]) == []


def test_a_blank_pipeline_loads_no_model_library() -> None:
    code = "import spacy; nlp = spacy.blank('en'); assert nlp.has_factory('gemel_linker')"
    # Where one of these is installed, it is an entry point as well and loads transformers itself.
    there = {name for name in ("spacy_transformers", "spacy_curated_transformers") if find_spec(name)}
    others = {"transformers", *there} if there else set()
    assert set(loaded(code, HEAVY)) <= others


@pytest.mark.parametrize(
    "module",
    [
        "spacy_gemel.kb.trie",
        "spacy_gemel.decoding.beam_search",
        "spacy_gemel.models.causal_lm",
        "spacy_gemel.models.open_clip",
        "spacy_gemel.models.quantization",
        "spacy_gemel.models.sentence_encoder",
    ],
)
def test_rooms_that_know_nothing_of_spacy(module: str) -> None:
    assert loaded(f"import {module}", ["spacy", "thinc", "pyarrow"]) == []


def test_every_registered_name_is_an_entry_point() -> None:
    expected = {
        "misc": [
            "CausalLM",
            "OpenCLIP",
            "HuggingFaceVision",
            "NoRetriever",
            "RandomRetriever",
            "BM25Retriever",
            "SentenceTransformerRetriever",
            "TransformerRetriever",
            "KBFromDisk",
            "KBFromLookupKB",
        ],
        "architectures": ["LinearMapper"],
        "readers": ["MultimodalCorpus"],
        "scorers": ["linker_scorer"],
    }
    for kind, names in expected.items():
        for name in names:
            assert callable(getattr(registry, kind).get(f"spacy_gemel.{name}.v1"))


def test_every_logger_is_in_one_tree() -> None:
    """One handler or level on "spacy_gemel" holds for all that the package logs."""
    modules = [
        importlib.import_module(module.name) for module in pkgutil.walk_packages(spacy_gemel.__path__, "spacy_gemel.")
    ]
    loggers = {name: value for name, value in logging.root.manager.loggerDict.items() if name.startswith("spacy_gemel")}
    assert len(loggers) > 3
    for module in modules:
        for value in vars(module).values():
            if isinstance(value, logging.Logger):
                assert value.name == module.__name__
    for logger in filter(lambda value: isinstance(value, logging.Logger), loggers.values()):
        assert (logger.propagate, logger.handlers, logger.level) == (True, [], logging.NOTSET)
