/* Single keys of the review page: a letter presses what carries it. Without this script the same
   letters are access keys. A key counts alone and never from a text field; one that answers only
   once the case has been on the screen for a moment, and once a case. */
"use strict";
(() => {
  const SEEN = 300; // ms: who is faster has not looked
  const keys = document.getElementById("keys");
  if (keys === null) return;
  let since = performance.now();
  let sent = false;

  const begin = () => { since = performance.now(); sent = false; };
  addEventListener("pageshow", begin);
  document.addEventListener("submit", (event) => { if (event.target.id === "decision") sent = true; });

  const types = (part) => part instanceof Element
    && (part.isContentEditable || part.matches("textarea, select, input:not([type=radio]):not([type=checkbox]):not([type=hidden])"));

  const press = (part) => {
    if (part instanceof HTMLInputElement) {
      part.checked = part.type === "radio" || !part.checked;
      part.focus();
    } else if (part.localName === "summary") {
      const held = part.parentElement;
      held.open = !held.open;
      const field = held.querySelector("textarea");
      if (held.open && field !== null) field.focus(); else part.focus();
    } else {
      part.click();
    }
  };

  /* A key of the picture's tools goes one step on or back. */
  const step = (key) => {
    for (const tool of document.querySelectorAll("[data-more]")) {
      const way = Number(tool.dataset.more.includes(key)) - Number(tool.dataset.less.includes(key));
      if (way === 0) continue;
      const steps = Array.from(tool.querySelectorAll("input"));
      const next = steps[steps.findIndex((one) => one.checked) + way];
      if (next !== undefined) next.checked = true;
      return true;
    }
    return false;
  };

  document.addEventListener("keydown", (event) => {
    if (event.defaultPrevented || event.ctrlKey || event.altKey || event.metaKey || event.isComposing) return;
    if (types(event.target)) {
      if (event.key === "Escape") event.target.blur();
      return;
    }
    if (keys.dataset.singleKeys !== "on" || event.repeat || sent) return;
    if (event.key === " " || event.key === "Enter") return;
    const wanted = event.key.toLowerCase();
    if (step(wanted)) { event.preventDefault(); return; }
    const part = Array.from(document.querySelectorAll("[data-key]")).find((one) => one.dataset.key === wanted);
    if (part === undefined) return;
    event.preventDefault();
    const answers = part.closest("#decision") !== null;
    if (!answers || performance.now() - since >= SEEN) press(part);
  });
})();
