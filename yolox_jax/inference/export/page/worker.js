// Runs the network, beside the page so that the page stays responsive. Answers { id, method, args } by { id, result }.

import { compare } from "./certificate.js"
import { letterbox } from "./letterbox.js"
import { readMetadata } from "./model_file.js"

// Of the certificate's own bound, which is for CPUs: a GPU adds in another order, and its functions are less exact.
const GPU_SLACK = 10

let ort, session, model

const methods = {
  /** Reads the model, and returns what the page shows of it. */
  async read(bytes) {
    const metadata = readMetadata(new Uint8Array(bytes))
    if (!metadata.page || !metadata.class_names) throw new Error("the model was not exported with --format=web")
    const { title, size_hw: sizeHw, conf, least_conf: leastConf } = JSON.parse(metadata.page)
    const certificate = metadata.certificate && JSON.parse(metadata.certificate)
    model = { bytes, sizeHw, classNames: JSON.parse(metadata.class_names), certificate }
    const adapter = await navigator.gpu?.requestAdapter().catch(() => null)
    return {
      ...{ title, conf, leastConf, classNames: model.classNames },
      examples: certificate ? certificate.images.map(each => each.png) : [],
      canCheck: Boolean(checkedImage()), // a GPU must show that it finds what the run finds
      hasGpu: Boolean(adapter),
      isSlowGpu: Boolean(adapter?.info?.isFallbackAdapter), // a GPU that the CPU imitates
    }
  },

  /** Opens the model with "webgpu" or "wasm", and compares what it finds in a test image with the run. */
  async start(backend) {
    const isGpu = backend === "webgpu"
    ort = await import(isGpu ? "./ort.webgpu.min.js" : "./ort.wasm.min.js")
    ort.env.logLevel = "error"
    const binary = new URL(`ort-wasm-simd-threaded${isGpu ? ".asyncify" : ""}`, import.meta.url).href
    ort.env.wasm.wasmPaths = { mjs: `${binary}.js`, wasm: `${binary}.wasm` } // it would ask for .mjs
    // Threads need memory that they share, which browsers give to pages with the headers COOP and COEP alone.
    ort.env.wasm.numThreads = self.crossOriginIsolated ? Math.min(4, navigator.hardwareConcurrency || 1) : 1
    await session?.release()
    session = null
    session = await ort.InferenceSession.create(model.bytes, { executionProviders: [backend] })
    const difference = await check(backend)
    return { backend, threads: ort.env.wasm.numThreads, difference }
  },

  /** Detects in an RGBA image. Boxes are in its pixels, clipped to it, best score first. */
  async detect(rgba, width, height) {
    const started = performance.now()
    const [inputHeight, inputWidth] = model.sizeHw
    const { bgr, scale } = letterbox(new Uint8ClampedArray(rgba), width, height, inputWidth, inputHeight)
    const resized = performance.now()
    const found = await run(bgr)
    const inImage = box => box.map((side, i) => Math.min(Math.max(side / scale, 0), i % 2 ? height : width))
    const detections = found
      .map(each => ({ name: model.classNames[each.label], ...each, box_xyxy: inImage(each.box_xyxy) }))
      .filter(({ box_xyxy: [x1, y1, x2, y2] }) => x2 > x1 && y2 > y1) // a box in the padding alone has no area
    return { detections, resizeMs: resized - started, networkMs: performance.now() - resized }
  },
}

/** Returns the objects in one letterboxed image; boxes are in its pixels. */
async function run(bgr) {
  const images = new ort.Tensor("uint8", bgr, [1, ...model.sizeHw, 3])
  const { boxes, scores, labels, mask } = await session.run({ images })
  const detections = []
  for (let i = 0; i < mask.data.length; i++) {
    if (!mask.data[i]) continue
    const box_xyxy = [...boxes.data.subarray(4 * i, 4 * i + 4)]
    detections.push({ label: labels.data[i], score: scores.data[i], box_xyxy })
  }
  return detections
}

/** Returns the first test image in which the run finds something; undefined without one. */
function checkedImage() {
  return model.certificate?.images.find(each => each.detections.length)
}

/** Returns the differences from the run in that test image, or null if they say nothing. */
async function check(backend) {
  const image = checkedImage()
  if (!image) return null
  const { detect: { conf }, bound } = model.certificate
  const png = Uint8Array.from(atob(image.png), each => each.charCodeAt(0))
  const bitmap = await createImageBitmap(new Blob([png]), { colorSpaceConversion: "none" })
  const context = new OffscreenCanvas(bitmap.width, bitmap.height).getContext("2d", { willReadFrequently: true })
  context.drawImage(bitmap, 0, 0)
  const { data } = context.getImageData(0, 0, bitmap.width, bitmap.height)
  const [inputHeight, inputWidth] = model.sizeHw
  const found = await run(letterbox(data, bitmap.width, bitmap.height, inputWidth, inputHeight).bgr)
  const slack = backend === "webgpu" ? GPU_SLACK : 1
  const difference = compare(image.detections, found, conf, slack * bound.score)
  if (!difference.pairs && !difference.onlyInOne) return null // all scores are at the threshold
  const isWithin = difference.boxPixels <= slack * bound.box_pixels && difference.score <= slack * bound.score
  return { ...difference, isWithin: isWithin && !difference.onlyInOne }
}

self.onmessage = async ({ data: { id, method, args } }) => {
  try {
    self.postMessage({ id, result: await methods[method](...args) })
  } catch (error) {
    self.postMessage({ id, error: String(error?.message ?? error) })
  }
}
