import assert from 'node:assert/strict'
import { test } from 'node:test'
import { ByteWriter } from './byte-writer.ts'
import type { ByteString } from './bytes.ts'

test('numbers are little-endian and wrap as in C', () => {
  const out = new ByteWriter()
  out.u8(0x1ff)
  out.u16(0x12345)
  out.i32(-1)
  out.i32(0xdeadbeef)
  assert.equal(out.take().toString('hex'), 'ff4523ffffffffefbeadde')
})

test('it grows past any capacity', () => {
  const out = new ByteWriter(1)
  const text = 'n'.repeat(1000) as ByteString
  for (let i = 0; i < 100; i++) {
    out.u8(i)
    out.bytes(new Uint8Array(i))
    out.string(text)
  }
  assert.equal(out.length, 100 + 4950 + 100_000)
})

for (const length of [0, 5, 23, 24, 25, 300]) {
  test(`a string of ${length} bytes, whole and from its middle`, () => {
    const text = Array.from({ length }, (_, i) => String.fromCharCode((i * 37) & 0xff)).join('') as ByteString
    const out = new ByteWriter(4)
    out.string(text)
    assert.equal(out.take().toString('latin1'), text)
    const from = Math.floor(length / 2)
    out.string(text, from)
    assert.equal(out.take().toString('latin1'), text.slice(from))
  })
}

test('space counts at once and is filled later', () => {
  const out = new ByteWriter(2)
  out.u8(1)
  const hole = out.space(3)
  assert.equal(out.length, 4)
  hole.fill(7)
  assert.equal(out.take().toString('hex'), '01070707')
})

test('take gives a copy, view and detach give what was written', () => {
  const out = new ByteWriter()
  out.u8(1)
  const view = out.view()
  const copy = out.take()
  out.u8(2)
  assert.equal(copy[0], 1)
  assert.equal(view[0], 2, 'a view shows what is written over it')
  const detached = out.detach(16).bytes
  out.u8(3)
  assert.deepEqual([...detached], [2])
  assert.deepEqual([...out.view()], [3])
  out.clear()
  assert.equal(out.length, 0)
})
