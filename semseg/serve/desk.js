// The labelling desk: a photo, the ids of its pixels over it, and tools that change them.
import { numbersOfPng, pngOfNumbers } from "/png.js";

const $ = (id) => document.getElementById(id);
const NO_CLASS = 255;
const MOST_UNDO_BYTES = 256 * 2 ** 20;
const SMALLEST_SCALE = 0.02;
const LARGEST_SCALE = 40; // screen pixels for one of the photo's
const NEAR = 12; // screen pixels from the first corner of a polygon that close it

let model = { classes: [] };
let photos = []; // {name, done, mask, item}
let photo = null; // the open one, see `open`
const unsaved = new Map(); // photos that were changed, by their number, while others are looked at
let tool = "brush";
let chosen = 0; // id of the class that tools paint
let hidden = false; // whether the mask is
let view = { scale: 1, x: 0, y: 0 }; // screen pixel = scale * pixel of the photo + x
let colors = new Uint32Array(256); // RGBA of each id as a number; 0 is transparent
let saving = false;

const element = (tag, className, text) => {
  const made = document.createElement(tag);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
};

const pause = (seconds) => new Promise((resolve) => setTimeout(resolve, 1000 * seconds));

// --------------------------------------------------------------------------------------------------- asking the server

const ask = async (path, options) => {
  for (;;) {
    const response = await fetch(path, options).catch(() => {
      throw new Error("The server gave no answer; is it still running?");
    });
    if (response.status !== 503) return response;
    await pause(Number(response.headers.get("retry-after")) || 2);
  }
};

const good = async (response) => {
  if (response.ok) return response;
  throw new Error((await response.json().catch(() => ({}))).error || `The server failed (${response.status}).`);
};

const tell = (text, isConflict = false) => {
  $("problem-text").textContent = text;
  $("problem").hidden = !text;
  $("conflict").hidden = !isConflict;
  resize();
};

// ------------------------------------------------------------------------------------------------------ opening photos

/** Everything about one photo: its picture, the ids, what can be undone, and the version that it was begun with. */
const load = async (number) => {
  const address = `/desk/${number}`;
  const [picture, mask] = await Promise.all([
    ask(`${address}/photo`).then(good).then((response) => response.blob()).then(createImageBitmap),
    ask(`${address}/mask`).then(good),
  ]);
  const prediction = ask(`${address}/prediction`).then(good).then((response) => response.blob()).then(numbersOfPng);
  prediction.catch(() => {}); // told by whoever needs it
  const from = mask.headers.get("x-semseg-from");
  const { width, height, ids } = await (mask.status === 204 ? prediction : numbersOfPng(await mask.blob()));
  const canvas = element("canvas");
  Object.assign(canvas, { width, height });
  const opened = {
    number, picture, width, height, from, canvas, prediction: null, version: mask.headers.get("etag"),
    ids: mask.status === 204 ? ids.slice() : ids, undo: [], redo: [], saved: null,
  };
  opened.predicted = prediction.then((found) => (opened.prediction = found.ids));
  opened.predicted.catch(() => {});
  return opened;
};

const last = (list) => (list.length ? list[list.length - 1] : null);
const isChanged = (one) => last(one.undo) !== one.saved;

const open = async (number) => {
  if (!photos[number]) return;
  if (photo && isChanged(photo)) unsaved.set(photo.number, photo);
  photo = null;
  corners = [];
  tell("");
  drawList(number);
  $("name").textContent = photos[number].name;
  $("facts").textContent = "";
  $("state").textContent = "Loading …";
  $("stage").classList.add("busy");
  draw();
  drawHints();
  const opening = (open.latest = Symbol());
  try {
    const opened = unsaved.get(number) || (await load(number));
    if (open.latest !== opening) return;
    photo = opened;
    unsaved.delete(number);
    paint({ left: 0, top: 0, right: photo.width, bottom: photo.height });
    fit();
    $("state").textContent = "";
  } catch (error) {
    if (open.latest !== opening) return;
    $("state").textContent = "";
    tell(`${photos[number].name}: ${error.message}`);
  }
  $("stage").classList.remove("busy");
  drawFacts();
};

// ------------------------------------------------------------------------------------------------------------- drawing

const ratio = () => window.devicePixelRatio || 1;

/** Ids of a part of the photo into colours on its canvas. */
const paint = ({ left, top, right, bottom }) => {
  if (right <= left || bottom <= top) return;
  const image = new ImageData(right - left, bottom - top);
  const pixels = new Uint32Array(image.data.buffer);
  for (let y = top, to = 0; y < bottom; y++) {
    for (let at = y * photo.width + left, end = at + right - left; at < end; at++) pixels[to++] = colors[photo.ids[at]];
  }
  photo.canvas.getContext("2d").putImageData(image, left, top);
};

let drawing = 0;
const draw = () => {
  drawing ||= requestAnimationFrame(() => {
    drawing = 0;
    const canvas = $("view");
    const context = canvas.getContext("2d");
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.clearRect(0, 0, canvas.width, canvas.height);
    if (!photo) return;
    context.setTransform(view.scale, 0, 0, view.scale, view.x, view.y);
    context.imageSmoothingEnabled = view.scale < 3;
    context.drawImage(photo.picture, 0, 0, photo.width, photo.height);
    if (hidden) return;
    context.globalAlpha = $("opacity").value / 100;
    context.imageSmoothingEnabled = false;
    context.drawImage(photo.canvas, 0, 0);
    context.globalAlpha = 1;
  });
};

const outline = (context, path, width) => {
  context.lineWidth = width + 2;
  context.strokeStyle = "rgba(0, 0, 0, 0.7)";
  path();
  context.stroke();
  context.lineWidth = width;
  context.strokeStyle = "#fff";
  path();
  context.stroke();
};

/** The circle of the brush and the corners of a polygon, on a canvas of their own: the photo need not be drawn anew. */
const drawHints = () => {
  const canvas = $("hints");
  const context = canvas.getContext("2d");
  context.clearRect(0, 0, canvas.width, canvas.height);
  if (!photo) return;
  const onScreen = ([x, y]) => [view.scale * x + view.x, view.scale * y + view.y];
  if (pointer && paints() && (tool === "brush" || tool === "eraser")) {
    outline(context, () => {
      context.beginPath();
      context.arc(...onScreen(pointer), Math.max(2, (view.scale * brushSize()) / 2), 0, 7);
    }, ratio());
  }
  if (!corners.length) return;
  outline(context, () => {
    context.beginPath();
    for (const corner of pointer ? [...corners, pointer] : corners) context.lineTo(...onScreen(corner));
  }, 1.5 * ratio());
  for (const [i, corner] of corners.entries()) {
    outline(context, () => {
      context.beginPath();
      context.arc(...onScreen(corner), (i ? 3 : 6) * ratio(), 0, 7);
    }, ratio());
  }
};

const fit = () => {
  const { width, height } = $("view");
  const scale = Math.min(width / photo.width, height / photo.height);
  view = { scale, x: (width - scale * photo.width) / 2, y: (height - scale * photo.height) / 2 };
  draw();
  drawHints();
};

const zoom = (factor, [x, y]) => {
  const scale = Math.min(LARGEST_SCALE * ratio(), Math.max(SMALLEST_SCALE, view.scale * factor));
  const by = scale / view.scale;
  view = { scale, x: x - by * (x - view.x), y: y - by * (y - view.y) };
  draw();
  drawHints();
};

const resize = () => {
  const box = $("stage").getBoundingClientRect();
  const [width, height] = [Math.round(box.width * ratio()), Math.round(box.height * ratio())];
  if ($("view").width === width && $("view").height === height) return;
  for (const id of ["view", "hints"]) Object.assign($(id), { width, height });
  if (photo) fit();
};

const drawFacts = () => {
  const changed = photo && isChanged(photo);
  if (photo) {
    const begun = { correction: "from the saved mask", mask: "from your own mask", prediction: "from the network's mask" };
    const state = changed ? "not saved yet" : photo.version ? "saved" : begun[photo.from];
    $("facts").textContent = `${photo.number + 1} of ${photos.length} · ${photo.width} × ${photo.height} pixels · ${state}`;
    drawLegend();
    photos[photo.number].item.classList.toggle("changed", changed);
  }
  $("undo").disabled = !photo?.undo.length;
  $("redo").disabled = !photo?.redo.length;
  $("restart").disabled = !photo;
  $("save").disabled = !photo || saving || !(changed || !photo.version);
  $("save").textContent = saving ? "Saving …" : "Save";
  $("done").textContent = `${photos.filter(({ done }) => done).length} of ${photos.length} saved`;
};

const drawList = (number) => {
  for (const [i, one] of photos.entries()) {
    one.item.classList.toggle("done", one.done);
    one.item.firstChild.setAttribute("aria-current", String(i === number));
    one.item.firstChild.setAttribute("aria-label", `${one.name}${one.done ? ", saved" : ""}`);
  }
  photos[number]?.item.scrollIntoView({ block: "nearest" });
  $("previous").disabled = number <= 0;
  $("next").disabled = number >= photos.length - 1;
};

const percent = (share) => (share >= 0.001 ? `${(100 * share).toFixed(1)}%` : share > 0 ? "<0.1%" : "");

const drawLegend = () => {
  const counts = new Uint32Array(256);
  if (photo) for (let i = 0; i < photo.ids.length; i++) counts[photo.ids[i]]++;
  for (const button of $("legend").querySelectorAll("button")) {
    const id = Number(button.dataset.id);
    button.setAttribute("aria-pressed", String(id === chosen));
    button.querySelector(".share").textContent = photo ? percent(counts[id] / photo.ids.length) : "";
  }
};

const makeLegend = () => {
  const entries = [...model.classes, { id: NO_CLASS, name: "no class" }];
  $("legend").replaceChildren(...entries.map(({ id, name, color }, i) => {
    const key = id === NO_CLASS ? "0" : i < 9 ? String(i + 1) : "";
    const button = element("button");
    const swatch = element("span", color ? "swatch" : "swatch none");
    button.type = "button";
    button.dataset.id = id;
    button.title = id === NO_CLASS ? "no class: left out of training (key 0)" : `${name}${key && ` (key ${key})`}`;
    if (color) button.style.setProperty("--color", color);
    const text = element("span", "class", name);
    if (key) text.append(element("span", "key", `  ${key}`));
    button.append(swatch, text, element("span", "share"));
    button.addEventListener("click", () => choose(id));
    const item = element("li");
    item.append(button);
    return item;
  }));
};

const choose = (id) => {
  if (id !== NO_CLASS && !model.classes.some((one) => one.id === id)) return;
  chosen = id;
  if (tool === "eraser" || tool === "pan") take("brush");
  drawLegend();
};

const take = (name) => {
  tool = name;
  corners = [];
  for (const button of $("tools").querySelectorAll("[data-tool]")) {
    button.setAttribute("aria-pressed", String(button.dataset.tool === name));
  }
  drawCursor();
};

const drawCursor = () => {
  $("stage").classList.toggle("pan", !paints());
  $("stage").classList.toggle("aim", paints() && !["brush", "eraser"].includes(tool));
  drawHints();
};

// ------------------------------------------------------------------------------------------------------------- editing

const brushSize = () => {
  const most = photo ? Math.max(64, Math.max(photo.width, photo.height) / 4) : 512;
  return Math.max(1, Math.round(most ** ($("size").value / 100))); // pixels across
};

const nothing = () => ({ left: Infinity, top: Infinity, right: 0, bottom: 0 });

const cover = (box, left, top, right, bottom) => {
  box.left = Math.min(box.left, left);
  box.top = Math.min(box.top, top);
  box.right = Math.max(box.right, right);
  box.bottom = Math.max(box.bottom, bottom);
};

const cut = (ids, { left, top, right, bottom }) => {
  const part = new Uint8Array((right - left) * (bottom - top));
  for (let y = top, to = 0; y < bottom; y++, to += right - left) {
    part.set(ids.subarray(y * photo.width + left, y * photo.width + right), to);
  }
  return part;
};

const paste = (part, box) => {
  const across = box.right - box.left;
  for (let y = box.top, from = 0; y < box.bottom; y++, from += across) {
    photo.ids.set(part.subarray(from, from + across), y * photo.width + box.left);
  }
  paint(box);
};

/** Notes what an edit changed inside a box, so that it can be undone. */
const note = (before, box) => {
  if (box.right > box.left && box.bottom > box.top) {
    const step = { box, before: cut(before, box), after: cut(photo.ids, box) };
    if (step.before.some((id, at) => id !== step.after[at])) {
      photo.undo.push(step);
      photo.redo = [];
      let bytes = 0;
      let kept = photo.undo.length;
      while (kept && (bytes += 2 * photo.undo[kept - 1].before.length) <= MOST_UNDO_BYTES) kept--;
      photo.undo.splice(0, Math.min(kept, photo.undo.length - 1));
      if (kept && !photo.undo.includes(photo.saved)) photo.saved = {}; // no way leads back to it
    }
  }
  draw();
  drawFacts();
};

const step = (from, to, side) => {
  if (!photo || stroke || !photo[from].length) return;
  const done = photo[from].pop();
  paste(done[side], done.box);
  photo[to].push(done);
  draw();
  drawFacts();
};
const undo = () => (corners.length ? (corners.pop(), drawHints()) : step("undo", "redo", "before"));
const redo = () => step("redo", "undo", "after");

/** Gives an id to all pixels whose centre lies within half a brush of a line between two points. */
const drag = ([x0, y0], [x1, y1], id, box) => {
  const radius = brushSize() / 2;
  const [dx, dy] = [x1 - x0, y1 - y0];
  const length = dx * dx + dy * dy;
  const part = {
    left: Math.max(0, Math.floor(Math.min(x0, x1) - radius)), top: Math.max(0, Math.floor(Math.min(y0, y1) - radius)),
    right: Math.min(photo.width, Math.ceil(Math.max(x0, x1) + radius)),
    bottom: Math.min(photo.height, Math.ceil(Math.max(y0, y1) + radius)),
  };
  for (let y = part.top; y < part.bottom; y++) {
    for (let x = part.left; x < part.right; x++) {
      const [px, py] = [x + 0.5 - x0, y + 0.5 - y0];
      const along = length ? Math.min(1, Math.max(0, (px * dx + py * dy) / length)) : 0;
      const [ox, oy] = [px - along * dx, py - along * dy];
      if (ox * ox + oy * oy <= radius * radius) photo.ids[y * photo.width + x] = id;
    }
  }
  const [column, row] = [Math.floor(x1), Math.floor(y1)]; // a brush of one pixel always meets one
  if (radius < 1 && column >= 0 && row >= 0 && column < photo.width && row < photo.height) {
    photo.ids[row * photo.width + column] = id;
    cover(part, column, row, column + 1, row + 1);
  }
  if (part.left >= part.right || part.top >= part.bottom) return;
  paint(part);
  cover(box, part.left, part.top, part.right, part.bottom);
  draw();
};

/** Gives an id to the pixels inside a polygon, judged by their centres; the even-odd rule. */
const fillPolygon = (points, id) => {
  const before = photo.ids.slice();
  const box = nothing();
  const top = Math.max(0, Math.floor(Math.min(...points.map(([, y]) => y))));
  const bottom = Math.min(photo.height, Math.ceil(Math.max(...points.map(([, y]) => y))));
  for (let row = top; row < bottom; row++) {
    const y = row + 0.5;
    const crossings = [];
    for (let i = 0; i < points.length; i++) {
      const [[x0, y0], [x1, y1]] = [points[i], points[(i + 1) % points.length]];
      if (y0 <= y !== y1 <= y) crossings.push(x0 + ((y - y0) / (y1 - y0)) * (x1 - x0));
    }
    crossings.sort((a, b) => a - b);
    for (let i = 0; i + 1 < crossings.length; i += 2) {
      const left = Math.max(0, Math.ceil(crossings[i] - 0.5));
      const right = Math.min(photo.width, Math.ceil(crossings[i + 1] - 0.5));
      if (right <= left) continue;
      photo.ids.fill(id, row * photo.width + left, row * photo.width + right);
      cover(box, left, row, right, row + 1);
    }
  }
  if (box.right > box.left) paint(box);
  note(before, box);
};

/** Gives an id to the connected pixels, by their sides, that have one id in `source` around a place. */
const fillRegion = (source, column, row, id) => {
  const { width, height, ids } = photo;
  const wanted = source[row * width + column];
  const before = ids.slice();
  const seen = new Uint8Array(width * height);
  const box = nothing();
  const starts = [row * width + column];
  while (starts.length) {
    const start = starts.pop();
    if (seen[start]) continue;
    const first = start - (start % width);
    let [left, right] = [start, start + 1];
    while (left > first && source[left - 1] === wanted && !seen[left - 1]) left--;
    while (right < first + width && source[right] === wanted && !seen[right]) right++;
    seen.fill(1, left, right);
    ids.fill(id, left, right);
    const y = first / width;
    cover(box, left - first, y, right - first, y + 1);
    for (const next of [y > 0 ? -width : 0, y < height - 1 ? width : 0]) {
      if (!next) continue;
      for (let at = left, inside = false; at < right; at++) {
        const open = source[at + next] === wanted && !seen[at + next];
        if (open && !inside) starts.push(at + next);
        inside = open;
      }
    }
  }
  paint(box);
  note(before, box);
};

const smartFill = async (column, row, withChosen) => {
  const asked = photo;
  try {
    if (!asked.prediction) $("state").textContent = "The network is looking at the photo …";
    const prediction = await asked.predicted;
    if (photo !== asked) return;
    fillRegion(prediction, column, row, withChosen ? chosen : prediction[row * photo.width + column]);
  } catch (error) {
    tell(`The network's mask is not to be had: ${error.message}`);
  } finally {
    $("state").textContent = "";
  }
};

const startAgain = async () => {
  const asked = photo;
  try {
    const prediction = await asked.predicted;
    if (photo !== asked) return;
    const before = photo.ids.slice();
    const box = { left: 0, top: 0, right: photo.width, bottom: photo.height };
    photo.ids.set(prediction);
    paint(box);
    note(before, box);
  } catch (error) {
    tell(`The network's mask is not to be had: ${error.message}`);
  }
};

const closePolygon = () => {
  const points = corners;
  corners = [];
  if (points.length > 2) fillPolygon(points, chosen);
  drawHints();
};

// -------------------------------------------------------------------------------------------------------------- saving

const save = async () => {
  if (!photo || saving) return;
  const one = photo;
  const at = last(one.undo);
  saving = true;
  drawFacts();
  try {
    const body = await pngOfNumbers(one.ids, one.width, one.height);
    const begun = one.version ? { "If-Match": one.version } : { "If-None-Match": "*" };
    const response = await ask(`/desk/${one.number}/mask`, { method: "PUT", body, headers: begun });
    if (response.status === 412) {
      tell("Not saved: this photo was saved from another page meanwhile. Your mask stays here.", true);
      return;
    }
    await good(response);
    Object.assign(one, { version: response.headers.get("etag"), saved: at });
    photos[one.number].done = true;
    photos[one.number].item.classList.toggle("changed", isChanged(one));
    drawList(photo ? photo.number : one.number);
    if (photo === one) tell("");
  } catch (error) {
    tell(`Not saved: ${error.message} Your mask stays on this page.`);
  } finally {
    saving = false;
    drawFacts();
  }
};

const loadTheirs = async () => {
  const { number } = photo;
  photo.saved = last(photo.undo); // what is here may go
  photos[number].item.classList.remove("changed");
  await open(number);
};

const saveMine = async () => {
  try {
    photo.version = (await ask(`/desk/${photo.number}/mask`).then(good)).headers.get("etag");
    await save();
  } catch (error) {
    tell(error.message);
  }
};

// ------------------------------------------------------------------------------------- pointers: mouse, pen and fingers

const pointers = new Map(); // of those that are down: their place on the screen
let pointer = null; // the one that moves, in pixels of the photo
let corners = []; // of the polygon that is drawn
let stroke = null; // {before, box, id, at} of the brush
let moving = null; // the place of the hand, or the middle and the distance of two fingers
let spaceIsDown = false;
let penWasUsed = false; // a hand that rests beside a pen draws nothing

const paints = () => tool !== "pan" && !spaceIsDown;
const placeOf = (event) => {
  const box = $("stage").getBoundingClientRect();
  return [(event.clientX - box.left) * ratio(), (event.clientY - box.top) * ratio()];
};
const inPhoto = ([x, y]) => [(x - view.x) / view.scale, (y - view.y) / view.scale];

const gesture = () => {
  const places = [...pointers.values()];
  if (places.length === 1) return { middle: places[0], distance: 0 };
  const [[x0, y0], [x1, y1]] = places;
  return { middle: [(x0 + x1) / 2, (y0 + y1) / 2], distance: Math.hypot(x1 - x0, y1 - y0) };
};

const move = () => {
  const { middle, distance } = gesture();
  view.x += middle[0] - moving.middle[0];
  view.y += middle[1] - moving.middle[1];
  const factor = distance && moving.distance ? distance / moving.distance : 1;
  moving = { middle, distance };
  zoom(factor, middle);
};

const giveUpStroke = () => {
  if (!stroke) return;
  if (stroke.box.right > stroke.box.left) {
    const before = cut(stroke.before, stroke.box);
    paste(before, stroke.box);
  }
  stroke = null;
  draw();
};

const pressPolygon = (place, clicks) => {
  const at = inPhoto(place);
  const isNear = ([x, y]) => Math.hypot(view.scale * (x - at[0]), view.scale * (y - at[1])) < NEAR * ratio();
  if (corners.length > 2 && (clicks > 1 || isNear(corners[0]))) closePolygon();
  else if (!corners.length || !isNear(last(corners))) corners.push(at);
  drawHints();
};

const press = (event) => {
  const place = placeOf(event);
  const at = inPhoto(place);
  const [column, row] = at.map(Math.floor);
  const inside = column >= 0 && row >= 0 && column < photo.width && row < photo.height;
  if (tool === "brush" || tool === "eraser") {
    const erases = tool === "eraser" || (event.buttons & 32) !== 0; // the other end of a pen
    stroke = { before: photo.ids.slice(), box: nothing(), id: erases ? NO_CLASS : chosen, at };
    drag(at, at, stroke.id, stroke.box);
  } else if (tool === "polygon") pressPolygon(place, event.detail);
  else if (inside && tool === "fill") fillRegion(photo.ids.slice(), column, row, chosen);
  else if (inside && tool === "smart") smartFill(column, row, event.shiftKey);
};

const down = (event) => {
  if (!photo || pointers.size > 1) return;
  event.preventDefault();
  document.activeElement?.blur(); // keys are for the desk again
  $("stage").setPointerCapture(event.pointerId);
  pointers.set(event.pointerId, placeOf(event));
  penWasUsed ||= event.pointerType === "pen";
  if (pointers.size === 2) giveUpStroke();
  const isHand = penWasUsed && event.pointerType === "touch";
  if (pointers.size === 2 || !paints() || event.button === 1 || isHand) moving = gesture();
  else if (event.button === 0 || event.button === 5) press(event);
};

const over = (event) => {
  if (!photo) return;
  if (pointers.has(event.pointerId)) pointers.set(event.pointerId, placeOf(event));
  pointer = inPhoto(placeOf(event));
  if (moving) move();
  else if (stroke) {
    for (const one of event.getCoalescedEvents?.() || [event]) {
      const at = inPhoto(placeOf(one));
      drag(stroke.at, at, stroke.id, stroke.box);
      stroke.at = at;
    }
  }
  drawPointer();
  drawHints();
};

const up = (event) => {
  if (!pointers.delete(event.pointerId)) return;
  if (moving) moving = pointers.size ? gesture() : null;
  if (!stroke || !photo) return;
  const { before, box } = stroke;
  stroke = null;
  note(before, box);
};

const className = (id) => model.classes.find((one) => one.id === id)?.name || "no class";

const drawPointer = () => {
  const [column, row] = (pointer || [-1, -1]).map(Math.floor);
  const inside = photo && column >= 0 && row >= 0 && column < photo.width && row < photo.height;
  $("pointer").textContent = inside ? className(photo.ids[row * photo.width + column]) : "";
};

const leave = () => {
  pointer = null;
  drawPointer();
  drawHints();
};

const wheel = (event) => {
  event.preventDefault();
  if (photo) zoom(Math.exp(-event.deltaY * (event.ctrlKey ? 0.01 : 0.0015) * (event.deltaMode ? 30 : 1)), placeOf(event));
};

// ---------------------------------------------------------------------------------------------------------------- keys

const changeSize = (by) => {
  $("size").value = Number($("size").value) + by;
  drawSliders();
};

const drawSliders = () => {
  $("size-text").textContent = `${brushSize()} px`;
  $("opacity-text").textContent = `${$("opacity").value}%`;
  draw();
  drawHints();
};

const go = (by) => photos.length && open((photo ? photo.number : -1) + by);

const KEYS = {
  b: () => take("brush"), e: () => take("eraser"), p: () => take("polygon"), f: () => take("fill"), s: () => take("smart"),
  h: () => ((hidden = !hidden), draw()), "[": () => changeSize(-4), "]": () => changeSize(4),
  "+": () => zoom(1.25, middleOfView()), "-": () => zoom(0.8, middleOfView()), home: () => photo && fit(),
  arrowleft: () => go(-1), arrowright: () => go(1), enter: () => closePolygon(),
  escape: () => ((corners = []), giveUpStroke(), drawHints()), backspace: () => (corners.pop(), drawHints()),
};
const WITH_CONTROL = { z: undo, y: redo, s: save };

const middleOfView = () => [$("view").width / 2, $("view").height / 2];

const pressKey = (event) => {
  const name = event.key.toLowerCase();
  const isOfSlider = event.target instanceof HTMLInputElement && /^(arrow|home|end|page)/.test(name);
  const isOfButton = event.target instanceof HTMLButtonElement && (name === "enter" || name === " ");
  if (isOfSlider || isOfButton || event.altKey) return;
  if (event.ctrlKey || event.metaKey) {
    const action = name === "z" && event.shiftKey ? redo : WITH_CONTROL[name];
    if (!action) return;
    event.preventDefault();
    action();
  } else if (name === " ") {
    event.preventDefault();
    spaceIsDown = true;
    drawCursor();
  } else if (/^[0-9]$/.test(name)) {
    choose(name === "0" ? NO_CLASS : Number(name) - 1);
  } else if (KEYS[name]) {
    event.preventDefault();
    KEYS[name]();
  }
};

// -------------------------------------------------------------------------------------------------------------- wiring

const wire = () => {
  const stage = $("stage");
  stage.addEventListener("pointerdown", down);
  stage.addEventListener("pointermove", over);
  for (const kind of ["pointerup", "pointercancel"]) stage.addEventListener(kind, up);
  stage.addEventListener("pointerleave", leave);
  stage.addEventListener("wheel", wheel, { passive: false });
  stage.addEventListener("contextmenu", (event) => event.preventDefault());
  new ResizeObserver(resize).observe(stage);
  for (const button of $("tools").querySelectorAll("[data-tool]")) {
    button.addEventListener("click", () => take(button.dataset.tool));
  }
  const clicks = {
    undo, redo, save, fit: () => photo && fit(), previous: () => go(-1), next: () => go(1), restart: startAgain,
    theirs: loadTheirs, mine: saveMine,
  };
  for (const [id, action] of Object.entries(clicks)) $(id).addEventListener("click", action);
  for (const id of ["size", "opacity"]) $(id).addEventListener("input", drawSliders);
  addEventListener("keydown", pressKey);
  addEventListener("keyup", (event) => event.key === " " && ((spaceIsDown = false), drawCursor()));
  addEventListener("blur", () => ((spaceIsDown = false), drawCursor()));
  addEventListener("beforeunload", (event) => {
    if ((photo && isChanged(photo)) || unsaved.size) event.preventDefault();
  });
};

const makeList = () => {
  $("list").replaceChildren(...photos.map((one, number) => {
    const button = element("button");
    button.type = "button";
    button.title = one.name;
    button.append(element("span", "", `\u200e${one.name}`)); // what is cut off is the beginning
    button.addEventListener("click", () => open(number));
    one.item = element("li");
    one.item.append(button);
    return one.item;
  }));
};

const start = async () => {
  wire();
  resize();
  try {
    const [about, desk] = await Promise.all(["/model", "/desk"].map((path) => ask(path).then(good).then((one) => one.json())));
    model = about;
    photos = desk.photos;
    $("folder").textContent = desk.folder;
  } catch (error) {
    $("state").textContent = "";
    tell(error.message);
    return;
  }
  const bytes = new Uint8Array(colors.buffer);
  for (const { id, color } of model.classes) {
    bytes.set([1, 3, 5].map((at) => parseInt(color.slice(at, at + 2), 16)), 4 * id);
    bytes[4 * id + 3] = 255;
  }
  chosen = model.classes[Math.min(1, model.classes.length - 1)].id;
  makeLegend();
  makeList();
  drawSliders();
  await open(Math.max(0, photos.findIndex(({ done }) => !done)));
  drawSliders();
};

start();
