/**
 * Sessions without a server around them: on a connection made of two queues, where a test plays the
 * client byte by byte, or on a TCP port for the real client.
 */
import { once } from 'node:events'
import { createServer } from 'node:net'
import { setImmediate as nextTurn } from 'node:timers/promises'
import { Policy } from '../../src/access/policy.ts'
import { StreamDuplex } from '../../src/daemon/duplex.ts'
import { TurnsInLine } from '../../src/daemon/turns.ts'
import { ConnectionLost, NoSuchBuild } from '../../src/errors.ts'
import { type Peer, peerFrom } from '../../src/lib/peer.ts'
import { Answers } from '../../src/rsync/answers.ts'
import type { Duplex } from '../../src/rsync/connection.ts'
import { Derived } from '../../src/rsync/derived.ts'
import type { Kept } from '../../src/rsync/kept.ts'
import { Lists } from '../../src/rsync/lists.ts'
import type { Modules } from '../../src/rsync/modules.ts'
import { Session, type SessionContext, type SessionReport } from '../../src/rsync/session.ts'
import type { Tree } from '../../src/rsync/tree.ts'

/** The seed of all conversations in docs/rsync-protocol.md, section 12. */
export const SEED = 0x12345678

/** Modules by name, each of one tree that stays. Counts what was not given back. */
export class FixedModules implements Modules {
  readonly #trees: ReadonlyMap<string, Tree>
  held = 0

  constructor(trees: Readonly<Record<string, Tree>>) {
    this.#trees = new Map(Object.entries(trees))
  }

  async list(): Promise<{ name: string; comment: string }[]> {
    return [...this.#trees.keys()].map((name) => ({ name, comment: `the module ${name}` }))
  }

  ruledBy(name: string): readonly string[] {
    return [name]
  }

  async open(name: string): Promise<{ tree: Tree; release: () => void }> {
    const tree = this.#trees.get(name)
    if (!tree) throw new NoSuchBuild(`Unknown module '${name}'`)
    this.held++
    return { tree, release: () => this.held-- }
  }
}

/** Bytes that are kept: a fuzzer asks for something else each time. */
const MOST_KEPT = 16 * 2 ** 20

/** Derived data of one run of a test, the latest of it. */
export function memoryKept(most = MOST_KEPT): Kept {
  const kept = new Map<string, Uint8Array>()
  const scratch = Buffer.alloc(68 * 1024)
  let size = 0
  const name = (key: Uint8Array): string => Buffer.from(key).toString('hex')
  return {
    // Into memory that is brought, as from a disk.
    get: (key, take) => {
      const found = kept.get(name(key))
      const memory = found && take?.(found.length)
      if (!memory) return found
      memory.set(found)
      return memory.subarray(0, found.length)
    },
    // What is peeked at does not last.
    peek: (key) => {
      const found = kept.get(name(key))
      if (!found || found.length > scratch.length) return undefined
      scratch.fill(0xee).set(found)
      return scratch.subarray(0, found.length)
    },
    put: (key, bytes) => {
      size += bytes.length
      for (const [oldest, { length }] of kept) {
        if (size <= most) break
        kept.delete(oldest)
        size -= length
      }
      kept.set(name(key), Uint8Array.from(bytes))
      return true
    },
  }
}

const sharedDerived = new Derived({ kept: memoryKept(), checksumSeed: SEED })

const noRules = new Policy({ hosts: { allow: [], deny: [] }, modules: [] }, () => {})
const manyTurns = new TurnsInLine({ most: 10_000, places: 0, now: () => 0 })
/** Where clients on a pipe come from. */
export const TEST_PEER = peerFrom('192.0.2.1', 40_000)

/** A context whose clock stands still, unless a test brings one that moves. */
export function sessionContext(
  trees: Readonly<Record<string, Tree>>,
  changes: Partial<SessionContext> = {},
): SessionContext & { modules: Modules } {
  const { derived = sharedDerived } = changes
  return {
    modules: new FixedModules(trees),
    visitor: (client) => noRules.visitor(client),
    turns: manyTurns,
    derived,
    answers: new Answers({ derived, kept: memoryKept() }),
    lists: new Lists(derived, memoryKept()),
    motd: '',
    checksumSeed: SEED,
    limits: { handshakeMs: 60_000, idleMs: 600_000 },
    now: () => 0,
    ...changes,
  }
}

/** Both ends of a connection in memory. The session has one end; the methods below are the client's. */
export class Pipe implements Duplex {
  /** Emptied when all was read: to take the first of a hundred thousand pieces out costs as much as all others. */
  #input: Uint8Array[] = []
  #read = 0
  readonly #output: Buffer[] = []
  #ended = false
  #broken = false
  #wakeReader: (() => void) | undefined
  #wakeClient: (() => void) | undefined
  /** Set: writes wait until the connection breaks, as those to a client that never reads. */
  stuck = false

  /** As from a socket: between two pieces everyone else has a turn. */
  read = async (): Promise<Uint8Array | undefined> => {
    await nextTurn()
    while (this.#read === this.#input.length) {
      if (this.#broken) throw new ConnectionLost('broken')
      if (this.#ended) return undefined
      await new Promise<void>((resolve) => {
        this.#wakeReader = resolve
      })
    }
    const piece = this.#input[this.#read++]
    if (this.#read === this.#input.length) {
      this.#input = []
      this.#read = 0
    }
    return piece
  }

  write = async (data: Uint8Array): Promise<void> => {
    while (this.stuck && !this.#broken) {
      await new Promise<void>((resolve) => {
        this.#wakeReader = resolve
      })
    }
    if (this.#broken) throw new ConnectionLost('broken')
    this.#output.push(Buffer.from(data))
    this.#wakeClient?.()
  }

  send(data: Uint8Array | string): void {
    this.#input.push(typeof data === 'string' ? Buffer.from(data, 'latin1') : data)
    this.#wakeReader?.()
  }

  /** The client says no more. */
  end(): void {
    this.#ended = true
    this.#wakeReader?.()
  }

  /** The connection is gone, for whoever reads or writes. */
  destroy(): void {
    this.#broken = true
    this.#wakeReader?.()
  }

  /** Everything that the session has said and nobody has taken. */
  get output(): Buffer {
    return Buffer.concat(this.#output)
  }

  /** Takes exactly `size` bytes, waiting for them at most a second. */
  async take(size: number): Promise<Buffer> {
    const deadline = performance.now() + 1000
    while (this.output.length < size) {
      if (performance.now() > deadline) {
        throw new Error(`${size} bytes expected, got only ${this.output.toString('hex')}`)
      }
      await new Promise<void>((resolve) => {
        const timer = setTimeout(resolve, 20)
        this.#wakeClient = () => {
          clearTimeout(timer)
          resolve()
        }
      })
    }
    const all = this.output
    this.#output.length = 0
    this.#output.push(all.subarray(size))
    return all.subarray(0, size)
  }
}

/** A session on a pipe, under way. */
export function startSession(
  context: SessionContext,
  peer: Peer = TEST_PEER,
): {
  pipe: Pipe
  session: Session
  report: Promise<SessionReport>
} {
  const pipe = new Pipe()
  const session = new Session(pipe, peer, context, new AbortController().signal)
  return { pipe, session, report: session.run(() => pipe.destroy()) }
}

/** All that a session says to a client that says `input` and then no more. */
export async function converse(
  context: SessionContext,
  input: Uint8Array | string | readonly Uint8Array[],
): Promise<{ output: Buffer; report: SessionReport }> {
  const { pipe, report } = startSession(context)
  for (const piece of typeof input === 'string' || input instanceof Uint8Array ? [input] : input) {
    pipe.send(piece)
  }
  pipe.end()
  const done = await report
  return { output: pipe.output, report: done }
}

/** A port where the real client finds sessions, and what went over each connection. */
export interface TestPort extends AsyncDisposable {
  port: number
  reports: SessionReport[]
  /** What clients sent, by connection. */
  received: Buffer[]
}

export async function listen(context: SessionContext): Promise<TestPort> {
  const reports: SessionReport[] = []
  const received: Buffer[] = []
  const server = createServer(async (socket) => {
    const number = received.push(Buffer.alloc(0)) - 1
    const duplex = new StreamDuplex(socket, socket)
    const tapped: Duplex = {
      read: async () => {
        const piece = await duplex.read()
        if (piece) received[number] = Buffer.concat([received[number]!, piece])
        return piece
      },
      write: (data, whenDone) => duplex.write(data, whenDone),
    }
    const session = new Session(
      tapped,
      peerFrom(socket.remoteAddress, socket.remotePort),
      context,
      new AbortController().signal,
    )
    reports.push(await session.run(() => duplex.destroy()))
    await duplex.close()
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  return {
    port: (server.address() as { port: number }).port,
    reports,
    received,
    [Symbol.asyncDispose]: async () => {
      server.close()
    },
  }
}
