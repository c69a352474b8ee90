/**
 * A control group whose processes take the processors only while nobody else wants them.
 *
 * The scheduling class for that (`chrt --idle`) is not enough: where the kernel groups processes by session, which
 * most desktops and servers have it do, fifty sessions get fifty times what one gets, whatever their classes.
 */
import { existsSync, mkdirSync, rmdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'

/** Of the cpu controller: of version 1, and of version 2. */
const BASES = ['/sys/fs/cgroup/cpu', '/sys/fs/cgroup']

let groups = 0

export class IdleGroup implements Disposable {
  /** Undefined where there is none: no rights, or the kernel can't. */
  readonly #directory: string | undefined

  constructor() {
    this.#directory = BASES.map(makeIn).find((directory) => directory !== undefined)
    if (this.#directory === undefined)
      console.error(
        'No control group can be made that runs when nobody else does: the server is late for want of time.',
      )
  }

  /** The command, run in the group; with the scheduling class alone, where there is none. */
  wrap(command: readonly string[]): string[] {
    if (this.#directory === undefined) return ['chrt', '--idle', '0', ...command]
    const procs = join(this.#directory, 'cgroup.procs')
    return ['sh', '-c', 'echo $$ >"$0" && exec "$@"', procs, ...command]
  }

  /** To be called when all have ended; while one runs the group stays. */
  [Symbol.dispose](): void {
    try {
      if (this.#directory !== undefined) rmdirSync(this.#directory)
    } catch {
      // What went wrong with its clients is told by whoever waits for them.
    }
  }
}

function makeIn(base: string): string | undefined {
  if (!existsSync(base)) return undefined
  const directory = join(base, `upserv-bench-idle-${process.pid}-${++groups}`)
  try {
    mkdirSync(directory)
  } catch {
    return undefined
  }
  try {
    if (!existsSync(join(directory, 'cpu.idle'))) throw new Error('no cpu controller')
    writeFileSync(join(directory, 'cpu.idle'), '1')
    return directory
  } catch {
    rmdirSync(directory)
    return undefined
  }
}
