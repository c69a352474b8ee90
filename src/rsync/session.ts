/**
 * Session: one client from greeting to goodbye.
 *
 * The table says which state leads where; every step of `run` goes through it, so nothing can happen out
 * of order. What each state does lives in a file of its own: the codecs in wire/, setup.ts, flist.ts,
 * sender.ts. The session reads and writes through a Connection and asks Modules for its tree; it knows
 * neither sockets nor stores.
 */

import { randomBytes } from 'node:crypto'
import {
  AccessDenied,
  ConnectionLost,
  HandedOver,
  PeerError,
  RefusedError,
  UpservError,
  type Visit,
} from '../errors.ts'
import { ascii, type ByteString, showBytes } from '../lib/bytes.ts'
import { Pacer } from '../lib/pacer.ts'
import type { Peer } from '../lib/peer.ts'
import type { Turn, Turns, Visitor, VisitSettings } from './access.ts'
import type { Answers } from './answers.ts'
import { Connection, type Duplex } from './connection.ts'
import type { Derived } from './derived.ts'
import { noFigures, type TransferFigures } from './figures.ts'
import { readListedNames } from './files-from.ts'
import { ioErrorOf, type ListNotice } from './flist.ts'
import { HiddenTree } from './hidden-tree.ts'
import type { Lists } from './lists.ts'
import type { Modules, OpenModule } from './modules.ts'
import { findSources, type SourcePath, showPath } from './paths.ts'
import { optionWords, refuseOptions } from './refusals.ts'
import { transfer } from './sender.ts'
import { type Agreement, agree, listTellsErrors } from './setup.ts'
import type { Tree } from './tree.ts'
import {
  announcesSecludedArguments,
  MAX_ARGUMENT_BYTES,
  MAX_ARGUMENTS,
  parseArguments,
  splitArguments,
  type TransferOptions,
} from './wire/arguments.ts'
import {
  type AUTH_DIGESTS,
  authDigestsFrom,
  authResponse,
  chooseAuthDigest,
  isResponse,
  parseAuthAnswer,
} from './wire/auth.ts'
import {
  type FilterRule,
  MAX_FILTER_BYTES,
  MAX_FILTER_RULES,
  MAX_RULE_BYTES,
  parseRule,
} from './wire/filters.ts'
import { agreeOnProtocol, checkFirstByte, formatGreeting, parseGreeting } from './wire/greeting.ts'
import { decodeI32 } from './wire/ints.ts'
import { TAG } from './wire/mux.ts'

export type State =
  | 'greeting'
  | 'module'
  | 'access'
  | 'waiting'
  | 'line'
  | 'arguments'
  | 'setup'
  | 'filters'
  | 'turn'
  | 'flist'
  | 'transfer'
  | 'closed'

export type Step =
  | 'hello'
  | 'list'
  | 'select'
  | 'admitted'
  | 'ready'
  | 'called'
  | 'arguments'
  | 'agreed'
  | 'filters'
  | 'begin'
  | 'sent'
  | 'nothing'
  | 'goodbye'
  | 'refuse'

/** What leads where. docs/architecture.md draws its diagram from this table, and a test compares them. */
export const NEXT: Record<State, Partial<Record<Step, State>>> = {
  greeting: { hello: 'module', refuse: 'closed' },
  module: { list: 'closed', select: 'access', refuse: 'closed' },
  access: { admitted: 'waiting', refuse: 'closed' },
  waiting: { ready: 'line', refuse: 'closed' },
  line: { called: 'arguments', refuse: 'closed' },
  arguments: { arguments: 'setup', refuse: 'closed' },
  setup: { agreed: 'filters', refuse: 'closed' },
  filters: { filters: 'turn', refuse: 'closed' },
  turn: { begin: 'flist', refuse: 'closed' },
  flist: { sent: 'transfer', nothing: 'closed', refuse: 'closed' },
  transfer: { goodbye: 'closed', refuse: 'closed' },
  closed: {},
}

/** The state behind `state` after `step`. @throws when the table has no such way: a bug of ours. */
export function advance(state: State, step: Step): State {
  const next = NEXT[state][step]
  if (!next) throw new Error(`a session in state "${state}" can't go on by "${step}"`)
  return next
}

/** Where the client owes us what belongs to a handshake. */
const HANDSHAKE: ReadonlySet<State> = new Set<State>([
  'greeting',
  'module',
  'access',
  'arguments',
  'setup',
  'filters',
])
/** Where the client may be silent for so long and no longer; in a handshake its deadline holds, and else it waits for us. */
const BY_IDLE_TIME: ReadonlySet<State> = new Set<State>(['flist', 'transfer'])

export interface SessionLimits {
  /** For all that the client owes us before its transfer begins; our own waiting does not count. */
  handshakeMs: number
  /** Without a byte in either direction the session is closed. */
  idleMs: number
}

export interface SessionContext {
  modules: Modules
  /** Begins to judge a client. */
  visitor: (client: Peer) => Visitor
  turns: Turns
  derived: Derived
  answers: Answers
  lists: Lists
  /** Sent with the greeting; '' for none. */
  motd: string
  /** Chosen once for a server and kept, so that equal bases give equal sums. */
  checksumSeed: number
  /**
   * The charset of all names, for clients that ask for --iconv. Between the two sides names are always in
   * UTF-8, so this is the one that needs no conversion. Undefined: nobody has said so, and they are refused.
   */
  charset?: 'utf-8' | undefined
  /** The weakest digest by which a password may be proven; md4, of which any client has one, unless told otherwise. */
  authDigestMin?: (typeof AUTH_DIGESTS)[number] | undefined
  limits: SessionLimits
  /** Milliseconds on a clock that never jumps. */
  now: () => number
}

/** What a session is about, and how far it has come. */
export interface SessionProgress {
  /** Where it is, or where it ended. */
  state: State
  protocol: number
  /** Who the client says it is; with code ACCESS_DENIED it could not prove it. '' where it was not asked. */
  user: string
  module: string
  /** The modules whose rules hold for it: itself, and what it stands for. */
  modules: readonly string[]
  paths: string
  /** As they were understood, escaped and cut. */
  options: string
  /** Place in line, from 1; 0 for who does not wait in it. */
  place: number
  bytesIn: number
  bytesOut: number
  /** Of the list. */
  entries: number
  /** All files of the list together. */
  listedBytes: number
  figures: TransferFigures
}

/** How a session went. */
export interface SessionReport extends SessionProgress {
  outcome: 'done' | 'listed' | 'refused' | 'peer-error' | 'lost' | 'failed'
  error: unknown
  /** Another process went on with the client, and reports on it. */
  relayed: boolean
  /** Codec and digests that both sides agreed on; '' where it did not come to that. */
  codec: string
  digest: string
  listDigest: string
  /** How long the client was kept waiting, for its build and for its turn. */
  waitedMs: { build: number; line: number }
  /** How long it was in each state that it came through. */
  stateMs: Partial<Record<State, number>>
}

const LF = 0x0a
const NUL = 0
const MAX_LINE = 4096
const MAX_EARLY_INPUT = 5120
/** Clients take no longer timeout from a server. */
const MAX_TIMEOUT_S = 86_400
const MAX_PATHS_SHOWN = 10
const MAX_OPTIONS_SHOWN = 30
/** Random bytes of a challenge: none comes twice. */
const CHALLENGE_BYTES = 24
/** Lines of the text phase stay below the stock server's own buffer. */
const MAX_TEXT_LINE = 1000

/** What was before a session began. */
export interface Before {
  /** When the client came, if that was earlier: its handshake began then. */
  readonly since?: number
  /** What the client has said to another process, and has been answered. */
  readonly visit?: Visit | undefined
  /** Told when a handshake begins and when it is over; where we make the client wait in between, more than once. */
  readonly onHandshake?: (isUnderWay: boolean) => void
}

export class Session {
  readonly #connection: Connection
  readonly #context: SessionContext
  readonly #signal: AbortSignal
  readonly #abort = new AbortController()
  #state: State = 'greeting'
  #protocol = 0
  #module = ''
  #modules: readonly string[] = []
  #user = ascii('')
  readonly #peer: Peer
  readonly #visitor: Visitor
  /** What the client's greeting lists. */
  #authDigests: readonly string[] | undefined
  #settings: VisitSettings | undefined
  #turn: Turn | undefined
  #options: TransferOptions | undefined
  /** The client's options in its own words. */
  #words: readonly ByteString[] = []
  #agreement: Agreement | undefined
  readonly #waitedMs = { build: 0, line: 0 }
  /** We make the client wait, in whatever state: it owes us nothing. */
  #kept = false
  readonly #onHandshake: (isUnderWay: boolean) => void
  #entries = 0
  #listedBytes = 0
  #place = 0
  readonly #stateMs: Partial<Record<State, number>> = {}
  #stateSince: number
  /** When the handshake began; moved on by the time that we made the client wait. */
  #owedSince: number
  /** Settles when the client has said something while it waited, or has left. */
  #ahead: Promise<void> | undefined
  readonly #figures: TransferFigures = noFigures()
  /** What the client has said already, to another process of ours. */
  readonly #visit: Visit | undefined
  /** The client's greeting and the module that it named, as it said them. */
  #greeting = ascii('')
  #named = ascii('')

  /**
   * @param signal ends the session at once, wherever it is.
   * @param before what was before it.
   */
  constructor(
    door: Duplex,
    peer: Peer,
    context: SessionContext,
    signal: AbortSignal,
    { since = context.now(), visit, onHandshake = () => {} }: Before = {},
  ) {
    this.#onHandshake = onHandshake
    this.#peer = peer
    this.#visit = visit
    this.#visitor = context.visitor(peer)
    this.#connection = new Connection(door, context.now)
    this.#context = context
    this.#signal = AbortSignal.any([signal, this.#abort.signal])
    this.#owedSince = since
    this.#stateSince = context.now()
    onHandshake(this.inHandshake)
  }

  get state(): State {
    return this.#state
  }

  /** The client owes us what belongs to a handshake. */
  get inHandshake(): boolean {
    return HANDSHAKE.has(this.#state) && !this.#kept
  }

  /** What it has sent so far, on the wire and of content: cheap enough to be asked of every session. */
  get sent(): { bytesOut: number; contentBytes: number } {
    const { matchedBytes, literalBytes } = this.#figures
    return { bytesOut: this.#connection.bytesWritten, contentBytes: matchedBytes + literalBytes }
  }

  /** How far it has come; to be looked at at once, as it goes on. */
  get progress(): SessionProgress {
    return {
      state: this.#state,
      protocol: this.#protocol,
      user: showBytes(this.#user),
      module: this.#module,
      modules: this.#modules,
      paths: showWords(this.#options?.paths ?? [], MAX_PATHS_SHOWN),
      options: showWords(this.#words, MAX_OPTIONS_SHOWN),
      place: this.#place,
      bytesIn: this.#connection.bytesRead,
      bytesOut: this.#connection.bytesWritten,
      entries: this.#entries,
      listedBytes: this.#listedBytes,
      figures: this.#figures,
    }
  }

  /** Whoever hangs up on the client says first why, for the report. */
  giveUp(why: string): void {
    this.#abort.abort(new ConnectionLost(why))
  }

  /**
   * Serves the client; returns when there is nothing left to say. Never throws: what went wrong is in the
   * report. The door then closes the connection gracefully.
   * @param hangUp called when the session must end although a read or write is under way.
   */
  async run(hangUp: () => void): Promise<SessionReport> {
    const watch = setInterval(() => this.#watch(hangUp), WATCH_MS)
    watch.unref()
    let module: OpenModule | undefined
    let outcome: SessionReport['outcome'] = 'done'
    let failure: unknown
    let relayed = false
    try {
      await this.#greet()
      const name = await this.#readModuleName()
      if (name === undefined) {
        outcome = 'listed'
      } else {
        this.#modules = this.#context.modules.ruledBy(name)
        await this.#admit(this.#modules)
        module = await this.#openModule(name)
        await this.#lineUp()
        await this.#serve(this.#shown(module))
      }
      await this.#connection.flush()
    } catch (error) {
      // Where we hung up ourselves, why we did says more than that the connection broke.
      failure = this.#abort.signal.aborted ? this.#abort.signal.reason : error
      relayed = failure instanceof HandedOver && this.#state === 'waiting'
      if (relayed) failure = await this.#relay(failure as HandedOver)
      if (failure) outcome = await this.#tell(failure)
    } finally {
      clearInterval(watch)
      this.#turn?.leave()
      module?.release()
      this.#clockState()
    }
    return {
      ...this.progress,
      outcome,
      error: failure,
      relayed,
      codec: this.#agreement ? (this.#agreement.codec ?? 'none') : '',
      digest: this.#agreement?.transferDigest ?? '',
      listDigest: this.#options?.checksum ? (this.#agreement?.listDigest ?? '') : '',
      waitedMs: { build: Math.round(this.#waitedMs.build), line: Math.round(this.#waitedMs.line) },
      stateMs: this.#stateMs,
    }
  }

  /** Without a byte for so long the session is closed. */
  get #idleMs(): number {
    return this.#settings?.idleTimeoutMs ?? this.#context.limits.idleMs
  }

  #step(step: Step): void {
    const next = advance(this.#state, step)
    this.#clockState()
    this.#state = next
    this.#onHandshake(this.inHandshake)
  }

  /** Counts the time since the last step for the state that it was spent in. */
  #clockState(): void {
    const now = this.#context.now()
    this.#stateMs[this.#state] = (this.#stateMs[this.#state] ?? 0) + now - this.#stateSince
    this.#stateSince = now
  }

  // -------------------------------------------------------------------------------------------------
  // The text phase

  get #ourAuthDigests() {
    return authDigestsFrom(this.#context.authDigestMin ?? 'md4')
  }

  async #greet(): Promise<void> {
    const line = this.#visit ? (this.#visit.greeting as ByteString) : await this.#exchangeGreetings()
    this.#greeting = line
    const greeting = parseGreeting(line)
    this.#protocol = agreeOnProtocol(greeting)
    this.#authDigests = greeting.digests
    this.#step('hello')
  }

  async #exchangeGreetings(): Promise<ByteString> {
    const { motd } = this.#context
    // Both sides may greet first; ours goes out at once.
    this.#connection.out.string(ascii(formatGreeting(this.#ourAuthDigests)))
    if (motd !== '') for (const line of [...motd.trimEnd().split('\n'), '']) await this.#say(line)
    await this.#connection.flush()
    await this.#connection.in.decode(checkFirstByte)
    return await this.#readLine('greeting')
  }

  /** The module that the client names; undefined once a listing was sent instead. */
  async #readModuleName(): Promise<string | undefined> {
    let line = this.#visit ? (this.#visit.module as ByteString) : await this.#readLine('module')
    const early = /^#early_input=(\d{1,6})$/.exec(line)
    if (early) {
      const size = Number(early[1])
      if (size < 1 || size > MAX_EARLY_INPUT) throw new PeerError('early-input', 'invalid early_input length')
      await this.#connection.in.discard(size)
      line = await this.#readLine('module')
    }
    if (line === '' || line === '#list') {
      const visitor = this.#visitor
      const mayHear = (name: string): boolean => visitor.mayHear(name)
      const modules = await this.#keepWaiting('build', (say) =>
        this.#context.modules.list(mayHear, say, this.#signal),
      )
      for (const { name, comment } of modules) {
        const shown = visitor.listing(name)
        if (shown) await this.#say(`${name.padEnd(15)}\t${shown.comment ?? comment}`)
      }
      await this.#connection.line('@RSYNCD: EXIT')
      this.#step('list')
      return undefined
    }
    if (line.startsWith('#')) throw new PeerError('module', `Unknown command '${showBytes(line)}'`)
    this.#named = line
    this.#module = showBytes(line)
    this.#step('select')
    return line
  }

  /** Goes by names alone: who is refused learns nothing of whether there is such a module. */
  async #admit(modules: readonly string[]): Promise<void> {
    const visitor = this.#visitor
    if (!visitor.mayKnock(modules)) {
      // The stock daemon's words. It would look the host's name up; we never do.
      const address = this.#peer.address ?? 'unknown'
      throw new AccessDenied(`access denied to ${this.#module} from UNDETERMINED (${address})`)
    }
    if (this.#visit?.user !== undefined) {
      // Proven to the process before, of whom we only know who it is.
      this.#user = this.#visit.user as ByteString
      if (visitor.mustProve(modules) && !visitor.prove(modules, { user: this.#user, provenBy: () => true }))
        throw new AccessDenied(`auth failed on module ${this.#module}`)
    } else if (visitor.mustProve(modules)) {
      const digest = chooseAuthDigest(this.#authDigests, this.#protocol, this.#ourAuthDigests)
      const challenge = randomBytes(CHALLENGE_BYTES).toString('base64').replaceAll('=', '')
      await this.#connection.line(`@RSYNCD: AUTHREQD ${challenge}`)
      const { user, response } = parseAuthAnswer(await this.#readLine('auth'))
      this.#user = user
      const provenBy = (password: Uint8Array): boolean =>
        isResponse(response, authResponse(digest, password, challenge))
      if (!(await visitor.proveSlowly(modules, { user, provenBy }))) {
        throw new AccessDenied(`auth failed on module ${this.#module}`)
      }
    }
    this.#settings = visitor.settings(modules)
    this.#step('admitted')
  }

  async #openModule(name: string): Promise<OpenModule> {
    const module = await this.#keepWaiting('build', (say) =>
      this.#context.modules.open(name, this.#visitor, say, this.#signal),
    )
    this.#step('ready')
    return module
  }

  /** Waits for the session's turn and calls the client up. */
  async #lineUp(): Promise<void> {
    const { limits } = this.#settings!
    this.#turn = await this.#keepWaiting('line', (say) =>
      this.#context.turns.enter(
        limits,
        (line, place) => {
          this.#place = place
          say(line)
        },
        this.#signal,
      ),
    )
    this.#place = 0
    await this.#connection.line('@RSYNCD: OK')
    this.#step('called')
  }

  /** The tree as this client may see it. */
  #shown({ tree, moduleAt }: OpenModule): Tree {
    const { hides } = this.#settings!
    const visitor = this.#visitor
    const hidesAt =
      moduleAt && visitor.hidesNames
        ? (directory: ByteString) => visitor.settings([moduleAt(directory)]).hides
        : undefined
    return hides.length > 0 || hidesAt ? new HiddenTree(tree, hides, this.#signal, hidesAt) : tree
  }

  /**
   * Makes the client wait for what `work` brings, telling it what `work` says. The client has nothing to say
   * meanwhile: when it hangs up, the work is called off at once.
   */
  async #keepWaiting<T>(
    what: 'build' | 'line',
    work: (say: (line: string) => void) => Promise<T>,
  ): Promise<T> {
    const began = this.#context.now()
    const gone = (): void => this.#abort.abort(new ConnectionLost('the client left while it waited'))
    let sending: Promise<void> | undefined
    this.#keep(true)
    try {
      return await work((line) => {
        this.#listenForEnd(gone)
        // Who does not read our lines gets fewer, and no more memory of ours.
        sending ??= this.#say(line)
          .catch(gone)
          .finally(() => {
            sending = undefined
          })
      })
    } finally {
      await sending
      const waited = this.#context.now() - began
      this.#waitedMs[what] += waited
      this.#owedSince += waited
      this.#keep(false)
    }
  }

  #keep(kept: boolean): void {
    this.#kept = kept
    this.#onHandshake(this.inHandshake)
  }

  /** The next piece of input, or its end, is waited for by itself; whoever reads next must await it. */
  #listenForEnd(onEnd: () => void): void {
    this.#ahead ??= this.#connection.in.ended().then(
      (ended) => {
        if (ended) onEnd()
      },
      () => onEnd(),
    )
  }

  /** A line that the client prints. It must not look like one of the protocol's own. */
  async #say(line: string): Promise<void> {
    const shown = oneLine(line)
    await this.#connection.line(shown.startsWith('@') ? ` ${shown}` : shown)
  }

  async #readLine(field: string): Promise<ByteString> {
    const line = await this.#connection.readUntil(LF, MAX_LINE, field)
    return (line.endsWith('\r') ? line.slice(0, -1) : line) as ByteString
  }

  // -------------------------------------------------------------------------------------------------
  // The binary phases

  async #serve(tree: Tree): Promise<void> {
    const connection = this.#connection
    const options = await this.#readArguments()
    this.#options = options
    this.#step('arguments')

    const agreement = await agree(connection, this.#protocol, options, this.#context.checksumSeed)
    this.#agreement = agreement
    if (options.bandwidth > 0) connection.limitBandwidth(options.bandwidth)
    if (this.#protocol >= 31) await this.#announceTimeout()
    this.#step('agreed')
    this.#refuse(options)

    const rules = await this.#readFilters()
    this.#step('filters')
    await this.#beginTurn()

    const began = this.#context.now()
    const sources = () => this.#findSources(tree, options)
    const module = ascii(this.#module)
    const request = { tree, module, options, rules, agreement, sources }
    const list = await this.#context.lists.prepare(request, this.#signal)
    const built = this.#context.now()
    this.#entries = list.count
    this.#listedBytes = list.totalSize
    await this.#tellNotices(list.notices)
    if (!listTellsErrors(agreement)) await this.#tellListErrors(ioErrorOf(list.notices, options.ignoreErrors))
    await connection.append(list.bytes)
    await connection.flush()
    const sent = this.#context.now()
    if (list.count === 0) {
      // The client has nothing to ask for and just goes (section 6.12).
      this.#step('nothing')
      return
    }
    this.#step('sent')

    await transfer({
      connection,
      tree,
      list,
      options,
      agreement,
      derived: this.#context.derived,
      answers: this.#context.answers,
      listMs: { build: Math.round(built - began), send: Math.round(sent - built) },
      figures: this.#figures,
      signal: this.#signal,
    })
    this.#step('goodbye')
  }

  #findSources(
    tree: Tree,
    options: TransferOptions,
  ): Promise<Iterable<SourcePath> | AsyncIterable<SourcePath>> {
    const module = ascii(this.#module)
    if (options.filesFrom !== undefined)
      return readListedNames(this.#connection, tree, module, options, this.#protocol)
    return findSources(
      tree,
      {
        module,
        paths: options.paths,
        relative: options.relative,
        secluded: options.secluded,
        directoriesSent: options.recurse || options.dirs || options.listOnly,
      },
      this.#signal,
    )
  }

  /** The client has done its part of the handshake, so nothing keeps it from using the turn that it has. */
  async #beginTurn(): Promise<void> {
    const began = this.#context.now()
    await this.#turn!.begin(this.#signal)
    this.#waitedMs.line += this.#context.now() - began
    this.#step('begin')
  }

  async #readArguments(): Promise<TransferOptions> {
    await this.#ahead
    const first = await this.#readVector(this.#protocol < 30 ? LF : NUL)
    const second = announcesSecludedArguments(first) ? await this.#readVector(NUL) : undefined
    this.#words = splitArguments(first, second).options
    return parseArguments(first, second)
  }

  async #readVector(terminator: number): Promise<ByteString[]> {
    const vector: ByteString[] = []
    let bytes = 0
    for (;;) {
      const argument = await this.#connection.readUntil(terminator, MAX_ARGUMENT_BYTES, 'arguments')
      if (argument === '') return vector
      bytes += argument.length
      if (vector.push(argument) > MAX_ARGUMENTS || bytes > MAX_ARGUMENT_BYTES) {
        throw new PeerError(
          'arguments',
          `more than ${MAX_ARGUMENTS} arguments or ${MAX_ARGUMENT_BYTES} bytes of them`,
        )
      }
    }
  }

  /** Tells the client how long it may be silent; while it is busy it then sends empty frames, too. */
  async #announceTimeout(): Promise<void> {
    const seconds = Buffer.alloc(4)
    seconds.writeInt32LE(Math.min(MAX_TIMEOUT_S, Math.ceil(this.#idleMs / 1000)))
    await this.#connection.message(TAG.ioTimeout, seconds)
  }

  /** What a server of finished builds never does. Told once text can reach the client (section 10.2). */
  #refuse(options: TransferOptions): void {
    if (options.problem !== undefined) throw new RefusedError(`ERROR: ${options.problem}`, 1)
    if (!options.sender) {
      throw new RefusedError(
        `ERROR: module is read only: ${this.#module} holds a finished build, which nobody can change`,
        1,
      )
    }
    if (options.removeSource) {
      throw new RefusedError('ERROR: --remove-source-files cannot be used with a read-only module', 1)
    }
    refuseOptions(optionWords(this.#words), this.#settings!.refuseOptions)
    if (options.iconv !== undefined && this.#context.charset === undefined) {
      throw new RefusedError(
        'ERROR: the server is configured to refuse --iconv: it does not know the charset of names in builds',
        4,
      )
    }
  }

  async #readFilters(): Promise<FilterRule[]> {
    const rules: FilterRule[] = []
    let bytes = 0
    for (;;) {
      const length = await this.#connection.in.decode(decodeI32)
      if (length === 0) return rules
      if (length < 0 || length > MAX_RULE_BYTES) throw new PeerError('filter', `a rule of ${length} bytes`)
      bytes += length
      if (bytes > MAX_FILTER_BYTES)
        throw new PeerError('filter', `more than ${MAX_FILTER_BYTES} bytes of rules`)
      if (rules.length === MAX_FILTER_RULES)
        throw new PeerError('filter', `more than ${MAX_FILTER_RULES} rules`)
      const text = (await this.#connection.in.bytes(length)).toString('latin1') as ByteString
      rules.push(parseRule(text, this.#protocol < 29))
    }
  }

  /** Tells what could not be listed. */
  async #tellNotices(notices: readonly ListNotice[]): Promise<void> {
    // A client may name what is not there a hundred thousand times, and the kernel takes small writes at once.
    const pacer = new Pacer(this.#signal)
    for (const { type, path, reason } of notices) {
      if (pacer.due) await pacer.rest()
      const shown = showPath(this.#module, path)
      if (type === 'skipped-directory') {
        await this.#connection.text(TAG.info, `skipping directory ${showBytes(path)}`)
      } else if (type === 'unreadable-directory') {
        await this.#connection.text(TAG.errorXfer, `upserv: cannot list "${shown}": ${reason}`)
      } else {
        const what =
          type === 'missing'
            ? 'link_stat'
            : type === 'missing-directory'
              ? 'change_dir'
              : 'symlink has no referent:'
        await this.#connection.text(
          TAG.errorXfer,
          `rsync: ${what} "${shown}" failed: No such file or directory (2)`,
        )
      }
    }
  }

  /** Before the list: whatever the client deletes, it does so when it knows the list. */
  async #tellListErrors(ioError: number): Promise<void> {
    if (ioError === 0) return
    const payload = Buffer.alloc(4)
    payload.writeInt32LE(ioError)
    await this.#connection.message(TAG.ioError, payload)
  }

  // -------------------------------------------------------------------------------------------------
  // Handing over

  /** Brings the client to another process, and carries bytes until one of them has no more. @returns what went wrong. */
  async #relay({ relay }: HandedOver): Promise<unknown> {
    const connection = this.#connection
    const user = this.#user === '' ? undefined : this.#user
    try {
      const other = await relay({ peer: this.#peer, greeting: this.#greeting, module: this.#named, user })
      const onAbort = (): void => other.destroy()
      this.#signal.addEventListener('abort', onAbort, { once: true })
      const there = async (): Promise<void> => {
        await this.#ahead
        for (let piece = await connection.in.some(); piece; piece = await connection.in.some())
          await other.write(piece)
        other.end()
      }
      const back = async (): Promise<void> => {
        for (let piece = await other.read(); piece; piece = await other.read()) {
          connection.out.bytes(piece)
          await connection.flush()
        }
      }
      try {
        // What the client has not said when the other has said all, nobody wants to hear.
        const failing = new Promise<never>((_, reject) => void there().catch(reject))
        await Promise.race([back(), failing])
      } finally {
        this.#signal.removeEventListener('abort', onAbort)
        other.destroy()
      }
      return undefined
    } catch (error) {
      return error
    }
  }

  // -------------------------------------------------------------------------------------------------
  // When something is wrong

  /** Tells the client what it can be told in the state that the session is in. */
  async #tell(error: unknown): Promise<SessionReport['outcome']> {
    if (error instanceof ConnectionLost) return 'lost'
    const message = error instanceof UpservError ? error.message : 'internal error: see the log of the server'
    const hint = error instanceof UpservError && error.hint ? ` (${error.hint})` : ''
    try {
      if (!this.#connection.outMuxed) {
        await this.#connection.line(`@ERROR: ${oneLine(message + hint)}`)
      } else if (this.#protocol >= 31) {
        await this.#connection.text(TAG.error, message + hint)
        const code = Buffer.alloc(4)
        code.writeInt32LE(
          error instanceof RefusedError ? error.exitCode : error instanceof PeerError ? 2 : 23,
        )
        await this.#connection.message(TAG.errorExit, code)
      } else {
        await this.#connection.text(TAG.errorXfer, message + hint)
      }
    } catch {
      return 'lost'
    }
    if (this.#state !== 'closed') this.#step('refuse')
    if (error instanceof PeerError) return 'peer-error'
    return error instanceof UpservError ? 'refused' : 'failed'
  }

  /** Ends what takes too long, and keeps a waiting client's line alive. */
  #watch(hangUp: () => void): void {
    const now = this.#context.now()
    const { handshakeMs } = this.#context.limits
    const idleMs = this.#idleMs
    const connection = this.#connection
    const since = BY_IDLE_TIME.has(this.#state) ? connection.waitingSince : connection.unheardSince
    const waited = now - (since ?? now)
    if ((this.inHandshake && now - this.#owedSince > handshakeMs) || waited > idleMs) {
      this.#abort.abort(new ConnectionLost('the client stalled'))
      hangUp()
      return
    }
    const theirTimeout = this.#options?.timeout ? this.#options.timeout * 1000 : idleMs
    const patience = Math.min(KEEP_ALIVE_MS, theirTimeout / 2, idleMs / 2)
    if (
      this.#connection.outMuxed &&
      this.#state !== 'closed' &&
      now - this.#connection.lastWrite > patience - WATCH_MS
    ) {
      // While a list is worked out nothing is read: this is how we hear that nobody waits for it any more.
      this.#connection.keepAlive().catch((error) => this.#abort.abort(error))
    }
  }
}

/** Words of a request for a line of the log, whatever a client sends. */
function showWords(words: readonly ByteString[], most: number): string {
  const shown = words.slice(0, most).map((word) => showBytes(word))
  if (words.length > most) shown.push(`and ${words.length - most} more`)
  return shown.join(' ')
}

/** Text as one line that can neither be taken for several nor drive a terminal. A tab may stay. */
function oneLine(text: string): string {
  const plain = text.replaceAll(/\s*\n\s*/g, ' ').replaceAll(/[\x00-\x08\x0a-\x1f\x7f-\x9f]/g, '?')
  return Buffer.from(plain).subarray(0, MAX_TEXT_LINE).toString()
}

const WATCH_MS = 1000
/** Silence longer than this, or than half of the timeout that holds, gets an empty frame. */
const KEEP_ALIVE_MS = 30_000
