"""The headers of a model's weight files, held against the index and each other.

What one file says is read by harness/reading. Which files there are, the index says, as it does to
the loaders of engines; without one there is a single file. No tensor is read.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from harness.artifacts import TensorHeader
from harness.errors import ModelError
from harness.models.weight_files import INDEX, SINGLE, find_weights
from harness.reading import read_weights_header, refused_as

_ADVICE = "Download it again."


def read_headers(folder: Path) -> dict[str, TensorHeader]:
    """Return every tensor of the checkpoint in `folder`, in the order of its files.

    Raises:
        ModelError: there are no safetensors weights, a file is missing or cut short, or the index
            and the files contradict each other.
    """
    weights = find_weights(folder)
    if weights.problem is not None:
        with refused_as(ModelError, _ADVICE):
            raise weights.problem
    if weights.weight_map is None:
        _refuse_no_single_file(folder, weights.files)
        return read_file_header(folder / SINGLE)
    headers: dict[str, TensorHeader] = {}
    for shard in sorted(set(weights.weight_map.values())):
        if shard not in weights.files:
            message = f"'{folder / INDEX}' names '{shard}', which is missing. {_ADVICE}"
            raise ModelError(message)
        found = read_file_header(folder / shard)
        _refuse_doubles(folder, headers, found)
        headers |= found
    _check_index(folder, weights.weight_map, headers)
    return headers


def read_file_header(path: Path) -> dict[str, TensorHeader]:
    """Return every tensor of one safetensors file, in the order of its bytes.

    Raises:
        ModelError: the file is cut short, is no safetensors file, or its header lies.
    """
    with refused_as(ModelError, _ADVICE):
        header = read_weights_header(path)
    return {
        name: TensorHeader(
            shard=path.name,
            dtype=tensor.dtype,
            shape=tensor.shape,
            num_bytes=tensor.end - tensor.begin,
            offset=header.data_start + tensor.begin,
        )
        for name, tensor in header.tensors.items()
    }


def _refuse_no_single_file(folder: Path, files: Sequence[str]) -> None:
    """Say what a folder without an index has where the one weight file is missing."""
    if SINGLE in files:
        return
    if files:
        message = (
            f"'{folder}' has {len(files)} safetensors file(s), such as '{files[0]}', but "
            f"neither '{SINGLE}' nor '{INDEX}'. Download the model again."
        )
        raise ModelError(message)
    if any(folder.glob("*.bin")) or any(folder.glob("*.pt")) or any(folder.glob("*.pth")):
        message = (
            f"'{folder}' has only pickled weights, which can run code and are not read. "
            "Convert them to safetensors with transformers' save_pretrained."
        )
        raise ModelError(message)
    message = f"'{folder}' has no weights. It must hold '{SINGLE}', or shards and '{INDEX}'."
    raise ModelError(message)


def _refuse_doubles(
    folder: Path, known: Mapping[str, TensorHeader], found: Mapping[str, TensorHeader]
) -> None:
    """Refuse a tensor that two files hold: which of them a loader takes depends on the loader."""
    if doubles := sorted(known.keys() & found.keys()):
        name = doubles[0]
        message = (
            f"'{folder}' holds '{name}' twice, in '{known[name].shard}' and '{found[name].shard}'. "
            "Download the model again."
        )
        raise ModelError(message)


def _check_index(
    folder: Path, index: Mapping[str, str], headers: Mapping[str, TensorHeader]
) -> None:
    for name, shard in index.items():
        if name not in headers or headers[name].shard != shard:
            message = f"'{folder / INDEX}' says that '{shard}' holds '{name}'; it does not."
            raise ModelError(message + " Download both again.")
    if left_out := [name for name in headers if name not in index]:
        message = (
            f"'{folder / INDEX}' leaves out {len(left_out)} tensor(s) of its shards, such as "
            f"'{left_out[0]}'. Download it again."
        )
        raise ModelError(message)
