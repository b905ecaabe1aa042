// A question with its answers on the page.
//
// Text from people and models is only ever set as text; the server's policy (Trusted Types) makes
// the browser refuse anything else.

import { announce, label, say, spoken, written } from "./speech.js";
import { textOf } from "./visit.js";

const COPIED = 2000; // milliseconds for which the button says so

export function make(tag, name = "", ...children) {
  const element = document.createElement(tag);
  if (name) element.className = name;
  element.append(...children);
  return element;
}

export function button(act, ...children) {
  const element = make("button", "", ...children);
  element.type = "button";
  element.addEventListener("click", act);
  return element;
}

/** Sets the text of a notice, with every 120 as a telephone link. */
export function fill(element, text) {
  if (element.textContent === text) return;
  element.replaceChildren();
  for (const piece of text.split(/(\b120\b)/)) {
    element.append(piece === "120" ? telephone(document.createTextNode(piece)) : piece);
  }
  written(element, text);
}

function telephone(content, name) {
  const link = make("a", name, content);
  link.href = "tel:120";
  return link;
}

/**
 * The view of a turn: `root`, and `show()`, which brings it up to date.
 *
 * `again()` is called when the answer is asked for once more; only the last turn offers it. The
 * guard's notices stand once, whichever side brought them, and the disclaimer not where it is the
 * `standing` one. What is `fresh` is read out.
 */
export function turnView(turn, { fresh, isLast, again, standing }) {
  const warning = make("p");
  const call = say(telephone("", "call"), "call");
  const words = make("div", "", say(make("strong"), "emergency"), warning);
  const emergency = make("div", "emergency", words, call);
  const answers = make("div", "answers");
  const notes = { dose: make("p", "dose"), disclaimer: make("p", "disclaimer") };
  const dropped = make("p");
  const retry = button(again);
  const actions = make("div", "actions", retry);
  const question = written(make("h2", "question", turn.question), turn.question);
  const below = make("div", "notes", notes.dose, notes.disclaimer, dropped);
  const root = make("article", "turn", question, emergency, answers, below, actions);
  const shown = {};
  emergency.hidden = true;

  function notice(part) {
    const texts = Object.values(turn.answers).map((answer) => textOf(answer, part));
    return texts.sort((a, b) => b.length - a.length)[0] ?? "";
  }

  function show() {
    for (const side of ["base", "tuned"]) {
      const answer = turn.answers[side];
      if (answer && shown[side]?.answer !== answer) {
        const view = answerView(side, answer);
        shown[side]?.root.remove();
        answers[side === "base" ? "prepend" : "append"](view.root);
        shown[side] = { ...view, answer };
      }
      shown[side]?.show();
    }
    const all = Object.values(turn.answers);
    root.classList.toggle("two", all.length > 1);
    const urgent = notice("emergency");
    if (urgent && emergency.hidden) {
      if (fresh) emergency.setAttribute("role", "alert"); // before its text, or nobody hears it
      emergency.hidden = false;
    }
    fill(warning, urgent);
    for (const [part, element] of Object.entries(notes)) fill(element, notice(part));
    // What stands below the question box at all times is not said twice.
    notes.disclaimer.hidden = notes.disclaimer.textContent === standing.textContent;
    if (turn.dropped) say(dropped, "dropped", turn.dropped);
    const failed = all.some((answer) => answer.state === "failed");
    say(retry, failed ? "retry" : "again").className = failed ? "retry" : "";
    retry.disabled = all.some((answer) => answer.state === "streaming");
    actions.hidden = !isLast();
  }
  return { root, show, isUrgent: () => !emergency.hidden };
}

/** One side's answer: who, the text, what went wrong, copy. */
function answerView(side, answer) {
  const text = document.createTextNode("");
  const body = make("div", "text", text);
  const note = make("p");
  const copy = say(button(() => copyAnswer(answer, copy)), "copy");
  const actions = make("div", "actions", copy);
  const heading = make("h3", "", say(make("span"), side), " ", make("code", "", answer.model));
  const root = label(make("section", `answer ${side}`, heading, body, note, actions), "answerOf", side);
  let state = null;

  function show() {
    const so = textOf(answer, "answer");
    if (so.startsWith(text.data)) text.appendData(so.slice(text.length));
    else text.data = so;
    if (so && body.lang !== "zh-CN") written(body, so); // its first words may be a Latin name
    body.setAttribute("aria-busy", answer.state === "streaming");
    body.hidden = !so;
    const now = answer.state === "streaming" && !so ? "waiting" : answer.state;
    if (now === state) return;
    state = now;
    root.dataset.state = state;
    copy.disabled = answer.state === "streaming";
    actions.hidden = state === "failed" && !answer.parts.length;
    note.className = state === "failed" ? "note failure" : "note";
    note.replaceChildren(...remarks(answer, state));
  }
  return { root, show };
}

/** What is to be said about an answer beside its text. */
function remarks(answer, state) {
  if (state === "failed") {
    const { kind, detail, seconds } = answer.failure;
    const reason = say(make("span"), kind, seconds);
    return detail ? [reason, written(make("small", "", detail), detail)] : [reason];
  }
  if (state === "stop") return textOf(answer, "answer") ? [] : [say(make("span"), "nothing")];
  return state === "streaming" ? [] : [say(make("span"), state)]; // waiting, stopped, length
}

async function copyAnswer(answer, where) {
  // All of it: who passes an answer on passes on its warnings.
  const text = textOf(answer);
  let done = false;
  try {
    await navigator.clipboard.writeText(text);
    done = true;
  } catch {
    // Browsers offer the clipboard only to https and to this machine itself.
    const field = make("textarea", "unseen");
    field.value = text;
    document.body.append(field);
    field.select();
    done = document.execCommand("copy");
    field.remove();
    where.focus();
  }
  say(where, done ? "copied" : "notCopied");
  announce(spoken(done ? "copied" : "notCopied"));
  setTimeout(() => say(where, "copy"), COPIED);
}
