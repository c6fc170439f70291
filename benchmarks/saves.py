"""Whether a save that is cut off, or a saved pipe that is damaged, is ever loaded silently as something else.

python -m benchmarks.saves [--kills 60] [--sizes 16] [--flips 100]

A small pipe with its models bundled is saved over an older one: of another mapper, demonstrations, additions and
decision (`checkpoint`), and of another knowledge base and language model besides (`replaced`); `pipeline` is the former
by `nlp.to_disk`, with the files that spaCy itself writes. Each save is killed by SIGKILL at a random moment, every
other time on a disk of its own, to which nothing can be linked; or the disk is too small for it. What is then there is
loaded with verification: it is `old`, `new`, `refused` with an error, or `mixed`. Then single bits of the saved pipe
are flipped, in its files and in its bytes. Disks need a user who may mount them; for others `sizes` is null. Some
minutes. Only a run with the default sizes writes to benchmarks/results.
"""

import argparse
import hashlib
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks import soak
from benchmarks.random_llama import write_random_llama
from benchmarks.subject import Caption, ModelPaths, docs_of, linker_in, make_pipeline
from research.captions import LINKER
from research.commands import report
from research.machine import describe_machine
from research.mini_world import MODELS, ROOT
from spacy_gemel.kb.builder import build_kb
from spacy_gemel.linking.decision import Decision
from spacy_gemel.models.tokenizer import load_tokenizer
from spacy_gemel.utils.files import files_in, write_json

if TYPE_CHECKING:
    from spacy.language import Language

KILLS, SIZES, FLIPS = 60, 16, 100
NAMES = 2000
LARGE = 2**30
PAGE = os.sysconf("SC_PAGE_SIZE")
REFUSED = "refused: "
VERIFY = {f"components.{LINKER}.verify": True}


@dataclass(frozen=True, slots=True)
class Save:
    """A pipeline in memory, a folder with the older one that it is saved over, and {state: old or new}.

    whole: whether spaCy's own files are written as well.
    """

    nlp: "Language"
    old: Path
    states: dict[str, str]
    whole: bool

    def write(self, target: Path) -> None:
        """Save."""
        if self.whole:
            self.nlp.to_disk(target)
        else:
            linker_in(self.nlp).to_disk(target / LINKER, exclude=["vocab"])

    def result(self, folder: Path) -> str:
        """What a folder holds: old, new, mixed, or refused and why."""
        try:
            return self.states.get(state_of(load(folder)), "mixed")
        except (OSError, ValueError) as error:
            return f"{REFUSED}{type(error).__name__}: {error}"


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print, and at the default sizes keep."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.saves", description=__doc__.split("\n")[0])
    parser.add_argument("--kills", type=int, default=KILLS)
    parser.add_argument("--sizes", type=int, default=SIZES)
    parser.add_argument("--flips", type=int, default=FLIPS)
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        saves = make_saves(folder)
        disk = stack.enter_context(small_disk(folder / "disk"))
        result: dict[str, Any] = {"command": "python -m benchmarks.saves"}
        for kind, save in saves.items():
            report(f"{kind}: {options.kills} kills")
            result[kind] = {"kills": kill(save, folder, disk, options.kills)}
            if disk is not None:
                report(f"{kind}: {options.sizes} sizes of the disk")
            result[kind]["sizes"] = None if disk is None else fill(save, disk, options.sizes)
        report(f"{options.flips} flips of files, and of bytes")
        checkpoint = saves["checkpoint"]
        result["flips"] = flip_files(checkpoint, folder, options.flips)
        result["flips_of_bytes"] = flip_bytes(checkpoint, options.flips)
    result["holds"] = check_targets(result)
    result["machine"] = describe_machine()
    if (options.kills, options.sizes, options.flips) == (KILLS, SIZES, FLIPS):
        write_json(ROOT / "benchmarks" / "results" / "saves.json", result)
    print(json.dumps(result))


def make_saves(folder: Path) -> dict[str, Save]:
    """A pipeline over an older one, and over one that had other files at the same paths."""
    write_parts(folder, seed=1)
    make(folder).to_disk(folder / "replaced")
    write_parts(folder, seed=0)
    make(folder).to_disk(folder / "checkpoint")
    new = make(folder, further=True)
    new.to_disk(folder / "new")
    states = {state_of(load(folder / kind)): "old" for kind in ("checkpoint", "replaced")}
    states[state_of(load(folder / "new"))] = "new"
    parts = {kind: Save(new, folder / kind, states, whole=False) for kind in ("checkpoint", "replaced")}
    return {**parts, "pipeline": Save(new, folder / "checkpoint", states, whole=True)}


def write_parts(folder: Path, *, seed: int) -> None:
    """A random language model and a knowledge base, in the place of earlier ones."""
    shutil.rmtree(folder / "kb", ignore_errors=True)
    shutil.rmtree(folder / "language_model", ignore_errors=True)
    tokenizer = ROOT / MODELS / "language_model"
    rows = [{"id": f"E{n}", "name": soak.name_of(n), "description": f"of {seed}"} for n in range(NAMES + seed)]
    (folder / "entities.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf8")
    build_kb(folder / "entities.jsonl", folder / "kb", load_tokenizer(str(tokenizer)), progress=False)
    write_random_llama(folder / "language_model", tokenizer, soak.SHAPE, seed=seed)


def make(folder: Path, *, further: bool = False) -> "Language":
    """A pipeline; `further`: with another mapper, and with a decision, an entity and demonstrations besides."""
    models = ROOT / MODELS
    language_model, kb = folder / "language_model", folder / "kb"
    paths = ModelPaths(language_model, models / "vision_encoder", models / "sentence_encoder", kb)
    captions = [soak.caption_of(index) for index in range(100)]
    nlp = make_pipeline(paths, captions, 2, seed=int(further), bundle_models=True)
    if further:
        linker = linker_in(nlp)
        linker.use_decision(Decision({"score": 0.5}))
        linker.add_entity("new", "Venus")
        linker.add_demonstrations(docs_of(nlp, [soak.caption_of(index) for index in range(100, 120)], gold=True))
    return nlp


def load(folder: Path) -> "Language":
    """A saved pipeline, every byte of it verified."""
    import spacy

    return spacy.load(folder, config=VERIFY)


def state_of(nlp: "Language") -> str:
    """Everything that decides a pipeline's answers, and some answers with their scores."""
    content = linker_in(nlp).to_bytes(exclude=["vocab", "cfg", "models"])
    captions = [Caption("Venus and Bakeba at sea", 10, 16, ""), soak.caption_of(7)]
    docs = nlp.pipe(docs_of(nlp, captions))
    answers = [[(c.kb_id, round(c.score, 4)) for c in doc.ents[0]._.gemel_candidates] for doc in docs]
    return hashlib.sha256(content + json.dumps([answers, nlp.config.to_str()]).encode()).hexdigest()


@contextmanager
def small_disk(folder: Path) -> Iterator[Path | None]:
    """An empty disk in memory, mounted as a folder; None for a user who may not mount it."""
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={LARGE}", "tmpfs", str(folder)]
    if sys.platform != "linux" or subprocess.run(command, capture_output=True).returncode:
        yield None
        return
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def resize(disk: Path, size: int) -> None:
    """Give a disk so many bytes, rounded up to whole pages."""
    subprocess.run(["mount", "-o", f"remount,size={size}", str(disk)], check=True)


def used(disk: Path) -> int:
    """Bytes that lie on a disk."""
    status = os.statvfs(disk)
    return (status.f_blocks - status.f_bfree) * status.f_frsize


def over(save: Save, target: Path) -> Callable[[], None]:
    """Put the old pipeline at target; returns the save over it."""
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(save.old, target)
    return lambda: save.write(target)


def kill(save: Save, folder: Path, disk: Path | None, count: int) -> dict[str, Any]:
    """Kill processes while they save; how often each result came, and after the next save."""
    generator = random.Random(0)
    targets = [folder / "killed", *([] if disk is None else [disk / "killed"])]
    seconds = [seconds_of(over(save, target)) for target in targets]
    results: list[str] = []
    finished = 0
    for number in range(count):
        target, longest = targets[number % len(targets)], seconds[number % len(targets)]
        action = over(save, target)
        child = os.fork()
        if not child:
            action()
            os._exit(0)
        time.sleep(generator.uniform(0, longest))
        os.kill(child, signal.SIGKILL)
        finished += not os.waitpid(child, 0)[1]
        results.append(save.result(target))
        check_next(save, target)
    for target in targets:
        shutil.rmtree(target)
    return {**counted(results), "finished_before": finished}


def fill(save: Save, disk: Path, count: int) -> dict[str, Any]:
    """Save on disks that lack from all to a few of the bytes that it takes; how often each result came."""
    target = disk / "filled"

    def save_with(room: int) -> str | None:
        """The error, if there is too little room."""
        resize(disk, LARGE)
        action = over(save, target)
        resize(disk, used(disk) + room)
        try:
            action()
        except OSError as error:
            return str(error.strerror)
        finally:
            resize(disk, LARGE)
        return None

    pages = range(LARGE // PAGE)
    least = PAGE * bisect_left(pages, True, key=lambda page: save_with(page * PAGE) is None)
    errors: Counter[str | None] = Counter()
    results: list[str] = []
    for number in range(count):
        errors[save_with(least * number // count)] += 1
        results.append(save.result(target))
        check_next(save, target)
    shutil.rmtree(target)
    return {**counted(results), "errors": dict(errors), "bytes_needed": least}


def check_next(save: Save, target: Path) -> None:
    """Raise RuntimeError if the next save there does not go through."""
    save.write(target)
    if (result := save.result(target)) != "new":
        raise RuntimeError(f"what was saved after a save that was cut off is {result}")


def flip_files(save: Save, folder: Path, count: int) -> dict[str, Any]:
    """Flip one bit of one file of a saved pipe, of each file by turns; how often each result came."""
    generator, target = random.Random(1), folder / "flipped"
    names = files_in(save.old / LINKER)
    results: list[str] = []
    loaded: Counter[str] = Counter()
    for number in range(count):
        over(save, target)
        name = names[number % len(names)]
        path = target / LINKER / name
        path.write_bytes(flipped(path.read_bytes(), generator))
        results.append(save.result(target))
        if not results[-1].startswith(REFUSED):
            loaded[name] += 1
    return {**counted(results), "files": len(names), "loaded": dict(loaded)}


def flip_bytes(save: Save, count: int) -> dict[str, Any]:
    """Flip one bit of a pipe's bytes; how often each result came. A refusal must leave the pipe as it was."""
    generator, nlp = random.Random(2), load(save.old)
    content, before = linker_in(nlp).to_bytes(), state_of(nlp)
    results: list[str] = []
    for _ in range(count):
        try:
            linker_in(nlp).from_bytes(flipped(content, generator))
            results.append("old" if state_of(nlp) == before else "mixed")
        except ValueError as error:
            results.append(f"{REFUSED}{error}" if state_of(nlp) == before else "mixed")
    return counted(results)


def flipped(content: bytes, generator: random.Random) -> bytes:
    """With one bit changed."""
    changed = bytearray(content)
    changed[generator.randrange(len(changed))] ^= 1 << generator.randrange(8)
    return bytes(changed)


def counted(results: Sequence[str]) -> dict[str, int]:
    """How many are old, new, refused and mixed; reports each kind of refusal once."""
    for message in sorted({re.sub(r"/\S+/", "", result) for result in results if result.startswith(REFUSED)}):
        report(message)
    kinds = Counter(result.split(":")[0] for result in results)
    return {kind: kinds[kind] for kind in ("old", "new", "refused", "mixed")}


def check_targets(result: dict[str, Any]) -> dict[str, bool]:
    """Which of the figures that are asked for hold."""
    kinds = ("checkpoint", "replaced", "pipeline")
    cut_off = {kind: [counts for counts in result[kind].values() if counts is not None] for kind in kinds}
    flips = [result["flips"], result["flips_of_bytes"]]
    return {
        "never_mixed": not any(counts["mixed"] for counts in [*chain.from_iterable(cut_off.values()), *flips]),
        **{f"{kind}.old_or_new": not any(each["refused"] for each in cut_off[kind]) for kind in kinds},
        "no_flip_is_silent": not result["flips"]["loaded"] and not result["flips_of_bytes"]["old"],
    }


def seconds_of(action: Callable[[], None]) -> float:
    """How long it took."""
    begin = time.perf_counter()
    action()
    return time.perf_counter() - begin


if __name__ == "__main__":
    main()
