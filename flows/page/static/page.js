// What the page does beyond plain HTML; without it all is still readable, and forms still work.
"use strict";

const status = document.getElementById("status");

// A decision opens over the page, and closes with Escape; the link alone leads to a page of its own.
async function openDecision(address, back) {
  const answer = await fetch(address);
  if (!answer.ok) throw new Error(answer.statusText);
  const text = await answer.text();
  const article = new DOMParser().parseFromString(text, "text/html").querySelector("article");
  const dialog = document.createElement("dialog");
  const close = document.createElement("button");
  close.textContent = "Close";
  close.addEventListener("click", () => dialog.close());
  article.querySelector("h2").id = "dialog-title";
  dialog.setAttribute("aria-labelledby", "dialog-title");
  dialog.append(article, close);
  dialog.addEventListener("close", () => { dialog.remove(); back.focus(); });
  document.body.append(dialog);
  dialog.showModal();
}

document.addEventListener("click", (event) => {
  const link = event.target.closest("a[data-decision]");
  if (link && !event.ctrlKey && !event.metaKey && !event.shiftKey) {
    event.preventDefault();
    const address = link.href.baseVal ?? link.href;
    openDecision(address, link).catch(() => { location.href = address; });
  }
  const copy = event.target.closest("button[data-copy]");
  if (copy) {
    navigator.clipboard.writeText(copy.previousElementSibling.textContent)
      .then(() => { copy.textContent = "Copied"; });
  }
  const explore = event.target.closest("button[data-explore]");
  if (explore) showExplorer(explore);
});

// What only works with this script is shown by it.
function reveal() {
  for (const each of document.querySelectorAll("button[data-explore]")) each.hidden = false;
  if (navigator.clipboard) for (const each of document.querySelectorAll("button[data-copy]")) each.hidden = false;
}

// Sections that changed are replaced, unless somebody is in them or has something open there.
async function renew() {
  const answer = await fetch(location.href);
  if (!answer.ok) return;
  const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
  const about = fresh.getElementById("status").dataset;
  for (const section of fresh.querySelectorAll("[data-live]")) {
    const old = document.getElementById(section.id);
    const busy = old.contains(document.activeElement) || old.querySelector("details[open]")
      || old.querySelector("#explore:not([hidden])");
    if (busy) { about.stamp = status.dataset.stamp; continue; }
    if (old.innerHTML !== section.innerHTML) old.replaceWith(document.importNode(section, true));
  }
  status.dataset.stamp = about.stamp;
  reveal();
}

function follow() {
  const age = document.getElementById("age");
  const connection = document.getElementById("connection");
  const news = new EventSource(status.dataset.news + location.search);
  let told = Number(status.dataset.told);
  let heard = Date.now() / 1000;
  news.onmessage = (event) => {
    const found = JSON.parse(event.data);
    told = found.told_at;
    heard = Date.now() / 1000;
    const said = found.stale_because ? `The history cannot be read now: ${found.stale_because}.` : "";
    if (connection.textContent !== said) connection.textContent = said;
    if (found.stamp !== status.dataset.stamp) renew();
  };
  setInterval(() => {
    age.textContent = ` (${Math.max(0, Math.round(Date.now() / 1000 - told))} s ago)`;
    if (Date.now() / 1000 - heard > 30) connection.textContent = "The service does not answer: this page is old.";
  }, 1000);
}

// A figure to zoom into, by plotly, which is loaded when it is asked for.
async function showExplorer(button) {
  button.disabled = true;
  if (!window.Plotly) {
    await new Promise((done, failed) => {
      const script = document.createElement("script");
      script.src = button.dataset.plotly;
      script.onload = done;
      script.onerror = failed;
      document.head.append(script);
    });
  }
  const told = await (await fetch(button.dataset.explore)).json();
  const style = getComputedStyle(document.documentElement);
  const colour = (name) => style.getPropertyValue(`--${name}`).trim();
  const line = (each, axis, name, shade) => ({
    x: each.at, y: each.mean, name, yaxis: axis, type: "scatter", mode: "lines",
    line: { color: shade, width: 1.5 }, customdata: each.low.map((low, i) => [low, each.high[i]]),
    hovertemplate: "%{y:.5g} (%{customdata[0]:.5g} to %{customdata[1]:.5g})",
  });
  const escaped = (text) => text.replace(/[<>&]/g, (c) => ({ "<": "&lt;", ">": "&gt;", "&": "&amp;" })[c]);
  const marks = {
    x: told.marks.map((each) => each.decided_at), y: told.marks.map((each) => each.question),
    text: told.marks.map((each) => escaped(each.because).slice(0, 160)), name: "decisions", yaxis: "y3",
    customdata: told.marks.map((each) => each.key), showlegend: false,
    type: "scatter", mode: "markers", hovertemplate: "%{text}",
    marker: { size: 9, color: colour("batch"), symbol: told.marks.map((each) => each.yes ? "circle" : "circle-open") },
  };
  const axis = { gridcolor: colour("line"), zeroline: false };
  const place = document.getElementById("explore");
  place.hidden = false;
  await Plotly.newPlot(place, [
    ...told.scores.map((each) => line(each, "y", each.name, colour(each.name))),
    ...told.margins.map((each, i) => line(each, "y2", escaped(each.name), colour(`device${i % 4}`))),
    marks,
  ], {
    height: 640, hovermode: "x unified", paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
    font: { color: colour("text") }, margin: { l: 70, r: 20, t: 20, b: 40 }, legend: { orientation: "h" },
    hoverlabel: { bgcolor: colour("card"), bordercolor: colour("line"), font: { color: colour("text") } },
    xaxis: { ...axis, type: "date", anchor: "y3" }, yaxis: { ...axis, domain: [0.55, 1], title: told.metric },
    yaxis2: { ...axis, domain: [0.28, 0.5], title: "margin °C" },
    yaxis3: { ...axis, domain: [0, 0.23], type: "category" },
  }, { responsive: true, displaylogo: false, modeBarButtonsToRemove: ["select2d", "lasso2d"] });
  place.on("plotly_click", ({ points }) => {
    const key = points.map((each) => each.customdata).find((each) => typeof each === "string");
    if (key) openDecision(`/pages/${told.pipeline}/decisions/${encodeURIComponent(key)}`, button);
  });
  place.scrollIntoView({ block: "nearest" });
}

reveal();
if (status) follow();
