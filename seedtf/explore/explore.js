"use strict";
const DATA = JSON.parse(document.getElementById("data").textContent);
// Positions of the values of an image, which is a row of DATA.images. The place of an image is the index
// of its row. A card of an image that has no row has the place -1.
const [PATH, LABEL, X, Y, PROPOSED_LABEL, LABEL_QUALITY, PROPOSED_PROBABILITY] = [0, 1, 2, 3, 4, 5, 6];
const svg = document.querySelector(".plane svg"), tip = document.querySelector(".tip");

// The decisions, [action, label] by path. They are kept in localStorage. Some browsers have none for
// local files; there they are kept in the address of the page.
const decisions = new Map();
const storage = (() => {
  try { localStorage.setItem("seedtf-test", "1"); localStorage.removeItem("seedtf-test"); return localStorage; }
  catch { return null; }
})();
const ACTIONS = {relabel: "r", keep: "k", drop: "d"};  // the key on the keyboard for each action

function load() {
  let rows = [];
  try {
    rows = storage ? JSON.parse(storage.getItem(DATA.key) || "[]")
      : JSON.parse(decodeURIComponent(location.hash.startsWith("#=") ? location.hash.slice(2) : "[]"));
  } catch { /* Stored decisions that cannot be parsed are ignored. */ }
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

function createElement(tag, properties = {}, ...children) {
  const node = Object.assign(document.createElement(tag), properties);
  node.append(...children);
  return node;
}

function addControls(card) {
  const place = Number(card.dataset.place);
  if (place < 0) return;
  const image = DATA.images[place];
  const labelMenu = createElement("select", {ariaLabel: "correct label of " + image[PATH]},
    ...DATA.classes.map(name => createElement("option", {value: name, textContent: name})));
  labelMenu.value = DATA.classes[image[PROPOSED_LABEL]];
  const buttons = Object.keys(ACTIONS).map(action => {
    const button = createElement("button", {type: "button", textContent: action});
    button.dataset.action = action;
    button.addEventListener("click", () => decide(place,
      card.dataset.action === action ? "undo" : action, labelMenu.value));
    return button;
  });
  labelMenu.addEventListener("change", () => decide(place, "relabel", labelMenu.value));
  card.append(createElement("div", {className: "controls"}, labelMenu, ...buttons));
  updateCard(card);
}

// A thumbnail is a part of a sheet, one image with a square grid of DATA.columns² thumbnails. The class
// s0, s1, … of the element names its sheet.
function createThumbnail(place) {
  const perSheet = DATA.columns ** 2, cell = place % perSheet;
  const node = createElement("i", {className: "t s" + Math.floor(place / perSheet)});
  node.style.backgroundPosition =
    `-${(cell % DATA.columns) * DATA.size}px -${Math.floor(cell / DATA.columns) * DATA.size}px`;
  return node;
}

const formatPercent = value => (100 * value).toFixed(1) + "\u00a0%";

function createDescription(image) {
  const label = createElement("b", {textContent: DATA.classes[image[LABEL]]});
  const text = ` ${formatPercent(image[LABEL_QUALITY])}, proposed ${DATA.classes[image[PROPOSED_LABEL]]} ${formatPercent(image[PROPOSED_PROBABILITY])}`;
  return createElement("div", {}, label, text, createElement("br"),
    createElement("span", {className: "path", textContent: image[PATH]}));
}

// Keys on a card: r, k, d and u decide, and the arrow keys go to the next or previous card. After r, k or
// d the next card gets the focus.
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

// The map: thumbnail on hover, selection with a drawn line, arrow keys. Coordinates are those of the
// SVG, 0 to 1000.
function mapPoint(event) {
  const box = svg.getBoundingClientRect();
  return [(event.clientX - box.left) * 1000 / box.width, (event.clientY - box.top) * 1000 / box.height];
}

// The place of the image that is nearest to a point, or -1 if no image is nearer than `radius`.
function findNearest(x, y, radius) {
  let nearest = -1, leastSquare = radius ** 2;
  DATA.images.forEach((image, place) => {
    const square = (image[X] - x) ** 2 + (image[Y] - y) ** 2;
    if (square < leastSquare) [nearest, leastSquare] = [place, square];
  });
  return nearest;
}

function showTip(place) {
  tip.hidden = place < 0;
  if (place < 0) return;
  const image = DATA.images[place];
  tip.replaceChildren(createThumbnail(place), createDescription(image));
  tip.style.left = `calc(${Math.min(image[X] / 10, 65)}% + 0.75rem)`;
  tip.style.top = `calc(${Math.min(image[Y] / 10, 80)}% + 0.75rem)`;
}

// Shows the images at the places in `opened` as cards below the map, at most 200 of them.
function openImages(opened) {
  const list = document.getElementById("selection");
  document.getElementById("opened").hidden = !opened.length;
  document.getElementById("opened").textContent = opened.length > 200
    ? `The first 200 of ${opened.length} opened images` : `${opened.length} opened images`;
  list.replaceChildren(...opened.slice(0, 200).map(place => {
    const card = createElement("li", {className: "card small", tabIndex: 0},
      createThumbnail(place), createDescription(DATA.images[place]));
    card.dataset.place = place;
    addControls(card);
    return card;
  }));
  if (opened.length) list.firstChild.focus();
}

function addShape(name, className) {
  const node = document.createElementNS("http://www.w3.org/2000/svg", name);
  node.setAttribute("class", className);
  svg.append(node);
  return node;
}

let lassoPoints = null;  // an array while a line is being drawn
const lasso = addShape("polygon", "lasso"), cursor = addShape("circle", "cursor");
cursor.setAttribute("r", "14");
cursor.setAttribute("visibility", "hidden");
svg.style.touchAction = "none";
svg.addEventListener("pointermove", event => {
  const position = mapPoint(event);
  if (lassoPoints) { lassoPoints.push(position); lasso.setAttribute("points", lassoPoints.join(" ")); }
  showTip(findNearest(...position, 25));
});
svg.addEventListener("pointerleave", () => showTip(-1));
svg.addEventListener("pointerdown", event => { lassoPoints = [mapPoint(event)]; svg.setPointerCapture(event.pointerId); });
svg.addEventListener("pointerup", event => {
  const drawn = lassoPoints || [];
  lassoPoints = null;
  lasso.setAttribute("points", "");
  const extent = Math.max(...drawn.map(([x, y]) => Math.abs(x - drawn[0][0]) + Math.abs(y - drawn[0][1])));
  if (extent < 8) {  // a click, not a line
    const place = findNearest(...mapPoint(event), 25);
    if (place >= 0) openImages([place]);
    return;
  }
  openImages([...DATA.images.keys()].filter(place => isInside(DATA.images[place][X], DATA.images[place][Y], drawn)));
});

// A point is inside if a horizontal ray from the point crosses the polygon an odd number of times.
function isInside(x, y, polygon) {
  let isOdd = false;
  polygon.forEach(([ax, ay], index) => {
    const [bx, by] = polygon[(index + 1) % polygon.length];
    if ((ay > y) !== (by > y) && x < (bx - ax) * (y - ay) / (by - ay) + ax) isOdd = !isOdd;
  });
  return isOdd;
}

let current = -1;  // the place of the image that the arrow keys have reached on the map; -1 for none
svg.tabIndex = 0;
svg.addEventListener("keydown", event => {
  const direction = {ArrowRight: [1, 0], ArrowLeft: [-1, 0], ArrowDown: [0, 1], ArrowUp: [0, -1]}[event.key];
  if (direction) {
    const [x, y] = current < 0 ? [500, 500] : DATA.images[current].slice(X, Y + 1);
    // The next image is the nearest one in this direction; distance across the direction counts twice.
    let leastCost = Infinity;
    const before = current;
    DATA.images.forEach((image, place) => {
      const along = (image[X] - x) * direction[0] + (image[Y] - y) * direction[1];
      const across = Math.abs((image[X] - x) * direction[1]) + Math.abs((image[Y] - y) * direction[0]);
      const cost = along + 2 * across;
      if (place !== before && along > 0 && cost < leastCost) [current, leastCost] = [place, cost];
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
  const button = createElement("button", {type: "button"}, ...item.childNodes);
  button.setAttribute("aria-pressed", "false");
  item.append(button);
  button.addEventListener("click", () => {
    const shouldPress = button.getAttribute("aria-pressed") !== "true";
    document.querySelectorAll(".legend button").forEach(other => other.setAttribute("aria-pressed", "false"));
    button.setAttribute("aria-pressed", String(shouldPress));
    svg.querySelectorAll("g").forEach(group =>
      group.classList.toggle("faded", shouldPress && group.dataset.class !== item.dataset.class));
  });
});

// The text of fixes.csv: the rows of --fixes, except for images that were decided again, then the decisions.
function table() {
  const cell = text => /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
  const rows = DATA.earlier.filter(([path]) => !decisions.has(path))
    .concat([...decisions].map(([path, [action, label]]) => [path, action, label]));
  return ["path,action,label", ...rows.map(row => row.map(cell).join(","))].join("\n") + "\n";
}
document.getElementById("save").addEventListener("click", () => {
  const link = createElement("a", {download: "fixes.csv",
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
