import assert from 'node:assert/strict'
import { test } from 'node:test'
import { fromHex, toHex } from '../../../test/support/hex.ts'
import { fc } from '../../../test/support/property.ts'
import { PeerError } from '../../errors.ts'
import { ByteWriter } from '../../lib/byte-writer.ts'
import { NdxDecoder, NdxEncoder } from './ndx.ts'

/** docs/rsync-protocol.md, section 4.6: one writer, from a fresh start. */
const SEQUENCE: readonly [number, string][] = [
  [0, '01'],
  [1, '01'],
  [254, 'fd'],
  [508, 'fe 00 fe'],
  [509, '01'],
  [510, '01'],
  [510, 'fe 00 00'],
  [40000, 'fe 80 40 9c 00'],
  [39999, 'fe 80 3f 9c 00'],
  [-1, '00'],
  [40001, '02'],
  [-2, 'ff 01'],
  [-3, 'ff 01'],
  // What the section does not show.
  [40001 + 253, 'fd'],
  [40001 + 253 + 32767, 'fe 7f ff'],
  [40001 + 253 + 32767 + 32768, 'fe 80 3d 9d 01'],
  [2 ** 31 - 1, 'fe ff ff ff ff'],
  [-3, 'ff fe 00 00'],
  [-101, 'ff 62'],
  [-2, 'ff fe 80 02 00 00'],
]

test('the sequence of the document, written', () => {
  const encoder = new NdxEncoder(30)
  for (const [ndx, hex] of SEQUENCE) {
    const out = new ByteWriter()
    encoder.encode(out, ndx)
    assert.equal(toHex(out.view()), toHex(fromHex(hex)), String(ndx))
  }
})

test('the sequence of the document, read whole, cut and with bytes behind it', () => {
  const decoder = new NdxDecoder(32)
  for (const [ndx, hex] of SEQUENCE) {
    const wire = fromHex(hex)
    for (let n = 0; n < wire.length; n++) assert.equal(decoder.decode(wire.subarray(0, n)), undefined)
    assert.deepEqual(decoder.decode(fromHex(`${hex}ffff`)), { value: ndx, size: wire.length })
  }
})

test('a first -3 without -2 before it', () => {
  const out = new ByteWriter()
  new NdxEncoder(31).encode(out, -3)
  assert.equal(toHex(out.view()), 'ff02')
  assert.deepEqual(new NdxDecoder(31).decode(out.view()), { value: -3, size: 2 })
})

test('each coder keeps a state of its own', () => {
  const [one, other] = [new NdxEncoder(30), new NdxEncoder(30)]
  const out = new ByteWriter()
  one.encode(out, 100)
  other.encode(out, 100)
  one.encode(out, 101)
  assert.equal(toHex(out.take()), '656501')
  const [reader, fresh] = [new NdxDecoder(30), new NdxDecoder(30)]
  assert.equal(reader.decode(fromHex('65'))?.value, 100)
  assert.equal(fresh.decode(fromHex('01'))?.value, 0)
  assert.equal(reader.decode(fromHex('01'))?.value, 101)
})

test('below protocol 30 an index is an i32', () => {
  for (const [ndx, hex] of [
    [0, '00000000'],
    [-1, 'ffffffff'],
    [40000, '409c0000'],
  ] as const) {
    const out = new ByteWriter()
    new NdxEncoder(29).encode(out, ndx)
    assert.equal(toHex(out.view()), hex)
    const decoder = new NdxDecoder(29)
    for (let n = 0; n < 4; n++) assert.equal(decoder.decode(out.view().subarray(0, n)), undefined)
    assert.deepEqual(decoder.decode(fromHex(`${hex}00`)), { value: ndx, size: 4 })
  }
})

test('an index beyond 31 bits is never right', () => {
  const decoder = new NdxDecoder(30)
  assert.equal(decoder.decode(fromHex('fe ff ff ff ff'))?.value, 2 ** 31 - 1)
  assert.throws(() => decoder.decode(fromHex('01')), PeerError)
})

test('any sequence of indices comes back', () => {
  const index = fc.oneof(fc.nat(300), fc.nat(70_000), fc.nat(), fc.constantFrom(-1, -2, -3, -150))
  const property = fc.property(fc.array(index), fc.constantFrom(27, 29, 30, 32), (indices, protocol) => {
    const encoder = new NdxEncoder(protocol)
    const decoder = new NdxDecoder(protocol)
    for (const ndx of indices) {
      const out = new ByteWriter()
      encoder.encode(out, ndx)
      assert.deepEqual(decoder.decode(out.view()), { value: ndx, size: out.length })
    }
  })
  fc.assert(property, { numRuns: 1000 })
})

test('any bytes give an index, a wait or an error, and where they are cut changes nothing', () => {
  const property = fc.property(
    fc.uint8Array({ maxLength: 60 }),
    fc.constantFrom(27, 29, 30, 32),
    (bytes, protocol) => {
      const [whole, cut] = [new NdxDecoder(protocol), new NdxDecoder(protocol)]
      for (let at = 0; at < bytes.length; ) {
        let expected: ReturnType<NdxDecoder['decode']>
        try {
          expected = whole.decode(bytes.subarray(at))
        } catch (error) {
          assert.ok(error instanceof PeerError, String(error))
          return
        }
        // A wait must leave the state as it was.
        for (let n = 0; n < (expected?.size ?? bytes.length - at); n++) {
          assert.equal(cut.decode(bytes.subarray(at, at + n)), undefined)
        }
        if (!expected) return
        assert.deepEqual(cut.decode(bytes.subarray(at, at + expected.size)), expected)
        at += expected.size
      }
    },
  )
  fc.assert(property, { numRuns: 2000 })
})
