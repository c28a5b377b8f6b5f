/* The live parts of a page: ask a cheap revision, fetch the page when it moved, put in what changed.
   A region that somebody is in is left alone: focus, selection, open details, a form. Without this
   script every page is whole and shows what it showed when it was loaded. */
"use strict";
(() => {
  const EVERY = 1200; // ms between two questions: a change shows within 2 s
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
  let tag = `"${page.dataset.revision}"`;
  let heard = Date.now();
  let changes = 0;
  let out = false;

  const held = (region) => {
    const chosen = getSelection();
    return region.contains(document.activeElement)
      || region.querySelector("form, details[open]") !== null
      || (chosen !== null && !chosen.isCollapsed && chosen.containsNode(region, true));
  };

  const put = (fresh) => {
    let left = 0;
    for (const region of document.querySelectorAll("[data-live]")) {
      const next = fresh.querySelector(`[data-live="${CSS.escape(region.dataset.live)}"]`);
      if (next === null || next.innerHTML === region.innerHTML) continue;
      if (held(region)) { left += 1; continue; }
      region.replaceChildren(...next.childNodes);
    }
    return left;
  };

  const say = (fresh) => {
    const line = document.getElementById("changed");
    const now = fresh.getElementById("version");
    const then = document.getElementById("version");
    if (line === null || (now && then && now.dataset.of === then.dataset.of)) return;
    changes += 1;
    const link = document.createElement("a");
    link.href = location.href;
    link.textContent = "Show them";
    const many = changes === 1 ? "1 change" : `${changes} changes`;
    line.replaceChildren(`New since you opened this page: ${many}. `, link, " (what you typed is lost)");
    line.hidden = false;
  };

  /* The session is over. A form that somebody has typed into stays, so that they can copy it. */
  const leave = () => {
    const typed = [...document.querySelectorAll("textarea, input, select")].some((part) =>
      part.matches("select")
        ? [...part.options].some((option) => option.selected !== option.defaultSelected)
        : part.value !== part.defaultValue || part.checked !== part.defaultChecked);
    if (!typed) { location.reload(); return; }
    out = true;
    document.getElementById("silence")?.replaceChildren(
      "You are signed out. Copy what you typed, then sign in again.");
  };

  const look = async () => {
    const answer = await fetch(page.dataset.revisionAt, { headers: { "If-None-Match": tag }, cache: "no-store" });
    if (answer.status === 401) { leave(); return; }
    if (!answer.ok && answer.status !== 304) throw new Error(String(answer.status));
    heard = Date.now();
    document.getElementById("silence")?.replaceChildren();
    if (answer.status === 304) return;
    const whole = await fetch(location.href, { headers: { "X-Live": "1" }, cache: "no-store" });
    if (!whole.ok || whole.redirected) return;
    const fresh = new DOMParser().parseFromString(await whole.text(), "text/html");
    const left = put(fresh);
    say(fresh);
    if (left === 0) tag = answer.headers.get("ETag") ?? tag; // else ask again until it can be put in
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
