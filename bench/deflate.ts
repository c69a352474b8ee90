/**
 * `bench/deflate`: our deflate beside zlib's, on pieces of a file as the refiner has them. Prints what each takes, in
 * bytes and of the processor.
 */
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { parseArgs } from 'node:util'
import { constants, deflateRawSync, inflateRawSync } from 'node:zlib'
import { DEFLATE_WINDOW, MAX_PIECE } from '../src/rsync/codecs.ts'
import { deflate } from '../src/rsync/deflate.ts'
import { countOf, EXIT_USAGE } from './lib/program.ts'

const USAGE = `Usage: bench/deflate [--every N] FILE

Compresses every Nth piece of 256 KiB (all of them, without --every) of FILE, each with 32 KiB of history:
by zlib at levels 6 and 9, and as the refiner does it.
`

const { every, path } = readOptions()

const finishFlush = constants.Z_SYNC_FLUSH
const zlib = (level: number) => (piece: Buffer, dictionary: Buffer) =>
  deflateRawSync(piece, { level, dictionary, finishFlush })
const ways = { 'zlib 6': zlib(6), 'zlib 9': zlib(9), upserv: deflate }

const all = readFileSync(path)
const rows = Object.entries(ways).map(([name, compress]) => ({ name, compress, bytes: 0, micros: 0 }))
let size = 0
for (let at = MAX_PIECE; at < all.length; at += MAX_PIECE * every) {
  const piece = all.subarray(at, at + MAX_PIECE)
  const history = all.subarray(at - DEFLATE_WINDOW, at)
  size += piece.length
  for (const row of rows) {
    const before = process.threadCpuUsage()
    const data = row.compress(piece, history)
    const { user, system } = process.threadCpuUsage(before)
    row.micros += user + system
    row.bytes += data.length
    assert.ok(inflateRawSync(data, { dictionary: history, finishFlush }).equals(piece))
  }
}

console.log(`${size} bytes`)
for (const { name, bytes, micros } of rows) {
  const share = ((100 * bytes) / rows[1]!.bytes).toFixed(2)
  console.log(
    `${name.padEnd(7)} ${bytes} bytes, ${share} % of zlib 9, ${(size / micros).toFixed(1)} MB for a second of CPU`,
  )
}

function readOptions(): { every: number; path: string } {
  try {
    const { values, positionals } = parseArgs({
      options: { every: { type: 'string', default: '1' }, help: { type: 'boolean', default: false } },
      allowPositionals: true,
    })
    if (values.help) {
      process.stdout.write(USAGE)
      process.exit(0)
    }
    const [path, ...more] = positionals
    if (path === undefined || more.length > 0) throw new Error('It takes one FILE.')
    return { every: countOf(values.every), path }
  } catch (error) {
    process.stderr.write(`${(error as Error).message}\n${USAGE}`)
    process.exit(EXIT_USAGE)
  }
}
