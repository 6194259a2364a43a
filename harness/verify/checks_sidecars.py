"""Are the files beside the weights there, and do they say what those of the source say?

A lost or changed chat template, tokenizer or end-of-text token changes every answer, and no health
check notices. What is there at all is asked always; equality with the source with `--source`.
"""

import filecmp
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from harness.artifacts import Check, Severity
from harness.errors import UnreadableError
from harness.models import TOKENIZER_FILES, has_tokenizer
from harness.reading import bounds, read_bytes, read_json_object
from harness.verify.checks_source import origin_of
from harness.verify.contents import Contents
from harness.verify.finding import finding
from harness.verify.templates import first_difference, has_template, template_problem

_PROCESSORS = (
    "preprocessor_config.json",
    "processor_config.json",
    "video_preprocessor_config.json",
)
_COMPARED = (*TOKENIZER_FILES, "merges.txt", *_PROCESSORS)
_OBJECTS = (
    *("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.json"),
    *("generation_config.json", *_PROCESSORS),
)
"""Files that hold a JSON object, which loaders read."""
_READ = tuple(dict.fromkeys((*_OBJECTS, *_COMPARED)))
_FREE_KEYS = frozenset(
    {"truncation", "padding", "version", "transformers_version", "processor_class", "_commit_hash"}
)
"""Settings of tokenizer.json and of processors that libraries rewrite when they save."""
_TOKEN_KEYS = ("eos_token_id", "bos_token_id", "pad_token_id", "suppress_tokens")


def sidecars_present(contents: Contents) -> Check:
    """Ask for a tokenizer, a chat template and generation settings."""
    folder = contents.directory
    faults = []
    if not has_tokenizer(folder):
        faults.append(f"no tokenizer: none of {', '.join(TOKENIZER_FILES)}")
    if not (folder / "tokenizer_config.json").is_file():
        faults.append("no tokenizer_config.json")
    if not (folder / "generation_config.json").is_file():
        faults.append("no generation_config.json")
    if not has_template(folder):
        faults.append("no chat template")
    return finding(
        "sidecars-present",
        faults,
        good="tokenizer, chat template and generation settings are there",
        bad=f"{len(faults)} files that serving needs are missing",
        severity=Severity.WARNING,
    )


def sidecars_readable(contents: Contents) -> Check:
    """Ask whether loaders can read the files beside the weights, and render the chat template."""
    folder = contents.directory
    there = [name for name in _READ if os.path.lexists(folder / name)]
    faults = [fault for name in there if (fault := _fault_of(folder / name))]
    if problem := template_problem(folder):
        faults.append(problem)
    return finding(
        "sidecars-readable",
        faults,
        good=f"{len(there)} files beside the weights and the chat template can be used",
        bad=f"{len(faults)} files beside the weights cannot be used",
    )


def _fault_of(path: Path) -> str | None:
    try:
        if path.suffix == ".json":
            read_json_object(path, most=bounds.INDEX_BYTES, infinity=True)
        else:
            read_bytes(path, most=bounds.INDEX_BYTES)
    except UnreadableError as error:
        return f"{path.name} {error.why}"
    return None


def sidecars_as_source(contents: Contents) -> Check:
    """Ask whether tokenizer and processor are there and mean the same as those of the source."""
    source, folder = origin_of(contents).directory, contents.directory
    there = [name for name in _COMPARED if (source / name).is_file()]
    faults = []
    for name in there:
        if not (folder / name).is_file():
            faults.append(f"{name} is missing")
        elif not _is_same_file(source / name, folder / name):
            faults.append(f"{name} differs")
    return finding(
        "sidecars-match-source",
        faults,
        good=f"{len(there)} files of tokenizer and processor mean the same as those of the source",
        bad=f"{len(faults)} of {len(there)} files of tokenizer and processor are not the source's",
    )


def _is_same_file(source: Path, stored: Path) -> bool:
    if filecmp.cmp(source, stored, shallow=False):
        return True
    if source.suffix != ".json":
        return False
    try:
        return _meaning(source) == _meaning(stored)
    except UnreadableError:
        return False  # another check says what is wrong with it


def _meaning(path: Path) -> Mapping[str, object]:
    content = read_json_object(path, most=bounds.INDEX_BYTES, infinity=True)
    return {k: v for k, v in content.items() if k not in _FREE_KEYS and v is not None}


def chat_template_as_source(contents: Contents) -> Check:
    """Ask whether conversations become the same text with both chat templates."""
    difference = first_difference(origin_of(contents).directory, contents.directory)
    return finding(
        "chat-template-matches-source",
        [difference] if difference else [],
        good="conversations become the same text with the chat template of the source",
        bad="the chat template is not that of the source",
    )


def generation_config_as_source(contents: Contents) -> Check:
    """Ask whether the tokens that end a text, and the sampling, are those of the source.

    Other sampling is a warning: exporters set `do_sample` where temperatures are given.
    """
    faults = list(_generation_faults(origin_of(contents).directory, contents.directory))
    is_serious = any(fault.startswith(_TOKEN_KEYS) for fault in faults)
    return finding(
        "generation-config-matches-source",
        faults,
        good="generation_config.json says what that of the source says",
        bad=f"{len(faults)} settings of generation_config.json differ from the source",
        severity=Severity.ERROR if is_serious else Severity.WARNING,
    )


def _generation_faults(source: Path, folder: Path) -> Iterator[str]:
    name = "generation_config.json"
    try:
        wanted, stored = _settings(source / name), _settings(folder / name)
    except UnreadableError as error:
        yield f"eos_token_id and all others cannot be read: {error}"
        return
    if wanted is None:
        return
    if stored is None:
        yield f"eos_token_id and all others are gone: {name} is missing"
        return
    for key in sorted(wanted.keys() | stored.keys() - _FREE_KEYS):
        if key not in _FREE_KEYS and wanted.get(key) != stored.get(key):
            yield f"{key} is {stored.get(key)!r} and was {wanted.get(key)!r}"


def _settings(path: Path) -> Mapping[str, object] | None:
    return read_json_object(path, infinity=True) if os.path.lexists(path) else None
