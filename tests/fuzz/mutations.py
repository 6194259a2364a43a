"""How a good file becomes a hostile one: in its values, in its text, or in its bytes."""

import copy
import json
from collections.abc import Callable
from typing import Any

import yaml
from hypothesis import strategies as st

Values = st.SearchStrategy[Any]
Content = st.SearchStrategy[bytes]

_NUMBERS = [0, 1, -1, 7, 2**31, 2**53, 2**63, 2**64, 2**70, 10**10, -(10**10), 10**39, 10**400]
_FLOATS = [0.5, -0.0, 1e-320, 1e308, float("inf"), float("-inf"), float("nan")]
_TEXTS = [
    "",
    "x",
    "..",
    "/dev/zero",
    "a" * 300,
    "a\0b",
    "a\nb",
    "\u2028",
    "\ud800",
    "re:(",
    "re:.*",
    "re:([a-z]+)*X$",
    "*" * 40,
    "{{ 1 // 0 }}",
    "2020-13-45",
    "inf",
    "nan",
    "--5",
    "7" * 5000,
]
_CONTAINERS: list[object] = [[], {}, [[]], [{}], [None], [1], ["x"], {"": []}, {"x": {"x": [1]}}]
HOSTILE: Values = st.one_of(
    st.sampled_from([None, True, False]),
    st.sampled_from(_NUMBERS),
    st.sampled_from(_FLOATS),
    st.sampled_from(_TEXTS),
    st.sampled_from(_CONTAINERS),
    st.text(max_size=4),
    st.integers(),
    st.floats(),
)
_DEEP = b"[" * 5_000
_RAW = [b"\xef\xbb\xbf", b"\xff\xfe", b"\x00", b"\xff", b"\r\n", b'"', b"{", b"]", b",", _DEEP]


@st.composite
def changed(draw: st.DrawFn, good: object) -> object:
    """Values in which one to three places hold something else, are gone, or are there twice."""
    value = copy.deepcopy(good)
    for _ in range(draw(st.integers(1, 3))):
        value = _change(draw, value)
    return value


def _change(draw: st.DrawFn, value: Any) -> object:  # noqa: ANN401 -- of any shape
    places = list(_places(value, ()))
    place = draw(st.sampled_from(places))
    other = copy.deepcopy(draw(HOSTILE))
    if not place:
        return other
    holder = value
    for key in place[:-1]:
        holder = holder[key]
    how = draw(st.sampled_from(["replace", "replace", "replace", "remove", "add"]))
    if how == "replace":
        holder[place[-1]] = other
    elif how == "remove":
        del holder[place[-1]]
    elif isinstance(holder, dict):
        holder[str(other)[:400]] = holder[place[-1]]
    else:
        holder.append(other)
    return value


def _places(value: object, path: tuple[Any, ...]) -> list[tuple[Any, ...]]:
    """Return the way to every value, the outermost first; at most 200, to be quick."""
    found: list[tuple[Any, ...]] = []
    waiting = [(value, path)]
    while waiting and len(found) < 200:
        one, at = waiting.pop(0)
        found.append(at)
        if isinstance(one, dict):
            waiting += [(inner, (*at, key)) for key, inner in one.items()]
        elif isinstance(one, list):
            waiting += [(inner, (*at, index)) for index, inner in enumerate(one[:20])]
    return found


@st.composite
def damaged(draw: st.DrawFn, content: bytes) -> bytes:
    """Bytes that are cut off, of another encoding, or have something in them."""
    how = draw(st.sampled_from(["cut", "insert", "drop", "mark", "utf-16", "repeat"]))
    at = draw(st.integers(0, len(content)))
    if how == "cut":
        return content[:at]
    if how == "insert":
        return content[:at] + draw(st.sampled_from(_RAW)) + content[at:]
    if how == "drop":
        return content[:at] + content[at + draw(st.integers(1, 9)) :]
    if how == "mark":
        return b"\xef\xbb\xbf" + content
    if how == "utf-16":
        return content.decode("utf-8", "replace").encode("utf-16")
    return content + content


def _as_json(value: object) -> bytes:
    return json.dumps(value).encode()


def _as_yaml(value: object) -> bytes:
    return yaml.safe_dump(value, sort_keys=False).encode("utf-8", "surrogatepass")


def json_of(content: bytes) -> Content:
    """A JSON file, changed or damaged."""
    return _either(json.loads(content), content, _as_json)


def yaml_of(content: bytes) -> Content:
    """A YAML file, changed or damaged."""
    return _either(yaml.safe_load(content), content, _as_yaml)


def lines_of(content: bytes) -> Content:
    """JSON lines, changed or damaged."""

    def spelled(rows: object) -> bytes:
        listed = rows if isinstance(rows, list) else [rows]
        return b"".join(_as_json(row) + b"\n" for row in listed)

    return _either([json.loads(line) for line in content.splitlines()], content, spelled)


def weights_of(content: bytes) -> Content:
    """A safetensors file whose header is changed or damaged; the data stay, for the most part."""
    length = int.from_bytes(content[:8], "little")
    header, data = content[8 : 8 + length], content[8 + length :]

    def whole(text: bytes) -> bytes:
        return len(text).to_bytes(8, "little") + text + data

    return st.one_of(json_of(header).map(whole), damaged(content))


def _either(good: object, content: bytes, spelled: Callable[[object], bytes]) -> Content:
    values = changed(good).map(spelled)
    return st.one_of(values, values, values, damaged(content))
