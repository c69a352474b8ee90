/**
 * `upserv doctor`: looks at everything that has to be right for devices to be served, and says what to type where
 * it is not. It changes nothing.
 */
import { accessSync, constants, readFileSync, statfsSync, statSync } from 'node:fs'
import { connect, createServer } from 'node:net'
import { dirname } from 'node:path'
import { fileURLToPath } from 'node:url'
import { type Dispatcher, request } from 'undici'
import { SecretsFile } from '../access/secrets.ts'
import type { Status } from '../build/operations.ts'
import { type Config, formatListen, type Listen } from '../config/config.ts'
import { connectControl, remoteOperations } from '../daemon/control.ts'
import { CommandError } from '../errors.ts'
import { readToken } from '../http/token.ts'
import { findProgram } from '../lib/find-program.ts'
import { formatDuration, formatSize } from '../lib/units.ts'
import { whereabouts } from '../source/create.ts'
import { makeDispatcher } from '../source/http-client.ts'
import { SOURCE_LIMITS } from '../source/limits.ts'
import type { SourceConfig } from '../source/source.ts'
import { showUrl } from '../source/url.ts'
import { StorePaths } from '../store/paths.ts'
import { paint, print } from './text.ts'

/** What was found at one place. */
export interface Finding {
  what: string
  verdict: 'good' | 'warning' | 'bad'
  says: string
  /** What to do about it; '' where there is nothing to do. */
  type: string
}

const PATIENCE_MS = 10_000
/** Clocks that differ by more than this make certificates and times of builds wrong. */
const MAX_SKEW_MS = 5 * 60_000
/** No clock is right that says an earlier time than this program was made. */
const EARLIEST = Date.UTC(2026, 0)
/** Room that a disk should have beyond the budget. */
const SPARE_BYTES = 512 * 2 ** 20

export async function doctorCommand(config: Config, { json }: { json?: boolean }): Promise<void> {
  const findings = await examine(config)
  print(json ? JSON.stringify(findings, null, 2) : findings.map(formatFinding).join('\n'))
  const bad = findings.filter(({ verdict }) => verdict === 'bad').length
  if (bad > 0) throw new CommandError(`${bad === 1 ? '1 thing is' : `${bad} things are`} wrong`)
}

export async function examine(config: Config): Promise<Finding[]> {
  const status = await runningStatus(config)
  const groups = await Promise.all([
    Promise.resolve(serverFindings(status)),
    ...config.rsync.listen.map((address) =>
      portFindings('rsync port', address, status !== undefined, greetsAsRsync),
    ),
    ...config.http.listen.map((address) =>
      portFindings('http port', address, status !== undefined, answersHttp),
    ),
    Promise.resolve(diskFindings(config, status)),
    clockAndSourceFindings(config.sources),
    Promise.resolve(keyFindings(config)),
    toolFindings(),
  ])
  return groups.flat()
}

function formatFinding({ what, verdict, says, type }: Finding): string {
  const mark = { good: paint('green', 'ok  '), warning: paint('yellow', 'look'), bad: paint('red', 'BAD ') }[
    verdict
  ]
  return `${mark}  ${what.padEnd(12)}  ${says}${type === '' ? '' : `\n      ${' '.repeat(12)}  ${paint('cyan', '->')} ${type}`}`
}

const good = (what: string, says: string): Finding => ({ what, verdict: 'good', says, type: '' })
const look = (what: string, says: string, type: string): Finding => ({ what, verdict: 'warning', says, type })
const bad = (what: string, says: string, type: string): Finding => ({ what, verdict: 'bad', says, type })
const messageOf = (error: unknown): string => {
  const { code, message } = Object(error) as NodeJS.ErrnoException
  return message || code || String(error)
}

// ---------------------------------------------------------------------------------------------------

async function runningStatus(config: Config): Promise<Status | undefined> {
  const { socket } = new StorePaths(config.dataDir)
  const connection = await connectControl(socket).catch(() => undefined)
  if (!connection) return undefined
  return await remoteOperations(async () => connection)
    .status()
    .catch(() => undefined)
}

function serverFindings(status: Status | undefined): Finding[] {
  if (!status)
    return [
      look('server', 'none runs on this data directory', 'systemctl start upserv.socket, or: upserv serve'),
    ]
  const { version, pid, uptimeSeconds, damaged } = status
  return [
    good('server', `version ${version}, process ${pid}, up ${formatDuration(uptimeSeconds * 1000)}`),
    ...(damaged.length > 0
      ? [bad('builds', `damaged: ${damaged.join(', ')}`, 'upserv verify --repair')]
      : []),
  ]
}

async function portFindings(
  what: string,
  { host, port }: Listen,
  running: boolean,
  answers: (host: string, port: number) => Promise<boolean>,
): Promise<Finding[]> {
  const where = formatListen({ host, port })
  if (port === 0)
    return [look(what, `${where}: any free port, another one at each start`, 'give it a number')]
  if (running) {
    const reach = host === '::' ? '::1' : host === '0.0.0.0' ? '127.0.0.1' : host
    if (await answers(reach, port)) return [good(what, `${where} answers`)]
    return [bad(what, `${where}: the server does not answer there`, `ss -ltnp 'sport = ${port}'`)]
  }
  const problem = await whyNotListen(host, port)
  if (!problem) return [good(what, `${where} is free`)]
  if (problem.code === 'EACCES')
    return [
      bad(
        what,
        `${where} is for privileged processes`,
        'use the systemd socket unit, or another port: --rsync :8873',
      ),
    ]
  if (problem.code === 'EADDRINUSE')
    return [bad(what, `${where} is taken by another program`, `ss -ltnp 'sport = ${port}'`)]
  return [bad(what, `${where}: ${messageOf(problem)}`, 'name an address of this machine: see `ip addr`')]
}

function whyNotListen(host: string, port: number): Promise<NodeJS.ErrnoException | undefined> {
  const server = createServer()
  return new Promise((resolve) => {
    server.once('error', resolve)
    server.listen(port, host, () => server.close(() => resolve(undefined)))
  })
}

/** Also what another daemon would say: but that could not have the port. */
function greetsAsRsync(host: string, port: number): Promise<boolean> {
  const socket = connect(port, host)
  return new Promise((resolve) => {
    socket.setTimeout(PATIENCE_MS, () => socket.destroy())
    socket.once('data', (data: Buffer) => {
      resolve(data.toString('latin1').startsWith('@RSYNCD:'))
      socket.end('\n')
    })
    socket.once('error', () => resolve(false))
    socket.once('close', () => resolve(false))
  })
}

async function answersHttp(host: string, port: number): Promise<boolean> {
  try {
    const { statusCode, body } = await request(`http://${formatListen({ host, port })}/healthz`, {
      signal: AbortSignal.timeout(PATIENCE_MS),
    })
    await body.dump()
    return statusCode === 200
  } catch {
    return false
  }
}

function diskFindings(config: Config, status: Status | undefined): Finding[] {
  const { dataDir, budget } = config
  const what = 'disk'
  let place = dataDir
  for (;;) {
    try {
      if (!statSync(place).isDirectory())
        return [bad(what, `${place} is no directory`, 'name another with data_dir')]
      break
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'ENOENT')
        return [bad(what, messageOf(error), 'name another with data_dir')]
      place = dirname(place)
    }
  }
  try {
    accessSync(place, constants.W_OK | constants.X_OK)
  } catch {
    return [
      bad(
        what,
        `${place} cannot be written by this user`,
        `run this as upserv's own user, or: chown -R upserv: ${dataDir}`,
      ),
    ]
  }
  const { bavail, bsize, ffree, files } = statfsSync(place)
  const free = bavail * bsize
  const used = status?.usedBytes ?? 0
  const needed = Math.max(0, budget - used)
  const room = `${formatSize(free)} are free, and ${formatSize(needed)} of the budget of ${formatSize(budget)} are not used yet`
  const findings: Finding[] = []
  if (free < needed)
    findings.push(
      look(
        what,
        `${dataDir}: ${room}`,
        'lower `budget`, or make room: builds are evicted earlier than they would have to be',
      ),
    )
  else if (free < needed + SPARE_BYTES)
    findings.push(look(what, `${dataDir}: ${room}: other programs have little left`, 'lower `budget`'))
  else findings.push(good(what, `${dataDir}: ${room}`))
  if (files > 0 && ffree < 10_000) findings.push(bad(what, `${ffree} inodes are left`, 'df -i'))
  if (status && status.usedBytes > status.budgetBytes) {
    findings.push(
      look(
        'budget',
        `${formatSize(status.usedBytes)} of ${formatSize(status.budgetBytes)} are used`,
        'upserv gc --dry-run --explain',
      ),
    )
  } else if (status) {
    findings.push(
      good(
        'budget',
        `${formatSize(status.usedBytes)} of ${formatSize(status.budgetBytes)} are used by ${status.builds} builds`,
      ),
    )
  }
  return findings
}

async function clockAndSourceFindings(sources: readonly SourceConfig[]): Promise<Finding[]> {
  const asked = await Promise.all(sources.map(askSource))
  const findings = asked.map(({ finding }) => finding)
  if (sources.length === 0)
    findings.push(
      look(
        'sources',
        'none is configured: only imported builds can be served',
        'add a [[source]] to upserv.toml',
      ),
    )
  const skews = asked.flatMap(({ skewMs }) => skewMs ?? [])
  const skew = skews.sort((a, b) => Math.abs(a) - Math.abs(b))[0]
  const now = new Date()
  if (now.getTime() < EARLIEST)
    findings.unshift(bad('clock', `it says ${now.toISOString()}`, 'timedatectl set-ntp true'))
  else if (skew !== undefined && Math.abs(skew) > MAX_SKEW_MS)
    findings.unshift(
      bad(
        'clock',
        `it differs from that of a source by ${formatDuration(Math.abs(skew))}`,
        'timedatectl set-ntp true',
      ),
    )
  else findings.unshift(good('clock', now.toISOString()))
  return findings
}

/** Asks for where the archives lie: any answer shows that there is somebody. */
async function askSource(config: SourceConfig): Promise<{ finding: Finding; skewMs?: number }> {
  const what = 'source'
  const { name } = config
  let at: URL
  let dispatcher: Dispatcher
  try {
    at = whereabouts(config)
    dispatcher = makeDispatcher(SOURCE_LIMITS, config.http ?? {})
  } catch (error) {
    return { finding: bad(what, `${name}: ${messageOf(error)}`, 'look at it in upserv.toml') }
  }
  if (at.protocol === 'file:') {
    const directory = fileURLToPath(at)
    try {
      accessSync(directory, constants.R_OK | constants.X_OK)
      return { finding: good(what, `${name}: ${directory} can be read`) }
    } catch (error) {
      return { finding: bad(what, `${name}: ${messageOf(error)}`, `ls -ld ${directory}; is it mounted?`) }
    }
  }
  try {
    const asked = Date.now()
    const { statusCode, headers, body } = await request(at, {
      method: 'HEAD',
      dispatcher,
      signal: AbortSignal.timeout(PATIENCE_MS),
    })
    await body.dump()
    const theirs = Date.parse(String(headers.date ?? ''))
    const skewMs = Number.isNaN(theirs) ? undefined : (asked + Date.now()) / 2 - theirs
    const finding =
      statusCode >= 500
        ? bad(what, `${name}: ${at.host} answers with ${statusCode}`, 'tell who runs it, or wait')
        : good(what, `${name}: ${at.host} answers`)
    return { finding, ...(skewMs === undefined ? {} : { skewMs }) }
  } catch (error) {
    return {
      finding: bad(what, `${name}: ${messageOf(Object(error).cause ?? error)}`, `curl -I ${showUrl(at)}`),
    }
  } finally {
    await dispatcher.close()
  }
}

function keyFindings(config: Config): Finding[] {
  const findings: Finding[] = []
  for (const path of new Set(config.access.modules.flatMap(({ secretsFile }) => secretsFile ?? []))) {
    const problems: string[] = []
    new SecretsFile(path, (problem) => problems.push(problem)).refresh()
    findings.push(
      problems.length > 0
        ? bad('secrets', problems[0]!, `chmod 600 ${path}; chown upserv: ${path}`)
        : good('secrets', `${path} can be used`),
    )
  }
  if (config.http.listen.length === 0) return findings
  const token = config.http.tokenFile ?? new StorePaths(config.dataDir).token
  try {
    readFileSync(token)
    readToken(token)
    findings.push(good('token', `${token} can be used`))
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException
    if (code === 'ENOENT' && config.http.tokenFile === undefined)
      findings.push(
        look('token', 'there is none yet', 'it is made when the server starts for the first time'),
      )
    else
      findings.push(
        bad('token', messageOf(error), `chmod 600 ${token}; it holds one line of 16 characters or more`),
      )
  }
  return findings
}

async function toolFindings(): Promise<Finding[]> {
  const tools = [
    { names: ['xz'], need: 'archives in xz and lzma', install: 'apt-get install xz-utils' },
    { names: ['lbzip2', 'bzip2'], need: 'archives in bzip2', install: 'apt-get install lbzip2' },
    { names: ['flock'], need: 'one server for each data directory', install: 'apt-get install util-linux' },
  ]
  return Promise.all(
    tools.map(async ({ names, need, install }) => {
      for (const name of names) if (await findProgram(name)) return good('tool', `${name}, for ${need}`)
      return look('tool', `${names.join(' or ')} is missing: it is needed for ${need}`, install)
    }),
  )
}
