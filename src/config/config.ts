/**
 * The configuration: upserv.toml, environment and flags, checked and with every default filled in.
 * The rest of the program sees one frozen value.
 *
 * What is set last wins: default, file, environment, flag. A key that we don't know is refused with the
 * nearest one that we do: a misspelt budget must not mean the default.
 */
import { existsSync, readFileSync } from 'node:fs'
import { resolve } from 'node:path'
import { parse, TomlError } from 'smol-toml'
import { z } from 'zod'
import type { FetchLimits } from '../access/fetch-allowance.ts'
import type { PolicyConfig } from '../access/policy.ts'
import { BUILD_ID_RULE, isBuildId } from '../build/build-id.ts'
import type { CertificateFiles } from '../doorstep/certificates.ts'
import type { ClientCerts } from '../doorstep/doorstep.ts'
import { ConfigError, UsageError } from '../errors.ts'
import type { BandwidthLimits } from '../lib/bandwidth.ts'
import { nearest } from '../lib/nearest.ts'
import { USUAL_PREFIXES } from '../lib/peer.ts'
import { parseSize } from '../lib/units.ts'
import { AUTH_DIGESTS } from '../rsync/wire/auth.ts'
import { takesKey } from '../source/kinds.ts'
import { IMPORT_SOURCE, type SourceConfig, sourceFromUrl } from '../source/source.ts'
import {
  fetchRulesSchema,
  groupsSchema,
  moduleSchema,
  modulesSchema,
  networksSchema,
  toModuleRules,
  unknownGroup,
} from './modules.ts'

/** Where a packaged upserv looks when nobody says otherwise. */
export const DEFAULT_CONFIG_FILE = '/etc/upserv/upserv.toml'

/** Of the budget, for derived data: it pays for itself many times over in a fleet, and gives way to builds. */
const CACHE_SHARE = 1 / 8

/**
 * Builds that a stranger's address may have fetched in an hour. A fleet behind one address asks for a few in a
 * day; whoever counts ids up is stopped after a minute.
 */
const FETCHES_PER_SOURCE = 30
/**
 * Of the budget, what all strangers together may have fetched in an hour, and what one source of them may: the
 * whole store is not turned over in less, and not by one of them. However small the budget is, a few builds are
 * what the server is there for.
 */
const FETCHED_SHARE = { all: 1, perSource: 1 / 2 }
const FETCHED_AT_LEAST = { all: 8e9, perSource: 4e9 }

const DAY_MS = 86_400_000
/** A timer of Node's holds 2^31 - 1 ms, which is a little more, and is over at once where it is given more than that. */
const LONGEST_DEADLINE_S = 24 * 86_400

/** Host and port to listen on. */
export interface Listen {
  readonly host: string
  /** 0 for any free one. */
  readonly port: number
}

export interface Config {
  readonly dataDir: string
  /** The most bytes that the data directory may take. */
  readonly budget: number
  /** The most bytes of them that derived data takes. */
  readonly cache: number
  readonly rsync: {
    /** Empty: no listener of our own. */
    readonly listen: readonly Listen[]
    /** The same for rsync over TLS. */
    readonly tlsListen: readonly Listen[]
    readonly clientCerts: ClientCerts
    /** Text that every client sees first; '' for none. */
    readonly motd: string
    /** The charset of all names; undefined where nobody has said so. */
    readonly charset: 'utf-8' | undefined
    /** Transfers at a time; who comes later waits in line. */
    readonly maxConnections: number
    /** How many may wait in line. */
    readonly waitingLine: number
    /** Clients that have not asked completely yet. */
    readonly maxHandshakes: number
    /** Connections from one address, or from one /64 of IPv6; 0 for any number. */
    readonly maxPerSource: number
    /** The weakest digest by which passwords are proven. */
    readonly authDigestMin: (typeof AUTH_DIGESTS)[number]
    readonly handshakeTimeoutMs: number
    readonly idleTimeoutMs: number
  }
  readonly http: {
    readonly listen: readonly Listen[]
    /** The same for HTTPS. */
    readonly tlsListen: readonly Listen[]
    readonly clientCerts: ClientCerts
    /** In place of `tls.files`. */
    readonly tlsFiles: CertificateFiles | undefined
    /** Holds the token that changes take; undefined: one is made in the data directory. */
    readonly tokenFile: string | undefined
    /** That it may be called by, in small letters; none: any, except on a loopback address. */
    readonly names: readonly string[]
  }
  readonly tls: {
    /** Undefined: there is no TLS. */
    readonly files: CertificateFiles | undefined
    /** Devices by the names in their certificates; undefined: those names are theirs. */
    readonly devices: Readonly<Record<string, string>> | undefined
  }
  /** Addresses and networks of proxies that say which client they carry. */
  readonly proxyProtocolFrom: readonly string[]
  /** How long it is remembered which device got which build; 0 for not at all. */
  readonly historyMs: number
  /** Who may have which module, and how much of it at a time. */
  readonly access: PolicyConfig
  /** What one source, one network and all together may take beside what `rsync` says; 0 for any number. */
  readonly limits: {
    /** Connections from one network. */
    readonly perNetwork: number
    /** Handshakes under way from one network. */
    readonly handshakesPerNetwork: number
    /** Handshakes under way from one source. */
    readonly handshakesPerSource: number
    /** Connections by HTTP from one source. */
    readonly httpPerSource: number
    readonly rates: BandwidthLimits
  }
  /** What strangers may have fetched within an hour. */
  readonly fetchLimits: FetchLimits
  /** In the order in which they are tried. */
  readonly sources: readonly SourceConfig[]
  /** Ids of builds by the names of the channels that stand for them. */
  readonly channels: Readonly<Record<string, string>>
  /** Whether builds that channels name may be evicted like any other. */
  readonly evictChannels: boolean
  /** How long sessions may go on after SIGTERM. */
  readonly shutdownMs: number
  /** How long sessions may go on with a process that has handed over. */
  readonly handoverMs: number
  /** End by itself after so long without sessions, fetches and commands; 0 for never. */
  readonly exitWhenIdleMs: number
}

/** What flags can set; undefined where a flag was not given. */
export interface Flags {
  config?: string | undefined
  data?: string | undefined
  budget?: string | undefined
  rsync?: string | undefined
  rsyncTls?: string | undefined
  http?: string | undefined
  https?: string | undefined
  source?: string[] | undefined
  exitWhenIdle?: string | undefined
}

/** What is said of a value that is not even of the right kind. */
const NO_SIZE = 'a size is text such as "16GB", or a number of bytes'
const NO_ADDRESS = 'an address to listen on is text such as "127.0.0.1:8730"'

const size = z.union([z.string(), z.number().int().nonnegative()], NO_SIZE).transform((value, context) => {
  const bytes = typeof value === 'number' ? value : parseSize(value)
  if (bytes === undefined) {
    context.addIssue({ code: 'custom', message: `"${value}" is no size, such as "16GB" or "500 MiB"` })
    return z.NEVER
  }
  return bytes
})

const listen = z.string(NO_ADDRESS).transform((value, context) => {
  const parsed = parseListen(value)
  if (!parsed) {
    context.addIssue({
      code: 'custom',
      message: `"${value}" is no address to listen on, such as "127.0.0.1:8730" or "[::]:873"`,
    })
    return z.NEVER
  }
  return parsed
})

const listens = z.preprocess(
  (value) => (Array.isArray(value) ? value : [value]), // one alone needs no brackets
  z.array(listen),
)
const seconds = z.number().positive().max(86_400)
const count = z.number().int().nonnegative().max(100_000)

const minute = z.string().transform((value, context) => {
  const match = /^([01]?\d|2[0-4]):([0-5]\d)$/.exec(value)
  if (match && (match[1] !== '24' || match[2] === '00'))
    return (Number(match[1]) % 24) * 60 + Number(match[2])
  context.addIssue({ code: 'custom', message: `"${value}" is no time of day, such as "08:30"` })
  return z.NEVER
})
const bytesPerSecond = size.refine((bytes) => bytes > 0, 'a rate of nothing would never end')
/** One rate for all day, or rates for times of day. */
const rates = z.union(
  [
    bytesPerSecond.transform((rate) => [{ from: 0, to: 0, bytesPerSecond: rate }]),
    z.array(
      z
        .strictObject({ from: minute, to: minute, rate: bytesPerSecond })
        .transform(({ from, to, rate }) => ({ from, to, bytesPerSecond: rate })),
    ),
  ],
  'a rate is a size such as "500kB", or a list of { from = "08:00", to = "18:00", rate = "500kB" }',
)

const ownerId = z
  .number()
  .int()
  .min(0)
  .max(2 ** 32 - 2)

const sourceSchema = z.strictObject({
  name: z
    .string()
    .min(1)
    .refine(
      (name) => name !== IMPORT_SOURCE,
      `"${IMPORT_SOURCE}" is what builds come from that are brought by hand`,
    ),
  builds: z.string().min(1).default('^.+$'),
  url: z.union(
    [z.string().min(1), z.array(z.string().min(1)).min(1)],
    'a URL is text, several are a list of texts',
  ),
  checksum: z.string().min(1).optional(),
  contents: z.string().min(1).optional(),
  maps: z.record(z.string(), z.record(z.string(), z.string())).optional(),
  id: z.string().min(1).optional(),
  endpoint: z.string().min(1).optional(),
  region: z.string().min(1).optional(),
  credentials_file: z.string().min(1).optional(),
  platform: z.string().min(1).optional(),
  token_file: z.string().min(1).optional(),
  client_cert: z.string().min(1).optional(),
  client_key: z.string().min(1).optional(),
  ca: z.string().min(1).optional(),
  rate: rates.optional(),
  deadline: z.number().positive().max(LONGEST_DEADLINE_S).optional(),
  stall: seconds.optional(),
  attempts: z.int().positive().max(1000).optional(),
  pristine: z.boolean().optional(),
  subtree: z.string().min(1).optional(),
  exclude: z.array(z.string().min(1)).optional(),
  users: z.record(z.string(), ownerId).optional(),
  groups: z.record(z.string(), ownerId).optional(),
  mtimes: z.enum(['archive', 'content']).optional(),
  extract: z.union([z.string().min(1), z.array(z.string()).min(1)]).optional(),
  extract_timeout: seconds.optional(),
  signature: z.string().min(1).optional(),
  keys: z.array(z.string().min(1)).optional(),
  checksum_required: z.boolean().optional(),
  signature_required: z.boolean().optional(),
  list: z.string().min(1).optional(),
  names: z.string().min(1).optional(),
})

const absolutePath = z.string().startsWith('/', 'the path of a file is absolute')
const clientCerts = z.enum(['off', 'optional', 'required'] satisfies ClientCerts[]).optional()

const tlsSchema = z.strictObject({
  cert: absolutePath.optional(),
  key: absolutePath.optional(),
  client_ca: absolutePath.optional(),
  devices: z.record(z.string(), z.string().min(1).max(255)).optional(),
})

const rsyncSchema = z.strictObject({
  listen: listens.default([{ host: '::', port: 873 }]),
  tls_listen: listens.optional(),
  client_certs: clientCerts,
  motd: z.string().default(''),
  charset: z.enum(['', 'utf-8']).default(''),
  max_connections: count.positive().default(200),
  waiting_line: count.default(1000),
  max_handshakes: count.positive().default(4000),
  max_per_source: count.default(0),
  auth_digest_min: z.enum(AUTH_DIGESTS).default('md4'),
  hosts_allow: networksSchema.default([]),
  hosts_deny: networksSchema.default([]),
  handshake_timeout: seconds.default(60),
  idle_timeout: seconds.default(1800),
})

const rate = bytesPerSecond.optional()
const ipv6Bits = z.number().int().min(16).max(128)

const limitsSchema = z.strictObject({
  rate,
  rate_per_network: rate,
  rate_per_source: rate,
  rate_per_session: rate,
  per_network: count.default(0),
  handshakes_per_network: count.default(0),
  handshakes_per_source: count.default(0),
  waiting_per_network: count.default(0),
  waiting_per_source: count.default(0),
  waiting_per_user: count.default(0),
  transfers_per_source: count.default(0),
  transfers_per_user: count.default(0),
  http_per_source: count.default(500),
  ipv4_network: z.number().int().min(8).max(32).default(USUAL_PREFIXES.ipv4Network),
  ipv6_source: ipv6Bits.default(USUAL_PREFIXES.ipv6Source),
  ipv6_network: ipv6Bits.default(USUAL_PREFIXES.ipv6Network),
})

const fetchSchema = z.strictObject({
  allow: fetchRulesSchema.optional(),
  per_source: count.default(FETCHES_PER_SOURCE),
  bytes_per_source: size.optional(),
  bytes: size.optional(),
})

const httpSchema = z.strictObject({
  listen: listens.default([{ host: '127.0.0.1', port: 8730 }]),
  tls_listen: listens.default([]),
  client_certs: clientCerts,
  tls_cert: absolutePath.optional(),
  tls_key: absolutePath.optional(),
  token_file: absolutePath.optional(),
  names: z
    .array(z.string().regex(/^[A-Za-z0-9_.-]+$/, 'a name of a host has no port and no pattern'))
    .default([]),
})

const historySchema = z.strictObject({ days: z.number().nonnegative().max(3650).default(90) })

const channelsSchema = z.record(z.string(), z.unknown()).transform((table, context) => {
  const channels: Record<string, string> = {}
  for (const [name, id] of Object.entries(table)) {
    const problem = !isBuildId(name)
      ? `"${name}" is no name for a channel`
      : typeof id !== 'string'
        ? 'the id of a build is text such as "802"'
        : isBuildId(id)
          ? undefined
          : `"${id}" is no build id`
    if (problem === undefined) channels[name] = id as string
    else context.addIssue({ code: 'custom', path: [name], message: `${problem}. ${BUILD_ID_RULE}` })
  }
  return channels
})

/** Every key of upserv.toml, with its default. docs/configuration.md describes the same keys. */
const fileSchema = z.strictObject({
  data_dir: z.string().min(1).default('/var/lib/upserv'),
  budget: size.default(16e9),
  cache: size.optional(),
  shutdown_timeout: seconds.default(30),
  handover_timeout: seconds.default(86_400),
  proxy_protocol_from: networksSchema.default([]),
  rsync: rsyncSchema.prefault({}),
  tls: tlsSchema.prefault({}),
  http: httpSchema.prefault({}),
  history: historySchema.prefault({}),
  channels: channelsSchema.default({}),
  evict_channels: z.boolean().default(false),
  source: z.array(sourceSchema).default([]),
  module: modulesSchema.default([]),
  groups: groupsSchema.default({}),
  limits: limitsSchema.prefault({}),
  fetch: fetchSchema.prefault({}),
})

/** Tables of the file, by name. */
const SECTIONS: Record<string, z.ZodObject> = {
  rsync: rsyncSchema,
  tls: tlsSchema,
  http: httpSchema,
  history: historySchema,
  source: sourceSchema,
  module: moduleSchema,
  limits: limitsSchema,
  fetch: fetchSchema,
}

type FileInput = z.output<typeof fileSchema>

/** @throws ConfigError that names the key and, where there is one, the nearest right one; UsageError of a flag. */
export function loadConfig(flags: Flags, environment: NodeJS.ProcessEnv): Config {
  const file = configFileOf(flags, environment)
  const fromFile = file === undefined ? fileSchema.parse({}) : readConfigFile(file)
  const budget = flags.budget === undefined ? fromFile.budget : flagSize('--budget', flags.budget)
  const extract = environment.EXTRACT_BUILD || undefined
  const sources = [
    ...(flags.source ?? []).map((url) => ({
      ...sourceFromUrl(url),
      ...(extract === undefined || !takesKey(url, 'extract') ? {} : { extract: [extract] }),
    })),
    ...fromFile.source.map((source) => toSourceConfig(source, extract)),
  ]
  const { files, httpFiles } = tlsFiles(fromFile)
  const rsyncTls = fromFile.rsync.tls_listen ?? (files ? [DEFAULT_TLS_LISTEN] : [])
  const named = uniqueNames(sources)
  checkNames(fromFile, named)
  const { limits, fetch } = fromFile
  const config: Config = {
    dataDir: resolve(flags.data ?? environment.UPSERV_DIR ?? fromFile.data_dir),
    budget,
    cache: Math.min(budget, fromFile.cache ?? budget * CACHE_SHARE),
    rsync: {
      listen: flags.rsync === undefined ? fromFile.rsync.listen : flagListen('--rsync', flags.rsync),
      tlsListen: flags.rsyncTls === undefined ? rsyncTls : flagListen('--rsync-tls', flags.rsyncTls),
      clientCerts: fromFile.rsync.client_certs ?? (files?.clientCa === undefined ? 'off' : 'optional'),
      motd: fromFile.rsync.motd,
      charset: fromFile.rsync.charset || undefined,
      maxConnections: fromFile.rsync.max_connections,
      waitingLine: fromFile.rsync.waiting_line,
      maxHandshakes: fromFile.rsync.max_handshakes,
      maxPerSource: fromFile.rsync.max_per_source,
      authDigestMin: fromFile.rsync.auth_digest_min,
      handshakeTimeoutMs: fromFile.rsync.handshake_timeout * 1000,
      idleTimeoutMs: fromFile.rsync.idle_timeout * 1000,
    },
    http: {
      listen: flags.http === undefined ? fromFile.http.listen : flagListen('--http', flags.http),
      tlsListen: flags.https === undefined ? fromFile.http.tls_listen : flagListen('--https', flags.https),
      clientCerts: fromFile.http.client_certs ?? 'off', // a browser would ask everybody for one
      tlsFiles: httpFiles,
      tokenFile: fromFile.http.token_file,
      names: fromFile.http.names.map((name) => name.toLowerCase()),
    },
    tls: { files, devices: fromFile.tls.devices },
    proxyProtocolFrom: fromFile.proxy_protocol_from,
    historyMs: fromFile.history.days * DAY_MS,
    access: {
      hosts: { allow: fromFile.rsync.hosts_allow, deny: fromFile.rsync.hosts_deny },
      modules: fromFile.module.map(toModuleRules),
      groups: fromFile.groups,
      ...(fetch.allow === undefined ? {} : { fetchAllow: fetch.allow }),
      limits: {
        transfersPerSource: limits.transfers_per_source,
        transfersPerUser: limits.transfers_per_user,
        waitingPerSource: limits.waiting_per_source,
        waitingPerNetwork: limits.waiting_per_network,
        waitingPerUser: limits.waiting_per_user,
        prefixes: {
          ipv4Network: limits.ipv4_network,
          ipv6Source: limits.ipv6_source,
          ipv6Network: limits.ipv6_network,
        },
      },
    },
    limits: {
      perNetwork: limits.per_network,
      handshakesPerNetwork: limits.handshakes_per_network,
      handshakesPerSource: limits.handshakes_per_source,
      httpPerSource: limits.http_per_source,
      rates: {
        all: limits.rate,
        perNetwork: limits.rate_per_network,
        perSource: limits.rate_per_source,
        perSession: limits.rate_per_session,
      },
    },
    fetchLimits: {
      perSource: fetch.per_source,
      bytesPerSource: fetch.bytes_per_source ?? fetchedOf(budget, 'perSource'),
      bytes: fetch.bytes ?? fetchedOf(budget, 'all'),
    },
    sources: named,
    channels: fromFile.channels,
    evictChannels: fromFile.evict_channels,
    shutdownMs: fromFile.shutdown_timeout * 1000,
    handoverMs: fromFile.handover_timeout * 1000,
    exitWhenIdleMs:
      flags.exitWhenIdle === undefined ? 0 : flagSeconds('--exit-when-idle', flags.exitWhenIdle) * 1000,
  }
  checkTls(config)
  return deepFreeze(config)
}

/** What stock `rsync-ssl` connects to. */
const DEFAULT_TLS_LISTEN: Listen = { host: '::', port: 874 }

/** The pairs of files that the keys name. @throws ConfigError for half a pair. */
function tlsFiles({ tls, http }: FileInput): {
  files: CertificateFiles | undefined
  httpFiles: CertificateFiles | undefined
} {
  const pair = (table: string, cert: string | undefined, key: string | undefined) => {
    if (cert !== undefined && key !== undefined) return { cert, key, clientCa: tls.client_ca }
    if (cert === undefined && key === undefined) return undefined
    throw new ConfigError(`${table}cert and ${table}key go together: one of them is missing`)
  }
  return { files: pair('tls.', tls.cert, tls.key), httpFiles: pair('http.tls_', http.tls_cert, http.tls_key) }
}

/** @throws ConfigError for what would leave clients without what the configuration promises. */
function checkTls({ rsync, http, tls }: Config): void {
  const listeners = [
    { table: 'rsync', ...rsync, files: tls.files },
    { table: 'http', ...http, files: http.tlsFiles ?? tls.files },
  ]
  for (const { table, tlsListen, clientCerts, files } of listeners) {
    if (tlsListen.length > 0 && !files) {
      throw new ConfigError(`${table}.tls_listen: there is no certificate to show`, {
        hint: 'Name one, and its key: tls.cert and tls.key.',
      })
    }
    if (clientCerts !== 'off' && files?.clientCa === undefined) {
      throw new ConfigError(`${table}.client_certs is "${clientCerts}", but no certificate could be right`, {
        hint: 'Name the authorities that clients have theirs from: tls.client_ca, beside tls.cert and tls.key.',
      })
    }
  }
}

/** "HOST:PORT", "[::1]:873", ":873" (every address); undefined when it is none of these. */
export function parseListen(text: string): Listen | undefined {
  const match = /^(?:\[([0-9A-Fa-f:.%]+)\]|([^\s:[\]]*)):(\d{1,5})$/.exec(text.trim())
  if (!match) return undefined
  const port = Number(match[3])
  return port > 65535 ? undefined : { host: match[1] ?? (match[2] || '::'), port }
}

/** As people write it: brackets around IPv6. */
export function formatListen({ host, port }: Listen): string {
  return host.includes(':') ? `[${host}]:${port}` : `${host}:${port}`
}

/**
 * Where the data directory is, by a configuration that may be wrong in all else: whoever talks to a server that runs
 * has to find it. Of a file that is no TOML it is what stands before the fault.
 * @throws ConfigError for a file that can't be read.
 */
export function dataDirOf(flags: Flags, environment: NodeJS.ProcessEnv): string {
  const said = flags.data ?? environment.UPSERV_DIR
  if (said !== undefined) return resolve(said)
  const file = configFileOf(flags, environment)
  const { data_dir: dataDir } = soundPart(file === undefined ? '' : readText(file))
  return resolve(typeof dataDir === 'string' ? dataDir : fileSchema.parse({}).data_dir)
}

/** What stands before the first line that is no TOML. */
function soundPart(text: string): Readonly<Record<string, unknown>> {
  for (let lines = text.split('\n'); ; ) {
    try {
      return parse(lines.join('\n'))
    } catch (error) {
      if (!(error instanceof TomlError)) throw error
      // What is not closed was opened on an earlier line than the one that it fails at.
      lines = lines.slice(0, Math.min(error.line, lines.length) - 1)
    }
  }
}

function configFileOf(flags: Flags, environment: NodeJS.ProcessEnv): string | undefined {
  const chosen = flags.config ?? environment.UPSERV_CONFIG
  return chosen ?? (existsSync(DEFAULT_CONFIG_FILE) ? DEFAULT_CONFIG_FILE : undefined)
}

function readText(file: string): string {
  try {
    return readFileSync(file, 'utf8')
  } catch (cause) {
    throw new ConfigError(`the configuration file ${file} cannot be read: ${(cause as Error).message}`, {
      cause,
      hint: 'Name another with --config or UPSERV_CONFIG.',
    })
  }
}

function readConfigFile(file: string): FileInput {
  const text = readText(file)
  let table: unknown
  try {
    table = parse(text)
  } catch (cause) {
    if (!(cause instanceof TomlError)) throw cause
    throw new ConfigError(`${file}:${cause.line}:${cause.column}: ${cause.message.split('\n')[0]}`, { cause })
  }
  const parsed = fileSchema.safeParse(table)
  if (parsed.success) return parsed.data
  throw new ConfigError(`${file}: ${describeIssue(parsed.error.issues[0]!)}`)
}

function describeIssue(issue: z.core.$ZodIssue): string {
  const path = issue.path
    .map((part) => (typeof part === 'number' ? `[${part}]` : String(part)))
    .join('.')
    .replaceAll('.[', '[')
  if (issue.code === 'unrecognized_keys') {
    const key = issue.keys[0]!
    const known = nearest(key, knownKeys(issue.path))
    return `unknown key "${path ? `${path}.` : ''}${key}"${known ? `; did you mean "${known}"?` : ''}`
  }
  return path ? `${path}: ${issue.message}` : issue.message
}

/** The keys that are known at a place of the file. */
function knownKeys(path: readonly PropertyKey[]): string[] {
  return Object.keys((SECTIONS[String(path[0] ?? '')] ?? fileSchema).shape)
}

/** Every key, as a person writes it: "budget", "rsync.listen", "source.url". */
export function configKeys(): string[] {
  return [
    ...Object.keys(fileSchema.shape).filter((key) => !(key in SECTIONS)),
    ...Object.entries(SECTIONS).flatMap(([section, schema]) =>
      Object.keys(schema.shape).map((key) => `${section}.${key}`),
    ),
  ]
}

/** @param extract the program that all sources of archives without one of their own use: `EXTRACT_BUILD` names it. */
function toSourceConfig(source: z.output<typeof sourceSchema>, extract: string | undefined): SourceConfig {
  const [url = '', ...mirrors] = [source.url].flat()
  const { name, builds, checksum, contents, maps, id, list, names, signature, keys } = source
  const { pristine, subtree, exclude, users, groups } = source
  const command = source.extract ?? (takesKey(url, 'extract') ? extract : undefined)
  return {
    ...{ name, builds, url, mirrors, checksum, contents, maps, id, list, names, signature, keys },
    checksumRequired: source.checksum_required,
    signatureRequired: source.signature_required,
    http: {
      tokenFile: source.token_file,
      clientCert: source.client_cert,
      clientKey: source.client_key,
      ca: source.ca,
    },
    rates: source.rate,
    platform: source.platform,
    s3: { endpoint: source.endpoint, region: source.region, credentialsFile: source.credentials_file },
    deadlineMs: source.deadline === undefined ? undefined : source.deadline * 1000,
    stallMs: source.stall === undefined ? undefined : source.stall * 1000,
    attempts: source.attempts,
    tree: { pristine, subtree, exclude, users, groups, contentMtimes: source.mtimes === 'content' },
    extract: command === undefined ? undefined : [command].flat(),
    extractTimeoutMs: source.extract_timeout === undefined ? undefined : source.extract_timeout * 1000,
  }
}

function fetchedOf(budget: number, whose: 'all' | 'perSource'): number {
  return Math.max(budget * FETCHED_SHARE[whose], FETCHED_AT_LEAST[whose])
}

/** Groups and sources that rules name must be there. @throws ConfigError */
function checkNames({ groups, fetch, module: modules }: FileInput, sources: readonly SourceConfig[]): void {
  const places = Object.fromEntries(
    modules.flatMap(({ auth_users, fetch_allow }, i) => [
      [`module[${i}].auth_users`, auth_users],
      [`module[${i}].fetch_allow`, fetch_allow],
    ]),
  )
  const unknown = unknownGroup(groups, { 'fetch.allow': fetch.allow, ...places })
  if (unknown) {
    const near = nearest(unknown.group, Object.keys(groups))
    throw new ConfigError(
      `${unknown.place}: there is no group "@${unknown.group}"${near ? `; did you mean "@${near}"?` : ''}`,
      {
        hint: 'Groups stand in [groups]: staff = ["alice", "bob"].',
      },
    )
  }
  const names = sources.map(({ name }) => name)
  for (const [i, { source }] of modules.entries()) {
    if (source === undefined || names.includes(source)) continue
    const near = nearest(source, names)
    throw new ConfigError(
      `module[${i}].source: there is no source "${source}"${near ? `; did you mean "${near}"?` : ''}`,
    )
  }
}

/** Messages and logs name sources, so two of one name get numbers. */
function uniqueNames(sources: SourceConfig[]): SourceConfig[] {
  const seen = new Map([[IMPORT_SOURCE, 1]])
  return sources.map((source) => {
    const count = (seen.get(source.name) ?? 0) + 1
    seen.set(source.name, count)
    return count === 1 ? source : { ...source, name: `${source.name}-${count}` }
  })
}

function flagSize(flag: string, value: string): number {
  const bytes = parseSize(value)
  if (bytes === undefined) throw new UsageError(`${flag}: "${value}" is no size, such as 16GB or 500MiB`)
  return bytes
}

function flagListen(flag: string, value: string): Listen[] {
  if (value === 'off') return []
  const parsed = parseListen(value)
  if (!parsed)
    throw new UsageError(`${flag}: "${value}" is no address to listen on, such as 127.0.0.1:8730, or off`)
  return [parsed]
}

function flagSeconds(flag: string, value: string): number {
  const number = Number(value)
  if (!(number > 0 && number <= 86_400)) throw new UsageError(`${flag}: "${value}" is no number of seconds`)
  return number
}

function deepFreeze<T>(value: T): T {
  if (typeof value === 'object' && value !== null && !Object.isFrozen(value)) {
    Object.freeze(value)
    for (const inner of Object.values(value)) deepFreeze(inner)
  }
  return value
}
