"""What can go wrong with the service as a whole, in words for the person at the terminal."""


class ServiceError(Exception):
    """One clear line: what, where, what to do. Shown on stderr with exit code 1."""
