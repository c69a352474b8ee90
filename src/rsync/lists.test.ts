import assert from 'node:assert/strict'
import { hash } from 'node:crypto'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, test } from 'node:test'
import { setImmediate as nextTurn } from 'node:timers/promises'
import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import { MemoryTree } from '../../test/support/memory-tree.ts'
import { memoryKept, SEED } from '../../test/support/session.ts'
import { Cache } from '../cache/cache.ts'
import { StoreError } from '../errors.ts'
import { BlockPool } from '../lib/block-pool.ts'
import { ascii, type ByteString } from '../lib/bytes.ts'
import { Derived } from './derived.ts'
import type { Kept } from './kept.ts'
import { type ListRequest, Lists, type PreparedList } from './lists.ts'
import { findSources } from './paths.ts'
import type { Content, Tree } from './tree.ts'
import { parseArguments } from './wire/arguments.ts'
import { parseRule } from './wire/filters.ts'
import { sentXattrs } from './wire/xattrs.ts'

setFlagsFromString('--expose-gc')
const collectGarbage: () => void = runInNewContext('gc')

const signal = new AbortController().signal
const derived = new Derived({ kept: memoryKept(), checksumSeed: SEED })
after(() => derived.close())

const file = (data: string) => ({ mode: 0o100644, mtime: 5, data: Buffer.from(data) })
const xattr = (name: string) => ({ name: ascii(name), value: Buffer.alloc(100) })
const dir = (children: object) => ({ mode: 0o40755, mtime: 5, children }) as never
const someTree = new MemoryTree(
  dir({
    a: file('a'),
    link: { mode: 0o120777, mtime: 5, target: 'a' },
    sub: dir({ b: file('bb'), deep: dir({ c: file('c') }) }),
  }),
)
after(() => someTree.close())

let made = 0
function request(
  words: string[],
  changes: {
    tree?: Tree
    rules?: string[]
    protocol?: number
    listDigest?: 'md5' | 'xxh128'
    module?: string
  } = {},
): ListRequest {
  const { tree = someTree, protocol = 31, rules = [], listDigest = 'md5' } = changes
  const module = ascii(changes.module ?? 'm')
  const options = parseArguments(['--server', '--sender', ...words] as ByteString[], undefined)
  return {
    tree,
    module,
    options,
    rules: rules.map((rule) => parseRule(ascii(rule), false)),
    agreement: {
      protocol,
      compat: 0,
      transferDigest: 'md5',
      listDigest,
      seed: SEED,
      codec: undefined,
    },
    sources: () => {
      made++
      const { paths, relative, secluded } = options
      return findSources(tree, { module, paths, relative, secluded, directoriesSent: true }, signal)
    },
  }
}

const names = (list: PreparedList): string[] => Array.from(list.nodes, (_, place) => list.nameOf(place))

test('a list is made once: for the next who asks, and after a restart', async () => {
  const kept = memoryKept()
  made = 0
  for (const words of [
    ['-logDtpr', '.', 'm/'],
    ['-r', '.', 'm/sub'],
    ['-r', '.', 'm/sub/'],
    ['-r', '.', 'm/a'],
  ]) {
    const first = await new Lists(derived, kept).prepare(request(words), signal)
    const lists = new Lists(derived, kept)
    const count = made
    for (const list of [
      await lists.prepare(request(words), signal),
      await lists.prepare(request(words), signal),
    ]) {
      assert.deepEqual(Buffer.from(list.bytes), Buffer.from(first.bytes))
      assert.deepEqual(list.nodes, first.nodes)
      assert.deepEqual(list.order, first.order)
      assert.deepEqual(names(list), names(first), 'names read off the tree')
      assert.equal(list.totalSize, first.totalSize)
    }
    assert.equal(made, count)
  }
  assert.equal(made, 4)
})

test('the attributes that a list tells of are the same after a restart, as the client asks for them by number', async () => {
  const entry = { ...file('a'), xattrs: ['security.a', 'user.big', 'user.\xe9'].map(xattr) }
  const labelled = new MemoryTree(dir({ entry }))
  after(() => labelled.close())
  const kept = memoryKept()
  made = 0
  for (const [rules, expected] of [
    [['-x security.*'], ['user.big', 'user.\xe9']],
    [['+x security.*', '-x *'], ['security.a']],
    [[], ['security.a', 'user.big', 'user.\xe9']],
  ] as const) {
    for (let round = 0; round < 2; round++) {
      const lists = new Lists(derived, kept)
      const { xattrChoice } = await lists.prepare(
        request(['-rX', '.', 'm/'], { tree: labelled, rules: [...rules] }),
        signal,
      )
      const sent = sentXattrs(entry.xattrs, xattrChoice).map(({ name }) => name)
      assert.deepEqual(sent, expected, `round ${round}`)
    }
  }
  assert.equal(made, 3)
})

test('a list in memory holds no tree, and its names are read from the tree of who asks', async () => {
  const lists = new Lists(derived, memoryKept())
  /** As a session does, with a tree of its own. */
  const openAndAsk = async (): Promise<WeakRef<Tree>> => {
    const own = new MemoryTree(dir({ sub: dir({ file: file('a') }) }), 'of one build')
    const list = await lists.prepare(request(['-r', '.', 'm/'], { tree: own }), signal)
    assert.deepEqual(names(list), ['.', 'sub', 'sub/file'])
    own.close()
    return new WeakRef(own)
  }
  made = 0
  const trees = [await openAndAsk(), await openAndAsk(), await openAndAsk()]
  assert.equal(made, 1)
  // Until the turn ends, what a WeakRef was just made of stays.
  await nextTurn()
  collectGarbage()
  assert.deepEqual(
    trees.map((tree) => tree.deref()?.key),
    [undefined, undefined, undefined],
  )
})

test('a list larger than what may wait for the disk is kept as well', async () => {
  const directory = mkdtempSync(join(tmpdir(), 'upserv-lists-'))
  const open = (): Cache => Cache.open({ directory, limit: 2 ** 30, pool: new BlockPool(2 ** 20) })
  // 17 MiB of targets that are told in full.
  const long = Array.from({ length: 4400 }, (_, i) => [
    `${i}`,
    { mode: 0o120777, mtime: 5, target: `${i}`.padEnd(4090, 'x') },
  ])
  const large = new MemoryTree(dir(Object.fromEntries(long)))
  let cache = open()
  try {
    made = 0
    const asked = request(['-rl', '.', 'm/'], { tree: large })
    const lists = new Lists(derived, cache)
    const first = await lists.prepare(asked, signal)
    assert.ok(first.bytes.length > 17 * 2 ** 20)
    await lists.keepAll()
    await cache.close()
    cache = open()
    await cache.ready
    const second = await new Lists(derived, cache).prepare(asked, signal)
    assert.equal(made, 1)
    assert.ok(Buffer.from(first.bytes).equals(second.bytes))
    assert.deepEqual(names(second).slice(-3), names(first).slice(-3))
  } finally {
    await cache.close()
    large.close()
    rmSync(directory, { recursive: true })
  }
})

test('a list waits for room where too much is on its way to the disk, and not for ever', async () => {
  const long = Array.from({ length: 2400 }, (_, i) => [
    `${i}`,
    { mode: 0o120777, mtime: 5, target: `${i}`.padEnd(4090, 'x') },
  ])
  const large = new MemoryTree(dir(Object.fromEntries(long)))
  const asked = request(['-rl', '.', 'm/'], { tree: large })
  for (const madeAtOnce of [3, 0]) {
    const memory = memoryKept(32 * 2 ** 20)
    let [room, refused] = [0, 0]
    const crowded: Kept = {
      ...memory,
      put: (key, bytes) => {
        if (room-- > 0) return memory.put(key, bytes)
        refused++
        return false
      },
      get ready() {
        return nextTurn().then(() => {
          room = madeAtOnce
        })
      },
    }
    made = 0
    const lists = new Lists(derived, crowded)
    const first = await lists.prepare(asked, signal)
    assert.ok(first.bytes.length > 9 * 2 ** 20)
    await lists.keepAll()
    assert.ok(refused > 0 && refused <= 20, `${refused} times`)
    await new Lists(derived, crowded).prepare(asked, signal)
    assert.equal(made, madeAtOnce > 0 ? 1 : 2)
  }
  large.close()
})

test('whatever shapes a list makes another one; what does not, does not', async () => {
  const lists = new Lists(derived, memoryKept())
  const shaping: [string[], { rules?: string[]; protocol?: number }?][] = [
    [['-r', '.', 'm/']],
    [['-r', '.', 'm/'], { protocol: 30 }],
    [['-r', '.', 'm/'], { rules: ['- b'] }],
    [['-r', '.', 'm/'], { rules: ['+ b'] }],
    [['-r', '.', 'm/sub/']],
    [['-rl', '.', 'm/']],
    [['-ro', '.', 'm/']],
    [['-rc', '.', 'm/']],
    [['-rH', '.', 'm/']],
    [['-rX', '.', 'm/']],
    [['-d', '.', 'm/']],
    [['-ro', '--numeric-ids', '.', 'm/']],
  ]
  for (const [i, [words, changes]] of shaping.entries()) {
    made = 0
    await lists.prepare(request(words, changes), signal)
    assert.equal(made, 1, `${i}: ${words.join(' ')} got another one's list`)
  }
  for (const more of ['--inplace', '--timeout=5', '--bwlimit=1000', '-z', '--append', '--compress-level=3']) {
    made = 0
    await lists.prepare(request(['-r', more, '.', 'm/']), signal)
    assert.equal(made, 0, `${more} says nothing about the list`)
  }
  const alike: [string[], Parameters<typeof request>[1]][] = [
    [['-re.iLsfxCIvu', '.', 'm/'], {}],
    [['-r', '.', 'm/'], { protocol: 32 }],
    [['-r', '.', 'm/'], { listDigest: 'xxh128' }],
    [['-r', '.', 'channel/'], { module: 'channel' }],
  ]
  for (const [words, changes] of alike) {
    made = 0
    await lists.prepare(request(words, changes), signal)
    assert.equal(made, 0, `${words.join(' ')}, ${JSON.stringify(changes)}: the same list`)
  }
  await lists.prepare(request(['-rc', '.', 'm/'], { listDigest: 'xxh128' }), signal)
  assert.equal(made, 1, 'with -c the digest is in the list')
})

test('lists whose names are not those of the tree are made each time, and are right', async () => {
  const kept = memoryKept()
  const expected: [string[], string[]][] = [
    [
      ['-rR', '.', 'm/sub/deep'],
      ['sub', 'sub/deep', 'sub/deep/c'],
    ],
    [
      ['-r', '.', 'm/sub/deep', 'm/a'],
      ['deep', 'deep/c', 'a'],
    ],
    [['-rL', '.', 'm/link'], ['link']],
  ]
  for (const [words, sent] of expected) {
    for (let round = 0; round < 2; round++) {
      const list = await new Lists(derived, kept).prepare(request(words), signal)
      assert.deepEqual(names(list), sent)
    }
  }
})

test('what could not be listed is told to the next one as well', async () => {
  const kept = memoryKept()
  for (let round = 0; round < 2; round++) {
    const lists = new Lists(derived, kept)
    const list = await lists.prepare(request(['-rL', '.', 'm/nothing']), signal)
    assert.deepEqual(
      list.notices.map(({ type }) => type),
      ['missing'],
    )
    const skipped = await lists.prepare(request(['-l', '.', 'm/sub']), signal)
    assert.deepEqual(
      skipped.notices.map(({ type }) => type),
      ['skipped-directory'],
    )
  }
})

test('a list is of its tree, whatever else is alike', async () => {
  const lists = new Lists(derived, memoryKept())
  for (const name of ['one', 'another']) {
    const tree = new MemoryTree(dir({ [name]: file(name) }))
    const list = await lists.prepare(request(['-r', '.', 'm/'], { tree }), signal)
    assert.deepEqual(names(list), ['.', name])
    assert.ok(Buffer.from(list.bytes).includes(name))
    tree.close()
  }
})

test('a list without the digest of a file that could not be read is not given to the next one', async () => {
  let isBroken = true
  const tree = new (class extends MemoryTree {
    override digest = () => undefined
    override open = (node: number): Promise<Content> =>
      isBroken ? Promise.reject(new StoreError('the disk says no')) : super.open(node)
  })(dir({ a: file('what is in it') }))
  const lists = new Lists(derived, memoryKept())
  const digest = hash('md5', 'what is in it', 'buffer')
  for (const has of [false, true, true]) {
    made = 0
    const { bytes } = await lists.prepare(request(['-rc', '.', 'm/'], { tree }), signal)
    assert.equal(Buffer.from(bytes).includes(digest), has)
    isBroken = false
  }
  assert.equal(made, 0, 'a whole one is')
  tree.close()
})
