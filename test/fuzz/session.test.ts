/**
 * Whatever a client says, a session ends as one of its documented outcomes, soon after the client has
 * nothing more to say, in bounded memory and without keeping others from their turn.
 *
 * Conversations are made from the protocol's own grammar and then damaged, so that the damage gets far.
 * FUZZ_SECONDS says for how long (script/fuzz), FUZZ_SEED repeats a run, FUZZ_CASE one conversation of it.
 */
import assert from 'node:assert/strict'
import { after, test } from 'node:test'
import { ByteWriter } from '../../src/lib/byte-writer.ts'
import { ascii, type ByteString } from '../../src/lib/bytes.ts'
import { weakSum } from '../../src/rsync/delta/match.ts'
import type { SessionReport } from '../../src/rsync/session.ts'
import { encodeVarint, encodeVstring } from '../../src/rsync/wire/ints.ts'
import { NdxEncoder } from '../../src/rsync/wire/ndx.ts'
import { encodeSumHead } from '../../src/rsync/wire/sums.ts'
import { fromHex } from '../support/hex.ts'
import { type MemoryNode, MemoryTree } from '../support/memory-tree.ts'
import { FixedModules, sessionContext, startSession } from '../support/session.ts'

const SEED = process.env.FUZZ_SEED ? Number(process.env.FUZZ_SEED) : (Math.random() * 2 ** 31) | 0
const ONE_CASE = process.env.FUZZ_CASE ? Number(process.env.FUZZ_CASE) : undefined
const SECONDS = Number(process.env.FUZZ_SECONDS ?? 15)
/** How long a session may take once its client has said all. */
const SETTLE_MS = 10_000
/** How long the event loop may be held, on a slow machine. */
const STALL_MS = 250
const MAX_HEAP_GROWTH = 300e6

const xattrs = [1, 2, 3].map((n) => ({ name: ascii(`user.${n}`), value: Buffer.alloc(n * 20, n) }))
const file = (data: Buffer, more: Partial<MemoryNode> = {}): MemoryNode => ({ mode: 0o100644, data, ...more })
const directory = (children: Record<string, MemoryNode>): MemoryNode => ({ mode: 0o040755, children })
const tree = new MemoryTree(
  directory({
    'a.txt': file(Buffer.from('hello\n'), { xattrs }),
    '.rules': file(Buffer.from('- *.o\n')),
    list: file(Buffer.from('a.txt\nsub/\n')),
    empty: file(Buffer.alloc(0)),
    zeros: file(Buffer.alloc(60_000)),
    large: file(Buffer.alloc(300_000, 'The quick brown fox. ')),
    link: { mode: 0o120777, target: 'sub/deep' },
    loop: { mode: 0o120777, target: '.' },
    fifo: { mode: 0o010644 },
    null: { mode: 0o020666, major: 1, minor: 3 },
    'hard-1': file(Buffer.from('x'), { link: 1 }),
    'hard-2': file(Buffer.from('x'), { link: 1 }),
    sub: directory({ 'x.o': file(Buffer.from('o')), deep: directory({ f: file(Buffer.from('f')) }) }),
  }),
)
const modules = new FixedModules({ m: tree })
const context = { ...sessionContext({}), modules }
after(() => {
  tree.close()
  return context.derived.close()
})

const unhandled: unknown[] = []
process.on('unhandledRejection', (reason) => unhandled.push(reason))

interface Outcome {
  report: SessionReport
  output: Buffer
  /** The longest that nobody else had a turn. */
  stalledMs: number
}

/**
 * Takes a turn on the event loop whenever there is one; tells the longest work between two, in ms. It counts
 * the thread's own time, since a busy machine may put any thread to sleep.
 */
function watchTurns(): { stop(): number } {
  const worked = (): number => {
    const { user, system } = process.threadCpuUsage()
    return (user + system) / 1000
  }
  let last = worked()
  let longest = 0
  let stopped = false
  const turn = (): void => {
    const now = worked()
    longest = Math.max(longest, now - last)
    last = now
    if (!stopped) setImmediate(turn)
  }
  setImmediate(turn)
  return {
    stop: () => {
      stopped = true
      turn()
      return longest
    },
  }
}

/** Lets a client say all this; checks what must hold for every client there is. */
async function say(pieces: readonly Uint8Array[]): Promise<Outcome> {
  const turns = watchTurns()
  const { pipe, report } = startSession(context)
  for (const piece of pieces) pipe.send(piece)
  pipe.end()
  let timer: NodeJS.Timeout | undefined
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error(`not settled after ${SETTLE_MS} ms`)), SETTLE_MS)
  })
  const done = await Promise.race([report, late])
  clearTimeout(timer)
  const stalledMs = turns.stop()
  if (done.outcome === 'failed') throw new Error('a bug of ours', { cause: done.error })
  assert.equal(modules.held, 0, 'a module is still held')
  assert.deepEqual(unhandled, [])
  return { report: done, output: pipe.output, stalledMs }
}

// ---------------------------------------------------------------------------------------------------
// Conversations.

type Random = (below: number) => number

/** mulberry32: small, and the same everywhere. */
function randomOf(seed: number): Random {
  let state = seed | 0
  return (below) => {
    state = (state + 0x6d2b79f5) | 0
    let t = Math.imul(state ^ (state >>> 15), 1 | state)
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t
    return ((t ^ (t >>> 14)) >>> 0) % below
  }
}

function pick<T>(random: Random, from: readonly T[]): T {
  return from[random(from.length)]!
}

function some<T>(random: Random, from: readonly T[], most: number): T[] {
  return Array.from({ length: random(most + 1) }, () => pick(random, from))
}

const bytesOf = (write: (out: ByteWriter) => void): Buffer => {
  const out = new ByteWriter()
  write(out)
  return out.take()
}
const text = (characters: string): Buffer => Buffer.from(characters, 'latin1')

const LETTERS = [...'rrrrrrdnlLkHogDUAXXcCRbztpWIv']
const LONG = [
  '--list-only',
  '--numeric-ids',
  '--inplace',
  '--append',
  '--compress-level=1',
  '--compress-level=0',
  '--new-compress',
  '--old-compress',
  '--compress-choice=zstd',
  '--compress-choice=lz4',
  '--checksum-choice=md5',
  '--checksum-choice=xxh64,sha1',
  '--checksum-choice=none',
  '--checksum-seed=1',
  '--checksum-seed=-1',
  '--ignore-missing-args',
  '--delete-missing-args',
  '--copy-unsafe-links',
  '--no-implied-dirs',
  '--no-relative',
  '--iconv=.',
  '--timeout=5',
  '--files-from=-',
  '--files-from=m/list',
  '--from0',
  '--remove-source-files',
  '--ignore-errors',
  '--backup-dir',
  '--no-specials',
  '--an-option=of\\tomorrow',
]
const PATHS = [
  'm',
  'm/',
  'm/',
  'm/',
  'm/.',
  'm/a.txt',
  'm/sub',
  'm/sub/',
  'm/sub/./deep',
  'm/*',
  'm/*/*',
  'm/[a-z]*',
  'm/nothing',
  'm/../..',
  'm/link/',
  'm/loop/loop/loop',
  'm/a.txt m/sub',
  'm/**',
  'm/\\',
  'm/[',
  `m/${'x'.repeat(300)}`,
]
const RULES = [
  '- *.o',
  '+ */',
  '- *',
  '-! *',
  ': .rules',
  ':C',
  '-C',
  '!',
  'P x',
  '-/ /sub',
  '- **/f',
  '- sub/***',
  '+ [a-',
  'exclude,s x',
  '-x user.*',
]
const CHECKSUMS = ['xxh128 xxh3 xxh64 md5 md4 sha1', 'md5', 'md4 sha1', 'none', 'crc', '']
const CODECS = ['zstd lz4 zlibx zlib', 'zlib', 'lz4', 'none']

interface Part {
  bytes: Buffer
  /** Behind the setup: travels in frames from protocol 30 on. */
  framed: boolean
}

interface Talk {
  protocol: number
  parts: Part[]
}

function conversation(random: Random): Talk {
  const protocol = pick(random, [27, 28, 29, 30, 31, 32, 32])
  const parts: Part[] = []
  const raw = (bytes: Buffer): void => void parts.push({ bytes, framed: false })
  const framed = (bytes: Buffer): void => void parts.push({ bytes, framed: true })

  raw(
    text(
      `@RSYNCD: ${protocol}${protocol >= 30 ? '.0' : ''}${pick(random, ['', ' md5', ' sha512 md5 md4'])}\n`,
    ),
  )
  if (random(20) === 0) raw(text('#early_input=4\nabcd'))
  raw(
    text(
      pick(random, [
        'm\n',
        'm\n',
        'm\n',
        'm\n',
        'm\n',
        'm\n',
        'm\n',
        'm\r\n',
        'other\n',
        '\n',
        '#list\n',
        '#x\n',
      ]),
    ),
  )

  const info = random(4) === 0 ? some(random, [...'iLsfxCIvu'], 9).join('') : 'iLsfxCIvu'
  const letters = some(random, LETTERS, 12).join('')
  const long = some(random, LONG, 3)
  const secluded = random(12) === 0
  const cluster = `-${letters}${secluded ? 's' : ''}${protocol >= 30 ? `e.${info}` : ''}`
  const role = random(25) === 0 ? ['--server'] : ['--server', '--sender']
  const rest = [...long, '.', ...some(random, PATHS, 2), pick(random, PATHS)]
  const end = protocol < 30 ? '\n' : '\0'
  const vector = (args: string[], end: string): Buffer => text([...args, ''].map((arg) => arg + end).join(''))
  for (const arg of [...role, cluster, ...(secluded ? [] : rest)]) raw(text(arg + end))
  raw(text(end))
  if (secluded) raw(vector(['rsync', ...rest], '\0'))

  const negotiates = protocol >= 30 && info.includes('v')
  const chosen = (name: string): boolean => long.some((option) => option.startsWith(name))
  const vstring = (value: string): Buffer => bytesOf((out) => encodeVstring(out, value as ByteString))
  if (negotiates && !chosen('--checksum-choice')) raw(vstring(pick(random, CHECKSUMS)))
  const compresses = letters.includes('z') || chosen('--compress-level')
  const explicit = chosen('--compress-choice') || chosen('--new-compress') || chosen('--old-compress')
  if (negotiates && compresses && !explicit) raw(vstring(pick(random, CODECS)))

  const old = protocol < 29
  for (const rule of some(random, old ? ['*.o', '+ a', '- b', '!'] : RULES, 4)) {
    framed(
      bytesOf((out) => {
        out.i32(rule.length)
        out.string(ascii(rule))
      }),
    )
  }
  framed(Buffer.alloc(4))
  if (chosen('--files-from=-')) {
    const names = some(random, ['a.txt', 'sub/', 'sub/deep/f', '../x', 'nothing', './link/f'], 5)
    parts.push({ bytes: vector(names, '\0'), framed: protocol >= 31 })
  }

  const ndx = new NdxEncoder(protocol)
  const mark = (): void => framed(bytesOf((out) => ndx.encode(out, -1)))
  for (let i = random(8); i > 0; i--) framed(request(random, protocol, ndx, letters.includes('X')))
  for (let i = protocol >= 29 ? 3 : 2; i > 0; i--) {
    mark()
    if (random(6) === 0) framed(request(random, protocol, ndx, letters.includes('X')))
  }
  if (protocol >= 31 && random(3) === 0) {
    framed(
      bytesOf((out) => {
        ndx.encode(out, -3)
        for (const count of [1, 2, 3, 4, 500]) encodeVarint(out, count)
      }),
    )
  }
  mark()
  if (protocol >= 31) mark()
  return { protocol, parts }
}

function request(random: Random, protocol: number, ndx: NdxEncoder, withXattrs: boolean): Buffer {
  return bytesOf((out) => {
    ndx.encode(out, random(14))
    let iflags = 0x8000
    if (protocol >= 29) {
      iflags = pick(random, [0x8000, 0x8000, 0xa000, 0x2000, 0, 0x8800, 0x9000, 0x5000, 0x8100])
      out.u16(iflags)
      if (iflags & 0x0800) out.u8(pick(random, [0x80, 0x81, 0x83, 0]))
      if (iflags & 0x1000) encodeVstring(out, ascii('other name'))
      if (iflags & 0x0100 && withXattrs)
        out.bytes(pick(random, [fromHex('00'), fromHex('0100'), fromHex('010100')]))
    }
    if (!(iflags & 0x8000)) return
    const count = pick(random, [0, 0, 1, 2, 40])
    const blockLength = count === 0 ? 0 : pick(random, [700, 1000, 16, 131072])
    const strongLength = count === 0 ? 0 : pick(random, [2, 2, 8, 16, 20])
    encodeSumHead(out, {
      count,
      blockLength,
      strongLength,
      remainder: random(2) === 0 ? 0 : blockLength >> 1,
    })
    for (let k = 0; k < count; k++) {
      out.i32(pick(random, [0, 0, random(2 ** 31)]))
      for (let i = 0; i < strongLength; i++) out.u8(random(256))
    }
  })
}

const NUMBERS = [0, 1, -1, 2 ** 31 - 1, -(2 ** 31), 65_536, 2 ** 24, 0x07000000, 0x7fffffff, 700]

/** Damages some parts: flipped, cut, doubled, lost, swapped, overgrown numbers, foreign frames and lines. */
function mutate(random: Random, { parts }: Talk): void {
  const at = random(parts.length)
  const part = parts[at]!
  const bytes = Buffer.from(part.bytes)
  const set = (changed: Buffer): void => {
    parts[at] = { ...part, bytes: changed }
  }
  const noise = (length: number): Buffer => Buffer.from(Array.from({ length }, () => random(256)))
  switch (random(10)) {
    case 0:
      if (bytes.length > 0) bytes[random(bytes.length)]! ^= 1 << random(8)
      set(bytes)
      break
    case 1:
      set(bytes.subarray(0, random(bytes.length + 1)))
      break
    case 2:
      parts.splice(at, 0, part)
      break
    case 3:
      parts.splice(at, 1)
      break
    case 4:
      parts[at] = parts[(at + 1) % parts.length]!
      parts[(at + 1) % parts.length] = part
      break
    case 5:
      if (bytes.length >= 4) bytes.writeInt32LE(pick(random, NUMBERS), random(bytes.length - 3))
      set(bytes)
      break
    case 6:
      parts.splice(at, 0, { bytes: Buffer.concat([noise(random(60)), text('\n')]), framed: false })
      break
    case 7: {
      const head = Buffer.alloc(4)
      head.writeUInt32LE(((random(256) << 24) | pick(random, [0, 1, 4, 100, 0xffffff])) >>> 0)
      parts.splice(at, 0, { bytes: Buffer.concat([head, noise(random(12))]), framed: false })
      break
    }
    case 8:
      parts.splice(at)
      break
    case 9:
      parts.splice(at, 0, { bytes: noise(random(300)), framed: part.framed })
      break
  }
}

/** What the client's socket sends: framed parts in frames of any size. */
function wireOf(random: Random, { protocol, parts }: Talk): Buffer {
  const chunks: Buffer[] = []
  const most = pick(random, [1, 7, 50, 100_000])
  for (const { bytes, framed } of parts) {
    if (!framed || protocol < 30) {
      chunks.push(bytes)
      continue
    }
    for (let at = 0; at < bytes.length; ) {
      const size = Math.min(bytes.length - at, 1 + random(most))
      const head = Buffer.alloc(4)
      head.writeUInt32LE(0x07000000 | size)
      if (random(30) === 0) chunks.push(fromHex('00000007'))
      chunks.push(head, bytes.subarray(at, at + size))
      at += size
    }
  }
  return Buffer.concat(chunks)
}

function cut(random: Random, bytes: Buffer): Buffer[] {
  const most = pick(random, [1_000_000, 1_000_000, 1000, 60, 3])
  const pieces: Buffer[] = []
  for (let at = 0; at < bytes.length; ) {
    const size = 1 + random(most)
    pieces.push(bytes.subarray(at, at + size))
    at += size
  }
  return pieces
}

test(`damaged conversations, for ${SECONDS} s`, { timeout: (SECONDS + 60) * 1000 }, async (t) => {
  t.diagnostic(`FUZZ_SEED=${SEED}`)
  const outcomes = new Map<string, number>()
  const ended = new Set<string>()
  const heapBefore = process.memoryUsage().heapUsed
  const until = performance.now() + SECONDS * 1000
  let longest = 0
  let number = ONE_CASE ?? 0
  for (; performance.now() < until; number++) {
    const random = randomOf(SEED + number)
    const talk = conversation(random)
    for (let times = random(4); times > 0 && talk.parts.length > 0; times--) mutate(random, talk)
    const bytes = wireOf(random, talk)
    try {
      const { report, stalledMs } = await say(cut(random, bytes))
      outcomes.set(report.outcome, (outcomes.get(report.outcome) ?? 0) + 1)
      ended.add(
        `${report.state} ${report.outcome} ${String(report.error)
          .slice(0, 40)
          .replaceAll(/\d+|"[^"]*"/g, '_')}`,
      )
      longest = Math.max(longest, stalledMs)
      assert.ok(stalledMs < STALL_MS, `nobody else had a turn for ${stalledMs} ms`)
      const heap = process.memoryUsage().heapUsed - heapBefore
      assert.ok(heap < MAX_HEAP_GROWTH, `${heap} bytes more in memory than at the start`)
    } catch (cause) {
      const repeat = `FUZZ_SEED=${SEED} FUZZ_CASE=${number}`
      throw new Error(`${repeat}: ${(cause as Error).message}\n${bytes.toString('latin1').slice(0, 300)}`, {
        cause,
      })
    }
    if (ONE_CASE !== undefined) return
  }
  t.diagnostic(`${number} conversations; the event loop was held for ${longest.toFixed(0)} ms at most`)
  t.diagnostic(`outcomes: ${[...outcomes].map(([outcome, count]) => `${outcome} ${count}`).join(', ')}`)
  t.diagnostic(`${ended.size} ways to end`)
  // Damage that never gets far, or is never noticed, would prove nothing.
  if (number < 1000) return
  for (const outcome of ['done', 'listed', 'refused', 'peer-error', 'lost']) {
    assert.ok((outcomes.get(outcome) ?? 0) > number / 200, `too few sessions end as "${outcome}"`)
  }
  assert.ok(ended.size > 40, `only ${ended.size} ways to end`)
})

test('any bytes at all', async () => {
  const random = randomOf(SEED)
  for (let i = 0; i < 300; i++) {
    const bytes = Buffer.from(Array.from({ length: random(2000) }, () => random(256)))
    const { report } = await say(cut(random, bytes))
    assert.ok(['peer-error', 'lost'].includes(report.outcome))
  }
})

// ---------------------------------------------------------------------------------------------------
// Each known attack by its name.

const nul = (...args: string[]): string => [...args, ''].map((arg) => `${arg}\0`).join('')
/** Up to the end of the setup, at protocol 31 without negotiation. */
const start = (...args: string[]): Buffer => text(`@RSYNCD: 31.0\nm\n${nul('--server', '--sender', ...args)}`)
const framed = (...payloads: Buffer[]): Buffer => {
  const payload = Buffer.concat(payloads)
  const chunks: Buffer[] = []
  for (let at = 0; at === 0 || at < payload.length; at += 0xffffff) {
    const piece = payload.subarray(at, at + 0xffffff)
    const head = Buffer.alloc(4)
    head.writeUInt32LE(0x07000000 | piece.length)
    chunks.push(head, piece)
  }
  return Buffer.concat(chunks)
}
const NO_FILTERS = Buffer.alloc(4)
const sumHead = (count: number, blockLength: number, strongLength: number, remainder = 0): Buffer =>
  bytesOf((out) => encodeSumHead(out, { count, blockLength, strongLength, remainder }))
/** The first index of a session is `ndx`, and it asks for data. */
const item = (ndx: number): Buffer => Buffer.from([ndx + 1, 0x00, 0xa0])

// Indices in the sorted list of the whole tree: files before directories.
const FILES = { rules: 1, aTxt: 2, empty: 3, fifo: 4, large: 7, link: 8, zeros: 12, sub: 13 } as const

interface Attack {
  name: string
  says: () => Uint8Array[]
  outcome: SessionReport['outcome']
  error?: RegExp
}

const ATTACKS: readonly Attack[] = [
  {
    name: 'blocks of length 0',
    says: () => [start('-r', '.', 'm/'), framed(NO_FILTERS, item(FILES.large), sumHead(3, 0, 16))],
    outcome: 'peer-error',
    error: /3 blocks of length 0/,
  },
  {
    name: '2^31 blocks announced, then nothing',
    says: () => [
      start('-r', '.', 'm/'),
      framed(NO_FILTERS, item(FILES.large), sumHead(2 ** 31 - 1, 700, 20)),
    ],
    outcome: 'lost',
  },
  {
    name: '2^31 blocks announced, some megabytes sent',
    says: () => [
      start('-r', '.', 'm/'),
      framed(NO_FILTERS, item(FILES.large), sumHead(2 ** 31 - 1, 700, 20), Buffer.alloc(30e6)),
    ],
    outcome: 'lost',
  },
  {
    name: 'a negative number of blocks',
    says: () => [start('-r', '.', 'm/'), framed(NO_FILTERS, item(FILES.large), sumHead(-1, 700, 2))],
    outcome: 'peer-error',
    error: /-1 blocks/,
  },
  {
    name: 'more blocks than the file has bytes',
    says: () => {
      const sums = Buffer.alloc(600_000 * 5)
      for (let k = 0; k < 600_000; k++) sums.writeInt32LE(k, k * 5)
      return [start('-r', '.', 'm/'), framed(NO_FILTERS, item(FILES.aTxt), sumHead(600_000, 1, 1), sums)]
    },
    outcome: 'lost',
  },
  {
    name: 'weak sums that are right and strong ones that are wrong, everywhere',
    says: () => {
      const sums = Buffer.alloc(20 * 2, 0xee)
      for (let k = 0; k < 2; k++) sums.writeUInt32LE(weakSum(Buffer.alloc(30_000), 0, 30_000), k * 20)
      return [start('-r', '.', 'm/'), framed(NO_FILTERS, item(FILES.zeros), sumHead(2, 30_000, 16), sums)]
    },
    outcome: 'lost',
  },
  {
    name: 'a thousand different blocks of one weak sum',
    says: () => {
      const sums = Buffer.alloc(1000 * 8)
      for (let k = 0; k < 1000; k++) sums.writeUInt32LE(k + 1, k * 8 + 4)
      return [start('-r', '.', 'm/'), framed(NO_FILTERS, item(FILES.zeros), sumHead(1000, 700, 4), sums)]
    },
    outcome: 'lost',
  },
  {
    name: 'a flood of arguments',
    says: () => [text(`@RSYNCD: 31.0\nm\n${'x\0'.repeat(16_001)}`)],
    outcome: 'peer-error',
    error: /arguments/,
  },
  {
    name: 'an argument without end',
    says: () => [text('@RSYNCD: 31.0\nm\n'), Buffer.alloc(2e6, 'x')],
    outcome: 'peer-error',
    error: /arguments/,
  },
  {
    name: 'the whole tree, 15,000 times',
    says: () => [start('-r', '.', ...Array.from({ length: 15_000 }, () => 'm/')), framed(NO_FILTERS)],
    outcome: 'refused',
  },
  {
    name: 'patterns that match everything, 15,000 times',
    says: () => [
      start('-r', '.', ...Array.from({ length: 15_000 }, () => 'm/loop/loop/loop/*/*')),
      framed(NO_FILTERS),
    ],
    outcome: 'refused',
  },
  {
    name: 'half a million components',
    says: () => [start('-rR', '.', `m/${'a/'.repeat(500_000)}`), framed(NO_FILTERS)],
    outcome: 'done',
  },
  {
    name: 'a rule of 2^31 bytes',
    says: () => [start('-r', '.', 'm/'), framed(fromHex('ffffff7f'))],
    outcome: 'peer-error',
    error: /a rule of 2147483647 bytes/,
  },
  {
    name: 'a rule of less than no bytes',
    says: () => [start('-r', '.', 'm/'), framed(fromHex('ffffffff'))],
    outcome: 'peer-error',
    error: /a rule of -1 bytes/,
  },
  {
    name: 'rules without end',
    says: () => {
      const rule = Buffer.concat([fromHex('00200000'), text(`- ${'*a'.repeat(4095)}`)])
      return [start('-r', '.', 'm/'), framed(...Array.from({ length: 2000 }, () => rule))]
    },
    outcome: 'peer-error',
    error: /bytes of rules/,
  },
  {
    name: 'as many nasty rules as are taken',
    says: () => {
      const rule = Buffer.concat([fromHex('00200000'), text(`- ${'**?*'.repeat(2047)}zz`)])
      return [start('-r', '.', 'm/'), framed(...Array.from({ length: 30 }, () => rule), NO_FILTERS)]
    },
    outcome: 'lost',
  },
  {
    name: 'a list of checksums that is too long',
    says: () => [start('-re.v', '.', 'm/'), fromHex('ffff')],
    outcome: 'peer-error',
    error: /vstring/,
  },
  {
    name: 'the name of a basis that is too long',
    says: () => [start('-r', '.', 'm/'), framed(NO_FILTERS, fromHex('03 0090 ffff'))],
    outcome: 'peer-error',
    error: /vstring/,
  },
  {
    name: 'a name without end in --files-from',
    says: () => [
      start('-r', '--files-from=-', '--from0', '.', 'm/'),
      framed(NO_FILTERS, Buffer.alloc(1e6, 'x')),
    ],
    outcome: 'peer-error',
    error: /files-from: a name of more than/,
  },
  {
    name: 'names without end in --files-from',
    says: () => [
      start('-r', '--files-from=-', '--from0', '.', 'm/'),
      framed(NO_FILTERS, Buffer.alloc(70e6, `${'y'.repeat(1000)}\0`)),
    ],
    outcome: 'peer-error',
    error: /files-from/,
  },
  {
    name: 'long paths in --files-from, thousands of them',
    says: () => [
      start('-r', '--files-from=-', '--from0', '.', 'm/'),
      framed(NO_FILTERS, Buffer.alloc(20e6, `${'a/'.repeat(2000)}\0`), fromHex('00 00')),
    ],
    outcome: 'done',
  },
  {
    name: 'messages that nobody knows',
    says: () => [start('-r', '.', 'm/'), fromHex('030000f0 010203 000000ff'), framed(NO_FILTERS)],
    outcome: 'lost',
  },
  {
    name: 'a message of 16 MB',
    says: () => [start('-r', '.', 'm/'), fromHex('ffffff09'), Buffer.alloc(1e6)],
    outcome: 'peer-error',
    error: /a message of 16777215 bytes/,
  },
  {
    name: 'a frame whose tag is below 0',
    says: () => [start('-r', '.', 'm/'), fromHex('04000000 00000000')],
    outcome: 'peer-error',
    error: /mux-header/,
  },
  {
    name: 'a million empty frames',
    says: () => [
      start('-r', '.', 'm/'),
      ...Array.from({ length: 64 }, () => Buffer.alloc(65_536, fromHex('00000007'))),
    ],
    outcome: 'lost',
  },
  {
    name: 'an index beyond the list',
    says: () => [start('-r', '.', 'm/'), framed(NO_FILTERS, fromHex('fe 0fff 00a0'))],
    outcome: 'peer-error',
    error: /ndx: 4094 of 17/,
  },
  {
    name: 'an index that means nothing here',
    says: () => [start('-r', '.', 'm/'), framed(NO_FILTERS, fromHex('ff 64'))],
    outcome: 'peer-error',
    error: /ndx: -101/,
  },
  {
    name: 'the data of a directory',
    says: () => [start('-r', '.', 'm/'), framed(NO_FILTERS, item(FILES.sub), sumHead(0, 0, 0))],
    outcome: 'peer-error',
    error: /asks for the data of sub, which is no regular file/,
  },
  {
    name: 'the data of a symbolic link',
    says: () => [start('-rl', '.', 'm/'), framed(NO_FILTERS, item(FILES.link), sumHead(0, 0, 0))],
    outcome: 'peer-error',
    error: /asks for the data of link, which/,
  },
  {
    name: 'the value of an attribute that is not there',
    says: () => [start('-rX', '.', 'm/'), framed(NO_FILTERS, fromHex(`0${FILES.aTxt + 1} 0081 04 00`))],
    outcome: 'peer-error',
    error: /xattr-request: attribute 4 of 3/,
  },
  {
    name: 'attributes without end, a frame for each byte',
    says: () => [
      start('-rX', '.', 'm/'),
      framed(NO_FILTERS, fromHex(`0${FILES.aTxt + 1} 0081`)),
      Buffer.alloc(5e5, fromHex('01000007 01')),
    ],
    outcome: 'peer-error',
    error: /xattr-request/,
  },
  {
    name: 'deletion statistics without end',
    says: () => [
      start('-r', '.', 'm/'),
      framed(NO_FILTERS, fromHex('ff02'), Buffer.alloc(6e5, fromHex('00 00 00 00 00 fffe0000'))),
    ],
    outcome: 'lost',
  },
  {
    name: 'the client gives up',
    says: () => [start('-r', '.', 'm/'), framed(NO_FILTERS), fromHex('0000005d')],
    outcome: 'lost',
    error: /gave up/,
  },
  {
    name: 'an upload',
    says: () => [text(`@RSYNCD: 31.0\nm\n${nul('--server', '-r', '.', 'm/')}`)],
    outcome: 'refused',
    error: /read only/,
  },
  {
    name: '--remove-source-files',
    says: () => [start('-r', '--remove-source-files', '.', 'm/')],
    outcome: 'refused',
    error: /--remove-source-files/,
  },
  {
    name: 'control characters in a module name',
    says: () => [text('@RSYNCD: 31.0\n\x1b]0;evil\x07\n')],
    outcome: 'refused',
  },
]
for (const { name, says, outcome, error } of ATTACKS) {
  test(`attack: ${name}`, async () => {
    const pieces = says().flatMap((bytes) => {
      // As a socket gives them: at most 64 KiB at a time.
      const cut: Uint8Array[] = []
      for (let at = 0; at < bytes.length; at += 65_536) cut.push(bytes.subarray(at, at + 65_536))
      return cut
    })
    const before = process.memoryUsage().rss
    const { report, output, stalledMs } = await say(pieces)
    assert.equal(report.outcome, outcome, String(report.error))
    if (error) assert.match(String(report.error), error)
    assert.ok(stalledMs < STALL_MS, `nobody else had a turn for ${stalledMs} ms`)
    const grown = process.memoryUsage().rss - before
    assert.ok(grown < MAX_HEAP_GROWTH, `${grown} bytes more in memory`)
    assert.ok(
      !/[\x00-\x08\x0b-\x1f\x7f]/.test(`${report.module}${report.paths}`),
      'the report is fit for a log',
    )
    if (!report.protocol || report.state === 'module') assert.ok(!output.includes(0x1b))
  })
}
