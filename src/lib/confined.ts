/**
 * Programs that read what comes from elsewhere (archives, signatures), started so that a fault in one of them is
 * worth little to whoever made it show: no network, nothing to see but the system's own files and what it is to
 * read, nothing to write in but a directory of its own, no process to talk to, no privilege to gain, and bounds on
 * memory and on what it writes. Every program that outside bytes reach is started here, and no shell ever.
 *
 * Unprivileged, this takes user namespaces: bubblewrap (`bwrap`) makes a root of its own in one; without it,
 * util-linux's `unshare` at least takes the network away. Where the machine permits neither, programs run with
 * our own rights and the bounds alone, and `upserv doctor` says what is missing. What works is tried with a
 * program that does nothing, once in each thread; ADR 10 has what it costs.
 */
import { type ChildProcess, execFile, type StdioOptions, spawn } from 'node:child_process'
import { constants as fsConstants } from 'node:fs'
import { access, realpath } from 'node:fs/promises'
import { constants as osConstants } from 'node:os'
import { promisify } from 'node:util'
import { findProgram } from './find-program.ts'

/** What a program may touch. */
export interface Confinement {
  /** Files and directories that it reads, beside the system's. */
  readonly reads?: readonly string[]
  /** Where it may write: it starts there. Without one it may write nowhere. */
  readonly directory?: string | undefined
  /** The largest file that it may write there. */
  readonly maxFileBytes?: number
  /** The most memory that it may take; as much as there is unless told otherwise. */
  readonly maxMemoryBytes?: number
}

export interface ConfinedOptions extends Confinement {
  readonly env: NodeJS.ProcessEnv
  readonly stdio: StdioOptions
}

/** A program at work, in a process group of its own. */
export interface ConfinedProcess {
  readonly child: ChildProcess
  /** Its exit status, or the signal that ended it. Rejects when it could not be started. */
  readonly ended: Promise<number | NodeJS.Signals | null>
  /** Ends it at once, with all that it started. */
  kill(): void
}

/**
 * How much is kept from a program. `sealed` is all of the above; `sealed, without /proc` the same on a machine that
 * lets nobody mount one (as under our systemd unit); `no network` is that alone; `none` is only bounds.
 */
export type Strength = 'sealed' | 'sealed, without /proc' | 'no network' | 'none'

/** What can be done here, and why it is not more. */
export interface Means {
  readonly strength: Strength
  /** Whether memory and sizes of files can be bounded. */
  readonly bounded: boolean
  /** What stronger ways ended with, strongest first. */
  readonly refused: readonly string[]
}

/** Enough for every decompressor: xz takes 320 MiB, lbzip2 some 20 MB for each processor. */
export const DECOMPRESSOR_MEMORY = 4 * 2 ** 30
/** A probe does nothing; a machine on which it takes longer is not one to wait for. */
const PROBE_MS = 10_000
/** Exit statuses from here on stand for signals, as shells have it, and bwrap too. */
const SIGNAL_STATUS = 128
/** Of what a probe complains about. */
const MAX_REASON = 300

/** Programs, libraries, and the few files that they look at wherever they run. Nothing of ours, and no secrets. */
const SYSTEM_PATHS = [
  ...['/usr', '/bin', '/sbin', '/lib', '/lib32', '/lib64', '/libx32', '/opt', '/nix/store', '/gnu/store'],
  ...['/etc/alternatives', '/etc/ld.so.cache', '/etc/passwd', '/etc/group', '/etc/nsswitch.conf'],
  ...['/etc/localtime', '/sys/devices/system/cpu'],
]

const isolate = ['--unshare-user', '--unshare-net', '--unshare-ipc', '--unshare-pid', '--cap-drop', 'ALL']
/** By strength; `{}` is where what this program may touch goes. */
const BOXES: readonly { strength: Strength; command: readonly string[] }[] = [
  { strength: 'sealed', command: ['bwrap', ...isolate, '--proc', '/proc', '{}'] },
  { strength: 'sealed, without /proc', command: ['bwrap', ...isolate, '{}'] },
  { strength: 'no network', command: ['unshare', '--user', '--net', '--ipc', '--'] },
]

let means: Promise<Means> | undefined

/** Finds out what can be done here; the answer is kept. */
export function meansOfConfinement(): Promise<Means> {
  means ??= probe()
  return means
}

/**
 * Starts a program whose input nobody vouches for. No shell looks at `args`.
 * @throws an error with `code` ENOENT or EACCES when there is no such program.
 */
export async function spawnConfined(
  program: string,
  args: readonly string[],
  options: ConfinedOptions,
): Promise<ConfinedProcess> {
  const { env, stdio, ...confinement } = options
  await access(program, fsConstants.X_OK)
  const { strength, bounded } = await meansOfConfinement()
  // A program that is no part of the system is shown by itself, wherever it really lies.
  const reads = [...(confinement.reads ?? []), program, await realpath(program)]
  const box = boxFor(strength, { ...confinement, reads })
  const [file, ...rest] = [...(bounded ? limitsFor(confinement) : []), ...box, program, ...args]
  const child = spawn(file!, rest, { stdio, env, detached: true, cwd: confinement.directory ?? '/' })
  const ended = new Promise<number | NodeJS.Signals | null>((resolve, reject) => {
    child.once('error', reject)
    child.once('close', (code, signal) => resolve(signal ?? (box.length > 0 ? signalOf(code) : code)))
  })
  ended.catch(() => {}) // whoever asks hears of it
  return { child, ended, kill: () => killGroup(child) }
}

function boxFor(strength: Strength, { reads = [], directory }: Confinement): readonly string[] {
  const command = BOXES.find((box) => box.strength === strength)?.command ?? []
  const binds = [
    ...SYSTEM_PATHS.flatMap((path) => ['--ro-bind-try', path, path]),
    ...['--dev', '/dev', '--tmpfs', '/tmp'],
    ...reads.filter((path) => !isSystem(path)).flatMap((path) => ['--ro-bind', path, path]),
    ...(directory === undefined ? ['--chdir', '/'] : ['--bind', directory, directory, '--chdir', directory]),
    // What bwrap makes to hang the rest on is in memory: nobody writes there.
    ...['/', '/dev', '/tmp'].flatMap((path) => ['--remount-ro', path]),
    ...['--die-with-parent', '--'],
  ]
  return command.flatMap((word) => (word === '{}' ? binds : [word]))
}

function isSystem(path: string): boolean {
  return SYSTEM_PATHS.some((system) => path === system || path.startsWith(`${system}/`))
}

function limitsFor({ directory, maxFileBytes = 0, maxMemoryBytes }: Confinement): string[] {
  const largest = directory === undefined ? 0 : Math.min(maxFileBytes, Number.MAX_SAFE_INTEGER)
  const memory = maxMemoryBytes === undefined ? [] : [`--data=${maxMemoryBytes}`]
  return ['prlimit', '--core=0', `--fsize=${largest}`, ...memory]
}

/** bwrap says by its exit status which signal ended the program. */
function signalOf(code: number | null): number | NodeJS.Signals | null {
  const found = Object.entries(osConstants.signals).find(
    ([, number]) => code !== null && number === code - SIGNAL_STATUS,
  )
  return found ? (found[0] as NodeJS.Signals) : code
}

function killGroup(child: ChildProcess): void {
  if (child.pid === undefined || child.exitCode !== null || child.signalCode !== null) return
  try {
    process.kill(-child.pid, 'SIGKILL')
  } catch {
    // It has just ended.
  }
}

async function probe(): Promise<Means> {
  const nothing = await findProgram('true')
  if (nothing === undefined) return { strength: 'none', bounded: false, refused: ['no program "true"'] }
  const reads = [nothing, await realpath(nothing)]
  const limits = limitsFor({ maxMemoryBytes: DECOMPRESSOR_MEMORY })
  const refused: string[] = []
  const works = async (command: readonly string[]): Promise<boolean> => {
    try {
      const [file, ...rest] = [...command, nothing]
      await promisify(execFile)(file!, rest, {
        timeout: PROBE_MS,
        env: { PATH: process.env.PATH, LC_ALL: 'C' },
      })
      return true
    } catch (error) {
      const { stderr, message } = error as Error & { stderr?: string }
      refused.push((stderr?.trim() || message).slice(0, MAX_REASON))
      return false
    }
  }
  // Mostly all of it works: then one probe is all.
  for (const { strength } of BOXES) {
    const box = boxFor(strength, { reads })
    if (await works([...limits, ...box])) return { strength, bounded: true, refused }
  }
  for (const { strength } of BOXES) {
    if (await works(boxFor(strength, { reads }))) return { strength, bounded: false, refused }
  }
  return { strength: 'none', bounded: await works(limits), refused }
}
