"""A page of Gradio's with two buttons, served as LlamaBoard is: PORT ROOT_PATH [--as-it-is]."""

import signal
import sys

import gradio
from starlette.middleware import Middleware

from medqa.train.event_stream import EndedByBothSides

if __name__ == "__main__":
    port, root_path, *as_it_is = sys.argv[1:]
    with gradio.Blocks() as page:
        said = gradio.Textbox(label="said")
        for word in ("one", "two"):
            gradio.Button(word).click(lambda word=word: word, outputs=said)
    page.queue().launch(
        server_name="127.0.0.1",
        server_port=int(port),
        root_path=root_path,
        prevent_thread_lock=True,
        app_kwargs={"middleware": [] if as_it_is else [Middleware(EndedByBothSides)]},
    )
    signal.sigwait({signal.SIGTERM})
