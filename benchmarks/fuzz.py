"""Feed readers with changed files, in a process with limits, and count what is no refusal that a user can act on.

python -m benchmarks.fuzz TARGET [--minutes 10] [--seed 0]

TARGET is one of fuzz_targets.py: kb, datasets, images, gguf or pipes. Valid files are changed by mutate.py. A file may
be taken, or refused with an error of the package's own classes whose message names the file. Findings are any other
error, a crash, more than a minute or a GiB, a started program, a connection, a file written elsewhere, an unpickled
class, and damage of which a checksum says nothing. The first input of each is kept below metrics/fuzz, to be made a
test. Only a run of at least ten minutes writes to benchmarks/results.
"""

import argparse
import json
import os
import random
import resource
import select
import shutil
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Generator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from benchmarks.fuzz_targets import TARGETS, SilentError, Target
from benchmarks.memory import peak_mb, reset_peak, resident_mb
from benchmarks.mutate import mutate
from research.cache import read_object
from research.commands import report
from research.machine import describe_machine
from research.mini_world import ROOT
from spacy_gemel.utils.files import write_json

MINUTES = 10
LIMIT_SECONDS, START_SECONDS = 60, 600
LIMIT_MB, HARD_LIMIT_MB = 1024, 4096
FORBIDDEN = ("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "pickle.find_class", "socket.connect")
FOUND = ROOT / "metrics" / "fuzz"
INPUT, KIND = "input.bin", ".kind"  # files in the worker's folder: what it is at, and their kind


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a target for so long, print the counts, and keep them after a run of full length."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fuzz", description=__doc__.split("\n")[0])
    parser.add_argument("target", choices=sorted(TARGETS))
    parser.add_argument("--minutes", type=float, default=MINUTES)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--worker", nargs=2, metavar=("FOLDER", "START"), help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.worker:
        work(options.target, Path(options.worker[0]), options.seed, int(options.worker[1]))
        return
    result = run(options.target, options.minutes, options.seed)
    if options.minutes >= MINUTES:
        path = ROOT / "benchmarks" / "results" / "fuzz.json"
        content = {**(read_object(path) or {}), options.target: result, "machine": describe_machine()}
        write_json(path, {"command": "python -m benchmarks.fuzz TARGET", **content})
    print(json.dumps(result))


# The parent


def run(target: str, minutes: float, seed: int) -> dict[str, Any]:
    """Start a process, another one when it dies, and count what they say until the time is over."""
    counts: Counter[str] = Counter()
    findings: Counter[str] = Counter()
    seconds, mb = [0.0], [0.0]
    with tempfile.TemporaryDirectory() as name:
        folder, end = Path(name), time.monotonic() + 60 * minutes
        while time.monotonic() < end:
            room = folder / "room"
            shutil.rmtree(room, ignore_errors=True)
            room.mkdir()
            for event in events(target, room, seed, counts.total(), end):
                outcome, _, what = event["result"].partition(": ")
                counts[outcome] += 1
                seconds.append(event.get("seconds", 0.0))
                mb.append(event.get("mb", 0.0))
                if outcome == "finding":
                    keep(target, room / event.get("input", INPUT), what, event.get("details", ""), findings)
    return {
        "minutes": minutes,
        "tried": counts.total(),
        "taken": counts["taken"],
        "refused": counts["refused"],
        "findings": dict(findings),
        "slowest_seconds": round(max(seconds), 2),
        "most_mb": round(max(mb)),
    }


def events(target: str, room: Path, seed: int, start: int, end: float) -> Generator[dict[str, Any]]:
    """What a process says of each input, and of the last if it died or had to be killed."""
    command = [sys.executable, "-m", "benchmarks.fuzz", target, "--seed", str(seed), "--worker", str(room), str(start)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        limit: float = START_SECONDS
        try:
            while time.monotonic() < end:
                ready, _, _ = select.select([process.stdout], [], [], limit)
                if not ready:
                    yield {"result": f"finding: more than {limit:g} seconds"}
                    return
                line = process.stdout.readline()
                if not line:
                    code = process.wait()
                    yield {"result": f"finding: the process ended with {code}"}
                    return
                limit = LIMIT_SECONDS
                if event := json.loads(line):
                    yield event
        finally:
            process.kill()


def keep(target: str, path: Path, what: str, details: str, findings: Counter[str]) -> None:
    """Count a finding, and keep its input if it is the first of its kind."""
    findings[what] += 1
    if findings[what] == 1:
        report(f"{what}\n    {details}")
        folder = FOUND / target
        folder.mkdir(parents=True, exist_ok=True)
        number = sum(1 for _ in folder.glob("*.bin"))
        shutil.copyfile(path, folder / f"{number}.bin")
        kind = path.with_suffix(KIND).read_text(encoding="utf8")
        (folder / f"{number}.txt").write_text(f"{kind}\n{what}\n{details}\n", encoding="utf8")


# The worker


def work(name: str, room: Path, seed: int, start: int) -> None:
    """Try one input after another until killed; first each valid file as it is."""
    out = os.fdopen(os.dup(1), "w", encoding="utf8")
    os.dup2(2, 1)  # what libraries print is no event
    os.environ["HF_HUB_OFFLINE"] = "1"
    tempfile.tempdir = str(room)
    warnings.simplefilter("ignore")
    made = room / "made"
    made.mkdir()
    target = TARGETS[name](made)
    guard = Guard(room)
    limit = int((resident_mb() + HARD_LIMIT_MB) * 2**20)
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    number = start
    while True:
        kind, data = make_input(target, random.Random(f"{seed} {name} {number}"), number)
        write_input(room / INPUT, kind, data)
        print("{}", file=out, flush=True)  # the clock starts
        begin, before = time.process_time(), resident_mb()
        reset_peak()
        result, details = attempt(target, kind, data, room / "try", guard)
        event: dict[str, Any] = {"result": result, "seconds": time.process_time() - begin, "mb": peak_mb() - before}
        if event["mb"] > LIMIT_MB:
            event["result"] = f"finding: more than {LIMIT_MB} MB, then {result}"
        if event["result"].startswith("finding"):
            event |= {"input": f"{number}.bin", "details": details}
            write_input(room / f"{number}.bin", kind, data)
        print(json.dumps(event), file=out, flush=True)
        number += 1


def write_input(path: Path, kind: str, data: bytes) -> None:
    """Where the parent finds it, whatever becomes of this process."""
    path.with_suffix(KIND).write_text(kind, encoding="utf8")
    path.write_bytes(data)


def make_input(target: Target, rng: random.Random, number: int) -> tuple[str, bytes]:
    """The kind and content of an input."""
    kinds = [*target.seeds]
    if number < len(kinds):
        return kinds[number], target.seeds[kinds[number]]
    group = rng.choice([*dict.fromkeys(kind.split(":")[0] for kind in kinds)])
    alike = [kind for kind in kinds if kind.split(":")[0] == group]
    kind = rng.choice(alike)
    return kind, mutate(target.seeds[kind], [target.seeds[each] for each in alike], rng)


def attempt(target: Target, kind: str, data: bytes, folder: Path, guard: "Guard") -> tuple[str, str]:
    """What comes of an input, taken, refused or a finding, and the message."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    result, details = "taken", ""
    try:
        with guard:
            target.check(kind, data, folder)
    except target.errors as error:
        details = str(error)
        name = Path(kind.split(" ")[-1].split(":")[0]).name
        is_named = not target.words or any(word in details.lower() for word in (*target.words, name))
        result = "refused" if is_named else f"finding: {where(error)}, without its file"
    except SilentError as error:
        result, details = f"finding: {kind.split(':')[0]} in silence", str(error)
    except Exception as error:
        result, details = f"finding: {where(error)}", f"{type(error).__name__}: {error}"
    if guard.done:
        return f"finding: {guard.done[0]}", guard.done[1]
    if result != "taken" and data == target.seeds[kind] and not kind.startswith("name"):
        return f"finding: {kind.split(':')[0]}, valid and not taken", f"{result}: {details[:1000]}"
    return result, details[:1000]


def where(error: BaseException) -> str:
    """An error's class, and the last place of the package that it went through and where it was raised."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if "spacy_gemel/" in frame.filename] or frames
    places = dict.fromkeys(f"{Path(f.filename).name}:{f.name}" for f in (own[-1], frames[-1]))
    return f"{type(error).__name__} at {', '.join(places)}"


class Guard:
    """Notes what must not be done within a with block."""

    def __init__(self, room: Path) -> None:
        self.done: tuple[str, str] | None = None
        self._active = False
        self._allowed = (str(room), os.devnull)
        sys.addaudithook(self._note)

    def __enter__(self) -> None:
        self.done, self._active = None, True

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._active = False

    def _note(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self._active:
            return
        if event in FORBIDDEN:
            self.done = f"it did {event}", repr(arguments)
        elif event == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR):
            path = os.fsdecode(arguments[0]) if isinstance(arguments[0], (str, bytes)) else ""
            if path and not path.startswith(self._allowed):
                self.done = "it wrote elsewhere", path


if __name__ == "__main__":
    main()
