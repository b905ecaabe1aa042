"""The switches of the cleaning rules, apart from the rules, whose patterns take long to compile."""

from medqa.config import Strict


class Rules(Strict):
    """Cleaning rules by name, each on or off; all are on where a YAML says nothing.

    Attributes:
        html_entities: ``&lt;`` becomes ``<``.
        html_tags: ``<br>`` and its like go.
        invisible: Control and zero-width characters go.
        half_width: ``０．５ｍｇ`` becomes ``0.5mg``.
        whitespace: Runs of blanks become one; empty lines go.
        han_punctuation: ``,`` beside Han characters becomes ``，``.
        repeated_punctuation: ``！！！`` becomes ``！``.
        section_labels: ``病情分析：`` and its like go, their content stays.
        greetings: ``您好，`` at the start goes.
        question_courtesies: ``谢谢医生`` at a question's end goes.
        closing_wishes: ``祝早日康复`` in an answer goes.
        stray_punctuation: Punctuation that begins a line goes.
        url_answer: Drop answers that are nothing but links.
        truncated_answer: Drop answers that break off.
        echo_answer: Drop answers that repeat the question.
        empty_form: Drop questions that are a form with nothing filled in.
        off_topic: Drop veterinary questions.
        advertisement: Drop answers that advertise.
    """

    html_entities: bool = True
    html_tags: bool = True
    invisible: bool = True
    half_width: bool = True
    whitespace: bool = True
    han_punctuation: bool = True
    repeated_punctuation: bool = True
    section_labels: bool = True
    greetings: bool = True
    question_courtesies: bool = True
    closing_wishes: bool = True
    stray_punctuation: bool = True
    url_answer: bool = True
    truncated_answer: bool = True
    echo_answer: bool = True
    empty_form: bool = True
    off_topic: bool = True
    advertisement: bool = True

    @property
    def on(self) -> tuple[str, ...]:
        """The names of the rules that are on; workers get these, who need no pydantic for them."""
        return tuple(name for name, on in self if on)
