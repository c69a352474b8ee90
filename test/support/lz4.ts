/** Reads an LZ4 block strictly, end rules included: what liblz4 takes, and what it may not take any more. */
import assert from 'node:assert/strict'

export function decodeLz4Block(block: Uint8Array): Buffer {
  const out: number[] = []
  let at = 0
  const byte = (): number => {
    assert.ok(at < block.length, 'the block is cut off')
    return block[at++]!
  }
  const length = (nibble: number): number => {
    let total = nibble
    for (let more = nibble === 15 ? 255 : 0; more === 255; total += more) more = byte()
    return total
  }
  let lastMatchStart = Number.NEGATIVE_INFINITY
  for (;;) {
    const token = byte()
    const literals = length(token >> 4)
    for (let i = 0; i < literals; i++) out.push(byte())
    if (at === block.length) {
      assert.equal(token & 15, 0, 'the last sequence has no match')
      if (lastMatchStart >= 0) {
        assert.ok(literals >= 5, 'the last 5 bytes are literals')
        assert.ok(lastMatchStart <= out.length - 12, 'no match begins within the last 12 bytes')
      }
      return Buffer.from(out)
    }
    const distance = byte() | (byte() << 8)
    assert.ok(distance > 0 && distance <= out.length, `a distance of ${distance} at ${out.length}`)
    lastMatchStart = out.length
    const matched = length(token & 15) + 4
    for (let i = 0; i < matched; i++) out.push(out[out.length - distance]!)
  }
}
