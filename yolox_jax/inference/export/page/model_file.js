// Reads the texts that tools/export put into an ONNX file. The browser's ONNX Runtime does not give them.

const METADATA = 14 // metadata_props of ModelProto, in onnx.proto
const KEY = 1, VALUE = 2

/** Returns the metadata of an ONNX file as an object of texts. */
export function readMetadata(bytes) {
  const decoder = new TextDecoder()
  const metadata = {}
  for (const [field, value] of fields(bytes)) {
    if (field !== METADATA) continue
    const entry = Object.fromEntries(fields(value))
    metadata[decoder.decode(entry[KEY])] = decoder.decode(entry[VALUE])
  }
  return metadata
}

/** Yields number and value of each field of a protocol buffer; the only kinds in ModelProto are numbers and bytes. */
function* fields(bytes) {
  let at = 0
  const number = () => {
    let value = 0, factor = 1, byte
    do {
      if (at >= bytes.length) throw new Error("the model is cut short")
      byte = bytes[at++]
      value += (byte & 127) * factor
      factor *= 128
    } while (byte & 128)
    return value
  }
  while (at < bytes.length) {
    const tag = number(), kind = tag & 7
    if (kind !== 0 && kind !== 2) throw new Error("the model is not an ONNX file")
    const length = number()
    if (kind === 2 && at + length > bytes.length) throw new Error("the model is cut short")
    yield [tag >> 3, kind === 0 ? length : bytes.subarray(at, (at += length))]
  }
}
