/**
 * What a server costs: CPU time and memory of its process and of all that it starts.
 *
 * CPU is that of a control group (version 2, also where it is mounted beside version 1) into which the
 * process is moved: exact to the microsecond, and processes that have ended are counted. Without one it is
 * the sum of /proc/PID/stat over the tree, with what each has inherited from children that it waited for:
 * ticks of 10 ms.
 *
 * Memory is PSS, in which pages that forked processes share count once.
 */
import { existsSync, mkdirSync, readFileSync, rmdirSync, writeFileSync } from 'node:fs'
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'

/** CPU seconds. `total` is exact; the split is what the kernel estimates. */
export interface Cpu {
  total: number
  user: number
  system: number
}

/** The most that was seen at one time. Bytes. */
export interface Peak {
  pss: number
  rss: number
  processes: number
}

/** Linux's USER_HZ, which is 100 on every architecture that Node runs on. */
const TICKS_PER_SECOND = 100

/** A server is quiet when it takes less than this part of one core over `QUIET_MS`. */
const QUIET_SHARE = 0.01
const QUIET_MS = 300

/** What a server does after its last client is gone is its cost too, but not for ever. */
const SETTLE_MS = 180_000

/** Reading smaps_rollup of 50 processes takes the kernel some 10 ms, on a core that clients need. */
export const SAMPLE_MS = 500

/** How long the kernel is given to be done with processes that were killed: two seconds. */
const REMOVE_TRIES = 100
const REMOVE_MS = 20

let groups = 0

export class Meter {
  readonly pid: number
  /** The control group's directory; undefined where there are none. */
  readonly #group: string | undefined

  /** CPU seconds that the process had used when the meter was put on it, in ticks. */
  readonly #earlier: number

  constructor(pid: number) {
    this.pid = pid
    this.#earlier = procCpu([pid]).total
    this.#group = makeGroup(pid)
  }

  get method(): 'cgroup' | 'proc' {
    return this.#group === undefined ? 'proc' : 'cgroup'
  }

  /** All processes of the server. */
  pids(): number[] {
    if (this.#group === undefined) return processTree(this.pid)
    return readFileSync(join(this.#group, 'cgroup.procs'), 'utf8').split('\n').filter(Boolean).map(Number)
  }

  /** What was used since the meter was made (or, without control groups, since the process started). */
  cpu(): Cpu {
    if (this.#group !== undefined) return parseCpuStat(readFileSync(join(this.#group, 'cpu.stat'), 'utf8'))
    return procCpu(this.pids())
  }

  /** CPU seconds since the process started. */
  sinceStart(): number {
    return this.cpu().total + (this.#group === undefined ? 0 : this.#earlier)
  }

  /** PSS and RSS of all processes now. */
  async memory(): Promise<Peak> {
    const pids = this.pids()
    const texts = await Promise.all(
      pids.map((pid) => readFile(`/proc/${pid}/smaps_rollup`, 'utf8').catch(() => '')),
    )
    const sum = { pss: 0, rss: 0, processes: pids.length }
    for (const text of texts) {
      const { pss, rss } = parseSmapsRollup(text)
      sum.pss += pss
      sum.rss += rss
    }
    return sum
  }

  /** Waits until the server does nothing any more: what it put off until its clients were gone is done. */
  async settle(quietShare = QUIET_SHARE): Promise<void> {
    const deadline = performance.now() + SETTLE_MS
    for (let before = this.cpu().total; performance.now() < deadline; ) {
      await sleep(QUIET_MS)
      const now = this.cpu().total
      if (now - before < (quietShare * QUIET_MS) / 1000) return
      before = now
    }
  }

  /** What `work` makes the server use: until it is quiet again, and how much of that when the work was done. */
  async during<T>(work: () => Promise<T>): Promise<{ result: T; cpu: Cpu; later: Cpu }> {
    await this.settle()
    const before = this.cpu()
    const result = await work()
    const done = this.cpu()
    await this.settle()
    return { result, cpu: difference(this.cpu(), before), later: difference(this.cpu(), done) }
  }

  /** Takes samples of memory until the function that it returns is called. */
  watch(intervalMs = SAMPLE_MS): () => Promise<Peak> {
    const peak = { pss: 0, rss: 0, processes: 0 }
    const sample = async (): Promise<void> => {
      const now = await this.memory()
      peak.pss = Math.max(peak.pss, now.pss)
      peak.rss = Math.max(peak.rss, now.rss)
      peak.processes = Math.max(peak.processes, now.processes)
    }
    let isOn = true
    const sampling = (async () => {
      while (isOn) {
        await sample()
        await sleep(intervalMs)
      }
    })()
    return async () => {
      isOn = false
      await sampling
      return peak
    }
  }

  /** Gives the group back, once the server has ended; ends what it left behind. */
  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#group === undefined) return
    removers.delete(this.#group)
    for (let tries = 0; tries < REMOVE_TRIES && !killAndRemove(this.#group); tries++) await sleep(REMOVE_MS)
  }
}

export function difference(after: Cpu, before: Cpu): Cpu {
  return {
    total: after.total - before.total,
    user: after.user - before.user,
    system: after.system - before.system,
  }
}

// ---------------------------------------------------------------------------------------------------
// What the kernel prints.

/** `cpu.stat` of a control group. */
export function parseCpuStat(text: string): Cpu {
  const seconds = (name: string): number => {
    const match = new RegExp(`^${name} (\\d+)$`, 'm').exec(text)
    if (!match) throw new Error(`cpu.stat has no ${name}:\n${text}`)
    return Number(match[1]) / 1e6
  }
  return { total: seconds('usage_usec'), user: seconds('user_usec'), system: seconds('system_usec') }
}

/** `/proc/PID/stat`: the process with the children that it has waited for. The name may hold anything. */
export function parseProcStat(text: string): Cpu {
  const fields = text.slice(text.lastIndexOf(')') + 2).split(' ')
  const ticks = (field: number): number => Number(fields[field - 3]) / TICKS_PER_SECOND // 1 and 2 are cut off
  const user = ticks(14) + ticks(16)
  const system = ticks(15) + ticks(17)
  return { total: user + system, user, system }
}

/** `/proc/PID/smaps_rollup`, in bytes; of a process that has ended, nothing. */
export function parseSmapsRollup(text: string): { pss: number; rss: number } {
  const bytes = (name: string): number =>
    Number(new RegExp(`^${name}:\\s+(\\d+) kB$`, 'm').exec(text)?.[1] ?? 0) * 1024
  return { pss: bytes('Pss'), rss: bytes('Rss') }
}

// ---------------------------------------------------------------------------------------------------
// Control groups and processes.

/** Groups whose processes must not outlive us, however we end. */
const removers = new Set<string>()
process.on('exit', () => {
  const nobody = new Int32Array(new SharedArrayBuffer(4))
  for (const group of removers) {
    // A process that has just been killed stays in its group until it is gone; an exit handler cannot await.
    for (let tries = 0; tries < REMOVE_TRIES && !killAndRemove(group); tries++)
      Atomics.wait(nobody, 0, 0, REMOVE_MS)
  }
})

function makeGroup(pid: number): string | undefined {
  for (const base of ['/sys/fs/cgroup', '/sys/fs/cgroup/unified']) {
    if (!existsSync(join(base, 'cgroup.controllers'))) continue
    const group = join(base, `upserv-bench-${process.pid}-${++groups}`)
    try {
      mkdirSync(group)
      for (const one of processTree(pid)) writeFileSync(join(group, 'cgroup.procs'), String(one))
      if (!existsSync(join(group, 'cpu.stat'))) throw new Error('no cpu.stat')
      removers.add(group)
      return group
    } catch {
      if (existsSync(group)) killAndRemove(group, 'leave')
    }
  }
  return undefined
}

/** @returns whether the group is gone. */
function killAndRemove(group: string, processes: 'kill' | 'leave' = 'kill'): boolean {
  try {
    if (processes === 'kill') {
      for (const pid of readFileSync(join(group, 'cgroup.procs'), 'utf8').split('\n').filter(Boolean))
        process.kill(Number(pid), 'SIGKILL')
    }
    rmdirSync(group)
    return true
  } catch {
    return !existsSync(group)
  }
}

/** What these processes have used since they started, their ended children included. */
function procCpu(pids: readonly number[]): Cpu {
  const sum = { total: 0, user: 0, system: 0 }
  for (const pid of pids) {
    const stat = readProc(`/proc/${pid}/stat`)
    if (stat === undefined) continue
    const { total, user, system } = parseProcStat(stat)
    sum.total += total
    sum.user += user
    sum.system += system
  }
  return sum
}

/** A process and its descendants. */
function processTree(pid: number): number[] {
  const found = [pid]
  for (let next = 0; next < found.length; next++) {
    const children = readProc(`/proc/${found[next]}/task/${found[next]}/children`) ?? ''
    found.push(...children.split(' ').filter(Boolean).map(Number))
  }
  return found
}

/** Undefined when the process has ended. */
function readProc(path: string): string | undefined {
  try {
    return readFileSync(path, 'latin1')
  } catch {
    return undefined
  }
}
