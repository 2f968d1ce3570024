"""Content: what a template becomes for one person, and the public pages."""

from dispatcher.content.pages import page_policy, render_page

__all__ = ["page_policy", "render_page"]
