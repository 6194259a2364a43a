"""Open a model: find its files, check that they are a checkpoint, give it an identity.

MODEL is `canary`, a folder in the Hugging Face layout, or a Hub id. Everything that is wrong with
the files is found here, from headers alone, before anything else runs. Code that lies in a
model's folder is never run.
"""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import huggingface_hub
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

from harness import offline, shipped
from harness.artifacts import TensorHeader
from harness.doors import expanded
from harness.errors import ModelError
from harness.models.counts import refuse_impossible_counts
from harness.models.digests import digest_folder
from harness.models.headers import read_headers
from harness.models.packed import Packed, packed_pairs, with_unpacked
from harness.reading import read_json_object, refused_as
from harness.shipped import CANARY

_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
_WANTED = ["*.json", "*.safetensors", "*.jinja", "*.model", "*.txt"]
_UNWANTED = ["*/*", "consolidated*"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Source:
    """A checkpoint that can be read."""

    name: str
    """As typed."""
    path: Path
    """Folder that holds its files."""
    config: Mapping[str, object]
    """Parsed config.json."""
    tensors: Mapping[str, TensorHeader]
    """Every tensor of its weight files, in the files' order; a pair of `packed` is one."""
    digest: str
    """sha256 over all files that count (`digest_folder`): weights, configuration, tokenizer."""
    packed: Mapping[str, Packed] = field(default_factory=dict)
    """Tensors that the files hold as codes and scales, for the makers publish nothing else."""

    @property
    def model_digest(self) -> str:
        """Return the digest, as a baseline's is asked for."""
        return self.digest

    @property
    def max_positions(self) -> int | None:
        """Return how many tokens it can take, where its configuration says so."""
        text = self.config.get("text_config", self.config)
        value = text.get("max_position_embeddings") if isinstance(text, Mapping) else None
        return value if isinstance(value, int) and value > 0 else None


def open_source(model: str, *, revision: str | None = None) -> Source:
    """Find and check the model `model`.

    Raises:
        ModelError: it cannot be found, or its files are no checkpoint that can be read.
    """
    path = locate_model(model, revision=revision)
    source = replace(read_source(path), name=model, digest=digest_folder(path))
    kept = offline.kept_model(model, revision)
    if kept is not None and kept[1] != source.digest:
        message = (
            f"'{path}' is not the '{model}' that was fetched: its files have the digest "
            f"{source.digest}, not {kept[1]}. Fill the folder again with `harness prefetch`."
        )
        raise ModelError(message)
    return source


def read_source(path: Path) -> Source:
    """Read the model in a folder, which has no digest then.

    Raises:
        ModelError: its files are no checkpoint that can be read.
    """
    config = _read_config(path)
    tensors = read_headers(path)
    packed = packed_pairs(config, tensors)
    tensors = with_unpacked(tensors, packed)
    refuse_impossible_counts(path / "config.json", config, tensors)
    return Source(
        name=str(path), path=path, config=config, tensors=tensors, digest="", packed=packed
    )


def locate_model(model: str, *, revision: str | None = None, download: bool = True) -> Path:
    """Return the folder of `model`, downloaded where it is a Hub id.

    Args:
        model: as typed.
        revision: of a Hub id.
        download: whether the Hub is asked; else a Hub id's folder may be incomplete, or old.

    Raises:
        ModelError: it cannot be found.
    """
    refuse_ambiguous(model)
    if model == CANARY:
        return shipped.canary() / "model"
    kept = offline.kept_model(model, revision)
    if kept is not None:
        return kept[0]
    path = expanded(model)
    if path.is_dir():
        return path
    if path.exists():
        message = f"'{model}' is a file. Name the folder that holds the model's config.json."
        raise ModelError(message)
    if not _HUB_ID.fullmatch(model) or model.startswith("."):
        message = (
            f"'{model}' is no folder and no Hub id. "
            "Use `canary`, the path of a Hugging Face folder, or owner/name."
        )
        raise ModelError(message)
    return _download(model, revision, from_cache=not download)


def refuse_ambiguous(model: str) -> None:
    """Refuse `canary` where a folder of that name lies in the current one.

    Raises:
        ModelError: with how to say which is meant.
    """
    if model == CANARY and Path(CANARY).is_dir():
        message = (
            f"'{CANARY}' is the model that ships with harness, and a folder of that name lies "
            f"here. Type ./{CANARY} for the folder; for the model type the command elsewhere."
        )
        raise ModelError(message)


def _download(hub_id: str, revision: str | None, *, from_cache: bool) -> Path:
    """Return the Hub's files of a model in the local cache."""
    try:
        folder = huggingface_hub.snapshot_download(
            hub_id,
            revision=revision,
            allow_patterns=_WANTED,
            ignore_patterns=_UNWANTED,
            local_files_only=from_cache,
        )
    except LocalEntryNotFoundError as error:
        message = (
            f"'{hub_id}' is no folder here, and the Hub cannot be reached. "
            "Connect, or give the path of a folder that holds the model."
        )
        kept_in = offline.folder_in_use()
        if kept_in is not None:
            message = (
                f"'{hub_id}' is not among the models in '{kept_in}'. Fetch it with `harness "
                f"prefetch --model {hub_id}`."
            )
        raise ModelError(message) from error
    except (HfHubHTTPError, HFValidationError) as error:
        message = (
            f"the Hub does not give '{hub_id}' at revision '{revision or 'main'}': "
            f"{str(error).strip().splitlines()[0]} "
            "Check the name, and log in with `hf auth login` if access is restricted."
        )
        raise ModelError(message) from error
    except OSError as error:
        message = f"'{hub_id}' cannot be downloaded: {error}. Free space, or set HF_HOME."
        raise ModelError(message) from error
    return Path(folder)


def _read_config(folder: Path) -> Mapping[str, object]:
    path = folder / "config.json"
    if not os.path.lexists(path):
        message = f"'{folder}' is no model folder: it has no config.json that can be read."
        raise ModelError(message)
    with refused_as(ModelError, "Download it again."):
        config = read_json_object(path, infinity=True)  # as Mamba has
    if not isinstance(config.get("model_type"), str):
        message = f"'{path}' names no model_type. It must be the config.json of transformers."
        raise ModelError(message)
    return config
