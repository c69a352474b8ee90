/**
 * `upserv doctor`: looks at everything that a server needs and says of what is wrong what to type. It changes
 * nothing. One function for each thing that is looked at; each returns what it found.
 */
import { accessSync, constants, existsSync, statfsSync, statSync } from 'node:fs'
import { connect } from 'node:net'
import { dirname } from 'node:path'
import { Policy } from '../access/policy.ts'
import type { Status } from '../build/operations.ts'
import {
  type Config,
  DEFAULT_CONFIG_FILE,
  type Flags,
  formatListen,
  type Listen,
  parseListen,
} from '../config/config.ts'
import { connectControl, remoteOperations } from '../daemon/control.ts'
import { CommandError, UpservError } from '../errors.ts'
import { findProgram } from '../lib/find-program.ts'
import { formatSize } from '../lib/units.ts'
import { whyUnreachable } from '../source/reach.ts'
import { StorePaths } from '../store/paths.ts'
import { VERSION } from '../version.ts'
import { becomeOwner } from './owner.ts'

export interface Finding {
  readonly verdict: 'ok' | 'warning' | 'problem'
  /** What was looked at, in a word or two. */
  readonly about: string
  readonly says: string
  /** What to type, or to do. */
  readonly hint?: string
}

/** What upserv starts, what for, and the Debian package that has it. One of each row is enough. */
const PROGRAMS = [
  { names: ['flock'], use: 'to own the data directory', debianPackage: 'util-linux', needed: true },
  { names: ['lbzip2', 'bzip2'], use: 'for archives in bzip2', debianPackage: 'lbzip2', needed: false },
  { names: ['xz'], use: 'for archives in xz or lzma', debianPackage: 'xz-utils', needed: false },
] as const

/** A server or an upstream that has not answered by then is not well. */
const PATIENCE_MS = 5000
/** With less than this of the file system left, other programs on the machine are about to fail. */
const LITTLE_SPACE = 100e6

export interface DoctorOptions {
  json?: boolean
}

export async function doctorCommand(load: () => Config, flags: Flags, options: DoctorOptions): Promise<void> {
  const findings = await examine(load, flags)
  process.stdout.write(`${options.json ? JSON.stringify(findings, null, 2) : formatFindings(findings)}\n`)
  const problems = findings.filter(({ verdict }) => verdict === 'problem').length
  if (problems > 0)
    throw new CommandError(problems === 1 ? 'there is a problem' : `there are ${problems} problems`)
}

async function examine(load: () => Config, flags: Flags): Promise<Finding[]> {
  let config: Config
  try {
    config = load()
  } catch (error) {
    if (!(error instanceof UpservError)) throw error
    const hint = error.hint ?? 'Correct it: `man upserv.toml` describes every key.'
    return [{ verdict: 'problem', about: 'configuration', says: error.message, hint }]
  }
  // What the server's user may not read or write is what matters, not what root may.
  becomeOwner(config.dataDir)
  const status = await askServer(config)
  return [
    lookAtConfiguration(config, flags),
    ...lookAtSecrets(config),
    ...lookAtClock(),
    ...lookAtData(config),
    ...lookAtSpace(config, status),
    ...lookAtServer(status),
    ...(await lookAtPorts(config, status)),
    ...(await lookAtSources(config)),
    ...(await lookAtPrograms()),
  ]
}

export function formatFindings(findings: readonly Finding[]): string {
  const width = Math.max(...findings.map(({ about }) => about.length))
  return findings
    .flatMap(({ verdict, about, says, hint }) => [
      `${verdict.padEnd(7)}  ${about.padEnd(width)}  ${says}`,
      ...(hint === undefined ? [] : [`${' '.repeat(11 + width)}${hint}`]),
    ])
    .join('\n')
}

function lookAtConfiguration(config: Config, flags: Flags): Finding {
  const file = flags.config ?? process.env.UPSERV_CONFIG ?? DEFAULT_CONFIG_FILE
  const says = existsSync(file) ? `${file} is right` : `${file} does not exist: every key has its default`
  return {
    verdict: 'ok',
    about: 'configuration',
    says: `${says}; data in ${config.dataDir}, at most ${formatSize(config.budget)}`,
  }
}

function lookAtSecrets({ access }: Config): Finding[] {
  const findings: Finding[] = []
  new Policy(access, (problem) => {
    const hint = 'Nobody who needs a password gets in until that is mended.'
    findings.push({ verdict: 'problem', about: 'secrets', says: problem, hint })
  })
  return findings
}

function lookAtClock(): Finding[] {
  const about = 'clock'
  const now = new Date()
  // The files of a package are as old as its release.
  const made = statSync(new URL(import.meta.url)).mtime
  const says = `it is ${now.toISOString().slice(0, 16).replace('T', ' ')} UTC`
  return now < made
    ? [
        {
          verdict: 'problem',
          about,
          says: `${says}, which was before this program was made: certificates will be refused`,
          hint: 'Set it: timedatectl set-ntp true, or date -s "..."',
        },
      ]
    : [{ verdict: 'ok', about, says }]
}

function lookAtData({ dataDir }: Config): Finding[] {
  const about = 'data directory'
  const place = existsSync(dataDir) ? dataDir : dirname(dataDir)
  try {
    accessSync(place, constants.R_OK | constants.W_OK | constants.X_OK)
    return [
      {
        verdict: 'ok',
        about,
        says: place === dataDir ? `${dataDir} can be written` : `${dataDir} will be made`,
      },
    ]
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException
    const who = `user ${process.getuid?.()}`
    return [
      {
        verdict: 'problem',
        about,
        says: code === 'ENOENT' ? `${place} does not exist` : `${who} may not write in ${place} (${code})`,
        hint:
          code === 'EROFS'
            ? `Under systemd: systemctl edit upserv, with [Service] and ReadWritePaths=${dataDir}`
            : `As root: install -d -o upserv -g upserv -m 750 ${dataDir}`,
      },
    ]
  }
}

function lookAtSpace({ dataDir, budget }: Config, status: Status | undefined): Finding[] {
  const about = 'disk'
  const place = existsSync(dataDir) ? dataDir : dirname(dataDir)
  if (!existsSync(place)) return []
  const { bavail, bsize } = statfsSync(place)
  const free = bavail * bsize
  const room = free + (status?.usedBytes ?? 0)
  const says = `${formatSize(free)} are free`
  if (free < LITTLE_SPACE) {
    return [{ verdict: 'problem', about, says, hint: 'Free some, or lower budget in upserv.toml.' }]
  }
  // Without a server nobody has counted what builds take already.
  if (status && room < budget) {
    return [
      {
        verdict: 'warning',
        about,
        says: `${says}, so the budget of ${formatSize(budget)} can't be used up`,
        hint: `In upserv.toml: budget = "${Math.max(1, Math.floor(room / 1e9))}GB", or less`,
      },
    ]
  }
  return [{ verdict: 'ok', about, says }]
}

/** What the server that runs says of itself; undefined when there is none, or it does not answer. */
async function askServer({ dataDir }: Config): Promise<Status | undefined> {
  const socket = await connectControl(new StorePaths(dataDir).socket).catch(() => undefined)
  if (!socket) return undefined
  const late = setTimeout(() => socket.destroy(), PATIENCE_MS)
  try {
    return await remoteOperations(async () => socket).status()
  } catch {
    return undefined
  } finally {
    clearTimeout(late)
  }
}

function lookAtServer(status: Status | undefined): Finding[] {
  const about = 'server'
  if (!status) {
    const hint = 'Start it: systemctl restart upserv.socket upserv; if it fails: journalctl -eu upserv'
    return [{ verdict: 'warning', about, says: 'none runs at the moment', hint }]
  }
  const findings: Finding[] = []
  if (status.version !== VERSION) {
    findings.push({
      verdict: 'warning',
      about,
      says: `version ${status.version} runs, ${VERSION} is installed`,
      hint: 'systemctl restart upserv',
    })
  } else {
    findings.push({ verdict: 'ok', about, says: `version ${VERSION} runs, pid ${status.pid}` })
  }
  if (status.damaged.length > 0) {
    findings.push({
      verdict: 'problem',
      about: 'builds',
      says: `damaged: ${status.damaged.join(', ')}`,
      hint: 'upserv verify --repair',
    })
  }
  return findings
}

async function lookAtPorts({ rsync }: Config, status: Status | undefined): Promise<Finding[]> {
  const running = (status?.listening ?? []).flatMap((address) => parseListen(address) ?? [])
  // A server that xinetd's clients started has no port of its own.
  const wanted = running.length > 0 ? running : rsync.listen
  return Promise.all(wanted.map((listen) => lookAtPort(listen, running.length > 0)))
}

async function lookAtPort(listen: Listen, isOurs: boolean): Promise<Finding> {
  const about = `port ${listen.port}`
  const where = formatListen(listen)
  const who = `ss -ltnp 'sport = :${listen.port}'`
  const answer = await greetingOf(listen)
  if (answer === 'refused') {
    return {
      verdict: 'warning',
      about,
      says: `nobody listens on ${where}`,
      hint: 'systemctl enable --now upserv.socket',
    }
  }
  if (answer === 'silent' || !answer.startsWith('@RSYNCD: ')) {
    return { verdict: 'problem', about, says: `what listens on ${where} does not speak rsync`, hint: who }
  }
  if (isOurs) return { verdict: 'ok', about, says: `rsync clients are greeted on ${where}` }
  return {
    verdict: 'warning',
    about,
    says: `something that speaks rsync listens on ${where}, but no server owns the data directory`,
    hint: `See what it is: ${who}. Debian's own rsync daemon goes by: systemctl disable --now rsync`,
  }
}

function greetingOf({ host, port }: Listen): Promise<string> {
  const local = host === '::' ? '::1' : host === '0.0.0.0' ? '127.0.0.1' : host
  return new Promise((resolve) => {
    const socket = connect({ host: local, port })
    const settle = (answer: string): void => {
      clearTimeout(late)
      socket.destroy()
      resolve(answer)
    }
    const late = setTimeout(() => settle('silent'), PATIENCE_MS)
    socket.once('data', (bytes) => settle(bytes.toString('latin1')))
    socket.once('end', () => settle('silent'))
    socket.once('error', (error: NodeJS.ErrnoException) =>
      // A machine without IPv6 listens on [::] by way of IPv4.
      local === '::1'
        ? resolve(greetingOf({ host: '127.0.0.1', port }))
        : settle(error.code === 'ECONNREFUSED' ? 'refused' : 'silent'),
    )
  })
}

async function lookAtSources({ sources }: Config): Promise<Finding[]> {
  if (sources.length === 0) {
    return [
      {
        verdict: 'warning',
        about: 'sources',
        says: 'none: only builds that are imported can be served',
        hint: 'Add a [[source]] to upserv.toml: `man upserv.toml` has examples',
      },
    ]
  }
  return Promise.all(
    sources.map(async (source): Promise<Finding> => {
      const about = `source ${source.name}`
      const reason = await whyUnreachable(source, AbortSignal.timeout(PATIENCE_MS))
      return reason === undefined
        ? { verdict: 'ok', about, says: 'its upstream answers' }
        : { verdict: 'problem', about, says: reason, hint: 'Check the network, and the url of this source.' }
    }),
  )
}

async function lookAtPrograms(): Promise<Finding[]> {
  return Promise.all(
    PROGRAMS.map(async ({ names, use, debianPackage, needed }): Promise<Finding> => {
      const about = names[0]
      for (const name of names) {
        const path = await findProgram(name)
        if (path !== undefined) return { verdict: 'ok', about, says: `${path}, ${use}` }
      }
      return {
        verdict: needed ? 'problem' : 'warning',
        about,
        says: `not installed; it is needed ${use}`,
        hint: `apt-get install ${debianPackage}`,
      }
    }),
  )
}
