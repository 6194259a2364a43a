"""What was installed where a run was at work: the lock of its environment."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from harness.artifacts.store import digest_of


@dataclass(frozen=True, kw_only=True, slots=True)
class Package:
    """One installed distribution."""

    name: str
    """Spelled as package indexes do: lower case, one hyphen between words."""
    version: str
    record_sha256: str | None = None
    """Of its RECORD, which names the sha256 of each file that was installed; None without one."""

    @property
    def line(self) -> str:
        """Return it as a line of a lock file, the hash as a comment."""
        pinned = f"{self.name}=={self.version}"
        return f"{pinned}  # RECORD sha256:{self.record_sha256}" if self.record_sha256 else pinned


@dataclass(frozen=True, kw_only=True, slots=True)
class Environment:
    """One set of installed distributions."""

    name: str
    """`harness`, or `engine` for that of a server with an environment of its own."""
    python: str
    """Its version, where it is known."""
    packages: tuple[Package, ...]

    @property
    def lock(self) -> str:
        """Return the text of a lock file, one distribution a line."""
        head = f"# environment of {self.name}, Python {self.python or 'not known'}"
        return "\n".join([head, *(package.line for package in self.packages)]) + "\n"


@dataclass(frozen=True, kw_only=True, slots=True)
class Surroundings:
    """What a run was at work in at one time."""

    environments: tuple[Environment, ...]
    platform: str
    """Such as `Linux-6.1-x86_64`."""
    image: str | None = None
    """Of the docker engine, by digest or id."""
    host: str = ""
    """Name of the machine; empty where an earlier version of harness did not write it down."""

    @property
    def digest(self) -> str:
        """Return a sha256 of what is installed, which is the same wherever that is installed.

        It is of versions: a package's RECORD names scripts, and these the folder they were put in.
        """
        pythons = {one.name: one.python for one in self.environments}
        return digest_of(pythons, self.versions, self.image)

    def is_as(self, other: "Surroundings") -> bool:
        """Return whether the same is installed, on whichever host."""
        return replace(self, host=other.host) == other

    def changes(self, now: "Surroundings") -> Iterator[str]:
        """Yield what is different in `now`, one clause each."""
        for what in ("image", "platform"):
            was, has = getattr(self, what), getattr(now, what)
            if was != has:
                yield f"the {what} was {was} and is {has}"
        old, new = self.versions, now.versions
        for name in sorted(old.keys() | new.keys()):
            was, has = (versions.get(name, "not there") for versions in (old, new))
            if was != has:
                yield f"{name} was {was} and is {has}"

    @property
    def versions(self) -> dict[str, str]:
        """Return the version of each package, by its environment's name and its own."""
        return {
            f"{one.name} {package.name}": package.version
            for one in self.environments
            for package in one.packages
        }


@dataclass(frozen=True, kw_only=True, slots=True)
class RunSurroundings:
    """Everything that a run was at work in; more than one where it was resumed in another."""

    seen: tuple[Surroundings, ...]
