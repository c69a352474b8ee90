/**
 * Measures what incremental recursion is worth (docs/adr/0005-incremental-recursion.md). Figures are the
 * kernel's, from /proc: processor time is exact, peaks of memory are looked at every few milliseconds.
 */
import { type ChildProcess, spawn } from 'node:child_process'
import { mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { makeArchive } from '../test/support/archive.ts'
import { RSYNC, rsyncSucceeds } from '../test/support/rsync.ts'
import { startRsyncd } from '../test/support/rsyncd.ts'
import { makeScratch, removeTree } from '../test/support/scratch.ts'
import { startUpserv } from '../test/support/upserv.ts'

/** How often memory is looked at. */
const LOOK_MS = 10
/** Each case runs so often; the median by time is printed. */
const RUNS = 3
const TICKS_PER_SECOND = 100

const [directories = 2000, files = 100] = process.argv.slice(2).map(Number)
using scratch = makeScratch('bench-recursion')

console.log(`${directories} directories of ${files} files, ${directories * (files + 1) + 1} entries.`)
const modules = join(scratch.path, 'modules')
const tree = join(modules, 'root')
for (let d = 0; d < directories; d++) {
  const directory = join(tree, `group-${d % 20}`, `directory-${d}`)
  mkdirSync(directory, { recursive: true })
  for (let f = 0; f < files; f++) writeFileSync(join(directory, `file-${f}.txt`), `file ${f} of ${d}\n`)
}
const archive = await makeArchive({ tree, path: join(scratch.path, 'big'), suffix: 'tar' })
const daemonFiles = join(scratch.path, 'rsyncd')
mkdirSync(daemonFiles)
const stock = await startRsyncd({ scratch: daemonFiles, modules: { 'build-big': { path: modules } } })
const upserv = await startUpserv({
  data: join(scratch.path, 'data'),
  sources: [`file://${archive.replace('big.tar', '{build}.tar')}`],
})
// The fetch, and what is worked out once for a build.
await rsyncSucceeds(['-r', '--list-only', `rsync://127.0.0.1:${upserv.port}/build-big/`], {
  timeoutMs: 600_000,
})

const SERVERS = [
  { name: 'rsyncd, a list per directory', port: stock.port, pid: stock.process.child.pid!, options: [] },
  {
    name: 'rsyncd, one list',
    port: stock.port,
    pid: stock.process.child.pid!,
    options: ['--no-inc-recursive'],
  },
  { name: 'upserv, one list', port: upserv.port, pid: upserv.process.child.pid!, options: [] },
]

console.log(`
| request | server | first sign, s | total, s | client CPU, s | client peak, MB | server CPU, s | server before, MB | server peak, MB |
|---|---|---|---|---|---|---|---|---|`)
for (const request of ['list', 'first copy', 'nothing to do'] as const) {
  for (const { name, port, pid, options } of SERVERS) {
    const device = join(scratch.path, 'device')
    const url = `rsync://127.0.0.1:${port}/build-big/root/`
    if (request === 'nothing to do') await rsyncSucceeds(['-a', url, device], { timeoutMs: 600_000 })
    const runs: Figures[] = []
    for (let n = 0; n < (request === 'first copy' ? 1 : RUNS); n++) {
      if (request === 'first copy') removeTree(device)
      const args = request === 'list' ? ['-r', '--list-only', url] : ['-a', url, device]
      runs.push(await measure([...options, ...args], pid, request === 'first copy' ? device : undefined))
    }
    const median = runs.sort((a, b) => a.total - b.total)[Math.floor(runs.length / 2)]!
    const { first, total, clientCpu, clientPeak, serverCpu, serverBefore, serverPeak } = median
    const cells = [
      first === undefined ? '' : first.toFixed(2),
      total.toFixed(2),
      clientCpu.toFixed(2),
      (clientPeak / 1e6).toFixed(0),
      serverCpu.toFixed(2),
      (serverBefore / 1e6).toFixed(0),
      (serverPeak / 1e6).toFixed(0),
    ]
    console.log(`| ${request} | ${name} | ${cells.join(' | ')} |`)
    if (request !== 'list') removeTree(device)
  }
}
await upserv.stop()
await stock.stop()

interface Figures {
  /** Until the first line of a listing, or the first file in the destination. */
  first: number | undefined
  total: number
  clientCpu: number
  /** Of all of the client's processes together. */
  clientPeak: number
  serverCpu: number
  /** Of the server and its children. */
  serverBefore: number
  serverPeak: number
}

async function measure(args: string[], server: number, device: string | undefined): Promise<Figures> {
  const cpuBefore = cpuOf(server)
  const serverBefore = memoryOf([server])
  const began = performance.now()
  const seconds = (): number => (performance.now() - began) / 1000
  // The shell tells the processor time of the client, all of its processes included, when that has ended.
  const child = spawn('sh', ['-c', '"$@"; times >&2', 'sh', RSYNC, ...args], {
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  let first: number | undefined
  let said = ''
  child.stdout.on('data', () => {
    first ??= seconds()
  })
  child.stderr.on('data', (chunk: Buffer) => {
    said += chunk.toString()
  })
  const ended = new Promise<void>((resolve) => child.once('close', () => resolve()))
  let clientPeak = 0
  let serverPeak = 0
  while (child.exitCode === null) {
    clientPeak = Math.max(clientPeak, memoryOf(descendants(child)))
    serverPeak = Math.max(serverPeak, memoryOf([server, ...childrenOf(server)]))
    if (device !== undefined && first === undefined && hasFile(device)) first = seconds()
    await Promise.race([ended, sleep(LOOK_MS)])
  }
  const total = seconds()
  await ended
  // "0m0.01s 0m0.02s" of the shell, then of its children.
  const [, , user, system] = [...said.matchAll(/(\d+)m([\d.]+)s/g)].map(
    ([, m, s]) => Number(m) * 60 + Number(s),
  )
  if (user === undefined || system === undefined) throw new Error(`the client said: ${said}`)
  // A daemon's child is counted once it has been waited for.
  while (childrenOf(server).length > 0) await sleep(LOOK_MS)
  const serverCpu = cpuOf(server) - cpuBefore
  return { first, total, clientCpu: user + system, clientPeak, serverCpu, serverBefore, serverPeak }
}

/** Seconds of processor time: of all threads, and of all children that have ended. */
function cpuOf(pid: number): number {
  const fields = readFileSync(`/proc/${pid}/stat`, 'utf8').split(') ')[1]!.split(' ')
  return fields.slice(11, 15).reduce((sum, ticks) => sum + Number(ticks), 0) / TICKS_PER_SECOND
}

/** Bytes that the processes have to themselves or share; pages that a fork shares count once. */
function memoryOf(pids: readonly number[]): number {
  let bytes = 0
  for (const pid of pids) {
    try {
      const rollup = readFileSync(`/proc/${pid}/smaps_rollup`, 'utf8')
      bytes += Number(/^Pss:\s+(\d+) kB/m.exec(rollup)![1]) * 1024
    } catch {
      // It has ended meanwhile.
    }
  }
  return bytes
}

function descendants(child: ChildProcess): number[] {
  const found: number[] = []
  const todo = child.pid === undefined ? [] : childrenOf(child.pid)
  for (let pid = todo.pop(); pid !== undefined; pid = todo.pop()) {
    found.push(pid)
    todo.push(...childrenOf(pid))
  }
  return found
}

function childrenOf(pid: number): number[] {
  try {
    const text = readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8')
    return text
      .split(' ')
      .filter((word) => word !== '')
      .map(Number)
  } catch {
    return []
  }
}

/** Whether a file has arrived anywhere below. The first directories are looked at, which come first. */
function hasFile(path: string): boolean {
  try {
    for (const entry of readdirSync(path, { withFileTypes: true })) {
      if (entry.isFile() && !entry.name.startsWith('.')) return true
      if (entry.isDirectory() && hasFile(join(path, entry.name))) return true
    }
  } catch {
    // It is not there yet.
  }
  return false
}
