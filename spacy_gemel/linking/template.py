"""The words of a prompt, to the letter (paper section 3.2)."""


def query_text(text: str, mention: str) -> str:
    """What the model is asked (paper section 3.2); it goes on with the name."""
    return f"[Text]{text}\n[Question]What does {mention} mentioned in the text refer to?\n[Answer]"


def demonstration_text(text: str, mention: str, name: str) -> str:
    """A question with its answer, as it stands before the query (paper section 3.2)."""
    return f"{query_text(text, mention)}{name}\n"
