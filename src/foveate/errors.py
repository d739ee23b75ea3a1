"""The one exception that means "the user can fix this": the command line prints it as one line and exits with 2."""


class FoveateError(ValueError):
    """Bad input. The message names what is wrong, with which value, and what to do instead."""
