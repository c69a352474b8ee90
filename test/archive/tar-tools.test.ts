/**
 * Archives made by the real tools, of trees with everything in them that a tree can hold: what a reader
 * reports is compared field by field with what lstat says of the tree, and content byte by byte.
 *
 * What a format cannot hold (ustar has no long names, only pax has nanoseconds and attributes) is not put
 * into its tree, so that nothing needs to be forgiven.
 */
import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import {
  closeSync,
  ftruncateSync,
  linkSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  symlinkSync,
  writeFileSync,
  writeSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, test } from 'node:test'
import type { ArchiveEntryType } from '../../src/archive/archive.ts'
import { readArchive } from '../../src/archive/read.ts'
import { TarReader } from '../../src/archive/tar.ts'
import { ArchiveError } from '../../src/errors.ts'
import { type ByteString, byteString, toBuffer } from '../../src/lib/bytes.ts'
import { removeTree, skipUnlessRoot } from '../support/scratch.ts'
import { type RecordedMember, RecordingSink } from '../support/tar-builder.ts'

// Not on a memory file system: some have no attributes, or no times before 1970.
const scratch = mkdtempSync(join(tmpdir(), 'upserv-tar-tools-'))
after(() => removeTree(scratch))

function run(program: string, args: readonly string[], input?: Buffer): Buffer {
  const { status, stdout, stderr, error } = spawnSync(program, args, {
    input,
    maxBuffer: 1e9,
    env: { ...process.env, LC_ALL: 'C' },
  })
  if (status !== 0) throw new Error(`${program} ${args.join(' ')}: ${error ?? stderr}`)
  return stdout
}

function has(program: string): boolean {
  return spawnSync(program, ['--version']).error === undefined
}

async function read(archive: Uint8Array, chunkBytes = 65_536): Promise<RecordedMember[]> {
  async function* chunks() {
    for (let at = 0; at < archive.length; at += chunkBytes) yield archive.subarray(at, at + chunkBytes)
  }
  const sink = new RecordingSink()
  await readArchive(chunks(), sink, { signal: new AbortController().signal })
  return sink.result()
}

function readInPieces(archive: Uint8Array, bytes: number): RecordedMember[] {
  const sink = new RecordingSink()
  const reader = new TarReader(sink)
  for (let at = 0; at < archive.length; at += bytes) reader.write(archive.subarray(at, at + bytes))
  reader.end()
  return sink.result()
}

// ---------------------------------------------------------------------------------------------------
// Trees.

/** What a format can hold beyond plain files, links and directories. */
type Ability = 'long' | 'late' | 'early' | 'nanoseconds' | 'xattrs' | 'devices' | 'large-ids' | 'sparse'

/** Names are one byte per character here, which only a Buffer gets to the file system as it is. */
const at = (root: string, name: string) =>
  Buffer.concat([Buffer.from(`${root}/`), Buffer.from(name, 'latin1')])

/** Extended attributes by path: node cannot read them, so what was set is remembered. */
type Xattrs = Map<string, Map<string, Uint8Array>>

const CAPABILITY = Buffer.from('0100000200040000000000000000000000000000', 'hex') // cap_chown, version 2

function makeTree(root: string, abilities: ReadonlySet<Ability>): Xattrs {
  const xattrs: Xattrs = new Map()
  const file = (name: string, content: string | Buffer = name) => writeFileSync(at(root, name), content)
  const touch = (name: string, time: string) => run('touch', ['-h', '-d', time, join(root, name)])
  const setXattr = (name: string, key: string, value: Buffer) => {
    run('setfattr', ['-h', '-n', key, '-v', `0x${value.toString('hex')}`, join(root, name)])
    const held = xattrs.get(name) ?? new Map()
    xattrs.set(name, held.set(key, Uint8Array.from(value)))
  }
  mkdirSync(root)
  mkdirSync(at(root, 'dir'))
  mkdirSync(at(root, 'dir/sticky'), { mode: 0o700 })
  mkdirSync(at(root, 'empty'))
  file('hello', 'hello\n')
  file('nothing', '')
  file('block', 'x'.repeat(512))
  file('large', Buffer.alloc(300_001, 'The quick brown fox. '))
  for (const name of [
    'with space',
    'line\nfeed',
    'tab\tand\\backslash',
    '-dash',
    '"quote',
    'not utf-8 \xff\xfe\x80',
  ]) {
    file(`dir/${name}`)
  }
  file(Buffer.from('dir/ütf-8 ☃').toString('latin1'))
  file('setuid')
  file('none')
  run('chmod', ['4755', join(root, 'setuid')])
  run('chmod', ['0', join(root, 'none')])
  run('chmod', ['1777', join(root, 'dir/sticky')])
  linkSync(at(root, 'hello'), at(root, 'dir/hard link'))
  linkSync(at(root, 'hello'), at(root, 'zzz-hard'))
  symlinkSync('hello', at(root, 'symlink'))
  symlinkSync('/../no//such/', at(root, 'dangling'))
  symlinkSync(Buffer.from('\xff\n', 'latin1'), at(root, 'odd symlink'))
  run('mkfifo', [join(root, 'fifo')])
  touch('hello', '@1000000000')

  if (abilities.has('devices')) {
    run('mknod', [join(root, 'tty'), 'c', '4', '64'])
    run('mknod', [join(root, 'disk'), 'b', '259', '70000'])
    run('chown', ['12345:54321', join(root, 'setuid')])
    run('chmod', ['4755', join(root, 'setuid')]) // chown cleared it
  }
  if (abilities.has('large-ids')) run('chown', ['4000000000:3000000', join(root, 'none')])
  if (abilities.has('long')) {
    file('n'.repeat(255))
    file('p'.repeat(100))
    file('q'.repeat(101))
    let deep = 'deep'
    mkdirSync(at(root, deep))
    for (let i = 0; i < 14; i++) {
      deep += `/${'d'.repeat(250)}`
      mkdirSync(at(root, deep))
    }
    file(`${deep}/file`, 'deep')
    linkSync(at(root, `${deep}/file`), at(root, 'zzz-hard to deep'))
    symlinkSync('t'.repeat(101), at(root, 'long symlink'))
    symlinkSync('t'.repeat(4000), at(root, 'longest symlink'))
  }
  for (const [name, time, needed] of [
    ['after 2038', '@2147483648', ['late']],
    ['in 2200', '@7258118400', ['late']],
    ['before 1970', '@-1234567', ['early']],
    ['in 1901', '@-2147483648', ['early']],
    ['tenth', '@1000000000.1', ['nanoseconds']],
    ['a nanosecond', '@1000000000.000000001', ['nanoseconds']],
    ['almost', '@1000000000.999999999', ['nanoseconds']],
    ['before 1970 and a bit', '@-1.250000001', ['early', 'nanoseconds']],
  ] as const) {
    if (!needed.every((ability) => abilities.has(ability))) continue
    file(name)
    touch(name, time)
  }
  if (abilities.has('xattrs')) {
    file('attributes')
    setXattr('attributes', 'user.text', Buffer.from('value'))
    setXattr('attributes', 'user.binary', Buffer.from('\0\n=%\xff12 path=x\n', 'latin1'))
    setXattr('attributes', 'user.equals=and%', Buffer.from('x'))
    setXattr('attributes', 'user.large', Buffer.alloc(3000, 'y'))
    setXattr('dir', 'user.dir', Buffer.from('d'))
    if (abilities.has('devices')) setXattr('attributes', 'security.capability', CAPABILITY)
  }
  if (abilities.has('sparse')) {
    makeSparse(at(root, 'sparse'), 300_003, [[0], [65_536], [200_000]])
    makeSparse(at(root, 'all hole'), 400_000, [])
    makeSparse(at(root, 'hole first'), 70_000, [[69_999]])
    makeSparse(
      at(root, 'many runs'),
      3_000_000,
      Array.from({ length: 40 }, (_, i) => [i * 65_536]),
    )
  }
  return xattrs
}

/** Whole seconds for all that was made just now; times that were set on purpose stay. */
function dropFractions(root: string): void {
  const madeNow = ['-newermt', '@1100000000', '!', '-newermt', '@2100000000']
  run('find', [root, ...madeNow, '-exec', 'touch', '-h', '-d', '@1200000000', '{}', '+'])
}

function makeSparse(path: Buffer, size: number, offsets: readonly number[][]): void {
  const fd = openSync(path, 'w')
  ftruncateSync(fd, size)
  for (const [offset] of offsets) writeSync(fd, Buffer.from('D'), 0, 1, offset!)
  closeSync(fd)
}

// ---------------------------------------------------------------------------------------------------
// Comparing.

const S_IFMT = 0o170000
const TYPES = new Map<number, ArchiveEntryType>([
  [0o100000, 'file'],
  [0o040000, 'directory'],
  [0o120000, 'symlink'],
  [0o020000, 'char-device'],
  [0o060000, 'block-device'],
  [0o010000, 'fifo'],
])

/** What a reader should have found, given in which order it found the names of files with several. */
function expected(root: string, order: readonly ByteString[], xattrs: Xattrs, names: OwnerNames) {
  const firstNames = new Map<bigint, ByteString>()
  return order.map((path): RecordedMember => {
    const full = path === '' ? Buffer.from(root) : at(root, path)
    const stat = lstatSync(full, { bigint: true })
    let type = TYPES.get(Number(stat.mode) & S_IFMT)!
    let linkTarget = '' as ByteString
    if (type === 'symlink') linkTarget = byteString(readlinkSync(full, { encoding: 'buffer' }))
    if (type === 'file' && stat.nlink > 1n) {
      const first = firstNames.get(stat.ino)
      if (first === undefined) firstNames.set(stat.ino, path)
      else [type, linkTarget] = ['hardlink', first]
    }
    const isDevice = type === 'char-device' || type === 'block-device'
    const seconds =
      (stat.mtimeNs - (((stat.mtimeNs % 1_000_000_000n) + 1_000_000_000n) % 1_000_000_000n)) / 1_000_000_000n
    const content = type === 'file' ? readFileSync(full) : Buffer.alloc(0)
    return {
      path,
      type,
      mode: Number(stat.mode) & 0o7777,
      uid: Number(stat.uid),
      gid: Number(stat.gid),
      userName: names.users.get(Number(stat.uid)),
      groupName: names.groups.get(Number(stat.gid)),
      size: content.length,
      mtime: Number(seconds),
      mtimeNsec: Number(stat.mtimeNs - seconds * 1_000_000_000n),
      linkTarget,
      // Linux's dev_t: 12 bits of major between 20 bits of minor.
      major: isDevice ? Number((stat.rdev >> 8n) & 0xfffn) : 0,
      minor: isDevice ? Number((stat.rdev & 0xffn) | ((stat.rdev >> 12n) & 0xfff00n)) : 0,
      xattrs: type === 'hardlink' ? undefined : (xattrs.get(path) as RecordedMember['xattrs']),
      content,
    }
  })
}

interface OwnerNames {
  users: ReadonlyMap<number, ByteString>
  groups: ReadonlyMap<number, ByteString>
}

function ownerNames(): OwnerNames {
  const parse = (file: string) =>
    new Map(
      readFileSync(file, 'latin1')
        .split('\n')
        .map((line) => line.split(':'))
        .map(([name, , id]) => [Number(id), name as ByteString]),
    )
  return { users: parse('/etc/passwd'), groups: parse('/etc/group') }
}

function listTree(root: string, path = '' as ByteString): ByteString[] {
  const names = readdirSync(path === '' ? root : at(root, path), { encoding: 'buffer', withFileTypes: true })
  return [
    path,
    ...names.flatMap((entry) => {
      const child = `${path === '' ? '' : `${path}/`}${byteString(entry.name)}` as ByteString
      return entry.isDirectory() ? listTree(root, child) : [child]
    }),
  ]
}

function assertSameMembers(actual: readonly RecordedMember[], wanted: readonly RecordedMember[]): void {
  // One by one, since the difference of two whole trees is nothing to read.
  for (const [i, member] of actual.entries())
    assert.deepEqual(withoutContent(member), withoutContent(wanted[i]!))
  for (const [i, { path, content }] of actual.entries()) {
    assert.ok(content.equals(wanted[i]!.content), `content of ${JSON.stringify(path)}`)
  }
}

function withoutContent({ content, xattrs, ...rest }: RecordedMember) {
  return { ...rest, xattrs: xattrs && new Map([...xattrs].sort()) }
}

// ---------------------------------------------------------------------------------------------------
// The tools.

const ALL: Ability[] = ['long', 'late', 'early', 'nanoseconds', 'xattrs', 'devices', 'large-ids', 'sparse']
const XATTR_FLAGS = ['--xattrs', '--xattrs-include=*']

interface Tool {
  name: string
  program: 'tar' | 'bsdtar'
  args: readonly string[]
  abilities: readonly Ability[]
  /** Cuts fractions of seconds off. */
  wholeSeconds?: boolean
}

const PAX: Ability[] = ALL
// libarchive's writer puts the seconds rounded down and the positive rest side by side, so that -1.25 gets
// "-2.75", and in its GNU format everything before 1970 becomes 0.
const BSD_PAX = ALL.filter((ability) => ability !== 'early')
const GNU: Ability[] = ['long', 'late', 'early', 'devices', 'large-ids', 'sparse']
const TOOLS: readonly Tool[] = [
  { name: 'GNU tar, pax', program: 'tar', args: ['--format=pax', ...XATTR_FLAGS], abilities: PAX },
  {
    name: 'GNU tar, pax, sparse 0.0',
    program: 'tar',
    args: ['--format=pax', ...XATTR_FLAGS, '-S', '--sparse-version=0.0'],
    abilities: PAX,
  },
  {
    name: 'GNU tar, pax, sparse 0.1',
    program: 'tar',
    args: ['--format=pax', ...XATTR_FLAGS, '-S', '--sparse-version=0.1'],
    abilities: PAX,
  },
  {
    name: 'GNU tar, pax, sparse 1.0',
    program: 'tar',
    args: ['--format=pax', ...XATTR_FLAGS, '-S', '--sparse-version=1.0'],
    abilities: PAX,
  },
  { name: 'GNU tar, gnu', program: 'tar', args: ['--format=gnu'], abilities: GNU, wholeSeconds: true },
  {
    name: 'GNU tar, gnu, sparse',
    program: 'tar',
    args: ['--format=gnu', '-S'],
    abilities: GNU,
    wholeSeconds: true,
  },
  {
    name: 'GNU tar, oldgnu, sparse',
    program: 'tar',
    args: ['--format=oldgnu', '-S'],
    abilities: GNU,
    wholeSeconds: true,
  },
  {
    name: 'GNU tar, gnu, labelled',
    program: 'tar',
    args: ['--format=gnu', '--label=a label'],
    abilities: GNU,
    wholeSeconds: true,
  },
  {
    name: 'GNU tar, ustar',
    program: 'tar',
    args: ['--format=ustar'],
    abilities: ['devices'],
    wholeSeconds: true,
  },
  { name: 'bsdtar, pax', program: 'bsdtar', args: ['--format=pax', '--xattrs'], abilities: BSD_PAX },
  {
    name: 'bsdtar, gnutar',
    program: 'bsdtar',
    args: ['--format=gnutar'],
    abilities: ['long', 'late', 'devices', 'large-ids'],
    wholeSeconds: true,
  },
  {
    name: 'bsdtar, ustar',
    program: 'bsdtar',
    args: ['--format=ustar'],
    abilities: ['devices'],
    wholeSeconds: true,
  },
]

/** Why this machine cannot put some of it into a tree; the tests run without it and say so. */
const LACKING: readonly { abilities: readonly Ability[]; why: string }[] = [
  ...(skipUnlessRoot ? [{ abilities: ['devices', 'large-ids'] as const, why: skipUnlessRoot }] : []),
  ...(has('setfattr') ? [] : [{ abilities: ['xattrs'] as const, why: 'setfattr is not installed' }]),
]

for (const [i, { name, program, args, abilities, wholeSeconds }] of TOOLS.entries()) {
  const skip = has(program) ? false : `${program} is not installed`
  test(`${name}: every entry as lstat has it`, { skip }, async (t) => {
    const root = join(scratch, `tree-${i}`)
    const able = new Set(abilities)
    for (const lacking of LACKING) {
      for (const ability of lacking.abilities) {
        if (able.delete(ability)) t.diagnostic(`without ${ability}: ${lacking.why}`)
      }
    }
    const xattrs = makeTree(root, able)
    if (wholeSeconds) dropFractions(root)
    const archive = run(program, [...args, '-c', '-f', '-', '-C', root, '.'])
    const members = await read(archive)
    const order = members.map(({ path }) => path)
    assert.deepEqual([...order].sort(), listTree(root).sort(), 'every name, and no other')
    assertSameMembers(members, expected(root, order, xattrs, ownerNames()))
    for (const size of [13, 700]) assertSameMembers(readInPieces(archive, size), members)
  })
}

test('GNU tar, v7: names, types and content', async () => {
  const root = join(scratch, 'v7')
  mkdirSync(root)
  mkdirSync(join(root, 'dir'))
  writeFileSync(join(root, 'dir/file'), 'content')
  linkSync(join(root, 'dir/file'), join(root, 'dir/link'))
  symlinkSync('dir', join(root, 'symlink'))
  const members = await read(run('tar', ['--format=v7', '--sort=name', '-c', '-f', '-', '-C', root, '.']))
  assert.deepEqual(
    members.map(({ path, type, linkTarget, userName, content }) => [
      path,
      type,
      linkTarget,
      userName,
      `${content}`,
    ]),
    [
      ['', 'directory', '', undefined, ''],
      ['dir', 'directory', '', undefined, ''],
      ['dir/file', 'file', '', undefined, 'content'],
      ['dir/link', 'hardlink', 'dir/file', undefined, ''],
      ['symlink', 'symlink', 'dir', undefined, ''],
    ],
  )
})

test('GNU tar: an empty archive is refused', async () => {
  await assert.rejects(read(run('tar', ['-c', '-f', '-', '-T', '/dev/null'])), /the archive is empty/)
})

test('GNU tar: absolute names and names with .. are refused', async () => {
  const root = join(scratch, 'names')
  mkdirSync(join(root, 'sub'), { recursive: true })
  writeFileSync(join(root, 'file'), '')
  const absolute = run('tar', ['-P', '-c', '-f', '-', join(root, 'file')])
  const upwards = run('tar', ['-P', '-c', '-f', '-', '-C', join(root, 'sub'), '../file'])
  await assert.rejects(
    read(absolute),
    (error) => error instanceof ArchiveError && /names\/file", which is an absolute/.test(error.message),
  )
  await assert.rejects(
    read(upwards),
    (error) => error instanceof ArchiveError && /"\.\.\/file", which leaves/.test(error.message),
  )
})

const COMPRESSORS: readonly (readonly [string, readonly string[]])[] = [
  ['gzip', ['-c']],
  ['pigz', ['-c']],
  ['bzip2', ['-c']],
  ['lbzip2', ['-c']],
  ['xz', ['-c']],
  ['xz', ['-c', '-T2', '--block-size=65536']],
  ['xz', ['-c', '--format=lzma']],
  ['zstd', ['-q', '-c']],
  ['zstd', ['-q', '-c', '--long=27']],
  ['pzstd', ['-q', '-c']],
]

for (const [program, args] of COMPRESSORS) {
  const skip = has(program) ? false : `${program} is not installed`
  test(`compressed by ${program} ${args.join(' ')}`, { skip }, async () => {
    const root = join(scratch, `compressed-${program}-${args.join('')}`)
    makeTree(root, new Set(['long']))
    const archive = run('tar', ['--format=pax', '-c', '-f', '-', '-C', root, '.'])
    assertSameMembers(await read(run(program, args, archive)), await read(archive))
  })
}

test('every cut of a small archive is an ArchiveError', () => {
  const root = join(scratch, 'cuts')
  mkdirSync(root)
  writeFileSync(join(root, 'file'), 'content')
  writeFileSync(join(root, 'n'.repeat(150)), 'x'.repeat(600))
  symlinkSync('t'.repeat(150), join(root, 'symlink'))
  makeSparse(Buffer.from(join(root, 'sparse')), 20_000, [[8192]])
  for (const args of [
    ['--format=pax', '-S', '.'],
    ['--format=gnu', '-S', '.'],
    ['--format=ustar', 'file'],
  ]) {
    const archive = run('tar', ['-b1', '-c', '-f', '-', '-C', root, ...args])
    const complete = archive.length - 1024
    assert.ok(archive.subarray(complete).every((byte) => byte === 0))
    for (let cut = 0; cut < archive.length; cut++) {
      const reader = new TarReader(new RecordingSink())
      const readCut = () => {
        reader.write(archive.subarray(0, cut))
        reader.end()
      }
      if (cut === complete + 512) readCut()
      else assert.throws(readCut, ArchiveError, `${args[0]} cut at ${cut} of ${archive.length}`)
    }
  }
})

// Keeps the border between bytes and names honest: what was read can be looked up again.
test('names that are not UTF-8 lead back to the file', async () => {
  const root = join(scratch, 'bytes')
  mkdirSync(root)
  writeFileSync(at(root, 'f\xff'), 'content')
  const members = await read(run('tar', ['--format=pax', '-c', '-f', '-', '-C', root, '.']))
  const member = members.find(({ type }) => type === 'file')
  assert.deepEqual(
    readFileSync(Buffer.concat([Buffer.from(`${root}/`), toBuffer(member!.path)])),
    Buffer.from('content'),
  )
})
