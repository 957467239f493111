// The network as the page sees it: loads the model, chooses GPU or CPU, and detects.

const NOT_LOADED = "the file worker.js cannot be loaded: it is not on the server, is blocked, or the browser is too old"

export class Detector {
  #worker = new Worker(new URL("worker.js", import.meta.url), { type: "module" })
  #waiting = new Map() // from the number of a call to the functions that settle its promise
  #calls = 0
  #failure = null // why the worker cannot answer

  constructor() {
    this.#worker.onmessage = ({ data: { id, result, error } }) => {
      const { resolve, reject } = this.#waiting.get(id)
      this.#waiting.delete(id)
      error === undefined ? resolve(result) : reject(new Error(error))
    }
    this.#worker.onerror = event => {
      // An error of loading comes without a message, and before or after the first call.
      this.#failure = new Error(event.message || NOT_LOADED)
      for (const { reject } of this.#waiting.values()) reject(this.#failure)
      this.#waiting.clear()
    }
  }

  /** Downloads and reads the model; `onProgress` gets the share that is here. Returns what worker.js says of it. */
  async load(url, onProgress) {
    const bytes = await download(url, onProgress)
    this.model = await this.#call("read", [bytes], [bytes])
    return this.model
  }

  /**
   * Starts on a GPU if there is one that is shown to find what the run found, else on the CPU. `wanted` is "webgpu",
   * which a test image may refute but need not confirm, or "wasm".
   * Returns the backend, its threads, how it compares with the run, and why the GPU is not used if it failed.
   */
  async start(wanted) {
    let reason = ""
    const { hasGpu, isSlowGpu, canCheck } = this.model
    if (wanted === "webgpu" || (!wanted && hasGpu && !isSlowGpu && canCheck)) {
      try {
        const started = await this.#call("start", ["webgpu"])
        if (started.difference?.isWithin ?? Boolean(wanted)) return { ...started, reason }
        reason = "it does not find what the run found"
      } catch (error) {
        reason = error.message
      }
    }
    return { ...(await this.#call("start", ["wasm"])), reason }
  }

  /** Detects in an ImageData, which is given away. */
  detect({ data, width, height }) {
    return this.#call("detect", [data.buffer, width, height], [data.buffer])
  }

  #call(method, args, transferred = []) {
    if (this.#failure) return Promise.reject(this.#failure)
    const id = this.#calls++
    return new Promise((resolve, reject) => {
      this.#waiting.set(id, { resolve, reject })
      this.#worker.postMessage({ id, method, args }, transferred)
    })
  }
}

async function download(url, onProgress) {
  const response = await fetch(url)
  if (!response.ok) throw new Error(`${url} cannot be loaded: the server answered ${response.status}`)
  const total = response.headers.has("Content-Encoding") ? 0 : Number(response.headers.get("Content-Length"))
  const parts = []
  let have = 0
  for (const reader = response.body.getReader(); ; ) {
    const { done, value } = await reader.read()
    if (done) break
    parts.push(value)
    have += value.length
    if (total) onProgress(have / total)
  }
  return new Blob(parts).arrayBuffer()
}
