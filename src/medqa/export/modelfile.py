"""The Modelfile, in which Ollama is told the chat format of ChatGLM3.

Written here and not taken from LLaMA-Factory, which fixes the context at 4096 tokens, lists the
stops in no fixed order and leaves out the system's words behind the first message and a tool's.
"""

TEMPLATE = (
    '[gMASK]sop{{ $last := "" }}'
    "{{ range .Messages }}{{ $last = .Role }}"
    '<|{{ if eq .Role "tool" }}observation{{ else }}{{ .Role }}{{ end }}|>\n'
    "{{ if .Content }} {{ .Content }}{{ end }}"
    "{{ end }}"
    '{{ if ne $last "assistant" }}<|assistant|>{{ end }}'
)
"""In Go's template language. What it writes for a chat is, character by character, what the
tokenizer's chat template writes with `add_generation_prompt`; for one that ends in the assistant's
words, which Ollama goes on with, what it writes with `continue_final_message`.

The space in front of a content is the one that SentencePiece puts before every text that the model
was trained on (``tokenization_chatglm.py`` of the original): ``"\\n"`` and the content are encoded
apart there, and here in one go.
"""

STOPS = ("</s>", "<|user|>", "<|observation|>")

_HEAD = """\
# ChatGLM3's chat format for Ollama, written by medqa. FROM must name a GGUF file: Ollama does not
# convert this architecture (GlmForCausalLM) itself; scripts/publish.py with gguf=f16 makes one.
"""


def modelfile(context: int) -> str:
    """Returns the text of a Modelfile that lies beside the weights.

    Args:
        context: The tokens that question and answer may have together.
    """
    stops = "".join(f'PARAMETER stop "{stop}"\n' for stop in STOPS)
    return f'{_HEAD}\nFROM .\n\nTEMPLATE """{TEMPLATE}"""\n\n{stops}PARAMETER num_ctx {context}\n'
