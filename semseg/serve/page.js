// The page reads the ids from the very file that it offers.
import { numbersOfPng } from "/png.js";

(() => {
  const $ = (id) => document.getElementById(id);
  const MOST_BYTES = 64 * 2 ** 20;
  const NO_CLASS = 255;
  const CURSOR_STEPS = 50; // arrow keys cross the picture in so many

  const photos = []; // {name, blob, example, state, error, warning, mask, picture, truth, off, button}
  let model = { classes: [], examples: 0 };
  let current = null; // the photo in the large view
  let seen = null; // its {photo, width, height, prediction, truth, picture}, decoded
  let cursor = null; // [column, row] of the keyboard's cursor
  let working = false;
  let photosTaken = 0;

  const element = (tag, className, text) => {
    const made = document.createElement(tag);
    if (className) made.className = className;
    if (text !== undefined) made.textContent = text;
    return made;
  };

  const say = (id, text) => {
    $(id).textContent = text;
    $(id).hidden = !text;
  };

  const stem = (name) => name.replace(/\.[^.]*$/, "") || "photo";

  /** A name for little room: photos of one camera differ at the end of theirs. */
  const cut = (name) => (name.length > 13 ? `${name.slice(0, 4)}…${name.slice(-8)}` : name);

  const percent = (share) => (share >= 0.001 ? `${(100 * share).toFixed(1)}%` : share > 0 ? "<0.1%" : "0%");

  const blobOf = (base64, type) => new Blob([Uint8Array.from(atob(base64), (c) => c.charCodeAt(0))], { type });

  // ------------------------------------------------------------------------------------------------- asking the server

  const pause = (seconds) => new Promise((resolve) => setTimeout(resolve, 1000 * seconds));

  const ask = async (blob) => {
    if (blob.size > MOST_BYTES) throw new Error(`larger than ${MOST_BYTES >> 20} MB; save it smaller`);
    for (;;) {
      const response = await fetch("/segment?photo", { method: "POST", body: blob }).catch(() => {
        throw new Error("the server gave no answer; is it still running?");
      });
      if (response.status === 503) {
        await pause(Number(response.headers.get("retry-after")) || 2);
        continue;
      }
      const values = await response.json().catch(() => ({ error: `the server failed (${response.status})` }));
      if (!response.ok) throw new Error(values.error);
      return values;
    }
  };

  const load = async (url) => {
    const response = await fetch(url);
    if (!response.ok) throw new Error((await response.json().catch(() => ({}))).error || "it could not be loaded");
    return response.blob();
  };

  const work = async (photo) => {
    if (photo.example !== undefined) {
      [photo.blob, photo.truth] = await Promise.all(
        [model.photo_form, "truth.png"].map((form) => load(`/examples/${photo.example}/${form}`)),
      );
    }
    const values = await ask(photo.blob);
    photo.mask = blobOf(values.mask, "image/png");
    photo.picture = blobOf(values.photo, "image/jpeg"); // what is shown is what the network saw
    const unlike = (values.unlike || []).join("; ");
    const doubt = unlike && `Unlike the photos that the network learnt from: ${unlike}. Look well at the classes.`;
    photo.warning = [values.warning, doubt].filter(Boolean).join(" ");
  };

  const workAll = async () => {
    if (working) return;
    working = true;
    for (let photo; (photo = photos.find((one) => one.state === "waiting")); ) {
      try {
        await work(photo);
        photo.state = "done";
      } catch (error) {
        photo.state = "failed";
        photo.error = `${photo.name}: ${error.message}`;
      }
      photo.blob = null;
      drawThumbnail(photo);
      if (photo === current) await show(photo);
    }
    working = false;
  };

  // ------------------------------------------------------------------------------------------------- the list of photos

  const drawThumbnail = (photo) => {
    const button = photo.button;
    button.parentElement.className = photo.state;
    let picture = element("span", "blank", photo.state === "failed" ? "!" : "…");
    if (photo.state === "done") {
      picture = element("img");
      picture.src = URL.createObjectURL(photo.picture);
      picture.alt = "";
    }
    button.replaceChildren(picture, element("span", "label", cut(stem(photo.name))));
    button.title = [photo.name, photo.warning].filter(Boolean).join(": ");
    const states = { waiting: ", is being computed", failed: ", failed" };
    button.setAttribute("aria-label", photo.name + (states[photo.state] || ""));
  };

  const add = (photo) => {
    Object.assign(photo, { state: "waiting", off: new Set(), button: element("button") });
    photo.button.type = "button";
    photo.button.addEventListener("click", () => show(photo));
    const item = element("li");
    item.append(photo.button);
    $("photos").append(item);
    $("photos").hidden = false;
    document.body.classList.remove("empty");
    photos.push(photo);
    drawThumbnail(photo);
    workAll();
    return photo;
  };

  const addFiles = (files) => {
    say("drop-error", "");
    const added = [...files].map((file) => add({ name: file.name || "pasted photo", blob: file }));
    if (added.length) show(added[0]);
    else say("drop-error", "There was no file in what came; drop or paste photos.");
  };

  // ------------------------------------------------------------------------------------------------- the large view

  const truthShown = () => seen.truth && document.querySelector("input[name=which]:checked").value === "truth";
  const idsShown = () => (truthShown() ? seen.truth : seen.prediction);

  const show = async (photo) => {
    current = photo;
    for (const one of photos) one.button.setAttribute("aria-current", String(one === photo));
    photo.button.scrollIntoView({ block: "nearest", inline: "nearest" }); // on a phone, examples lie far below it
    $("view").hidden = false;
    say("state", photo.state === "waiting" ? `${photo.name} is being computed …` : "");
    say("warning", photo.warning || "");
    say("view-error", photo.error || "");
    $("result").hidden = photo.state !== "done";
    if (photo.state !== "done") return;
    const [picture, mask, truth] = await Promise.all([
      createImageBitmap(photo.picture), numbersOfPng(photo.mask), photo.truth ? numbersOfPng(photo.truth) : null,
    ]);
    if (current !== photo) return;
    if (seen?.photo !== photo) cursor = [mask.width >> 1, mask.height >> 1];
    seen = { photo, width: mask.width, height: mask.height, prediction: mask.ids, truth: truth && truth.ids, picture };
    drawView();
  };

  const drawView = () => {
    const { picture, width, height } = seen;
    const stage = $("stage");
    stage.style.setProperty("--w", width);
    stage.style.setProperty("--h", height);
    for (const id of ["photo", "classes"]) Object.assign($(id), { width: picture.width, height: picture.height });
    $("photo").getContext("2d").drawImage(picture, 0, 0);
    $("name").textContent = current.name;
    $("which").hidden = !seen.truth;
    URL.revokeObjectURL($("get-mask").href);
    $("get-mask").href = URL.createObjectURL(current.mask);
    $("get-mask").download = `${stem(current.name)}_mask.png`;
    $("pointer").textContent = "";
    drawFacts();
    drawLegend();
    drawClasses();
  };

  const drawFacts = () => {
    let text = `${seen.width} × ${seen.height} pixels`;
    if (seen.truth) {
      let [right, known] = [0, 0];
      for (let i = 0; i < seen.truth.length; i++) {
        if (seen.truth[i] === NO_CLASS) continue;
        known++;
        if (seen.truth[i] === seen.prediction[i]) right++;
      }
      text += `, ${percent(right / Math.max(1, known))} right`;
    }
    $("facts").textContent = text;
    $("right-tag").textContent = truthShown() ? "truth" : "prediction";
  };

  const counts = (ids) => {
    const found = new Uint32Array(256);
    for (let i = 0; i < ids.length; i++) found[ids[i]]++;
    return found;
  };

  const drawLegend = () => {
    const found = counts(idsShown());
    const total = idsShown().length - found[NO_CLASS];
    const held = model.classes.filter(({ id }) => found[id]).sort((a, b) => found[b.id] - found[a.id]);
    $("legend").replaceChildren(...held.map((one) => {
      const button = element("button");
      button.type = "button";
      button.dataset.id = one.id;
      button.setAttribute("aria-pressed", String(!current.off.has(one.id)));
      button.style.setProperty("--color", one.color);
      button.append(
        element("span", "swatch"), element("span", "class", one.name), element("span", "share", percent(found[one.id] / total)),
      );
      button.title = `${one.id} ${one.name}`;
      button.addEventListener("click", () => switchClass(one.id, current.off.has(one.id)));
      const item = element("li");
      item.append(button);
      return item;
    }));
  };

  const switchClass = (id, on) => {
    if (on) current.off.delete(id);
    else current.off.add(id);
    for (const button of $("legend").querySelectorAll("button")) {
      button.setAttribute("aria-pressed", String(!current.off.has(Number(button.dataset.id))));
    }
    drawClasses();
  };

  const drawClasses = () => {
    const { width: w, height: h } = $("classes");
    const ids = idsShown();
    const bytes = new Uint8ClampedArray(4 * 256); // RGBA of each id; all zero is transparent
    for (const { id, color } of model.classes) {
      if (current.off.has(id)) continue;
      bytes.set([1, 3, 5].map((at) => parseInt(color.slice(at, at + 2), 16)), 4 * id);
      bytes[4 * id + 3] = 255;
    }
    const table = new Uint32Array(bytes.buffer);
    const image = new ImageData(w, h);
    const pixels = new Uint32Array(image.data.buffer);
    const columns = Int32Array.from({ length: w }, (_, x) => Math.floor(((x + 0.5) * seen.width) / w));
    for (let y = 0, to = 0; y < h; y++) {
      const start = Math.floor(((y + 0.5) * seen.height) / h) * seen.width;
      for (let x = 0; x < w; x++, to++) pixels[to] = table[ids[start + columns[x]]];
    }
    $("classes").getContext("2d").putImageData(image, 0, 0);
    $("classes").style.opacity = $("opacity").value / 100;
  };

  const moveHandle = (place) => {
    const value = Math.min(100, Math.max(0, place));
    $("stage").style.setProperty("--x", `${value}%`);
    $("handle").setAttribute("aria-valuenow", Math.round(value));
    $("handle").setAttribute("aria-valuetext", `${Math.round(value)}% photo, the rest classes`);
  };

  const className = (id) => (id === NO_CLASS ? "no class" : `${id} ${model.classes[id].name}`);

  const pointAt = (column, row) => {
    const at = row * seen.width + column;
    const [shown, other] = truthShown() ? [seen.truth, seen.prediction] : [seen.prediction, seen.truth];
    const parts = [element("b", "", className(shown[at])), ` at column ${column}, row ${row}`];
    if (other && other[at] !== shown[at]) parts.push(`; ${truthShown() ? "predicted" : "in truth"} ${className(other[at])}`);
    $("pointer").replaceChildren(...parts);
    for (const button of $("legend").querySelectorAll("button")) {
      button.classList.toggle("pointed", Number(button.dataset.id) === shown[at]);
    }
  };

  const pixelUnder = (event) => {
    const box = $("stage").getBoundingClientRect();
    const place = (share, length) => Math.min(length - 1, Math.max(0, Math.floor(share * length)));
    return [
      place((event.clientX - box.left) / box.width, seen.width), place((event.clientY - box.top) / box.height, seen.height),
    ];
  };

  const drawCross = () => {
    const [column, row] = cursor;
    Object.assign($("cross").style, {
      left: `${(100 * (column + 0.5)) / seen.width}%`, top: `${(100 * (row + 0.5)) / seen.height}%`,
    });
    $("cross").hidden = false;
    pointAt(column, row);
  };

  const moveCursor = (event) => {
    const ways = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
    if (!(event.key in ways) || event.target !== $("stage")) return;
    event.preventDefault();
    cursor = [seen.width, seen.height].map((length, axis) => {
      const step = event.shiftKey ? 1 : Math.max(1, Math.round(length / CURSOR_STEPS));
      return Math.min(length - 1, Math.max(0, cursor[axis] + step * ways[event.key][axis]));
    });
    drawCross();
  };

  const saveOverlay = () => {
    const canvas = element("canvas");
    [canvas.width, canvas.height] = [seen.picture.width, seen.picture.height];
    const context = canvas.getContext("2d");
    context.drawImage(seen.picture, 0, 0);
    context.globalAlpha = $("opacity").value / 100;
    context.drawImage($("classes"), 0, 0);
    const name = `${stem(current.name)}_overlay.png`;
    canvas.toBlob((blob) => {
      const link = element("a");
      link.href = URL.createObjectURL(blob);
      link.download = name;
      link.click();
      setTimeout(() => URL.revokeObjectURL(link.href), 10000);
    }, "image/png");
  };

  // ------------------------------------------------------------------------------------------------- the camera

  const stopCamera = () => {
    for (const track of $("video").srcObject?.getTracks() || []) track.stop();
    $("video").srcObject = null;
  };

  const startCamera = async () => {
    say("camera-error", "");
    $("take").disabled = true;
    $("camera").showModal();
    try {
      const wanted = { facingMode: "environment", width: { ideal: 1920 }, height: { ideal: 1080 } };
      const stream = await navigator.mediaDevices.getUserMedia({ video: wanted });
      $("video").srcObject = stream;
      if ($("camera").open) $("take").disabled = false;
      else stopCamera();
    } catch (error) {
      say("camera-error", `The camera cannot be used: ${error.message}; allow it, or choose photos instead.`);
    }
  };

  const takePhoto = () => {
    const canvas = element("canvas");
    [canvas.width, canvas.height] = [$("video").videoWidth, $("video").videoHeight];
    if (!canvas.width) return;
    canvas.getContext("2d").drawImage($("video"), 0, 0);
    canvas.toBlob((blob) => show(add({ name: `camera ${++photosTaken}.png`, blob })), "image/png");
    $("camera").close();
  };

  // ------------------------------------------------------------------------------------------------- wiring

  const showExample = (number) =>
    show(photos.find((photo) => photo.example === number) || add({ name: `example ${number + 1}`, example: number }));

  const drawModel = () => {
    const [height, width] = model.image_size;
    $("model").textContent = `${model.title}: ${model.classes.length} classes; sees photos at ${width} × ${height} pixels`;
    document.title = `semseg: ${model.title}`;
    $("examples").hidden = !(model.examples || model.note);
    $("examples-title").hidden = !model.examples;
    say("note", model.note);
    $("example-list").replaceChildren(...Array.from({ length: model.examples }, (_, number) => {
      const button = element("button");
      const picture = element("img");
      button.type = "button";
      Object.assign(picture, { src: `/examples/${number}/small.jpg`, alt: "" });
      button.append(picture, element("span", "label", `example ${number + 1}`));
      button.addEventListener("click", () => showExample(number));
      const item = element("li");
      item.append(button);
      return item;
    }));
  };

  const wireAdding = () => {
    $("choose").addEventListener("click", () => $("files").click());
    $("files").addEventListener("change", () => {
      addFiles($("files").files);
      $("files").value = "";
    });
    let inside = 0;
    const carriesFiles = (event) => event.dataTransfer?.types.includes("Files");
    const mark = (by) => document.body.classList.toggle("dragging", (inside = Math.max(0, inside + by)) > 0);
    addEventListener("dragenter", (event) => carriesFiles(event) && mark(1));
    addEventListener("dragleave", (event) => carriesFiles(event) && mark(-1));
    addEventListener("dragover", (event) => event.preventDefault());
    addEventListener("drop", (event) => {
      event.preventDefault();
      mark(-inside);
      addFiles(event.dataTransfer.files);
    });
    addEventListener("paste", (event) => event.clipboardData.files.length && addFiles(event.clipboardData.files));
    $("open-camera").hidden = !navigator.mediaDevices?.getUserMedia;
    $("open-camera").addEventListener("click", startCamera);
    $("take").addEventListener("click", takePhoto);
    $("close-camera").addEventListener("click", () => $("camera").close());
    $("camera").addEventListener("close", stopCamera);
  };

  const wireHandle = () => {
    const handle = $("handle");
    handle.addEventListener("pointerdown", (event) => event.button === 0 && handle.setPointerCapture(event.pointerId));
    handle.addEventListener("pointermove", (event) => {
      if (!handle.hasPointerCapture(event.pointerId)) return;
      const box = $("stage").getBoundingClientRect();
      moveHandle((100 * (event.clientX - box.left)) / box.width);
    });
    handle.addEventListener("keydown", (event) => {
      const now = Number(handle.getAttribute("aria-valuenow"));
      const places = {
        ArrowLeft: now - 2, ArrowDown: now - 2, ArrowRight: now + 2, ArrowUp: now + 2,
        PageDown: now - 20, PageUp: now + 20, Home: 0, End: 100,
      };
      if (!(event.key in places)) return;
      event.preventDefault();
      moveHandle(places[event.key]);
    });
  };

  const wireView = () => {
    for (const kind of ["pointermove", "pointerdown"]) {
      $("stage").addEventListener(kind, (event) => {
        $("cross").hidden = true;
        pointAt(...pixelUnder(event));
      });
    }
    $("stage").addEventListener("focus", () => $("stage").matches(":focus-visible") && drawCross());
    $("stage").addEventListener("blur", () => ($("cross").hidden = true));
    $("stage").addEventListener("keydown", moveCursor);
    $("opacity").addEventListener("input", () => ($("classes").style.opacity = $("opacity").value / 100));
    $("which").addEventListener("change", () => (drawFacts(), drawLegend(), drawClasses()));
    $("all").addEventListener("click", () => (current.off.clear(), drawLegend(), drawClasses()));
    $("none").addEventListener("click", () => {
      for (const { id } of model.classes) current.off.add(id);
      drawLegend();
      drawClasses();
    });
    $("get-overlay").addEventListener("click", saveOverlay);
  };

  const start = async () => {
    document.body.classList.add("empty");
    document.querySelector(".origin").textContent = location.origin;
    wireAdding();
    wireHandle();
    wireView();
    try {
      model = await (await fetch("/model")).json();
      drawModel();
    } catch {
      say("drop-error", "The server gave no answer; is it still running?");
    }
  };

  start();
})();
