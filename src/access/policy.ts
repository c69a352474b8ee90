/**
 * The policy: which rules hold for which module, and what they say of one client.
 *
 * Rules come in tables, each for the modules whose name matches; the first that matches holds. All of it
 * goes by names alone: a client that is refused learns nothing of whether the module exists.
 *
 * A module may stand for others, as a channel does for its build. Then the rules of all of them must be
 * met, and what any of them hides is hidden.
 */
import { randomBytes } from 'node:crypto'
import { utf8Bytes } from '../lib/bytes.ts'
import { HostRules, type HostRulesConfig } from './hosts.ts'
import type { Identity } from './identity.ts'
import { matchesName } from './name-pattern.ts'
import { SecretsFile } from './secrets.ts'
import type { UserRule } from './users.ts'

/** One table of rules, as configured. */
export interface ModuleRules {
  /** Name of a module, in which `*` stands for any text and `?` for one byte. */
  readonly name: string
  /** Stands in the listing in place of our own words. */
  readonly comment: string | undefined
  /** False: not shown in the listing. */
  readonly list: boolean
  /** Who may have the module; empty: whoever comes. */
  readonly authUsers: readonly UserRule[]
  /** Their passwords; there is one if and only if there are users. */
  readonly secretsFile: string | undefined
  readonly hosts: HostRulesConfig
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
  readonly limits: readonly { readonly name: string; readonly most: number }[]
  readonly idleTimeoutMs: number | undefined
  readonly refuseOptions: readonly string[]
  /** Names are hidden if any of these hides them. */
  readonly hides: readonly { readonly include: readonly string[]; readonly exclude: readonly string[] }[]
}

class Table {
  readonly rules: ModuleRules
  readonly hosts: HostRules
  readonly secrets: SecretsFile | undefined
  readonly #pattern: string

  constructor(rules: ModuleRules, secrets: SecretsFile | undefined) {
    this.rules = rules
    this.hosts = new HostRules(rules.hosts)
    this.secrets = secrets
    this.#pattern = utf8Bytes(rules.name)
  }

  isFor(module: string): boolean {
    return matchesName(this.#pattern, module)
  }
}

/** Holds where no table does. */
const NO_RULES: ModuleRules = {
  name: '*',
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
}

export class Policy {
  readonly #hosts: HostRules
  readonly #tables: readonly Table[]

  /** @param onProblem is told why a secrets file can't be used. */
  constructor(config: PolicyConfig, onProblem: (problem: string) => void) {
    this.#hosts = new HostRules(config.hosts)
    const files = new Map<string, SecretsFile>()
    const secretsOf = ({ secretsFile: path }: ModuleRules): SecretsFile | undefined => {
      if (path === undefined) return undefined
      const file = files.get(path) ?? new SecretsFile(path, onProblem)
      files.set(path, file)
      return file
    }
    this.#tables = [...config.modules, NO_RULES].map((rules) => new Table(rules, secretsOf(rules)))
    // What is wrong with a file should be known when the server starts, not when the first user fails.
    for (const file of files.values()) file.refresh()
  }

  /** Begins to judge one client. */
  visitor(client: Identity): Visitor {
    const hidesNames = this.#tables.some(({ rules }) => rules.exclude.length > 0)
    return new Visitor(client, this.#hosts.admits(client.address), hidesNames, (module) => {
      return this.#tables.find((table) => table.isFor(module))!
    })
  }
}

/** One client, and what the rules say of it. */
export class Visitor {
  readonly #client: Identity
  readonly #admitted: boolean
  readonly #tableFor: (module: string) => Table
  /** Whether what the client said is good enough for a table: asked once for each. */
  readonly #proven = new Map<Table, boolean>()
  #proof: Proof | undefined

  /** Any table hides names. */
  readonly hidesNames: boolean

  constructor(client: Identity, admitted: boolean, hidesNames: boolean, tableFor: (module: string) => Table) {
    this.hidesNames = hidesNames
    this.#client = client
    this.#admitted = admitted
    this.#tableFor = tableFor
  }

  /** What the listing shows of a module to this client: nothing, or maybe with words of the operator's. */
  listing(module: string): { comment: string | undefined } | undefined {
    const { rules } = this.#tableFor(module)
    return rules.list && this.#mayKnock(module) ? { comment: rules.comment } : undefined
  }

  /** Whether the client may come from where it does. */
  mayKnock(modules: readonly string[]): boolean {
    return modules.every((module) => this.#mayKnock(module))
  }

  /** Whether the client has to prove who it is. */
  mustProve(modules: readonly string[]): boolean {
    return modules.some((module) => this.#tableFor(module).secrets !== undefined)
  }

  /**
   * Whether the proof is good for all of these. An unknown user, one who is not on the list, one who is
   * denied and one with another password take the same way through this, so they take the same time.
   */
  prove(modules: readonly string[], proof: Proof): boolean {
    const verdicts = modules.map((module) => satisfies(this.#tableFor(module), proof))
    const good = verdicts.every(Boolean)
    if (good) this.#proof = proof
    this.#proven.clear()
    return good
  }

  /** Whether the client may have a module that another one shows. */
  mayHave(module: string): boolean {
    const table = this.#tableFor(module)
    if (!this.#mayKnock(module)) return false
    let proven = this.#proven.get(table)
    if (proven === undefined) {
      proven = this.#proof ? satisfies(table, this.#proof) : table.secrets === undefined
      this.#proven.set(table, proven)
    }
    return proven
  }

  settings(modules: readonly string[]): VisitSettings {
    const rules = [...new Set(modules.map((module) => this.#tableFor(module).rules))]
    const timeouts = rules.flatMap(({ idleTimeoutMs }) => idleTimeoutMs ?? [])
    return {
      limits: rules.flatMap(({ name, maxConnections: most }) => (most === undefined ? [] : { name, most })),
      idleTimeoutMs: timeouts.length > 0 ? Math.min(...timeouts) : undefined,
      refuseOptions: rules.flatMap(({ refuseOptions }) => refuseOptions),
      hides: rules.filter(({ exclude }) => exclude.length > 0),
    }
  }

  #mayKnock(module: string): boolean {
    return this.#admitted && this.#tableFor(module).hosts.admits(this.#client.address)
  }
}

/** In place of a password that there is none of: what a client says is compared in any case. */
const NOBODYS_PASSWORD = randomBytes(16)

function satisfies({ rules, secrets }: Table, proof: Proof): boolean {
  if (!secrets) return true
  const password = secrets.passwordOf(proof.user)
  const proven = proof.provenBy(password ?? NOBODYS_PASSWORD)
  const listed = rules.authUsers.some(({ user, admitted }) => admitted && user === proof.user)
  return listed && proven && password !== undefined
}
