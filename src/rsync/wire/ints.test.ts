import assert from 'node:assert/strict'
import { test } from 'node:test'
import { fromHex, toHex } from '../../../test/support/hex.ts'
import { fc } from '../../../test/support/property.ts'
import { PeerError } from '../../errors.ts'
import type { Decoded } from '../../lib/byte-reader.ts'
import { ByteWriter } from '../../lib/byte-writer.ts'
import type { ByteString } from '../../lib/bytes.ts'
import {
  decodeI32,
  decodeLongint,
  decodeU8,
  decodeU16,
  decodeVarint,
  decodeVarlong,
  decodeVstring,
  encodeLongint,
  encodeVarint,
  encodeVarlong,
  encodeVstring,
} from './ints.ts'

interface Codec<T> {
  name: string
  encode(out: ByteWriter, value: T): void
  decode(bytes: Uint8Array): Decoded<T> | undefined
}

/** Read whole, cut at each byte, with bytes behind it, and written back. */
function holds<T>(codec: Codec<T>, value: T, hex: string): void {
  const wire = fromHex(hex)
  test(`${codec.name}: ${String(value).slice(0, 20)} is ${toHex(wire).slice(0, 30)}`, () => {
    const out = new ByteWriter()
    codec.encode(out, value)
    assert.equal(toHex(out.view()), toHex(wire))
    assert.deepEqual(codec.decode(wire), { value, size: wire.length })
    assert.deepEqual(codec.decode(fromHex(`${hex}ff00`)), { value, size: wire.length })
    for (let n = 0; n < wire.length; n++) assert.equal(codec.decode(wire.subarray(0, n)), undefined)
  })
}

const u8: Codec<number> = { name: 'u8', encode: (out, v) => out.u8(v), decode: decodeU8 }
const u16: Codec<number> = { name: 'u16', encode: (out, v) => out.u16(v), decode: decodeU16 }
const i32: Codec<number> = { name: 'i32', encode: (out, v) => out.i32(v), decode: decodeI32 }
const longint: Codec<number> = { name: 'longint', encode: encodeLongint, decode: decodeLongint }
const varint: Codec<number> = { name: 'varint', encode: encodeVarint, decode: decodeVarint }
const varlong = (min: number): Codec<number> => ({
  name: `varlong(${min})`,
  encode: (out, value) => encodeVarlong(out, value, min),
  decode: (bytes) => decodeVarlong(bytes, min),
})
const vstring: Codec<ByteString> = {
  name: 'vstring',
  encode: encodeVstring,
  decode: (bytes) => decodeVstring(bytes, 0x7fff),
}

holds(u8, 0, '00')
holds(u8, 255, 'ff')
holds(u16, 0xa000, '00a0')
holds(u16, 0xffff, 'ffff')
holds(i32, 0, '00000000')
holds(i32, -1, 'ffffffff')
holds(i32, 2 ** 31 - 1, 'ffffff7f')
holds(i32, -(2 ** 31), '00000080')

// docs/rsync-protocol.md, section 4.2.
holds(longint, 0, '00000000')
holds(longint, 100, '64000000')
holds(longint, 2147483647, 'ffffff7f')
holds(longint, 2147483648, 'ffffffff 00000080 00000000')
holds(longint, 4294967295, 'ffffffff ffffffff 00000000')
holds(longint, 5000000000, 'ffffffff 00f2052a 01000000')
holds(longint, 2 ** 53 - 1, 'ffffffff ffffffff ffff1f00')
holds(longint, -1, 'ffffffff ffffffff ffffffff')
holds(longint, -43200, 'ffffffff 4057ffff ffffffff')

// Section 4.3.
holds(varint, 0, '00')
holds(varint, 1, '01')
holds(varint, 127, '7f')
holds(varint, 128, '80 80')
holds(varint, 255, '80 ff')
holds(varint, 256, '81 00')
holds(varint, 0x1fe, '81 fe')
holds(varint, 0x2000, 'a0 00')
holds(varint, 16383, 'bf ff')
holds(varint, 16384, 'c0 00 40')
holds(varint, 65535, 'c0 ff ff')
holds(varint, 2097151, 'df ff ff')
holds(varint, 2097152, 'e0 00 00 20')
holds(varint, 268435455, 'ef ff ff ff')
holds(varint, 268435456, 'f0 00 00 00 10')
holds(varint, 500000000, 'f0 00 65 cd 1d')
holds(varint, 2147483647, 'f0 ff ff ff 7f')
holds(varint, -1, 'f0 ff ff ff ff')
holds(varint, -(2 ** 31), 'f0 00 00 00 80')

// Section 4.4.
holds(varlong(3), 0, '00 00 00')
holds(varlong(3), 1, '00 01 00')
holds(varlong(3), 65535, '00 ff ff')
holds(varlong(3), 8388607, '7f ff ff')
holds(varlong(3), 8388608, '80 00 00 80')
holds(varlong(3), 16777216, '81 00 00 00')
holds(varlong(3), 5000000000, 'c1 00 f2 05 2a')
holds(varlong(3), 2 ** 40, 'e1 00 00 00 00 00')
holds(varlong(3), 2 ** 53 - 1, 'f8 ff ff ff ff ff ff 1f')
holds(varlong(3), -1, 'fc ff ff ff ff ff ff ff ff')
holds(varlong(4), 0, '00 00 00 00')
holds(varlong(4), 1, '00 01 00 00')
holds(varlong(4), 1700000000, '65 00 f1 53')
holds(varlong(4), 2147483647, '7f ff ff ff')
holds(varlong(4), 2147483648, '80 00 00 00 80')
holds(varlong(4), 2208988800, '80 80 7e aa 83')
holds(varlong(4), -1, 'f8 ff ff ff ff ff ff ff ff')
holds(varlong(4), -43200, 'f8 40 57 ff ff ff ff ff ff')

// Section 4.5.
holds(vstring, '' as ByteString, '00')
holds(vstring, 'hello' as ByteString, '05 68656c6c6f')
holds(vstring, 'a'.repeat(127) as ByteString, `7f ${'61'.repeat(127)}`)
holds(vstring, 'a'.repeat(128) as ByteString, `8080 ${'61'.repeat(128)}`)
holds(vstring, 'a'.repeat(300) as ByteString, `812c ${'61'.repeat(300)}`)
holds(vstring, '\xff\x00' as ByteString, '02 ff00')

const NEVER_RIGHT: readonly { name: string; decode: () => unknown }[] = [
  { name: 'a varint of 6 bytes', decode: () => decodeVarint(fromHex('f8')) },
  { name: 'a varint of 7 bytes', decode: () => decodeVarint(fromHex('fc000000000000')) },
  { name: 'a varlong(4) of 10 bytes', decode: () => decodeVarlong(fromHex('fc'), 4) },
  { name: 'a varlong beyond 2^53', decode: () => decodeVarlong(fromHex('fc 0000000000000040'), 3) },
  { name: 'a longint beyond 2^53', decode: () => decodeLongint(fromHex('ffffffff 0000000000002000')) },
  { name: 'a vstring longer than makes sense here', decode: () => decodeVstring(fromHex('05'), 4) },
  { name: 'a vstring of 32767 where 4096 make sense', decode: () => decodeVstring(fromHex('ffff'), 4096) },
]
for (const { name, decode } of NEVER_RIGHT)
  test(`never right: ${name}`, () => assert.throws(decode, PeerError))

test('a varint may be longer than it needs', () => {
  assert.deepEqual(decodeVarint(fromHex('8001')), { value: 1, size: 2 })
  assert.deepEqual(decodeVarint(fromHex('f0 01000000')), { value: 1, size: 5 })
})

test('a vstring of more than 15 bits of length is a bug of ours', () => {
  assert.throws(() => encodeVstring(new ByteWriter(), 'x'.repeat(0x8000) as ByteString), RangeError)
})

const NUMBERS: readonly [Codec<number>, fc.Arbitrary<number>][] = [
  [longint, fc.maxSafeInteger()],
  [varint, fc.integer()],
  [varlong(3), fc.maxSafeInteger()],
  [varlong(4), fc.maxSafeInteger()],
]
for (const [codec, numbers] of NUMBERS) {
  test(`${codec.name}: any number comes back`, () => {
    const property = fc.property(numbers, fc.nat(53), (number, shift) => {
      const value = Math.floor(number / 2 ** shift)
      const out = new ByteWriter()
      codec.encode(out, value)
      assert.deepEqual(codec.decode(out.view()), { value, size: out.length })
    })
    fc.assert(property, { numRuns: 2000 })
  })
}

// ---------------------------------------------------------------------------------------------------
// Any bytes at all: a value that is made of its own bytes alone, or more are asked for, or it is an error.

const ANY: readonly Codec<unknown>[] = [
  u8,
  u16,
  i32,
  longint,
  varint,
  varlong(3),
  varlong(4),
  vstring,
] as never
for (const codec of ANY) {
  test(`${codec.name}: any bytes give a value, a wait or an error, and no byte beyond is looked at`, () => {
    const property = fc.property(fc.uint8Array({ maxLength: 20 }), (bytes) => {
      /** Undefined for a wait, else what all further bytes must not change. */
      let settled: string | undefined
      for (let n = 0; n <= bytes.length; n++) {
        let now: string | undefined
        try {
          const got = codec.decode(bytes.subarray(0, n))
          if (got) {
            assert.ok(got.size <= n, `${got.size} bytes of ${n}`)
            now = JSON.stringify(got)
          }
        } catch (error) {
          assert.ok(error instanceof PeerError, String(error))
          now = 'error'
        }
        if (settled !== undefined) assert.equal(now, settled)
        settled = now
      }
    })
    fc.assert(property, { numRuns: 1000 })
  })
}
