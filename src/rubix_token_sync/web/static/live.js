// Keeps the part of a page that is marked data-live fresh: one stream of events a tab, closed
// while the tab is hidden; asking every few seconds where there is no stream. Without this
// script a page is as old as its last loading, and says so.
(() => {
  "use strict";
  const part = () => document.querySelector("[data-live]");
  if (!part() || !window.htmx) return;
  const address = document.body.dataset.stream;
  const POLL = 5000, AGAIN = 60000;
  let stream = null, timer = null, again = null, last = null, waiting = false, paused = false;

  // Nothing is taken away from under somebody's keyboard: it waits until the focus has left.
  const refresh = () => {
    waiting = part() !== null && part().contains(document.activeElement);
    if (!waiting) htmx.trigger(document.body, "fresh");
  };
  // … nor by an answer that was on its way when the focus came.
  document.body.addEventListener("htmx:beforeSwap", (event) => {
    if (event.detail.target !== part() || !part().contains(document.activeElement)) return;
    event.detail.shouldSwap = false;
    waiting = true;
  });
  // What cannot be asked any more is not left standing as if it were so now.
  const lost = (said) => {
    let notice = document.getElementById("lost");
    if (!notice) {
      notice = document.createElement("p");
      notice.id = "lost";
      notice.className = "notice bad";
      notice.setAttribute("role", "alert");
      document.getElementById("main").prepend(notice);
    }
    const text = `Not up to date: ${said} What is shown is as of its last loading.`;
    if (notice.textContent !== text) notice.textContent = text;
  };
  const found = () => {
    const notice = document.getElementById("lost");
    if (notice) { notice.remove(); refresh(); }
  };
  const heard = (text) => {
    found();
    const now = JSON.stringify(JSON.parse(text)[part().dataset.live]);
    if (now !== last) refresh();  // the first time, too: something may be new since the loading
    last = now;
  };
  const ask = () => fetch(`${address}.json`, { headers: { Accept: "application/json" } })
    .then((answer) => answer.ok ? answer.text().then(heard)
      : answer.json().then((told) => lost(told.error.message)))
    .catch(() => lost("the server of this page does not answer."));
  const close = () => {
    if (stream) stream.close();
    clearInterval(timer);
    clearTimeout(again);
    stream = timer = again = null;
  };
  const poll = () => {
    close();
    ask();
    timer = setInterval(ask, POLL);
    again = setTimeout(open, AGAIN);
  };
  const open = () => {
    close();
    if (paused || document.hidden) return;
    if (!window.EventSource) { poll(); return; }
    stream = new EventSource(address);
    stream.addEventListener("pulse", (event) => heard(event.data));
    stream.addEventListener("lost", (event) => lost(JSON.parse(event.data).message));
    stream.onerror = poll;
  };

  document.addEventListener("visibilitychange", () => (document.hidden ? close() : open()));
  addEventListener("pagehide", close);
  document.addEventListener("focusout", () => setTimeout(() => { if (waiting) refresh(); }, 0));
  const button = document.querySelector("[data-pause]");
  if (button) {
    button.hidden = false;
    button.addEventListener("click", () => {
      paused = !paused;
      button.textContent = paused ? "Go on updating" : "Pause updates";
      if (paused) close(); else open();
    });
  }
  open();
})();
