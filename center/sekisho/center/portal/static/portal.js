// What makes the pages nicer; every page works without it.

for (const form of document.querySelectorAll("form")) {
  form.addEventListener("submit", () => {
    for (const button of form.querySelectorAll("button")) setTimeout(() => (button.disabled = true));
  });
}
addEventListener("pageshow", (event) => {
  if (event.persisted) for (const button of document.querySelectorAll("button")) button.disabled = false;
});

// The menu of a phone closes with Escape and when something else is touched.
const menu = document.querySelector(".menu-small");
if (menu) {
  addEventListener("keydown", (event) => {
    if (event.key === "Escape" && menu.open) {
      menu.open = false;
      menu.querySelector("summary").focus();
    }
  });
  addEventListener("click", (event) => {
    if (menu.open && !menu.contains(event.target)) menu.open = false;
  });
}

// Filters take effect when chosen.
for (const select of document.querySelectorAll("select[data-submit]")) {
  select.addEventListener("change", () => select.form.requestSubmit());
}

// New alerts: the server says that there are some, the page is fetched anew, its marked parts are exchanged.
const live = document.body.dataset.live;
const parts = () => [...document.querySelectorAll("[data-fresh]")];
const news = document.getElementById("news");
let stream, waiting, busy, latest;

async function refresh() {
  waiting = undefined;
  if (busy) return later();
  busy = true;
  try {
    const answer = await fetch(location.href, { headers: { accept: "text/html", "x-background": "1" }, credentials: "same-origin" });
    if (!answer.ok || answer.redirected) return;
    const page = new DOMParser().parseFromString(await answer.text(), "text/html");
    let grown = 0;
    for (const part of parts()) {
      const made = page.getElementById(part.id);
      if (!made || made.innerHTML === part.innerHTML) continue;
      const known = new Set([...part.querySelectorAll("[data-alert]")].map((one) => one.dataset.alert));
      const held = part.contains(document.activeElement) ? document.activeElement.getAttribute("href") : null;
      part.replaceChildren(...document.adoptNode(made).childNodes);
      for (const one of part.querySelectorAll("[data-alert]")) {
        if (known.has(one.dataset.alert)) continue;
        grown += 1;
        one.classList.add("fresh");
      }
      if (held) [...part.querySelectorAll("a")].find((one) => one.getAttribute("href") === held)?.focus();
    }
    if (grown && news) news.textContent = news.dataset.one;
  } catch {
    later();
  } finally {
    busy = false;
  }
}

function later() {
  waiting ??= setTimeout(refresh, 1000);
}

function listen() {
  if (document.hidden || stream) return;
  const from = latest ?? document.querySelector("[data-latest]")?.dataset.latest ?? "";
  stream = new EventSource(`${live}?after=${encodeURIComponent(from)}`);
  stream.addEventListener("alert", (event) => {
    latest = event.data;
    if (busy || waiting) later();
    else refresh();
  });
  stream.addEventListener("error", () => {
    if (stream?.readyState !== EventSource.CLOSED) return;
    stream = undefined;
    if (news) news.textContent = news.dataset.stopped;
    setTimeout(listen, 30000);
  });
}

// A page nobody looks at holds no connection: a browser has only six of them for one site.
if (live && parts().length) {
  listen();
  document.addEventListener("visibilitychange", () => {
    if (!document.hidden) return listen();
    stream?.close();
    stream = undefined;
  });
}
