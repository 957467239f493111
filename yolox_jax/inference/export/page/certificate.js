// Compares what this browser detects with what the run detected, as inference/export/certificate.py does.

const SAME_OBJECT = 0.5 // IoU from which a detection of the same class is the expected one

/**
 * Compares two lists of { label, score, box_xyxy }, best first. Returns the number of pairs, the largest differences of
 * boxes and scores, and how many objects only one of them has, unless their score may be on either side of `conf`.
 */
export function compare(expected, found, conf, scoreBound) {
  const free = new Set(found), missing = []
  const difference = { pairs: 0, boxPixels: 0, score: 0, onlyInOne: 0 }
  for (const one of expected) {
    let best = null
    for (const other of free) {
      if (other.label === one.label && (!best || iou(one, other) > iou(one, best))) best = other
    }
    if (!best || iou(one, best) < SAME_OBJECT) {
      missing.push(one)
      continue
    }
    free.delete(best)
    difference.pairs++
    difference.score = Math.max(difference.score, Math.abs(one.score - best.score))
    const sides = one.box_xyxy.map((side, i) => Math.abs(side - best.box_xyxy[i]))
    difference.boxPixels = Math.max(difference.boxPixels, ...sides)
  }
  difference.onlyInOne = [...missing, ...free].filter(each => each.score > conf + scoreBound).length
  return difference
}

function iou({ box_xyxy: one }, { box_xyxy: other }) {
  const width = Math.min(one[2], other[2]) - Math.max(one[0], other[0])
  const height = Math.min(one[3], other[3]) - Math.max(one[1], other[1])
  if (width <= 0 || height <= 0) return 0
  const area = box => (box[2] - box[0]) * (box[3] - box[1])
  return (width * height) / (area(one) + area(other) - width * height)
}
