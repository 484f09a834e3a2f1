"""Exits: the codes with which commands end. 0 is that all is well."""

__all__ = ["EXIT_CONFIGURATION", "EXIT_FAILURE", "EXIT_FINDING", "EXIT_STORE"]

EXIT_FAILURE = 1

EXIT_CONFIGURATION = 2
"""The command line or the configuration is wrong; typer ends with it, too."""

EXIT_FINDING = 3
"""What was looked for was found, as for `costs --fail-on anomaly`."""

EXIT_STORE = 4
"""The store cannot be reached."""
