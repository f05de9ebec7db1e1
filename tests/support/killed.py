"""The end of a process, as an exception."""


class Killed(BaseException):
    """The process would die here; nothing may catch it."""
