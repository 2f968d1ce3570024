"""The HTTP room: the public links, the shop's API, health, and the sandbox's page.

`python -m dispatcher.web` runs it.
"""

from dispatcher.web.app import create_app

__all__ = ["create_app"]
