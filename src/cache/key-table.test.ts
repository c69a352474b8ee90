import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'
import { test } from 'node:test'
import { Pacer } from '../lib/pacer.ts'
import { KEY_BYTES, KeyTable } from './key-table.ts'

const key = (n: number): Uint8Array => createHash('sha256').update(String(n)).digest()
const placeOf = (n: number) => ({ segment: n % 3, offset: n, length: n + 1, crc: 2 ** 32 - 1 - n })

test('keys are found where they were put last, until their segment goes', async () => {
  const table = new KeyTable()
  for (let n = 0; n < 10_000; n++) table.set(key(n), placeOf(n + 1))
  for (let n = 0; n < 10_000; n++) table.set(key(n), placeOf(n))
  assert.equal(table.count, 10_000)
  for (let n = 0; n < 10_000; n++) assert.deepEqual(table.find(key(n)), placeOf(n))
  assert.equal(table.find(key(10_000)), undefined)
  await table.dropSegments((segment) => segment === 1)
  for (let n = 0; n < 10_000; n++) assert.deepEqual(table.find(key(n)), n % 3 === 1 ? undefined : placeOf(n))
  assert.equal(table.count, 6667)
})

test('memory is given back when segments go', async () => {
  const table = new KeyTable()
  const { bytes } = table
  for (let n = 0; n < 60_000; n++) table.set(key(n), placeOf(n))
  const most = table.bytes
  assert.ok(most <= 96 * 60_000 * 1.1, `${most} bytes`)
  await table.dropSegments((segment) => segment !== 1)
  assert.ok(table.bytes <= most / 2, `${table.bytes} of ${most} bytes`)
  for (let n = 1; n < 60_000; n += 300) assert.deepEqual(table.find(key(n)), placeOf(n))
  await table.dropSegments(() => true)
  assert.equal(table.bytes, bytes)
  assert.equal(table.count, 0)
  table.set(key(1), placeOf(1))
  assert.deepEqual(table.find(key(1)), placeOf(1))
})

test('while a segment goes others have their turn, and may put and find', async () => {
  const table = new KeyTable()
  for (let n = 0; n < 5000; n++) table.set(key(n), placeOf(n))
  let rests = 0
  class Hurried extends Pacer {
    override get due(): boolean {
      return true
    }
    override async rest(): Promise<void> {
      const n = 5000 + rests++
      table.set(key(n), { ...placeOf(n), segment: 7 })
      const stays = 3 * (n % 1000)
      assert.deepEqual(table.find(key(stays)), placeOf(stays))
    }
  }
  await table.dropSegments((segment) => segment === 1, new Hurried())
  assert.ok(rests > 100, `${rests} rests`)
  for (let n = 5000; n < 5000 + rests; n++) assert.equal(table.find(key(n))?.segment, 7)
  assert.equal(table.count, 3333 + rests)
})

test('keys that differ in one byte only, whichever it is, are different keys', () => {
  const table = new KeyTable()
  const keys = [Buffer.alloc(KEY_BYTES, 7)]
  for (let at = 0; at < KEY_BYTES; at++) {
    const key = Buffer.from(keys[0]!)
    key[at]! ^= 0x80
    keys.push(key)
  }
  const place = (n: number) => ({ segment: 1, offset: n, length: 1, crc: 0 })
  for (const [n, key] of keys.entries()) table.set(key, place(n))
  assert.equal(table.count, keys.length)
  for (const [n, key] of keys.entries()) assert.deepEqual(table.find(key), place(n))
})
