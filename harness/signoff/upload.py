"""A Hub, through huggingface_hub: the only place here that writes to a network.

Every file has the sha256 that was judged. One that is held in memory cannot change. Of a larger one
the library hashes the bytes as it sends them (Xet) or before (LFS, where the Hub refuses others
under that hash); the two are compared before the commit, which is the only thing that shows anybody
anything. Tokens are the library's business (`hf auth login`, HF_TOKEN): none is an option, and no
line that is printed holds one, or a URL, which may be signed.
"""

import hashlib
import os
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import CommitOperationAdd, HfApi, get_token
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, OfflineModeIsEnabled

from harness.errors import EvidenceError, ReasonCode, UploadError, UsageError
from harness.signoff.folders import OF_GIT

_NOT_ALLOWED = (401, 403)
_MOST_NAMED = 3
_LONGEST = 200


@dataclass(frozen=True, kw_only=True, slots=True)
class Upload:
    """One file that is to be published."""

    name: str
    sha256: str
    """That it must have."""
    content: bytes | Path

    @classmethod
    def of_bytes(cls, name: str, content: bytes) -> "Upload":
        """Return a file that is held in memory."""
        return cls(name=name, sha256=hashlib.sha256(content).hexdigest(), content=content)


class Hub:
    """One repository of models on the Hub that HF_ENDPOINT names, or the public one."""

    def __init__(self, repo: str) -> None:
        self._repo = repo
        self._api = HfApi(endpoint=os.environ.get("HF_ENDPOINT") or None)

    def open(self, *, private: bool, names: Collection[str]) -> None:
        """Make the repository where it is not there, and refuse one that holds other files.

        Args:
            private: whether nobody else is to see a new one.
            names: of the files that are to be published.

        Raises:
            UsageError: it holds other files, or is no name of a repository.
            UploadError: the Hub refused, or cannot be reached.
        """
        with _named(self._repo):
            self._api.create_repo(self._repo, private=private, exist_ok=True)
            there = self._api.list_repo_files(self._repo)
        others = [n for n in there if n not in names and n.split("/")[0] not in OF_GIT]
        if others:
            named = ", ".join(others[:_MOST_NAMED])
            message = (
                f"repository '{self._repo}' holds files that are no part of this release ({named}; "
                f"{len(others)} in all). Remove them, or name another repository."
            )
            raise UsageError(message)

    def send(self, uploads: Sequence[Upload]) -> list[CommitOperationAdd]:
        """Send the content of files; nobody sees it before the commit.

        Raises:
            EvidenceError: what was sent is not what was judged.
            UploadError: the Hub refused, or cannot be reached.
        """
        additions = [
            CommitOperationAdd(path_in_repo=upload.name, path_or_fileobj=upload.content)
            for upload in uploads
        ]
        with _named(self._repo):
            self._api.preupload_lfs_files(self._repo, additions)
        for upload, addition in zip(uploads, additions, strict=True):
            sent = addition.upload_info.sha256.hex()
            if sent != upload.sha256:
                message = (
                    f"'{upload.name}' is not the file that was judged: {sent:.12} in place of "
                    f"{upload.sha256:.12}. Nothing was published."
                )
                raise EvidenceError(message, reason=ReasonCode.EVIDENCE_CHANGED)
        return additions

    def commit(self, additions: Sequence[CommitOperationAdd], message: str) -> str:
        """Publish what was sent, all of it at once; return the URL of the commit.

        Raises:
            UploadError: the Hub refused, or left files out.
        """
        names = {addition.path_in_repo for addition in additions}
        with _named(self._repo):
            done = self._api.create_commit(self._repo, list(additions), commit_message=message)
            there = set(self._api.list_repo_files(self._repo, revision=done.oid))
        if not names <= there:
            named = ", ".join(sorted(names - there)[:_MOST_NAMED])
            text = (
                f"repository '{self._repo}' left out files of the release ({named}). Remove its "
                ".gitignore and publish again."
            )
            raise UploadError(text)
        return str(done.commit_url)


@contextmanager
def _named(repo: str) -> Iterator[None]:
    """Turn what the library raises into one line without addresses and tokens.

    Raises:
        UsageError: the name is none, or who is logged in may not write there.
        UploadError: anything else.
    """
    try:
        yield
    except HFValidationError as error:
        message = f"'{repo}' is no name of a repository. Type --repo OWNER/NAME."
        raise UsageError(message) from error
    except OfflineModeIsEnabled as error:
        message = "HF_HUB_OFFLINE is set, and publishing needs the Hub. Unset it."
        raise UsageError(message) from error
    except HfHubHTTPError as error:
        raise _refused(repo, error) from error
    except Exception as error:
        cause = error.__cause__
        if isinstance(cause, HfHubHTTPError):
            raise _refused(repo, cause) from error
        if not _is_of_network(error):
            raise
        # Not what it says, which may be an address with a signature in it.
        message = f"'{repo}' could not be published: {type(error).__name__}. Try again."
        raise UploadError(message) from error


def _is_of_network(error: Exception) -> bool:
    """Return whether an error is that of an answer or a connection: the client has several kinds.

    Which HTTP client there is depends on huggingface_hub's version.
    """
    of_client = type(error).__module__.startswith(("httpx", "requests"))
    return of_client or isinstance(error, OSError | ValueError | RuntimeError)


def _refused(repo: str, error: HfHubHTTPError) -> UsageError | UploadError:
    status = error.response.status_code
    if status in _NOT_ALLOWED:
        return UsageError(
            f"the Hub does not let you write to '{repo}' (status {status}). Log in with "
            "hf auth login, or set HF_TOKEN to a token that may write."
        )
    said = " ".join(str(error.server_message or "").split())[:_LONGEST]
    token = get_token()
    said = said.replace(token, "***") if token else said
    why = f": {said}" if said else ""
    return UploadError(f"the Hub refused '{repo}' with status {status}{why}. Try again.")
