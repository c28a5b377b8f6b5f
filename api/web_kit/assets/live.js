/* A live page: ask a cheap revision, fetch the page when it moved or a minute passed, put in what differs.
   What somebody uses is left alone: focus, selection, open details, what is typed. Without this
   script every page is whole and shows what it showed when it was loaded. */
"use strict";
(() => {
  const EVERY = 1200; // ms between two questions: a change shows within 2 s
  const PATIENCE = 10000; // ms until an answer that doesn't come is given up
  const SILENT = 40000; // ms without an answer until the page says so
  const page = document.body;

  /* The viewer's zone, for the times in brackets of the next page. */
  const zone = Intl.DateTimeFormat().resolvedOptions().timeZone;
  if (zone) document.cookie = `rollout-zone=${encodeURIComponent(zone)};path=/;max-age=31536000;samesite=lax`;

  /* "/" leads to the search, unless single keys are off or one types. */
  const search = document.getElementById("search");
  document.addEventListener("keydown", (event) => {
    if (event.key !== "/" || event.defaultPrevented || event.ctrlKey || event.altKey || event.metaKey) return;
    if (search === null || page.dataset.singleKeys !== "on") return;
    if (event.target.isContentEditable || event.target.matches("textarea, select, input:not([type=radio]):not([type=checkbox])")) return;
    event.preventDefault();
    const menu = search.closest("[popover]");
    if (!search.checkVisibility()) menu.showPopover();
    search.focus();
  });

  const problem = document.getElementById("problem");
  if (problem) problem.focus();

  if (!page.dataset.revision) return;
  const isAnswer = page.dataset.answer !== undefined; // to a form: its address gives another page
  let tag = `"${page.dataset.revision}"`;
  let heard = Date.now();
  let changes = 0;
  let out = false;

  const FIELD = "input, textarea, select";
  const isTyped = (field) => field.matches("select")
    ? [...field.options].some((option) => option.selected !== option.defaultSelected)
    : field.value !== field.defaultValue || field.checked !== field.defaultChecked;

  /* Whether somebody is in a part: replacing it would take away what they do. */
  const isUsed = (part) => {
    const chosen = getSelection();
    return part.contains(document.activeElement)
      || (chosen !== null && !chosen.isCollapsed && chosen.containsNode(part, true))
      || (part.nodeType === Node.ELEMENT_NODE
        && (part.querySelector("details[open]") !== null || [...part.querySelectorAll(FIELD)].some(isTyped)));
  };

  /* Make a part equal to that of the fresh page; return how many parts were left alone. */
  const merge = (part, next) => {
    if (part.isEqualNode(next)) return 0;
    const parts = [...part.childNodes];
    const nexts = [...next.childNodes];
    const isAlike = part.nodeType === Node.ELEMENT_NODE && part.nodeName === next.nodeName
      && parts.length === nexts.length && parts.every((child, n) => child.nodeName === nexts[n].nodeName);
    if (!isAlike) {
      if (isUsed(part)) return 1;
      part.replaceWith(next);
      return 0;
    }
    if (part.matches(FIELD)) return 0; // what is typed stays, and what a form is about
    for (const { name } of [...part.attributes]) {
      if (name !== "open" && !next.hasAttribute(name)) part.removeAttribute(name);
    }
    for (const { name, value } of next.attributes) {
      if (name !== "open" && part.getAttribute(name) !== value) part.setAttribute(name, value);
    }
    return parts.reduce((left, child, n) => left + merge(child, nexts[n]), 0);
  };

  /* A page on which one decides about a version of something stays at that version, and says so. */
  const isOther = (fresh) => {
    const now = fresh.getElementById("version");
    const then = document.getElementById("version");
    return now !== null && then !== null && now.dataset.of !== then.dataset.of;
  };

  const say = () => {
    const line = document.getElementById("changed");
    if (line === null) return;
    changes += 1;
    const link = document.createElement("a");
    link.href = location.href;
    link.textContent = "Show them";
    const many = changes === 1 ? "1 change" : `${changes} changes`;
    line.replaceChildren(`New since you opened this page: ${many}. `, link, " (what you typed is lost)");
    line.hidden = false;
  };

  const show = (fresh) => {
    const isNew = isOther(fresh);
    if (isNew) say();
    return (isNew || isAnswer ? [".bar"] : [".bar", "main"])
      .map((name) => [document.querySelector(name), fresh.querySelector(name)])
      .reduce((left, [part, next]) => left + (part && next ? merge(part, next) : 0), 0);
  };

  /* The session is over. A form that somebody has typed into stays, so that they can copy it. */
  const leave = () => {
    if (![...document.querySelectorAll(FIELD)].some(isTyped)) { location.reload(); return; }
    out = true;
    document.getElementById("silence")?.replaceChildren(
      "You are signed out. Copy what you typed, then sign in again.");
  };

  const ask = (address, headers) =>
    fetch(address, { headers, cache: "no-store", signal: AbortSignal.timeout(PATIENCE) });

  const look = async () => {
    const answer = await ask(page.dataset.revisionAt, { "If-None-Match": tag });
    if (answer.status === 401) { leave(); return; }
    if (!answer.ok && answer.status !== 304) throw new Error(String(answer.status));
    if (answer.status !== 304) {
      const whole = await ask(location.href, { "X-Live": "1" });
      const isWhole = whole.ok && !whole.redirected;
      if (!isWhole && !isAnswer) throw new Error(String(whole.status));
      const left = isWhole ? show(new DOMParser().parseFromString(await whole.text(), "text/html")) : 0;
      if (left === 0) tag = answer.headers.get("ETag") ?? tag; // else ask again until it can be put in
    }
    heard = Date.now();
    document.getElementById("silence")?.replaceChildren();
  };

  const rest = () => new Promise((done) => setTimeout(done, EVERY));
  const go = async () => {
    for (;;) {
      await rest();
      if (out) return;
      if (document.hidden) continue;
      try { await look(); } catch { /* the line below says it, once it lasts */ }
      const silence = document.getElementById("silence");
      if (Date.now() - heard > SILENT && silence && !silence.textContent) {
        silence.textContent = "This page has not heard from the service for 40 s; what it shows may be old.";
      }
    }
  };
  go();
})();
