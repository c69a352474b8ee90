import assert from 'node:assert/strict'
import { createHash, randomBytes } from 'node:crypto'
import fs, {
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from 'node:fs'
import { syncBuiltinESMExports } from 'node:module'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { openFilesBelow } from '../../test/support/open-files.ts'
import { BlockPool } from '../lib/block-pool.ts'
import { QuickReads } from '../lib/quick-reads.ts'
import { Cache, type CacheOptions } from './cache.ts'
import { KeyTable } from './key-table.ts'

const key = (name: string): Uint8Array => createHash('sha256').update(name).digest()

interface Scratch extends Disposable {
  path: string
  files(): string[]
}

function scratch(): Scratch {
  const path = mkdtempSync(join(tmpdir(), 'upserv-cache-'))
  return {
    path,
    files: () => readdirSync(path).sort(),
    [Symbol.dispose]: () => rmSync(path, { recursive: true, force: true }),
  }
}

function open(path: string, changes: Partial<CacheOptions> = {}): Cache {
  return Cache.open({ directory: path, limit: 2 ** 30, pool: new BlockPool(2 ** 20), ...changes })
}

async function read(cache: Cache, name: string): Promise<Buffer | undefined> {
  const record = await cache.get(key(name))
  return record && Buffer.from(record)
}

test('what was put is got: at once, from disk, and by the next process', async () => {
  using place = scratch()
  const sizes = [0, 1, 100, 65_504, 65_536, 200_000, 3_000_000]
  const payloads = new Map(sizes.map((size) => [`of ${size}`, randomBytes(size)]))
  const first = open(place.path)
  for (const [name, payload] of payloads) first.put(key(name), payload)
  for (const [name, payload] of payloads) assert.deepEqual(await read(first, name), payload, name)
  await first.ready
  for (const [name, payload] of payloads) assert.deepEqual(await read(first, name), payload, name)
  const { bytes } = first
  await first.close()

  const second = open(place.path)
  await second.ready
  assert.equal(second.records, sizes.length)
  assert.equal(second.bytes, bytes)
  assert.equal(
    second.bytes,
    place.files().reduce((sum, name) => sum + statSync(join(place.path, name)).size, 0),
  )
  for (const [name, payload] of payloads) assert.deepEqual(await read(second, name), payload, name)
  assert.equal(await read(second, 'never put'), undefined)
  await second.close()
})

test('what is put is copied, and what is got of it before it is on disk is a copy as well', async () => {
  using place = scratch()
  const cache = open(place.path)
  const payload = randomBytes(100_000)
  const expected = Buffer.from(payload)
  const [given, small] = [Buffer.alloc(200_000), randomBytes(100)]
  cache.put(key('large'), payload)
  cache.put(key('small'), small)
  payload.fill(0)
  const inGiven = cache.get(key('large'), () => given) as Uint8Array
  const got = cache.get(key('large')) as Uint8Array
  const gotSmall = cache.get(key('small')) as Uint8Array
  // What they waited in is used again and again.
  for (let i = 0; i < 40; i++) {
    cache.put(key(`another ${i}`), randomBytes(200_000))
    if (i % 4 === 3) await cache.ready
  }
  assert.deepEqual(Buffer.from(got), expected)
  assert.deepEqual(Buffer.from(inGiven), expected)
  assert.equal(inGiven.buffer, given.buffer)
  assert.deepEqual(Buffer.from(gotSmall), small)
  assert.deepEqual(await read(cache, 'large'), expected)
  await cache.close()
})

test('what was put goes to the disk soon, also when nobody asks for that', async () => {
  using place = scratch()
  const cache = open(place.path)
  cache.put(key('one'), randomBytes(1000))
  cache.put(key('two'), randomBytes(1000))
  const size = (): number =>
    place.files().reduce((sum, name) => sum + statSync(join(place.path, name)).size, 0)
  for (let tries = 0; size() < cache.bytes && tries < 500; tries++) await sleep(10)
  assert.equal(size(), cache.bytes)
  await cache.close()
})

test('a record that is in memory comes at once', async () => {
  using place = scratch()
  const cache = open(place.path)
  cache.put(key('a'), Buffer.from('hello'))
  assert.ok(cache.get(key('a')) instanceof Uint8Array, 'while it waits to be written')
  await cache.ready
  await cache.get(key('a'))
  assert.ok(cache.get(key('a')) instanceof Uint8Array, 'once it was read')
  await cache.close()
})

test('a large record is in memory once, whoever reads it at the same time', async () => {
  using place = scratch()
  const large = randomBytes(3_000_000)
  const cache = open(place.path)
  cache.put(key('large'), large)
  const memoryOf = async () => (await cache.get(key('large')))!.buffer
  // While it waits to be written, too.
  const early = (await cache.get(key('large')))!
  assert.equal(early.buffer, await memoryOf())
  assert.deepEqual(Buffer.from(early), large)
  await cache.ready
  // From the disk, by the threads of the first; from memory, of a part that somebody has.
  const [one, other] = await Promise.all([memoryOf(), memoryOf()])
  assert.equal(one, other)
  const part = (await cache.get(key('large')))!.subarray(-5)
  assert.equal(await memoryOf(), part.buffer)
  assert.deepEqual(part, new Uint8Array(large.subarray(-5)))
  assert.equal((await cache.get(key('large'), () => assert.fail('there is memory')))!.buffer, part.buffer)
  // What is put in its place is another record.
  const better = randomBytes(3_000_001)
  cache.put(key('large'), better)
  assert.deepEqual(await read(cache, 'large'), better)
  await cache.ready
  assert.deepEqual(await read(cache, 'large'), better)
  assert.deepEqual(part, new Uint8Array(large.subarray(-5)))
  await cache.close()
})

test('what is asked for again and again stays in memory, small records and large ones', async () => {
  using place = scratch()
  const sizes = [8 * 1024, 60_000, 2_000_000]
  const payloads = new Map(sizes.map((size) => [`of ${size}`, randomBytes(size)]))
  const cache = open(place.path)
  for (const [name, payload] of payloads) cache.put(key(name), payload)
  await cache.ready
  const brought = Buffer.alloc(2_000_000)
  for (const [name, payload] of payloads) {
    const first = (await cache.get(key(name), () => brought))!
    assert.equal(first.buffer, brought.buffer, 'who is the first has it in memory that it brings')
    assert.deepEqual(first, payload)
    const second = (await cache.get(key(name), () => brought))!
    assert.notEqual(second.buffer, brought.buffer)
    assert.deepEqual(second, payload)
    const third = cache.get(key(name), () => brought)
    assert.ok(third instanceof Uint8Array, 'at once')
    assert.equal(third.buffer, second.buffer)
    if (payload.length < 65_000) assert.equal(cache.peek(key(name))!.buffer, second.buffer)
  }
  await cache.close()
})

test('what stays in memory goes with its segment, and that of others stays', async () => {
  using place = scratch()
  const cache = open(place.path, { limit: 32 * 2 ** 20 })
  const names = Array.from({ length: 6 }, (_, i) => `${i}`)
  for (const name of names) {
    cache.put(key(name), randomBytes(3 * 2 ** 20))
    await cache.ready
  }
  // The last segment is the one used longest ago.
  for (let times = 0; times < 2; times++)
    for (const name of names.toReversed()) await cache.get(key(name), (size) => Buffer.allocUnsafe(size))
  assert.equal(cache.staying, 18 * 2 ** 20)
  await cache.drop(1)
  const left = names.filter((name) => cache.has(key(name)))
  assert.ok(left.length > 0 && left.length < names.length)
  assert.equal(cache.staying, left.length * 3 * 2 ** 20)
  await cache.close()
})

test('a large record that has rotted is nobody’s, and none that others hold', async () => {
  using place = scratch()
  const first = open(place.path)
  first.put(key('large'), randomBytes(300_000))
  await first.ready
  await first.close()
  const file = join(place.path, place.files()[0]!)
  const bytes = readFileSync(file)
  bytes[200_000]! ^= 1
  writeFileSync(file, bytes)
  const second = open(place.path)
  await second.ready
  assert.deepEqual(await Promise.all([read(second, 'large'), read(second, 'large')]), [undefined, undefined])
  bytes[200_000]! ^= 1
  writeFileSync(file, bytes)
  assert.ok(await read(second, 'large'))
  await second.close()
})

test('the later record of a key holds, also for the next process', async () => {
  using place = scratch()
  const first = open(place.path)
  first.put(key('a'), Buffer.from('quick'))
  first.put(key('a'), Buffer.from('better'))
  await first.ready
  assert.equal(String(await read(first, 'a')), 'better')
  await first.close()
  const second = open(place.path)
  await second.ready
  second.put(key('a'), Buffer.from('best'))
  await second.close()
  const third = open(place.path)
  await third.ready
  assert.equal(String(await read(third, 'a')), 'best')
  await third.close()
})

test('records put before the old ones are known replace them, and destroy none', async () => {
  using place = scratch()
  const first = open(place.path)
  first.put(key('a'), Buffer.from('old'))
  first.put(key('b'), Buffer.from('kept'))
  await first.close()
  const second = open(place.path)
  second.put(key('a'), Buffer.from('new'))
  await second.ready
  assert.equal(String(await read(second, 'a')), 'new')
  assert.equal(String(await read(second, 'b')), 'kept')
  await second.close()
})

test('the limit is kept, and what was used last stays', async () => {
  using place = scratch()
  const limit = 64 * 2 ** 20
  const cache = open(place.path, { limit })
  for (let i = 0; i < 200; i++) {
    cache.put(key(`${i}`), Buffer.alloc(2 ** 20, i))
    await cache.get(key('0'))
    await cache.ready
    assert.ok(cache.bytes <= limit, `${cache.bytes} bytes`)
  }
  assert.equal((await read(cache, '0'))?.length, 2 ** 20, 'the one in use')
  assert.equal(await cache.get(key('20')), undefined, 'one that nobody asked for')
  assert.equal((await read(cache, '199'))?.length, 2 ** 20, 'the newest')
  await cache.close()
})

test('a budget without room: the oldest makes way for the newest; drop frees what is asked for', async () => {
  using place = scratch()
  let room = true
  const cache = open(place.path, { limit: 64 * 2 ** 20, hasRoom: () => room })
  for (let i = 0; i < 40; i++) cache.put(key(`${i}`), Buffer.alloc(2 ** 20))
  await cache.ready
  for (let i = 40; i < 60; i++) cache.put(key(`${i}`), Buffer.alloc(2 ** 20))
  await cache.ready
  const before = cache.bytes
  room = false
  for (let i = 60; i < 80; i++) {
    cache.put(key(`${i}`), Buffer.alloc(2 ** 20))
    await cache.ready
  }
  assert.ok(cache.bytes <= before, 'nothing was added that did not take the place of something')
  await cache.drop(20 * 2 ** 20)
  assert.ok(cache.bytes <= before - 20 * 2 ** 20)
  await cache.drop(2 ** 40)
  assert.equal(cache.bytes, 0)
  assert.deepEqual(place.files(), [])
  assert.equal(cache.records, 0)
  await cache.close()
})

test('records that come all at once send as many old ones away as they need room', async () => {
  const MiB = 2 ** 20
  for (const { room, old } of [
    { room: 2 ** 40, old: 60 },
    { room: 40 * MiB, old: 36 },
  ]) {
    using place = scratch()
    const hasRoom = (bytes: number): boolean => cache.bytes + bytes <= room
    const cache: Cache = open(place.path, { limit: 64 * MiB, hasRoom })
    for (let i = 0; i < old; i++) {
      cache.put(key(`${i}`), Buffer.alloc(MiB))
      await cache.ready
    }
    assert.equal(cache.tally.dropped, 0)
    for (let i = 0; i < 12; i++) cache.put(key(`new ${i}`), Buffer.alloc(MiB))
    await cache.ready
    for (let i = 0; i < 12; i++) assert.ok(cache.has(key(`new ${i}`)), `${i} is kept`)
    // In segments of 8 MiB.
    const { dropped } = cache.tally
    assert.ok(dropped > 0 && dropped <= 16 * MiB, `${dropped} bytes had to go`)
    assert.ok(cache.has(key('20')))
    assert.ok(cache.bytes <= Math.min(room, 64 * MiB))
    await cache.close()
  }
})

test('the number of records is bounded: those go first that have the most', async () => {
  using place = scratch()
  const few: Partial<CacheOptions> = { limit: 32 * 2 ** 20, mostRecords: 1000 }
  const first = open(place.path, few)
  for (let i = 0; i < 8; i++) first.put(key(`large ${i}`), randomBytes(2 ** 20))
  for (let i = 0; i < 10_000; i++) {
    first.put(key(`${i}`), Buffer.from('small'))
    assert.ok(first.records <= 1000)
    if (i % 100 === 0) await first.ready
  }
  await first.ready
  first.put(key('last'), Buffer.from('last'))
  for (const name of ['last', ...Array.from({ length: 6 }, (_, i) => `large ${i}`)])
    assert.ok(first.has(key(name)), `${name} is kept`)
  const { dropped, droppedUpTo, crowdedUpTo } = first.tally
  assert.ok(dropped > 0)
  assert.ok(crowdedUpTo >= 0 && crowdedUpTo === droppedUpTo)
  await first.close()
})

test('more records than there may be: some of those that an earlier process left are forgotten', async (t) => {
  using place = scratch()
  const { set } = KeyTable.prototype
  for (let life = 0; life < 3; life++) {
    const cache = open(place.path)
    await cache.ready
    for (let i = 0; i < 1000; i++) cache.put(key(`${life}: ${i}`), Buffer.from('small'))
    await cache.close()
  }
  const counts = t.mock.method(KeyTable.prototype, 'set').mock
  let most = 0
  counts.mockImplementation(function (this: KeyTable, ...args: Parameters<KeyTable['set']>) {
    set.apply(this, args)
    most = Math.max(most, this.count)
  })
  const cache = open(place.path, { mostRecords: 1500 })
  await cache.ready
  assert.equal(cache.records, 1000)
  assert.equal(most, 1500, 'never more, not even while they are read')
  assert.ok(cache.has(key('2: 0')), 'the latest stay')
  cache.put(key('new'), Buffer.from('new'))
  assert.ok(cache.has(key('new')))
  await cache.close()
})

test('an earlier process left a segment with too many records by itself: it goes, and others stay', async () => {
  using place = scratch()
  for (const records of [10, 2000, 10]) {
    const cache = open(place.path)
    await cache.ready
    for (let i = 0; i < records; i++) cache.put(key(`${records}, ${i}`), Buffer.from('small'))
    await cache.close()
  }
  const cache = open(place.path, { mostRecords: 1000 })
  await cache.ready
  assert.equal(cache.records, 10)
  assert.equal(place.files().length, 2)
  assert.equal(String(await read(cache, '10, 9')), 'small')
  cache.put(key('new'), Buffer.from('new'))
  assert.ok(cache.has(key('new')))
  await cache.close()
})

test('what is put while everything is about to go stays', async () => {
  using place = scratch()
  const cache = open(place.path)
  cache.put(key('a'), Buffer.from('old'))
  const gone = cache.drop(2 ** 40)
  cache.put(key('b'), Buffer.from('new'))
  await gone
  await cache.ready
  assert.equal(await read(cache, 'a'), undefined)
  assert.equal(String(await read(cache, 'b')), 'new')
  await cache.close()
})

test('rot: a record that changed is as good as absent, whichever byte it is', async () => {
  using place = scratch()
  const first = open(place.path)
  first.put(key('before'), Buffer.from('before'))
  first.put(key('a'), Buffer.from('hello'))
  await first.close()
  const file = join(place.path, place.files()[0]!)
  const sound = readFileSync(file)
  for (let at = 0; at < sound.length; at++) {
    const rotten = Buffer.from(sound)
    rotten[at]! ^= 0x40
    writeFileSync(file, rotten)
    const cache = open(place.path)
    await cache.ready
    for (const name of ['a', 'before']) {
      const got = await read(cache, name)
      assert.ok(got === undefined || [`hello`, 'before'].includes(String(got)), `byte ${at}: ${got}`)
    }
    await cache.close()
    writeFileSync(file, sound)
  }
})

test('a torn tail, whichever byte is the last: what lies before is kept', async () => {
  using place = scratch()
  const first = open(place.path)
  first.put(key('a'), Buffer.from('hello'))
  first.put(key('b'), Buffer.from('world'))
  await first.close()
  const file = join(place.path, place.files()[0]!)
  const whole = readFileSync(file)
  for (let end = 0; end < whole.length; end++) {
    writeFileSync(file, whole.subarray(0, end))
    const cache = open(place.path)
    await cache.ready
    assert.equal(String(await read(cache, 'a')), end >= 8 + 32 + 5 ? 'hello' : 'undefined', `${end} bytes`)
    assert.equal(await read(cache, 'b'), undefined, `${end} bytes`)
    await cache.close()
    writeFileSync(file, whole)
  }
})

test('a file larger than any segment is none of ours', async () => {
  using place = scratch()
  const first = open(place.path)
  first.put(key('a'), Buffer.from('hello'))
  await first.ready
  await first.close()
  const [name] = place.files()
  truncateSync(join(place.path, name!), 64 * 2 ** 20 + 1)
  const second = open(place.path)
  await second.ready
  assert.equal(await read(second, 'a'), undefined)
  assert.ok(!place.files().includes(name!))
  await second.close()
})

test('a directory that vanishes or can not be written costs records, no more', async () => {
  using place = scratch()
  const problems: Error[] = []
  const cache = open(join(place.path, 'gone'), { onProblem: (problem) => problems.push(problem) })
  writeFileSync(join(place.path, 'gone'), 'a file where the directory should be')
  cache.put(key('a'), Buffer.from('hello'))
  await cache.ready
  assert.equal(await read(cache, 'a'), undefined)
  assert.equal(cache.bytes, 0)
  assert.ok(problems.length > 0)
  cache.put(key('b'), Buffer.from('hello'))
  assert.equal(cache.has(key('b')), false, 'not tried again at once')
  await cache.close()
})

test('an old segment that cannot be looked at costs no other', async () => {
  using place = scratch()
  const first = open(place.path)
  first.put(key('a'), Buffer.from('hello'))
  await first.close()
  const [name] = place.files()
  renameSync(join(place.path, name!), join(place.path, '00000002.seg'))
  symlinkSync('nowhere', join(place.path, '00000000.seg'))
  mkdirSync(join(place.path, '00000001.seg'))
  const problems: Error[] = []
  const second = open(place.path, { onProblem: (problem) => problems.push(problem) })
  await second.ready
  assert.equal(problems.length, 2)
  assert.equal(String(await read(second, 'a')), 'hello')
  assert.equal(second.bytes, statSync(join(place.path, '00000002.seg')).size)
  await second.close()
})

test('writes that fail do not lift the bound on what waits in memory', async (t) => {
  using place = scratch()
  t.mock.timers.enable({ apis: ['Date'] })
  writeFileSync(join(place.path, 'gone'), 'a file where the directory should be')
  const cache = open(join(place.path, 'gone'))
  const record = Buffer.alloc(3 * 2 ** 20)
  for (let round = 0; round < 3; round++) {
    const names = Array.from({ length: 8 }, (_, i) => `${round}:${i}`)
    for (const name of names.slice(0, 4)) cache.put(key(name), record)
    // The write is under way.
    await Promise.resolve()
    for (const name of names.slice(4)) cache.put(key(name), record)
    assert.equal(names.filter((name) => cache.has(key(name))).length, 5, `round ${round}`)
    await cache.ready
    t.mock.timers.tick(120_000)
  }
  await cache.close()
})

test('a disk that gives a record no more costs that record, whatever its size', async (t) => {
  using place = scratch()
  const cache = open(place.path)
  const sizes = [5, 65_536, 200_000]
  for (const size of sizes) cache.put(key(`${size}`), randomBytes(size))
  await cache.ready
  t.mock.method(fs, 'readvSync', () => {
    throw Object.assign(new Error('EIO: as the test wants it'), { code: 'EIO', syscall: 'read' })
  })
  syncBuiltinESMExports()
  t.after(() => {
    t.mock.restoreAll()
    syncBuiltinESMExports()
  })
  // What can't be read at once is read in a thread, and that works here.
  for (const size of sizes) assert.equal((await read(cache, `${size}`))?.length, size)
  for (const size of sizes) cache.peek(key(`${size}`))
  await cache.close()
})

test('while quick reads rest, what is not in memory can not be peeked at, and is read by a thread', async (t) => {
  using place = scratch()
  // Room for what was read last, and nothing beside it.
  const cache = open(place.path, { pool: new BlockPool(1) })
  const payloads = new Map([100, 8 * 1024, 60_000].map((size) => [`of ${size}`, randomBytes(size)]))
  for (const [name, payload] of payloads) {
    cache.put(key(name), payload)
    cache.put(key(`behind ${name}`), randomBytes(200_000))
  }
  for (const [name, payload] of payloads)
    assert.deepEqual(Buffer.from(cache.peek(key(name))!), payload, 'it waits to be written')
  await cache.ready
  const resting = t.mock.method(QuickReads.ofServer, 'try', () => undefined)
  const reads = t.mock.method(fs, 'readvSync')
  syncBuiltinESMExports()
  t.after(() => {
    t.mock.restoreAll()
    syncBuiltinESMExports()
  })
  for (const [name, payload] of payloads) {
    // Who peeks in vain has not asked for it: he is about to.
    for (let times = 0; times < 3; times++) assert.equal(cache.peek(key(name)), undefined, name)
    const brought = Buffer.alloc(payload.length)
    const got = cache.get(key(name), () => brought)
    assert.ok(got instanceof Promise, name)
    assert.equal((await got)!.buffer, brought.buffer)
    assert.deepEqual(brought, payload, name)
  }
  assert.equal(reads.mock.callCount(), 0)
  // What a thread has brought into memory is there for all: small records.
  await cache.get(key('of 100'))
  assert.deepEqual(Buffer.from(cache.peek(key('of 100'))!), payloads.get('of 100'))
  resting.mock.restore()
  for (const [name, payload] of payloads)
    assert.deepEqual(Buffer.from(cache.peek(key(name))!), payload, 'the disk is quick again')
  await cache.close()
})

test('what stays in memory can be peeked at while quick reads rest, and what is being read can not', async (t) => {
  using place = scratch()
  const cache = open(place.path, { pool: new BlockPool(1) })
  const payload = randomBytes(60_000)
  cache.put(key('a'), payload)
  cache.put(key('b'), randomBytes(200_000))
  await cache.ready
  t.mock.method(QuickReads.ofServer, 'try', () => undefined)
  await cache.get(key('a'), (size) => Buffer.allocUnsafe(size))
  await cache.get(key('b'))
  const second = cache.get(key('a'), (size) => Buffer.allocUnsafe(size))
  assert.ok(second instanceof Promise)
  assert.equal(cache.peek(key('a')), undefined, 'it is being read')
  const held = (await second)!
  assert.equal(cache.peek(key('a'))!.buffer, held.buffer)
  assert.deepEqual(Buffer.from(held), payload)
  await cache.close()
})

test('a record that has rotted, or is too large, can not be peeked at', async () => {
  using place = scratch()
  const first = open(place.path)
  const sizes = [100, 60_000, 68 * 1024]
  for (const size of sizes) first.put(key(`of ${size}`), randomBytes(size))
  first.put(key('too large'), randomBytes(68 * 1024 + 1))
  await first.ready
  for (const size of sizes) assert.equal(first.peek(key(`of ${size}`))?.length, size)
  assert.equal(first.peek(key('too large')), undefined)
  assert.equal(first.peek(key('never put')), undefined)
  await first.close()
  const file = join(place.path, place.files()[0]!)
  const bytes = readFileSync(file)
  let at = 8
  for (const size of sizes) {
    bytes[at + 32 + size - 1]! ^= 1
    at += 32 + size
  }
  writeFileSync(file, bytes)
  const second = open(place.path)
  await second.ready
  for (const size of sizes)
    for (let times = 0; times < 3; times++) assert.equal(second.peek(key(`of ${size}`)), undefined)
  for (const size of sizes) assert.equal(await read(second, `of ${size}`), undefined)
  await second.close()
})

test('a segment that was dropped while somebody reads from it stays closed', async (t) => {
  using place = scratch()
  const cache = open(place.path, { pool: new BlockPool(1) })
  cache.put(key('a'), randomBytes(1_000_000))
  await cache.ready
  t.mock.method(fs, 'readvSync', () => 0)
  syncBuiltinESMExports()
  t.after(() => {
    t.mock.restoreAll()
    syncBuiltinESMExports()
  })
  const reading = cache.get(key('a'))
  await cache.drop(1)
  await reading
  await cache.close()
  assert.deepEqual(openFilesBelow(place.path), [])
})

test('many records: each is found', async () => {
  using place = scratch()
  const cache = open(place.path)
  for (let i = 0; i < 20_000; i++) cache.put(key(`${i}`), Buffer.from(`payload ${i}`))
  await cache.ready
  for (let i = 0; i < 20_000; i += 7) assert.equal(String(await read(cache, `${i}`)), `payload ${i}`)
  await cache.close()
  const second = open(place.path)
  await second.ready
  assert.equal(second.records, 20_000)
  await second.close()
})

test('what was written and what had to go is told', async () => {
  using place = scratch()
  const cache = open(place.path, { limit: 8 * 2 ** 20 })
  const begun = cache.tally
  assert.deepEqual(begun, { written: 0, dropped: 0, next: 0, droppedUpTo: -1, crowdedUpTo: -1 })
  for (let i = 0; i < 6; i++) {
    cache.put(key(`${i}`), randomBytes(3 * 2 ** 20))
    await cache.ready
  }
  const { written, dropped, next, droppedUpTo, crowdedUpTo } = cache.tally
  assert.ok(written > 18 * 2 ** 20 && written < 18 * 2 ** 20 + 1000)
  assert.ok(dropped > 0 && dropped < written && written - dropped <= cache.bytes)
  assert.ok(droppedUpTo >= begun.next && next > droppedUpTo)
  assert.equal(crowdedUpTo, -1, 'there are few')
  await cache.close()
})

test('while it is paused nothing is written, and what was put before is read', async () => {
  using place = scratch()
  const cache = open(place.path)
  cache.put(key('before'), Buffer.from('before'))
  await cache.pause()
  cache.put(key('meanwhile'), Buffer.from('meanwhile'))
  assert.equal(cache.has(key('meanwhile')), false)
  assert.equal(String(await read(cache, 'before')), 'before')
  cache.resume()
  cache.put(key('after'), Buffer.from('after'))
  assert.ok(cache.has(key('after')))
  await cache.close()
})
