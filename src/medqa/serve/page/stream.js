// One answer of the server, piece by piece: POST /v1/chat/completions with server-sent events.

const OF_CODE = {
  context_length_exceeded: "long",
  loading: "loading",
  shutting_down: "closing",
  timeout: "late",
};
const OF_STATUS = {
  401: "needsKey", 403: "needsKey", 404: "missing", 413: "long", 429: "waits", 503: "waits", 504: "late",
};

/**
 * Why there is no answer, or not all of it.
 *
 * `kind` is one of the words of words.js, `detail` what the server said (in English), `seconds`
 * after how many to ask again.
 */
export class Failure extends Error {
  constructor(kind, detail = "", seconds = null) {
    super(kind);
    Object.assign(this, { kind, detail, seconds });
  }
}

/**
 * Asks, and calls `onPiece(part, text)` as the answer comes.
 *
 * Resolves to the finish reason; rejects with a Failure, or with the abort that `signal` brought.
 */
export async function stream({ model, messages, key, signal, onPiece }) {
  const headers = { "Content-Type": "application/json" };
  if (key) headers.Authorization = `Bearer ${key}`;
  const body = JSON.stringify({ model, messages, stream: true });
  let response;
  try {
    response = await fetch("v1/chat/completions", { method: "POST", headers, body, signal });
  } catch (error) {
    throw signal.aborted ? error : new Failure("unreachable");
  }
  if (!response.ok) throw await refusal(response, onPiece);
  let reason = null;
  try {
    for await (const data of events(response.body)) {
      if (data === "[DONE]") break;
      const chunk = JSON.parse(data);
      if (chunk.error) throw failure(200, chunk.error);
      const choice = chunk.choices[0];
      if (!choice) continue; // the closing count of tokens
      if (choice.delta.content) onPiece(chunk.medqa?.part ?? "answer", choice.delta.content);
      reason = choice.finish_reason ?? reason;
    }
  } catch (error) {
    throw signal.aborted || error instanceof Failure ? error : new Failure("lost");
  }
  if (!reason) throw new Failure("lost"); // ended well for HTTP, but not for the answer
  return reason;
}

/** The data of each event of `body`; comments that keep the connection alive are left out. */
async function* events(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  try {
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      const whole = (rest + value).split(/\r?\n\r?\n/);
      rest = whole.pop();
      for (const event of whole) {
        const lines = event.split(/\r?\n/).filter((line) => line.startsWith("data:"));
        if (lines.length) yield lines.map((line) => line.slice(5).trimStart()).join("\n");
      }
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}

async function refusal(response, onPiece) {
  let body = {};
  try {
    body = await response.json();
  } catch {
    // A proxy's own page, for example; the status says enough.
  }
  // An emergency notice comes even where there is no answer.
  for (const { part, text } of body.medqa?.parts ?? []) onPiece(part, text);
  const after = Number.parseInt(response.headers.get("Retry-After"), 10);
  return failure(response.status, body.error ?? {}, after);
}

function failure(status, { code, message = "" }, after = 0) {
  let kind = OF_CODE[code] ?? OF_STATUS[status] ?? (status >= 400 && status < 500 ? "refused" : "broken");
  if (kind === "waits" && after > 0) kind = "busy";
  return new Failure(kind, kind === "refused" || kind === "broken" ? message : "", after);
}
