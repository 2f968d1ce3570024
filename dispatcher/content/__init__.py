"""Content: what a template becomes for one person, and the public pages.

* `folder`     reads a template from disk; `check` says what is wrong with it before anybody gets it
* `template`   compiles it once and renders it; `context` says what it may use, `sandbox` what it may cost
* `plaintext`  makes the text part of a mail from its HTML
* `pages`      the pages behind the links in messages
"""

from dispatcher.content.context import message_context, one_line
from dispatcher.content.folder import meta_of, read_template_folder, template_hash
from dispatcher.content.locales import closest_locale, normal_locale
from dispatcher.content.pages import page_policy, render_page
from dispatcher.content.sandbox import RenderFailed, TemplateInvalid
from dispatcher.content.template import Content, Template, template_for

__all__ = [
    "Content",
    "RenderFailed",
    "Template",
    "TemplateInvalid",
    "closest_locale",
    "message_context",
    "meta_of",
    "normal_locale",
    "one_line",
    "page_policy",
    "read_template_folder",
    "render_page",
    "template_for",
    "template_hash",
]
