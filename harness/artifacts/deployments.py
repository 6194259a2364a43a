"""Two deployments that somebody else runs, as a run compares them."""

from dataclasses import dataclass

from harness.artifacts.recipe import Trial


@dataclass(frozen=True, kw_only=True, slots=True)
class Address:
    """Where a deployment answers, as what it is asked, and what it says that it is."""

    url: str
    """Without `/v1`."""
    model: str
    """Name under which it knows the model."""
    protocol: str
    """`completions`, or `chat` where it renders chats itself."""
    tokenizer: str
    """Folder; empty where it renders chats itself."""
    engine: str
    version: str

    def __str__(self) -> str:
        """Return the deployment as a person would name it."""
        return f"'{self.model}' at {self.url}"

    @property
    def says(self) -> str:
        """Return which engine it says that it is."""
        return f"{self.engine} {self.version}"


@dataclass(frozen=True, kw_only=True, slots=True)
class DeploymentsTrial(Trial):
    """A candidate's deployment against a baseline's; `checkpoint` is what the first is said to run.

    `model` is the candidate's name, `baseline` the other deployment; `engine` says nothing.
    """

    candidate_at: Address
    baseline_at: Address
