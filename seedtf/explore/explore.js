"use strict";
const DATA = JSON.parse(document.getElementById("data").textContent);
const [PATH, LABEL, X, Y, PROPOSED, QUALITY, PROBABILITY] = [0, 1, 2, 3, 4, 5, 6];
const svg = document.querySelector(".plane svg"), tip = document.querySelector(".tip");

// The decisions, by path: [action, label]. They are kept in the browser's storage or, if a
// local file has none, in the address of the page.
const decisions = new Map();
const storage = (() => {
  try { localStorage.setItem("seedtf-test", "1"); localStorage.removeItem("seedtf-test"); return localStorage; }
  catch { return null; }
})();
const ACTIONS = {relabel: "r", keep: "k", drop: "d"};
const places = new Map(DATA.images.map((image, place) => [image[PATH], place]));

function load() {
  let rows = [];
  try {
    rows = storage ? JSON.parse(storage.getItem(DATA.key) || "[]")
      : JSON.parse(decodeURIComponent(location.hash.startsWith("#=") ? location.hash.slice(2) : "[]"));
  } catch { /* Damaged decisions are ignored. */ }
  for (const [path, action, label] of rows) if (action in ACTIONS) decisions.set(path, [action, label]);
}

function store() {
  const rows = [...decisions].map(([path, [action, label]]) => [path, action, label]);
  try {
    if (storage) storage.setItem(DATA.key, JSON.stringify(rows));
    else history.replaceState(null, "", "#=" + encodeURIComponent(JSON.stringify(rows)));
  } catch (error) { showStatus("These decisions will not survive a reload (" + error.name + "): save them now. "); }
}

function showStatus(text = "") {
  const counts = {relabel: 0, keep: 0, drop: 0};
  for (const [action] of decisions.values()) counts[action] += 1;
  document.querySelector("footer [role=status]").textContent = text +
    `${decisions.size} decided: ${counts.relabel} relabelled, ${counts.keep} kept, ${counts.drop} dropped`;
}

function decide(place, action, label) {
  const path = DATA.images[place][PATH];
  if (action === "undo") decisions.delete(path);
  else decisions.set(path, [action, action === "relabel" ? label : ""]);
  showStatus();
  store();
  document.querySelectorAll(`.card[data-place="${place}"]`).forEach(updateCard);
}

function updateCard(card) {
  const [action, label] = decisions.get(DATA.images[card.dataset.place][PATH]) || ["", ""];
  card.dataset.action = action;
  card.querySelectorAll("button").forEach(
    button => button.setAttribute("aria-pressed", String(button.dataset.action === action)));
  if (label) card.querySelector("select").value = label;
}

function element(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

function addControls(card) {
  const place = Number(card.dataset.place);
  if (place < 0) return;
  const image = DATA.images[place];
  const choice = element("select", {ariaLabel: "right label of " + image[PATH]},
    ...DATA.classes.map(name => element("option", {value: name, textContent: name})));
  choice.value = DATA.classes[image[PROPOSED]];
  const buttons = Object.keys(ACTIONS).map(action => {
    const button = element("button", {type: "button", textContent: action});
    button.dataset.action = action;
    button.addEventListener("click", () => decide(place,
      card.dataset.action === action ? "undo" : action, choice.value));
    return button;
  });
  choice.addEventListener("change", () => decide(place, "relabel", choice.value));
  card.append(element("div", {className: "controls"}, choice, ...buttons));
  updateCard(card);
}

function thumbnail(place) {
  const perSheet = DATA.columns ** 2, rest = place % perSheet;
  const made = element("i", {className: "t s" + Math.floor(place / perSheet)});
  made.style.backgroundPosition =
    `-${(rest % DATA.columns) * DATA.size}px -${Math.floor(rest / DATA.columns) * DATA.size}px`;
  return made;
}

const percent = value => (100 * value).toFixed(1) + "\u00a0%";

function describe(image) {
  const label = element("b", {textContent: DATA.classes[image[LABEL]]});
  const rest = ` ${percent(image[QUALITY])}, else ${DATA.classes[image[PROPOSED]]} ${percent(image[PROBABILITY])}`;
  return element("div", {}, label, rest, element("br"),
    element("span", {className: "path", textContent: image[PATH]}));
}

// Cards: keys and focus.
document.addEventListener("keydown", event => {
  const card = document.activeElement.closest(".card");
  if (!card || event.ctrlKey || event.metaKey || event.altKey || document.activeElement.tagName === "SELECT") return;
  const key = event.key.toLowerCase();
  const action = key === "u" ? "undo" : Object.keys(ACTIONS).find(name => ACTIONS[name] === key);
  const step = {arrowright: 1, arrowdown: 1, arrowleft: -1, arrowup: -1}[key];
  if (action && Number(card.dataset.place) >= 0) decide(Number(card.dataset.place), action, card.querySelector("select").value);
  if (step || (action && action !== "undo")) {
    const cards = [...card.parentElement.children].filter(each => each.matches(".card"));
    const next = cards[cards.indexOf(card) + (step || 1)];
    if (next) { next.focus(); next.scrollIntoView({block: "nearest"}); }
  }
  if (action || step) event.preventDefault();
});

// The map: thumbnail on hover, drawn selection, arrows.
function mapPoint(event) {
  const box = svg.getBoundingClientRect();
  return [(event.clientX - box.left) * 1000 / box.width, (event.clientY - box.top) * 1000 / box.height];
}

function closest(x, y, within) {
  let best = -1, least = within ** 2;
  DATA.images.forEach((image, place) => {
    const distance = (image[X] - x) ** 2 + (image[Y] - y) ** 2;
    if (distance < least) [best, least] = [place, distance];
  });
  return best;
}

function showTip(place) {
  tip.hidden = place < 0;
  if (place < 0) return;
  const image = DATA.images[place];
  tip.replaceChildren(thumbnail(place), describe(image));
  tip.style.left = `calc(${Math.min(image[X] / 10, 65)}% + 0.75rem)`;
  tip.style.top = `calc(${Math.min(image[Y] / 10, 80)}% + 0.75rem)`;
}

function openImages(found) {
  const list = document.getElementById("selection");
  document.getElementById("opened").hidden = !found.length;
  document.getElementById("opened").textContent = found.length > 200
    ? `The first 200 of ${found.length} opened images` : `${found.length} opened images`;
  list.replaceChildren(...found.slice(0, 200).map(place => {
    const card = element("li", {className: "card small", tabIndex: 0}, thumbnail(place), describe(DATA.images[place]));
    card.dataset.place = place;
    addControls(card);
    return card;
  }));
  if (found.length) list.firstChild.focus();
}

function shape(name, className) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  made.setAttribute("class", className);
  svg.append(made);
  return made;
}

let lassoPoints = null;  // while a shape is being drawn
const lasso = shape("polygon", "lasso"), cursor = shape("circle", "cursor");
cursor.setAttribute("r", "14");
cursor.setAttribute("visibility", "hidden");
svg.style.touchAction = "none";
svg.addEventListener("pointermove", event => {
  const position = mapPoint(event);
  if (lassoPoints) { lassoPoints.push(position); lasso.setAttribute("points", lassoPoints.join(" ")); }
  showTip(closest(...position, 25));
});
svg.addEventListener("pointerleave", () => showTip(-1));
svg.addEventListener("pointerdown", event => { lassoPoints = [mapPoint(event)]; svg.setPointerCapture(event.pointerId); });
svg.addEventListener("pointerup", event => {
  const drawn = lassoPoints || [];
  lassoPoints = null;
  lasso.setAttribute("points", "");
  const width = Math.max(...drawn.map(each => Math.abs(each[0] - drawn[0][0]) + Math.abs(each[1] - drawn[0][1])));
  if (width < 8) {
    const place = closest(...mapPoint(event), 25);
    if (place >= 0) openImages([place]);
    return;
  }
  openImages([...DATA.images.keys()].filter(place => inside(DATA.images[place][X], DATA.images[place][Y], drawn)));
});

function inside(x, y, polygon) {
  let within = false;
  polygon.forEach(([ax, ay], index) => {
    const [bx, by] = polygon[(index + 1) % polygon.length];
    if ((ay > y) !== (by > y) && x < (bx - ax) * (y - ay) / (by - ay) + ax) within = !within;
  });
  return within;
}

let current = -1;  // the image that the keyboard has reached on the map
svg.tabIndex = 0;
svg.addEventListener("keydown", event => {
  const direction = {ArrowRight: [1, 0], ArrowLeft: [-1, 0], ArrowDown: [0, 1], ArrowUp: [0, -1]}[event.key];
  if (direction) {
    const [x, y] = current < 0 ? [500, 500] : DATA.images[current].slice(X, Y + 1);
    let least = Infinity;
    const before = current;
    DATA.images.forEach((image, place) => {
      const along = (image[X] - x) * direction[0] + (image[Y] - y) * direction[1];
      const aside = Math.abs((image[X] - x) * direction[1]) + Math.abs((image[Y] - y) * direction[0]);
      if (place !== before && along > 0 && along + 2 * aside < least) [current, least] = [place, along + 2 * aside];
    });
    if (current >= 0) {
      cursor.setAttribute("cx", DATA.images[current][X]);
      cursor.setAttribute("cy", DATA.images[current][Y]);
      cursor.setAttribute("visibility", "visible");
      showTip(current);
    }
    event.preventDefault();
  } else if (event.key === "Enter" && current >= 0) {
    const squaredDistance = place => (DATA.images[place][X] - DATA.images[current][X]) ** 2 + (DATA.images[place][Y] - DATA.images[current][Y]) ** 2;
    openImages([...DATA.images.keys()].sort((a, b) => squaredDistance(a) - squaredDistance(b)).slice(0, 12));
    event.preventDefault();
  } else if (event.key === "Escape") { showTip(-1); cursor.setAttribute("visibility", "hidden"); }
});

document.querySelectorAll(".legend li").forEach(item => {
  const button = element("button", {type: "button"}, ...item.childNodes);
  button.setAttribute("aria-pressed", "false");
  item.append(button);
  button.addEventListener("click", () => {
    const on = button.getAttribute("aria-pressed") !== "true";
    document.querySelectorAll(".legend button").forEach(other => other.setAttribute("aria-pressed", "false"));
    button.setAttribute("aria-pressed", String(on));
    svg.querySelectorAll("g").forEach(group =>
      group.classList.toggle("faded", on && group.dataset.class !== item.dataset.class));
  });
});

// The text of fixes.csv: the rows of --fixes whose images were not decided again, then the decisions.
function table() {
  const cell = text => /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
  const rows = DATA.earlier.filter(([path]) => !decisions.has(path))
    .concat([...decisions].map(([path, [action, label]]) => [path, action, label]));
  return ["path,action,label", ...rows.map(row => row.map(cell).join(","))].join("\n") + "\n";
}
document.getElementById("save").addEventListener("click", () => {
  const link = element("a", {download: "fixes.csv",
    href: URL.createObjectURL(new Blob([table()], {type: "text/csv"}))});
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
});
document.getElementById("clear").addEventListener("click", () => {
  if (!decisions.size || !confirm(`Forget ${decisions.size} decisions?`)) return;
  decisions.clear();
  store();
  showStatus();
  document.querySelectorAll(".card").forEach(card => Number(card.dataset.place) >= 0 && updateCard(card));
});

load();
document.querySelectorAll(".card").forEach(addControls);
document.querySelectorAll(".keys, footer").forEach(each => { each.hidden = false; });
showStatus();
