/** What V8's profiler wrote (`--cpu-prof`), as a table of where the time went. */

/** The part of a .cpuprofile that is read. Times are microseconds of the machine's monotonic clock. */
export interface CpuProfile {
  readonly nodes: readonly {
    readonly id: number
    readonly callFrame: { readonly functionName: string; readonly url: string; readonly lineNumber: number }
  }[]
  readonly startTime: number
  readonly samples: readonly number[]
  readonly timeDeltas: readonly number[]
}

export interface SelfTime {
  /** `name (file:line)`, or in brackets what isn't JavaScript. */
  readonly where: string
  readonly seconds: number
}

/** Nobody was at work, or a thread of the pool waited for some; in a profile they would hide those who were. */
const NOT_WORK = /^(\(idle\)|\(root\)|atomicsWaitLoop \(piscina\b.*)$/

/** Time spent in each function itself between two moments, over all threads' profiles, most first. */
export function selfTimes(profiles: readonly CpuProfile[], from: number, to: number): SelfTime[] {
  const sums = new Map<string, number>()
  for (const { nodes, startTime, samples, timeDeltas } of profiles) {
    const names = new Map(nodes.map(({ id, callFrame }) => [id, nameOf(callFrame)]))
    let now = startTime
    for (const [index, id] of samples.entries()) {
      // A sample stands for the time until the next one.
      now += timeDeltas[index] ?? 0
      const lasted = timeDeltas[index + 1] ?? 0
      const where = names.get(id) ?? '(unknown)'
      if (now >= from && now < to && !NOT_WORK.test(where)) sums.set(where, (sums.get(where) ?? 0) + lasted)
    }
  }
  return [...sums]
    .map(([where, microseconds]) => ({ where, seconds: microseconds / 1e6 }))
    .sort((a, b) => b.seconds - a.seconds)
}

function nameOf({ functionName, url, lineNumber }: CpuProfile['nodes'][number]['callFrame']): string {
  if (url === '') return functionName.startsWith('(') ? functionName : `(native) ${functionName}`
  const file = url.replace(/^.*\/(?=src\/|bin\/)/, '').replace(/^.*\/node_modules\//, '')
  return `${functionName || '(anonymous)'} (${file}:${lineNumber + 1})`
}
