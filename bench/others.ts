/**
 * `bench/others`: what else ships system images, on the same pair: bytes to a device that has the old
 * build, CPU and storage on the server, and what has to be prepared. Each tool as its manual says; none
 * of them is told anything about the data.
 */
import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { linkSync, mkdirSync, rmSync, statSync } from 'node:fs'
import { cpus } from 'node:os'
import { join } from 'node:path'
import { formatSize } from '../src/lib/units.ts'
import { type Nginx, startNginx } from '../test/support/nginx.ts'
import { run } from '../test/support/processes.ts'
import { debianPair, HOME, madePair } from './lib/data.ts'
import { table } from './lib/markdown.ts'
import { figures } from './lib/numbers.ts'
import { startProgram } from './lib/program.ts'
import { describeMachine, loadResults, provenance, saveResults, writeDocs } from './lib/report.ts'
import { type Timed, timed } from './lib/timed.ts'

const USAGE = `Usage: bench/others [--short] [--write] [NAME...]

Measures casync, ostree, zsync, xz, xdelta3 and zstd --patch-from on the pair of bench/run:
all, or those that are named beside what the last run has of the others. What is not installed is left out:
apt-get install casync ostree zsync xdelta3 zstd xz-utils nginx-light.
`

/** xz of a whole system takes many minutes. */
const TOOL_MS = 3 * 60 * 60_000

interface OtherRow {
  readonly tool: string
  readonly pair: string
  /** When it was measured. */
  readonly date: string
  readonly what: string
  /** Bytes that a device takes to get from the old build to the new; what it sends is in `requests`. */
  readonly bytes: number
  readonly requests: number | undefined
  /** Bytes on the server that holds both builds. */
  readonly storage: number
  /** CPU seconds: made ready for the new build, and taken by the device. */
  readonly prepareCpu: number
  readonly deviceCpu: number | undefined
  readonly remark: string
}

const options = startProgram(USAGE, { rounds: 1 })
const pair = options.short ? await madePair() : await debianPair()
const { from, to } = pair
const machine = await describeMachine()
const home = join(HOME, 'others')
rmSync(home, { recursive: true, force: true })
mkdirSync(home, { recursive: true })
const nginx = await startNginx({ root: home, scratch: join(HOME, 'run', 'nginx') })
const resultsName = options.short ? 'others-short' : 'others'
const last = options.only.length > 0 ? loadResults<{ rows: OtherRow[] }>(resultsName) : undefined
/** Of what is not measured now, what was measured on this pair before. */
let rows: OtherRow[] = (last?.rows ?? []).filter((row) => row.pair === pair.name)
/** What is being measured. */
let tool = ''

const TOOLS: Record<string, () => Promise<void>> = { casync, ostree, zsync, xz, xdelta3, zstd }
const left: string[] = []
for (const [name, measure] of Object.entries(TOOLS)) {
  if (options.only.length > 0 && !options.only.includes(name)) continue
  if (spawnSync('sh', ['-c', `command -v ${name}`]).status !== 0) {
    left.push(name)
    continue
  }
  console.error(`${name} ...`)
  tool = name
  rows = rows.filter((row) => row.tool !== name)
  await measure()
  saveResults(resultsName, { machine, rows })
}
await nginx.stop()
rmSync(home, { recursive: true, force: true })

const text = [
  provenance(
    ['bench/others', ...process.argv.slice(2).filter((word) => word !== '--write')].join(' '),
    machine,
  ),
  `${pair.description}. MB to a device that has the old build, and on a server that holds both; CPU seconds on ${cpus().length} processors. A static web server's own CPU is hardly anything: what these cost is what is prepared for each build, or for each pair of builds, and stored.`,
  table(
    ['what', 'to the device', 'requests', 'on the server', 'to prepare, s', 'device, s', ''],
    rows
      .toSorted(byTool)
      .map((row) => [
        ...[row.what, figures(row.bytes / 1e6), String(row.requests ?? ''), figures(row.storage / 1e6)],
        ...[
          figures(row.prepareCpu),
          row.deviceCpu === undefined ? '' : figures(row.deviceCpu),
          remarkOf(row),
        ],
      ]),
  ),
  ...(left.length > 0 ? [`Not installed: ${left.join(', ')}.`] : []),
].join('\n\n')
console.log(text)
if (options.write) writeDocs('bench/others', text)

// ---------------------------------------------------------------------------------------------------

/** Content-defined chunks; the device has the old build's tree as a seed. */
async function casync(): Promise<void> {
  const store = inHome('casync')
  const chunks = `--store=${join(store, 's.castr')}`
  const first = await succeed('casync', ['make', chunks, join(store, 'a.caidx'), from.tree])
  const second = await succeed('casync', ['make', chunks, join(store, 'b.caidx'), to.tree])
  const url = `${nginx.url}/casync`
  const out = inHome('casync-out')
  const pulled = await counted(nginx, () =>
    succeed('casync', [
      ...['extract', `--store=${url}/s.castr`, `--seed=${from.tree}`],
      ...[`${url}/b.caidx`, join(out, 'tree')],
    ]),
  )
  add(
    'casync, seeded with the old tree',
    pulled,
    await size(store),
    first.cpu + second.cpu,
    'a client of its own',
  )
}

/** Objects by digest; /dev is left out, which it does not take. */
async function ostree(): Promise<void> {
  const repo = inHome('ostree')
  const [client, second] = [inHome('ostree-client'), inHome('ostree-client-2')]
  const commit = async (tree: string): Promise<Timed> => {
    const hidden = 'mount -t tmpfs none "$1/dev" && exec ostree --repo="$2" commit -b os --tree=dir="$1"'
    return succeed('unshare', ['--mount', 'sh', '-c', hidden, 'sh', tree, repo])
  }
  await succeed('ostree', [`--repo=${repo}`, 'init', '--mode=archive'])
  const made = await commit(from.tree)
  const old = (await run('ostree', [`--repo=${repo}`, 'rev-parse', 'os'])).stdout.trim()
  await succeed('ostree', [`--repo=${client}`, 'init', '--mode=bare'])
  const url = `${nginx.url}/ostree`
  await succeed('ostree', [`--repo=${client}`, 'remote', 'add', '--no-gpg-verify', 'r', url])
  await succeed('ostree', [`--repo=${client}`, 'pull', 'r', 'os'])
  const madeToo = await commit(to.tree)
  rmSync(second, { recursive: true })
  await succeed('cp', ['-a', client, second])
  const pull = ['pull', 'r', 'os']
  const objects = await counted(nginx, () => succeed('ostree', [`--repo=${client}`, ...pull]))
  const cpu = made.cpu + madeToo.cpu
  add('ostree', objects, await size(repo), cpu, 'a client of its own, which keeps a repository')
  const delta = await succeed('ostree', [
    ...[`--repo=${repo}`, 'static-delta', 'generate', `--from=${old}`, '--to=os'],
  ])
  await succeed('ostree', [`--repo=${repo}`, 'summary', '-u'])
  const withDelta = await counted(nginx, () =>
    succeed('ostree', [`--repo=${second}`, 'pull', '--require-static-deltas', ...pull.slice(1)]),
  )
  add(
    'ostree with a static delta',
    withDelta,
    await size(repo),
    cpu + delta.cpu,
    'a delta for each pair of builds',
  )
}

/** The archive's blocks; the device has the old archive. */
async function zsync(): Promise<void> {
  const store = inHome('zsync')
  linkSync(to.tar, join(store, 'b.tar'))
  const plain = await succeed('zsyncmake', ['-u', 'b.tar', '-o', 'b.tar.zsync', 'b.tar'], store)
  const gzipped = await succeed('zsyncmake', ['-z', '-u', 'b.tar.gz', '-o', 'b.gz.zsync', 'b.tar'], store)
  for (const [file, made, title] of [
    ['b.tar.zsync', plain, 'zsync, plain archive'],
    ['b.gz.zsync', gzipped, 'zsync, archive as gz'],
  ] as const) {
    const device = inHome('zsync-device')
    const pulled = await counted(nginx, () =>
      succeed('zsync', ['-q', '-i', from.tar, `${nginx.url}/zsync/${file}`], device),
    )
    // The old build's archive takes about as much as the new one's.
    const served = join(store, file === 'b.gz.zsync' ? 'b.tar.gz' : 'b.tar')
    const storage = 2 * (statSync(served).size + statSync(join(store, file)).size)
    add(title, pulled, storage, made.cpu, 'the device keeps the old archive')
  }
}

/** No difference at all: the whole archive, as small as it gets. */
async function xz(): Promise<void> {
  const file = join(home, 'b.tar.xz')
  const made = await succeed('sh', ['-c', 'exec xz -T0 -c "$1" > "$2"', 'sh', to.tar, file])
  const bytes = statSync(file).size
  rows.push({
    ...{ ...occasion(), what: 'whole .tar.xz', bytes, requests: 1, storage: 2 * bytes },
    ...{ prepareCpu: made.cpu, deviceCpu: undefined, remark: 'nothing is needed of the old build' },
  })
}

/** One difference between whole archives, for each pair of builds. */
async function xdelta3(): Promise<void> {
  const file = join(home, 'ab.xd3')
  const window = String(Math.max(statSync(from.tar).size, 1 << 20)) // the whole old archive can be referred to
  const made = await succeed('xdelta3', ['-f', '-e', '-9', '-B', window, '-s', from.tar, to.tar, file])
  await addPatch('xdelta3 -9 of the archives', file, made)
}

async function zstd(): Promise<void> {
  for (const level of [3, 9]) {
    const file = join(home, `ab-${level}.zst`)
    const args = ['-q', '-f', `-${level}`, '--long=31', `--patch-from=${from.tar}`, to.tar, '-o', file]
    await addPatch(`zstd -${level} --patch-from of the archives`, file, await succeed('zstd', args))
  }
}

async function addPatch(what: string, file: string, made: Timed): Promise<void> {
  const bytes = statSync(file).size
  const memory = formatSize(made.maxRss)
  rows.push({
    ...{
      ...occasion(),
      what,
      bytes,
      requests: 1,
      storage: 2 * bytes,
      prepareCpu: made.cpu,
      deviceCpu: undefined,
    },
    remark: `for each pair of builds; ${memory} of memory; the device keeps the old archive; storage is the patches alone`,
  })
}

// ---------------------------------------------------------------------------------------------------

interface Pulled {
  readonly bytes: number
  readonly requests: number
  readonly device: Timed
}

/** What a device took from the web server while it did its work. */
async function counted(server: Nginx, work: () => Promise<Timed>): Promise<Pulled> {
  const before = server.requests().length
  const device = await work()
  const requests = server.requests().slice(before)
  const bytes = requests.reduce((sum, { bytes }) => sum + bytes, 0)
  return { bytes, requests: requests.length, device }
}

function add(what: string, pulled: Pulled, storage: number, prepareCpu: number, remark: string): void {
  const { bytes, requests, device } = pulled
  rows.push({ ...occasion(), what, bytes, requests, storage, prepareCpu, deviceCpu: device.cpu, remark })
}

function remarkOf({ remark, date }: OtherRow): string {
  return date === machine.date ? remark : `${remark} (${date})`
}

function occasion(): Pick<OtherRow, 'tool' | 'pair' | 'date'> {
  return { tool, pair: pair.name, date: machine.date }
}

function byTool(one: OtherRow, other: OtherRow): number {
  const order = Object.keys(TOOLS)
  return order.indexOf(one.tool) - order.indexOf(other.tool)
}

async function succeed(program: string, args: readonly string[], cwd = home): Promise<Timed> {
  const result = await timed(program, args, { cwd, timeoutMs: TOOL_MS })
  assert.equal(
    result.code,
    0,
    `${result.command}\n${result.stdout.slice(-500)}${result.stderr.slice(-2_000)}`,
  )
  return result
}

function inHome(name: string): string {
  const path = join(home, name)
  rmSync(path, { recursive: true, force: true })
  mkdirSync(path)
  return path
}

async function size(directory: string): Promise<number> {
  const { stdout } = await run('du', ['-sb', directory], { timeoutMs: TOOL_MS })
  return Number.parseInt(stdout, 10)
}
