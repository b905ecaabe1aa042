// The language of the page: which it is, and how an element gets a word that stays right.
//
//   data-word    the element's text is this word of words.js
//   data-label   its aria-label is
//   data-given   what the word is about, as JSON

import { WORDS } from "./words.js";

const HAN = /\p{Script=Han}/u;

export const speech = { language: navigator.language.startsWith("zh") ? "zh" : "en" };

/** A word in the page's language; a `given` that is itself a word is said in it, too. */
export function spoken(word, given = []) {
  const text = WORDS[speech.language][word];
  return typeof text === "function" ? text(...given.map((g) => WORDS[speech.language][g] ?? g)) : text;
}

/** Makes a word the text of `element`. */
export function say(element, word, ...given) {
  element.dataset.word = word;
  element.dataset.given = JSON.stringify(given);
  element.textContent = spoken(word, given);
  return element;
}

/** Makes a word the name that screen readers give `element`. */
export function label(element, word, ...given) {
  element.dataset.label = word;
  element.dataset.given = JSON.stringify(given);
  element.setAttribute("aria-label", spoken(word, given));
  return element;
}

/** Says everything that is on the page in the language that it now has. */
export function translate() {
  document.documentElement.lang = speech.language === "zh" ? "zh-CN" : "en";
  document.title = spoken("title");
  for (const element of document.querySelectorAll("[data-word], [data-label]")) {
    const { word, label, given = "[]" } = element.dataset;
    if (word) element.textContent = spoken(word, JSON.parse(given));
    if (label) element.setAttribute("aria-label", spoken(label, JSON.parse(given)));
  }
}

/** Marks a text that is not the page's own with its language: glyphs and voices differ. */
export function written(element, text) {
  element.lang = HAN.test(text) ? "zh-CN" : "en";
  return element;
}

/** For screen readers, once an answer is whole: one that grows would be read out in shreds. */
export function announce(text) {
  document.getElementById("said").textContent = text;
}
