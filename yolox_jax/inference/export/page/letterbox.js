// Letterboxes an image as augment/geometry.py does: the same bytes as cv2.resize with INTER_LINEAR gives.

const PAD_VALUE = 114
const ONE = 2048 // OpenCV's weights are whole numbers of 11 bits

/**
 * Scales an RGBA image into the top left corner of a BGR image [inputHeight, inputWidth, 3], and fills the rest.
 * Returns its bytes, and the scale: pixel coordinates of the image times the scale are those of the result.
 */
export function letterbox(rgba, width, height, inputWidth, inputHeight) {
  const scale = Math.min(inputHeight / height, inputWidth / width)
  const newWidth = Math.max(1, Math.trunc(width * scale)), newHeight = Math.max(1, Math.trunc(height * scale))
  const bgr = new Uint8Array(inputHeight * inputWidth * 3).fill(PAD_VALUE)
  const resize = width === 2 * newWidth && height === 2 * newHeight ? halve : interpolate
  resize(rgba, width, height, bgr, newWidth, newHeight, inputWidth)
  return { bgr, scale }
}

/** Bilinear interpolation in whole numbers, rounded where OpenCV rounds. */
function interpolate(rgba, width, height, bgr, newWidth, newHeight, stride) {
  const columns = neighbors(width, newWidth, true), rows = neighbors(height, newHeight, false)
  for (let y = 0, to = 0; y < newHeight; y++, to = 3 * y * stride) {
    const top = 4 * width * rows.first[y], bottom = 4 * width * rows.second[y]
    const above = rows.firstWeight[y], below = rows.secondWeight[y]
    for (let x = 0; x < newWidth; x++) {
      const left = 4 * columns.first[x], right = 4 * columns.second[x]
      const before = columns.firstWeight[x], after = columns.secondWeight[x]
      for (let channel = 2; channel >= 0; channel--) { // RGB to BGR
        const upper = rgba[top + left + channel] * before + rgba[top + right + channel] * after
        const lower = rgba[bottom + left + channel] * before + rgba[bottom + right + channel] * after
        bgr[to++] = (((above * (upper >> 4)) >> 16) + ((below * (lower >> 4)) >> 16) + 2) >> 2
      }
    }
  }
}

/** OpenCV averages blocks of 2x2 if both sides are halved exactly. */
function halve(rgba, width, height, bgr, newWidth, newHeight, stride) {
  for (let y = 0, to = 0; y < newHeight; y++, to = 3 * y * stride) {
    for (let x = 0; x < newWidth; x++) {
      const one = 8 * (y * width + x), below = one + 4 * width
      for (let channel = 2; channel >= 0; channel--) {
        const sum = rgba[one + channel] + rgba[one + 4 + channel] + rgba[below + channel] + rgba[below + 4 + channel]
        bgr[to++] = (sum + 2) >> 2
      }
    }
  }
}

/** For each new pixel along one side: the two old ones that it lies between, and their weights. */
function neighbors(size, newSize, isColumn) {
  const scale = 1 / (newSize / size)
  const [first, second, firstWeight, secondWeight] = Array.from({ length: 4 }, () => new Int32Array(newSize))
  for (let i = 0; i < newSize; i++) {
    const place = Math.fround((i + 0.5) * scale - 0.5)
    const before = Math.floor(place)
    const isInside = 0 <= before && before < size - 1
    // At the edges, the two are one pixel; for rows, OpenCV leaves the weights as they are.
    const fraction = isColumn && !isInside ? 0 : Math.fround(place - before)
    first[i] = clamp(before, size)
    second[i] = clamp(before + 1, size)
    firstWeight[i] = roundToEven(Math.fround(1 - fraction) * ONE)
    secondWeight[i] = roundToEven(fraction * ONE)
  }
  return { first, second, firstWeight, secondWeight }
}

const clamp = (index, size) => Math.min(Math.max(index, 0), size - 1)

function roundToEven(value) {
  const low = Math.floor(value), rest = value - low
  return rest > 0.5 || (rest === 0.5 && low % 2) ? low + 1 : low
}
