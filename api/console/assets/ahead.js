/* Cases held ahead: after an answer the next case appears at once, and the answer is sent meanwhile.
   One answer is on its way at a time. One that is refused or not sent comes back in front, with why.
   Where no case is held, and without this script, the form leads to the next page as any other. */
"use strict";
(() => {
  const PATIENCE = 20000; // ms until an answer counts as not sent
  const SIGNED_OUT = 401;
  const OTHER_SESSION = 403;
  const SEEN = 300; // ms: the second click of two is for the case before
  const by = (id) => document.getElementById(id);
  const keys = by("keys");
  const first = by("decision");
  if (keys === null || first === null || !keys.dataset.ahead) return;

  const number = (form) => Number(form.getAttribute("action").split("/").pop());
  const opened = Date.parse(first.elements.began.value) - performance.now(); // the service's clock
  let current = { review: number(first), place: by("review-place"), shown: by("review-case"), note: "" };
  let ahead = []; // cases that come next
  let unsent = []; // answers on their way, in order
  const returned = new Set(); // cases whose answer came back
  let busy = false;
  let plain = false; // whether forms are sent as on any page
  let shownAt = -Infinity;
  let resume = null; // what the user wanted while an answer was on its way

  const say = (text) => { by("review-saved").textContent = text; };

  const read = (html) => { // once its nodes are of this document, pictures begin to load
    const parts = document.createDocumentFragment();
    parts.append(...new DOMParser().parseFromString(html, "text/html").body.childNodes);
    return parts;
  };

  const refuse = (text, item, isKnown) => {
    const line = document.createElement("p");
    line.className = "notice notice-warn judge-line";
    const label = item.label ? ` “${item.label}”` : "";
    line.append(`${isKnown ? `Your answer${label} is not stored.` : `It is not known whether your answer${label} is stored.`} ${text} `);
    const pass = document.createElement("button");
    pass.type = "button";
    pass.className = "as-link";
    pass.textContent = "Continue without it";
    pass.addEventListener("click", () => {
      returned.delete(current);
      by("review-refused").replaceChildren();
      if (ahead.length > 0) show(ahead.shift()); else location.reload();
    });
    line.append(pass);
    by("review-refused").replaceChildren(line);
  };

  const show = (next) => {
    by("review-place").replaceWith(next.place);
    by("review-case").replaceWith(next.shown);
    current = next;
    shownAt = performance.now();
    const began = by("decision").elements.began;
    if (!next.appeared) began.value = new Date(opened + performance.now()).toISOString();
    next.appeared = true;
    by("note").value = next.note;
    by("note").closest("details").open = next.note !== "";
    scrollTo(0, 0);
    document.body.tabIndex = -1; // the tab key begins anew, as on a new page
    document.body.focus();
    document.dispatchEvent(new Event("review:shown"));
  };

  document.addEventListener("click", (event) => {
    if (event.isTrusted && performance.now() - shownAt < SEEN && event.target.closest("#decision") !== null) event.preventDefault();
  }, true);

  const put = (html) => {
    for (const part of read(html).querySelectorAll("[id^=review-]")) by(part.id)?.replaceWith(part);
  };

  const take = (found, shown) => {
    put(found.around);
    const held = new Map(found.held.map((one) => [one.review, one.html]));
    const known = new Set([current, ...ahead, ...unsent.map((item) => item.entry)].map((one) => one.review));
    ahead = ahead.filter((one) => held.has(one.review) || one.review === shown || returned.has(one));
    for (const [review, html] of held) {
      if (known.has(review)) continue;
      const made = read(html);
      const entry = { review, place: made.querySelector("#review-place"), shown: made.querySelector("#review-case"), note: "" };
      ahead.push(entry);
      for (const picture of entry.shown.querySelectorAll("img")) {
        picture.decode().catch(() => { entry.broken = true; }); // blocked or gone: its own page says so
      }
    }
    const isTyped = Array.from(by("decision").querySelectorAll("input:not([type=hidden])")).some((field) => field.checked !== field.defaultChecked || field.value !== field.defaultValue);
    const untouched = !isTyped && unsent.length === 0 && returned.size === 0 && by("note").value === "" && resume === null;
    if (found.reload && untouched) location.replace(`${location.pathname}?after=${found.reload}`);
  };

  /* Bring cases back in front of the one on the page. */
  const bring = (items, text, isKnown) => {
    current.note = by("note").value;
    ahead = [...items.map((item) => item.entry), current, ...ahead];
    for (const item of items) returned.add(item.entry);
    resume = null;
    show(ahead.shift());
    refuse(text, items[0], isKnown);
    say("");
  };

  const ask = async (item) => {
    const body = item === undefined ? new FormData() : item.body;
    if (item === undefined) for (const field of first.querySelectorAll("input[type=hidden]")) body.set(field.name, field.value);
    else body.set("answered", item.entry.review);
    const shown = current.review;
    body.set("shown", shown);
    body.set("terms", keys.dataset.terms);
    body.delete("held");
    for (const one of ahead) body.append("held", one.review);
    const answer = await fetch(keys.dataset.ahead, {
      method: "POST", body: new URLSearchParams(body), redirect: "manual", signal: AbortSignal.timeout(PATIENCE),
    });
    const found = answer.status === 200 || answer.status === 409 ? await answer.json() : null;
    return { status: answer.type === "opaqueredirect" ? SIGNED_OUT : answer.status, found, shown };
  };

  const send = async () => {
    if (busy || unsent.length === 0) return;
    busy = true;
    say("Sending…");
    const item = unsent[0];
    let status = 0;
    try {
      const answer = await ask(item);
      status = answer.status;
      if (answer.found !== null) {
        unsent.shift();
        returned.delete(item.entry);
        if (answer.found.refused) bring([item], answer.found.refused, true); else say("Saved");
        take(answer.found, answer.shown);
      }
    } catch {
      status = 0; // no network, or no answer in time
    }
    busy = false;
    if (unsent[0] === item) {
      const items = unsent;
      unsent = [];
      const more = items.length > 1 ? ` ${items.length} answers were not sent; their cases come again.` : "";
      bring(items, `${status === 0 ? "The service could not be reached." : `The service failed (${status}).`} Answer again.${more}`, status >= 400 && status < 500);
      if (status === SIGNED_OUT || status === OTHER_SESSION) { // as a page, so that the sign-in keeps what was typed
        returned.delete(item.entry);
        plain = true;
        item.form.requestSubmit(item.submitter);
      }
      return;
    }
    if (unsent.length > 0) { send(); return; }
    const then = resume;
    resume = null;
    if (then !== null) then();
  };

  const hasAnswer = (body) => Array.from(body).some(([name, value]) => name === "unsure" || (name.startsWith("lever.") && value.trim() !== ""));

  document.addEventListener("submit", (event) => {
    const form = event.target;
    if (form.method === "dialog" || plain) return;
    if (form.id !== "decision" || ahead.length === 0 || ahead[0].broken) {
      if (unsent.length > 0) { // the answer on its way comes first
        event.preventDefault();
        resume = () => form.requestSubmit(event.submitter);
      } else if (form.id === "decision") {
        returned.delete(current);
      }
      return;
    }
    const body = new FormData(form, event.submitter);
    if (!hasAnswer(body)) return; // the page of the form says what is missing
    event.preventDefault();
    current.note = by("note").value;
    returned.delete(current);
    unsent.push({ entry: current, body, form, submitter: event.submitter, label: event.submitter?.querySelector("span")?.textContent ?? "" });
    by("review-last").replaceChildren();
    by("review-result").replaceChildren();
    by("review-refused").replaceChildren();
    show(ahead.shift());
    send();
  });

  addEventListener("beforeunload", (event) => {
    if (unsent.length > 0 || returned.size > 0) event.preventDefault();
  });

  ask().then(({ found, shown }) => { if (found !== null) take(found, shown); }, () => {}); // else one by one
})();
