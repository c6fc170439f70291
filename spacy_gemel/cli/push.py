"""`push`: a pipeline to the Hugging Face Hub, with a card."""

import json
import re
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Annotated, Any

import typer

from spacy_gemel.cli.common import one_line_errors

_MODEL = re.compile(r"[\w-][\w.-]*/[\w.-]+")
_DATASET = re.compile(r"https?://(?:www\.)?(?:huggingface\.co|hf\.co)/datasets/([\w.-]+(?:/[\w.-]+)?)/?")


def push(
    pipeline: Annotated[Path, typer.Argument(help="A trained pipeline's folder, or a wheel of spacy package.")],
    repo: Annotated[str, typer.Argument(metavar="ORG/NAME", help="The repository; it is made if there is none.")],
    meta: Annotated[
        Path | None, typer.Option(metavar="META.json", help="What describe wrote of the folder; a wheel has it.")
    ] = None,
    metrics: Annotated[
        Path | None, typer.Option(metavar="METRICS.json", help="What evaluate wrote, and describe was given.")
    ] = None,
    private: Annotated[bool, typer.Option("--private", help="Make a private repository.")] = False,
) -> None:
    """Put a pipeline on the Hugging Face Hub, in one commit, with a README made of its meta.json.

    Needs a token with the right to write: `hf auth login`, or HF_TOKEN.
    """
    with one_line_errors():
        from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, get_token

        from spacy_gemel.cli.model_card import METRICS_KEYS, machine_paths
        from spacy_gemel.evaluation.results import read_metrics
        from spacy_gemel.utils.files import files_in
        from spacy_gemel.utils.hub import LOG_IN, hub_errors

        described, config = _read(pipeline, meta)
        results = None if metrics is None else read_metrics(metrics, METRICS_KEYS)
        if results and described.get("performance", {}).get("test_accuracy") != results["accuracy"]:
            raise ValueError(f"{meta or pipeline} was not described with {metrics}: run describe --metrics first")
        is_wheel = pipeline.is_file()
        files: dict[str, Path | bytes] = {pipeline.name: pipeline} if is_wheel else {}
        for name in () if is_wheel else files_in(pipeline):
            if not any(part.startswith(".") for part in PurePosixPath(name).parts):
                files[name] = pipeline / name
        files["meta.json"] = json.dumps(described, indent=2, ensure_ascii=False).encode()
        files["README.md"] = make_card(described, config, repo, pipeline.name if is_wheel else None, results).encode()
        for path in () if is_wheel else machine_paths(pipeline):
            message = f"the repository will carry a path of this machine: {path}; name it relative to the config"
            typer.echo(f"warning: {message}", err=True)
        if get_token() is None:
            raise ValueError(f"there is no token for the Hugging Face Hub: {LOG_IN}")
        api = HfApi()
        with hub_errors(repo):
            url = api.create_repo(repo, private=private or None, exist_ok=True)
            # what an earlier folder had, such as a model's other weights, would be loaded
            old = () if is_wheel else {name for name in api.list_repo_files(repo) if "/" in name} - {*files}
            operations = [CommitOperationAdd(name, content) for name, content in files.items()]
            deletions = [CommitOperationDelete(name) for name in sorted(old)]
            message = f"{described['lang']}_{described['name']} {described['version']}"
            warnings.filterwarnings("ignore", "It seems that you are about to commit a data file")  # the KB's
            api.create_commit(repo, [*operations, *deletions], commit_message=message)
        typer.echo(url)


def _read(pipeline: Path, meta: Path | None) -> tuple[dict[str, Any], dict[str, Any]]:
    """The meta.json and config.cfg of a folder or a wheel; raises ValueError if they are not there."""
    from thinc.api import Config

    if pipeline.suffix == ".whl" and meta is not None:
        raise ValueError("a wheel has its own meta.json: leave --meta out, and give it to spacy package")
    try:
        if pipeline.suffix == ".whl":
            with zipfile.ZipFile(pipeline) as wheel:
                inside = [name for name in wheel.namelist() if re.fullmatch(r"[^/]+/[^/]+/config\.cfg", name)]
                folder = inside[0].rpartition("/")[0]
                contents = [wheel.read(f"{folder}/{name}").decode() for name in ("meta.json", "config.cfg")]
        else:
            contents = [(meta or pipeline / "meta.json").read_text(encoding="utf8")]
            contents.append((pipeline / "config.cfg").read_text(encoding="utf8"))
        return json.loads(contents[0]), Config().from_str(contents[1], interpolate=False)
    except (OSError, ValueError, LookupError, zipfile.BadZipFile) as error:
        problem = f"no pipeline can be read there, neither a folder nor a wheel of spacy package ({error})"
        raise ValueError(f"{pipeline}: {problem}") from error


def make_card(
    meta: Mapping[str, Any],
    config: Mapping[str, Any],
    repo: str,
    wheel: str | None = None,
    metrics: Mapping[str, Any] | None = None,
) -> str:
    """The README of a repository: what the Hub reads of a pipeline as YAML, how to get it, and spaCy's README.

    Args:
        meta: meta.json, as `describe` makes it.
        config: config.cfg.
        repo: ORG/NAME.
        wheel: The wheel's file name; None for a folder.
        metrics: METRICS.json, of which a model-index is made.
    """
    from huggingface_hub import EvalResult, ModelCardData
    from spacy.cli.package import generate_readme

    from spacy_gemel.evaluation.metrics import SUBSETS
    from spacy_gemel.pipeline.loaded_pipeline import FACTORY

    linkers = [block for block in config["components"].values() if block.get("factory") == FACTORY]
    blocks = [linker.get(part, {}) for linker in linkers for part in ("language_model", "vision_encoder")]
    models = [name for block in blocks if _MODEL.fullmatch(name := block.get("name", "")) and not Path(name).exists()]
    pages = [_DATASET.fullmatch(source.get("url", "")) for source in meta.get("sources") or ()]
    datasets = [page[1] for page in pages if page]
    name, results = f"{meta['lang']}_{meta['name']}", []
    if metrics is not None:
        data = Path(str(metrics["settings"].get("data", "test"))).name
        parts = {"Accuracy": metrics, **{f"Accuracy ({part.replace('_', ' ')})": metrics[part] for part in SUBSETS}}
        results = [
            # the Hub has no task of entity linking
            EvalResult(
                "token-classification",
                datasets[0] if len(datasets) == 1 else data,
                data,
                "accuracy",
                accuracy,
                task_name="Entity linking",
                metric_name=part,
            )
            for part, row in parts.items()
            if (accuracy := row["accuracy"]) is not None
        ]
    card = ModelCardData(
        language=meta["lang"],
        license=(meta.get("license") or "").lower() or None,
        library_name="spacy",
        tags=["spacy", "entity-linking", "spacy-gemel"],
        base_model=models or None,
        datasets=datasets or None,
        eval_results=results or None,
        model_name=name if results else None,
    )
    if wheel is None:
        load = f'spacy.load(snapshot_download("{repo}", local_dir="{repo.split("/")[-1]}"))'
        get = f"```python\nimport spacy\nfrom huggingface_hub import snapshot_download\n\nnlp = {load}\n```"
    else:
        get = f"```bash\npip install https://huggingface.co/{repo}/resolve/main/{wheel}\n```"
    return f"---\n{card.to_yaml()}\n---\n\n{generate_readme(dict(meta))}\n\n### From the Hub\n\n{get}\n"
