/**
 * A client that means harm, and what must hold for every client there is: its session ends as one of the
 * documented outcomes soon after it has nothing more to say, holds nothing afterwards, and lets others have
 * their turn all the while.
 *
 * Time is counted in what our own thread worked, as a busy machine may put any thread to sleep.
 */
import assert from 'node:assert/strict'
import { after, test } from 'node:test'
import { setImmediate as nextTurn } from 'node:timers/promises'
import { StoreError } from '../../src/errors.ts'
import { ByteWriter } from '../../src/lib/byte-writer.ts'
import { ascii, type ByteString } from '../../src/lib/bytes.ts'
import { Answers } from '../../src/rsync/answers.ts'
import { Derived } from '../../src/rsync/derived.ts'
import { Lists } from '../../src/rsync/lists.ts'
import type { SessionContext, SessionReport, State } from '../../src/rsync/session.ts'
import type { Content, Tree } from '../../src/rsync/tree.ts'
import { encodeSumHead } from '../../src/rsync/wire/sums.ts'
import { type MemoryNode, MemoryTree } from './memory-tree.ts'
import { FixedModules, memoryKept, SEED, sessionContext, startSession } from './session.ts'

/** How long a session may take once its client has said all. */
const SETTLE_MS = 60_000
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

/** A server whose module "m" is the tree above. */
export class HostileServer {
  readonly tree: HostileTree
  readonly modules: FixedModules
  readonly context: SessionContext
  readonly #derived = new Derived({ kept: memoryKept(), checksumSeed: SEED })

  constructor(others: Readonly<Record<string, Tree>> = {}, root: MemoryNode = HOSTILE_ROOT) {
    this.tree = new HostileTree(root)
    this.modules = new FixedModules({ m: this.tree, ...others })
    this.context = {
      ...sessionContext({}, { now: () => performance.now() }),
      modules: this.modules,
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
  /** Where the session was when it read or wrote. */
  states: ReadonlySet<State>
}

const unhandled: unknown[] = []
process.on('unhandledRejection', (reason) => unhandled.push(reason))

/** The thread's own time, in ms. */
export function worked(): number {
  const { user, system } = process.threadCpuUsage()
  return (user + system) / 1000
}

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
  const { pipe, session, report } = startSession(context)
  const states = new Set<State>()
  const { read, write } = pipe
  let taken = 0
  pipe.read = async () => {
    states.add(session.state)
    if (ending.type === 'vanishes' && taken++ === ending.after) pipe.destroy()
    return read()
  }
  pipe.write = (data) => {
    states.add(session.state)
    return write(data)
  }
  pipe.stuck = ending.type === 'never-reads'
  for (const piece of pieces) pipe.send(piece)
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
  /** The most that it may cost our thread, in ms: a generous multiple of what it costs now. */
  workMs?: number
  /** What else must hold. */
  holds?: (outcome: Outcome) => void
}

/** A test for each of them, against one server. */
export function testAttacks(attacks: readonly Attack[], server: HostileServer = new HostileServer()): void {
  after(() => server.close())
  for (const { name, says, outcome, error, workMs = 30_000, holds } of attacks) {
    test(`attack: ${name}`, async () => {
      const pieces = says(server).flatMap(asSocket)
      const before = process.memoryUsage().rss
      const result = await say(server, pieces)
      const { report, output, stalledMs } = result
      assert.equal(report.outcome, outcome, String(report.error))
      if (error) assert.match(String(report.error), error)
      assert.ok(stalledMs < STALL_MS, `nobody else had a turn for ${stalledMs} ms`)
      assert.ok(result.workedMs < workMs, `${result.workedMs} ms of work`)
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
