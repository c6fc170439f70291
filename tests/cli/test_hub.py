"""A pipeline pushed to a Hub and pulled from it links the same; so does a knowledge base out of a repository."""

import json
import shutil
import socket
from pathlib import Path
from typing import Any

import pytest
import spacy
import yaml
from huggingface_hub import constants, snapshot_download
from spacy.cli.package import package
from spacy.language import Language
from spacy.util import fix_random_seed

from spacy_gemel.cli.push import make_card
from spacy_gemel.evaluation.metrics import SUBSETS
from spacy_gemel.registry import kb_from_hub
from tests.commands import call, failed, failed_last
from tests.hub import READER, WRITER, Hub
from tests.mini_pipeline import LINKER, add_linker, captions, examples, linker, make_pipeline

REPO = "org/mercury"


def answers(nlp: Language) -> list[Any]:
    docs = list(nlp.pipe(captions(nlp)))
    assert any(doc.ents[0].kb_id_ for doc in docs)
    return [[(ent.kb_id_, ent._.gemel_candidates) for ent in doc.ents] for doc in docs]


def metadata(hub: Hub) -> dict[str, Any]:
    _, card, _ = hub.files(REPO)["README.md"].decode().split("---\n", 2)
    loaded: dict[str, Any] = yaml.safe_load(card)
    return loaded


def test_a_folder_that_was_pushed_and_pulled_links_the_same(
    hub: Hub, saved: Path, trained: Language, tmp_path: Path
) -> None:
    hub.add(REPO, {"gemel_linker/models/gone.safetensors": b"old", "en_old-1.0.whl": b"old"})
    result = call("push", saved, REPO)
    assert result.exit_code == 0, result.output
    assert result.stdout == f"{constants.ENDPOINT}/{REPO}\n"
    assert "carry a path of this machine" in result.stderr
    assert "gemel_linker/models/gone.safetensors" not in hub.files(REPO)
    assert "en_old-1.0.whl" in hub.files(REPO)
    assert len(hub.commits[REPO]) == 2
    card = hub.files(REPO)["README.md"].decode()
    assert f'spacy.load(snapshot_download("{REPO}", local_dir="mercury"))' in card
    assert {"library_name": "spacy", "language": "en"}.items() <= metadata(hub).items()
    pulled = snapshot_download(REPO, local_dir=tmp_path / "mercury")
    assert answers(spacy.load(pulled)) == answers(trained)
    # as it is pulled, it can be pushed again
    assert call("push", pulled, REPO).exit_code == 0
    assert not any(name.startswith(".cache") for name in hub.files(REPO))


def test_a_wheel_that_was_pushed_and_pulled_links_the_same(
    hub: Hub, saved: Path, trained: Language, tmp_path: Path
) -> None:
    package(saved, tmp_path, name="tiny", version="1.2.3", create_wheel=True, create_sdist=False, silent=True)
    [wheel] = tmp_path.rglob("*.whl")
    result = call("push", wheel, REPO, "--private")
    assert result.exit_code == 0, result.output
    assert hub.private == {REPO}
    assert {*hub.files(REPO)} == {".gitattributes", "README.md", "meta.json", wheel.name}
    assert f"/{REPO}/resolve/main/{wheel.name}" in hub.files(REPO)["README.md"].decode()
    pulled = Path(snapshot_download(REPO)) / wheel.name
    shutil.unpack_archive(pulled, tmp_path / "site", "zip")
    assert answers(spacy.load(tmp_path / "site" / "en_tiny" / "en_tiny-1.2.3")) == answers(trained)


META = {
    "lang": "en",
    "name": "tiny",
    "version": "1.0.0",
    "spacy_version": ">=3.8",
    "license": "Apache-2.0",
    "sources": [
        {"name": "W", "url": "https://huggingface.co/datasets/org/wikidiverse"},
        {"name": "X", "url": "https://x.y"},
    ],
}


def test_the_card_tells_what_the_hub_reads(models: Path) -> None:
    blocks = {"language_model": {"name": "HuggingFaceTB/SmolLM2-135M"}, "vision_encoder": {"name": "ViT-L-14"}}
    config = {"components": {"gemel_linker": {"factory": "gemel_linker", **blocks}}}
    part = {"n": 4, "accuracy": 0.75}
    nothing = {"n": 0, "accuracy": None}
    subsets = {
        "common": part,
        "tail": part,
        "seen": part,
        "unseen": nothing,
        "with_image": part,
        "without_image": nothing,
    }
    metrics = {"settings": {"data": "/home/me/test.spacy"}, "n": 4, "accuracy": 0.5, **subsets}
    card = make_card(META, config, REPO, metrics=metrics)
    data = yaml.safe_load(card.split("---\n")[1])
    assert data["base_model"] == ["HuggingFaceTB/SmolLM2-135M"]
    assert (data["license"], data["datasets"]) == ("apache-2.0", ["org/wikidiverse"])
    [model] = data["model-index"]
    [result] = model["results"]
    assert model["name"] == "en_tiny"
    assert result["dataset"] == {"type": "org/wikidiverse", "name": "test.spacy"}
    assert [(each["name"], each["value"]) for each in result["metrics"]] == [
        ("Accuracy", 0.5),
        ("Accuracy (common)", 0.75),
        ("Accuracy (tail)", 0.75),
        ("Accuracy (seen)", 0.75),
        ("Accuracy (with image)", 0.75),
    ]
    assert "/home/me" not in card
    # a folder is no model of the Hub
    blocks["language_model"]["name"] = str(models / "language_model")
    data = yaml.safe_load(make_card(META, config, REPO).split("---\n")[1])
    assert not {"base_model", "model-index"} & {*data}


def test_metrics_are_those_that_describe_was_given(hub: Hub, saved: Path, tmp_path: Path) -> None:
    metrics, meta = tmp_path / "m.json", tmp_path / "meta.json"
    parts = {key: {"n": 0, "accuracy": None} for key in SUBSETS}
    metrics.write_text(json.dumps({"settings": {"data": "test.spacy"}, "n": 4, "accuracy": 0.25, **parts}))
    failed(call("push", saved, REPO, "--metrics", metrics), "run describe --metrics first")
    assert call("describe", saved, meta, "--name", "tiny", "--metrics", metrics).exit_code == 0
    result = call("push", saved, REPO, "--meta", meta, "--metrics", metrics)
    assert result.exit_code == 0, result.output
    [model] = metadata(hub)["model-index"]
    assert (model["name"], model["results"][0]["metrics"][0]["value"]) == ("en_tiny", 0.25)
    assert json.loads(hub.files(REPO)["meta.json"])["name"] == "tiny"
    assert "18 mentions of 3 entities" in hub.files(REPO)["README.md"].decode()


def test_what_is_no_pipeline_is_refused(tmp_path: Path) -> None:
    (tmp_path / "no.whl").write_bytes(b"no")
    for path in (tmp_path, tmp_path / "no.whl", tmp_path / "gone"):
        failed(call("push", path, REPO), f"{path}: no pipeline can be read there")


def test_what_the_hub_refuses_is_one_line(hub: Hub, saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(says: str, repo: str = REPO) -> None:
        failed_last(call("push", saved, repo), says)

    refused("Give it as ORG/NAME", "a/b/c")
    monkeypatch.setenv("HF_TOKEN", READER)
    refused("your token has no right to this")
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    refused("does not accept the token")
    monkeypatch.delenv("HF_TOKEN")
    refused("no token for the Hugging Face Hub: log in with `hf auth login`, or set HF_TOKEN")
    monkeypatch.setenv("HF_TOKEN", WRITER)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    refused("HF_HUB_OFFLINE is set")
    assert hub.commits == {}


def test_a_card_that_the_hub_refuses_names_what_is_wrong(hub: Hub, saved: Path, tmp_path: Path) -> None:
    meta = json.loads((saved / "meta.json").read_text()) | {"license": "nobodys"}
    (tmp_path / "meta.json").write_text(json.dumps(meta))
    failed_last(call("push", saved, REPO, "--meta", tmp_path / "meta.json"), '"license" must be one of')


# Knowledge bases


@pytest.fixture
def kb_repo(hub: Hub, kb: Path) -> str:
    files = {path.name: path.read_bytes() for path in kb.iterdir()}
    hub.add("org/kb", {**files, "README.md": b"# KB", "evil.pkl": b"no", "sub/meta.json": b"{}"})
    return "org/kb"


def open_kb(repo: str, **options: Any) -> Any:
    return kb_from_hub(repo, **options)(spacy.blank("en").vocab)


def test_a_pipeline_with_a_kb_of_the_hub_links_the_same(
    hub: Hub, kb_repo: str, kb: Path, models: Path, tmp_path: Path
) -> None:
    fix_random_seed(0)
    here, there = make_pipeline(models, kb), add_linker(spacy.blank("en"), models)
    fix_random_seed(0)
    loader = {"@misc": "spacy_gemel.KBFromHub.v1", "repo": kb_repo}
    there.config["initialize"]["components"][LINKER] = {"kb_loader": loader}
    there.initialize(lambda: examples(there))
    assert linker(there).kb.meta == linker(here).kb.meta
    assert answers(there) == answers(here)
    there.to_disk(tmp_path / "saved")
    assert answers(spacy.load(tmp_path / "saved")) == answers(here)


def test_only_files_of_a_kb_are_fetched_and_once(hub: Hub, kb_repo: str) -> None:
    names = {path.name for path in open_kb(kb_repo, verify=True).path.iterdir()}
    assert names < {*hub.files(kb_repo)}
    assert not [path for path in hub.requests if path.endswith((".pkl", "README.md", "sub/meta.json"))]
    hub.requests.clear()
    open_kb(kb_repo)
    assert not [path for path in hub.requests if "/resolve/" in path]


def test_a_revision_stays_as_it_is(hub: Hub, kb_repo: str) -> None:
    first = open_kb(kb_repo)
    revision = first.path.name
    hub.add(kb_repo, {"meta.json": b"{}"})
    assert open_kb(kb_repo, revision=revision).meta == first.meta
    with pytest.raises(ValueError, match="belongs to something else"):
        open_kb(kb_repo)
    with pytest.raises(ValueError, match=r"org/kb on the Hugging Face Hub: it has no such revision"):
        open_kb(kb_repo, revision="v9")


def test_offline_a_kb_comes_from_the_cache(hub: Hub, kb_repo: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ValueError, match="HF_HUB_OFFLINE is set, and this machine's cache cannot stand in"):
        open_kb(kb_repo)
    assert hub.requests == []
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    online = open_kb(kb_repo)
    hub.requests.clear()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert open_kb(kb_repo).meta == online.meta
    assert hub.requests == []


def test_a_kb_that_cannot_be_had_is_one_error(hub: Hub, kb_repo: str, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.add("org/other", {"config.json": b"{}"})
    with pytest.raises(ValueError, match="org/other on the Hugging Face Hub holds no knowledge base"):
        open_kb("org/other")
    with pytest.raises(ValueError, match="no such repository, or your token may not read it"):
        open_kb("org/nobody")
    hub.private.add(kb_repo)
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(ValueError, match=r"or it is private: correct the name, or log in with `hf auth login`"):
        open_kb(kb_repo)
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{unused.getsockname()[1]}")
        with pytest.raises(ValueError, match=r"the Hub \(http://127.0.0.1:\d+\) cannot be reached"):
            open_kb(kb_repo)
