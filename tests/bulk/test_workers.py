"""Several processes that link, one of which dies: no row is lost, doubled or moved."""

import os
import select
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import spacy
from spacy.tokens import Doc

from benchmarks.project_steps import family
from spacy_gemel.bulk.link import LinkOptions, link_file
from spacy_gemel.bulk.workers import Processes, RayActors, ThisProcess
from tests.bulk.test_link_resume import linker, rows, write
from tests.evaluation.doubles import pipeline

DEADLY = "25"


def load(_path: str = "", *, deadly: bool = False) -> spacy.Language:
    nlp = pipeline(linker(), entities=["Jaguar"])

    def die(doc: Doc) -> Doc:
        if deadly and DEADLY in doc.text:
            os.kill(os.getpid(), signal.SIGKILL)
        return doc

    spacy.Language.component("die", func=die)
    nlp.add_pipe("die")
    return nlp


def load_deadly() -> spacy.Language:
    return load(deadly=True)


def load_nothing() -> spacy.Language:
    raise ValueError("there is no such pipeline")


def run(engine: Any, tmp_path: Path, name: str, size: int = 3) -> tuple[list[dict], list[dict]]:
    out = tmp_path / f"{name}.jsonl"
    link_file(engine, "digest", tmp_path / "in.jsonl", out, LinkOptions(batch_size=size), progress=False)
    return rows(out), rows(out.with_name(f"{name}.jsonl.failed.jsonl"))


def test_the_same_lines_in_the_same_order(tmp_path: Path) -> None:
    write(tmp_path / "in.jsonl")
    assert run(Processes(load, 2), tmp_path, "two") == run(ThisProcess(load()), tmp_path, "one")


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGKILL")
def test_a_row_that_kills_its_process(tmp_path: Path) -> None:
    write(tmp_path / "in.jsonl")
    linked, failed = run(Processes(load_deadly, 2), tmp_path, "killed")
    all_linked, all_failed = run(ThisProcess(load()), tmp_path, "all")
    assert linked == [row for row in all_linked if DEADLY not in row["text"]]
    [died] = [row for row in failed if row not in all_failed]
    assert (died["line"], died["reason"][:35]) == (26, "the process that linked it has died")


def test_a_pipeline_that_cannot_be_loaded(tmp_path: Path) -> None:
    write(tmp_path / "in.jsonl")
    with pytest.raises(ValueError, match="there is no such pipeline"):
        run(Processes(load_nothing, 2), tmp_path, "out")


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_processes_end_with_a_parent_that_is_killed(tmp_path: Path) -> None:
    code = (
        "import itertools; from pathlib import Path; from spacy_gemel.bulk.sources import SourceRow\n"
        "from spacy_gemel.bulk.workers import Processes; from tests.bulk.test_workers import load\n"
        "from spacy_gemel.data.jsonl import parse_line; from functools import partial\n"
        "if __name__ == '__main__':\n"
        '    line = b\'{"text": "Jaguar"}\'\n'
        "    row = SourceRow({'line': 1}, 'in:1', line, partial(parse_line, line, 'in:1', Path()))\n"
        "    for _ in Processes(load, 2).link(itertools.repeat([row]), Path()): print('linked', flush=True)\n"
    )
    (tmp_path / "run.py").write_text(code)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    parent = subprocess.Popen([sys.executable, tmp_path / "run.py"], stdout=subprocess.PIPE, env=environment)
    assert parent.stdout is not None
    assert parent.stdout.readline() == b"linked\n"
    children = family(parent.pid)[1:]
    assert len(children) >= 2
    ends = [os.pidfd_open(pid) for pid in children]
    parent.kill()
    parent.wait()
    for end in ends:  # else it hangs
        select.select([end], [], [])
        os.close(end)


@pytest.fixture
def cluster() -> Iterator[Any]:
    """A Ray cluster of three nodes on this machine."""
    ray = pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    nodes = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    nodes.workers = [nodes.add_node(num_cpus=1) for _ in range(2)]
    ray.init(address=nodes.address, runtime_env={"env_vars": {"PYTHONPATH": os.pathsep.join(sys.path)}})
    yield nodes
    ray.shutdown()
    nodes.shutdown()


@pytest.mark.slow
def test_a_node_of_a_cluster_that_is_killed(cluster: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "in.jsonl", 200)
    expected = run(ThisProcess(load()), tmp_path, "one")
    actors, submitted = RayActors(load, 3), 0
    submit: Callable[..., Any] = actors.submit

    def kill_a_node(*args: Any) -> Any:
        nonlocal submitted
        submitted += 1
        if submitted == 20:
            cluster.remove_node(cluster.workers[0], allow_graceful=False)
        return submit(*args)

    monkeypatch.setattr(actors, "submit", kill_a_node)
    assert run(actors, tmp_path, "cluster") == expected
    assert submitted > 20
    with pytest.raises(ValueError, match="there is no such pipeline"):
        run(RayActors(load_nothing, 2), tmp_path, "none")


@pytest.mark.slow
def test_a_cluster_without_a_place_for_a_worker(cluster: Any, tmp_path: Path) -> None:
    write(tmp_path / "in.jsonl", 2)
    with pytest.raises(ValueError, match="no machine of the Ray cluster has a CPU and 2 GPUs for a worker"):
        run(RayActors(load, 1, gpus=2), tmp_path, "none")


def test_ray_is_an_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ImportError, match=r"pip install spacy-gemel\[ray\]"):
        RayActors(load, 2)
