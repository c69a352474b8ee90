/**
 * The policy: which rules hold for which module, and what they say of one client.
 *
 * Rules come in tables, each for the modules whose name matches; the first that matches holds. All of it
 * goes by names alone: a client that is refused learns nothing of whether the module exists.
 *
 * A module may stand for others, as a channel does for its build. Then the rules of all of them must be
 * met, and what any of them hides is hidden.
 *
 * Everything fails closed: a group that nobody has defined, a source that there is none of, a secrets file that
 * can't be read and an address that nobody knows let nobody in. docs/adr/0008-access.md has the reasons.
 */
import { randomBytes } from 'node:crypto'
import { AccessDenied } from '../errors.ts'
import { utf8Bytes } from '../lib/bytes.ts'
import { networkOf, type Prefixes, sourceOf, USUAL_PREFIXES, whereOf } from '../lib/peer.ts'
import { Attempts } from './attempts.ts'
import { type FetchAllowance, type FetchTicket, NOT_COUNTED } from './fetch-allowance.ts'
import { HostRules, type HostRulesConfig } from './hosts.ts'
import type { Identity } from './identity.ts'
import { matchesName } from './name-pattern.ts'
import { SecretsFile } from './secrets.ts'
import type { FetchRule, UserRule, Who } from './users.ts'

/** One table of rules, as configured. */
export interface ModuleRules {
  /** Name of a module, in which `*` stands for any text and `?` for one byte. */
  readonly name: string
  /** Only for builds that the source of this name could supply, by their ids; undefined: from wherever. */
  readonly source?: string | undefined
  /** Stands in the listing in place of our own words. */
  readonly comment: string | undefined
  /** False: not shown in the listing. True: also to who would have to log in. Undefined: to who may have it. */
  readonly list: boolean | undefined
  /** Who may have the module; empty: whoever comes. */
  readonly authUsers: readonly UserRule[]
  /** Their passwords; there is one if and only if there are users or groups among them. */
  readonly secretsFile: string | undefined
  readonly hosts: HostRulesConfig
  /** Who may have builds of the table fetched; undefined: as the server says. */
  readonly fetchAllow?: readonly FetchRule[] | undefined
  /** Transfers at a time, of all modules of the table together; undefined for as many as the server has. */
  readonly maxConnections: number | undefined
  readonly idleTimeoutMs: number | undefined
  /** Long names of options that clients may not use here. */
  readonly refuseOptions: readonly string[]
  /** Patterns of names that exist although `exclude` says otherwise. */
  readonly include: readonly string[]
  /** Patterns of names that don't exist for clients. */
  readonly exclude: readonly string[]
}

export interface PolicyConfig {
  /** For every module, beside its own. */
  readonly hosts: HostRulesConfig
  /** The first that matches holds. */
  readonly modules: readonly ModuleRules[]
  /** Members of each group. */
  readonly groups?: Readonly<Record<string, readonly Who[]>>
  /** Who may have builds fetched that are not held; undefined: anybody, as a stranger. */
  readonly fetchAllow?: readonly FetchRule[]
  readonly limits?: VisitorLimits
}

/** What one who comes may take; 0 for as much as there is. */
export interface VisitorLimits {
  /** Transfers at a time from one source, and of one user or certificate. */
  readonly transfersPerSource: number
  readonly transfersPerUser: number
  /** Those of one source, of one network, and of one user or certificate, who may wait in line. */
  readonly waitingPerSource: number
  readonly waitingPerNetwork: number
  readonly waitingPerUser: number
  readonly prefixes: Prefixes
}

/** What the policy needs to know of the rest. */
export interface PolicyParts {
  /** Whether a source could supply the build that a module is, going by its name; undefined: no such source. */
  supplies?: (source: string, module: string) => boolean | undefined
  /** What strangers may have fetched; kept when the rules are read again. */
  fetches?: FetchAllowance
  /** Failed logins; kept when the rules are read again. */
  attempts?: Attempts
}

const NO_LIMITS: VisitorLimits = {
  transfersPerSource: 0,
  transfersPerUser: 0,
  waitingPerSource: 0,
  waitingPerNetwork: 0,
  waitingPerUser: 0,
  prefixes: USUAL_PREFIXES,
}

// A leaf imports no other: these have the shape of what rsync/access.ts asks for.

/** What a client said to prove who it is. */
export interface Proof {
  readonly user: string
  /** Whether who said this knows the password. Takes the same time for every password of equal length. */
  provenBy(password: Uint8Array): boolean
}

/** What holds for a session with certain modules, of all their tables together. */
export interface VisitSettings {
  /** Each with a name of its own: sessions under one name count together. */
  readonly limits: readonly {
    readonly name: string
    readonly most: number
    readonly waiting?: number
    readonly of?: string
  }[]
  readonly idleTimeoutMs: number | undefined
  readonly refuseOptions: readonly string[]
  /** Names are hidden if any of these hides them. */
  readonly hides: readonly { readonly include: readonly string[]; readonly exclude: readonly string[] }[]
}

/** Members of a group as they are looked for. */
type Groups = ReadonlyMap<string, readonly Who[]>

class Table {
  readonly rules: ModuleRules
  readonly hosts: HostRules
  readonly secrets: SecretsFile | undefined
  /** It says who may have its modules: not everybody may. */
  readonly isClosed: boolean
  readonly #pattern: string
  readonly #groups: Groups
  readonly #supplies: NonNullable<PolicyParts['supplies']>

  constructor(
    rules: ModuleRules,
    secrets: SecretsFile | undefined,
    groups: Groups,
    supplies: NonNullable<PolicyParts['supplies']>,
  ) {
    this.rules = rules
    this.hosts = new HostRules(rules.hosts)
    this.secrets = secrets
    this.isClosed = rules.authUsers.length > 0
    this.#pattern = utf8Bytes(rules.name)
    this.#groups = groups
    this.#supplies = supplies
  }

  isFor(module: string): boolean {
    if (!matchesName(this.#pattern, module)) return false
    // What a source that there is none of would supply, nobody can say: it might be this.
    return this.rules.source === undefined || (this.#supplies(this.rules.source, module) ?? true)
  }

  /** Nobody can say what it is for. */
  get isBroken(): boolean {
    return this.rules.source !== undefined && this.#supplies(this.rules.source, '') === undefined
  }

  admitsUser(user: string): boolean {
    return this.#judge((who) => 'user' in who && who.user === user) === true
  }

  /** False when a rule keeps out one of the names in a certificate. Undefined: no rule says anything of it. */
  judgesDevices(devices: readonly string[]): boolean | undefined {
    return devices.length === 0 ? undefined : this.#judge((who) => isAmong(who, devices))
  }

  /** Whoever is denied by one entry is not admitted by another one. Undefined: no entry says anything. */
  #judge(isMeant: (who: Who) => boolean): boolean | undefined {
    let admitted: boolean | undefined
    for (const rule of this.rules.authUsers) {
      const members = 'group' in rule ? this.#groups.get(rule.group) : [rule]
      // Of a group that nobody knows everybody may be a member, and nobody.
      const meant = members ? members.some(isMeant) : !rule.admitted
      if (!meant) continue
      if (!rule.admitted) return false
      admitted = true
    }
    return admitted
  }
}

function isAmong(who: Who, devices: readonly string[]): boolean {
  return 'certificate' in who && devices.some((name) => matchesName(who.certificate, name))
}

/** Holds where no table does. */
const NO_RULES: ModuleRules = {
  name: '*',
  comment: undefined,
  list: undefined,
  authUsers: [],
  secretsFile: undefined,
  hosts: { allow: [], deny: [] },
  maxConnections: undefined,
  idleTimeoutMs: undefined,
  refuseOptions: [],
  include: [],
  exclude: [],
}

/** An entry of a list of who may have builds fetched, ready to be asked. */
interface FetchEntry {
  readonly anybody: boolean
  isMeant(client: Identity, devices: readonly string[], user: string | undefined): boolean
}

export class Policy {
  readonly #hosts: HostRules
  readonly #tables: readonly Table[]
  readonly #fetchAllow: readonly FetchEntry[]
  readonly #fetchAllowOf = new Map<Table, readonly FetchEntry[]>()
  readonly #rules: Rules

  /** @param onProblem is told why a secrets file can't be used. */
  constructor(
    config: PolicyConfig,
    onProblem: (problem: string) => void,
    { supplies = () => undefined, fetches, attempts }: PolicyParts = {},
  ) {
    this.#hosts = new HostRules(config.hosts)
    const groups: Groups = new Map(Object.entries(config.groups ?? {}))
    const files = new Map<string, SecretsFile>()
    const secretsOf = ({ secretsFile: path }: ModuleRules): SecretsFile | undefined => {
      if (path === undefined) return undefined
      const file = files.get(path) ?? new SecretsFile(path, onProblem)
      files.set(path, file)
      return file
    }
    this.#tables = [...config.modules, NO_RULES].map(
      (rules) => new Table(rules, secretsOf(rules), groups, supplies),
    )
    this.#fetchAllow = (config.fetchAllow ?? [{ anybody: true }]).map((rule) => fetchEntry(rule, groups))
    for (const table of this.#tables) {
      const { fetchAllow } = table.rules
      if (fetchAllow)
        this.#fetchAllowOf.set(
          table,
          fetchAllow.map((rule) => fetchEntry(rule, groups)),
        )
    }
    this.#rules = {
      tables: this.#tables,
      tableFor: (module) => this.#tables.find((table) => table.isFor(module))!,
      fetchAllowOf: (table) => this.#fetchAllowOf.get(table) ?? this.#fetchAllow,
      limits: config.limits ?? NO_LIMITS,
      hidesNames: this.#tables.some(({ rules }) => rules.exclude.length > 0),
      fetches,
      attempts: attempts ?? new Attempts(),
    }
    // What is wrong with a file should be known when the server starts, not when the first user fails.
    for (const file of files.values()) file.refresh()
  }

  /** Begins to judge one client. */
  visitor(client: Identity): Visitor {
    return new Visitor(client, this.#hosts.admits(client.address), this.#rules)
  }
}

/** What holds for every visitor. */
interface Rules {
  readonly tables: readonly Table[]
  tableFor(module: string): Table
  fetchAllowOf(table: Table): readonly FetchEntry[]
  readonly limits: VisitorLimits
  readonly hidesNames: boolean
  readonly fetches: FetchAllowance | undefined
  readonly attempts: Attempts
}

/** One client, and what the rules say of it. */
export class Visitor {
  readonly #client: Identity
  /** Names in its certificate, as bytes. */
  readonly #devices: readonly string[]
  readonly #admitted: boolean
  readonly #rules: Rules
  /** Whether what the client said is good enough for a table: asked once for each. */
  readonly #proven = new Map<Table, boolean>()
  #proof: Proof | undefined

  constructor(client: Identity, admitted: boolean, rules: Rules) {
    this.#client = client
    this.#devices = client.devices.map(utf8Bytes)
    this.#admitted = admitted
    this.#rules = rules
  }

  /** Any table hides names. */
  get hidesNames(): boolean {
    return this.#rules.hidesNames
  }

  /** What the listing shows of a module to this client: nothing, or maybe with words of the operator's. */
  listing(module: string): { comment: string | undefined } | undefined {
    const { list, comment } = this.#rules.tableFor(module).rules
    return list !== false && this.mayHear(module) ? { comment } : undefined
  }

  /** Whether it may hear that there is such a module: it may have it, or the operator tells of it anyway. */
  mayHear(module: string): boolean {
    return this.#rules.tableFor(module).rules.list === true ? this.#mayKnock(module) : this.mayHave(module)
  }

  /** Whether it may hear what a source has to say: no rule keeps it from what that source supplies. */
  mayHearOf(source: string): boolean {
    return this.#rules.tables.every((table) => table.rules.source !== source || this.#meets(table))
  }

  /** Whether the client may come from where it does, with the certificate that it has. */
  mayKnock(modules: readonly string[]): boolean {
    return modules.every((module) => this.#mayKnock(module))
  }

  /** Whether the client has to prove who it is. */
  mustProve(modules: readonly string[]): boolean {
    return modules.some((module) => this.#mustProve(this.#rules.tableFor(module)))
  }

  /**
   * Whether the proof is good for all of these. An unknown user, one who is not on the list, one who is
   * denied and one with another password take the same way through this, so they take the same time.
   */
  prove(modules: readonly string[], proof: Proof): boolean {
    const asking = modules
      .map((module) => this.#rules.tableFor(module))
      .filter((table) => this.#mustProve(table))
    const verdicts = asking.map((table) => this.#satisfies(table, proof))
    const good = verdicts.every(Boolean)
    // Where nobody asks, nothing is proven.
    if (good && asking.length > 0) this.#accept(proof)
    return good
  }

  /** The same for who may be guessing: after too many failures it takes its time. @throws LoginsSlowed */
  async proveSlowly(modules: readonly string[], proof: Proof): Promise<boolean> {
    return await this.#judge(proof, () => this.prove(modules, proof))
  }

  /**
   * Takes a proof that is good for any module at all, from one who has not named one.
   * @throws LoginsSlowed
   */
  async introduce(proof: Proof): Promise<boolean> {
    const asking = this.#rules.tables.filter((table) => this.#mustProve(table))
    if (asking.length === 0) return false
    return await this.#judge(proof, () => {
      const verdicts = asking.map((table) => this.#satisfies(table, proof))
      const good = verdicts.some(Boolean)
      if (good) this.#accept(proof)
      return good
    })
  }

  async #judge(proof: Proof, isGood: () => boolean): Promise<boolean> {
    const { limits, attempts } = this.#rules
    const from = {
      source: sourceOf(this.#client, limits.prefixes),
      network: networkOf(this.#client, limits.prefixes),
    }
    return await attempts.judge(from, proof.user, isGood)
  }

  #accept(proof: Proof): void {
    this.#proof = proof
    this.#proven.clear()
  }

  /** Whether the client may have a module that another one shows. */
  mayHave(module: string): boolean {
    return this.#meets(this.#rules.tableFor(module))
  }

  /**
   * Before a build is fetched for this client: whether it may have that, and what it costs.
   * @param modules those that it asked for. @throws AccessDenied, FetchesSpent
   */
  beginFetch(modules: readonly string[]): FetchTicket {
    const { tableFor, fetchAllowOf, fetches, limits } = this.#rules
    let isStranger = false
    for (const table of new Set(modules.map(tableFor))) {
      const meant = fetchAllowOf(table).filter((entry) =>
        entry.isMeant(this.#client, this.#devices, this.#proof?.user),
      )
      if (meant.length === 0) {
        throw new AccessDenied(`${modules.at(-1)} is not held here, and it is not fetched for you`, {
          hint: 'Ask whoever runs this server to fetch it, or to let you (fetch.allow).',
        })
      }
      isStranger ||= meant.every(({ anybody }) => anybody)
    }
    // Who has shown who it is can be asked about what it did.
    const isKnown = this.#proof !== undefined || this.#devices.length > 0
    if (!fetches || !isStranger || isKnown) return NOT_COUNTED
    return fetches.begin(sourceOf(this.#client, limits.prefixes))
  }

  settings(modules: readonly string[]): VisitSettings {
    const rules = [...new Set(modules.map((module) => this.#rules.tableFor(module).rules))]
    const timeouts = rules.flatMap(({ idleTimeoutMs }) => idleTimeoutMs ?? [])
    return {
      limits: [
        ...rules.flatMap(({ name, source, maxConnections: most }) =>
          most === undefined ? [] : { name: source === undefined ? name : `${name} of ${source}`, most },
        ),
        ...this.#ownLimits(),
      ],
      idleTimeoutMs: timeouts.length > 0 ? Math.min(...timeouts) : undefined,
      refuseOptions: rules.flatMap(({ refuseOptions }) => refuseOptions),
      hides: rules.filter(({ exclude }) => exclude.length > 0),
    }
  }

  /**
   * What the rules say of it before it has said anything: who has the same standing sees the same. For who
   * makes something once for many.
   */
  get standing(): string {
    return [this.#admitted, ...this.#rules.tables.map((table) => this.#meets(table))]
      .map((met) => (met ? '1' : '0'))
      .join('')
  }

  *#ownLimits(): Generator<VisitSettings['limits'][number]> {
    const { limits } = this.#rules
    const user = this.#proof?.user ?? this.#devices[0]
    if (user !== undefined)
      yield* limitOf(`\0user ${user}`, 'of this user', limits.transfersPerUser, limits.waitingPerUser)
    const { source, network } = whereOf(this.#client, limits.prefixes)
    yield* limitOf(`\0${source}`, 'of this address', limits.transfersPerSource, limits.waitingPerSource)
    yield* limitOf(`\0${network}`, 'of this network', 0, limits.waitingPerNetwork)
  }

  #mayKnock(module: string): boolean {
    return this.#comesFrom(this.#rules.tableFor(module))
  }

  /** The place and the certificate are good; a password may be owed. */
  #comesFrom(table: Table): boolean {
    if (!this.#admitted || table.isBroken || !table.hosts.admits(this.#client.address)) return false
    const verdict = table.judgesDevices(this.#devices)
    // Where there are no passwords, a certificate is the only way.
    return verdict ?? (!table.isClosed || table.secrets !== undefined)
  }

  #mustProve(table: Table): boolean {
    return table.isClosed && table.judgesDevices(this.#devices) !== true
  }

  #meets(table: Table): boolean {
    if (!this.#comesFrom(table)) return false
    let proven = this.#proven.get(table)
    if (proven === undefined) {
      proven = this.#proof ? this.#satisfies(table, this.#proof) : !this.#mustProve(table)
      this.#proven.set(table, proven)
    }
    return proven
  }

  #satisfies(table: Table, proof: Proof): boolean {
    if (!this.#mustProve(table)) return true
    const password = table.secrets?.passwordOf(proof.user)
    const proven = proof.provenBy(password ?? NOBODYS_PASSWORD)
    return table.admitsUser(proof.user) && proven && password !== undefined
  }
}

/** In place of a password that there is none of: what a client says is compared in any case. */
const NOBODYS_PASSWORD = randomBytes(16)

function fetchEntry(rule: FetchRule, groups: Groups): FetchEntry {
  if ('anybody' in rule) return { anybody: true, isMeant: () => true }
  if ('network' in rule) {
    const networks = new HostRules({ allow: [rule.network], deny: [] })
    return { anybody: false, isMeant: ({ address }) => networks.admits(address) }
  }
  const members = 'group' in rule ? (groups.get(rule.group) ?? []) : [rule]
  return {
    anybody: false,
    isMeant: (_, devices, user) =>
      members.some((who) => ('user' in who ? who.user === user : isAmong(who, devices))),
  }
}

/** So many of these may transfer at a time, and so many wait in line for it; 0 for any number. */
function* limitOf(
  name: string,
  of: string,
  most: number,
  waiting: number,
): Generator<VisitSettings['limits'][number]> {
  if (most === 0 && waiting === 0) return
  yield { name, most: most || Number.POSITIVE_INFINITY, ...(waiting > 0 && { waiting }), of }
}
