/**
 * A machine of its own that is thrown away: systemd as its first process, the host's system below a layer that
 * takes whatever is changed, and a network that has nothing but its loopback. So tests install packages for
 * real, and neither the host nor port 873 notices.
 */
import { type ChildProcess, spawn, spawnSync } from 'node:child_process'
import { mkdirSync, readdirSync, readFileSync } from 'node:fs'
import { join, resolve } from 'node:path'
import { findProgram } from '../../src/lib/find-program.ts'
import { type RunOptions, type RunResult, run } from './processes.ts'
import { isRoot } from './scratch.ts'

/** A machine boots in two seconds; this is for one that is shared with others. */
const BOOT_MS = 120_000
const LOOK_EVERY_MS = 50
/** Wherever it lies on the host, where a machine may have something else. */
const CHECKOUT = resolve(import.meta.dirname, '../..')

const NEEDED = ['systemd-nspawn', 'unshare', 'nsenter', 'mount']

/** Why there can be no machine here, or false. */
export async function whyNoMachine(): Promise<string | false> {
  if (!isRoot) return 'needs root: a machine of its own is mounts and namespaces'
  for (const name of NEEDED) {
    if ((await findProgram(name)) === undefined) return `needs ${name}: apt-get install systemd-container`
  }
  // An overlay over the root file system is what a container of the machine's owner may not have.
  const probe = spawnSync('unshare', [
    '--mount',
    '--pid',
    '--fork',
    'sh',
    '-c',
    `${LAYERS}; umount "$1/m"`,
    'sh',
    '/mnt',
  ])
  return probe.status === 0
    ? false
    : `needs an overlay over the root file system: ${probe.stderr.toString().trim()}`
}

/** Mounts a writable layer over the host's root at $1/m. The mount namespace is ours: nothing of it is left. */
const LAYERS = `set -e
mount -t tmpfs -o mode=755 upserv-test "$1"
mkdir "$1/u" "$1/w" "$1/m"
mount -t overlay -o "lowerdir=/,upperdir=$1/u,workdir=$1/w" overlay "$1/m"`

const BOOT = `${LAYERS}
# One machine, one id; and packages may start their services here.
rm -f "$1/m/etc/machine-id" "$1/m/usr/sbin/policy-rc.d"
tr -d - </proc/sys/kernel/random/uuid >"$1/m/etc/machine-id"
exec systemd-nspawn --quiet --directory="$1/m" --boot --private-network --register=no --keep-unit \\
  --machine=upserv-test --link-journal=no --console=pipe --bind="$2:/shared" --bind-ro="$3:/checkout" systemd.unit=basic.target`

export class Machine implements AsyncDisposable {
  readonly #process: ChildProcess
  /** Of its first process, as the host counts. */
  readonly #leader: number

  private constructor(process: ChildProcess, leader: number) {
    this.#process = process
    this.#leader = leader
  }

  /** @param scratch a directory of the host; `shared` in it is /shared of the machine, and our checkout /checkout. */
  static async boot(scratch: string): Promise<Machine> {
    for (const name of ['layers', 'shared']) mkdirSync(join(scratch, name), { recursive: true, mode: 0o755 })
    const process = spawn(
      'unshare',
      [
        '--mount',
        '--pid',
        '--fork',
        '--kill-child',
        'sh',
        '-c',
        BOOT,
        'sh',
        join(scratch, 'layers'),
        join(scratch, 'shared'),
        CHECKOUT,
      ],
      { stdio: ['ignore', 'pipe', 'pipe'] },
    )
    let said = ''
    process.stdout.on('data', (chunk) => {
      said += chunk
    })
    process.stderr.on('data', (chunk) => {
      said += chunk
    })
    const deadline = performance.now() + BOOT_MS
    for (;;) {
      const leader = firstProcessBelow(process.pid!)
      if (leader !== undefined) {
        const machine = new Machine(process, leader)
        const { stdout } = await machine.run('systemctl', ['is-active', 'basic.target'])
        if (stdout.trim() === 'active') return machine
      }
      if (process.exitCode !== null || performance.now() > deadline) {
        process.kill('SIGKILL')
        throw new Error(`the machine did not boot\n${said}`)
      }
      await new Promise((resolve) => setTimeout(resolve, LOOK_EVERY_MS))
    }
  }

  /** What runs a program inside: for who wants to start it otherwise than by `run`. */
  inside(program: string, args: readonly string[]): [string, string[]] {
    const target = [
      `--target=${this.#leader}`,
      '--mount',
      '--uts',
      '--ipc',
      '--net',
      '--pid',
      '--root',
      '--wd',
    ]
    return ['nsenter', [...target, '--', program, ...args]]
  }

  run(program: string, args: readonly string[] = [], options: RunOptions = {}): Promise<RunResult> {
    const env = {
      PATH: '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin',
      LC_ALL: 'C',
      HOME: '/root',
      DEBIAN_FRONTEND: 'noninteractive',
      ...options.env,
    }
    return run(...this.inside(program, args), { ...options, env })
  }

  /** As `run`, and it must end well. @returns what it printed. */
  async succeeds(program: string, args: readonly string[] = [], options: RunOptions = {}): Promise<string> {
    const { code, command, stdout, stderr } = await this.run(program, args, options)
    if (code !== 0) throw new Error(`${command}\nended with ${code}\n${stdout}${stderr}`)
    return stdout
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const ended = new Promise((resolve) => this.#process.once('exit', resolve))
    // The end of the first process of a namespace is that of all others in it.
    this.#process.kill('SIGKILL')
    try {
      process.kill(this.#leader, 'SIGKILL')
    } catch {
      // It has ended with the rest.
    }
    if (this.#process.exitCode === null && this.#process.signalCode === null) await ended
  }
}

/** systemd, as the child of systemd-nspawn, somewhere below a process. */
function firstProcessBelow(pid: number): number | undefined {
  const parents = new Map<number, { parent: number; name: string }>()
  for (const name of readdirSync('/proc').filter((name) => /^\d+$/.test(name))) {
    try {
      const [, comm, parent] = /^\d+ \((.*)\) \S (\d+)/.exec(readFileSync(`/proc/${name}/stat`, 'utf8'))!
      parents.set(Number(name), { parent: Number(parent), name: comm! })
    } catch {
      // It has ended.
    }
  }
  const isBelow = (each: number): boolean =>
    each === pid || (each > 1 && isBelow(parents.get(each)?.parent ?? 0))
  for (const [each, { parent, name }] of parents) {
    if (name === 'systemd' && parents.get(parent)?.name === 'systemd-nspawn' && isBelow(each)) return each
  }
  return undefined
}
