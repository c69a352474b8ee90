import assert from 'node:assert/strict'
import {
  appendFileSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  statSync,
  writeFileSync,
} from 'node:fs'
import { dirname, join } from 'node:path'
import { test } from 'node:test'
import { temporaryDirectory } from '../../test/support/trees.ts'
import { DigestCache, type DigestCacheOptions } from './digest-cache.ts'
import { StorePaths } from './paths.ts'

const LENGTH = 8
const HEADER_BYTES = 16
const RECORD_BYTES = 16 + LENGTH + 4
const digestOf = (key: string): Uint8Array => Buffer.from(key.padEnd(LENGTH, '\xff').slice(-LENGTH), 'latin1')

interface Scene extends Disposable {
  paths: StorePaths
  file: string
  /** A cache as the next start of the server has it. */
  start(options?: DigestCacheOptions): Promise<DigestCache>
}

function scene(): Scene {
  const { path, remove } = temporaryDirectory()
  const paths = new StorePaths(path)
  return {
    paths,
    file: join(paths.digests, 'xxh3'),
    start: async (options) => {
      const cache = new DigestCache(paths, options)
      await cache.refresh()
      return cache
    },
    [Symbol.dispose]: remove,
  }
}

/** Which of the keys are known, each with the right value. */
async function known(cache: DigestCache, keys: readonly string[]): Promise<string[]> {
  const found: string[] = []
  for (const key of keys) {
    const value = await cache.get('xxh3', LENGTH, key)
    if (!value) continue
    assert.deepEqual(Buffer.from(value), digestOf(key), key)
    found.push(key)
  }
  return found
}

async function filled(start: Scene['start'], keys: readonly string[]): Promise<void> {
  const cache = await start()
  await known(cache, keys)
  for (const key of keys) cache.put('xxh3', key, digestOf(key))
  await cache.close()
}

const KEYS = ['one', 'two', 'three', 'four']

test('digests are there at once, and after a restart', async () => {
  using here = scene()
  const cache = await here.start()
  assert.deepEqual(await known(cache, KEYS), [])
  for (const key of KEYS) cache.put('xxh3', key, digestOf(key))
  assert.deepEqual(await known(cache, KEYS), KEYS)
  await cache.close()
  const again = await here.start()
  assert.deepEqual(await known(again, [...KEYS, 'five']), KEYS)
  again.put('xxh3', 'five', digestOf('five'))
  await again.close()
  assert.deepEqual(await known(await here.start(), [...KEYS, 'five']), [...KEYS, 'five'])
  assert.equal(statSync(here.file).size, HEADER_BYTES + 5 * RECORD_BYTES)
})

test('kinds do not mix, and each digest is kept once', async () => {
  using here = scene()
  const cache = await here.start()
  await known(cache, KEYS)
  for (let i = 0; i < 3; i++) cache.put('xxh3', 'one', digestOf('one'))
  cache.put('xxh64', 'one', digestOf('other'))
  await cache.get('xxh64', LENGTH, 'one')
  await cache.close()
  const again = await here.start()
  assert.deepEqual(await again.get('xxh64', LENGTH, 'one'), digestOf('other'))
  assert.deepEqual(await known(again, ['one']), ['one'])
  assert.equal(statSync(here.file).size, HEADER_BYTES + RECORD_BYTES)
})

test('damage: what has rotted or was cut off is worked out again, the rest stays', async () => {
  const places: { name: string; damage: (bytes: Buffer) => Buffer; left: string[] }[] = [
    { name: 'gone', damage: () => Buffer.alloc(0), left: [] },
    {
      name: 'another format',
      damage: (b) => Buffer.concat([Buffer.from('UPSVDIG2'), b.subarray(8)]),
      left: [],
    },
    { name: 'digests of another length', damage: (b) => Buffer.from(b.fill(9, 8, 9)), left: [] },
    { name: 'a header alone', damage: (b) => b.subarray(0, HEADER_BYTES), left: [] },
    { name: 'half a header', damage: (b) => b.subarray(0, 7), left: [] },
    {
      name: 'a key',
      damage: (b) => b.fill(b[HEADER_BYTES]! ^ 1, HEADER_BYTES, HEADER_BYTES + 1),
      left: KEYS.slice(1),
    },
    {
      name: 'a digest',
      damage: (b) => b.fill(b[HEADER_BYTES + 17]! ^ 1, HEADER_BYTES + 17, HEADER_BYTES + 18),
      left: KEYS.slice(1),
    },
    { name: 'the last record cut', damage: (b) => b.subarray(0, -1), left: KEYS.slice(0, 3) },
    {
      name: 'a second record cut short',
      damage: (b) => b.subarray(0, HEADER_BYTES + RECORD_BYTES + 3),
      left: ['one'],
    },
  ]
  for (const { name, damage, left } of places) {
    using here = scene()
    await filled(here.start, KEYS)
    writeFileSync(here.file, damage(readFileSync(here.file)))
    const cache = await here.start()
    assert.deepEqual(await known(cache, KEYS), left, name)
    // And all that is kept from now on is there after the next start.
    for (const key of KEYS) cache.put('xxh3', key, digestOf(key))
    await cache.close()
    assert.deepEqual(await known(await here.start(), KEYS), KEYS, `${name}: afterwards`)
  }
})

test('every byte flipped: never a wrong digest', async () => {
  using here = scene()
  await filled(here.start, KEYS)
  const whole = readFileSync(here.file)
  for (let at = 0; at < whole.length; at++) {
    const bytes = Buffer.from(whole)
    bytes[at] = bytes[at]! ^ 0x40
    mkdirSync(dirname(here.file), { recursive: true })
    writeFileSync(here.file, bytes)
    await known(await here.start(), KEYS)
  }
})

test('a file larger than any of ours is not read', async () => {
  using here = scene()
  await filled(here.start, KEYS)
  appendFileSync(here.file, Buffer.alloc(10_000))
  assert.deepEqual(await known(await here.start({ maxRecords: 10 }), KEYS), [])
  assert.ok(!existsSync(here.file))
})

test('a full file forgets the older half', async () => {
  using here = scene()
  const keys = Array.from({ length: 25 }, (_, i) => `key ${i}`)
  const cache = await here.start({ maxRecords: 10 })
  await known(cache, keys)
  for (const key of keys) {
    cache.put('xxh3', key, digestOf(key))
    await cache.flush()
    assert.ok(statSync(here.file).size <= HEADER_BYTES + 10 * RECORD_BYTES)
  }
  const left = await known(await here.start({ maxRecords: 10 }), keys)
  assert.ok(left.length >= 5 && left.length <= 10, `${left.length} left`)
  assert.deepEqual(left, keys.slice(-left.length), 'the newest stay')
})

test('a full file without the room to be written anew does not grow', async () => {
  using here = scene()
  const most = HEADER_BYTES + 10 * RECORD_BYTES
  const onlyAppends = (bytes: number): boolean => bytes <= HEADER_BYTES + 2 * RECORD_BYTES
  const cache = await here.start({ maxRecords: 10, hasRoom: onlyAppends })
  await known(cache, KEYS)
  for (let i = 0; i < 100; i++) {
    cache.put('xxh3', `key ${i}`, digestOf(`key ${i}`))
    await cache.flush()
  }
  assert.equal(statSync(here.file).size, most)
  const again = await here.start({ maxRecords: 10 })
  assert.deepEqual(await known(again, ['key 0', 'key 9']), ['key 0', 'key 9'], 'and can still be read')
})

test('what a crash left of a file that was written anew is cleared up', async () => {
  using here = scene()
  await filled(here.start, KEYS)
  writeFileSync(`${here.file}.new`, 'half of it')
  let bytes = -1
  const cache = await here.start({ onBytes: (now) => (bytes = now) })
  assert.equal(bytes, HEADER_BYTES + 4 * RECORD_BYTES)
  assert.deepEqual(readdirSync(here.paths.digests), ['xxh3'])
  assert.deepEqual(await known(cache, KEYS), KEYS)
})

test('bytes are counted, at start too; dropping frees them; what has no room is not written', async () => {
  using here = scene()
  await filled(here.start, KEYS)
  let bytes = -1
  let room = true
  const cache = await here.start({ onBytes: (now) => (bytes = now), hasRoom: () => room })
  assert.equal(bytes, HEADER_BYTES + 4 * RECORD_BYTES, 'before anything was read')
  await known(cache, KEYS)
  assert.equal(bytes, HEADER_BYTES + 4 * RECORD_BYTES)
  await cache.drop()
  assert.equal(bytes, 0)
  assert.deepEqual(await known(cache, KEYS), [])
  assert.deepEqual(readdirSync(here.paths.cache), [])

  room = false
  cache.put('xxh3', 'one', digestOf('one'))
  await cache.flush()
  assert.equal(bytes, 0)
  assert.deepEqual(await known(cache, ['one']), ['one'], 'memory has it')
  room = true
  cache.put('xxh3', 'two', digestOf('two'))
  await cache.flush()
  assert.deepEqual(
    await known(await here.start(), ['one', 'two']),
    ['one', 'two'],
    'and so has the disk, once it can',
  )
})

test('a disk that refuses: nothing fails', async () => {
  using here = scene()
  writeFileSync(here.paths.cache, 'no directory')
  const cache = await here.start()
  cache.put('xxh3', 'one', digestOf('one'))
  await cache.get('xxh3', LENGTH, 'one')
  await cache.flush()
  await cache.drop()
  await cache.close()
})

test('what has come is written by itself', async () => {
  using here = scene()
  const written = Promise.withResolvers<void>()
  const watched = await here.start({ writeAfterMs: 1, onBytes: (bytes) => bytes > 0 && written.resolve() })
  await watched.get('xxh3', LENGTH, '')
  const alive = setInterval(() => {}, 1000)
  watched.put('xxh3', 'one', digestOf('one'))
  await written.promise
  clearInterval(alive)
  assert.deepEqual(await known(await here.start(), ['one']), ['one'])
})
