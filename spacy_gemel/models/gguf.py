"""Language models in GGUF files, the form of llama.cpp: checked here, read by transformers."""

import importlib.util
from typing import Any

import numpy as np

from spacy_gemel.models.frozen import is_gguf
from spacy_gemel.utils.files import resolve
from spacy_gemel.utils.messages import ModelWarning, first_line, warn

_ADVICE = "give a file of another quantization, such as Q4_K_M, Q8_0 or F16."
# Earlier versions of transformers, which lack this module, take BOS for EOS in Llama's files and split numbers wrongly.
_PACKAGES = {"gguf": "gguf", "accelerate": "accelerate", "transformers.integrations.gguf": "transformers 5.24 or later"}


def missing_packages() -> list[str]:
    """What must be installed before a GGUF file can be read: the extra "gguf"."""
    return [package for module, package in _PACKAGES.items() if importlib.util.find_spec(module) is None]


def source_arguments(name: str) -> dict[str, Any]:
    """The arguments by which `from_pretrained` finds a model: a folder, a name on the hub or a GGUF file."""
    if not is_gguf(name):
        return {"pretrained_model_name_or_path": name}
    path = resolve(name)
    return {"pretrained_model_name_or_path": str(path.parent), "gguf_file": path.name}


def check_gguf(name: str) -> None:
    """Check a name that means a GGUF file, without reading its weights.

    Raises ValueError if the file or a package that reads it is missing, or if it is cut short or of a quantization that
    cannot be read. Of architectures transformers knows more.
    """
    if not is_gguf(name):
        return
    path = resolve(name)
    if missing := missing_packages():
        needs = f"{path} needs {' and '.join(missing)}, which is not installed"
        raise ValueError(f'{needs}: run pip install "spacy-gemel[gguf]".')
    if not path.is_file():
        raise ValueError(f"{path} does not exist: correct the name of the GGUF file.")
    with path.open("rb") as file:
        if file.read(4) != b"GGUF":
            raise ValueError(f"{path} is no GGUF file: give one, or a folder with safetensors.")
    from gguf import GGUFReader, dequantize

    class BoundedReader(GGUFReader):
        """Ends with the file; the other reads on until it has had as many values as the file says it holds."""

        def _get(self, offset: int, dtype: Any, count: int = 1, override_order: Any = None) -> Any:
            if int(offset) + np.dtype(dtype).itemsize * int(count) > len(self.data):
                raise ValueError("it says that it holds more than it does")
            return super()._get(offset, dtype, count, override_order)

    try:
        tensors = BoundedReader(path).tensors
    except OSError:
        raise  # names the file
    except Exception as error:  # it has a class of its own for each kind of damage
        if "GGMLQuantizationType" in str(error):
            raise ValueError(f"{path} has a quantization that gguf does not know ({error}): {_ADVICE}") from error
        damage = f"cut short or damaged ({first_line(error)})"
        raise ValueError(f"{path} is {damage}: copy or download it again.") from error
    for tensor in {tensor.tensor_type: tensor for tensor in tensors}.values():
        try:
            dequantize(tensor.data[:1], tensor.tensor_type)
        except NotImplementedError as error:
            kind = f"{tensor.tensor_type.name} tensors, such as {tensor.name}"
            raise ValueError(f"{path} holds {kind}, which gguf cannot dequantise: {_ADVICE}") from error
    if any(tensor.name == "rope_freqs.weight" for tensor in tensors):
        ignored = "scaled rotary frequencies (rope_freqs.weight), as Llama 3.1 has, which transformers ignores"
        warn(f"{path} holds {ignored}: its answers are better from the model's safetensors.", ModelWarning)
