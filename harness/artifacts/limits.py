"""Types with limits, for the fields of nouns that are read from files which people write.

STRICT, as a noun's configuration, refuses unknown keys and numbers that are not finite.
"""

from typing import Annotated

from pydantic import ConfigDict, Field, StringConstraints

STRICT = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)
Share = Annotated[float, Field(ge=0, le=1)]
Fraction = Annotated[float, Field(gt=0, lt=1)]
MOST = 2**31 - 1
"""Of anything that is counted; the largest number that every library here takes."""
Count = Annotated[int, Field(ge=1, le=MOST)]
Number = Annotated[int, Field(ge=0, le=MOST)]
Seed = Annotated[int, Field(ge=0, le=2**32 - 1)]
"""As numpy takes it."""
Text = Annotated[str, Field(min_length=1)]
Stripped = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
"""Part of a folder's name: letters, digits, `.`, `_` and `-`."""
TaskName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._+()-]{0,127}$")]
"""Name of a file of samples; lm-eval has some with brackets."""
