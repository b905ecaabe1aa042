// What happens when somebody asks, looks back, or changes the language.

import { announce, say, speech, spoken, translate, written } from "./speech.js";
import { Failure, stream } from "./stream.js";
import { button, fill, make, turnView } from "./view.js";
import { lengthOf, load, messagesFor, save, textOf } from "./visit.js";

const $ = (id) => document.getElementById(id);
const FOLLOW = 80; // pixels from the end within which the page scrolls along with an answer

let facts = null; // page.json
let secret = ""; // the access key, in memory only
let conversations = load();
let conversation = conversations[conversations.length - 1] ?? begin();
let views = []; // one for each turn of the conversation
let running = null; // AbortController of the answers under way
let following = true;

// ---- what is on the page ----

/** Brings the page up to date, of the turns only the newest where only that one can have changed. */
function show({ newest = false } = {}) {
  for (const view of newest ? views.slice(-1) : views) view.show();
  const { turns } = conversation;
  document.body.classList.toggle("empty", !turns.length);
  document.body.classList.toggle("wide", turns.some((turn) => Object.keys(turn.answers).length > 1));
  const [shown, hidden] = running ? [$("stop"), $("send")] : [$("send"), $("stop")];
  const focused = document.activeElement === hidden;
  shown.hidden = false;
  hidden.hidden = true;
  if (focused) shown.focus();
  if (following && turns.length) {
    const { isUrgent, root } = views[views.length - 1];
    const end = document.documentElement.scrollHeight;
    // However long the answer, an emergency notice stays in sight.
    scrollTo(0, isUrgent() ? Math.min(end, root.offsetTop) : end);
  }
}

function addView(turn, fresh) {
  const isLast = () => conversation.turns[conversation.turns.length - 1] === turn;
  const view = turnView(turn, {
    fresh, isLast, again: () => answerAgain(turn), standing: $("disclaimer"),
  });
  views.push(view);
  $("turns").append(view.root);
}

function showConversation() {
  views = [];
  $("turns").replaceChildren();
  for (const turn of conversation.turns) addView(turn, false);
  following = true;
  show();
}

function speak() {
  translate();
  $("question").placeholder = spoken("placeholder");
  $("language").lang = speech.language === "zh" ? "en" : "zh-CN";
  if (facts) {
    fill($("disclaimer"), facts.disclaimer[speech.language]);
    showExamples();
  }
  for (const view of views) view.show();
  measure();
}

function showExamples() {
  const items = facts.examples[speech.language].map((question) => {
    const example = button(() => {
      ask(question);
      $("question").focus();
    }, question);
    return make("li", "", written(example, question));
  });
  $("examples").querySelector("ul").replaceChildren(...items);
  $("examples").hidden = false;
}

// ---- asking ----

function modelOf(side) {
  return facts.models.find((model) => model.side === side)?.id;
}

function chosenSides() {
  const served = ["base", "tuned"].filter(modelOf);
  const { value } = document.querySelector("input[name=side]:checked");
  return served.includes(value) ? [value] : served;
}

function ask(question) {
  if (running || !facts) return;
  const turn = { question, answers: {}, dropped: 0 };
  conversation.turns.push(turn);
  addView(turn, true);
  following = true;
  answer(turn, chosenSides());
}

/** Asks the failed sides of a turn again, or all of them where none failed. */
function answerAgain(turn) {
  if (running) return;
  const sides = Object.keys(turn.answers);
  const failed = sides.filter((side) => turn.answers[side].state === "failed");
  $("question").focus({ preventScroll: true });
  answer(turn, failed.length ? failed : sides);
}

async function answer(turn, sides) {
  const { turns } = conversation;
  running = new AbortController();
  const { signal } = running;
  for (const side of sides) turn.answers[side] = { model: modelOf(side), parts: [], state: "streaming" };
  announce(spoken("answering"));
  show();
  await Promise.all(sides.map((side) => answerOf(turns, side, signal)));
  save(conversations);
  if (signal.aborted) return;
  running = null;
  announce(sides.map((side) => heard(side, turn.answers[side], sides.length > 1)).join(" "));
  show();
}

function heard(side, answer, named) {
  const { state, failure } = answer;
  const end = state === "failed" ? spoken(failure.kind, [failure.seconds]) : spoken("answered");
  return [named ? spoken("answerOf", [side]) : "", textOf(answer, "answer"), end].join(" ");
}

async function answerOf(turns, side, signal) {
  const turn = turns[turns.length - 1];
  const answer = turn.answers[side];
  const onPiece = (part, text) => {
    const last = answer.parts[answer.parts.length - 1];
    if (last?.part === part) last.text += text;
    else answer.parts.push({ part, text });
    show({ newest: true });
  };
  let asked = turns;
  for (;;) {
    const { messages, dropped } = messagesFor(asked, side, facts);
    turn.dropped = turns.length - asked.length + dropped;
    try {
      answer.state = await stream({ model: answer.model, messages, key: secret, signal, onPiece });
    } catch (error) {
      if (!signal.aborted && error.kind === "long" && messages.length > 1) {
        // It fits in characters and not in tokens, which only the server can count.
        asked = asked.slice(dropped + Math.ceil((asked.length - dropped - 1) / 2));
        answer.parts = [];
        continue;
      }
      fail(answer, error, signal);
    }
    return show();
  }
}

function fail(answer, error, signal) {
  if (signal.aborted) {
    answer.state = "stopped";
    return;
  }
  const { kind, detail, seconds } = error instanceof Failure ? error : new Failure("broken", String(error));
  answer.state = "failed";
  answer.failure = { kind, detail, seconds };
  if (kind === "needsKey") {
    $("key").hidden = false;
    $("secret").focus();
  }
}

function stop() {
  if (!running) return;
  running.abort();
  running = null;
  announce(spoken("stopped"));
  show();
}

// ---- the question box ----

/** Fits the box to its text and says how long that is; false where it is too long. */
function measure() {
  const box = $("question");
  box.style.height = "auto";
  box.style.height = `${box.scrollHeight}px`;
  const most = facts?.max_prompt_characters ?? Infinity;
  const size = lengthOf(box.value);
  const over = size > most;
  $("count").textContent = size > 0.8 * most ? spoken(over ? "tooLong" : "count", [size, most]) : "";
  $("count").classList.toggle("failure", over);
  return !over;
}

function send() {
  const question = $("question").value.trim();
  if (question && !running && facts && measure()) {
    $("question").value = "";
    measure();
    ask(question);
  }
  $("question").focus();
}

// ---- this visit ----

function begin() {
  const fresh = { turns: [] };
  conversations.push(fresh);
  return fresh;
}

function open(chosen) {
  stop();
  conversation = chosen;
  $("visit").close();
  showConversation();
  $("question").focus();
}

function showVisit() {
  const kept = conversations.filter(({ turns }) => turns.length).reverse();
  const items = kept.map((chosen) => {
    const { question } = chosen.turns[0];
    const size = say(make("small"), "questions", chosen.turns.length);
    const entry = button(() => open(chosen), written(make("span", "", question), question), size);
    if (chosen === conversation) entry.setAttribute("aria-current", "true");
    return make("li", "", entry);
  });
  if (!items.length) items.push(say(make("li", "none"), "noneYet"));
  $("visit").querySelector("ol").replaceChildren(...items);
  $("clear").disabled = !kept.length;
  $("visit").showModal();
}

function clearVisit() {
  stop();
  conversations = [];
  open(begin());
  save(conversations);
}

// ---- what the tab remembers ----

function recall(name) {
  try {
    return sessionStorage.getItem(`medqa.${name}`);
  } catch {
    return null; // storage is switched off
  }
}

function remember(name, value) {
  try {
    sessionStorage.setItem(`medqa.${name}`, value);
  } catch {
    // Then the choice holds until the page is left.
  }
}

// ---- begin ----

$("composer").addEventListener("submit", (event) => {
  event.preventDefault();
  send();
});
$("question").addEventListener("input", measure);
$("question").addEventListener("keydown", (event) => {
  // 229 is a key that an input method is using: Enter then chooses a character.
  if (event.key !== "Enter" || event.shiftKey || event.isComposing || event.keyCode === 229) return;
  event.preventDefault();
  send();
});
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape" && !event.isComposing && !$("visit").open) stop();
});
document.addEventListener("scroll", () => {
  following = scrollY + innerHeight >= document.documentElement.scrollHeight - FOLLOW;
});
$("stop").addEventListener("click", () => {
  stop();
  $("question").focus();
});
$("key").addEventListener("submit", (event) => {
  event.preventDefault();
  secret = $("secret").value;
  $("key").hidden = true;
  $("question").focus();
  const last = conversation.turns[conversation.turns.length - 1];
  if (Object.values(last?.answers ?? {}).some(({ failure }) => failure?.kind === "needsKey")) {
    answerAgain(last);
  }
});
$("sides").addEventListener("change", (event) => remember("side", event.target.value));
$("language").addEventListener("click", () => {
  speech.language = speech.language === "zh" ? "en" : "zh";
  remember("language", speech.language);
  speak();
});
$("new").addEventListener("click", () => open(conversation.turns.length ? begin() : conversation));
$("earlier").addEventListener("click", showVisit);
$("clear").addEventListener("click", clearVisit);
addEventListener("pagehide", () => save(conversations));

speech.language = recall("language") ?? speech.language;
speak();
showConversation();
try {
  const response = await fetch("page.json");
  if (!response.ok) throw new Error(response.statusText);
  facts = await response.json();
  $("sides").hidden = facts.models.length < 2;
  const side = document.querySelector(`input[value="${recall("side") ?? "tuned"}"]`);
  if (side) side.checked = true;
  $("key").hidden = !facts.needs_key;
  speak();
} catch {
  say($("disclaimer"), "deaf").className = "failure";
}
