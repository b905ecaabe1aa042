"""The Modelfile, in which Ollama is told the chat format of ChatGLM3.

Written here and not taken from LLaMA-Factory, which fixes the context at 4096 tokens and lists the
stops in no fixed order; a test holds both to the same template.
"""

TEMPLATE = (
    "[gMASK]sop"
    "{{ if .System }}<|system|>\n {{ .System }}{{ end }}"
    "{{ range .Messages }}"
    '{{ if eq .Role "user" }}<|user|>\n {{ .Content }}<|assistant|>'
    '{{ else if eq .Role "assistant" }}\n {{ .Content }}{{ end }}'
    "{{ end }}"
)
"""In Go's template language; the space after a line break is the one SentencePiece puts in front
of every text that the model was trained on, see ``tokenization_chatglm.py`` of the original."""

STOPS = ("</s>", "<|user|>", "<|observation|>")


def modelfile(context: int) -> str:
    """Returns the text of a Modelfile that lies beside the weights.

    Args:
        context: The tokens that question and answer may have together.
    """
    stops = "".join(f'PARAMETER stop "{stop}"\n' for stop in STOPS)
    return (
        "# ChatGLM3's chat format, written by medqa. FROM may also name a GGUF file made of this "
        f'folder.\n\nFROM .\n\nTEMPLATE """{TEMPLATE}"""\n\n{stops}PARAMETER num_ctx {context}\n'
    )
