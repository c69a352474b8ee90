import assert from 'node:assert/strict'
import { after, test } from 'node:test'
import { Cursor, decodeFlist, decodeIdList } from '../../test/support/flist-decoder.ts'
import { MemoryTree } from '../../test/support/memory-tree.ts'
import { fc } from '../../test/support/property.ts'
import { RefusedError } from '../errors.ts'
import { ascii, type ByteString, compareBytes } from '../lib/bytes.ts'
import { DIRECTORY, REGULAR, SYMLINK, TYPE_MASK } from '../lib/file-mode.ts'
import { Filters } from './filters.ts'
import {
  buildFileList,
  type EncodeOptions,
  encodeFileList,
  type FileList,
  ioErrorOf,
  type ListNotice,
  type ListOptions,
} from './flist.ts'
import { findSources } from './paths.ts'
import { parseRule } from './wire/filters.ts'
import { FLAG } from './wire/flist.ts'
import { decodeI32, decodeVarint } from './wire/ints.ts'

const file = (more: object = {}) => ({ mode: 0o100644, data: Buffer.from('x'), ...more })
const dir = (children: Record<string, object> = {}) => ({ mode: 0o040755, children: children as never })
const link = (target: string) => ({ mode: 0o120777, target })

/** The tree of docs/rsync-protocol.md, section 6.9, and links beside it. */
const tree = new MemoryTree(
  dir({
    order: dir({
      '+plus': file(),
      '-dash': file(),
      'a.txt': file(),
      'foo-bar': file(),
      zero: file(),
      foo: dir({ x: file() }),
      'foo.d': dir({ y: file() }),
      sub: dir({ c1: file(), deep: dir({ c2: file() }) }),
    }),
    links: dir({
      file: link('../order/a.txt'),
      inside: link('real/f'),
      directory: link('../order/foo'),
      parent: link('..'),
      self: link('.'),
      gone: link('nowhere'),
      absolute: link('/order/zero'),
      real: dir({ f: file(), back: link('../real') }),
    }),
  }),
)
after(() => tree.close())

const signal = new AbortController().signal
const OPTIONS: ListOptions = {
  protocol: 32,
  recurse: true,
  dirs: false,
  relative: false,
  impliedDirs: true,
  copyLinks: false,
  copyDirlinks: false,
  copyUnsafeLinks: false,
  missingArgs: 'report',
  unsorted: false,
}

async function listOf(
  paths: readonly string[],
  changes: Partial<ListOptions> = {},
  rules: readonly string[] = [],
  of: MemoryTree = tree,
): Promise<FileList> {
  const options = { ...OPTIONS, ...changes }
  const request = {
    module: ascii('m'),
    paths: paths as readonly ByteString[],
    relative: options.relative,
    secluded: false,
    directoriesSent: true,
  }
  const filters = new Filters(rules.map((rule) => parseRule(rule as ByteString, false)))
  return buildFileList(of, await findSources(of, request, signal), filters, options, signal)
}

/** Names as the client will index them. */
const sorted = (list: FileList): string[] => [...list.order].map((place) => list.names[place]!)

/** Names in transmission order: T for TOP_DIR, N for NO_CONTENT_DIR, - for an entry to delete. */
function sent(list: FileList): string[] {
  return list.names.map((name, i) => {
    const flags = list.flags[i]!
    const shown = `${flags & FLAG.topDir ? 'T' : ''}${flags & FLAG.noContentDir ? 'N' : ''}${list.nodes[i]! < 0 ? '-' : ''}`
    return shown === '' ? name : `${name} ${shown}`
  })
}

const notices = (list: FileList): string[] => list.notices.map(({ type, path }) => `${type} ${path}`)

// ---------------------------------------------------------------------------------------------------
// Order: section 6.9.

const SINCE_29 = [
  '.',
  '+plus',
  '-dash',
  'a.txt',
  'foo-bar',
  'zero',
  'foo.d',
  'foo.d/y',
  'foo',
  'foo/x',
  'sub',
  'sub/c1',
  'sub/deep',
  'sub/deep/c2',
]
const UNTIL_28 = [
  '+plus',
  '-dash',
  '.',
  'a.txt',
  'foo',
  'foo-bar',
  'foo.d',
  'foo.d/y',
  'foo/x',
  'sub',
  'sub/c1',
  'sub/deep',
  'sub/deep/c2',
  'zero',
]

for (const protocol of [27, 28, 29, 30, 31, 32]) {
  test(`order at ${protocol}: the example of section 6.9`, async () => {
    const list = await listOf(['m/order/'], { protocol })
    assert.deepEqual(sorted(list), protocol < 29 ? UNTIL_28 : SINCE_29)
    assert.equal(list.totalSize, 9)
  })
}

test('order of transmission: each directory, all its children, then what is in each of them', async () => {
  const list = await listOf(['m/order/'])
  assert.deepEqual(sent(list), [
    '. T',
    '+plus',
    '-dash',
    'a.txt',
    'foo-bar',
    'zero',
    'foo.d',
    'foo',
    'sub',
    'foo.d/y',
    'foo/x',
    'sub/c1',
    'sub/deep',
    'sub/deep/c2',
  ])
})

test('order with --iconv: indices mean the order of transmission', async () => {
  const list = await listOf(['m/order/'], { unsorted: true })
  assert.deepEqual(sorted(list), [...list.names])
})

test('order: several sources, names that come twice keep theirs', async () => {
  const list = await listOf(['m/order/sub', 'm/order/a.txt', 'm/order/foo/', 'm/order/a.txt'])
  assert.deepEqual(sent(list), ['sub T', 'sub/c1', 'sub/deep', 'sub/deep/c2', 'a.txt', '. T', 'x', 'a.txt'])
  assert.deepEqual([...list.order], [5, 4, 7, 6, 0, 1, 2, 3])
})

/** The comparison as the section words it: lists of components. */
function compare(a: { name: string; isDir: boolean }, b: { name: string; isDir: boolean }): number {
  const key = ({ name, isDir }: { name: string; isDir: boolean }) =>
    name === '.'
      ? []
      : name.split('/').map((part, i, all) => (i < all.length - 1 || isDir ? [1, `${part}/`] : [0, part]))
  const [one, other] = [key(a), key(b)]
  for (let i = 0; i < Math.min(one.length, other.length); i++) {
    const [kindA, partA] = one[i] as [number, string]
    const [kindB, partB] = other[i] as [number, string]
    if (kindA !== kindB) return kindA - kindB
    if (partA !== partB) return compareBytes(partA as ByteString, partB as ByteString)
  }
  return one.length - other.length
}

test('order: any tree, from the walk and from the sort, is that of the comparison', async () => {
  const name = fc
    .string({
      unit: fc.constantFrom('a', 'b', '-', '.', '0', '\x01', '\x7f', '\xff'),
      minLength: 1,
      maxLength: 3,
    })
    .filter((n) => n !== '.' && n !== '..')
  const { node } = fc.letrec((tie) => ({
    node: fc.dictionary(
      name,
      fc.oneof(
        { depthSize: 'small' },
        fc.constant(file()),
        tie('node').map((c) => dir(c as never)),
      ),
      { maxKeys: 5 },
    ),
  }))
  const property = fc.asyncProperty(node, fc.constantFrom(27, 28, 29, 32), async (children, protocol) => {
    const any = new MemoryTree(dir(children as never))
    try {
      for (const paths of [['m/'], ['m/', 'm/nothing']]) {
        const list = await listOf(paths, { protocol }, [], any)
        const entries = [...list.order].map((place) => ({
          name: list.names[place]!,
          isDir: (any.mode(list.nodes[place]!) & 0o170000) === 0o040000,
        }))
        const expected = entries.toSorted((a, b) =>
          protocol < 29 ? compareBytes(a.name, b.name) : compare(a, b),
        )
        assert.deepEqual(entries, expected)
        assert.equal(new Set(list.order).size, list.names.length)
      }
    } finally {
      any.close()
    }
  })
  await fc.assert(property, { numRuns: 200 })
})

// ---------------------------------------------------------------------------------------------------
// What is in the list, and its directory flags: sections 6.10 and 6.11.

const SHAPES: readonly {
  name: string
  paths: string[]
  options?: Partial<ListOptions>
  rules?: string[]
  sent: string[]
  notices?: string[]
}[] = [
  { name: 'the contents of a directory', paths: ['m/order/foo/'], sent: ['. T', 'x'] },
  { name: 'a directory', paths: ['m/order/foo'], sent: ['foo T', 'foo/x'] },
  { name: 'a file', paths: ['m/order/a.txt'], sent: ['a.txt'] },
  {
    name: 'a directory without -r or -d',
    paths: ['m/order/foo'],
    options: { recurse: false },
    sent: [],
    notices: ['skipped-directory foo'],
  },
  {
    name: '-d of the contents',
    paths: ['m/order/sub/'],
    options: { recurse: false, dirs: true },
    sent: ['. T', 'c1', 'deep N'],
  },
  {
    name: '-d of a directory',
    paths: ['m/order/sub'],
    options: { recurse: false, dirs: true },
    sent: ['sub N'],
  },
  { name: 'nothing there', paths: ['m/nothing'], sent: [], notices: ['missing nothing'] },
  {
    name: '--ignore-missing-args',
    paths: ['m/nothing', 'm/order/a.txt'],
    options: { missingArgs: 'ignore' },
    sent: ['a.txt'],
  },
  {
    name: '--delete-missing-args',
    paths: ['m/nothing', 'm/order/a.txt'],
    options: { missingArgs: 'delete' },
    sent: ['nothing -', 'a.txt'],
  },
  {
    name: '--delete-missing-args and nothing else',
    paths: ['m/nothing'],
    options: { missingArgs: 'delete' },
    sent: ['nothing -'],
  },
  ...(['report', 'ignore', 'delete'] as const).map((missingArgs) => ({
    name: `a directory that is not there is told of, to ${missingArgs} what is missing`,
    paths: ['m/nothing/', 'm/nothing/at/all', 'm/order/a.txt'],
    options: { missingArgs },
    sent: ['a.txt'],
    notices: ['missing-directory nothing', 'missing-directory nothing/at'],
  })),
  // -R
  {
    name: '-R sends the parents',
    paths: ['m/order/sub/deep'],
    options: { relative: true },
    sent: ['order TN', 'order/sub TN', 'order/sub/deep T', 'order/sub/deep/c2'],
  },
  {
    name: '-R sends each parent once',
    paths: ['m/order/a.txt', 'm/order/sub/c1', 'm/order/zero'],
    options: { relative: true },
    sent: ['order TN', 'order/a.txt', 'order/sub TN', 'order/sub/c1', 'order/zero'],
  },
  {
    name: '-R with /./ begins there',
    paths: ['m/order/./sub/c1'],
    options: { relative: true },
    sent: ['sub TN', 'sub/c1'],
  },
  {
    name: '-R with ./ first sends a dot',
    paths: ['m/././order/a.txt'],
    options: { relative: true },
    sent: ['. TN', 'order TN', 'order/a.txt'],
  },
  {
    name: '-R --no-implied-dirs from 30 on',
    paths: ['m/order/a.txt'],
    options: { relative: true, impliedDirs: false },
    sent: ['order TN', 'order/a.txt'],
  },
  {
    name: '-R --no-implied-dirs below 30',
    paths: ['m/order/a.txt'],
    options: { relative: true, impliedDirs: false, protocol: 29 },
    sent: ['order/a.txt'],
  },
  {
    name: '-R through a link',
    paths: ['m/links/directory/x'],
    options: { relative: true },
    sent: ['links TN', 'links/directory TN', 'links/directory/x'],
  },
  {
    name: '-R of what is missing sends no parents',
    paths: ['m/order/nothing'],
    options: { relative: true },
    sent: [],
    notices: ['missing order/nothing'],
  },
  {
    name: '-R: parents are not filtered',
    paths: ['m/order/sub/c1'],
    options: { relative: true },
    rules: ['- sub/', '- order'],
    sent: ['order TN', 'order/sub TN', 'order/sub/c1'],
  },
  // Filters
  {
    name: 'a dropped directory is not entered',
    paths: ['m/order/'],
    rules: ['- foo*', '- sub/*'],
    sent: ['. T', '+plus', '-dash', 'a.txt', 'zero', 'sub'],
  },
  { name: 'the root itself is never filtered', paths: ['m/order/foo/'], rules: ['- *'], sent: ['. T'] },
  { name: 'a named source is', paths: ['m/order/a.txt', 'm/order/zero'], rules: ['- zero'], sent: ['a.txt'] },
  // Links
  { name: 'links as they are', paths: ['m/links/real/'], sent: ['. T', 'back', 'f'] },
  {
    name: '-L follows all, but not up the way that it came',
    paths: ['m/links/real'],
    options: { copyLinks: true },
    sent: ['real T', 'real/back', 'real/f'],
  },
  {
    name: '-L tells of those that lead nowhere',
    paths: ['m/links/gone', 'm/order/a.txt'],
    options: { copyLinks: true },
    sent: ['a.txt'],
    notices: ['missing links/gone'],
  },
  {
    name: '-k follows those to directories',
    paths: ['m/links/directory', 'm/links/file'],
    options: { copyDirlinks: true },
    sent: ['directory T', 'directory/x', 'file'],
  },
  {
    name: '--copy-unsafe-links: by the transfer root',
    paths: ['m/links/'],
    options: { copyUnsafeLinks: true },
    rules: ['- parent'],
    sent: [
      '. T',
      'absolute',
      'file',
      'gone',
      'inside',
      'self',
      'directory',
      'real',
      'directory/x',
      'real/back',
      'real/f',
    ],
  },
]
for (const { name, paths, options, rules, sent: expected, notices: said = [] } of SHAPES) {
  test(`list: ${name}`, async () => {
    const list = await listOf(paths, options, rules)
    assert.deepEqual(sent(list).toSorted(), expected.toSorted())
    if (!name.includes('unsafe')) assert.deepEqual(sent(list), expected)
    assert.deepEqual(notices(list), said)
    assert.equal(new Set(list.order).size, list.names.length, 'every entry has an index')
  })
}

test('list: --copy-unsafe-links looks at where the transfer begins', async () => {
  const typesOf = async (path: string): Promise<Record<string, string | undefined>> => {
    const list = await listOf([path], { copyUnsafeLinks: true, recurse: false, dirs: true })
    const type = new Map([
      [REGULAR, 'file'],
      [SYMLINK, 'link'],
      [DIRECTORY, 'directory'],
    ])
    return Object.fromEntries(
      list.names.map((name, i) => [name, type.get(tree.mode(list.nodes[i]!) & TYPE_MASK)]),
    )
  }
  const inside = await typesOf('m/links/')
  assert.equal(inside.file, 'file', '../order/a.txt leads out of links/')
  assert.equal(inside.directory, 'directory')
  assert.equal(inside.absolute, 'file')
  assert.equal(inside.inside, 'link', 'real/f stays within')
  const single = await typesOf('m/links/inside')
  assert.deepEqual(single, { inside: 'link' })
})

test('list: -L through all kinds of loops ends, in the right order', async () => {
  const list = await listOf(['m/links/'], { copyLinks: true })
  assert.deepEqual(notices(list), ['broken-link links/gone'])
  assert.ok(list.names.length < 100, `${list.names.length} entries`)
  const entries = [...list.order].map((place) => ({
    name: list.names[place]!,
    isDir: (tree.mode(list.nodes[place]!) & 0o170000) === 0o040000,
  }))
  assert.deepEqual(entries, entries.toSorted(compare))
})

// ---------------------------------------------------------------------------------------------------
// Bounds.

test('bounded: a tree named ten thousand times over', async () => {
  const wide = new MemoryTree(
    dir(Object.fromEntries(Array.from({ length: 500 }, (_, i) => [`f${i}`, file()]))),
  )
  try {
    const paths = Array.from({ length: 10_000 }, () => 'm/')
    await assert.rejects(listOf(paths, {}, [], wide), RefusedError)
  } finally {
    wide.close()
  }
})

test('bounded: names that are not there count as those that are', async () => {
  const few = new MemoryTree(dir({ a: file() }))
  // 8 for each entry of the tree, and 100,000 more.
  const most = 2 * 8 + 100_000
  const pathsOf = (missing: number): string[] => [
    ...Array.from({ length: 50_000 }, () => 'm/a'),
    ...Array.from({ length: missing }, () => 'm/n'),
  ]
  try {
    const list = await listOf(pathsOf(most - 50_000), {}, [], few)
    assert.equal(list.names.length + list.notices.length, most)
    await assert.rejects(listOf(pathsOf(most - 50_000 + 1), {}, [], few), RefusedError)
  } finally {
    few.close()
  }
})

test('the size of a list is that of its files and links', async () => {
  const sized = new MemoryTree(
    dir({ a: file({ data: Buffer.alloc(100) }), link: link('seven b'), below: dir({ b: file() }) }),
  )
  assert.equal((await listOf(['m/'], {}, [], sized)).totalSize, 100 + 7 + 1)
  assert.equal((await listOf(['m/', 'm/a'], {}, [], sized)).totalSize, 2 * 100 + 7 + 1)
  sized.close()
})

test('what must not be deleted for what could not be listed', () => {
  const of = (...types: ListNotice['type'][]) => types.map((type) => ({ type, path: ascii('x') }))
  for (const { notices, ioError } of [
    { notices: of(), ioError: 0 },
    { notices: of('missing', 'skipped-directory'), ioError: 0 },
    { notices: of('missing', 'broken-link'), ioError: 1 },
    { notices: of('missing-directory'), ioError: 1 },
    { notices: of('unreadable-directory'), ioError: 1 },
  ]) {
    assert.equal(ioErrorOf(notices, false), ioError)
    assert.equal(ioErrorOf(notices, true), 0)
  }
})

test('bounded: links that multiply', async () => {
  // Twenty levels of two links each: a million ways down.
  const levels: Record<string, object> = { l20: dir({ f: file() }) }
  for (let i = 0; i < 20; i++) levels[`l${i}`] = dir({ x: link(`../l${i + 1}`), y: link(`../l${i + 1}`) })
  const bushy = new MemoryTree(dir(levels))
  try {
    await assert.rejects(listOf(['m/'], { copyLinks: true }, [], bushy), RefusedError)
  } finally {
    bushy.close()
  }
})

test('an aborted session does not go on listing', async () => {
  const wide = new MemoryTree(
    dir(Object.fromEntries(Array.from({ length: 30_000 }, (_, i) => [`f${i}`, file({ data: undefined })]))),
  )
  const abort = new AbortController()
  try {
    const request = {
      module: ascii('m'),
      paths: [ascii('m/')],
      relative: false,
      secluded: false,
      directoriesSent: true,
    }
    const sources = await findSources(wide, request, abort.signal)
    const rules = Array.from({ length: 300 }, (_, i) => parseRule(`- *x${i}*y` as ByteString, false))
    const listing = buildFileList(wide, sources, new Filters(rules), OPTIONS, abort.signal)
    abort.abort(new Error('gone'))
    await assert.rejects(listing, /gone/)
  } finally {
    wide.close()
  }
})

// ---------------------------------------------------------------------------------------------------
// The whole list on the wire.

const ENCODE: EncodeOptions = {
  protocol: 32,
  varintFlags: true,
  safeEnd: true,
  owner: true,
  group: true,
  links: true,
  devices: true,
  specials: true,
  hardLinks: true,
  atimes: false,
  crtimes: false,
  checksumLength: 0,
  numericIds: false,
  id0Names: true,
  acls: false,
  xattrChoice: undefined,
  checksum: undefined,
  ioError: 0,
}

async function encoded(list: FileList, options: EncodeOptions, of: MemoryTree): Promise<Cursor> {
  const chunks: Buffer[] = []
  for await (const chunk of encodeFileList(list, of, options)) chunks.push(chunk)
  return new Cursor(Buffer.concat(chunks))
}

const hard = new MemoryTree(
  dir({
    a: file({ link: 5, uid: 1000 }),
    b: file(),
    c: file({ link: 5, uid: 1000 }),
    d: dir({ e: file({ link: 5, uid: 1000 }), f: file({ link: 6 }) }),
    tty: { mode: 0o020620, major: 4, minor: 64, gid: 5 },
  }),
)
after(() => hard.close())

for (const protocol of [27, 28, 29, 30, 31, 32]) {
  test(`on the connection at ${protocol}: entries, links, ids, io_error`, async () => {
    const varintFlags = protocol >= 31
    const options = {
      ...ENCODE,
      protocol,
      varintFlags,
      safeEnd: protocol >= 31,
      id0Names: varintFlags,
      ioError: 1,
    }
    const list = await listOf(['m/'], { protocol }, [], hard)
    const cursor = await encoded(list, options, hard)
    const { entries, ioError } = decodeFlist(cursor, options)
    assert.deepEqual(
      entries.map(({ name }) => name),
      list.names,
    )
    const links = new Map(entries.map(({ name, link }) => [name as string, link]))
    assert.equal(links.get('a'), links.get('c'))
    assert.equal(links.get('a'), links.get('d/e'))
    assert.notEqual(links.get('a'), links.get('d/f'))
    if (protocol === 27) assert.notEqual(links.get('a'), links.get('b'))
    else assert.equal(links.get('b'), undefined)
    const expected = varintFlags ? new Map([[0, 'root']]) : new Map()
    assert.deepEqual(decodeIdList(cursor, options), expected)
    assert.deepEqual(decodeIdList(cursor, options), expected)
    if (protocol < 30) assert.equal(cursor.read(decodeI32), 1)
    assert.equal(ioError, varintFlags ? 1 : 0)
    assert.equal(cursor.left, 0)
  })
}

test('on the connection: --numeric-ids leaves the id lists out', async () => {
  const list = await listOf(['m/'], {}, [], hard)
  const cursor = await encoded(list, { ...ENCODE, numericIds: true }, hard)
  decodeFlist(cursor, ENCODE)
  assert.equal(cursor.left, 0)
})

test('on the connection: with ACLs both lists of ids come, whatever is sent of owners', async () => {
  const list = await listOf(['m/b'], {}, [], hard)
  for (const owner of [false, true])
    for (const group of [false, true]) {
      const options = { ...ENCODE, owner, group, acls: true }
      const cursor = await encoded(list, options, hard)
      decodeFlist(cursor, options, (cursor) => {
        if (cursor.read(decodeVarint) === 0) cursor.take(1)
      })
      for (const isSent of [owner, group])
        assert.equal(decodeIdList(cursor, options).get(0), isSent ? 'root' : undefined)
      assert.equal(cursor.left, 0)
    }
})

test('on the connection: an empty list', async () => {
  const list = await listOf(['m/nothing'])
  const cursor = await encoded(list, { ...ENCODE, owner: false, group: false }, tree)
  assert.deepEqual(decodeFlist(cursor, ENCODE), { entries: [], ioError: 0 })
  assert.equal(cursor.left, 0)
})

test('on the connection: an entry to delete has ACLs and attributes like any other', async () => {
  const list = await listOf(['m/nothing', 'm/b'], { missingArgs: 'delete' }, [], hard)
  const options = {
    ...ENCODE,
    acls: true,
    xattrChoice: { withRsyncOwn: false, kept: undefined },
    numericIds: true,
  }
  const cursor = await encoded(list, options, hard)
  const behind: number[] = []
  const { entries } = decodeFlist(cursor, options, (cursor) => {
    for (const what of ['acl', 'xattrs']) {
      const number = cursor.read(decodeVarint)
      behind.push(number)
      if (number === 0) assert.equal(cursor.take(1)[0], 0, `the ${what} are empty`)
    }
  })
  assert.deepEqual(
    entries.map(({ name, mode }) => [name, mode]),
    [
      ['nothing', 0],
      ['b', 0o100644],
    ],
  )
  assert.deepEqual(behind, [0, 0, 1, 1])
  assert.equal(cursor.left, 0)
})

// ---------------------------------------------------------------------------------------------------
// Where rule files count: section 5.5. Recorded from rsync 3.5.0.

const rulesOf = (text: string) => ({ mode: 0o100644, data: Buffer.from(text) })
const ruled = new MemoryTree(
  dir({
    '.rules': rulesOf('- a\n'),
    d: dir({
      '.rules': rulesOf('- b\n- named\n'),
      named: file(),
      e: dir({ '.rules': rulesOf('- c\n'), a: file(), b: file(), c: file(), k: file() }),
    }),
  }),
)
after(() => ruled.close())

for (const { path, relative = false, rule, kept } of [
  // A directory is entered, and nothing above it but by rules that search there.
  { path: 'm/d/e', rule: ': .rules', kept: 'a b k' },
  { path: 'm/d/e/', rule: ': .rules', kept: 'a b k' },
  { path: 'm/d/e', rule: ': ../.rules', kept: 'a k' },
  { path: 'm/d/e', rule: ': /.rules', kept: 'k' },
  { path: 'm/d/e/', rule: ': /d/.rules', kept: 'a k' },
  // What is named itself is not up to them.
  { path: 'm/d/named', rule: ': /.rules', kept: 'named' },
  { path: 'm/d/e/c', rule: ': .rules', kept: 'c' },
  // Directories that -R leads through are entered, too.
  { path: 'm/d/e', relative: true, rule: ': .rules', kept: 'a k' },
  { path: 'm/d/./e', relative: true, rule: ': .rules', kept: 'a b k' },
  { path: 'm/d/./e', relative: true, rule: ': ../.rules', kept: 'a k' },
  { path: 'm/d/e', relative: true, rule: ': ../.rules', kept: 'k' },
  { path: 'm/d/named', relative: true, rule: ': .rules', kept: 'named' },
  { path: 'm/d/./named', relative: true, rule: ': /.rules', kept: 'named' },
]) {
  test(`rule files: ${path}${relative ? ' with -R' : ''} and "${rule}"`, async () => {
    const { names } = await listOf([path], { relative }, [rule], ruled)
    const files = names
      .map((name) => name.slice(name.lastIndexOf('/') + 1))
      .filter((name) => !/^[.de]/.test(name))
    assert.equal(files.join(' '), kept)
  })
}
