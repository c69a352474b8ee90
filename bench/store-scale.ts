/**
 * How the store grows: makes a data directory of many builds and measures what an operator and a client
 * wait for, and how long the event loop is held meanwhile. Run as
 *
 *     bench/store-scale [BUILDS] [ENTRIES] [NEW]      default: 1000 10000 1000
 *
 * Each build has ENTRIES files, NEW of them with content of its own, the others shared with builds before
 * it. Contents are tiny: what counts here is how many there are. Results stand in docs/benchmarks-store.md.
 */
import { mkdtempSync, rmSync } from 'node:fs'
import { cpus, tmpdir } from 'node:os'
import { join } from 'node:path'
import { Catalog } from '../src/build/catalog.ts'
import { BuildEvictor } from '../src/build/evictor.ts'
import { Store } from '../src/store/store.ts'
import { BLOB_BYTES, fillStore } from './lib/many-builds.ts'
import { startCounting } from './lib/program.ts'

const USAGE = `Usage: bench/store-scale [BUILDS] [ENTRIES] [NEW]

Makes a data directory of BUILDS builds (1000) with ENTRIES entries each (10000), NEW of them (1000) with content
of their own, and measures what an operator and a client wait for, and how long the event loop is held.
`
const [builds = 1000, entries = 10_000, fresh = 1000] = startCounting(USAGE).numbers

async function main(): Promise<void> {
  const root = mkdtempSync(join(process.env.UPSERV_BENCH_DIR ?? tmpdir(), 'upserv-scale-'))
  try {
    console.log(
      `${new Date().toISOString().slice(0, 10)}, node ${process.version}, ${cpus().length} x ${cpus()[0]?.model}`,
    )
    console.log(`${builds} builds of ${entries} entries, ${fresh} new blobs each`)
    const data = join(root, 'data')
    await fillStore(data, { builds, entries, fresh })
    await measure(data)
  } finally {
    rmSync(root, { recursive: true, force: true })
  }
}

async function measure(data: string): Promise<void> {
  const before = await memory()
  const store = await timed('open', () => Store.open(data))
  console.log(`  blobs: ${store.packs.index.size}, packs: ${store.packs.count}`)
  const middle = String(Math.floor(builds / 2))
  await timed('is a build whole, right after the start', () => store.damage(middle))
  await timed('manifest, the first time', () => store.manifest(middle))
  await timed('manifest, again', () => store.manifest(middle))
  await timed('counting all blobs, in the background', () => store.marked())
  const shared = Object.values(store.packs.index.view()).reduce((sum, { byteLength }) => sum + byteLength, 0)
  const after = (await memory()) + shared
  console.log(`  memory: ${Math.round((after - before) / 2 ** 20)} MiB`)
  await timed('list: what each would free', () => store.exclusiveBytes())
  await timed('an ingest begins', async () => store.discardIngest(await store.beginIngest('new')))
  await timed('dead bytes', () => store.deadBytes())
  const manifest = await store.manifest(middle)
  await timed('find 1000 blobs', async () => {
    for (let i = 0; i < 1000; i++) store.packs.index.find(manifest.blobDigest(i % manifest.blobCount))
  })
  const evictor = new BuildEvictor(store, new Catalog(store))
  await timed('evict one build', () => evictor.evict(1))
  if (builds > 20)
    await timed('evict ten builds more', () =>
      evictor.evict(10 * (store.fileBytes(middle) + fresh * BLOB_BYTES)),
    )
  await timed('remove what is left of ten, and sweep', async () => {
    for (const id of store.ids().slice(0, 10)) await store.remove(id)
    await store.collect()
  })
  await store.close()
}

/**
 * Runs something and prints how long it took, by the clock and in this thread's own time, and how long
 * others had to wait for the event loop at worst: in own time, as on a machine that does nothing else.
 */
async function timed<T>(what: string, work: () => Promise<T>): Promise<T> {
  let last = 0
  let worst = 0
  let done = false
  const look = (): void => {
    const now = ownMs()
    worst = Math.max(worst, now - last)
    last = now
    if (!done) setImmediate(look)
  }
  last = ownMs()
  setImmediate(look)
  await new Promise((resolve) => setImmediate(resolve))
  const began = performance.now()
  const ownBegan = ownMs()
  last = ownBegan
  const result = await work()
  const ms = performance.now() - began
  const own = ownMs() - ownBegan
  worst = Math.max(worst, ownMs() - last)
  done = true
  console.log(row(what, ms, own, worst))
  return result
}

/** What this thread has worked so far, in ms. */
function ownMs(): number {
  const { user, system } = process.threadCpuUsage()
  return (user + system) / 1000
}

function row(what: string, ms: number, own?: number, worst?: number): string {
  const detail =
    own === undefined || worst === undefined
      ? ''
      : `, ${own.toFixed(1)} of work, at most ${worst.toFixed(1)} at a stretch`
  return `  ${what.padEnd(42)} ${ms.toFixed(1).padStart(9)} ms${detail}`
}

/** What is in use, in bytes, without what threads share. */
async function memory(): Promise<number> {
  // Array buffers go a turn after what held them.
  for (let i = 0; i < 3; i++) {
    globalThis.gc?.()
    await new Promise((resolve) => setTimeout(resolve, 50))
  }
  const { heapUsed, external } = process.memoryUsage()
  return heapUsed + external
}

await main()
