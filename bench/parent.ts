/**
 * `bench/parent`: what a build costs the link between a child server and its parent, where the child holds the
 * build before it, beside what the update of one device costs. Bytes do not depend on what else the machine does.
 */
import assert from 'node:assert/strict'
import { mkdirSync, readFileSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { formatSize } from '../src/lib/units.ts'
import { quoteForShell, run } from '../test/support/processes.ts'
import { rsyncEnds } from '../test/support/rsync.ts'
import { startUpserv } from '../test/support/upserv.ts'
import { debianPair, HOME, madePair } from './lib/data.ts'
import { startLink } from './lib/link.ts'
import { table } from './lib/markdown.ts'
import { startProgram } from './lib/program.ts'
import { describeMachine, provenance, saveResults, writeDocs } from './lib/report.ts'
import { fillData, startStock } from './lib/servers.ts'

const USAGE = `Usage: bench/parent [--short] [--write]

A child that holds one build gets the next one from its parent, and a device is updated from one to the other by
the stock daemon and by the child, with -z. Counts bytes of the link, both ways. Unless it is short, it fails when
the child's fetch takes more than 1.25 times what the stock daemon takes for one device.
`
/** A device's update costs this much more or less, depending on its compression. */
const MOST = 1.25
const STEP_MS = 30 * 60_000

interface Row {
  what: string
  bytes: number
}

const options = startProgram(USAGE, { rounds: 1 })
const machine = await describeMachine()
const { from, to } = await (options.short ? madePair() : debianPair())
const rows = await measure()
const [, child, device] = rows
const ratio = child!.bytes / device!.bytes
const text = [
  provenance('bench/parent', machine),
  `From build ${from.id} to build ${to.id}: ${to.entries} entries, ${formatSize(to.bytes)}.`,
  table(
    ['what', 'bytes on the link'],
    rows.map(({ what, bytes }) => [what, formatSize(bytes)]),
  ),
].join('\n\n')
console.log(`${text}\n`)
if (!options.short) saveResults('parent', { machine, rows })
if (options.write) writeDocs('bench/parent', text)
if (!options.short && ratio > MOST) {
  console.error(`${ratio.toFixed(2)} times a device's update is more than ${MOST}`)
  process.exitCode = 1
}

async function measure(): Promise<Row[]> {
  const archive = Number(await shell(`zstd -q -9 -T0 -c ${quoteForShell(to.tar)} | wc -c`))
  const upper = await fillData('parent', [from, to])
  const lower = await fillData('child', [from])
  const limits = { budget: '1TB', args: [] }
  const parent = await startUpserv({ data: upper, http: '127.0.0.1:0', ...limits })
  const port = Number(/ http:\/\/\S+:(\d+)/.exec(parent.ready)![1])
  try {
    await using link = await startLink(port)
    const school = await startUpserv({ data: lower, sources: [`upserv://127.0.0.1:${link.port}`], ...limits })
    try {
      const { code, stderr } = await school.cli(['fetch', to.id], { timeoutMs: STEP_MS })
      assert.equal(code, 0, stderr)
      const [theirs, ours] = [upper, lower].map((data) =>
        readFileSync(join(data, 'builds', to.id, 'manifest')),
      )
      assert.ok(theirs!.equals(ours!), 'the child has another build')
      const fetched = total(link.bytes)
      await using stock = await startStock([to])
      return [
        { what: 'the whole archive, tar with zstd -9', bytes: archive },
        { what: 'the child, from its parent', bytes: fetched },
        { what: 'one device, -z, from rsync --daemon', bytes: await update(stock.port) },
        { what: 'one device, -z, from the child: the first of its fleet', bytes: await update(school.port) },
      ]
    } finally {
      await school.stop()
    }
  } finally {
    await parent.stop()
    for (const data of [upper, lower]) rmSync(data, { recursive: true, force: true })
  }
}

/** Of a device that has the one build and gets the other. */
async function update(port: number): Promise<number> {
  const place = join(HOME, 'run', 'device')
  rmSync(place, { recursive: true, force: true })
  mkdirSync(place, { recursive: true })
  await using link = await startLink(port)
  const args = ['-aHXz', '--numeric-ids', `--compare-dest=${from.tree}`]
  await rsyncEnds(0, [...args, `rsync://127.0.0.1:${link.port}/build-${to.id}/root/`, place], {
    timeoutMs: STEP_MS,
  })
  rmSync(place, { recursive: true, force: true })
  return total(link.bytes)
}

function total({ toServer, toDevice }: { toServer: number; toDevice: number }): number {
  return toServer + toDevice
}

async function shell(script: string): Promise<string> {
  const { code, stdout, stderr } = await run('bash', ['-e', '-o', 'pipefail', '-c', script], {
    timeoutMs: STEP_MS,
  })
  assert.equal(code, 0, stderr)
  return stdout
}
