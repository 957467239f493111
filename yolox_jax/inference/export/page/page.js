// The page: takes photos and the camera, shows what is found.

import { Camera } from "./camera.js"
import { Detector } from "./detector.js"
import { classColor, draw } from "./view.js"

const byId = id => document.getElementById(id)
const view = byId("view"), list = byId("list"), stage = byId("stage")
const detector = new Detector(), camera = new Camera()
const state = {
  name: "", // of the photo
  image: null, // a canvas of its size
  detections: [], // from the lowest threshold of the slider on
  hidden: new Set(), // labels
  chosen: null, // the detection under the pointer or the focus
}

const shown = () => state.detections.filter(each => each.score >= threshold() && !state.hidden.has(each.label))
const threshold = () => byId("threshold").valueAsNumber

// --- start

async function start() {
  try {
    say("Loading the model …")
    const model = await detector.load("model.onnx", share => { byId("progress").value = share })
    const { title, classNames, conf, leastConf, examples, hasGpu } = model
    document.title = byId("title").textContent = title
    byId("about").textContent = classNames.length === 1 ? classNames[0] : `${classNames.length} classes`
    byId("threshold").min = leastConf
    byId("threshold").value = conf
    byId("backend-choice").hidden = !hasGpu
    addExamples(examples)
    await startBackend("")
    document.querySelectorAll("button:disabled").forEach(button => { button.disabled = false })
  } catch (error) {
    reportNoStart(error)
  } finally {
    byId("progress").hidden = true
  }
}

function reportNoStart(error) {
  say("The model cannot be started")
  warn(capitalized(error.message))
}

async function startBackend(wanted) {
  say("Starting …")
  byId("progress").removeAttribute("value") // it moves without an end
  byId("progress").hidden = false
  const { backend, threads, difference, reason } = await detector.start(wanted).finally(() => {
    byId("progress").hidden = true
  })
  byId("backend").value = backend
  state.backend = backend === "webgpu" ? "WebGPU" : threads > 1 ? `CPU, ${threads} threads` : "CPU, 1 thread"
  say("Ready", state.backend)
  warn(reason && `WebGPU failed, so the CPU is used: ${reason}`)
  byId("certificate").hidden = !difference?.isWithin
  if (!difference) return
  const { pairs, onlyInOne, boxPixels, isWithin } = difference
  byId("certificate").textContent = `Checked: this browser finds what the weights find in a test image (${pairs} ` +
    `${pairs === 1 ? "object" : "objects"}, boxes within ${boxPixels.toPrecision(1)} pixels).`
  if (!isWithin) {
    warn(`This browser does not find what the weights find in a test image: boxes differ by ${boxPixels.toFixed(1)} ` +
      `pixels, ${onlyInOne} objects are found by one of them only. Does it change pictures against tracking?`)
  }
}

function addExamples(pngs) {
  for (const [i, png] of pngs.entries()) {
    const button = add(byId("examples"), "button", { disabled: true })
    add(button, "img", { src: `data:image/png;base64,${png}`, alt: `Test image ${i + 1}` })
    button.onclick = () => open(button.firstChild, `test image ${i + 1}`)
  }
  byId("examples").hidden = !pngs.length
}

// --- pictures

/** Shows a picture, a file or an element of the page, and what is in it. */
async function open(picture, name) {
  closeCamera()
  warn("")
  let bitmap
  try {
    // As the training reads it: turned upright, without the file's color profile.
    bitmap = await createImageBitmap(picture, { colorSpaceConversion: "none", premultiplyAlpha: "none" })
  } catch {
    return warn(`${name} is not a picture that this browser can read.`)
  }
  await detect(bitmap, name)
}

/** Detects in a picture, or again in the last one. */
async function detect(bitmap, name = state.name) {
  try {
    await queued(async () => {
      const image = bitmap ? canvasOf(bitmap) : state.image
      const pixels = image.getContext("2d", { willReadFrequently: true }).getImageData(0, 0, image.width, image.height)
      const found = await detector.detect(pixels)
      show(image, name, found)
    })
  } catch (error) {
    warn(`Nothing could be detected in ${name}: ${error.message}`)
  }
}

// One at a time: the backend must not change under a picture that is being looked at.
let last = Promise.resolve()
function queued(work) {
  const next = last.then(work)
  last = next.catch(() => {})
  return next
}

function canvasOf(bitmap) {
  const canvas = Object.assign(document.createElement("canvas"), { width: bitmap.width, height: bitmap.height })
  canvas.getContext("2d", { willReadFrequently: true }).drawImage(bitmap, 0, 0)
  bitmap.close()
  return canvas
}

function show(image, name, { detections, resizeMs, networkMs }) {
  Object.assign(state, { image, name, detections, chosen: null, times: { resizeMs, networkMs } })
  byId("empty").hidden = true
  for (const each of [view, byId("controls"), byId("actions")]) each.hidden = false
  render()
}

// --- camera

async function openCamera(id) {
  let stream
  const isOpen = () => camera.stream === stream // and neither closed nor changed
  try {
    warn("")
    stream = await camera.open(id)
    if (!stream) return
    const cameras = await camera.list()
    if (!isOpen()) return
    byId("cameras").replaceChildren(...cameras.map(each => new Option(each.name, each.id, each.isOn, each.isOn)))
    byId("cameras").hidden = cameras.length < 2
    setCameraButtons("Stop camera")
    while (isOpen()) {
      const frame = await camera.frame()
      if (frame && isOpen()) await detect(frame, "camera")
      await new Promise(requestAnimationFrame) // a hidden page rests here
    }
  } catch (error) {
    if (stream && !isOpen()) return // there are no frames of a camera that was closed
    closeCamera()
    warn(capitalized(error.message))
  }
}

camera.onEnded = () => {
  closeCamera()
  warn("The camera has stopped: it was unplugged, or is not allowed any more.")
}

function closeCamera() {
  camera.close()
  byId("cameras").hidden = true
  setCameraButtons("Camera")
}

const setCameraButtons = text => { document.querySelector("#actions .camera").textContent = text }

// --- results

function render() {
  const found = shown()
  byId("threshold-text").textContent = threshold().toFixed(2)
  renderClasses()
  list.replaceChildren(...found.map(listItem))
  const { resizeMs, networkMs } = state.times
  const rate = camera.isOn ? ` · ${(1000 / (resizeMs + networkMs)).toFixed(1)} per second` : ""
  byId("status").ariaLive = camera.isOn ? "off" : "polite" // nobody wants each frame read out
  say(
    found.length === 1 ? "1 object" : `${found.length || "No"} objects`,
    `${networkMs.toFixed(0)} ms network · ${resizeMs.toFixed(0)} ms resizing${rate}`,
    state.backend,
  )
  view.setAttribute("aria-label", `${state.name}: ${found.map(each => each.name).join(", ") || "nothing found"}`)
  paint()
}

function renderClasses() {
  const counts = new Map([...state.hidden].map(label => [label, 0]))
  for (const { label, score } of state.detections) {
    if (score >= threshold()) counts.set(label, (counts.get(label) ?? 0) + 1)
  }
  const focused = document.activeElement?.dataset.label
  const chips = [...counts].sort(([one], [other]) => one - other).map(([label, count]) => {
    const chip = document.createElement("button")
    chip.dataset.label = label
    chip.setAttribute("aria-pressed", !state.hidden.has(label))
    chip.style.setProperty("--color", classColor(label))
    add(chip, "span", { className: "swatch" })
    chip.append(detector.model.classNames[label], " ")
    add(chip, "small", { textContent: count })
    chip.onclick = () => {
      state.hidden.delete(label) || state.hidden.add(label)
      render()
    }
    return chip
  })
  byId("classes").replaceChildren(...chips)
  chips.find(chip => chip.dataset.label === focused)?.focus()
}

function listItem(detection) {
  const { name, label, score, box_xyxy } = detection
  const item = document.createElement("li"), button = add(item, "button")
  item.style.setProperty("--color", classColor(label))
  add(button, "span", { className: "swatch" })
  add(button, "span", { textContent: name })
  add(button, "span", { className: "bar" }).style.setProperty("--score", score)
  add(button, "small", { textContent: score.toFixed(2) })
  button.title = box_xyxy.map(side => side.toFixed(0)).join(", ")
  button.onpointerenter = button.onfocus = () => choose(detection)
  button.onpointerleave = button.onblur = () => choose(null)
  button.onkeydown = event => {
    const next = { ArrowDown: item.nextSibling, ArrowUp: item.previousSibling }[event.key]
    if (next !== undefined) event.preventDefault()
    next?.firstChild.focus()
  }
  return item
}

/** Makes a detection stand out in picture and list. */
function choose(detection) {
  if (detection === state.chosen) return
  state.chosen = detection
  const index = shown().indexOf(detection)
  ;[...list.children].forEach((item, i) => item.firstChild.classList.toggle("chosen", i === index))
  paint()
}

/** Draws the picture as large as it fits. */
function paint() {
  if (!state.image) return
  const { width, height } = state.image
  const isNarrow = matchMedia("(max-width: 820px)").matches
  const room = { width: stage.clientWidth, height: isNarrow ? innerHeight * 0.7 : stage.clientHeight }
  const scale = Math.min(room.width / width, room.height / height)
  view.style.width = `${width * scale}px`
  view.style.height = `${height * scale}px`
  const unit = devicePixelRatio
  view.width = Math.max(1, Math.round(width * scale * unit))
  view.height = Math.max(1, Math.round(height * scale * unit))
  draw(view, state.image, shown(), unit, state.chosen)
}

view.onpointermove = event => {
  const x = (event.offsetX / view.clientWidth) * state.image.width
  const y = (event.offsetY / view.clientHeight) * state.image.height
  const area = ({ box_xyxy: [x1, y1, x2, y2] }) => (x2 - x1) * (y2 - y1)
  const under = shown().filter(({ box_xyxy: [x1, y1, x2, y2] }) => x1 <= x && x <= x2 && y1 <= y && y <= y2)
  choose(under.sort((one, other) => area(one) - area(other))[0] ?? null)
  list.querySelector(".chosen")?.scrollIntoView({ block: "nearest" })
}
view.onpointerleave = () => choose(null)

// --- files

function saveJson() {
  const { width, height } = state.image
  const result = { image: state.name, width, height, threshold: threshold(), detections: shown() }
  save(new Blob([JSON.stringify(result, null, 1)], { type: "application/json" }), "json")
}

function saveImage() {
  const { width, height } = state.image
  const canvas = Object.assign(document.createElement("canvas"), { width, height })
  draw(canvas, state.image, shown(), Math.max(1, Math.max(width, height) / 900))
  canvas.toBlob(blob => save(blob, "png"))
}

function save(blob, ending) {
  const link = Object.assign(document.createElement("a"), { href: URL.createObjectURL(blob) })
  link.download = `${state.name.replace(/\.[^.]*$/, "")} detected.${ending}`
  link.click()
  URL.revokeObjectURL(link.href)
}

// --- small things

function add(parent, name, properties = {}) {
  const element = Object.assign(document.createElement(name), properties)
  parent.append(element)
  return element
}

function say(text, ...details) {
  byId("status").replaceChildren()
  add(byId("status"), "b", { textContent: text })
  for (const detail of details) add(byId("status"), "small", { textContent: detail })
}

function warn(text) {
  byId("message").textContent = text
  byId("message").hidden = !text
}

const capitalized = text => text.charAt(0).toUpperCase() + text.slice(1)

// --- what the user does

byId("threshold").oninput = () => state.image && render()
byId("file").onchange = event => {
  const [file] = event.target.files
  if (file) open(file, file.name)
  event.target.value = "" // so that the same file can be chosen again
}
for (const button of document.querySelectorAll(".choose")) button.onclick = () => byId("file").click()
for (const button of document.querySelectorAll(".camera")) {
  button.onclick = () => (camera.isOn ? closeCamera() : openCamera())
}
byId("backend").onchange = async event => {
  try {
    await queued(() => startBackend(event.target.value))
    if (state.image && !camera.isOn) await detect()
  } catch (error) {
    reportNoStart(error)
  }
}
byId("cameras").onchange = event => openCamera(event.target.value)
byId("save-json").onclick = saveJson
byId("save-image").onclick = saveImage

document.ondragover = event => {
  event.preventDefault()
  document.body.classList.add("dropping")
}
document.ondragleave = event => event.relatedTarget || document.body.classList.remove("dropping")
document.ondrop = event => {
  event.preventDefault()
  document.body.classList.remove("dropping")
  const [file] = event.dataTransfer.files
  if (file) open(file, file.name)
  else warn("What was dropped is not a file; save the picture first.")
}
document.onpaste = event => {
  const [file] = event.clipboardData.files
  if (file) open(file, file.name)
}
new ResizeObserver(paint).observe(stage)
queued(start) // pictures that come meanwhile wait
