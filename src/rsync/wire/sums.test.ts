import assert from 'node:assert/strict'
import { test } from 'node:test'
import { toHex } from '../../../test/support/hex.ts'
import { fc } from '../../../test/support/property.ts'
import { PeerError } from '../../errors.ts'
import { ByteWriter } from '../../lib/byte-writer.ts'
import { basisLength, decodeSumHead, encodeSumHead, type SumHead } from './sums.ts'

const head = (count: number, blockLength: number, strongLength: number, remainder: number): SumHead => ({
  count,
  blockLength,
  strongLength,
  remainder,
})

/** docs/rsync-protocol.md, section 8.2: each bound from its inner side. */
const VALID: readonly { name: string; head: SumHead; basis: number; protocol?: number }[] = [
  { name: 'no basis', head: head(0, 0, 0, 0), basis: 0 },
  { name: 'an empty file, as clients send it', head: head(0, 700, 2, 0), basis: 0 },
  { name: 'one short block', head: head(1, 700, 2, 1), basis: 1 },
  { name: 'one whole block', head: head(1, 700, 2, 0), basis: 700 },
  { name: 'a remainder as long as a block', head: head(2, 700, 2, 700), basis: 1400 },
  { name: '500,000 bytes', head: head(711, 704, 2, 160), basis: 500_000 },
  { name: 'the longest block of 30', head: head(3, 1 << 17, 16, 5), basis: (2 << 17) + 5, protocol: 30 },
  { name: 'the longest block of 29', head: head(1, 1 << 29, 16, 0), basis: 1 << 29, protocol: 29 },
  { name: 'the longest strong sum', head: head(1, 700, 20, 0), basis: 700 },
  {
    name: 'as many blocks as 31 bits hold',
    head: head(2 ** 31 - 1, 1 << 17, 16, 0),
    basis: (2 ** 31 - 1) * 2 ** 17,
  },
]
for (const { name, head, basis, protocol = 32 } of VALID) {
  test(`sum head: ${name}`, () => {
    const out = new ByteWriter()
    encodeSumHead(out, head)
    const wire = out.take()
    assert.equal(wire.length, 16)
    assert.deepEqual(decodeSumHead(wire, protocol), { value: head, size: 16 })
    assert.deepEqual(decodeSumHead(Buffer.concat([wire, wire]), protocol), { value: head, size: 16 })
    for (let n = 0; n < 16; n++) assert.equal(decodeSumHead(wire.subarray(0, n), protocol), undefined)
    assert.equal(basisLength(head), basis)
  })
}

test('sum head: the fields in their order', () => {
  const out = new ByteWriter()
  encodeSumHead(out, head(1, 2, 3, 4))
  assert.equal(toHex(out.view()), '01000000020000000300000004000000')
})

/** And from its outer side. */
const NEVER_RIGHT: readonly { name: string; head: SumHead; protocol?: number }[] = [
  { name: 'fewer than no blocks', head: head(-1, 700, 2, 0) },
  { name: 'blocks of length 0', head: head(1, 0, 2, 0) },
  { name: 'a negative block length', head: head(0, -1, 2, 0) },
  { name: 'a block too long for 30', head: head(1, (1 << 17) + 1, 2, 0), protocol: 30 },
  { name: 'a block too long for 29', head: head(1, (1 << 29) + 1, 2, 0), protocol: 29 },
  { name: 'a negative strong sum', head: head(1, 700, -1, 0) },
  { name: 'a strong sum longer than any digest', head: head(1, 700, 21, 0) },
  { name: 'a negative remainder', head: head(1, 700, 2, -1) },
  { name: 'a remainder longer than a block', head: head(1, 700, 2, 701) },
  { name: 'a remainder of no block', head: head(0, 700, 2, 1) },
]
for (const { name, head, protocol = 32 } of NEVER_RIGHT) {
  test(`sum head: never right: ${name}`, () => {
    const out = new ByteWriter()
    encodeSumHead(out, head)
    assert.throws(() => decodeSumHead(out.view(), protocol), PeerError)
  })
}

test('sum head: any that describes a basis comes back, and says how long that is', () => {
  const bases = fc.record({
    length: fc.nat(2 ** 40),
    blockLength: fc.oneof(fc.integer({ min: 1, max: 1 << 17 }), fc.constantFrom(700, 1 << 17)),
    strongLength: fc.nat(20),
    protocol: fc.constantFrom(27, 29, 30, 32),
  })
  const property = fc.property(bases, ({ length: any, blockLength, strongLength, protocol }) => {
    const length = any % ((2 ** 31 - 1) * blockLength)
    const described = head(Math.ceil(length / blockLength), blockLength, strongLength, length % blockLength)
    const out = new ByteWriter()
    encodeSumHead(out, described)
    assert.deepEqual(decodeSumHead(out.view(), protocol), { value: described, size: 16 })
    assert.equal(basisLength(described), length)
  })
  fc.assert(property, { numRuns: 2000 })
})

test('sum head: any bytes give one that is written as it was read, a wait or an error', () => {
  const field = fc.oneof(fc.nat(3), fc.nat(1 << 18), fc.integer())
  const fields = fc.tuple(field, field, fc.oneof(fc.nat(21), fc.integer()), field)
  const property = fc.property(
    fields,
    fc.nat(40),
    fc.constantFrom(27, 29, 30, 32),
    (four, size, protocol) => {
      const bytes = Buffer.alloc(40, 0xff)
      for (const [i, value] of four.entries()) bytes.writeInt32LE(value, 4 * i)
      let got: ReturnType<typeof decodeSumHead>
      try {
        got = decodeSumHead(bytes.subarray(0, size), protocol)
      } catch (error) {
        assert.ok(error instanceof PeerError && size >= 16, String(error))
        return
      }
      assert.equal(got === undefined, size < 16)
      if (!got) return
      const out = new ByteWriter()
      encodeSumHead(out, got.value)
      assert.deepEqual(out.view(), bytes.subarray(0, 16))
      const length = basisLength(got.value)
      assert.ok(
        Number.isSafeInteger(length) && length >= 0 && length <= got.value.count * got.value.blockLength,
      )
    },
  )
  fc.assert(property, { numRuns: 3000 })
})
