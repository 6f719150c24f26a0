"""Load prompt files: front matter, then messages under the headings `# system`, `# user`, `# assistant`.

A released version never changes: its SHA-256 stands in `prompts/lock.json` and is tested. A prompt declares the
variables that it takes; a missing or an unused one is an error.
"""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Literal

import yaml
from jinja2 import StrictUndefined, Template, TemplateSyntaxError, meta
from jinja2.sandbox import SandboxedEnvironment

Role = Literal["system", "user", "assistant"]

_HEADING = re.compile(r"^# (system|user|assistant)\n", re.MULTILINE)
_FIELDS = {"name", "version", "variables", "output", "changelog"}
_JINJA = SandboxedEnvironment(undefined=StrictUndefined, autoescape=False, keep_trailing_newline=False)


class PromptError(Exception):
    """A prompt file is missing, malformed, or was given the wrong variables."""


@dataclass(frozen=True)
class Prompt:
    """A prompt: its messages as templates, and what it promises.

    Attributes:
        variables: The names that `render` takes, exactly.
        output: Name of the schema that the answer must have.
        sha256: Of the file's bytes.
    """

    name: str
    version: int
    variables: frozenset[str]
    output: str
    messages: tuple[tuple[Role, str], ...]
    sha256: str

    @property
    def label(self) -> str:
        """Name, version and the start of the hash, as it goes into a profile."""
        return f"{self.name}@v{self.version}+{self.sha256[:12]}"

    def render(self, values: Mapping[str, str]) -> list[tuple[Role, str]]:
        """Fill in the variables.

        Raises:
            PromptError: A variable is missing, or one is given that the prompt does not take.
        """
        if set(values) != self.variables:
            missing, unused = sorted(self.variables - set(values)), sorted(set(values) - self.variables)
            raise PromptError(f"prompt {self.label}: missing variables {missing}, unused variables {unused}")
        return [(role, _template(text).render(values)) for role, text in self.messages]


def parse(text: str, sha256: str) -> Prompt:
    """Parse a prompt file's text.

    Raises:
        PromptError: The front matter or the headings are wrong, or declared and used variables differ.
    """
    parts = text.split("---\n", 2)
    if len(parts) != 3 or parts[0]:  # noqa: PLR2004
        raise PromptError("a prompt file starts with front matter between two lines of ---")
    try:
        head = yaml.safe_load(parts[1])
    except yaml.YAMLError as error:
        raise PromptError(f"the front matter is no YAML: {error}") from error
    if not isinstance(head, dict) or set(head) != _FIELDS:
        raise PromptError(f"the front matter must have the fields {sorted(_FIELDS)}")
    if not isinstance(head["version"], int) or not isinstance(head["variables"], list):
        raise PromptError("in the front matter, version must be a number and variables a list")
    pieces = _HEADING.split(parts[2])
    messages = tuple((role, body.strip()) for role, body in zip(pieces[1::2], pieces[2::2], strict=True))
    if pieces[0].strip():
        raise PromptError(f"prompt {head['name']}: there is text before the first heading")
    if not messages or messages[-1][0] != "user":
        raise PromptError(f"prompt {head['name']}: the last message must be the user's")
    try:
        used = set().union(*(meta.find_undeclared_variables(_JINJA.parse(body)) for _, body in messages))
    except TemplateSyntaxError as error:
        raise PromptError(f"prompt {head['name']}: {error}") from error
    declared = frozenset(head["variables"])
    if used != declared:
        raise PromptError(f"prompt {head['name']}: declares {sorted(declared)} but uses {sorted(used)}")
    return Prompt(head["name"], int(head["version"]), declared, head["output"], messages, sha256)  # type: ignore[arg-type]


@cache
def _template(text: str) -> Template:
    return _JINJA.from_string(text)  # most of the time that a prompt takes


@cache
def load(name: str, version: int) -> Prompt:
    """Load `prompts/<name>/v<version>.md` from the package.

    Raises:
        PromptError: There is no such file, or it is malformed.
    """
    file = resources.files("prompts") / name / f"v{version}.md"
    try:
        raw = file.read_bytes()
    except OSError as error:
        raise PromptError(f"there is no prompt {name} v{version}") from error
    prompt = parse(raw.decode("utf-8"), hashlib.sha256(raw).hexdigest())
    if (prompt.name, prompt.version) != (name, version):
        raise PromptError(f"{name}/v{version}.md calls itself {prompt.name} v{prompt.version}")
    return prompt
