"""What a finding tells an author: which template, which language, what to do; and one finding for one mistake."""

from __future__ import annotations

from dispatcher.content import check_template
from dispatcher.content.folder import MAX_FILE_BYTES
from dispatcher.content.sources import sources_of
from dispatcher.definitions import Topic

TOPICS = {"offers": Topic(title={"en": "Offers"})}
WORDS = """en:
  subject: Tea
  title: Tea & cake
de:
  subject: Tee
  title: Tee & Kuchen
"""
FILES = {
    "meta.yaml": "class: marketing\ntopic: offers\n",
    "subject.txt": "{{ words.subject }}\n",
    "body.html": "<h1>{{ words.title }}</h1>\n",
    "words.yaml": WORDS,
    "../layout.html": """<html lang="{{ locale }}"><body>
{{ body }}
<a href="{{ unsubscribe_url }}">Unsubscribe</a> {{ shop.postal_address }}
</body></html>
""",
}


def findings(**changed: str) -> list[str]:
    files = FILES | {
        {"layout": "../layout.html"}.get(name, name.replace("__", ".")): text for name, text in changed.items()
    }
    return [str(each).removeprefix("templates/email/") for each in check_template("email", "tea", files, TOPICS)]


def test_a_word_that_the_layout_wants_says_which_template_lacks_it() -> None:
    layout = FILES["../layout.html"] + "{{ words.hero }}{{ words.titel }}"

    assert findings(layout=layout) == [
        "layout.html:5: words.hero is neither in tea/words.yaml nor in the words.yaml of all; add it to one",
        "layout.html:5: words.titel is neither in tea/words.yaml nor in the words.yaml of all; did you mean title?",
    ]


def test_a_word_within_a_word_is_said_to_be_none() -> None:
    assert findings(words__yaml=WORDS.replace("Tee & Kuchen", '"{{ words.subject }} & Kuchen"')) == [
        "tea/words.yaml:6: a word holds no other word; write out what words.subject says"
    ]


def test_what_one_language_breaks_is_said_of_that_language() -> None:
    assert findings(words__yaml=WORDS.replace("Tee & Kuchen", '"Tee <!--"')) == [
        "tea/body.html:1: in de: has no postal address; write {{ shop.postal_address }}",
        "tea/body.html:1: in de: has no unsubscribe link that can be seen; "
        'write <a href="{{ unsubscribe_url }}">Unsubscribe</a>',
    ]


def test_a_language_that_is_none_is_said_once_and_no_file_is_made_up_for_it() -> None:
    assert findings(words__yaml=WORDS.replace("de:", "german:")) == [
        "tea/words.yaml:4: 'german' is not how a language is written; write it like pt-BR or ro"
    ]


def test_a_word_that_is_no_text_is_not_called_missing_as_well() -> None:
    assert findings(words__yaml=WORDS.replace("subject: Tee", "subject: 5")) == [
        "tea/words.yaml:5: subject is not a text; put it in quotes"
    ]


def test_words_that_grow_a_file_beyond_its_limit_are_not_put_in() -> None:
    """Five thousand times a word of 20,000 letters is 100 MB, before any limit of a rendered text is asked."""
    files = FILES | {"body.html": "{{ words.long }}\n" * 5_000, "words.yaml": f"{WORDS}long: {'x' * 20_000}\n"}

    assert max(len(source.text) for source in sources_of(files).values()) < MAX_FILE_BYTES
    assert findings(body__html=files["body.html"], words__yaml=files["words.yaml"])[0] == (
        "tea/body.html:1: is larger than 200,000 bytes with its words put in"
    )


def test_there_are_not_more_languages_than_anybody_writes_in() -> None:
    many = "".join(
        f"{first}{second}z: {{subject: Tea, title: Tea}}\n" for first in "abcde" for second in "abcdefghijklmnopqrstu"
    )

    assert "tea/words.yaml:1: has 105 languages; at most 100 are allowed" in findings(words__yaml=many)
