// The conversations of this visit. They live in the tab's sessionStorage and go nowhere else.
//
//   conversation  {id, turns: [turn, ...]}
//   turn          {question, answers: {side: answer}}     side: "base" or "tuned"
//   answer        {model, parts: [{part, text}, ...], state, failure}
//                 state: "streaming", "stop", "length", "stopped" or "failed"

const STORE = "medqa.conversations";

/** What an earlier load of this tab left; an answer that was under way then was cut off. */
export function load() {
  let conversations = [];
  try {
    conversations = JSON.parse(sessionStorage.getItem(STORE)) ?? [];
  } catch {
    // No storage, or not ours: begin anew.
  }
  for (const { turns } of conversations) {
    for (const { answers } of turns) {
      for (const answer of Object.values(answers)) {
        if (answer.state !== "streaming") continue;
        Object.assign(answer, { state: "failed", failure: { kind: "lost" } });
      }
    }
  }
  return conversations;
}

/** Keeps what has at least one question; where the tab's storage is full, the newest of it. */
export function save(conversations) {
  let kept = conversations.filter(({ turns }) => turns.length);
  for (;;) {
    try {
      sessionStorage.setItem(STORE, JSON.stringify(kept));
      return;
    } catch {
      if (!kept.length) return; // storage is switched off: the page works without
      kept = kept.slice(1);
    }
  }
}

/** The whole text as the server sent it, or only its `part`. */
export function textOf(answer, part) {
  const chosen = answer.parts.filter((piece) => !part || piece.part === part);
  return chosen.map((piece) => piece.text).join("").trim();
}

/** The length as Python counts it: code points, not UTF-16 units. */
export const lengthOf = (text) => [...text].length;

/**
 * What `side` gets to read for the last of `turns`: the messages, and how many of the oldest
 * questions were left out because the server would not take so much.
 */
export function messagesFor(turns, side, { max_messages, max_prompt_characters }) {
  const asked = turns.slice(0, -1).map((turn) => exchange(turn, side));
  const last = [{ role: "user", content: turns[turns.length - 1].question }];
  const fits = (messages) =>
    messages.length <= max_messages &&
    messages.reduce((sum, { content }) => sum + lengthOf(content), 0) <= max_prompt_characters;
  let dropped = 0;
  while (dropped < asked.length && !fits([...asked.slice(dropped).flat(), ...last])) dropped += 1;
  return { messages: [...asked.slice(dropped).flat(), ...last], dropped };
}

/** An earlier question and its answer; a question that got none is still part of what was said. */
function exchange({ question, answers }, side) {
  // A side that was not asked then takes the answer that stood there instead.
  const told = [answers[side], ...Object.values(answers)]
    .map((answer) => answer && textOf(answer, "answer"))
    .find((text) => text);
  const messages = [{ role: "user", content: question }];
  if (told) messages.push({ role: "assistant", content: told });
  return messages;
}
