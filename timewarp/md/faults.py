"""What a chemist's file can have wrong with it."""


class InputError(ValueError):
    """Input that cannot be sampled. The message is one line: what was expected, what was found, what to do."""

    def __init__(self, message: str):
        super().__init__(" ".join(str(message).split()))
