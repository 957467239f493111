// The cameras of the device.

const WHY = {
  NotAllowedError: "the camera was not allowed; allow it in the browser's settings for this page",
  NotFoundError: "this device has no camera",
  NotReadableError: "another program uses the camera",
  OverconstrainedError: "that camera is not there any more",
}

export class Camera {
  #video = Object.assign(document.createElement("video"), { muted: true, playsInline: true })
  #closed = 0 // how often `close` was called
  onEnded = () => {} // called if the camera stops by itself

  get isOn() {
    return Boolean(this.stream)
  }

  /** The open camera, or null. */
  get stream() {
    return this.#video.srcObject
  }

  /**
   * Opens a camera by its id; without one, the one at the back of a phone. Returns its stream, or null if it was closed
   * or another was opened meanwhile.
   */
  async open(id) {
    if (!navigator.mediaDevices) throw new Error("browsers give the camera to https and localhost pages alone")
    this.close()
    const closed = this.#closed
    const which = id ? { deviceId: { exact: id } } : { facingMode: "environment" }
    const video = { ...which, width: { ideal: 1280 }, height: { ideal: 720 } }
    try {
      const stream = await navigator.mediaDevices.getUserMedia({ video })
      if (closed !== this.#closed) {
        stop(stream)
        return null
      }
      this.#video.srcObject = stream
      stream.getVideoTracks()[0].onended = () => stream === this.stream && this.onEnded()
      await this.#video.play()
      return stream
    } catch (error) {
      if (closed !== this.#closed) return null
      this.close()
      throw new Error(WHY[error.name] ?? `the camera cannot be opened (${error.message})`)
    }
  }

  close() {
    this.#closed++
    if (this.stream) stop(this.stream)
    this.#video.srcObject = null
  }

  /** Returns the present frame, or null if there is none yet. */
  frame() {
    return this.#video.videoWidth ? createImageBitmap(this.#video) : null
  }

  /** Lists the cameras as { id, name }, and which one is on. Their names are known once one was allowed. */
  async list() {
    const devices = (await navigator.mediaDevices.enumerateDevices()).filter(each => each.kind === "videoinput")
    const on = this.stream?.getVideoTracks()[0].getSettings().deviceId
    const described = ({ deviceId: id, label }, i) => ({ id, name: label || `Camera ${i + 1}`, isOn: id === on })
    return devices.map(described)
  }
}

const stop = stream => stream.getTracks().forEach(track => track.stop())
