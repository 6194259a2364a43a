"""Does the tokenizer make the same tokens as that of the source, and has each of them a vector?

Vocabulary and rules lie in tokenizer.json, which is compared as a file. What is said beside it is
compared here: the class that reads it, the tokens with a meaning, which of them are put before and
behind a text, and tokens that were added. Libraries respell some of that whenever they save.

Source: transformers, tokenization_utils_base.py, `_from_pretrained` and `save_pretrained` of
versions 4.57 and 5.
"""

from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from harness.artifacts import Check, Severity
from harness.models import ids_beyond_embedding, is_token_id, settings_in
from harness.verify.checks_source import origin_of
from harness.verify.contents import Contents
from harness.verify.finding import finding
from harness.verify.templates import LEGACY_FILE, means_two_things, template_places

_CONFIG, _MAP = "tokenizer_config.json", "special_tokens_map.json"
_GENERATION = "generation_config.json"
_TOKENS = tuple(f"{kind}_token" for kind in ("bos", "eos", "pad", "unk", "sep", "cls", "mask"))
_SERIOUS_IF_NEW = ("bos_token", "eos_token")
"""Others do nothing where texts are not filled up or cut into parts."""
_ADDS = ("add_bos_token", "add_eos_token")
_GENERIC = frozenset({"", "PreTrainedTokenizer", "TokenizersBackend"})
"""Classes that do what tokenizer.json says, which libraries write for those that did no more."""
_EXTRA = ("additional_special_tokens", "extra_special_tokens")
_FREE_KEYS = frozenset(
    {
        *_TOKENS,
        *_ADDS,
        *_EXTRA,
        *("added_tokens_decoder", "chat_template", "tokenizer_class", "auto_map", "backend"),
        *("is_local", "name_or_path", "processor_class", "transformers_version"),
        *("special_tokens_map_file", "tokenizer_file", "max_length", "pad_to_multiple_of"),
        *("padding_side", "stride", "truncation_side", "truncation_strategy"),
    }
)
"""Settings that are compared apart, or that change no token of a text."""


class _Fault(NamedTuple):
    """A difference."""

    line: str
    is_serious: bool = True
    """Not where an old and a new spelling may mean the same."""


class _Tokenizer:
    """What the files beside tokenizer.json say."""

    def __init__(self, folder: Path) -> None:
        self.settings, self._map = settings_in(folder / _CONFIG), settings_in(folder / _MAP)
        vocabulary = settings_in(folder / "tokenizer.json")
        model = vocabulary.get("model")
        found = model.get("vocab") if isinstance(model, dict) else None
        self.vocab: Mapping[str, object] = found if isinstance(found, dict) else {}
        self.added = {**_added(folder), **_listed(vocabulary), **_decoder(self.settings)}

    @property
    def class_name(self) -> str:
        """The class that transformers reads it with."""
        return str(self.settings.get("tokenizer_class", "")).removesuffix("Fast")

    def said(self, name: str) -> Mapping[str, str]:
        """Return a token by the file that names it, the decisive file first."""
        places = {_CONFIG: self.settings.get(name), _MAP: self._map.get(name)}
        return {file: _content(value) for file, value in places.items() if value is not None}

    @property
    def extra(self) -> frozenset[str]:
        """Further special tokens, which are left out of answers."""
        found: set[str] = set()
        for values in (place.get(key) for key in _EXTRA for place in (self.settings, self._map)):
            entries = values.values() if isinstance(values, dict) else values
            found.update(map(_content, entries if isinstance(entries, Collection) else ()))
        return frozenset(found)


def tokenizer_as_source(contents: Contents) -> Check:
    """Ask whether all that is said beside tokenizer.json means what the source says.

    A setting that a library may have left out or respelled is a warning.
    """
    source = origin_of(contents).directory
    faults = [*faults_of(source, contents.directory), *_ending_faults(contents, source)]
    return finding(
        "tokenizer-matches-source",
        [fault.line for fault in sorted(faults, key=lambda fault: not fault.is_serious)],
        good="class, special and added tokens of the tokenizer are those of the source",
        bad=f"{len(faults)} settings of the tokenizer differ from the source",
        severity=Severity.ERROR if any(f.is_serious for f in faults) else Severity.WARNING,
    )


def faults_of(source: Path, folder: Path) -> Iterator[_Fault]:
    """Yield the differences between the tokenizers of two folders."""
    if (source / _CONFIG).is_file() and not (folder / _CONFIG).is_file():
        yield _Fault(f"{_CONFIG} is missing")
        return
    theirs, mine = _Tokenizer(source), _Tokenizer(folder)
    if mine.class_name != theirs.class_name:
        line = f"tokenizer_class is '{mine.class_name}' and was '{theirs.class_name}'"
        yield _Fault(line, _GENERIC.isdisjoint({mine.class_name, theirs.class_name}))
    for name in _TOKENS:
        yield from _token_faults(name, theirs.said(name), mine.said(name))
    yield from _settings_faults(theirs, mine)
    yield from _added_faults(theirs, mine)
    yield from _template_faults(source, folder)


def _token_faults(
    name: str, theirs: Mapping[str, str], mine: Mapping[str, str]
) -> Iterator[_Fault]:
    was = next(iter(theirs.values()), None)
    if was is not None and not mine:
        yield _Fault(f"{name} is gone and was '{was}'")
    for file, value in mine.items():
        if value not in (was, theirs.get(file)):
            said = "not set" if was is None else f"'{was}'"
            is_serious = was is not None or name in _SERIOUS_IF_NEW
            yield _Fault(f"{name} is '{value}' in {file} and was {said}", is_serious)


def _settings_faults(theirs: _Tokenizer, mine: _Tokenizer) -> Iterator[_Fault]:
    old, new = theirs.settings, mine.settings
    for key in _ADDS:
        is_now, was = new.get(key), old.get(key)
        if is_now is not None and was is not None and is_now != was:
            yield _Fault(f"{key} is {is_now} and was {was}")
        elif bool(is_now) != bool(was):  # libraries leave it to the rules of tokenizer.json
            yield _Fault(f"{key} is {is_now or 'not set'} and was {was or 'not set'}", bool(is_now))
    for key in sorted((old.keys() & new.keys()) - _FREE_KEYS):
        if old[key] is not None and new[key] is not None and old[key] != new[key]:
            yield _Fault(f"{key} is {new[key]!r:.80} and was {old[key]!r:.80}")
    if mine.extra != theirs.extra:
        changed = sorted(mine.extra ^ theirs.extra)
        line = f"{len(changed)} further special tokens are not in both, such as '{changed[0]}'"
        yield _Fault(line, not mine.extra.issuperset(theirs.extra))


def _added_faults(theirs: _Tokenizer, mine: _Tokenizer) -> Iterator[_Fault]:
    for number in sorted(theirs.added.keys() | mine.added.keys()):
        was, now = theirs.added.get(number), mine.added.get(number)
        if now is None and was is not None:
            if mine.vocab.get(was.content) != number:
                yield _Fault(f"the added token {number}, '{was.content}', is gone")
        elif was is None and now is not None:
            if theirs.vocab.get(now.content) != number:
                yield _Fault(f"the token {number}, '{now.content}', was added")
        elif was is not None and now is not None and not now.is_like(was):
            yield _Fault(f"the added token {number} is {now.spelled} and was {was.spelled}")


def _template_faults(source: Path, folder: Path) -> Iterator[_Fault]:
    """Yield what is wrong with the places of the chat template; another check compares texts."""
    theirs, mine = template_places(source), template_places(folder)
    if list(mine) == [LEGACY_FILE] != list(theirs) and theirs:
        yield _Fault(f"the chat template lies in {LEGACY_FILE} alone, where no tokenizer reads it")
    if mine != theirs and means_two_things(folder):
        line = f"{' and '.join(mine)} hold chat templates that differ, and loaders take either"
        yield _Fault(line, is_serious=False)


def _ending_faults(contents: Contents, source: Path) -> Iterator[_Fault]:
    """Yield how the end of a text changed where config.json of the source alone names it."""
    if (source / _GENERATION).exists():
        return  # another check compares the two
    was = _ending(origin_of(contents).config)
    now = settings_in(contents.directory / _GENERATION).get("eos_token_id")
    now = _ending(contents.config) if now is None else now
    if was is not None and now != was:
        yield _Fault(f"eos_token_id is {now} and was {was} in config.json")


def _ending(config: Mapping[str, object]) -> object:
    text = config.get("text_config")
    parts = [config, text if isinstance(text, Mapping) else {}]
    return next((part["eos_token_id"] for part in parts if part.get("eos_token_id")), None)


class _Added(NamedTuple):
    """A token that was added to a vocabulary."""

    content: str
    is_special: bool | None
    """Left out of answers; None where it is not said."""

    def is_like(self, other: "_Added") -> bool:
        """Return whether both say the same, as far as both say it."""
        return self.content == other.content and (
            self.is_special == other.is_special or None in (self.is_special, other.is_special)
        )

    @property
    def spelled(self) -> str:
        """The token in words."""
        return f"'{self.content}'" + (", special" if self.is_special else "")


def _listed(vocabulary: Mapping[str, object]) -> dict[int, _Added]:
    entries = vocabulary.get("added_tokens")
    found = [e for e in entries if isinstance(e, dict)] if isinstance(entries, list) else []
    return {e["id"]: _of(e) for e in found if type(e.get("id")) is int}


def _decoder(settings: Mapping[str, object]) -> dict[int, _Added]:
    entries = settings.get("added_tokens_decoder")
    found = entries.items() if isinstance(entries, dict) else ()
    return {int(key): _of(e) for key, e in found if is_token_id(key) and isinstance(e, dict)}


def _added(folder: Path) -> dict[int, _Added]:
    content = settings_in(folder / "added_tokens.json")
    return {n: _Added(token, None) for token, n in content.items() if type(n) is int}


def _of(entry: Mapping[str, object]) -> _Added:
    return _Added(_content(entry), bool(entry.get("special")))


def _content(token: object) -> str:
    return str(token.get("content") if isinstance(token, Mapping) else token)


def token_ids_in_embedding(contents: Contents) -> Check:
    """Ask whether each token that a file names has a row in the embedding."""
    faults = ids_beyond_embedding(contents.directory, contents.config, contents.tensors)
    return finding(
        "token-ids-in-embedding",
        faults,
        good="no token lies beyond the rows of the embedding",
        bad=f"{len(faults)} places name tokens that the embedding has no row for",
    )
