"""The one error that a program shows as a message; anything else keeps its traceback."""


class UserError(ValueError):
    """Something that the user can put right: says what was found, where, and what to do about it.

    `what` names the file, record or config field and what is wrong with it; `advice` says what to do.
    """

    def __init__(self, what: str, advice: str):
        super().__init__(what, advice)  # both, so that the error can be pickled by a worker process
        self.what = what
        self.advice = advice

    def __str__(self) -> str:
        return f"{self.what}: {self.advice}"


class NotFoundError(UserError, FileNotFoundError):
    """A file or folder that the user named does not exist."""
