/**
 * A client that means harm, and what must hold for every client there is: its session ends as one of the
 * documented outcomes soon after it has nothing more to say, holds nothing afterwards, and lets others have
 * their turn all the while.
 *
 * Time is counted in what our own thread worked, as a busy machine may put any thread to sleep.
 */
import assert from 'node:assert/strict'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { after, test } from 'node:test'
import { setImmediate as nextTurn } from 'node:timers/promises'
import { Attempts } from '../../src/access/attempts.ts'
import { type ModuleRules, Policy } from '../../src/access/policy.ts'
import { StoreError } from '../../src/errors.ts'
import { ByteWriter } from '../../src/lib/byte-writer.ts'
import { asBuffer, ascii, type ByteString, byteString } from '../../src/lib/bytes.ts'
import type { Turns } from '../../src/rsync/access.ts'
import { Answers } from '../../src/rsync/answers.ts'
import { weakSum } from '../../src/rsync/delta/match.ts'
import { Derived } from '../../src/rsync/derived.ts'
import { Lists } from '../../src/rsync/lists.ts'
import type { SessionContext, SessionReport, State } from '../../src/rsync/session.ts'
import type { Content, Tree } from '../../src/rsync/tree.ts'
import { AUTH_DIGESTS, type AuthDigest, authResponse } from '../../src/rsync/wire/auth.ts'
import { encodeSumHead } from '../../src/rsync/wire/sums.ts'
import { type MemoryNode, MemoryTree } from './memory-tree.ts'
import { makeScratch } from './scratch.ts'
import { FixedModules, memoryKept, type Pipe, SEED, sessionContext, startSession } from './session.ts'

/** What a client hears beyond this is forgotten: one that asks for large files again and again hears gigabytes. */
const MOST_HEARD = 32 * 2 ** 20
const NOTHING = new Uint8Array()
/** For sessions that never settle: a slow machine takes as long as it takes. */
const SETTLE_MS = 150_000
/** How long others may have to wait for their turn: slices are 8 ms, and collecting garbage takes its time. */
export const STALL_MS = 150
/** A client may make us hold its sums (16 MB, and as much again while they are sorted out) and some frames. */
export const MAX_GROWTH = 300e6

// ---------------------------------------------------------------------------------------------------
// What is served.

const xattrs = [1, 2, 3].map((n) => ({ name: ascii(`user.${n}`), value: Buffer.alloc(n * 20, n) }))
/** Version 2, then owner rw-, user 1000 r--, group r--, mask r--, others ---. */
const acl = {
  name: ascii('system.posix_acl_access'),
  value: Buffer.from(
    `02000000${'01000600ffffffff02000400e803000004000400ffffffff10000400ffffffff20000000ffffffff'}`,
    'hex',
  ),
}
const file = (data: Buffer | string, more: Partial<MemoryNode> = {}): MemoryNode => ({
  mode: 0o100644,
  data: Buffer.from(data),
  ...more,
})
const directory = (children: Record<string, MemoryNode>): MemoryNode => ({ mode: 0o040755, children })

/** Each kind of entry, a loop, rule files, a list of names, and two files that can't be read. */
export const HOSTILE_ROOT: MemoryNode = directory({
  'a.txt': file('hello\n', { xattrs: [...xattrs, acl] }),
  '.rules': file('- *.o\n+ *.c\n\n# a comment\n'),
  '.cvsignore': file('*.bak junk ! *.tmp\n'),
  '.bad-rules': file('what is this\n'),
  list: file('a.txt\nsub/\n#no\n\nsub/deep/f\n'),
  empty: file(''),
  zeros: file(Buffer.alloc(60_000)),
  large: file(Buffer.alloc(300_000, 'The quick brown fox. ')),
  link: { mode: 0o120777, target: 'sub/deep' },
  loop: { mode: 0o120777, target: '.' },
  nowhere: { mode: 0o120777, target: '/no/where' },
  fifo: { mode: 0o010644 },
  null: { mode: 0o020666, major: 1, minor: 3 },
  'hard-1': file('x', { link: 1 }),
  'hard-2': file('x', { link: 1 }),
  'cannot-open': file('lost'),
  'cannot-read': file('x'.repeat(5000)),
  sub: directory({
    'x.o': file('o'),
    '.rules': file('!\n+ x.o\n'),
    deep: directory({ f: file('f'), up: { mode: 0o120777, target: '..' } }),
  }),
})

/** Counts what is open, and has files that fail. */
class HostileTree extends MemoryTree {
  opened = 0

  override async open(node: number): Promise<Content> {
    const name = this.name(node)
    if (name === 'cannot-open') throw new StoreError('the pack is gone')
    const content = await super.open(node)
    this.opened++
    return {
      ...content,
      read: async (targets, position) => {
        if (name === 'cannot-read') throw new StoreError('the disk says no')
        await content.read(targets, position)
      },
      close: () => {
        this.opened--
        content.close()
      },
    }
  }
}

/** The module of the tree above, the same for those who prove who they are, and one that has no place for anybody. */
export const [OPEN, LOCKED, FULL] = ['m', 'locked', 'full']
export const USER = 'somebody'
const PASSWORD = 'a password'

const rules = (name: string, more: Partial<ModuleRules>): ModuleRules => ({
  name,
  comment: undefined,
  list: true,
  authUsers: [],
  secretsFile: undefined,
  hosts: { allow: [], deny: [] },
  maxConnections: undefined,
  idleTimeoutMs: undefined,
  refuseOptions: [],
  include: [],
  exclude: [],
  ...more,
})

export class HostileServer {
  readonly tree: HostileTree
  readonly modules: FixedModules
  readonly context: SessionContext
  readonly #derived = new Derived({ kept: memoryKept(), checksumSeed: SEED })
  readonly #scratch = makeScratch('hostile')

  constructor(others: Readonly<Record<string, Tree>> = {}, root: MemoryNode = HOSTILE_ROOT) {
    this.tree = new HostileTree(root)
    this.modules = new FixedModules({
      [OPEN]: this.tree,
      [LOCKED]: this.tree,
      [FULL]: this.tree,
      ...others,
    })
    const secretsFile = join(this.#scratch.path, 'secrets')
    writeFileSync(secretsFile, `${USER}:${PASSWORD}\n`, { mode: 0o600 })
    const locked = {
      authUsers: [{ user: USER, admitted: true }],
      secretsFile,
      refuseOptions: ['copy-links'],
      exclude: ['*.o', '/sub/deep'],
    }
    const policy = new Policy(
      {
        hosts: { allow: [], deny: [] },
        modules: [rules(LOCKED, locked), rules(FULL, { maxConnections: 0 })],
      },
      assert.fail,
      // All come from one address: that they are slowed down is tested elsewhere.
      { attempts: new Attempts({ free: { name: 1e9, source: 1e9, network: 1e9 } }) },
    )
    this.context = {
      ...sessionContext({}, { now: () => performance.now() }),
      modules: this.modules,
      visitor: (client) => policy.visitor(client),
      derived: this.#derived,
      answers: new Answers({ derived: this.#derived, kept: memoryKept() }),
      lists: new Lists(this.#derived, memoryKept()),
    }
  }

  /** The index of something in the root, when the whole module was asked for. */
  ndx(name: string): number {
    const node = this.tree.child(0, ascii(name))
    assert.ok(node > 0, name)
    return node
  }

  async close(): Promise<void> {
    this.tree.close()
    await this.#derived.close()
    this.#scratch[Symbol.dispose]()
  }
}

// ---------------------------------------------------------------------------------------------------
// How it is talked to.

/** What a client does when it has said all. */
export type Ending =
  | { type: 'ends' }
  /** It is gone, for reads and writes, once the session has taken so many pieces. */
  | { type: 'vanishes'; after: number }
  /** It takes nothing that we say, and goes after a while. */
  | { type: 'never-reads' }

export interface Outcome {
  report: SessionReport
  output: Buffer
  /** The longest that nobody else had a turn. */
  stalledMs: number
  /** What all of it cost our thread. */
  workedMs: number
  /** Where the session was when it read, wrote or had to do with turns. */
  states: ReadonlySet<State>
}

const unhandled: unknown[] = []
process.on('unhandledRejection', (reason) => unhandled.push(reason))

/** The thread's own time, in ms. */
export function worked(): number {
  const { user, system } = process.threadCpuUsage()
  return (user + system) / 1000
}

/**
 * What the rolling sum over 16 MiB costs our thread here and now, in ms, as the best of three: work is
 * bounded in multiples of it, since no two machines work a second alike.
 */
export const PASS_MS = Math.min(
  ...[1, 2, 3].map((byte) => {
    const data = Buffer.alloc(1 << 24, byte)
    const began = worked()
    weakSum(data, 0, data.length)
    return worked() - began
  }),
)

/** Takes a turn on the event loop whenever there is one; tells the longest work between two. */
function watchTurns(): { stop(): number } {
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
export async function say(
  { context, modules }: HostileServer,
  pieces: readonly Uint8Array[],
  ending: Ending = { type: 'ends' },
): Promise<Outcome> {
  const began = worked()
  const turns = watchTurns()
  const states = new Set<State>()
  const { pipe, session, report } = startSession({
    ...context,
    turns: watched(context.turns, () => states.add(session.state)),
  })
  const { read, write } = pipe
  let taken = 0
  pipe.read = async () => {
    states.add(session.state)
    if (ending.type === 'vanishes' && taken++ === ending.after) pipe.destroy()
    const piece = await read()
    return piece && answered(piece, pipe)
  }
  let heard = 0
  pipe.write = (data) => {
    states.add(session.state)
    heard += data.length
    return write(heard > MOST_HEARD ? NOTHING : data)
  }
  pipe.stuck = ending.type === 'never-reads'
  for (const piece of pieces.flatMap(atAnswers)) pipe.send(piece)
  if (ending.type !== 'vanishes' || ending.after > pieces.length) pipe.end()
  if (ending.type === 'never-reads') {
    for (let i = 0; i < 20; i++) await nextTurn()
    pipe.destroy()
  }
  let timer: NodeJS.Timeout | undefined
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(
      () => reject(new Error(`not settled after ${SETTLE_MS} ms, in "${session.state}"`)),
      SETTLE_MS,
    )
  })
  const done = await Promise.race([report, late])
  clearTimeout(timer)
  const stalledMs = turns.stop()
  if (done.outcome === 'failed') throw new Error(`a bug of ours: ${done.error}`, { cause: done.error })
  assert.equal(modules.held, 0, 'a module is still held')
  assert.deepEqual(unhandled, [])
  return { report: done, output: pipe.output, stalledMs, workedMs: worked() - began, states }
}

/** Tells when a session comes for its turn, and when it begins it: a session that does not wait says nothing there. */
function watched(turns: Turns, tell: () => void): Turns {
  return {
    enter: async (...how) => {
      tell()
      const turn = await turns.enter(...how)
      return {
        begin: (signal) => {
          tell()
          return turn.begin(signal)
        },
        leave: () => turn.leave(),
      }
    },
  }
}

/**
 * Stands in a conversation for the right answer to the server's challenge, which is another one each time:
 * it takes its place when the server reads it.
 */
export const answerBy = (digest: AuthDigest): string => `<answer by ${digest}>`
const ANSWERS = new Map(
  ([...AUTH_DIGESTS, 'md4-legacy'] as const).map((digest) => [answerBy(digest), digest] as const),
)

/** Cut so that what stands for an answer is a piece of its own. */
export function atAnswers(bytes: Uint8Array): Uint8Array[] {
  if (!asBuffer(bytes).includes('<answer by ')) return [bytes]
  const pieces = asBuffer(bytes)
    .toString('latin1')
    .split(/(<answer by [a-z0-9-]+>)/)
  return pieces.filter((piece) => piece !== '').map(text)
}

export function byteByByte(bytes: Uint8Array): Uint8Array[] {
  return atAnswers(bytes).flatMap((piece) =>
    isAnswer(piece) ? [piece] : Array.from(piece, (byte) => Uint8Array.of(byte)),
  )
}

export const isAnswer = (piece: Uint8Array): boolean => digestOf(piece) !== undefined

function digestOf(piece: Uint8Array): AuthDigest | undefined {
  return piece.length < 30 ? ANSWERS.get(byteString(piece)) : undefined
}

function answered(piece: Uint8Array, pipe: Pipe): Uint8Array {
  const digest = digestOf(piece)
  const challenge = digest && /AUTHREQD (\S+)/.exec(pipe.output.toString('latin1'))?.[1]
  return challenge ? text(authResponse(digest, text(PASSWORD), challenge)) : piece
}

/** As a socket gives it: at most 64 KiB at a time. */
export function asSocket(bytes: Uint8Array): Uint8Array[] {
  const cut: Uint8Array[] = []
  for (let at = 0; at < bytes.length; at += 65_536) cut.push(bytes.subarray(at, at + 65_536))
  return cut
}

// ---------------------------------------------------------------------------------------------------
// Words of the protocol.

export const text = (characters: string): Buffer => Buffer.from(characters, 'latin1')
export const nul = (...args: string[]): string => [...args, ''].map((arg) => `${arg}\0`).join('')

export const bytesOf = (write: (out: ByteWriter) => void): Buffer => {
  const out = new ByteWriter()
  write(out)
  return out.take()
}

/** Up to the end of the setup, at protocol 31 without negotiation. */
export const start = (...args: string[]): Buffer =>
  text(`@RSYNCD: 31.0\nm\n${nul('--server', '--sender', ...args)}`)

export const framed = (...payloads: Uint8Array[]): Buffer => {
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

export const NO_FILTERS = Buffer.alloc(4)

/** One filter rule on the wire. */
export const rule = (characters: string): Buffer =>
  bytesOf((out) => {
    out.i32(characters.length)
    out.string(characters as ByteString)
  })

export const sumHead = (count: number, blockLength: number, strongLength: number, remainder = 0): Buffer =>
  bytesOf((out) => encodeSumHead(out, { count, blockLength, strongLength, remainder }))

/** The first index of a session is `ndx`, and it asks for data. */
export const item = (ndx: number): Buffer => Buffer.from([ndx + 1, 0x00, 0xa0])

/** The next request for the same index. */
export const SAME_ITEM = Buffer.from([0xfe, 0x00, 0x00, 0x00, 0xa0])

// ---------------------------------------------------------------------------------------------------
// Attacks by their name.

export interface Attack {
  name: string
  says: (server: HostileServer) => readonly Uint8Array[]
  outcome: SessionReport['outcome']
  error?: RegExp
  /** The most that it may cost our thread, in PASS_MS: a generous multiple of what it costs now. */
  passes?: number
  /** What else must hold. */
  holds?: (outcome: Outcome) => void
}

/** What no attack may cost, however much it says. */
const MOST_PASSES = 1000

/** A test for each of them, against one server. */
export function testAttacks(attacks: readonly Attack[], server: HostileServer = new HostileServer()): void {
  after(() => server.close())
  for (const { name, says, outcome, error, passes = MOST_PASSES, holds } of attacks) {
    test(`attack: ${name}`, async () => {
      const pieces = says(server).flatMap(asSocket)
      const before = process.memoryUsage().rss
      const result = await say(server, pieces)
      const { report, output, stalledMs } = result
      assert.equal(report.outcome, outcome, String(report.error))
      if (error) assert.match(String(report.error), error)
      assert.ok(stalledMs < STALL_MS, `nobody else had a turn for ${stalledMs} ms`)
      const work = result.workedMs / PASS_MS
      assert.ok(work < passes, `work of ${work.toFixed(0)} passes over 16 MiB`)
      const grown = process.memoryUsage().rss - before
      assert.ok(grown < MAX_GROWTH, `${grown} bytes more in memory`)
      assert.ok(
        !/[\x00-\x08\x0b-\x1f\x7f]/.test(`${report.module}${report.paths}`),
        'the report is fit for a log',
      )
      if (!report.protocol || report.state === 'module') assert.ok(!output.includes(0x1b))
      holds?.(result)
    })
  }
}
