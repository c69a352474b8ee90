/** What `upserv doctor` looks at, beside ports: a function for each thing, which returns what it found. */
import type { X509Certificate } from 'node:crypto'
import { accessSync, constants, existsSync, statfsSync, statSync } from 'node:fs'
import { dirname } from 'node:path'
import { Policy } from '../access/policy.ts'
import type { Status } from '../build/operations.ts'
import { type Config, DEFAULT_CONFIG_FILE, type Flags } from '../config/config.ts'
import { type CertificateFiles, readCredentials } from '../doorstep/certificates.ts'
import { ConfigError, type UpservError } from '../errors.ts'
import { readToken } from '../http/token.ts'
import { meansOfConfinement } from '../lib/confined.ts'
import { realDisk } from '../lib/disk.ts'
import { findProgram } from '../lib/find-program.ts'
import { type Finding, ok, problem, warning } from '../lib/finding.ts'
import { formatDuration, formatSize } from '../lib/units.ts'
import { createSource } from '../source/create.ts'
import { reachSource } from '../source/reach.ts'
import type { SourceConfig } from '../source/source.ts'
import { diskUsage } from '../store/disk-usage.ts'
import { StorePaths } from '../store/paths.ts'
import { VERSION } from '../version.ts'

/** The process that owns the data directory. */
export interface ServerState {
  readonly runs: boolean
  /** Undefined as well for one that does not answer. */
  readonly status?: Status
}

/** A server, a port or an upstream that has not answered by then is not well. */
export const PATIENCE_MS = 5000
/** Clocks that differ by more than this make certificates and times of builds wrong. */
const MAX_SKEW_MS = 5 * 60_000
/** No clock is right that says an earlier time than this program was written. */
const EARLIEST_MS = Date.UTC(2026, 0)
/** Whoever renews certificates does it earlier than that. */
const CERTIFICATE_ENDS_SOON_MS = 14 * 86_400_000
/** With less than this of the file system left, other programs on the machine are about to fail. */
const LITTLE_SPACE = 100e6
/** Room that a disk should have beyond the budget. */
const SPARE_SPACE = 500e6
const FEW_INODES = 10_000

/** What upserv starts, what for, and the Debian package that has it. One of each row is enough. */
const PROGRAMS = [
  { names: ['flock'], use: 'to own the data directory', debianPackage: 'util-linux', needed: true },
  { names: ['lbzip2', 'bzip2'], use: 'for archives in bzip2', debianPackage: 'lbzip2', needed: false },
  { names: ['xz'], use: 'for archives in xz or lzma', debianPackage: 'xz-utils', needed: false },
  { names: ['lz4'], use: 'for archives in lz4', debianPackage: 'lz4', needed: false },
  { names: ['lzip'], use: 'for archives in lzip', debianPackage: 'lzip', needed: false },
  {
    names: ['bsdtar'],
    use: 'for archives in zip and ISO 9660',
    debianPackage: 'libarchive-tools',
    needed: false,
  },
  { names: ['sqfs2tar'], use: 'for archives in squashfs', debianPackage: 'squashfs-tools-ng', needed: false },
  { names: ['gpgv'], use: 'for signatures by GPG', debianPackage: 'gpgv', needed: false },
] as const

export function checkConfiguration(config: Config, flags: Flags): Finding {
  const file = flags.config ?? process.env.UPSERV_CONFIG ?? DEFAULT_CONFIG_FILE
  const says = existsSync(file) ? `${file} is right` : `${file} does not exist: every key has its default`
  return ok('configuration', `${says}; data in ${config.dataDir}, at most ${formatSize(config.budget)}`)
}

/** The certificates that the server shows, and whom those of clients are from. */
export function checkCertificates({ tls, http, rsync }: Config): Finding[] {
  const { files } = tls
  const all = [...(files ? [files] : []), ...(http.tlsFiles ? [http.tlsFiles] : [])]
  const findings = all.map(checkCertificate)
  if (files && rsync.tlsListen.length + http.tlsListen.length === 0) {
    const hint = 'Remove rsync.tls_listen = [], or set http.tls_listen.'
    findings.push(warning('certificate', `${files.cert} is shown to nobody: no port speaks TLS`, hint))
  }
  return findings
}

function checkCertificate(files: CertificateFiles): Finding {
  const about = 'certificate'
  const { cert, key } = files
  let certificate: X509Certificate
  try {
    certificate = readCredentials(files).certificate
  } catch (error) {
    const { message, hint = `chown upserv ${key}; chmod 600 ${key}; openssl x509 -in ${cert} -noout -text` } =
      error as UpservError
    return problem(about, message, hint)
  }
  const { validFromDate: from, validToDate: to, subjectAltName } = certificate
  const day = (date: Date): string => date.toISOString().slice(0, 10)
  const renew = 'Renew it; the server takes another one by itself: upserv reload says whether it can.'
  if (to.getTime() < Date.now()) return problem(about, `${cert} expired on ${day(to)}`, renew)
  if (from.getTime() > Date.now()) return problem(about, `${cert} is not valid before ${day(from)}`, 'date')
  const left = to.getTime() - Date.now()
  if (left < CERTIFICATE_ENDS_SOON_MS) {
    return warning(about, `${cert} expires in ${formatDuration(left)}, on ${day(to)}`, renew)
  }
  if (subjectAltName === undefined) {
    const hint = 'Have one made with subjectAltName = DNS:NAME-THAT-CLIENTS-USE'
    return warning(about, `${cert} names no host, so clients refuse it`, hint)
  }
  return ok(about, `${cert} is for ${subjectAltName}, until ${day(to)}`)
}

export function checkSecrets({ access }: Config): Finding[] {
  const about = 'secrets'
  const problems: Finding[] = []
  new Policy(access, (says) => {
    problems.push(problem(about, says, 'chmod 600 and chown upserv: make it one that nobody else may read.'))
  })
  const files = new Set(access.modules.flatMap(({ secretsFile }) => secretsFile ?? []))
  return problems.length > 0 || files.size === 0
    ? problems
    : [ok(about, `${[...files].join(', ')} can be used`)]
}

/** The token that changes by HTTP take. */
export function checkToken({ dataDir, http }: Config): Finding[] {
  const about = 'token'
  if (http.listen.length + http.tlsListen.length === 0) return []
  const path = http.tokenFile ?? new StorePaths(dataDir).token
  if (http.tokenFile === undefined && !existsSync(path)) {
    return [ok(about, 'it is made when the server starts for the first time')]
  }
  try {
    readToken(path)
    return [ok(about, `${path} can be used`)]
  } catch (error) {
    const hint = `chmod 600 ${path}; it holds one line of 16 characters or more`
    return [problem(about, (error as Error).message, hint)]
  }
}

/** @param skewMs how much later than an upstream's our clock is, where one has said what its own is. */
export function checkClock(skewMs: number | undefined): Finding {
  const about = 'clock'
  const now = Date.now()
  // The files of a package are as old as its release.
  const made = Math.max(EARLIEST_MS, statSync(new URL(import.meta.url)).mtimeMs)
  const hint = 'Set it: timedatectl set-ntp true, or date -s "..."'
  const says = `it is ${new Date(now).toISOString().slice(0, 16).replace('T', ' ')} UTC`
  if (now < made) {
    return problem(about, `${says}, which was before this program was made: certificates are refused`, hint)
  }
  if (skewMs !== undefined && Math.abs(skewMs) > MAX_SKEW_MS) {
    const by = `${formatDuration(Math.abs(skewMs))} ${skewMs > 0 ? 'ahead of' : 'behind'}`
    return problem(about, `${says}, ${by} that of a source`, hint)
  }
  return ok(about, says)
}

export function checkData({ dataDir }: Config): Finding {
  const about = 'data directory'
  const place = existing(dataDir)
  try {
    if (!statSync(place).isDirectory()) {
      return problem(about, `${place} is no directory`, 'Name another with data_dir.')
    }
    accessSync(place, constants.R_OK | constants.W_OK | constants.X_OK)
    if (place === dataDir) return ok(about, `${dataDir} can be written`)
    if (onlyRootWrites(place)) {
      const says = `${dataDir} does not exist, and in ${place} root alone can make it`
      return warning(about, says, `For a server that is another user: ${makeOf(dataDir)}`)
    }
    return ok(about, `${dataDir} will be made`)
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException
    return problem(
      about,
      `user ${process.getuid?.()} may not write in ${place} (${code})`,
      code === 'EROFS'
        ? `Under systemd: systemctl edit upserv, with [Service] and ReadWritePaths=${dataDir}`
        : `As root: ${makeOf(dataDir)}`,
    )
  }
}

const makeOf = (dataDir: string): string => `install -d -o upserv -g upserv -m 750 ${dataDir}`

/** Root may write anywhere, which says nothing of the user that the server is: here nobody has said yet who that is. */
function onlyRootWrites(directory: string): boolean {
  const { uid, mode } = statSync(directory)
  return process.getuid?.() === 0 && uid === 0 && (mode & (constants.S_IWGRP | constants.S_IWOTH)) === 0
}

/** The nearest directory above that there is, or the path itself. */
function existing(path: string): string {
  return existsSync(path) || dirname(path) === path ? path : existing(dirname(path))
}

/** Free space, against what the budget may still take of it. */
export async function checkSpace({ dataDir, budget }: Config, { status }: ServerState): Promise<Finding[]> {
  const about = 'disk'
  const { bavail, bsize, ffree, files } = statfsSync(existing(dataDir))
  const free = bavail * bsize
  const used = status?.usedBytes ?? (await diskUsage(realDisk, dataDir).catch(() => undefined))
  const findings: Finding[] = []
  const unused = used === undefined ? undefined : Math.max(0, budget - used)
  const says = `${formatSize(free)} are free${
    unused === undefined
      ? ''
      : `, and ${formatSize(unused)} of the budget of ${formatSize(budget)} are not used yet`
  }`
  if (free < LITTLE_SPACE) {
    findings.push(problem(about, says, 'Free some, or lower budget in upserv.toml.'))
  } else if (unused !== undefined && free < unused + SPARE_SPACE) {
    const fits = Math.max(1, Math.floor((used! + free - SPARE_SPACE) / 1e9))
    findings.push(warning(about, says, `Make room, or in upserv.toml: budget = "${fits}GB", or less`))
  } else {
    findings.push(ok(about, says))
  }
  if (files > 0 && ffree < FEW_INODES) {
    findings.push(problem('inodes', `${ffree} are left`, `See what took them: df -i ${dataDir}`))
  }
  return findings
}

export function checkServer({ runs, status }: ServerState): Finding[] {
  const about = 'server'
  if (!runs) {
    const hint =
      'Start it: systemctl restart upserv.socket upserv, or upserv serve; if it fails: journalctl -eu upserv'
    return [warning(about, 'none runs on this data directory', hint)]
  }
  if (!status) {
    const says = `one runs, but has not answered for ${formatDuration(PATIENCE_MS)}`
    return [warning(about, says, 'It may still be opening its store: journalctl -eu upserv, then try again.')]
  }
  const { version, pid, uptimeSeconds, damaged, usedBytes, budgetBytes, builds } = status
  const findings = [
    version === VERSION
      ? ok(about, `version ${version}, pid ${pid}, up ${formatDuration(uptimeSeconds * 1000)}`)
      : warning(about, `version ${version} runs, ${VERSION} is installed`, 'upserv handover'),
  ]
  const budget = `${formatSize(usedBytes)} of ${formatSize(budgetBytes)} are used, by ${builds} builds`
  findings.push(
    usedBytes > budgetBytes
      ? warning('budget', budget, 'See what keeps it: upserv gc --dry-run --explain')
      : ok('budget', budget),
  )
  if (damaged.length > 0) {
    findings.push(problem('builds', `damaged: ${damaged.join(', ')}`, 'upserv verify --repair'))
  }
  return findings
}

/** @returns also how much later than theirs our clock is, by the one that is nearest to ours. */
export async function checkSources({
  sources,
}: Config): Promise<{ findings: Finding[]; skewMs: number | undefined }> {
  if (sources.length === 0) {
    const hint = 'Add a [[source]] to upserv.toml: `man upserv.toml` has examples'
    const none = warning('sources', 'none: only builds that are imported can be served', hint)
    return { findings: [none], skewMs: undefined }
  }
  const reached = await Promise.all(
    sources.map(async (source) => {
      const about = `source ${source.name}`
      const wrong = faultOf(source)
      if (wrong) {
        const {
          message,
          hint = 'Look at it in upserv.toml; the user upserv has to be able to read its files.',
        } = wrong
        return { finding: problem(about, message, hint), places: [] }
      }
      const places = await reachSource(source, AbortSignal.timeout(PATIENCE_MS))
      const answering = places.filter(({ failure }) => failure === undefined).map(({ place }) => place)
      const failed = places.filter(({ failure }) => failure !== undefined)
      const failures = failed.map(({ failure }) => failure).join('; ')
      const look = failed[0]?.look ?? ''
      const answer = `${answering.join(', ')} ${answering.length === 1 ? 'answers' : 'answer'}`
      const finding =
        failed.length === 0
          ? ok(about, answer)
          : answering.length > 0
            ? warning(about, `${failures}; ${answer}`, look)
            : problem(about, failures, look)
      return { finding, places }
    }),
  )
  const [skewMs] = reached
    .flatMap(({ places }) => places.flatMap(({ skewMs }) => skewMs ?? []))
    .sort((one, other) => Math.abs(one) - Math.abs(other))
  return { findings: reached.map(({ finding }) => finding), skewMs }
}

/** What keeps a source from being used at all, such as keys that can't be read. */
function faultOf(source: SourceConfig): ConfigError | undefined {
  try {
    createSource(source)
    return undefined
  } catch (error) {
    if (error instanceof ConfigError) return error
    throw error
  }
}

export async function checkPrograms(): Promise<Finding[]> {
  return Promise.all(
    PROGRAMS.map(async ({ names, use, debianPackage, needed }): Promise<Finding> => {
      const about = names[0]
      for (const name of names) {
        const path = await findProgram(name)
        if (path !== undefined) return ok(about, `${path}, ${use}`)
      }
      return (needed ? problem : warning)(
        about,
        `not installed; it is needed ${use}`,
        `apt-get install ${debianPackage}`,
      )
    }),
  )
}

/** What is kept from programs that read archives and signatures: see lib/confined.ts. */
export async function checkConfinement(): Promise<Finding> {
  const about = 'confinement'
  const { strength, bounded, refused } = await meansOfConfinement()
  if (strength.startsWith('sealed') && bounded)
    return ok(
      about,
      'programs that read archives have no network, and see nothing of this machine but the archive',
    )
  const missing = (await findProgram('bwrap')) === undefined
  const keeps = strength === 'no network' ? 'have no network, but may' : 'may use the network, and'
  return warning(
    about,
    strength.startsWith('sealed')
      ? `nothing bounds the memory of programs that read archives: ${refused[0]}`
      : `programs that read archives ${keeps} read and write what the server may: ${missing ? 'bwrap is not installed' : refused[0]}`,
    missing
      ? 'apt-get install bubblewrap'
      : 'Permit user namespaces: sysctl user.max_user_namespaces kernel.apparmor_restrict_unprivileged_userns',
  )
}
