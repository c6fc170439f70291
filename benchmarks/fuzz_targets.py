"""What `benchmarks.fuzz` feeds with changed files: valid files of every kind, and what is done with them."""

import gzip
import hashlib
import io
import json
import os
import shutil
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import srsly
from PIL import Image

from benchmarks import soak
from benchmarks.made_wiki import make_wiki
from benchmarks.random_llama import Shape, write_random_llama
from benchmarks.subject import docs_of, linker_in
from research.captions import LINKER
from research.mini_world import MODELS, ROOT
from spacy_gemel.images.image import FORMATS, ImageError, read_image
from spacy_gemel.kb.builder import build_kb
from spacy_gemel.kb.check import check_kb
from spacy_gemel.kb.entity import KBError
from spacy_gemel.kb.knowledge_base import KnowledgeBase
from spacy_gemel.models.tokenizer import load_tokenizer
from spacy_gemel.utils.files import files_in, resolve, sha256_of

TOKENIZER = ROOT / MODELS / "language_model"
ENTITIES = [
    {"id": f"Q{n}", "name": name, "aliases": ["Hg", name.upper()], "description": f"of {n}", "count": n}
    for n, name in enumerate(("Mercury", "Mercury (planet)", "Mercury (element)", "São Tomé", "北京市", "Java"))
]
TABLE = b"text,image,mention,start,end\nA view of Java,a.png,Java,10,14\nHere is Mercury,,Mercury,,\n"


class SilentError(Exception):
    """A damaged file was read as if it were sound."""


@dataclass(frozen=True, slots=True)
class Target:
    """Valid files by kind, and what is done with a changed one.

    Attributes:
        seeds: By kind; what stands behind a colon tells files of one kind apart.
        check: Called with kind, content and an empty folder. An error of `errors` whose message has one of `words` is a
            refusal, any other is a finding.
        errors: What may be raised.
        words: What a message must name, in small letters.
    """

    seeds: Mapping[str, bytes]
    check: Callable[[str, bytes, Path], None]
    errors: tuple[type[Exception], ...] = (ValueError, OSError)
    words: tuple[str, ...] = ()


def kb_target(folder: Path) -> Target:
    """Entities to build of, sources to import, and each file of a knowledge base."""
    tokenizer = load_tokenizer(str(TOKENIZER))
    lines = "".join(json.dumps(row) + "\n" for row in ENTITIES).encode()
    (folder / "entities.jsonl").write_bytes(lines)
    build_kb(folder / "entities.jsonl", folder / "kb", tokenizer, progress=False)
    whole = KnowledgeBase.open(folder / "kb")
    seeds = {"entities.jsonl": lines, **{f"kb/{name}": (folder / "kb" / name).read_bytes() for name in whole.files()}}
    imports = write_imports(folder)

    def check(kind: str, data: bytes, room: Path) -> None:
        if kind == "entities.jsonl":
            (room / kind).write_bytes(data)
            build_kb(room / kind, room / "kb", tokenizer, progress=False)
            use_kb(KnowledgeBase.open(room / "kb", verify=True))
            if problems := check_kb(room / "kb"):
                raise SilentError(f"a knowledge base was built that is not sound: {problems}")
            return
        if kind.startswith("import "):
            check_import(imports, kind.removeprefix("import "), data, room)
            return
        shutil.copytree(folder / "kb", room / "kb")
        (room / kind).write_bytes(data)
        is_same = data == seeds[kind]
        problems = check_kb(room / "kb")
        with suppress(KBError):
            use_kb(KnowledgeBase.open(room / "kb"))  # unverified: wrong answers at worst
        try:
            kb = KnowledgeBase.open(room / "kb", verify=True)
        except KBError as error:
            if not problems:
                raise SilentError(f"check_kb finds nothing where opening says: {error}") from error
            raise
        if not is_same and (not kind.endswith("meta.json") or kb.meta != whole.meta):
            raise SilentError(f"{kind} was changed, and opened with verification")

    seeds |= {f"import {name}": content for name, content in imports.items()}
    return Target(seeds, check, words=("kb", "entities.jsonl", "source", "page views"))


def use_kb(kb: KnowledgeBase) -> None:
    """Read all of a knowledge base as linking does."""
    for row in range(min(len(kb), 20)):
        entity = kb.entity(row)
        kb.row(entity.kb_id)
        kb.count(row)
        kb.rows_by_surface(entity.name)
    nodes = [0]
    for _ in range(4):
        children = [child for node in nodes[:20] for child in kb.trie.children(node, 20) or ()]
        nodes = [edge for _, edge in children if not kb.trie.is_end(edge)]
        for _, edge in children:
            if kb.trie.is_end(edge):
                kb.trie.rows_at(edge)
    kb.trie.children_of(np.arange(min(5, kb.trie.n_edges)))
    kb.trie.all_rows()


def write_imports(folder: Path) -> dict[str, bytes]:
    """Sources of import-kb: {kind/name of the file: content}."""
    import pyarrow as pa
    import pyarrow.parquet as pq
    from spacy.kb import InMemoryLookupKB
    from spacy.vocab import Vocab

    claims = {"P31": [{"mainsnak": {"datavalue": {"value": {"id": "Q5"}}}}]}
    items = [
        {
            "id": row["id"],
            "type": "item",
            "labels": {"en": {"language": "en", "value": row["name"]}},
            "aliases": {"en": [{"language": "en", "value": "Hg"}]},
            "descriptions": {"en": {"language": "en", "value": "planet"}},
            "sitelinks": {"enwiki": {"site": "enwiki", "title": row["name"]}},
            "claims": claims,
        }
        for row in ENTITIES
    ]
    kb = InMemoryLookupKB(Vocab(), entity_vector_length=2)
    for row in ENTITIES:
        kb.add_entity(entity=str(row["id"]), freq=7, entity_vector=[0, 1])
    kb.add_alias(alias="Mercury", entities=["Q0", "Q1"], probabilities=[0.5, 0.2])
    kb.to_disk(folder / "lookup")
    (folder / "wiki").mkdir()
    make_wiki(50, folder / "wiki")
    packed = io.BytesIO()
    pq.write_table(pa.table({"id": ["Q1", "Q2"], "name": ["Mercury", "Java"], "count": [12.0, None]}), packed)
    sources = {
        "parquet/kb.parquet": packed.getvalue(),
        "csv/kb.csv": b"id,name,aliases,description,count\nQ1,Mercury,Hg|Quick,of 1,12\nQ2,Java,,of 2,3.0\n",
        "wikidata/dump.json": b"[\n" + b",\n".join(json.dumps(item).encode() for item in items) + b"\n]\n",
        "spacy/contents": (folder / "lookup" / "contents").read_bytes(),
        "spacy/strings.json": (folder / "lookup" / "strings.json").read_bytes(),
    }
    return sources | {f"wikipedia/{path.name}": path.read_bytes() for path in (folder / "wiki").iterdir()}


def check_import(imports: Mapping[str, bytes], name: str, data: bytes, room: Path) -> None:
    """Import a changed source, with the sound files that stand beside it."""
    from spacy_gemel.data.knowledge_bases.importer import import_kb

    kind = name.split("/")[0]
    for other, content in imports.items():
        if other.startswith(kind):
            path = room / "source" / other
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data if other == name else content)
    folder = room / "source" / kind
    sources = [folder] if kind == "spacy" else sorted(folder.iterdir())
    import_kb(kind, sources, room / "entities.jsonl", progress=False)


def datasets_target(folder: Path) -> Target:
    """Every converter, what `link` reads, and the docs of a corpus."""
    import pyarrow as pa
    import pyarrow.parquet as pq
    import spacy
    from spacy.tokens import DocBin

    from spacy_gemel.bulk.sources import read_rows
    from spacy_gemel.data import reader
    from spacy_gemel.data.datasets.converters import CONVERTERS, convert

    reader.blank_pipeline = cache(reader.blank_pipeline)  # which takes longer than all else
    nlp = spacy.blank("en")
    rows = [{"start": 10, "end": 14, "kb_id": "Q5", "label": "LOC", "text": "Java"}]
    jsonl = {"id": "17", "text": "A view of Java", "image": "a.jpg", "mentions": rows}
    gemel = {
        "text": "A view of Java",
        "mention": "Java",
        "golden": "Java",
        "target": "Java",
        "img_url": "http://a/b.svg",
    }
    melbench = {"id": "17", "sentence": "A view of Java", "mentions": ["Java"], "entities": ["Java"], "answer": ["Q5"]}
    mimic = {
        "id": 0,
        "sentence": "A view of Java",
        "imgPath": "a.jpg",
        "mention": ["Java"],
        "entity": ["Java"],
        "answer": ["Q5"],
        "img-url": "http://a/b.svg",
    }
    wikidiverse = ["A view of Java", "http://a/b.svg", "news", [["Java", "LOC", 10, 14, "http://en/wiki/Java"]]]
    lines = b"".join(json.dumps(row).encode() + b"\n" for row in (jsonl, {"text": "Mercury"}))
    region = {"id": "a", "type": "labels", "value": {"start": 10, "end": 14, "text": "Java", "labels": ["LOC"]}}
    entity = {"id": "a", "type": "choices", "value": {"start": 10, "end": 14, "choices": ["Q5"]}}
    label_studio = {"id": 1, "data": jsonl, "annotations": [{"result": [region, entity]}]}
    packed = io.BytesIO()
    columns = {"text": ["A view of Java", "b"], "image": [b"\x89PNG", None], "mention": ["Java", None], "n": [1.0, 2.0]}
    pq.write_table(pa.table(columns), packed)
    contents = {
        "jsonl": lines,
        "gemel": json.dumps(gemel).encode() + b"\n",
        "label-studio": json.dumps([label_studio]).encode(),
        "mimic": json.dumps([mimic, mimic]).encode(),
        "parquet": packed.getvalue(),
        "prodigy": json.dumps(jsonl | {"spans": rows, "answer": "accept"}).encode() + b"\n",
        "richpediamel": json.dumps({"17": melbench | {"mentions": "Java", "answer": "Q5"}}).encode(),
        "wikidiverse": json.dumps([wikidiverse]).encode(),
        "wikimel": json.dumps({"17": melbench}).encode(),
    }
    assert contents.keys() == CONVERTERS.keys()
    saved = io.BytesIO()
    table = pa.Table.from_pylist([jsonl | {"image": {"bytes": b"\x89PNG", "path": "a.png"}}] * 2)
    with pa.ipc.new_stream(saved, table.schema) as writer:
        writer.write_table(table)
    docs = docs_of(nlp, [soak.caption_of(index) for index in range(3)], gold=True)
    docs[0].user_data |= {"image": "a.png", "id": "1", "image_features": np.ones(4, dtype=np.float32)}
    seeds = {f"convert {name}": content for name, content in contents.items()} | {
        "read in.spacy": DocBin(docs=docs, store_user_data=True).to_bytes(),
        "read in.jsonl": lines,
        "read in.jsonl.gz": gzip.compress(lines),
        "read in.csv": TABLE,
        "read in.csv.gz": gzip.compress(TABLE),
        "read in.parquet": packed.getvalue(),
        "saved in.arrow": saved.getvalue(),
    }
    (folder / "images").mkdir()

    def check(kind: str, data: bytes, room: Path) -> None:
        way, name = kind.split(" ")
        path = room / (name if way == "read" else "source.parquet" if name == "parquet" else "source.json")
        if way == "saved":  # by `datasets`
            path = room / "source.json" / name
            path.parent.mkdir(exist_ok=True)
            state = {"_data_files": [{"filename": name}]}
            path.with_name("state.json").write_text(json.dumps(state), encoding="utf8")
        path.write_bytes(data)
        if way != "read":
            images = folder / "images" if name not in ("jsonl", "in.arrow") else None
            name, path = ("parquet", path.parent) if way == "saved" else (name, path)
            convert(name, path, room / "source.spacy", images=images, progress=False)
            assert sum(1 for _ in reader.read_docs(room / "source.spacy", nlp.vocab))
        else:
            for row in read_rows(path, nlp.vocab):
                with suppress(Exception):  # which `link` writes into the list of the lines that failed
                    row.read()

    return Target(seeds, check, words=("source.json", "source.parquet", "in."))


def images_target(_: Path) -> Target:
    """Small pictures of every format and of many modes."""
    pixels = np.random.default_rng(0).integers(0, 255, (24, 32, 4), dtype=np.uint8)
    seeds = {}
    for form in FORMATS:
        for mode in ("RGB", "RGBA", "L", "P", "1", "I", "I;16", "F", "CMYK", "LA"):
            image = Image.fromarray(pixels).convert("L" if mode in ("I;16", "F", "I") else mode)
            if mode in ("I;16", "F", "I"):
                image = image.convert("I").convert(mode)
            buffer = io.BytesIO()
            with suppress(OSError, KeyError, ValueError):
                image.save(buffer, form, **({"exif": exif()} if form in ("JPEG", "PNG", "WEBP", "TIFF") else {}))
                seeds[f"{form}:{mode}"] = buffer.getvalue()
    for form in ("GIF", "PNG", "WEBP", "TIFF", "MPO"):
        frames = [Image.fromarray(np.roll(pixels, n, 0)).convert("RGB") for n in range(3)]
        buffer = io.BytesIO()
        frames[0].save(buffer, form, save_all=True, append_images=frames[1:])
        seeds[f"{form}:frames"] = buffer.getvalue()

    def check(_: str, data: bytes, room: Path) -> None:
        del room
        image = read_image(data)
        if image.mode != "RGB" or not all(image.size):
            raise SilentError(f"an image of mode {image.mode} and size {image.size}")

    return Target(seeds, check, errors=(ImageError,))


def exif() -> Image.Exif:
    """A block that turns the picture."""
    block = Image.Exif()
    block[0x0112] = 6
    return block


def gguf_target(folder: Path) -> Target:
    """GGUF files, loaded if they pass the check, and names of models."""
    import gguf

    from benchmarks.gguf_file import write_gguf
    from spacy_gemel.models.causal_lm import load_causal_lm
    from spacy_gemel.registry import causal_lm

    shape = Shape(hidden=32, inner=64, layers=1, heads=2, vocabulary=3200, longest=64)
    model = write_random_llama(folder / "model", TOKENIZER, shape)
    seeds = {
        f"model.gguf:{kind.name}": write_gguf(model, folder / "seed.gguf", kind).read_bytes()
        for kind in (gguf.GGMLQuantizationType.F32, gguf.GGMLQuantizationType.Q8_0)
    }
    names = ("models/a.gguf", "a/b", "~/x.gguf", "C:\\models\\a.GGUF", "/a/b/c", "..", "hub/name.gguf")
    seeds |= {f"name:{index}": name.encode() for index, name in enumerate(names)}

    def check(kind: str, data: bytes, room: Path) -> None:
        if kind.startswith("name"):
            name = data.decode("utf-8", "replace")
            if resolve(name).is_dir():  # of this machine
                return
            frozen = causal_lm(name)
            try:
                frozen.load("cpu")
            except (ValueError, OSError) as error:
                names = (name[:50], repr(name)[1:50], str(resolve(name)))
                if not any(each in str(error) for each in names):
                    raise SilentError(f"the message does not name {name[:50]!r}: {error}") from error
                raise
            return
        path = room / "model.gguf"
        path.write_bytes(data)
        load_causal_lm(str(path), revision=None, device="cpu", dtype=None)

    return Target(seeds, check, words=("model.gguf", "language model", "tokenizer"))


def pipes_target(folder: Path) -> Target:
    """Each file of a saved pipe and its bytes: as they are, and with checksums that fit the change (`forged`)."""
    from benchmarks import saves

    saves.write_parts(folder, seed=0)
    saves.make(folder, further=True).to_disk(folder / "saved")
    nlp = saves.load(folder / "saved")
    linker, saved = linker_in(nlp), folder / "saved" / LINKER
    state = [state_of(nlp)]
    whole = {name: (saved / name).read_bytes() for name in files_in(saved)}
    parts = srsly.msgpack_loads(linker.to_bytes(exclude=["vocab", "models"]))
    seeds = {name: content for name, content in whole.items() if len(content) < 10**6}
    seeds |= {f"forged {name}": content for name, content in seeds.items() if not name.startswith(("sums", "kb/"))}
    seeds["bytes"] = srsly.msgpack_dumps(parts)
    seeds |= {f"forged bytes/{name}": content for name, content in parts.items() if name not in ("sums", "kb")}

    def check(kind: str, data: bytes, room: Path) -> None:
        forged, name = kind.startswith("forged "), kind.removeprefix("forged ")
        if name.startswith("bytes"):
            content = data
            if forged:
                part = name.removeprefix("bytes/")
                sums = {**json.loads(parts["sums"]), part: hashlib.sha256(data).hexdigest()}
                content = srsly.msgpack_dumps({**parts, part: data, "sums": json.dumps(sums).encode()})
            load: Callable[[], Any] = partial(linker.from_bytes, content, exclude=["vocab", "models"])
        else:
            target = room / LINKER
            shutil.copytree(saved, target, copy_function=os.link)
            replace_file(target / name, data)
            if forged:
                reseal(target, name)
            load = partial(linker.from_disk, target, exclude=["vocab"])
        try:
            load()
        except Exception:
            if state_of(nlp) != state[0]:
                raise SilentError("a pipe that could not be loaded has changed the one that there was") from None
            raise
        try:
            if not forged and state_of(nlp) != state[0]:
                raise SilentError(f"{name} was changed, and the pipe loaded with other answers")
            [*nlp.pipe(docs_of(nlp, [soak.caption_of(7)]))]
            linker.to_bytes(exclude=["vocab", "models"])
        finally:
            linker.from_disk(saved, exclude=["vocab"])
            state[0] = state_of(nlp)  # thinc keeps what a forged mapper has besides

    return Target(seeds, check, words=(LINKER, "language model", "vision encoder", "sentence encoder"))


def state_of(nlp: Any) -> tuple[bytes, str]:
    """What decides a pipe's answers, without the models."""
    linker = linker_in(nlp)
    return linker.to_bytes(exclude=["vocab", "models", "kb"]), linker.kb.meta.sha256


def replace_file(path: Path, data: bytes) -> None:
    """Write a file in the place of one that is hard-linked."""
    path.unlink()
    path.write_bytes(data)


def reseal(pipe: Path, name: str) -> None:
    """Give the list of checksums, and a bundle's own list, that of a changed file."""
    part, *rest = name.split("/")
    value: Any = sha256_of(pipe / name)
    sums = json.loads((pipe / "sums").read_bytes())
    if part == "models":
        marker = pipe / part / rest[0] / "bundle.json"
        with suppress(ValueError, TypeError, KeyError):  # it may be the changed file
            content = json.loads(marker.read_bytes())
            if pipe / name != marker:
                record = {"bytes": (pipe / name).stat().st_size, "sha256": value}
                replace_file(
                    marker, json.dumps({**content, "files": {**content["files"], "/".join(rest[1:]): record}}).encode()
                )
        value = sums[part] | {rest[0]: sha256_of(marker)}
    replace_file(pipe / "sums", json.dumps({**sums, part: value}).encode())


TARGETS: Mapping[str, Callable[[Path], Target]] = {
    "kb": kb_target,
    "datasets": datasets_target,
    "images": images_target,
    "gguf": gguf_target,
    "pipes": pipes_target,
}
"""What may be given on the command line; each makes its target in an empty folder."""
