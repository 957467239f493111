// Draws an image and its boxes on a canvas.

const GOLDEN_RATIO = 0.618034 // of the hue circle, as in visualize/drawing.py: each class has the color it has there

/** Returns red, green and blue of a class, 0..255. */
export function classRgb(label) {
  const hue = ((label * GOLDEN_RATIO) % 1) * 6, sector = Math.floor(hue), rest = hue - sector
  const value = 0.9, low = value * 0.1, falling = value * (1 - 0.9 * rest), rising = value * (1 - 0.9 * (1 - rest))
  const sectors = [
    ...[[value, rising, low], [falling, value, low], [low, value, rising]],
    ...[[low, falling, value], [rising, low, value], [value, low, falling]],
  ]
  return sectors[sector].map(each => Math.trunc(255 * each))
}

/** Returns the color of a class for CSS and canvases. */
export function classColor(label, opacity = 1) {
  return `rgb(${classRgb(label).join(" ")} / ${opacity})`
}

/** Returns black or white, whichever has the higher contrast on a color (WCAG). */
function textColor(rgb) {
  const [red, green, blue] = rgb.map(each => (each / 255) ** 2.2)
  return 0.2126 * red + 0.7152 * green + 0.0722 * blue > 0.179 ? "#000" : "#fff"
}

/**
 * Draws an image over the whole canvas, and boxes with captions, best on top. Captions are placed best first, that of
 * the chosen detection before all: above the box, else inside its top edge, else not at all.
 * `unit` is the size of a CSS pixel in pixels of the canvas; `chosen`, if not null, is the detection that stands out.
 */
export function draw(canvas, image, detections, unit, chosen = null) {
  const context = canvas.getContext("2d")
  const scale = canvas.width / image.width
  context.imageSmoothingQuality = "high"
  context.drawImage(image, 0, 0, canvas.width, canvas.height)
  const bestFirst = [...detections].sort((one, other) => (other === chosen) - (one === chosen))
  const opacity = detection => (chosen && detection !== chosen ? 0.3 : 1)
  for (const detection of [...bestFirst].reverse()) {
    context.globalAlpha = opacity(detection)
    drawBox(context, detection, scale, unit, detection === chosen)
  }
  const taken = [] // the places of captions
  for (const detection of bestFirst) {
    context.globalAlpha = opacity(detection)
    drawCaption(context, detection, scale, unit, taken)
  }
  context.globalAlpha = 1
}

function drawBox(context, { label, box_xyxy }, scale, unit, isChosen) {
  const [x1, y1, x2, y2] = box_xyxy.map(side => side * scale)
  context.strokeStyle = classColor(label)
  context.lineWidth = (isChosen ? 4 : 2) * unit
  context.strokeRect(x1, y1, x2 - x1, y2 - y1)
  if (isChosen) {
    context.fillStyle = classColor(label, 0.2)
    context.fillRect(x1, y1, x2 - x1, y2 - y1)
  }
}

function drawCaption(context, { label, name, score, box_xyxy: [x1, y1] }, scale, unit, taken) {
  const caption = `${name} ${score.toFixed(2)}`, height = 18 * unit
  context.font = `600 ${12 * unit}px system-ui, sans-serif`
  const width = context.measureText(caption).width + 8 * unit
  // The caption stays inside the image even if the box touches the top or the right edge.
  const above = Math.max(y1 * scale - height, 0)
  const left = Math.max(Math.min(x1 * scale - unit, context.canvas.width - width), 0)
  const isFree = top => top + height <= context.canvas.height && taken.every(each =>
    left >= each.left + each.width || each.left >= left + width || Math.abs(top - each.top) >= height)
  const top = [above, above + height].find(isFree)
  if (top === undefined) return
  taken.push({ left, top, width })
  context.fillStyle = classColor(label)
  context.fillRect(left, top, width, height)
  context.fillStyle = textColor(classRgb(label))
  context.textBaseline = "middle"
  context.fillText(caption, left + 4 * unit, top + height / 2 + 0.5 * unit)
}
