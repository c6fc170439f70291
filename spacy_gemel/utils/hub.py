"""The Hugging Face Hub: what it refuses, as one error that says what to do."""

from collections.abc import Iterator
from contextlib import contextmanager

from spacy_gemel.utils.messages import first_line, one_line

LOG_IN = "log in with `hf auth login`, or set HF_TOKEN"


@contextmanager
def hub_errors(repo: str) -> Iterator[None]:
    """Raise ValueError for whatever the Hub, or the way there, refuses of a repository in the block.

    Any other error, such as one of a full disk, is passed on.
    """
    from huggingface_hub import constants, errors, get_token

    try:
        yield
    except Exception as error:
        if getattr(error, "errno", None) is not None:
            raise
        cause = error if hasattr(error, "response") else error.__cause__ or error  # of what the cache lacks
        status = getattr(getattr(cause, "response", None), "status_code", None)
        if isinstance(error, errors.HFValidationError):
            problem = f"{first_line(error)} Give it as ORG/NAME"
        elif constants.HF_HUB_OFFLINE:
            problem = "HF_HUB_OFFLINE is set, and this machine's cache cannot stand in for the Hub: unset it"
        elif isinstance(cause, errors.RevisionNotFoundError):
            problem = "it has no such revision: give a branch, a tag or a commit of it"
        elif status in (401, 404) and get_token() is None:
            problem = f"there is no such repository, or it is private: correct the name, or {LOG_IN}"
        elif status == 401:
            problem = f"the Hub does not accept the token: {LOG_IN}"
        elif status == 403:
            problem = "your token has no right to this: ask its owner, or use a token with the right to write"
        elif status == 404:
            problem = "there is no such repository, or your token may not read it: correct the name"
        elif status is not None:
            problem = f"the Hub refuses it: {one_line(error)}"
        elif not isinstance(error, OSError) and not type(error).__module__.startswith("httpx"):
            raise
        else:
            problem = f"the Hub ({constants.ENDPOINT}) cannot be reached ({first_line(cause)}): try again"
        raise ValueError(f"{repo} on the Hugging Face Hub: {problem}") from error
