"""Content: what a template becomes for one person, and the public pages.

* `folder`     reads a template from disk; `check` says what is wrong with it before anybody gets it
* `template`   compiles it once and renders it; `context` says what it may use, `sandbox` what it may cost
* `plaintext`  makes the text part of a mail from its HTML
* `sms`        the parts of a text message
* `pages`      the pages behind the links in messages
"""

from dispatcher.content.check import Finding, check_template
from dispatcher.content.context import OWN_DATA, message_context, one_line
from dispatcher.content.folder import meta_of, read_template_folder, template_hash
from dispatcher.content.locales import closest_locale, normal_locale
from dispatcher.content.pages import page_policy, render_evidence, render_page
from dispatcher.content.plaintext import readable_source
from dispatcher.content.sandbox import RenderFailed, TemplateInvalid
from dispatcher.content.sms import sms_segments
from dispatcher.content.template import Content, Template

__all__ = [
    "OWN_DATA",
    "Content",
    "Finding",
    "RenderFailed",
    "Template",
    "TemplateInvalid",
    "check_template",
    "closest_locale",
    "message_context",
    "meta_of",
    "normal_locale",
    "one_line",
    "page_policy",
    "read_template_folder",
    "readable_source",
    "render_evidence",
    "render_page",
    "sms_segments",
    "template_hash",
]
