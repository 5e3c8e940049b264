"""The error for everything that is wrong with what a user gave, not with the program."""


class InputError(ValueError):
    """Something given by the user cannot be used; the message is one line with file and fix."""
